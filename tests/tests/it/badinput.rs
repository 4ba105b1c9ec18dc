//! Requests that are wrong in themselves: refused with a reason, the field and what to do, before
//! anything is stored or any registry hears of it.

use colophon_testkit::image::ImageSpec;
use colophon_tests::{Client, Node, Site, SiteOptions, World};
use http::Method;
use serde_json::{Value, json};

use crate::release_scene::{assert_refused, succeeded, writes};

struct Scene {
    world: World,
    node: Node,
    client: Client,
    staging: Site,
    target: Site,
}

async fn scene() -> Scene {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::proxied()).await.unwrap();
    // Nobody listens at port 1, and nothing of a test may.
    world.registry_table("[[registry]]\nhost = \"127.0.0.1:1\"\nplain_http = true\n");
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    staging.push(&ImageSpec::tiny("bad input"), "app", "1").await.unwrap();
    Scene { world, node, client, staging, target }
}

impl Scene {
    /// A good request, to be spoilt.
    fn request(&self) -> Value {
        json!({
            "source": self.staging.reference("app", "1"),
            "targets": [{ "repository": self.target.repository("app"), "uniqueTags": ["1"] }],
        })
    }

    /// That nothing was begun and nothing broke.
    async fn nothing_happened(&self) {
        for table in ["release", "publication", "tag_move", "job", "tag_head", "idempotency_key"] {
            let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
            let rows: i64 =
                sqlx::query_scalar(sql).fetch_one(self.world.database().pool()).await.unwrap();
            assert_eq!(rows, 0, "{table}");
        }
        assert_eq!(writes(&self.target), [""; 0]);
        assert!(!self.node.log().contains("panicked"), "{}", self.node.log());
    }
}

#[tokio::test]
async fn references_and_tags_that_are_none_are_refused_by_field() {
    let scene = scene().await;
    let host = scene.staging.host();
    let long = "x".repeat(300);
    let sources = [
        (String::new(), "INVALID_ARGUMENT"),
        (format!("{host}/app"), "INVALID_REFERENCE"),
        (format!("http://{host}/app:1"), "INVALID_REFERENCE"),
        (format!("{host}/App:1"), "INVALID_REFERENCE"),
        (format!("{host}/app:1 "), "INVALID_REFERENCE"),
        (format!("{host}/../app:1"), "INVALID_REFERENCE"),
        (format!("{host}/app@sha256:12"), "INVALID_REFERENCE"),
        (format!("{host}/app@md5:d41d8cd98f00b204e9800998ecf8427e"), "INVALID_REFERENCE"),
        (format!("{host}/{long}:1"), "INVALID_REFERENCE"),
        (format!("{host}/app:{long}"), "INVALID_REFERENCE"),
        (format!("{host}/app:1\n"), "INVALID_REFERENCE"),
        ("\u{202e}app:1".to_owned(), "INVALID_REFERENCE"),
        ("elsewhere.example/app:1".to_owned(), "UNKNOWN_REGISTRY"),
        ("app:1".to_owned(), "UNKNOWN_REGISTRY"),
        ("127.0.0.1:99999/app:1".to_owned(), "INVALID_REFERENCE"),
    ];
    for (source, reason) in sources {
        let mut request = scene.request();
        request["source"] = json!(source);
        let answer = scene.client.create(&request).await.unwrap();
        assert_refused(&answer, 400, reason, "source");
        let helped = !answer.text("/remedy").is_empty() || source.is_empty();
        assert!(helped, "{source}: {:#}", answer.body);
        assert!(answer.text("/detail").len() < 400, "{:#}", answer.body);
    }
    let targets = [
        (json!([]), "INVALID_ARGUMENT", "targets"),
        (json!([{}]), "INVALID_ARGUMENT", "targets[0].repository"),
        (json!([{ "repository": "a/b:1" }]), "INVALID_REFERENCE", "targets[0].repository"),
        (
            json!([{ "repository": "elsewhere.example/app", "uniqueTags": ["1"] }]),
            "UNKNOWN_REGISTRY",
            "targets[0].repository",
        ),
        (
            json!([{ "repository": format!("{host}/b") }]),
            "INVALID_ARGUMENT",
            "targets[0].unique_tags",
        ),
        (
            json!([{ "repository": format!("{host}/b"), "uniqueTags": ["1", "-x"] }]),
            "INVALID_REFERENCE",
            "targets[0].unique_tags[1]",
        ),
        (
            json!([{ "repository": format!("{host}/b"), "floatingTags": ["x".repeat(129)] }]),
            "INVALID_REFERENCE",
            "targets[0].floating_tags[0]",
        ),
        (
            json!([{ "repository": format!("{host}/b"), "uniqueTags": ["1"], "floatingTags": ["1"] }]),
            "INVALID_ARGUMENT",
            "targets[0].floating_tags[0]",
        ),
        (
            json!([{ "repository": format!("{host}/b"), "uniqueTags": ["1"] },
                   { "repository": format!("{host}/b"), "uniqueTags": ["2"] }]),
            "INVALID_ARGUMENT",
            "targets[1].repository",
        ),
    ];
    for (targets, reason, field) in targets {
        let mut request = scene.request();
        request["targets"] = targets;
        let answer = scene.client.create(&request).await.unwrap();
        assert_refused(&answer, 400, reason, field);
    }
    scene.nothing_happened().await;
}

