//! Versions: floating tags follow the highest version of their line, wherever it is known from.

use colophon_testkit::image::ImageSpec;
use colophon_tests::World;
use serde_json::{Value, json};

use crate::{
    kill::{Crew, TIMES},
    ledger_check,
    release_scene::{assert_refused, expected, state, tags, text},
    safe_scene::{accepted, digest, ended, merge, message, rollback},
};

const NOT_HIGHEST: &str = "KEPT NOT_HIGHEST";

/// Publishes an image of its own as a version; returns the release when it has ended, which must
/// have succeeded.
async fn version(crew: &Crew, version: &str, more: Value) -> Value {
    let release = ended(&crew.client, &request(crew, version, &more).await).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    release
}

async fn request(crew: &Crew, version: &str, more: &Value) -> Value {
    let image = crew.image(&ImageSpec::tiny(version), "app").await;
    let app = crew.target.repository("app");
    let mut request =
        json!({ "source": image, "targets": [{ "repository": app }], "semver": version });
    merge(&mut request, more);
    request
}

async fn at(crew: &Crew, tag: &str) -> String {
    crew.target.inspect("app", tag).await.unwrap()
}

#[tokio::test]
async fn a_backport_moves_its_own_line_and_nothing_else() {
    let crew = Crew::new(1).await;
    let release = version(&crew, "v1.4.2", json!({})).await;
    let moved = ["app:v1.4.2", "app:v1.4", "app:v1", "app:latest"].map(|tag| (tag, "MOVED"));
    assert_eq!(tags(&release), expected(&moved));
    let newest = text(&release, "/digest").to_owned();

    let backport = request(&crew, "v1.3.9", &json!({})).await;
    let app = crew.target.repository("app");
    let line = ["publish", text(&backport, "/source"), "--semver", "v1.3.9", "--to", &app];
    let output = crew.world.cli(&crew.api, &line).await.unwrap();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.out.contains("KEPT"), "{output:?}");
    let page = crew.client.get("/v1/releases", &[("page_size", "1")]).await.unwrap();
    let release = &page["releases"][0];
    let some = [
        ("app:v1.3.9", "MOVED"),
        ("app:v1.3", "MOVED"),
        ("app:v1", NOT_HIGHEST),
        ("app:latest", NOT_HIGHEST),
    ];
    assert_eq!(tags(release), expected(&some));
    let said = message(release, "latest");
    assert!(said.contains("1.4.2") && said.contains("1.3.9"), "{said}");
    assert!(output.out.contains(said), "{said}: {output:?}");
    let why = message(release, "v1.3");
    assert!(why.contains("1.3.9 is the highest of its line"), "{why}");
    assert_eq!(at(&crew, "v1.3").await, digest(text(&backport, "/source")));
    for tag in ["v1", "latest", "v1.4"] {
        assert_eq!(at(&crew, tag).await, newest, "{tag}");
    }

    // Numbers are compared as numbers, and an older one of the same line keeps the line.
    version(&crew, "v1.3.10", json!({})).await;
    let release = version(&crew, "v1.3.2", json!({})).await;
    assert_eq!(tags(&release)["app:v1.3"], NOT_HIGHEST);
    // Without the prefix the tags have other names, and `latest` is the same.
    let release = version(&crew, "1.4.3", json!({})).await;
    let moved = ["app:1.4.3", "app:1.4", "app:1", "app:latest"].map(|tag| (tag, "MOVED"));
    assert_eq!(tags(&release), expected(&moved));
    let release = version(&crew, "v1.4.1", json!({})).await;
    assert_eq!(tags(&release)["app:v1.4"], NOT_HIGHEST);
    assert_eq!(at(&crew, "latest").await, at(&crew, "1.4.3").await);
    // The same version with other content is no version any more.
    let again = crew.image(&ImageSpec::tiny("another 1.4.3"), "app").await;
    let request = json!({ "source": again, "targets": [{ "repository": app }], "semver": "1.4.3" });
    let release = ended(&crew.client, &request).await;
    assert_eq!(state(&release), "FAILED TAG_IMMUTABLE", "{release:#}");
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}

/// A version that was rolled back is there still, and the highest: a hotfix of the one before does
/// not take its tags unasked, and is told how to.
#[tokio::test]
async fn a_hotfix_after_a_rollback_says_how_it_gets_the_tags() {
    let crew = Crew::new(1).await;
    version(&crew, "v1.4.2", json!({})).await;
    let bad = version(&crew, "v1.5.0", json!({})).await;
    let body = json!({ "release": bad["id"], "reason": "500s" });
    let back = rollback(&crew.client, &body).await.good().unwrap();
    crew.succeeds(text(&back, "/id")).await;
    let release = version(&crew, "v1.4.3", json!({})).await;
    assert_eq!(tags(&release)["app:v1.4"], "MOVED");
    for tag in ["v1", "latest"] {
        assert_eq!(tags(&release)[&format!("app:{tag}")], NOT_HIGHEST);
        let said = message(&release, tag);
        assert!(said.contains("1.5.0") && said.contains("allow_backward"), "{said}");
    }
    let told = json!({ "allowBackward": true, "reason": "1.5.0 is withdrawn" });
    let release = version(&crew, "v1.4.4", told).await;
    assert_eq!(tags(&release)["app:latest"], "MOVED");
    let why = message(&release, "latest");
    assert!(why.contains("1.5.0") && why.contains("allow_backward"), "{why}");
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}

