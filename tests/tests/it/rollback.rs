//! Going back: by steps, to a time, to a digest, as a whole release; over releases that wait; and
//! with content that the registry has collected meanwhile.

use colophon_testkit::image::ImageSpec;
use colophon_tests::{SiteOptions, World};
use serde_json::{Value, json};

use crate::{
    kill::{Crew, TIMES},
    ledger_check,
    release_scene::{assert_refused, expected, state, tags, tags_with_hosts, text},
    safe_scene::{
        accepted, deeds, digest, ended, foreign, frozen, lift, message, rollback, rolled_back,
        two_targets, waits, with,
    },
};

/// A crew that has published these images to `app:latest`, one after the other.
async fn published<const N: usize>(crew: &Crew) -> [String; N] {
    let mut images = Vec::new();
    for number in 0..N {
        let image = crew.image(&ImageSpec::tiny(format!("build {number}")), "app").await;
        crew.publish_well(&image, "app", &[&format!("1.{number}")], &["latest"]).await;
        images.push(image);
    }
    images.try_into().unwrap()
}

fn by(position: &str, value: &str) -> Value {
    json!({ position: value })
}

#[tokio::test]
async fn a_second_rollback_goes_further_back() {
    let crew = Crew::new(1).await;
    let [first, second, third] = published(&crew).await;
    let latest = format!("{}:latest", crew.target.repository("app"));
    let line = ["rollback", &latest, "--reason", "500s"];
    for wanted in [&second, &first] {
        let output = crew.world.cli(&crew.api, &line).await.unwrap();
        assert_eq!(output.code, Some(0), "{output:?}");
        assert_eq!(crew.target.inspect("app", "latest").await.unwrap(), digest(wanted));
    }
    let output = crew.world.cli(&crew.api, &line).await.unwrap();
    assert_eq!(output.code, Some(16), "{output:?}");
    assert!(output.err.contains("NOT_IN_HISTORY") && output.err.contains("0 steps"), "{output:?}");
    let entries = deeds(&crew.client, &latest).await;
    assert_eq!(entries[3..], ["confirmed rollback", "confirmed rollback"]);

    // To a digest that it had, and to a time.
    let release = rolled_back(&crew.client, &latest, &by("digest", digest(&third))).await;
    assert_eq!((state(&release).as_str(), text(&release, "/purpose")), ("SUCCEEDED", "rollback"));
    let mut moves = crew.client.moves(&latest).await.unwrap();
    moves.retain(|entry| text(entry, "/newDigest") == digest(&second));
    let then = text(moves.last().unwrap(), "/at");
    let release = rolled_back(&crew.client, &latest, &by("at", then)).await;
    // The time of the intent is the newest at which the tag was at the build before.
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    assert_eq!(crew.target.inspect("app", "latest").await.unwrap(), digest(&first));
    let confirmed = moves.iter().rfind(|entry| text(entry, "/kind") == "confirmed").unwrap();
    let release = rolled_back(&crew.client, &latest, &by("at", text(confirmed, "/at"))).await;
    assert_eq!(text(&release, "/publications/0/tags/0/newDigest"), digest(&second));
    // Where it is already: nothing to do, and no error.
    let release = rolled_back(&crew.client, &latest, &by("digest", digest(&second))).await;
    assert_eq!(tags(&release), expected(&[("app:latest", "UNCHANGED")]), "{release:#}");

    // What is not in its past.
    let never = format!("sha256:{}", "5".repeat(64));
    let refused = async |position: &Value| {
        let mut body = json!({ "reference": latest, "reason": "a test" });
        crate::safe_scene::merge(&mut body, position);
        rollback(&crew.client, &body).await
    };
    for (position, field) in [
        (json!({ "steps": 9 }), "steps"),
        (by("digest", &never), "digest"),
        (by("at", "2026-01-01T00:00:00Z"), "at"),
    ] {
        let answer = refused(&position).await;
        assert_eq!((answer.text("/reason"), answer.text("/field")), ("NOT_IN_HISTORY", field));
        assert!(!answer.text("/remedy").is_empty(), "{:#}", answer.body);
    }
    let elsewhere = json!({ "digest": digest(&first), "expectedDigest": digest(&third) });
    let answer = refused(&elsewhere).await;
    let release = answer.good().unwrap();
    let release = crew.client.wait_end(text(&release, "/id")).await.unwrap();
    assert_eq!(state(&release), "FAILED TAG_MOVED", "{release:#}");
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}

