//! What goes along with an image through the whole service, between real registries that have no
//! referrers API: signatures verify after the copy, by code that shares nothing with ours.

use std::{path::PathBuf, process::Stdio};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use colophon_testkit::{
    image::{Image, ImageSpec},
    peer::Peer,
};
use colophon_tests::{Client, Node, Site, SiteOptions, World, request};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    grpc::{python, root},
    ledger_check,
    release_scene::{assert_refused, kinds, state, text},
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const SBOM: &str = "application/spdx+json";
const NOTATION: &str = "application/vnd.cncf.notary.signature";

struct Scene {
    world: World,
    _node: Node,
    client: Client,
    staging: Site,
    target: Site,
    image: Image,
    key: Key,
}

/// Staging with a signed index of two platforms under `app:1`, and an empty registry.
async fn scene() -> Scene {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::proxied()).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    let image = staging.push(&ImageSpec::new("signed"), "app", "1").await.unwrap();
    let key = Key::new(world.folder()).await;
    let peer = staging.peer().unwrap();
    for digest in subjects(&image) {
        key.sign(&peer, digest).await;
    }
    Scene { world, _node: node, client, staging, target, image, key }
}

/// The index and its platforms.
fn subjects(image: &Image) -> Vec<&str> {
    let children = image.children().iter().map(String::as_str);
    [image.digest()].into_iter().chain(children).collect()
}

pub(crate) fn tag_of(digest: &str) -> String {
    digest.replace(':', "-")
}

/// A key pair of openssl's.
struct Key {
    folder: PathBuf,
}

impl Key {
    async fn new(world: &std::path::Path) -> Self {
        let folder = world.join("signing");
        std::fs::create_dir(&folder).unwrap();
        let key = Self { folder };
        let curve = "ec_paramgen_curve:P-256";
        key.openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out", "key.pem"]).await;
        key.openssl(&["pkey", "-in", "key.pem", "-pubout", "-out", "pub.pem"]).await;
        key
    }

    async fn openssl(&self, arguments: &[&str]) {
        let mut command = Command::new("openssl");
        let command = command.args(arguments).current_dir(&self.folder).stdin(Stdio::null());
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Signs a manifest as `cosign sign --key` does: the payload is a layer, the signature of it an
    /// annotation, and the tag is derived from the digest.
    async fn sign(&self, peer: &Peer, digest: &str) {
        let payload = json!({
            "critical": {
                "identity": { "docker-reference": "staging.lan/app" },
                "image": { "docker-manifest-digest": digest },
                "type": "cosign container image signature",
            },
            "optional": null,
        });
        let payload = payload.to_string();
        std::fs::write(self.folder.join("payload"), &payload).unwrap();
        self.openssl(&["dgst", "-sha256", "-sign", "key.pem", "-out", "proof", "payload"]).await;
        let proof = STANDARD.encode(std::fs::read(self.folder.join("proof")).unwrap());
        let layer = peer.put_blob("app", payload.as_bytes()).await.unwrap();
        let body = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": config(peer, "application/vnd.oci.image.config.v1+json").await,
            "layers": [{
                "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                "digest": layer, "size": payload.len(),
                "annotations": { "dev.cosignproject.cosign/signature": proof },
            }],
        });
        put(peer, &format!("{}.sig", tag_of(digest)), MANIFEST, &body).await;
    }

    /// Verifies what is at a site; one line for each signature and each referrer.
    async fn verify(&self, site: &Site, name: &str, tag: &str) -> Vec<String> {
        let script = root().join("tests/python/signed/verify.py");
        let url = format!("http://{}", site.registry().host());
        let mut command = Command::new(python());
        command.arg(script).args([&url, name, tag]).arg(self.folder.join("pub.pem"));
        let output = command.stdin(Stdio::null()).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

async fn config(peer: &Peer, kind: &str) -> Value {
    json!({ "mediaType": kind, "digest": peer.put_blob("app", b"{}").await.unwrap(), "size": 2 })
}

async fn put(peer: &Peer, reference: &str, kind: &str, body: &Value) -> (String, usize) {
    let bytes = serde_json::to_vec(body).unwrap();
    let digest = peer.put_manifest("app", reference, kind, &bytes).await.unwrap();
    (digest, bytes.len())
}

/// An artifact about a manifest, listed as a client does at a registry without the API.
pub(crate) async fn refer(peer: &Peer, subject: &str, kind: &str) -> String {
    let (bytes, media_type) = peer.manifest("app", subject).await.unwrap().unwrap();
    let layer = peer.put_blob("app", kind.as_bytes()).await.unwrap();
    let annotations = json!({ "org.opencontainers.image.created": "2026-11-03T14:02:00Z" });
    let body = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
        "config": config(peer, "application/vnd.oci.empty.v1+json").await,
        "layers": [{ "mediaType": kind, "digest": layer, "size": kind.len() }],
        "subject": { "mediaType": media_type, "digest": subject, "size": bytes.len() },
        "annotations": annotations,
    });
    let text = serde_json::to_vec(&body).unwrap();
    let digest = colophon_testkit::peer::sha256(&text);
    let (_, size) = put(peer, &digest, MANIFEST, &body).await;
    let entry = json!({
        "mediaType": MANIFEST, "digest": digest, "size": size, "artifactType": kind,
        "annotations": annotations,
    });
    let there = peer.manifest("app", &tag_of(subject)).await.unwrap();
    let mut list: Value = match there {
        Some((bytes, _)) => serde_json::from_slice(&bytes).unwrap(),
        None => json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }),
    };
    list["manifests"].as_array_mut().unwrap().push(entry);
    put(peer, &tag_of(subject), INDEX, &list).await;
    digest
}

