//! Real registries: what they accept and refuse, and what is really stored afterwards.

use std::sync::Arc;

use bytes::Bytes;
use colophon_domain::{Access, Digest, Reason, Repository};
use colophon_launcher::{Login, Registry, RegistryAuth, RegistryOptions};
use colophon_registry::{CopyOptions, Manifest, Need, PutError, RegistryConfig, Session};
use reqwest::Client;

use crate::support::{
    Keys, LAYER, by, copy, copy_with, descriptor, entry, image, index, measure, registries, tag,
};

fn config(registry: &Registry) -> RegistryConfig {
    RegistryConfig { plain_http: true, ..RegistryConfig::new(registry.host().parse().unwrap()) }
}

fn repository(registry: &Registry, name: &str) -> Repository {
    Repository::parse(&format!("{}/{name}", registry.host())).unwrap()
}

/// Puts a blob there by plain requests, not by the client that is tested.
async fn seed(registry: &Registry, name: &str, bytes: Bytes) -> serde_json::Value {
    let client = Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/v2/{name}/blobs/uploads/", registry.url());
    let begun = client.post(url).send().await.unwrap();
    let location = begun.headers()["location"].to_str().unwrap();
    let digest = Digest::sha256(&bytes);
    let size = bytes.len();
    let url = format!("{location}&digest={digest}");
    let put = client.put(url).body(bytes).send().await.unwrap();
    assert_eq!(put.status(), 201);
    descriptor(LAYER, &digest, size)
}

async fn seed_manifest(registry: &Registry, name: &str, manifest: &Manifest) {
    let url = format!("{}/v2/{name}/manifests/{}", registry.url(), manifest.digest);
    let request = Client::builder().no_proxy().build().unwrap().put(url);
    let put = request
        .header("content-type", &manifest.media_type)
        .body(manifest.bytes.clone())
        .send()
        .await
        .unwrap();
    assert_eq!(put.status(), 201);
}

