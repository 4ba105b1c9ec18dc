//! Plans: what a release would do, without doing it; and releases that are held to their plan.

use colophon_testkit::{image::ImageSpec, token_service::Allowed};
use colophon_tests::{SiteOptions, World};
use serde_json::{Value, json};

use crate::{
    kill::{Crew, TIMES},
    ledger_check,
    release_scene::{assert_refused, expected, login, state, tags, text},
    safe_scene::{
        accepted, digest, ended, foreign, freeze, from_now, frozen, lift, merge, message, plan,
        waits, with,
    },
    vault_scene::credentials,
};

/// A crew whose target has `app:latest` of an older build, and the newer one.
async fn scene() -> (Crew, [String; 2]) {
    let crew = Crew::new(1).await;
    let old = crew.image(&ImageSpec::tiny("old"), "app").await;
    let new = crew.image(&ImageSpec::tiny("new"), "app").await;
    crew.publish_well(&old, "app", &["1.0.0"], &["latest"]).await;
    (crew, [old, new])
}

/// How each planned tag would end, in short.
fn outcomes(plan: &Value) -> Vec<String> {
    let publications = plan["publications"].as_array().unwrap().iter();
    let tags = publications.flat_map(|it| it["tags"].as_array().unwrap());
    let short = |tag: &Value| {
        let outcome = text(tag, "/outcome").trim_start_matches("TAG_MOVE_STATE_");
        format!("{} {outcome} {}", text(tag, "/tag"), text(tag, "/reason")).trim_end().to_owned()
    };
    tags.map(short).collect()
}

/// The reasons of what stands against the first target.
fn obstacles(plan: &Value) -> Vec<String> {
    let obstacles = plan["publications"][0]["obstacles"].as_array().unwrap();
    obstacles.iter().map(|it| text(it, "/reason").to_owned()).collect()
}

/// Every row of every table.
async fn rows(crew: &Crew) -> Vec<(String, i64)> {
    let pool = crew.world.database().pool();
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT table_name::text FROM information_schema.tables
         WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY 1",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut rows = Vec::new();
    for table in tables {
        let count = format!("SELECT count(*) FROM {table}");
        let count = sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(pool).await.unwrap();
        rows.push((table, count));
    }
    rows
}

#[tokio::test]
async fn it_shows_what_would_happen_and_leaves_no_trace() {
    let (crew, [old, new]) = scene().await;
    crew.target.push(&ImageSpec::tiny("theirs"), "app", "taken").await.unwrap();
    let app = crew.target.repository("app");
    let request = with(&new, &[(&app, &["1.0.1", "taken"], &["latest", "edge"])], &json!({}));
    let (before, writes) = (rows(&crew).await, crate::release_scene::writes(&crew.target));
    let shown = plan(&crew.client, &request).await.good().unwrap();
    assert_eq!(
        outcomes(&shown),
        ["1.0.1 MOVED", "taken REFUSED TAG_IMMUTABLE", "latest MOVED", "edge MOVED"]
    );
    assert_eq!(shown["feasible"], false);
    let latest = &shown["publications"][0]["tags"][2];
    assert_eq!(
        (text(latest, "/oldDigest"), text(latest, "/newDigest")),
        (digest(&old), digest(&new))
    );
    assert_eq!(text(&shown, "/publications/0/copyFrom"), new);
    let bytes: u64 = text(&shown, "/publications/0/bytes").parse().unwrap();
    assert!(bytes > 0 && shown["publications"][0]["manifests"] != "0", "{shown:#}");
    // A version that would keep a tag, and a build that is older.
    let versions = json!({ "semver": "1.0.0-rc.1" });
    let shown = plan(&crew.client, &with(&old, &[(&app, &[], &[])], &versions)).await;
    let shown = shown.good().unwrap();
    assert_eq!(
        outcomes(&shown)[1..],
        ["1.0 KEPT PRE_RELEASE", "1 KEPT PRE_RELEASE", "latest KEPT PRE_RELEASE"]
    );
    assert_eq!((&shown["feasible"], text(&shown, "/publications/0/bytes")), (&json!(true), "0"));
    // What is there already is no obstacle.
    let same = with(&old, &[(&app, &["1.0.0"], &["latest"])], &json!({}));
    let shown = plan(&crew.client, &same).await.good().unwrap();
    assert_eq!(outcomes(&shown), ["1.0.0 UNCHANGED", "latest UNCHANGED"]);
    assert_eq!(rows(&crew).await, before);
    // Whether the registry would let us write is asked by an upload that is given back at once.
    let after = crate::release_scene::writes(&crew.target);
    let (begun, given_back): (Vec<_>, Vec<_>) =
        after[writes.len()..].iter().partition(|write| write.starts_with("POST "));
    assert!(given_back.iter().all(|write| write.starts_with("DELETE ")), "{after:?}");
    assert_eq!(begun.len(), given_back.len(), "{after:?}");

    // A freeze would be waited for.
    frozen(&crew.client, &app).await;
    let shown = plan(&crew.client, &same).await.good().unwrap();
    assert_eq!((obstacles(&shown), &shown["feasible"]), (vec!["FROZEN".to_owned()], &json!(false)));
    let said = text(&shown, "/publications/0/obstacles/0/message");
    assert!(said.contains("holidays"), "{said}");
    let line = ["plan", &old, "--to", &app, "--tag", "1.0.0"];
    let output = crew.world.cli(&crew.api, &line).await.unwrap();
    assert_eq!(output.code, Some(17), "{output:?}");
    assert!(output.out.contains("FROZEN") || output.err.contains("FROZEN"), "{output:?}");
    // What makes no sense for a plan is refused by name.
    for (field, value) in [("idempotency_key", json!("k")), ("plan", json!("p1-0-0"))] {
        let mut wrong = same.clone();
        wrong[field] = value;
        assert_refused(&plan(&crew.client, &wrong).await, 400, "INVALID_ARGUMENT", field);
    }
}

