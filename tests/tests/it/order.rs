//! Order keys: pipelines end in any order, and the newest build has the tag all the same.

use colophon_testkit::{
    image::ImageSpec,
    proxy::{Action, Rule},
};
use colophon_tests::PATIENCE;
use http::Method;
use serde_json::{Value, json};

use crate::{
    kill::Crew,
    ledger_check,
    release_scene::{assert_refused, expected, state, tags, text},
    safe_scene::{digest, ended, message, with},
};

async fn images<const N: usize>(crew: &Crew, repository: &str) -> [String; N] {
    let mut images = Vec::new();
    for number in 0..N {
        let image = ImageSpec::tiny(format!("{repository} {number}"));
        images.push(crew.image(&image, &format!("{repository}{number}")).await);
    }
    images.try_into().unwrap()
}

#[tokio::test]
async fn the_newest_build_has_the_tag_whoever_was_accepted_last() {
    let crew = Crew::new(2).await;
    let [first, second, third] = images(&crew, "build").await;
    let app = crew.target.repository("app");
    let request = |source: &str, number: u64| {
        let unique = format!("b{number}");
        let more = json!({ "orderKey": { "number": number.to_string() } });
        with(source, &[(&app, &[&unique], &["latest"])], &more)
    };
    // The newest build is accepted first and copies slowly.
    let slow = Rule::new(Action::HoldBefore).method(Method::GET).path("/v2/build2/blobs/");
    let slow = crew.source.proxy().add(slow.always());
    let newest = crew.client.create(&request(&third, 3)).await.unwrap().good().unwrap();
    slow.reached(PATIENCE).await.unwrap();
    let release = ended(&crew.client, &request(&second, 2)).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");

    let release = ended(&crew.client, &request(&first, 1)).await;
    assert_eq!(state(&release), "FAILED ORDER_REGRESSION", "{release:#}");
    // What must fail fails before anything is done.
    let refused =
        [("app:b1", "NOT_ATTEMPTED NOT_ATTEMPTED"), ("app:latest", "REFUSED ORDER_REGRESSION")];
    assert_eq!(tags(&release), expected(&refused));
    let said = message(&release, "latest");
    assert!(said.contains("number 2") && said.contains("number 1"), "{said}");
    assert!(said.contains("allow_backward"), "{said}");

    // Its ticket is the oldest of all, and its key is what counts.
    slow.forward();
    let release = crew.client.wait_end(text(&newest, "/id")).await.unwrap();
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    let mut late = request(&first, 1);
    late["ifOlder"] = json!("OLDER_POLICY_SUPERSEDE");
    late["targets"][0]["uniqueTags"] = json!(["b1-again"]);
    let release = ended(&crew.client, &late).await;
    assert_eq!(state(&release), "FAILED SUPERSEDED", "{release:#}");
    let superseded = [("app:b1-again", "MOVED"), ("app:latest", "SUPERSEDED SUPERSEDED")];
    assert_eq!(tags(&release), expected(&superseded));
    assert_eq!(crew.target.inspect("app", "latest").await.unwrap(), digest(&third));

    // The same for a pipeline that asks by its exit code.
    let line = ["publish", &second, "--to", &app, "--float", "latest", "--order", "number:2"];
    let output = crew.world.cli(&crew.api, &line).await.unwrap();
    assert_eq!(output.code, Some(14), "{output:?}");
    assert!(output.err.contains("ORDER_REGRESSION"), "{output:?}");
    let line = [&line[..], &["--if-older", "supersede"]].concat();
    let output = crew.world.cli(&crew.api, &line).await.unwrap();
    assert_eq!(output.code, Some(7), "{output:?}");
    assert!(output.err.contains("nothing"), "nothing needs doing: {output:?}");
    assert_eq!(ledger_check::tag_puts(&crew.target, "app", "latest").len(), 2);
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}