/// Publishes `app:1` with a selection, and waits for the end.
async fn publish(scene: &Scene, repository: &str, selection: Value) -> Value {
    let source = scene.staging.reference("app", "1");
    let mut body = request(&source, &[(repository, &["1"], &["latest"])]);
    if !selection.is_null() {
        body["selection"] = selection;
    }
    let release = scene.client.create(&body).await.unwrap().good().unwrap();
    scene.client.wait_end(text(&release, "/id")).await.unwrap()
}

/// The companions of a release's only target, with their states.
fn companions(release: &Value) -> Vec<String> {
    let tags = release["publications"][0]["companions"].as_array().unwrap();
    let short = |tag: &Value| {
        let state = text(tag, "/state").strip_prefix("TAG_MOVE_STATE_").unwrap().to_owned();
        format!("{} {state}", text(tag, "/tag"))
    };
    tags.iter().map(short).collect()
}

#[tokio::test]
async fn what_was_signed_verifies_after_the_copy_at_registries_without_the_api() {
    let scene = scene().await;
    let Scene { staging, target, image, key, client, world, .. } = &scene;
    let peer = staging.peer().unwrap();
    let sbom = refer(&peer, image.digest(), SBOM).await;
    refer(&peer, &sbom, NOTATION).await;
    refer(&peer, &image.children()[0], NOTATION).await;
    let before = key.verify(staging, "app", "1").await;
    assert_eq!(before.len(), 6, "{before:?}");

    let app = target.repository("app");
    let release = publish(&scene, &app, Value::Null).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    assert_eq!(key.verify(target, "app", "1").await, before);
    let mut expected: Vec<String> =
        subjects(image).iter().map(|digest| format!("{}.sig MOVED", tag_of(digest))).collect();
    let lists = [image.digest(), &image.children()[0], &sbom];
    expected.extend(lists.map(|digest| format!("{} MOVED", tag_of(digest))));
    expected.sort();
    let mut found = companions(&release);
    found.sort();
    assert_eq!(found, expected);
    // They stand in the ledger as what they are, and the release counts its own tags.
    let sig = format!("{app}:{}.sig", tag_of(image.digest()));
    // On a busy machine the answer to the PUT may come too late.
    let story = kinds(client, &sig).await;
    assert!(matches!(story[1].as_str(), "confirmed" | "recovered"), "{story:?}");
    assert!(text(&release, "/summary").contains("2 of 2 tags"), "{release:#}");
    ledger_check::check(world, staging, &[target]).await;

    // Another signature comes later: the list of the target grows, and nothing else moves.
    refer(&peer, image.digest(), "application/vnd.in-toto+json").await;
    let again = publish(&scene, &app, Value::Null).await;
    assert_eq!(state(&again), "SUCCEEDED", "{again:#}");
    assert_eq!(companions(&again), [format!("{} MOVED", tag_of(image.digest()))]);
    assert_eq!(key.verify(target, "app", "1").await.len(), 7);
    ledger_check::check(world, staging, &[target]).await;
}