#[tokio::test]
async fn a_permission_that_lacks_is_found_before_it_costs_anything() {
    let mut world = World::new().await.unwrap();
    let vault = world.vault("").await.unwrap();
    let (admin, reader) = (login("admin"), login("reader"));
    vault.put_login("reader", &reader).await.unwrap();
    let target = SiteOptions::default()
        .token_login(&admin, vec![Allowed::new("*", "pull,push")])
        .token_login(&reader, vec![Allowed::new("*", "pull")])
        .settings(&credentials("reader"));
    let target = world.site(target).await.unwrap();
    let crew = Crew::on(world, TIMES, 1).await;
    let image = crew.image(&ImageSpec::tiny("image"), "app").await;
    target.push(&ImageSpec::tiny("old"), "app", "latest").await.unwrap();
    let app = target.repository("app");
    let request = with(&image, &[(&app, &["1"], &["latest"])], &json!({}));
    let shown = plan(&crew.client, &request).await.good().unwrap();
    assert_eq!(shown["feasible"], false, "{shown:#}");
    assert!(!obstacles(&shown).is_empty(), "{shown:#}");
    let said = text(&shown, "/publications/0/obstacles/0/message");
    assert!(said.contains("push") && said.contains("app"), "it says what lacks: {shown:#}");
    let line = ["plan", &image, "--to", &app, "--tag", "1"];
    let output = crew.world.cli(&crew.api, &line).await.unwrap();
    assert_eq!(output.code, Some(10), "{output:?}");
    assert!(output.out.contains("push"), "{output:?}");
    let release = ended(&crew.client, &request).await;
    let reason = text(&release, "/stateReason").to_owned();
    assert!(obstacles(&shown).contains(&reason), "the release ends with it: {reason} {shown:#}");
}

#[tokio::test]
async fn a_release_does_exactly_what_its_plan_showed_or_nothing() {
    let (crew, [_old, new]) = scene().await;
    let app = crew.target.repository("app");
    let options = ["--to", &app, "--tag", "1.0.1", "--float", "latest"];
    let line = [&["plan", &new][..], &options].concat();
    let output = crew.world.cli(&crew.api, &line).await.unwrap();
    assert_eq!(output.code, Some(0), "{output:?}");
    // The command line that it prints is the one that does it.
    let mut printed = output.out.lines().chain(output.err.lines());
    let printed = printed.rfind(|line| line.contains("colophon publish"));
    let printed = printed.unwrap_or_else(|| panic!("no command to go on with: {output:?}"));
    let (_, arguments) = printed.split_once("colophon ").unwrap();
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    assert!(arguments.contains(&"--plan"), "{printed}");
    let output = crew.world.cli(&crew.api, &arguments).await.unwrap();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(crew.target.inspect("app", "latest").await.unwrap(), digest(&new));
    // It is done: what was planned is not what would happen now.
    let output = crew.world.cli(&crew.api, &arguments).await.unwrap();
    assert_eq!(output.code, Some(15), "{output:?}");
    assert!(output.err.contains("PLAN_CHANGED"), "{output:?}");
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}