#[tokio::test]
async fn going_back_is_a_decision_with_a_reason_and_a_right() {
    let mut world = colophon_tests::World::new().await.unwrap();
    let grants = r#"[{ repositories = ["*"], actions = ["read", "publish", "move_floating"] }]"#;
    let token = world.caller("deploy", grants).unwrap();
    let crew = Crew::on(world, crate::kill::TIMES, 1).await;
    let deploy = crew.world.client_of(&crew.api, &token).unwrap();
    let [first, second, third] = images(&crew, "back").await;
    let app = crew.target.repository("app");
    let request = |source: &str, more: &Value| with(source, &[(&app, &[], &["edge"])], more);
    let number = |number: u64| json!({ "number": number.to_string() });
    let release = ended(&crew.client, &request(&third, &json!({ "orderKey": number(30) }))).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");

    let back = json!({ "orderKey": number(10), "allowBackward": true });
    let answer = crew.client.create(&request(&first, &back)).await.unwrap();
    assert_refused(&answer, 400, "INVALID_ARGUMENT", "reason");
    let back = json!({ "orderKey": number(10), "allowBackward": true, "reason": "30 is broken" });
    let answer = deploy.create(&request(&first, &back)).await.unwrap();
    assert_refused(&answer, 403, "PERMISSION_DENIED", "allow_backward");
    let release = ended(&crew.client, &request(&first, &back)).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    let moves = crew.client.moves(&format!("{app}:edge")).await.unwrap();
    let intent = moves.iter().find(|entry| text(entry, "/kind") == "intent").unwrap();
    let found = (text(intent, "/reasonCode"), text(intent, "/reason"));
    assert_eq!(found, ("ORDER_REGRESSION", "30 is broken"), "the ledger says that it was decided");

    // From there on builds between the two are newer than what is there.
    let release = ended(&crew.client, &request(&second, &json!({ "orderKey": number(20) }))).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    assert_eq!(crew.target.inspect("app", "edge").await.unwrap(), digest(&second));
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}

#[tokio::test]
async fn keys_of_another_kind_or_none_cannot_be_compared() {
    let crew = Crew::new(1).await;
    let [first, second] = images(&crew, "kind").await;
    let app = crew.target.repository("app");
    let request = |source: &str, more: &Value| with(source, &[(&app, &[], &["edge"])], more);
    // A tag without any key takes its first one.
    let release = ended(&crew.client, &request(&first, &json!({}))).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    let keyed = json!({ "orderKey": { "time": "2026-11-03T14:02:00Z" } });
    let release = ended(&crew.client, &request(&first, &keyed)).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    let others = [
        json!({}),
        json!({ "orderKey": { "number": "9" } }),
        json!({ "orderKey": { "semver": "9.0.0" } }),
    ];
    for other in others {
        let release = ended(&crew.client, &request(&second, &other)).await;
        assert_eq!(state(&release), "FAILED ORDER_KEY_MISMATCH", "{release:#}");
        let said = message(&release, "edge");
        assert!(said.contains("time 2026-11-03"), "{said}");
    }
    // A key of a single tag goes before the release's.
    let mut guarded = request(&second, &json!({ "orderKey": { "number": "9" } }));
    let key = json!({ "time": "2026-11-03T14:02:00.000001Z" });
    guarded["targets"][0]["guards"] = json!([{ "tag": "edge", "orderKey": key }]);
    let release = ended(&crew.client, &guarded).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");

    // An older time is refused as an older number is.
    let older = json!({ "orderKey": { "time": "2026-11-03T14:02:00Z" } });
    let release = ended(&crew.client, &request(&first, &older)).await;
    assert_eq!(state(&release), "FAILED ORDER_REGRESSION", "{release:#}");
    assert_eq!(crew.target.inspect("app", "edge").await.unwrap(), digest(&second));

    // What a user gets wrong is said in the user's words.
    for (order, said) in [("7", "KIND"), ("number:x", "number"), ("time:soon", "time")] {
        let line = ["publish", &first, "--to", &app, "--float", "edge", "--order", order];
        let output = crew.world.cli(&crew.api, &line).await.unwrap();
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(output.err.contains(said) && output.err.contains("--order"), "{output:?}");
    }
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}