#[tokio::test]
async fn what_is_left_out_is_what_was_said() {
    let scene = scene().await;
    let Scene { staging, target, image, .. } = &scene;
    let peer = staging.peer().unwrap();
    refer(&peer, image.digest(), SBOM).await;
    refer(&peer, image.digest(), NOTATION).await;
    let none = json!({ "referrers": ["none"], "withoutCosign": true });
    let release = publish(&scene, &target.repository("none"), none).await;
    assert_eq!((state(&release).as_str(), companions(&release)), ("SUCCEEDED", vec![]));
    let selection = json!({ "referrers": [SBOM], "withoutCosign": true });
    let release = publish(&scene, &target.repository("one"), selection.clone()).await;
    assert_eq!(companions(&release), [format!("{} MOVED", tag_of(image.digest()))]);
    let list = target.peer().unwrap().manifest("one", &tag_of(image.digest())).await.unwrap();
    let list: Value = serde_json::from_slice(&list.unwrap().0).unwrap();
    assert_eq!(list["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(text(&list, "/manifests/0/artifactType"), SBOM);
    assert_eq!(release["selection"]["referrers"], selection["referrers"]);
    assert_eq!(release["selection"]["withoutCosign"], true);
}

#[tokio::test]
async fn some_platforms_are_published_as_an_index_of_their_own() {
    let scene = scene().await;
    let Scene { staging, target, image, client, world, .. } = &scene;
    let source = staging.reference("app", "1");
    let arm = json!({ "platforms": ["linux/arm64"] });
    let mut asked = request(&source, &[(&target.repository("app"), &["1"], &["latest"])]);
    asked["selection"] = arm.clone();
    let planned = client.call(http::Method::POST, "/v1/plans", &[], Some(&asked)).await.unwrap();
    let planned = planned.good().unwrap();
    let release = publish(&scene, &target.repository("app"), arm.clone()).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    let digest = text(&release, "/digest");
    assert_ne!(digest, image.digest());
    assert_eq!(text(&release, "/sourceDigest"), image.digest());
    assert_eq!(
        (text(&planned, "/digest"), text(&planned, "/sourceDigest")),
        (digest, image.digest())
    );
    let peer = target.peer().unwrap();
    let walk = peer.walk("app", "latest").await.unwrap();
    assert_eq!(walk.root, digest);
    assert!(walk.contents.contains_key(&image.children()[1]));
    assert!(!walk.contents.contains_key(&image.children()[0]));
    assert_eq!(companions(&release), [format!("{}.sig MOVED", tag_of(&image.children()[1]))]);
    // The ledger says what was published, and what it was made of.
    let moves = client.moves(&target.reference("app", "1")).await.unwrap();
    assert_eq!(text(&moves[0], "/newDigest"), digest);
    assert!(text(&moves[0], "/source").ends_with(image.digest()), "{moves:#?}");
    ledger_check::check(world, staging, &[target]).await;

    // Within one repository there is something to put, too.
    let here = publish(&scene, &staging.repository("app"), arm.clone()).await;
    assert_eq!(state(&here), "FAILED TAG_IMMUTABLE", "app:1 is the whole one: {here:#}");
    let mut asked = request(&source, &[(&staging.repository("app"), &["1-arm"], &[])]);
    asked["selection"] = arm;
    let here = client.create(&asked).await.unwrap().good().unwrap();
    let here = client.wait_end(text(&here, "/id")).await.unwrap();
    assert_eq!(state(&here), "SUCCEEDED", "{here:#}");
    let found = staging.peer().unwrap().digest_of("app", "1-arm").await.unwrap();
    assert_eq!(found.as_deref(), Some(digest));

    // All platforms are the image itself, and what is wrong is said with what would be right.
    let all = json!({ "platforms": ["linux/arm64", "linux/amd64"] });
    let release = publish(&scene, &target.repository("all"), all).await;
    let digests = (text(&release, "/digest"), text(&release, "/sourceDigest"));
    assert_eq!(digests, (image.digest(), ""));
    for (selection, field, words) in [
        (
            json!({ "platforms": ["linux/s390x"] }),
            "selection.platforms",
            "linux/amd64, linux/arm64",
        ),
        (json!({ "platforms": ["linux"] }), "selection.platforms", "is no platform"),
        (json!({ "referrers": ["sbom"] }), "selection.referrers", "is no media type"),
    ] {
        asked["selection"] = selection;
        let refused = client.create(&asked).await.unwrap();
        assert_refused(&refused, 400, "INVALID_ARGUMENT", field);
        assert!(refused.text("/detail").contains(words), "{:#}", refused.body);
    }
}

#[tokio::test]
async fn the_command_has_an_option_for_each() {
    let scene = scene().await;
    let Scene { staging, target, image, world, _node: node, .. } = &scene;
    let (source, to) = (staging.reference("app", "1"), target.repository("app"));
    let run = async |more: &[&str]| {
        let line = ["publish", &source, "--to", &to, "--tag"];
        world.cli(node, &[&line[..], more].concat()).await.unwrap()
    };
    let said = run(&["a", "--platform", "linux/amd64", "--referrers", "none"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains(&format!("part of  {}", image.digest())), "{}", said.out);
    assert!(said.out.contains("only linux/amd64; referrers: none"), "{}", said.out);
    let with_it = format!("with it: {}.sig  MOVED", tag_of(&image.children()[0]));
    assert!(said.out.contains(&with_it), "{}", said.out);
    let said = run(&["b", "--no-cosign", "--include-foreign"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(!said.out.contains("with it"), "{}", said.out);
    let said = run(&["c", "--platform", "linux/s390x"]).await;
    assert_ne!(said.code, Some(0));
    assert!(said.err.contains("linux/amd64, linux/arm64"), "{}", said.err);
}
