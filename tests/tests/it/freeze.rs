//! Freezes: no tag moves, releases wait and say why, and go on when the freeze ends; whoever
//! breaks the glass leaves a mark in the ledger.

use std::time::{Duration, Instant};

use colophon_testkit::image::ImageSpec;
use colophon_tests::{SiteOptions, World};
use http::Method;
use serde_json::{Value, json};

use crate::{
    kill::{Crew, TIMES},
    ledger_check,
    release_scene::{assert_refused, expected, state, tags, text},
    safe_scene::{accepted, digest, ended, freeze, from_now, frozen, lift, message, waits, with},
};

/// A crew with an image at the source.
async fn scene(workers: usize) -> (Crew, String) {
    let crew = Crew::new(workers).await;
    let image = crew.image(&ImageSpec::tiny("image"), "app").await;
    (crew, image)
}

#[tokio::test]
async fn releases_wait_and_say_why_and_go_on_at_once_when_it_is_lifted() {
    let (mut crew, image) = scene(2).await;
    // Another replica knows it as well.
    let replica = crew.world.serve().await.unwrap();
    let other = crew.world.client(&replica).unwrap();
    let host = format!("{}/*", crew.target.host());
    let id = frozen(&crew.client, &host).await;
    let list = other.get("/v1/freezes", &[]).await.unwrap();
    assert_eq!(text(&list, "/freezes/0/id"), id, "{list:#}");

    let release = crew.publish(&image, "app", &["1"], &["latest"]).await;
    let waiting = waits(&other, &release, "FROZEN").await;
    let said = text(&waiting, "/waitingFor");
    assert!(said.contains("holidays") && said.contains(&host), "{said}");
    let year = text(&list, "/freezes/0/endTime").get(..4).unwrap();
    assert!(said.contains(year), "it says until when: {said}");
    assert_eq!(text(&waiting, "/state"), "RELEASE_STATE_RUNNING");
    // The content is there already; only the tags wait.
    let peer = crew.target.peer().unwrap();
    peer.walk("app", digest(&image)).await.unwrap();
    assert_eq!(peer.tags("app").await.unwrap(), [""; 0]);
    let line = ["release", &release, "--wait", "--timeout", "1s"];
    let output = crew.world.cli(&crew.api, &line).await.unwrap();
    assert_eq!(output.code, Some(17), "{output:?}");
    assert!(output.err.contains("FROZEN") && output.err.contains("holidays"), "{output:?}");
    // Whoever does not want to wait any more stops the release, and not at the freeze's end.
    let unwanted = crew.publish(&image, "app", &[], &["edge"]).await;
    waits(&crew.client, &unwanted, "FROZEN").await;
    let cancelled = crew.client.cancel(&unwanted).await.unwrap().good().unwrap();
    assert_eq!(state(&cancelled), "CANCELLED CANCELLED", "{cancelled:#}");
    assert_eq!(text(&cancelled, "/waitingReason"), "", "{cancelled:#}");
    // Elsewhere nothing stops.
    let own = crew.source.repository("app");
    let retag = ended(&crew.client, &with(&image, &[(&own, &[], &["retag"])], &json!({}))).await;
    assert_eq!(state(&retag), "SUCCEEDED", "{retag:#}");

    let since = Instant::now();
    let lifted = lift(&other, &id).await;
    assert_eq!((&lifted["active"], text(&lifted, "/liftedBy")), (&json!(false), "ci"));
    crew.succeeds(&release).await;
    // Without a hint it would be looked at every 15 s.
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    assert_eq!(lift(&other, &id).await["active"], false, "twice is no error");
    ledger_check::check(&crew.world, &crew.source, &[&crew.target, &crew.source]).await;
}

