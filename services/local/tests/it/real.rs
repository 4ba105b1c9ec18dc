//! What the ordinary tools write: `skopeo`, `umoci`, `gzip` and `zstd`. Digests are held against
//! what those tools say of the same source.

use std::{io::Read as _, path::Path, process::Command};

use colophon_domain::Digest;
use colophon_local::{Image, Options, Source, open};
use colophon_testkit::{
    image::{Image as Built, ImageSpec},
    save25,
};
use serde_json::Value;

use crate::support::{Whole, archive, choice, whole};

/// Runs a program, with whatever it caches in a folder of the test.
fn run(home: &Path, program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .env("HOME", home)
        .env("XDG_RUNTIME_DIR", home)
        .current_dir(home)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; apt-get install {program}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    output.stdout
}

fn skopeo(home: &Path, arguments: &[&str]) -> Vec<u8> {
    run(home, "skopeo", &[&["--insecure-policy"], arguments].concat())
}

async fn built() -> (Built, String) {
    let image = ImageSpec::new("local").layer(300_000).build().await.unwrap();
    let source = format!("oci:{}:image", image.layout().display());
    (image, source)
}

async fn opened(source: Source, options: &Options) -> (Image, Whole) {
    let image = open(&source, options, &()).await.unwrap();
    let whole = whole(&image).await;
    (image, whole)
}

#[tokio::test]
async fn layouts_of_skopeo_keep_every_digest() {
    let (built, source) = built().await;
    let home = tempfile::tempdir().unwrap();
    let options = Options::default();
    let (image, expected) = opened(Source::OciFolder(built.layout().to_owned()), &options).await;
    assert_eq!(image.root.as_str(), built.digest());
    let raw = skopeo(home.path(), &["inspect", "--raw", &source]);
    assert_eq!(image.root, Digest::sha256(&raw));

    let folder = home.path().join("copy");
    let file = home.path().join("copy.tar");
    let all = ["copy", "--all", "--preserve-digests", &source];
    skopeo(home.path(), &[&all[..], &[&format!("oci:{}:v1", folder.display())]].concat());
    skopeo(home.path(), &[&all[..], &[&format!("oci-archive:{}:v1", file.display())]].concat());
    for (source, options) in [
        (Source::OciFolder(folder), choice(Some("v1"), None)),
        (Source::OciArchive(file.clone()), options.clone()),
        (Source::DockerArchive(file.clone()), options.clone()),
    ] {
        assert_eq!(opened(source, &options).await.1, expected);
    }
    // Compressed by programs that are not ours.
    for (program, name) in [("gzip", "copy.tar.gz"), ("zstd", "copy.tar.zst")] {
        let packed = run(home.path(), program, &["-c", "copy.tar"]);
        std::fs::write(home.path().join(name), packed).unwrap();
        let source = Source::OciArchive(home.path().join(name));
        assert_eq!(opened(source, &options).await.1, expected, "{name}");
    }
    let (image, _) = opened(Source::OciArchive(file), &choice(None, Some("linux/arm64"))).await;
    assert_eq!(image.root.as_str(), built.children()[1]);
}

fn config(image: &Whole) -> Value {
    let manifest: Value = serde_json::from_slice(&image.manifests[0].2).unwrap();
    let digest: Digest = manifest["config"]["digest"].as_str().unwrap().parse().unwrap();
    serde_json::from_slice(&image.blobs[&digest].1).unwrap()
}

#[tokio::test]
async fn an_archive_of_skopeo_gets_the_configuration_and_layers_that_skopeo_gives_it() {
    let (_built, source) = built().await;
    let home = tempfile::tempdir().unwrap();
    let at = home.path().join("app.tar");
    let target = format!("docker-archive:{}:app:1", at.display());
    skopeo(home.path(), &["copy", "--override-arch", "amd64", &source, &target]);
    let (image, whole) = opened(archive(&at), &Options::default()).await;
    assert!(image.digest_is_new);
    assert_eq!(image.names, ["docker.io/library/app:1"]);

    let folder = home.path().join("dir");
    let from = format!("docker-archive:{}", at.display());
    skopeo(home.path(), &["copy", &from, &format!("dir:{}", folder.display())]);
    let theirs = std::fs::read(folder.join("manifest.json")).unwrap();
    let theirs: Value = serde_json::from_slice(&theirs).unwrap();
    let ours: Value = serde_json::from_slice(&whole.manifests[0].2).unwrap();
    assert_eq!(ours["config"], theirs["config"]);
    assert_eq!(ours["mediaType"], theirs["mediaType"]);
    let id = image.image_id.unwrap();
    assert_eq!(Some(id.as_str()), theirs["config"]["digest"].as_str());
    let diff_ids = config(&whole)["rootfs"]["diff_ids"].as_array().unwrap().clone();
    let layers = ours["layers"].as_array().unwrap();
    assert_eq!(layers.len(), diff_ids.len());
    assert_eq!(layers.len(), theirs["layers"].as_array().unwrap().len());
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        let digest: Digest = layer["digest"].as_str().unwrap().parse().unwrap();
        let mut plain = Vec::new();
        let packed = whole.blobs[&digest].1.as_slice();
        flate2::read::GzDecoder::new(packed).read_to_end(&mut plain).unwrap();
        assert_eq!(Some(Digest::sha256(&plain).as_str()), diff_id.as_str());
    }
}