#[tokio::test]
async fn a_whole_release_goes_back_unless_somebody_moved_its_tags_since() {
    let (crew, second) = two_targets(TIMES, 1).await;
    let old = crew.image(&ImageSpec::tiny("old"), "app").await;
    let new = crew.image(&ImageSpec::tiny("new"), "app").await;
    let (here, there) = (crew.target.repository("app"), second.repository("app"));
    let request = |source: &str, unique: &str, floats: &[&str]| {
        with(source, &[(&here, &[unique], floats), (&there, &[unique], &["latest"])], &json!({}))
    };
    let release = ended(&crew.client, &request(&old, "1", &["latest"])).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    let release = ended(&crew.client, &request(&new, "2", &["latest", "brand-new"])).await;
    let id = text(&release, "/id").to_owned();

    let line = ["rollback", "--release", &id, "--reason", "wrong version"];
    let output = crew.world.cli(&crew.api, &line).await.unwrap();
    assert_eq!(output.code, Some(0), "{output:?}");
    for site in [&crew.target, &second] {
        assert_eq!(site.inspect("app", "latest").await.unwrap(), digest(&old));
        assert_eq!(site.inspect("app", "2").await.unwrap(), digest(&new), "it never moves");
    }
    let page = crew.client.get("/v1/releases", &[("page_size", "1")]).await.unwrap();
    let back = &page["releases"][0];
    let kept = tags_with_hosts(back)[&format!("{here}:brand-new")].clone();
    assert_eq!(kept, "KEPT NOT_IN_HISTORY", "{back:#}");
    assert!(message(back, "brand-new").contains("did not exist before"), "{back:#}");

    // The rollback has moved its tags: there is nothing left that could go back twice.
    let again = json!({ "release": id, "reason": "once more" });
    let answer = rollback(&crew.client, &again).await;
    assert_refused(&answer, 409, "TAG_MOVED", "release");
    // The same after another release, and after a foreign hand.
    let release = ended(&crew.client, &request(&new, "2", &["latest"])).await;
    let id = text(&release, "/id").to_owned();
    foreign(&second, "app", "latest").await;
    let answer = rollback(&crew.client, &json!({ "release": id, "reason": "again" })).await;
    let release = answer.good().unwrap();
    let release = crew.client.wait_end(text(&release, "/id")).await.unwrap();
    // Only the registry knew it, so it comes out when the tag's turn comes; the other tag does not
    // stay half way.
    assert_eq!(state(&release), "FAILED TAG_MOVED", "{release:#}");
    let states = tags_with_hosts(&release);
    assert_eq!(states[&format!("{there}:latest")], "REFUSED TAG_MOVED", "{release:#}");
    assert_eq!(crew.target.inspect("app", "latest").await.unwrap(), digest(&new), "{release:#}");
    ledger_check::check(&crew.world, &crew.source, &[&crew.target, &second]).await;
}