/// An index of two images with a shared layer of some size.
async fn seed_index(registry: &Registry, name: &str, size: usize) -> Manifest {
    let layer = (0..size).map(|n| u8::try_from(n * 31 % 253).unwrap()).collect::<Vec<u8>>();
    let shared = seed(registry, name, layer.into()).await;
    let mut entries = Vec::new();
    for number in 0..2 {
        let text = format!(r#"{{"architecture":"a{number}","os":"linux"}}"#);
        let config = seed(registry, name, text.into()).await;
        let image = image(&[config, shared.clone()]);
        seed_manifest(registry, name, &image).await;
        entries.push(entry(&image));
    }
    let root = index(&entries);
    seed_manifest(registry, name, &root).await;
    root
}

fn sessions(source: &Registry, target: &Registry, keys: Arc<Keys>) -> (Session, Session) {
    let mut configs = vec![config(source)];
    if source.host() != target.host() {
        configs.push(config(target));
    }
    let registries = registries(configs, keys);
    (
        registries.session(&repository(source, "team/src"), Access::Pull).unwrap(),
        registries.session(&repository(target, "team/dst"), Access::Push).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_copied_tagged_and_found_again() {
    let source = Registry::start(RegistryOptions::default()).await.unwrap();
    let relative = RegistryOptions { relative_urls: true, ..RegistryOptions::default() };
    let target = Registry::start(relative).await.unwrap();
    let root = seed_index(&source, "team/src", 5_000_000).await;
    let (from, to) = sessions(&source, &target, Keys::none());
    assert_eq!(to.head(&tag("v1")).await.unwrap(), None);
    let totals = copy(&from, &to, &root.digest).await.unwrap();
    assert_eq!((totals.blobs_copied, totals.blobs_present), (3, 0));
    to.put_manifest(&tag("v1"), &root, None).await.unwrap();
    assert_eq!(to.head(&tag("v1")).await.unwrap().unwrap(), root.descriptor());
    let read = to.manifest(&tag("v1")).await.unwrap().unwrap();
    assert_eq!(read.bytes, root.bytes);
    let again = copy(&from, &to, &root.digest).await.unwrap();
    assert_eq!(again.blobs_copied, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn within_one_registry_blobs_are_mounted() {
    let registry = Registry::start(RegistryOptions::default()).await.unwrap();
    let root = seed_index(&registry, "team/src", 100_000).await;
    let (from, to) = sessions(&registry, &registry, Keys::none());
    let totals = copy(&from, &to, &root.digest).await.unwrap();
    assert_eq!((totals.blobs_mounted, totals.blobs_copied), (3, 0));
    assert!(to.manifest(&by(&root.digest)).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_empty_blob_is_copied() {
    let source = Registry::start(RegistryOptions::default()).await.unwrap();
    let target = Registry::start(RegistryOptions::default()).await.unwrap();
    let empty = seed(&source, "team/src", Bytes::new()).await;
    let config = seed(&source, "team/src", Bytes::from_static(b"{}")).await;
    let image = image(&[config, empty]);
    seed_manifest(&source, "team/src", &image).await;
    let (from, to) = sessions(&source, &target, Keys::none());
    assert_eq!(copy(&from, &to, &image.digest).await.unwrap().blobs_copied, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_authentication_lets_the_right_pat_in() {
    let source = Registry::start(RegistryOptions::default()).await.unwrap();
    let guarded = RegistryOptions {
        auth: RegistryAuth::Htpasswd(vec![Login::new("robot", "pat-1")]),
        ..RegistryOptions::default()
    };
    let target = Registry::start(guarded).await.unwrap();
    let root = seed_index(&source, "team/src", 10_000).await;
    let (from, to) = sessions(&source, &target, Keys::one("robot", "pat-1"));
    assert_eq!(copy(&from, &to, &root.digest).await.unwrap().blobs_copied, 3);
    let (_, wrong) = sessions(&source, &target, Keys::one("robot", "wrong-pat"));
    let failure = wrong.preflight().await.unwrap_err();
    assert_eq!(failure.reason(), Reason::RegistryUnauthorized);
    assert!(!format!("{failure:?}").contains("wrong-pat"));
    // The PAT is rotated: what was refused is read again.
    target.set_logins(&[Login::new("robot", "pat-2")]).unwrap();
    let (_, rotated) =
        sessions(&source, &target, Keys::one("robot", "pat-1").then("robot", "pat-2"));
    rotated.preflight().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn collected_garbage_is_missing_content_and_copied_again() {
    let source = Registry::start(RegistryOptions::default()).await.unwrap();
    let target = Registry::start(RegistryOptions::default()).await.unwrap();
    let root = seed_index(&source, "team/src", 10_000).await;
    let (from, to) = sessions(&source, &target, Keys::none());
    copy(&from, &to, &root.digest).await.unwrap();
    // The job fails on a repository without any tag.
    let other = image(&[seed(&target, "team/dst", Bytes::from_static(b"{}")).await]);
    to.put_manifest(&tag("other"), &other, None).await.unwrap();
    // Between the copy and the tag, the operator's nightly job removes what has no tag.
    target.collect_garbage(true).await.unwrap();
    let outcome = to.put_manifest(&tag("v1"), &root, None).await.unwrap_err();
    let PutError::NotApplied(failure) = outcome else { panic!("{outcome}") };
    assert_eq!(failure.reason(), Reason::ContentMissing);
    let recheck = CopyOptions { recheck: true, ..CopyOptions::default() };
    let totals = copy_with(&from, &to, &root.digest, recheck).await.unwrap();
    assert_eq!((totals.blobs_copied, totals.blobs_present), (3, 0));
    to.put_manifest(&tag("v1"), &root, None).await.unwrap();
    assert_eq!(to.head(&tag("v1")).await.unwrap().unwrap().digest, root.digest);
}

/// Tags a manifest by plain requests.
async fn seed_tags(registry: &Registry, name: &str, tags: &[String], manifest: &Manifest) {
    let client = Client::builder().no_proxy().build().unwrap();
    for tag in tags {
        let url = format!("{}/v2/{name}/manifests/{tag}", registry.url());
        let request = client.put(url).header("content-type", &manifest.media_type);
        let put = request.body(manifest.bytes.clone()).send().await.unwrap();
        assert_eq!(put.status(), 201);
    }
}

/// The same for very many tags, where the registry keeps them.
fn seed_links(registry: &Registry, name: &str, tags: &[String], manifest: &Manifest) {
    let repository = registry.storage().join("docker/registry/v2/repositories").join(name);
    for tag in tags {
        let folder = repository.join("_manifests/tags").join(tag).join("current");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("link"), manifest.digest.as_str()).unwrap();
    }
}

async fn listed(session: &Session) -> (bool, Vec<String>) {
    let mut tags = Vec::new();
    let found = session.tags(&mut |tag: &str| tags.push(tag.to_owned())).await.unwrap();
    tags.sort_unstable();
    (found, tags)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tags_are_listed() {
    let registry = Registry::start(RegistryOptions::default()).await.unwrap();
    let (from, to) = sessions(&registry, &registry, Keys::none());
    assert_eq!(listed(&to).await, (false, Vec::new()), "there is no such repository");
    let root = seed_index(&registry, "team/src", 1000).await;
    assert_eq!(listed(&from).await, (false, Vec::new()), "it says the same if there is no tag");
    let mut expected = ["latest", "v1.0.0_build.5", "_"].map(str::to_owned).to_vec();
    seed_tags(&registry, "team/src", &expected, &root).await;
    let many: Vec<String> = (0..1500).map(|number| format!("v1.0.{number}")).collect();
    seed_links(&registry, "team/src", &many, &root);
    assert_eq!(from.head(&tag("v1.0.7")).await.unwrap().unwrap().digest, root.digest);
    expected.extend(many);
    expected.sort_unstable();
    assert_eq!(listed(&from).await, (true, expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_measured_is_what_is_copied() {
    let source = Registry::start(RegistryOptions::default()).await.unwrap();
    let target = Registry::start(RegistryOptions::default()).await.unwrap();
    let root = seed_index(&source, "team/src", 10_000).await;
    let (from, to) = sessions(&source, &target, Keys::none());
    seed(&target, "team/dst", Bytes::from_static(br#"{"architecture":"a0","os":"linux"}"#)).await;
    let need = measure(&from, &to, &root.digest).await.unwrap();
    assert_eq!((need.manifests, need.blobs, need.blobs_total), (3, 2, 3));
    assert_eq!((need.bytes, need.bytes_total), (10_034, 10_068));
    assert_eq!(measure(&from, &to, &root.digest).await.unwrap(), need, "nothing has changed");
    let totals = copy(&from, &to, &root.digest).await.unwrap();
    assert_eq!((totals.blobs_copied, totals.bytes_copied), (need.blobs, need.bytes));
    assert_eq!(measure(&from, &to, &root.digest).await.unwrap(), Need::default());
    assert_eq!(measure(&from, &from, &root.digest).await.unwrap(), Need::default());
    let gone = measure(&from, &to, &Digest::sha256(b"gone")).await.unwrap_err();
    assert_eq!(gone.reason(), Reason::SourceGone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_deletes_no_tags_keeps_all_of_them_and_the_digest() {
    for delete in [true, false] {
        let options = RegistryOptions { delete, ..RegistryOptions::default() };
        let registry = Registry::start(options).await.unwrap();
        let root = seed_index(&registry, "team/dst", 1000).await;
        seed_tags(&registry, "team/dst", &["v1".to_owned(), "v2".to_owned()], &root).await;
        let (_, to) = sessions(&registry, &registry, Keys::none());
        assert!(!to.delete_tag(&"v1".parse().unwrap()).await.unwrap(), "deletion: {delete}");
        for what in [tag("v1"), tag("v2"), by(&root.digest)] {
            let found = to.head(&what).await.unwrap().unwrap();
            assert_eq!(found.digest, root.digest, "{what}, deletion: {delete}");
        }
    }
}
