//! Releases that are put to work again: after a registry came back, after they were put back, and
//! with a newer release in between.

use colophon_testkit::{image::ImageSpec, proxy::Action};
use colophon_tests::{Answer, Client, PATIENCE, Site};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    kill::{Crew, TIMES},
    ledger_check,
    release_scene::{assert_refused, expected, state, tags_with_hosts, text, writes},
    safe_scene::{about, accepted, ended, refuses_when_let, served, two_targets, with},
};

/// Two targets that have `app:latest` of an older build; a newer one failed at the second.
struct Scene {
    crew: Crew,
    second: Site,
    old: String,
    new: String,
    failed: String,
}

impl Scene {
    async fn new() -> Self {
        let (crew, second) = two_targets(TIMES, 1).await;
        let old = crew.image(&ImageSpec::tiny("old"), "app").await;
        let new = crew.image(&ImageSpec::tiny("new"), "app").await;
        let mut scene = Self { crew, second, old, new, failed: String::new() };
        let release = ended(&scene.crew.client, &scene.request(&scene.old, "1")).await;
        assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
        let look = refuses_when_let(&scene.second, "app", "latest");
        let id = accepted(&scene.crew.client, &scene.request(&scene.new, "2")).await;
        look.reached(PATIENCE).await.unwrap();
        served(&scene.crew.target, "app", "latest", &scene.new).await;
        look.forward();
        let release = scene.crew.client.wait_end(&id).await.unwrap();
        assert_eq!(state(&release), "FAILED REGISTRY_UNAUTHORIZED", "{release:#}");
        scene.second.proxy().clear();
        scene.served(&scene.old.clone()).await;
        scene.failed = id;
        scene
    }

    fn request(&self, source: &str, unique: &str) -> Value {
        let (first, second) = (self.crew.target.repository("app"), self.second.repository("app"));
        let targets: [(&str, &[&str], &[&str]); 2] =
            [(&first, &[unique], &["latest"]), (&second, &[unique], &["latest"])];
        with(source, &targets, &json!({}))
    }

    async fn served(&self, source: &str) {
        for site in [&self.crew.target, &self.second] {
            served(site, "app", "latest", source).await;
        }
    }

    fn tags(
        &self,
        first: [&str; 2],
        second: [&str; 2],
    ) -> std::collections::BTreeMap<String, String> {
        let (one, two) = (self.crew.target.repository("app"), self.second.repository("app"));
        let names = [
            format!("{one}:2"),
            format!("{one}:latest"),
            format!("{two}:2"),
            format!("{two}:latest"),
        ];
        let states = [first[0], first[1], second[0], second[1]];
        let pairs: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(states).collect();
        expected(&pairs)
    }

    async fn check(&self) {
        let sites = [&self.crew.target, &self.second];
        ledger_check::check(&self.crew.world, &self.crew.source, &sites).await;
        ledger_check::puts_never_overlap(&self.crew.target);
    }
}

async fn retry(client: &Client, id: &str) -> Answer {
    let path = format!("/v1/releases/{id}/retry");
    let body = json!({ "reason": "the registry is back" });
    client.call(Method::POST, &path, &[], Some(&body)).await.unwrap()
}

#[tokio::test]
async fn what_was_put_back_is_moved_again_and_nothing_is_copied_twice() {
    let scene = Scene::new().await;
    let before = [&scene.crew.target, &scene.second].map(uploads);
    let answer = retry(&scene.crew.client, &scene.failed).await.good().unwrap();
    assert_eq!(text(&answer, "/id"), scene.failed);
    assert_eq!(text(&answer, "/retries/0/actor"), "ci");
    assert_eq!(text(&answer, "/retries/0/reason"), "the registry is back");
    assert_eq!(text(&answer, "/retries/0/endedReason"), "REGISTRY_UNAUTHORIZED");
    let release = scene.crew.client.wait_end(&scene.failed).await.unwrap();
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    assert_eq!(tags_with_hosts(&release), scene.tags(["MOVED"; 2], ["MOVED"; 2]));
    scene.served(&scene.new).await;
    let after = [&scene.crew.target, &scene.second].map(uploads);
    assert_eq!(before, after, "content was copied again");
    // What has succeeded stays so.
    let refused = retry(&scene.crew.client, &scene.failed).await;
    assert_refused(&refused, 409, "NOT_RETRYABLE", "");
    scene.check().await;
}