#[tokio::test]
async fn releases_that_wait_are_overtaken() {
    let crew = Crew::new(1).await;
    let [first, _second] = published(&crew).await;
    let third = crew.image(&ImageSpec::tiny("third"), "app").await;
    let app = crew.target.repository("app");
    let freeze = frozen(&crew.client, &app).await;
    let mut queued = Vec::new();
    for number in 7..10 {
        let unique = format!("1.{number}");
        let targets: [colophon_tests::Target<'_>; 1] = [(&app, &[&unique], &["latest"])];
        let request = with(&third, &targets, &json!({ "priority": 100 }));
        queued.push(accepted(&crew.client, &request).await);
    }
    for id in &queued {
        waits(&crew.client, id, "FROZEN").await;
    }
    // One that may move more tags yet is no release to go back over.
    let answer = rollback(&crew.client, &json!({ "release": queued[0], "reason": "500s" })).await;
    assert_refused(&answer, 409, "NOT_ENDED", "release");
    let line = ["rollback", "--release", &queued[0], "--reason", "500s"];
    let output = crew.world.cli(&crew.api, &line).await.unwrap();
    assert_eq!(output.code, Some(16), "{output:?}");
    let body = json!({
        "reference": format!("{app}:latest"), "steps": 1, "reason": "500s", "breakGlass": true,
    });
    let back = rollback(&crew.client, &body).await.good().unwrap();
    let back = crew.succeeds(text(&back, "/id")).await;
    lift(&crew.client, &freeze).await;
    for id in &queued {
        let release = crew.client.wait_end(id).await.unwrap();
        assert_eq!(state(&release), "FAILED SUPERSEDED", "{release:#}");
        let said = message(&release, "latest");
        assert!(said.contains("rolled back by release"), "{said}");
        assert!(said.contains(text(&back, "/id")), "{said}");
    }
    assert_eq!(crew.target.inspect("app", "latest").await.unwrap(), digest(&first));
    // What is accepted afterwards moves the tag again.
    crew.publish_well(&third, "app", &["2.0"], &["latest"]).await;
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}

#[tokio::test]
async fn content_that_is_gone_is_copied_back_from_where_the_ledger_saw_it() {
    let (mut crew, mut mirror) = two_targets(TIMES, 1).await;
    let old = crew.image(&ImageSpec::tiny("old"), "app").await;
    let new = crew.image(&ImageSpec::tiny("new"), "app").await;
    let (here, there) = (crew.target.repository("app"), mirror.repository("copies/app"));
    for (source, kept) in [(&old, "1"), (&new, "2")] {
        let targets: [colophon_tests::Target<'_>; 2] =
            [(&here, &[], &["latest"]), (&there, &[kept], &[])];
        let release = ended(&crew.client, &with(source, &targets, &json!({}))).await;
        assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    }
    // The registry has collected what has no tag, and staging is cleaned up.
    for site in [&mut crew.target, &mut crew.source] {
        site.peer().unwrap().delete_manifest("app", digest(&old)).await.unwrap();
        site.registry().collect_garbage(true).await.unwrap();
        site.registry_mut().restart().await.unwrap();
    }
    let latest = format!("{here}:latest");
    let release = rolled_back(&crew.client, &latest, &json!({ "steps": 1 })).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    assert_eq!(crew.target.inspect("app", "latest").await.unwrap(), digest(&old));
    let (copy, back) = (mirror.peer().unwrap(), crew.target.peer().unwrap());
    let walked = colophon_testkit::peer::assert_same(
        (&copy, "copies/app", digest(&old)),
        (&back, "app", "latest"),
    );
    walked.await.unwrap();

    // Gone from everywhere: it is said at once, and nothing is stored.
    let release = rolled_back(&crew.client, &latest, &by("digest", digest(&new))).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    mirror.peer().unwrap().delete_manifest("copies/app", digest(&old)).await.unwrap();
    crew.target.peer().unwrap().delete_manifest("app", digest(&old)).await.unwrap();
    for site in [&mut crew.target, &mut mirror] {
        site.registry().collect_garbage(true).await.unwrap();
        site.registry_mut().restart().await.unwrap();
    }
    let body = json!({ "reference": latest, "digest": digest(&old), "reason": "a test" });
    let answer = rollback(&crew.client, &body).await;
    assert_eq!(answer.text("/reason"), "SOURCE_GONE", "{:#}", answer.body);
    assert!(answer.text("/detail").contains("every other place"), "{:#}", answer.body);
    assert!(answer.text("/remedy").contains("publish it again"), "{:#}", answer.body);
    let line = ["rollback", &latest, "--to", digest(&old), "--reason", "a test"];
    let output = crew.world.cli(&crew.api, &line).await.unwrap();
    assert_eq!(output.code, Some(11), "{output:?}");
}

#[tokio::test]
async fn who_may_publish_may_not_go_back_and_a_key_makes_one_rollback() {
    let mut world = World::new().await.unwrap();
    let grants = r#"[{ repositories = ["*"], actions = ["read", "publish", "move_floating"] }]"#;
    let token = world.caller("deploy", grants).unwrap();
    let crew = Crew::on(world, TIMES, 1).await;
    let deploy = crew.world.client_of(&crew.api, &token).unwrap();
    let [first, _second, _third] = published(&crew).await;
    let latest = format!("{}:latest", crew.target.repository("app"));
    let body = json!({
        "reference": latest, "steps": 2, "reason": "500s", "idempotencyKey": "incident-17",
    });
    let answer = rollback(&deploy, &body).await;
    assert_refused(&answer, 403, "PERMISSION_DENIED", "reference");
    let release = rollback(&crew.client, &body).await.good().unwrap();
    let id = text(&release, "/id").to_owned();
    crew.succeeds(&id).await;
    // Sent again after its end: the same release, and not two steps more.
    let again = rollback(&crew.client, &body).await.good().unwrap();
    assert_eq!(text(&again, "/id"), id);
    let mut other = body.clone();
    other["steps"] = json!(1);
    let answer = rollback(&crew.client, &other).await;
    assert_refused(&answer, 409, "IDEMPOTENCY_KEY_REUSED", "idempotency_key");
    assert_eq!(crew.target.inspect("app", "latest").await.unwrap(), digest(&first));

    // What a user gets wrong.
    let line: [(&[&str], &str); 4] = [
        (&["rollback", &latest], "--reason"),
        (&["rollback", "--reason", "x"], "REFERENCE"),
        (&["rollback", &latest, "--steps", "0", "--reason", "x"], "steps"),
        (&["rollback", &latest, "--steps", "1", "--to", digest(&first), "--reason", "x"], "--to"),
    ];
    for (line, said) in line {
        let output = crew.world.cli(&crew.api, line).await.unwrap();
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(output.err.contains(said), "{said}: {output:?}");
    }
    // A unique tag has no past to go back to.
    let unique = json!({
        "reference": format!("{}:1.0", crew.target.repository("app")), "steps": 1, "reason": "x",
    });
    let answer = rollback(&crew.client, &unique).await;
    assert_eq!(answer.text("/reason"), "NOT_IN_HISTORY", "{:#}", answer.body);
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}

/// The ledger knows of places that a caller may not: from such a one the content comes back all the
/// same, and nobody is told where it was.
#[tokio::test]
async fn content_comes_back_from_where_the_caller_may_not_look_and_is_not_told() {
    let mut world = World::new().await.unwrap();
    let secret = world.site(SiteOptions::proxied()).await.unwrap();
    let mut crew = Crew::on(world, TIMES, 1).await;
    let old = crew.image(&ImageSpec::tiny("old"), "app").await;
    let new = crew.image(&ImageSpec::tiny("new"), "app").await;
    let (here, there) = (crew.target.repository("app"), secret.repository("secret/app"));
    for (source, kept) in [(&old, "1"), (&new, "2")] {
        let targets: [colophon_tests::Target<'_>; 2] =
            [(&here, &[], &["latest"]), (&there, &[kept], &[])];
        let release = ended(&crew.client, &with(source, &targets, &json!({}))).await;
        assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    }
    for site in [&crew.target, &crew.source] {
        site.peer().unwrap().delete_manifest("app", digest(&old)).await.unwrap();
    }
    crew.target.registry().collect_garbage(true).await.unwrap();
    crew.target.registry_mut().restart().await.unwrap();

    let actions = r#"actions = ["read", "rollback"]"#;
    let grants = format!(r#"[{{ repositories = ["{here}"], {actions} }}]"#);
    let token = crew.world.caller("team", &grants).unwrap();
    let api = crew.world.serve().await.unwrap();
    let team = crew.world.client_of(&api, &token).unwrap();
    let latest = format!("{here}:latest");
    let release = rolled_back(&team, &latest, &json!({ "steps": 1 })).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    assert_eq!(crew.target.inspect("app", "latest").await.unwrap(), digest(&old));
    let moves = team.moves(&latest).await.unwrap();
    for told in [release.to_string(), format!("{moves:?}")] {
        assert!(!told.contains("secret"), "{told}");
    }
}
