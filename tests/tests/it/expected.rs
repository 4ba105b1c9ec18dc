//! Expected digests: a tag moves only from where the request says that it is.

use colophon_testkit::image::ImageSpec;
use serde_json::{Value, json};

use crate::{
    kill::Crew,
    ledger_check,
    release_scene::{expected, state, tags, writes},
    safe_scene::{accepted, digest, ended, foreign, frozen, lift, message, waits, with},
};

/// `app:latest` at an older build, and the newer one.
async fn scene() -> (Crew, [String; 2]) {
    let crew = Crew::new(1).await;
    let old = crew.image(&ImageSpec::tiny("old"), "app").await;
    let new = crew.image(&ImageSpec::tiny("new"), "app").await;
    crew.publish_well(&old, "app", &[], &["latest"]).await;
    (crew, [old, new])
}

/// Publishes to a unique tag and to `latest`, which must be there.
fn request(crew: &Crew, source: &str, unique: &str, place: &str) -> Value {
    let app = crew.target.repository("app");
    let guards = json!([{ "tag": "latest", "expectedDigest": place }]);
    let mut request = with(source, &[(&app, &[unique], &["latest"])], &json!({}));
    request["targets"][0]["guards"] = guards;
    request
}

#[tokio::test]
async fn a_tag_that_is_elsewhere_is_refused_before_anything_is_copied() {
    let (crew, [old, new]) = scene().await;
    let before = writes(&crew.target);
    for place in [digest(&new), "none"] {
        let release = ended(&crew.client, &request(&crew, &new, "2", place)).await;
        assert_eq!(state(&release), "FAILED TAG_MOVED", "{release:#}");
        let refused =
            [("app:2", "NOT_ATTEMPTED NOT_ATTEMPTED"), ("app:latest", "REFUSED TAG_MOVED")];
        assert_eq!(tags(&release), expected(&refused));
        let said = message(&release, "latest");
        assert!(said.contains(digest(&old)), "it says where the tag is: {said}");
        assert!(said.contains(if place == "none" { "no such tag" } else { place }), "{said}");
    }
    assert_eq!(writes(&crew.target), before, "nothing was copied or moved");

    // From where it is expected it moves, and sent again it is there.
    for (unique, ends) in [("2", "MOVED"), ("2-again", "UNCHANGED")] {
        let release = ended(&crew.client, &request(&crew, &new, unique, digest(&old))).await;
        assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
        assert_eq!(tags(&release)["app:latest"], ends);
    }

    // The same for a pipeline that asks by its exit code.
    let app = crew.target.repository("app");
    let expect = format!("latest={}", digest(&old));
    let third = crew.image(&ImageSpec::tiny("third"), "app").await;
    let line = ["publish", &third, "--to", &app, "--float", "latest", "--expect", &expect];
    let output = crew.world.cli(&crew.api, &line).await.unwrap();
    assert_eq!(output.code, Some(13), "{output:?}");
    assert!(output.err.contains("TAG_MOVED") && output.err.contains(digest(&new)), "{output:?}");
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}

#[tokio::test]
async fn a_tag_that_is_moved_while_the_release_waits_is_refused_when_its_turn_comes() {
    let (crew, [old, new]) = scene().await;
    let freeze = frozen(&crew.client, &crew.target.repository("app")).await;
    let id = accepted(&crew.client, &request(&crew, &new, "2", digest(&old))).await;
    waits(&crew.client, &id, "FROZEN").await;
    let theirs = foreign(&crew.target, "app", "latest").await;
    lift(&crew.client, &freeze).await;
    let release = crew.client.wait_end(&id).await.unwrap();
    assert_eq!(state(&release), "FAILED TAG_MOVED", "{release:#}");
    // The unique tag was written before, and unique tags stay.
    let ends = [("app:2", "MOVED"), ("app:latest", "REFUSED TAG_MOVED")];
    assert_eq!(tags(&release), expected(&ends));
    assert!(message(&release, "latest").contains(theirs.digest()), "{release:#}");
    assert_eq!(crew.target.inspect("app", "latest").await.unwrap(), theirs.digest());
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}

#[tokio::test]
async fn a_tag_that_must_be_new_is_made_once() {
    let crew = Crew::new(1).await;
    let [one, two] = [
        crew.image(&ImageSpec::tiny("one"), "app").await,
        crew.image(&ImageSpec::tiny("two"), "app").await,
    ];
    let release = ended(&crew.client, &request(&crew, &one, "1", "none")).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    let release = ended(&crew.client, &request(&crew, &two, "2", "none")).await;
    assert_eq!(state(&release), "FAILED TAG_MOVED", "{release:#}");
    assert_eq!(crew.target.inspect("app", "latest").await.unwrap(), digest(&one));
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}
