//! The REST face as a shell script sees it: every route with the real `curl`.

use std::{collections::BTreeMap, path::PathBuf, process::Stdio};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use colophon_testkit::image::ImageSpec;
use colophon_tests::{Node, Site, SiteOptions, World};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::release_scene::{state, text};

/// `curl` at one server. The token is in a file, as it should be: arguments are visible to all.
struct Curl {
    url: String,
    token_header: PathBuf,
}

/// One answer.
#[derive(Debug)]
struct Page {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Page {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A problem document: its status, reason and field.
    fn problem(&self) -> (u16, String, String) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        assert_eq!(self.headers["cache-control"], "no-store", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        let kind = format!("urn:colophon:reason:{}", text(&problem, "/reason"));
        assert_eq!(text(&problem, "/type"), kind);
        assert_eq!(text(&problem, "/instance"), self.headers["x-request-id"]);
        assert!(!text(&problem, "/title").is_empty() && !text(&problem, "/detail").is_empty());
        let [reason, field] = ["/reason", "/field"].map(|name| text(&problem, name).to_owned());
        (self.status, reason, field)
    }
}

impl Curl {
    fn new(world: &World, node: &Node) -> Self {
        let token_header = world.folder().join("authorization");
        let header = format!("Authorization: Bearer {}", world.token().expose_secret());
        std::fs::write(&token_header, header).unwrap();
        Self { url: format!("http://{}", node.address()), token_header }
    }

    /// Runs it for a path, as the caller.
    async fn get(&self, path: &str, arguments: &[&str]) -> Page {
        let header = format!("@{}", self.token_header.display());
        let mut all = vec!["--header", &header];
        all.extend_from_slice(arguments);
        self.bare(path, &all).await
    }

    /// The same without the token.
    async fn bare(&self, path: &str, arguments: &[&str]) -> Page {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--include", "--max-time", "60", "--noproxy", "*"])
            .args(arguments)
            .arg(format!("{}{path}", self.url))
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "curl ended with {}: {said}", output.status);
        let mut answer = String::from_utf8(output.stdout).unwrap();
        while answer.starts_with("HTTP/1.1 100") {
            answer = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
        }
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let pairs = lines.filter_map(|line| line.split_once(": "));
        let headers = pairs.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Page { status, headers, body: body.to_owned() }
    }

    /// Posts a body.
    async fn post(&self, path: &str, body: &Value, arguments: &[&str]) -> Page {
        let body = body.to_string();
        let mut all = vec!["--header", "Content-Type: application/json", "--data-binary", &body];
        all.extend_from_slice(arguments);
        self.get(path, &all).await
    }
}

struct Scene {
    _world: World,
    _node: Node,
    curl: Curl,
    staging: Site,
    target: Site,
}

async fn scene() -> Scene {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::default()).await.unwrap();
    let node = world.run().await.unwrap();
    let curl = Curl::new(&world, &node);
    staging.push(&ImageSpec::tiny("rest"), "app", "1").await.unwrap();
    Scene { _world: world, _node: node, curl, staging, target }
}