/// Uploads that reached a registry.
fn uploads(site: &Site) -> usize {
    writes(site).iter().filter(|write| write.contains("/blobs/uploads/")).count()
}

#[tokio::test]
async fn a_newer_release_in_between_keeps_its_tags() {
    let scene = Scene::new().await;
    let newest = scene.crew.image(&ImageSpec::tiny("newest"), "app").await;
    let release = ended(&scene.crew.client, &scene.request(&newest, "3")).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    let output = scene.crew.world.cli(&scene.crew.api, &["retry", &scene.failed]).await.unwrap();
    assert_eq!(output.code, Some(7), "{output:?}");
    let release = scene.crew.client.release(&scene.failed).await.unwrap();
    assert_eq!(state(&release), "FAILED SUPERSEDED", "{release:#}");
    let lost = ["MOVED", "SUPERSEDED SUPERSEDED"];
    assert_eq!(tags_with_hosts(&release), scene.tags(lost, lost));
    scene.served(&newest).await;
    scene.check().await;
}

#[tokio::test]
async fn a_registry_that_came_back_gets_what_it_lacks() {
    let crew = Crew::with(&TIMES.replace("max_attempts = 30", "max_attempts = 2"), 1).await;
    let away = || Action::Status(StatusCode::SERVICE_UNAVAILABLE, Vec::new(), String::new());
    let uploads = colophon_testkit::proxy::Rule::new(away()).path("/blobs/uploads/");
    crew.target.proxy().add(uploads.always());
    let source = crew.image(&ImageSpec::tiny("back"), "app").await;
    let id = crew.publish(&source, "app", &["1"], &["latest"]).await;
    let release = crew.client.wait_end(&id).await.unwrap();
    assert_eq!(state(&release), "ERRORED ATTEMPTS_EXHAUSTED", "{release:#}");
    // Still away: it errs again, and says how often it was tried.
    retry(&crew.client, &id).await.good().unwrap();
    let release = crew.client.wait_end(&id).await.unwrap();
    assert_eq!(state(&release), "ERRORED ATTEMPTS_EXHAUSTED", "{release:#}");
    crew.target.proxy().clear();
    let output =
        crew.world.cli(&crew.api, &["retry", &id, "--reason", "it is back"]).await.unwrap();
    assert_eq!(output.code, Some(0), "{output:?}");
    let release = crew.client.release(&id).await.unwrap();
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    assert_eq!(release["retries"].as_array().unwrap().len(), 2, "{release:#}");
    assert_eq!(release["attempts"].as_array().unwrap().len(), 4, "{release:#}");
    served(&crew.target, "app", "latest", &source).await;
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}

#[tokio::test]
async fn a_worker_that_dies_in_a_retry_leaves_nothing_open() {
    let mut scene = Scene::new().await;
    let put = about(Action::HoldAfter, Method::PUT, "app", "latest");
    let put = scene.crew.target.proxy().add(put);
    retry(&scene.crew.client, &scene.failed).await.good().unwrap();
    put.reached(PATIENCE).await.unwrap();
    // Once more is no error while it is at work, and no second retry.
    let again = retry(&scene.crew.client, &scene.failed).await.good().unwrap();
    assert_eq!(again["retries"].as_array().unwrap().len(), 1, "{again:#}");
    let failed = scene.failed.clone();
    scene.crew.kill_holder(&failed, "floating").await;
    put.drop_connections();
    scene.crew.hire().await;
    let release = scene.crew.succeeds(&failed).await;
    assert_eq!(state(&release), "SUCCEEDED");
    scene.served(&scene.new.clone()).await;
    scene.check().await;
}
