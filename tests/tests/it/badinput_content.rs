//! Content that is missing, old, altered or too large, and registries that answer with something
//! else: the release fails with a reason, and no tag is moved.

use colophon_testkit::{
    image::ImageSpec,
    peer::sha256,
    proxy::{Action, Rule},
};
use colophon_tests::{Client, Node, Site, SiteOptions, World, request};
use http::{Method, StatusCode};

use crate::release_scene::{assert_refused, published, state, succeeded, tag_puts, text};

struct Scene {
    _world: World,
    node: Node,
    client: Client,
    staging: Site,
    target: Site,
}

async fn scene() -> Scene {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::proxied()).await.unwrap();
    let target = world.site(SiteOptions::proxied()).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    Scene { _world: world, node, client, staging, target }
}

impl Scene {
    /// The staging registry answers requests to this path with something else.
    fn answers(&self, path: &str, media_type: &str, body: &str) {
        let header = vec![("Content-Type".to_owned(), media_type.to_owned())];
        let action = Action::Status(StatusCode::OK, header, body.to_owned());
        self.staging.proxy().add(Rule::new(action).path(path).always());
    }

    fn nothing_was_tagged(&self) {
        assert_eq!(tag_puts(&self.target), [""; 0]);
        assert!(!self.node.log().contains("panicked"), "{}", self.node.log());
    }
}

#[tokio::test]
async fn a_digest_that_does_not_exist_fails_the_release() {
    let scene = scene().await;
    scene.staging.push(&ImageSpec::tiny("1"), "app", "1").await.unwrap();
    let nowhere = format!("{}@{}", scene.staging.repository("app"), sha256(b"nothing"));
    let app = scene.target.repository("app");
    let release = published(&scene.client, &nowhere, &[(&app, &["1"], &["latest"])]).await;
    assert_eq!(state(&release), "FAILED SOURCE_GONE", "{release:#}");
    assert!(text(&release, "/message").contains(&nowhere), "{release:#}");
    scene.nothing_was_tagged();
}

#[tokio::test]
async fn manifests_of_schema_1_are_refused_with_what_to_do() {
    let scene = scene().await;
    let old = r#"{"schemaVersion":1,"name":"app","tag":"old","architecture":"amd64",
        "fsLayers":[{"blobSum":"sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"}],
        "history":[{"v1Compatibility":"{}"}],"signatures":[]}"#;
    let media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    scene.answers("/app/manifests/", media_type, old);
    let app = scene.target.repository("app");
    let source = scene.staging.reference("app", "old");
    let answer = scene.client.create(&request(&source, &[(&app, &["1"], &[])])).await.unwrap();
    assert_refused(&answer, 409, "UNSUPPORTED_MANIFEST", "source");
    let detail = answer.text("/detail");
    assert!(detail.contains("schema 1") && detail.contains("push the image again"), "{detail}");
    // By digest it is accepted unseen, and the release fails for the same reason.
    let source = format!("{}@{}", scene.staging.repository("app"), sha256(old.as_bytes()));
    let release = published(&scene.client, &source, &[(&app, &["1"], &[])]).await;
    assert_eq!(state(&release), "FAILED UNSUPPORTED_MANIFEST", "{release:#}");
    scene.nothing_was_tagged();
}

#[tokio::test]
async fn content_with_another_digest_than_promised_never_arrives() {
    let scene = scene().await;
    let image = scene.staging.push(&ImageSpec::tiny("altered"), "app", "1").await.unwrap();
    let peer = scene.staging.peer().unwrap();
    let walk = peer.walk("app", "1").await.unwrap();
    let layer = walk.contents.iter().find(|(_, content)| content.media_type.contains("layer"));
    let (layer, content) = layer.unwrap();
    let app = scene.target.repository("app");
    let source = scene.staging.reference("app", "1");
    let same_size = "x".repeat(usize::try_from(content.size).unwrap());
    for body in [same_size.as_str(), "short", &same_size.repeat(2)] {
        scene.answers(&format!("/blobs/{layer}"), "application/octet-stream", body);
        let release = published(&scene.client, &source, &[(&app, &["1"], &[])]).await;
        assert_eq!(state(&release), "FAILED DIGEST_MISMATCH", "{release:#}");
        assert!(text(&release, "/message").contains(layer.as_str()), "{release:#}");
        scene.staging.proxy().clear();
    }
    let there = scene.target.peer().unwrap();
    let path = format!("blobs/{layer}");
    let there = there.request(Method::HEAD, "app", &path).await.unwrap();
    assert_eq!(there.status().as_u16(), 404);

    // A manifest with another content than its digest says.
    let (bytes, media_type) = peer.manifest("app", "1").await.unwrap().unwrap();
    let altered = String::from_utf8(bytes).unwrap().replacen("amd64", "arm64", 1) + " ";
    scene.answers(&format!("/manifests/{}", image.digest()), &media_type, &altered);
    let release = published(&scene.client, &source, &[(&app, &["1"], &[])]).await;
    assert_eq!(state(&release), "FAILED DIGEST_MISMATCH", "{release:#}");
    scene.nothing_was_tagged();
    scene.staging.proxy().clear();
    succeeded(&scene.client, &source, &[(&app, &["1"], &[])]).await;
}

#[tokio::test]
async fn an_answer_that_is_no_manifest_is_refused_with_a_reason() {
    let scene = scene().await;
    let app = scene.target.repository("app");
    let large = format!("{{\"schemaVersion\":2,\"x\":\"{}\"}}", "y".repeat(5 << 20));
    let oci = "application/vnd.oci.image.manifest.v1+json";
    for (tag, media_type, body, reason, status) in [
        ("html", "text/html", "<html>please log in</html>", "UNSUPPORTED_MANIFEST", 409),
        ("empty", oci, "", "UNSUPPORTED_MANIFEST", 409),
        ("list", oci, "[]", "UNSUPPORTED_MANIFEST", 409),
        (
            "both",
            oci,
            r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
            "UNSUPPORTED_MANIFEST",
            409,
        ),
        ("deep", oci, &"[".repeat(100_000), "UNSUPPORTED_MANIFEST", 409),
        ("large", oci, &large, "TOO_LARGE", 409),
    ] {
        scene.answers(&format!("/app/manifests/{tag}"), media_type, body);
        let source = scene.staging.reference("app", tag);
        let answer = scene.client.create(&request(&source, &[(&app, &["1"], &[])])).await.unwrap();
        assert_refused(&answer, status, reason, "source");
        assert!(answer.text("/detail").len() < 600, "{tag}: {:#}", answer.body);
    }
    scene.nothing_was_tagged();
}