#[tokio::test]
async fn fields_that_are_unknown_too_large_or_of_another_form_are_refused() {
    let scene = scene().await;
    let many: serde_json::Map<String, Value> =
        (0..33).map(|number| (number.to_string(), json!("x"))).collect();
    for (name, value, field) in [
        ("sauce", json!("tomato"), "sauce"),
        ("priority", json!(101), "priority"),
        ("priority", json!("high"), "priority"),
        ("reason", json!("x".repeat(1_001)), "reason"),
        ("reason", json!("two\nlines"), "reason"),
        ("onBehalfOf", json!("x".repeat(201)), "on_behalf_of"),
        ("labels", json!({ "a b": "c" }), "labels"),
        ("labels", json!(many), "labels"),
        ("notAfter", json!("tomorrow"), "not_after"),
        ("notAfter", json!("2020-01-01T00:00:00Z"), "not_after"),
        ("idempotencyKey", json!("\u{e9}"), "idempotency_key"),
        ("idempotencyKey", json!("x".repeat(129)), "idempotency_key"),
        ("source", json!(7), "source"),
        ("targets", json!("app"), "targets"),
    ] {
        let mut request = scene.request();
        request[name] = value;
        let answer = scene.client.create(&request).await.unwrap();
        assert_refused(&answer, 400, "INVALID_ARGUMENT", field);
    }
    let mut request = scene.request();
    request["reason"] = json!("x".repeat(2 << 20));
    let answer = scene.client.create(&request).await.unwrap();
    assert_refused(&answer, 413, "INVALID_ARGUMENT", "");
    scene.nothing_happened().await;
}

#[tokio::test]
async fn sources_that_cannot_be_resolved_leave_nothing_behind() {
    let scene = scene().await;
    let with = |source: String| {
        let mut request = scene.request();
        request["source"] = json!(source);
        request
    };
    for name in ["app:none", "nowhere/app:1"] {
        let source = format!("{}/{name}", scene.staging.host());
        let answer = scene.client.create(&with(source.clone())).await.unwrap();
        assert_refused(&answer, 404, "SOURCE_NOT_FOUND", "source");
        assert!(answer.text("/detail").contains(&source), "{:#}", answer.body);
        assert!(answer.text("/remedy").contains("nothing was stored"), "{:#}", answer.body);
    }
    let answer = scene.client.create(&with("127.0.0.1:1/app:1".to_owned())).await.unwrap();
    assert_refused(&answer, 503, "REGISTRY_UNAVAILABLE", "source");
    assert!(answer.text("/detail").contains("127.0.0.1:1"), "{:#}", answer.body);
    scene.nothing_happened().await;
}