#[tokio::test]
async fn every_route_answers_curl() {
    let Scene { curl, staging, target, .. } = &scene().await;
    let app = target.repository("app");
    let request = json!({
        "source": staging.reference("app", "1"),
        "targets": [{ "repository": app, "uniqueTags": ["1.0"], "floatingTags": ["latest"] }],
        "reason": "für Montag",
        "onBehalfOf": "ann@example.org",
        "labels": { "team": "web" },
        "priority": 7,
    });
    let key = ["--header", "Idempotency-Key: 17"];
    let created = curl.post("/v1/releases", &request, &key).await;
    assert_eq!(
        (created.status, created.headers["content-type"].as_str()),
        (200, "application/json")
    );
    let id = text(&created.json(), "/id").to_owned();
    let again = curl.post("/v1/releases", &request, &key).await;
    assert_eq!(text(&again.json(), "/id"), id);

    let path = format!("/v1/releases/{id}");
    let ended = async || {
        let release = curl.get(&path, &[]).await.json();
        (release["state"] == "RELEASE_STATE_SUCCEEDED").then_some(release)
    };
    let ended = colophon_testkit::wait::wait_until("it succeeded", colophon_tests::PATIENCE, ended);
    let release = ended.await.unwrap();
    assert_eq!(text(&release, "/reason"), "für Montag");
    assert_eq!(text(&release, "/onBehalfOf"), "ann@example.org");
    assert_eq!((&release["priority"], &release["labels"]), (&json!(7), &json!({ "team": "web" })));
    for time in ["/createTime", "/startTime", "/endTime", "/publications/0/tags/0/endTime"] {
        assert!(text(&release, time).ends_with('Z'), "{time}: {release:#}");
    }
    // Every key is there, also where there is nothing to say.
    assert_eq!(release["attempts"], json!([]));
    assert_eq!(release["publications"][0]["notes"], json!([]));
    assert_eq!(release["cancelRequested"], json!(false));

    let repository = format!("repository={app}");
    let query = ["--get", "--data-urlencode", &repository, "--data-urlencode", "label=team=web"];
    let more = "pageSize=1&states=RELEASE_STATE_SUCCEEDED&states=RELEASE_STATE_FAILED";
    let list = curl.get("/v1/releases", &[&query[..], &["--data", more]].concat()).await.json();
    assert_eq!(text(&list, "/releases/0/id"), id, "{list:#}");
    assert_eq!(list["nextPageToken"], "");

    let reference = format!("reference={app}:latest");
    let tag = curl.get("/v1/tag", &["--get", "--data-urlencode", &reference]).await.json();
    assert_eq!(text(&tag, "/digest"), text(&release, "/digest"));
    let at = format!("at={}", text(&tag, "/entry/at").replace('Z', "+00:00"));
    let query = ["--get", "--data-urlencode", &reference, "--data-urlencode", &at];
    let then = curl.get("/v1/tag", &query).await.json();
    assert_eq!(text(&then, "/certainty"), "CERTAINTY_LAST_OBSERVED", "{then:#}");
    assert_eq!(text(&then, "/digest"), text(&release, "/digest"));

    let query = ["--get", "--data-urlencode", &reference, "--data", "include_intents=true"];
    let moves = curl.get("/v1/tag-moves", &query).await.json();
    assert_eq!(moves["moves"].as_array().unwrap().len(), 2, "{moves:#}");
    // The body in the answer is what was hashed.
    let body = STANDARD.decode(text(&moves, "/moves/0/body")).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(text(&body, "/id"), text(&moves, "/moves/0/id"));

    let late = json!({ "reason": "too late" });
    let cancelled = curl.post(&format!("{path}/cancel"), &late, &[]).await;
    assert_eq!(cancelled.problem(), (409, "NOT_CANCELLABLE".into(), String::new()));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(curl.bare(path, &[]).await.status, 200, "{path}");
    }
    let head = curl.get(&path, &["--head"]).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn what_goes_wrong_is_a_problem_document() {
    let Scene { curl, staging, target, .. } = &scene().await;
    let none = String::new;
    let bare = curl.bare("/v1/releases", &[]).await;
    assert!(bare.headers["www-authenticate"].starts_with("Bearer"), "{bare:?}");
    assert_eq!(bare.problem(), (401, "UNAUTHENTICATED".into(), none()));
    let problem = async |path: &str, arguments: &[&str]| curl.get(path, arguments).await.problem();
    assert_eq!(problem("/v1/nothing", &[]).await, (404, "NOT_FOUND".into(), none()));
    assert_eq!(problem("/", &[]).await, (404, "NOT_FOUND".into(), none()));
    let wrong = curl.get("/v1/releases", &["--request", "DELETE"]).await;
    assert!(wrong.headers["allow"].contains("POST"), "{wrong:?}");
    assert_eq!(wrong.problem(), (405, "INVALID_ARGUMENT".into(), none()));
    let form = ["--data", "source=x"];
    assert_eq!(problem("/v1/releases", &form).await, (415, "INVALID_ARGUMENT".into(), none()));
    let json = ["--header", "Content-Type: application/json", "--data-binary"];
    let with = |body: &'static str| [json[0], json[1], json[2], body];
    let invalid = |field: &str| (400, "INVALID_ARGUMENT".to_owned(), field.to_owned());
    assert_eq!(problem("/v1/releases", &with("{")).await, invalid(""));
    assert_eq!(problem("/v1/releases", &with("")).await, invalid(""));
    assert_eq!(problem("/v1/releases", &with("[]")).await, invalid(""));
    assert_eq!(problem("/v1/releases", &with("{}")).await, invalid("source"));
    assert_eq!(problem("/v1/releases", &with(r#"{"sourc":"x"}"#)).await, invalid("sourc"));
    let deep = "[".repeat(60_000);
    let deep = [json[0], json[1], json[2], deep.as_str()];
    assert_eq!(problem("/v1/releases", &deep).await, invalid(""));
    assert_eq!(problem("/v1/releases?page_size=x", &[]).await, invalid("page_size"));
    assert_eq!(problem("/v1/releases?%ff=1", &[]).await.0, 400);

    let large = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(large.path(), vec![b' '; 3 << 20]).unwrap();
    let large = format!("@{}", large.path().display());
    let large = [json[0], json[1], json[2], large.as_str()];
    assert_eq!(problem("/v1/releases", &large).await, (413, "INVALID_ARGUMENT".into(), none()));

    // What curl sends as a request's id is what the log and the problem call it.
    let id = ["--header", "X-Request-Id: run-17"];
    let page = curl.get("/v1/releases/7", &id).await;
    assert_eq!(page.headers["x-request-id"], "run-17");
    assert_eq!(page.problem(), invalid("id"));

    // gRPC's paths say what they are.
    let path = "/colophon.v1.ReleaseService/CreateRelease";
    assert_eq!(problem(path, &[]).await.0, 405);
    assert_eq!(problem(path, &with("{}")).await.0, 415);

    let missing = json!({
        "source": staging.reference("app", "none"),
        "targets": [{ "repository": target.repository("app"), "uniqueTags": ["1"] }],
    });
    let page = curl.post("/v1/releases", &missing, &[]).await;
    assert_eq!(page.problem(), (404, "SOURCE_NOT_FOUND".into(), "source".into()));
    assert!(text(&page.json(), "/remedy").contains("check the name"));
}

#[tokio::test]
async fn a_release_that_waits_is_shown_with_its_attempts() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let mut target = world.site(SiteOptions::default()).await.unwrap();
    world.worker.push_str("max_attempts = 1\n");
    let node = world.run().await.unwrap();
    let curl = Curl::new(&world, &node);
    staging.push(&ImageSpec::tiny("rest"), "app", "1").await.unwrap();
    target.registry_mut().kill();
    let request = json!({
        "source": staging.reference("app", "1"),
        "targets": [{ "repository": target.repository("app"), "uniqueTags": ["1"] }],
    });
    let created = curl.post("/v1/releases", &request, &[]).await.json();
    let path = format!("/v1/releases/{}", text(&created, "/id"));
    let ended = async || {
        Some(curl.get(&path, &[]).await.json()).filter(|release| release["endTime"].is_string())
    };
    let release = colophon_testkit::wait::wait_until("it ended", colophon_tests::PATIENCE, ended);
    let release = release.await.unwrap();
    assert_eq!(state(&release), "ERRORED ATTEMPTS_EXHAUSTED", "{release:#}");
    assert_eq!(release["attempts"].as_array().unwrap().len(), 1);
    // Lists leave them out.
    let list = curl.get("/v1/releases", &[]).await.json();
    assert_eq!(list["releases"][0]["attempts"], json!([]), "{list:#}");
}