#[tokio::test]
async fn it_ends_by_itself_and_several_hold_until_the_last() {
    let (crew, image) = scene(1).await;
    let app = crew.target.repository("app");
    let short = freeze(&crew.client, &app, time::Duration::milliseconds(1_500)).await;
    short.good().unwrap();
    let other = frozen(&crew.client, "*").await;
    let release = crew.publish(&image, "app", &["1"], &[]).await;
    waits(&crew.client, &release, "FROZEN").await;
    let over = async || {
        let list = crew.client.get("/v1/freezes", &[]).await.ok()?;
        (list["freezes"].as_array()?.len() == 1).then_some(())
    };
    let patience = colophon_tests::PATIENCE;
    colophon_testkit::wait::wait_until("the first ends", patience, over).await.unwrap();
    let said = crew.client.release(&release).await.unwrap();
    assert_eq!(text(&said, "/waitingReason"), "FROZEN", "{said:#}");
    lift(&crew.client, &other).await;
    crew.succeeds(&release).await;

    let since = Instant::now();
    freeze(&crew.client, &app, time::Duration::seconds(6)).await.good().unwrap();
    let release = crew.publish(&image, "app", &["2"], &[]).await;
    waits(&crew.client, &release, "FROZEN").await;
    crew.succeeds(&release).await;
    assert!(since.elapsed() > Duration::from_millis(5_900), "{:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(18), "{:?}", since.elapsed());
}

#[tokio::test]
async fn breaking_the_glass_is_a_right_and_stands_in_the_ledger() {
    let mut world = World::new().await.unwrap();
    let grants = r#"[{ repositories = ["*"], actions = ["read", "publish", "move_floating"] }]"#;
    let token = world.caller("deploy", grants).unwrap();
    let crew = Crew::on(world, TIMES, 1).await;
    let deploy = crew.world.client_of(&crew.api, &token).unwrap();
    let image = crew.image(&ImageSpec::tiny("hotfix"), "app").await;
    let app = crew.target.repository("app");
    let request = |reason: &str| {
        let more = json!({ "breakGlass": true, "reason": reason });
        with(&image, &[(&app, &["1"], &["latest"])], &more)
    };
    let freeze = frozen(&crew.client, &app).await;
    let answer = crew.client.create(&request("")).await.unwrap();
    assert_refused(&answer, 400, "INVALID_ARGUMENT", "reason");
    let answer = deploy.create(&request("outage")).await.unwrap();
    assert_refused(&answer, 403, "PERMISSION_DENIED", "break_glass");
    let release = ended(&crew.client, &request("outage")).await;
    assert_eq!((state(&release).as_str(), &release["breakGlass"]), ("SUCCEEDED", &json!(true)));
    for tag in ["1", "latest"] {
        let moves = crew.client.moves(&format!("{app}:{tag}")).await.unwrap();
        let intent = moves.iter().find(|entry| text(entry, "/kind") == "intent").unwrap();
        assert_eq!(text(intent, "/reasonCode"), "BREAK_GLASS", "{intent:#}");
        assert_eq!(text(intent, "/reason"), "outage");
    }
    // It is said only where the glass was there to be broken.
    lift(&crew.client, &freeze).await;
    let mut calm = request("outage");
    calm["targets"][0]["uniqueTags"] = json!(["2"]);
    let release = ended(&crew.client, &calm).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    let moves = crew.client.moves(&format!("{app}:2")).await.unwrap();
    assert!(moves.iter().all(|entry| text(entry, "/reasonCode").is_empty()), "{moves:#?}");
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}

#[tokio::test]
async fn a_freeze_has_an_end_and_stays_within_the_grant() {
    let mut world = World::new().await.unwrap();
    let acme = world.site(SiteOptions::default()).await.unwrap().repository("acme");
    let host = acme.trim_end_matches("/acme").to_owned();
    let actions = r#"actions = ["read", "freeze"]"#;
    let grants = format!(r#"[{{ repositories = ["{acme}/*"], {actions} }}]"#);
    let token = world.caller("team", &grants).unwrap();
    let api = world.serve().await.unwrap();
    let client = world.client(&api).unwrap();
    let team = world.client_of(&api, &token).unwrap();
    let ask = async |body: Value| {
        client.call(Method::POST, "/v1/freezes", &[], Some(&body)).await.unwrap()
    };
    let endless = json!({ "pattern": "*", "reason": "holidays" });
    let answer = ask(endless).await;
    assert_refused(&answer, 400, "INVALID_ARGUMENT", "end_time");
    assert!(answer.text("/detail").contains("end"), "{:#}", answer.body);
    for (end, field) in [
        (from_now(time::Duration::seconds(-5)), "end_time"),
        (from_now(time::Duration::days(400)), "end_time"),
    ] {
        let answer = ask(json!({ "pattern": "*", "reason": "holidays", "endTime": end })).await;
        assert_refused(&answer, 400, "INVALID_ARGUMENT", field);
    }
    for pattern in ["*", &format!("{host}/*"), &format!("{acme}x/*"), "ghcr.io/acme/*"] {
        let answer = freeze(&team, pattern, time::Duration::HOUR).await;
        assert_refused(&answer, 403, "PERMISSION_DENIED", "pattern");
        assert!(answer.text("/detail").contains(pattern), "{:#}", answer.body);
    }
    // A typing error in the host would stop nothing, and nobody would notice.
    let answer = freeze(&client, "ghrc.io/*", time::Duration::HOUR).await;
    assert_refused(&answer, 400, "UNKNOWN_REGISTRY", "pattern");
    let own = frozen(&team, &format!("{acme}/app/*")).await;
    let everything = frozen(&client, "*").await;
    // Each sees what concerns it, and ends what is its own.
    let listed = team.get("/v1/freezes", &[]).await.unwrap();
    assert_eq!(listed["freezes"].as_array().unwrap().len(), 2, "{listed:#}");
    let path = format!("/v1/freezes/{everything}/lift");
    let answer = team.call(Method::POST, &path, &[], Some(&json!({}))).await.unwrap();
    assert_eq!(answer.text("/reason"), "PERMISSION_DENIED", "{:#}", answer.body);
    assert_eq!(text(&lift(&team, &own).await, "/liftReason"), "back at work");

    let lines: [(&[&str], i32, &str); 5] = [
        (&["freeze", "*", "--reason", "x"], 2, "--until"),
        (&["freeze", "*", "--for", "2h"], 2, "--reason"),
        (&["freeze", "*", "--for", "yesterday", "--reason", "x"], 2, "--for"),
        (&["freeze", "*", "--for", "9000h", "--reason", "x"], 3, "end_time"),
        (&["lift", "not-an-id"], 3, "id"),
    ];
    for (line, code, said) in lines {
        let output = world.cli(&api, line).await.unwrap();
        assert_eq!(output.code, Some(code), "{line:?}: {output:?}");
        assert!(output.err.contains(said), "{line:?}: {output:?}");
    }
    let output = world.cli(&api, &["freezes"]).await.unwrap();
    assert!(output.code == Some(0) && output.out.contains(&everything), "{output:?}");
    let output = world.cli(&api, &["lift", &everything, "--reason", "x"]).await.unwrap();
    assert_eq!(output.code, Some(0), "{output:?}");
    let output = world.cli(&api, &["freezes", "--all"]).await.unwrap();
    assert!(output.out.contains(&everything) && output.out.contains(&own), "{output:?}");

    // A script that has lost count does not fill the table.
    for _ in 0..100 {
        frozen(&team, &format!("{acme}/app")).await;
    }
    let answer = freeze(&team, &format!("{acme}/app"), time::Duration::HOUR).await;
    let refused = (answer.status.as_u16(), answer.text("/reason"));
    assert_eq!(refused, (429, "RATE_LIMITED"), "{:#}", answer.body);
    frozen(&client, "*").await;
}

#[tokio::test]
async fn a_release_whose_time_passes_in_a_freeze_ends_promptly() {
    let (crew, image) = scene(1).await;
    let app = crew.target.repository("app");
    frozen(&crew.client, "*").await;
    let more = json!({ "notAfter": from_now(time::Duration::seconds(8)) });
    let since = Instant::now();
    let id = accepted(&crew.client, &with(&image, &[(&app, &["1"], &["latest"])], &more)).await;
    waits(&crew.client, &id, "FROZEN").await;
    let release = crew.client.wait_end(&id).await.unwrap();
    assert!(since.elapsed() < Duration::from_secs(14), "{:?}", since.elapsed());
    assert_eq!(state(&release), "FAILED EXPIRED", "{release:#}");
    let late = [("app:1", "FAILED EXPIRED"), ("app:latest", "NOT_ATTEMPTED NOT_ATTEMPTED")];
    assert_eq!(tags(&release), expected(&late));
    assert!(message(&release, "1").contains("not_after"), "{release:#}");
    assert_eq!(crew.target.peer().unwrap().tags("app").await.unwrap(), [""; 0]);
}