/// Two images in one archive, one of them with a layer twice, which `skopeo` writes as links.
#[tokio::test]
async fn archives_of_skopeo_with_several_images_and_links_are_read() {
    let home = tempfile::tempdir().unwrap();
    let mut files = crate::fixture::Files::default();
    let layer = crate::tars::Tar::default().file("etc/x", b"content").end();
    let twice = files.image("linux/amd64", &[&layer, &layer]);
    let other = crate::tars::Tar::default().file("etc/y", b"other").end();
    let other = files.image("linux/amd64", &[&other]);
    let roots = [crate::fixture::named(&twice, "twice"), crate::fixture::named(&other, "other")];
    files.layout(&roots).folder(&home.path().join("layout"));
    for name in ["twice", "other"] {
        let source = format!("oci:layout:{name}");
        skopeo(home.path(), &["copy", &source, &format!("docker-archive:{name}.tar:app:{name}")]);
        let at = home.path().join(format!("{name}.tar"));
        let (image, whole) = opened(archive(&at), &Options::default()).await;
        let layers = config(&whole)["rootfs"]["diff_ids"].as_array().unwrap().len();
        assert_eq!((layers, image.blobs.len()), (if name == "twice" { 2 } else { 1 }, 2));
    }
    let listed = run(home.path(), "tar", &["-tvf", "twice.tar"]);
    let listed = String::from_utf8(listed).unwrap();
    assert!(listed.contains(" -> ../"), "no link is in it any more: {listed}");
}

#[tokio::test]
async fn layouts_of_umoci_keep_their_digests() {
    let home = tempfile::tempdir().unwrap();
    let umoci = |arguments: &[&str]| run(home.path(), "umoci", arguments);
    std::fs::write(home.path().join("file"), "content").unwrap();
    umoci(&["init", "--layout", "layout"]);
    for tag in ["v1", "v2"] {
        let image = format!("layout:{tag}");
        umoci(&["new", "--image", &image]);
        umoci(&["insert", "--rootless", "--image", &image, "file", &format!("/etc/{tag}")]);
    }
    let layout = home.path().join("layout");
    for tag in ["v1", "v2"] {
        let source = Source::OciFolder(layout.clone());
        let (image, whole) = opened(source, &choice(Some(tag), None)).await;
        let raw = skopeo(home.path(), &["inspect", "--raw", &format!("oci:layout:{tag}")]);
        assert_eq!(image.root, Digest::sha256(&raw));
        assert_eq!((image.names.as_slice(), whole.blobs.len()), (&[tag.to_owned()][..], 2));
    }
    run(home.path(), "tar", &["-C", "layout", "-cf", "layout.tar", "."]);
    let source = Source::OciArchive(home.path().join("layout.tar"));
    assert!(open(&source, &choice(Some("v2"), None), &()).await.is_ok());
    assert!(open(&source, &Options::default(), &()).await.is_err());
}

#[tokio::test]
async fn what_docker_save_writes_since_version_25_keeps_its_digests() {
    let (built, _) = built().await;
    let home = tempfile::tempdir().unwrap();
    let at = home.path().join("app.tar");
    let options = Options::default();
    save25(&built, &["app:1", "app:2"], &[], &at).unwrap();
    let (image, whole) = opened(archive(&at), &options).await;
    assert_eq!(image.root.as_str(), built.digest());
    assert!(!image.digest_is_new && image.notes.is_empty());
    assert_eq!(image.names, ["docker.io/library/app:1", "1", "docker.io/library/app:2", "2"]);
    let (_, expected) = opened(Source::OciFolder(built.layout().to_owned()), &options).await;
    assert_eq!(whole, expected);
    // Older readers, as this skopeo, take the list beside it.
    let from = format!("docker-archive:{}:app:1", at.display());
    let raw = skopeo(home.path(), &["inspect", "--config", "--raw", &from]);
    let manifest = &expected.manifests[0].2;
    let manifest: Value = serde_json::from_slice(manifest).unwrap();
    assert_eq!(manifest["config"]["digest"].as_str(), Some(Digest::sha256(&raw).as_str()));
    // One that pulled a single platform has no other.
    save25(&built, &["app:1"], &[&built.children()[0]], &at).unwrap();
    let (image, _) = opened(archive(&at), &options).await;
    assert_eq!(image.root.as_str(), built.children()[1]);
    assert!(image.notes[0].contains("only linux/arm64"), "{:?}", image.notes);
}