#[tokio::test]
async fn page_tokens_belong_to_their_query_and_to_their_caller() {
    let mut scene = scene().await;
    let everything = r#"[{ repositories = ["*"], actions = ["read"] }]"#;
    let other = scene.world.caller("other", everything).unwrap();
    let node = scene.world.serve().await.unwrap();
    let client = scene.world.client(&node).unwrap();
    let other = scene.world.client_of(&node, &other).unwrap();
    let source = scene.staging.reference("app", "1");
    let app = scene.target.repository("app");
    let mut ids = Vec::new();
    for number in 0..5 {
        let tag = number.to_string();
        let release = succeeded(&client, &source, &[(&app, &[&tag], &[])]).await;
        ids.push(release["id"].as_str().unwrap().to_owned());
    }
    ids.reverse();
    let call = async |client: &Client, path: &str, query: &[(&str, &str)]| {
        client.call(Method::GET, path, query, None).await.unwrap()
    };
    for (path, list, id) in
        [("/v1/releases", "releases", "id"), ("/v1/tag-moves", "moves", "release")]
    {
        // All pages together are the whole list, and nothing new pushes rows over their edges.
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let query = [("page_size", "2"), ("page_token", token.as_str()), ("repository", &app)];
            let page = call(&client, path, &query).await.good().unwrap();
            let rows = page[list].as_array().unwrap();
            seen.extend(rows.iter().map(|row| row[id].as_str().unwrap().to_owned()));
            token = page["nextPageToken"].as_str().unwrap().to_owned();
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, ids, "{path}");
        let query = [("page_size", "2"), ("repository", app.as_str())];
        let first = call(&client, path, &query).await.good().unwrap();
        let token = first["nextPageToken"].as_str().unwrap();
        let bad: [&[(&str, &str)]; 4] = [
            &[("page_token", "garbage")],
            &[("page_token", "AAAA"), ("repository", &app)],
            &[("page_token", token)],
            &[("page_token", token), ("repository", &app), ("actor", "ci")],
        ];
        for query in bad {
            let answer = call(&client, path, query).await;
            assert_refused(&answer, 400, "INVALID_PAGE_TOKEN", "page_token");
            assert!(!answer.text("/remedy").is_empty());
        }
        let same = [("page_token", token), ("repository", app.as_str())];
        assert_refused(&call(&other, path, &same).await, 400, "INVALID_PAGE_TOKEN", "page_token");
        assert_eq!(call(&client, path, &same).await.status, 200);
        let elsewhere = if path == "/v1/releases" { "/v1/tag-moves" } else { "/v1/releases" };
        let answer = call(&client, elsewhere, &same).await;
        assert_refused(&answer, 400, "INVALID_PAGE_TOKEN", "page_token");
        for size in ["-1", "201", "many"] {
            let answer = call(&client, path, &[("page_size", size)]).await;
            assert_refused(&answer, 400, "INVALID_ARGUMENT", "page_size");
        }
    }
}

/// A path, its query, and the reason and the field of the refusal.
type Question<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str);

#[tokio::test]
async fn questions_that_make_no_sense_are_refused() {
    let scene = scene().await;
    let get = async |path: &str, query: &[(&str, &str)]| {
        scene.client.call(Method::GET, path, query, None).await.unwrap()
    };
    let tag = scene.target.reference("app", "1");
    let digest = format!("{}@sha256:{}", scene.target.repository("app"), "0".repeat(64));
    let cases: [Question<'_>; 12] = [
        ("/v1/tag", &[], "INVALID_ARGUMENT", "reference"),
        ("/v1/tag", &[("reference", "a b")], "INVALID_REFERENCE", "reference"),
        ("/v1/tag", &[("reference", &digest)], "INVALID_REFERENCE", "reference"),
        ("/v1/tag", &[("reference", &tag), ("at", "noon")], "INVALID_ARGUMENT", "at"),
        ("/v1/tag", &[("reference", &tag), ("colour", "red")], "INVALID_ARGUMENT", "colour"),
        ("/v1/tag", &[("reference", &tag), ("reference", &tag)], "INVALID_ARGUMENT", "reference"),
        ("/v1/tag-moves", &[("release", "7")], "INVALID_ARGUMENT", "release"),
        ("/v1/tag-moves", &[("before", "x")], "INVALID_ARGUMENT", "before"),
        ("/v1/releases", &[("states", "RUNNING")], "INVALID_ARGUMENT", "states[0]"),
        ("/v1/releases", &[("label", "novalue")], "INVALID_ARGUMENT", "label"),
        ("/v1/releases", &[("repository", "x:1")], "INVALID_REFERENCE", "repository"),
        ("/v1/releases/7", &[], "INVALID_ARGUMENT", "id"),
    ];
    for (path, query, reason, field) in cases {
        assert_refused(&get(path, query).await, 400, reason, field);
    }
    // A tag of which nothing is known is an answer, not an error.
    let unknown = get("/v1/tag", &[("reference", &tag)]).await.good().unwrap();
    assert_eq!(unknown["certainty"], "CERTAINTY_UNKNOWN", "{unknown:#}");
    scene.nothing_happened().await;
}