#[tokio::test]
async fn a_version_that_only_the_registry_knows_counts() {
    let crew = Crew::new(1).await;
    crew.target.push(&ImageSpec::tiny("theirs"), "app", "v2.0.0").await.unwrap();
    // What is no version does not count, however great it looks.
    crew.target.push(&ImageSpec::tiny("noise"), "app", "v9").await.unwrap();
    crew.target.push(&ImageSpec::tiny("noise"), "app", "v9.9.9.9").await.unwrap();
    let release = version(&crew, "v1.5.0", json!({})).await;
    let some = [
        ("app:v1.5.0", "MOVED"),
        ("app:v1.5", "MOVED"),
        ("app:v1", "MOVED"),
        ("app:latest", NOT_HIGHEST),
    ];
    assert_eq!(tags(&release), expected(&some));
    assert!(message(&release, "latest").contains("2.0.0"), "{release:#}");
    assert_eq!(crew.target.peer().unwrap().digest_of("app", "latest").await.unwrap(), None);
    // A version of another repository has nothing to do with it.
    crew.target.push(&ImageSpec::tiny("others"), "other", "v3.0.0").await.unwrap();
    let release = version(&crew, "v2.0.1", json!({})).await;
    assert_eq!(tags(&release)["app:latest"], "MOVED");
}

#[tokio::test]
async fn a_pre_release_moves_nothing_unless_it_is_told_to() {
    let crew = Crew::new(1).await;
    let release = version(&crew, "v3.0.0-rc.1", json!({})).await;
    let some = [
        ("app:v3.0.0-rc.1", "MOVED"),
        ("app:v3.0", "KEPT PRE_RELEASE"),
        ("app:v3", "KEPT PRE_RELEASE"),
        ("app:latest", "KEPT PRE_RELEASE"),
    ];
    assert_eq!(tags(&release), expected(&some));
    assert!(message(&release, "latest").contains("semver_moves_pre_release"), "{release:#}");
    let release = version(&crew, "v2.9.0", json!({})).await;
    assert_eq!(tags(&release)["app:latest"], "MOVED", "a pre-release holds nothing back");
    let told = json!({ "semverMovesPreRelease": true });
    let release = version(&crew, "v3.0.0-rc.2", told.clone()).await;
    assert_eq!(tags(&release)["app:latest"], "MOVED");
    let release = version(&crew, "v3.0.0-rc.1+2", told.clone()).await;
    assert_eq!(tags(&release)["app:v3.0"], NOT_HIGHEST, "{release:#}");
    let release = version(&crew, "v3.0.0", json!({})).await;
    assert_eq!(tags(&release)["app:latest"], "MOVED", "a version is higher than its pre-release");

    // Mistakes.
    for (wrong, field) in [("1.4", "semver"), ("v1.02.3", "semver"), ("latest", "semver")] {
        let answer = crew.client.create(&request(&crew, wrong, &json!({})).await).await.unwrap();
        assert_refused(&answer, 400, "INVALID_ARGUMENT", field);
    }
    let both = json!({ "orderKey": { "number": "1" } });
    let answer = crew.client.create(&request(&crew, "4.0.0", &both).await).await.unwrap();
    assert_eq!(answer.status, 400, "{:#}", answer.body);
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}

#[tokio::test]
async fn the_configuration_says_what_floats_and_what_never_moves() {
    let mut world = World::new().await.unwrap();
    world.rule(
        "pattern = \"*\"\nunique_tags = [\"[0-9a-f]{7,40}\"]\n\
         semver_floats = [\"{v}{major}\", \"stable\"]",
    );
    let crew = Crew::on(world, TIMES, 1).await;
    let release = version(&crew, "v1.4.2", json!({})).await;
    let moved = ["app:v1.4.2", "app:v1", "app:stable"].map(|tag| (tag, "MOVED"));
    assert_eq!(tags(&release), expected(&moved));

    // Called floating, and unique all the same.
    let (one, two) = (
        crew.image(&ImageSpec::tiny("commit one"), "app").await,
        crew.image(&ImageSpec::tiny("commit two"), "app").await,
    );
    let id = crew.publish(&one, "app", &[], &["a1b2c3d", "edge"]).await;
    let release = crew.succeeds(&id).await;
    assert_eq!(text(&release, "/publications/0/tags/0/kind"), "TAG_KIND_UNIQUE", "{release:#}");
    let request = json!({
        "source": two,
        "targets": [{ "repository": crew.target.repository("app"),
                      "floatingTags": ["a1b2c3d", "edge"] }],
    });
    let id = accepted(&crew.client, &request).await;
    let release = crew.client.wait_end(&id).await.unwrap();
    assert_eq!(state(&release), "FAILED TAG_IMMUTABLE", "{release:#}");
    assert_eq!(tags(&release)["app:edge"], "NOT_ATTEMPTED NOT_ATTEMPTED");
    assert_eq!(at(&crew, "edge").await, digest(&one));
    assert_eq!(at(&crew, "a1b2c3d").await, digest(&one));
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}