/// A plan for the request, and the request that follows it.
async fn planned(crew: &Crew, request: &Value) -> Value {
    let shown = plan(&crew.client, request).await.good().unwrap();
    let mut follows = request.clone();
    follows["plan"] = shown["id"].clone();
    follows
}

#[tokio::test]
async fn what_has_changed_since_is_not_done() {
    let (crew, [_old, new]) = scene().await;
    let app = crew.target.repository("app");
    let request = with(&new, &[(&app, &["1.0.1"], &["latest"])], &json!({}));
    // Other options than those that were planned.
    let follows = planned(&crew, &request).await;
    for other in [
        json!({ "allowBackward": true, "reason": "x" }),
        json!({ "targets": [{ "repository": app, "uniqueTags": ["1.0.2"],
                              "floatingTags": ["latest"] }] }),
        json!({ "orderKey": { "number": "1" } }),
        json!({ "onFailure": "ON_FAILURE_KEEP" }),
    ] {
        let mut changed = follows.clone();
        merge(&mut changed, &other);
        let answer = crew.client.create(&changed).await.unwrap();
        assert_refused(&answer, 409, "PLAN_CHANGED", "plan");
    }
    // Ids that are none.
    for (id, status, reason) in [
        ("garbage", 400, "INVALID_ARGUMENT"),
        ("p1-0-0123456789abcdef0123456789abcdef", 409, "PLAN_EXPIRED"),
        ("p1-7fffffffffffffff-0123456789abcdef0123456789abcdef", 400, "INVALID_ARGUMENT"),
    ] {
        let mut wrong = request.clone();
        wrong["plan"] = json!(id);
        assert_refused(&crew.client.create(&wrong).await.unwrap(), status, reason, "plan");
    }
    // What is said about a release is no part of its plan.
    let mut reasoned = follows.clone();
    merge(&mut reasoned, &json!({ "reason": "weekly", "labels": { "team": "web" } }));
    let end = from_now(time::Duration::HOUR);
    reasoned["notAfter"] = json!(end);

    // A tag that was moved in between is seen in the call.
    foreign(&crew.target, "app", "latest").await;
    let answer = crew.client.create(&reasoned).await.unwrap();
    assert_refused(&answer, 409, "PLAN_CHANGED", "plan");
    let follows = planned(&crew, &request).await;

    // And one that is moved after that when its turn comes.
    let freeze = freeze(&crew.client, &app, time::Duration::HOUR).await.good().unwrap();
    let id = accepted(&crew.client, &follows).await;
    waits(&crew.client, &id, "FROZEN").await;
    let theirs = ImageSpec::tiny("another hand");
    let theirs = crew.target.push(&theirs, "app", "latest").await.unwrap();
    lift(&crew.client, text(&freeze, "/id")).await;
    let release = crew.client.wait_end(&id).await.unwrap();
    assert_eq!(state(&release), "FAILED PLAN_CHANGED", "{release:#}");
    let states = tags(&release);
    assert_eq!(states, expected(&[("app:1.0.1", "MOVED"), ("app:latest", "REFUSED PLAN_CHANGED")]));
    assert!(message(&release, "latest").contains(theirs.digest()), "{release:#}");
    assert_eq!(text(&release, "/plan"), text(&follows, "/plan"));
    assert_eq!(crew.target.inspect("app", "latest").await.unwrap(), theirs.digest());

    // Sent again under its key, an accepted one is the same release, whatever has changed.
    let again = with(&new, &[(&app, &["1.0.3"], &["edge"])], &json!({}));
    let mut again = planned(&crew, &again).await;
    again["idempotencyKey"] = json!("build-7");
    let release = ended(&crew.client, &again).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    let same = crew.client.create(&again).await.unwrap().good().unwrap();
    assert_eq!(same["id"], release["id"]);
}
