//! The older kind of archive, which has no manifest.

use std::io::Read as _;

use colophon_domain::Digest;
use colophon_local::{LocalErrorKind, Options};
use serde_json::{Value, json};

use crate::{
    fixture::{Files, MANIFEST, digest, gzip, named, noise, old_archive, path, zstd},
    support::{choice, opened, opened_from, refused, whole},
    tars::Tar,
};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::bufread::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

/// An archive with one image, whose layers are these files.
fn archive(config: &Value, layers: &[&str]) -> Tar {
    let config = config.to_string();
    let name = format!("{}.json", Digest::sha256(config.as_bytes()).hex());
    let list = json!([{ "Config": name, "RepoTags": null, "Layers": layers }]);
    Tar::default().file(&name, config.as_bytes()).file("manifest.json", list.to_string().as_bytes())
}

fn config_of(layers: &[&[u8]]) -> Value {
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::sha256(layer)).collect();
    json!({ "os": "linux", "architecture": "amd64", "rootfs": { "diff_ids": diff_ids } })
}

#[tokio::test]
async fn a_manifest_is_written_as_skopeo_would_write_it() {
    let layers = [b"first layer".repeat(5000), noise(2, 700_000)];
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let tar = old_archive(&[(&["app:1", "app:2"], &layers)]).end();
    let (image, _file) = opened_from(&tar, &Options::default()).await.unwrap();
    assert!(image.digest_is_new);
    assert_eq!(image.notes, ["the archive has no manifest; this digest was computed"]);
    assert_eq!(image.names, ["app:1", "app:2"]);
    let whole = whole(&image).await;
    let manifest: Value = serde_json::from_slice(&whole.manifests[0].2).unwrap();
    let config = image.image_id.unwrap();
    assert_eq!(manifest["config"]["digest"], json!(config));
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 2);
    for (number, layer) in layers.iter().enumerate() {
        let (kind, bytes) = &whole.blobs[&digest(&manifest["layers"][number])];
        assert_eq!((kind.as_str(), unpacked(bytes)), (DOCKER_LAYER, layer.to_vec()));
    }
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{DOCKER_MANIFEST}","config":{{"mediaType":"application/vnd.docker.container.image.v1+json","size":{},"digest":"{config}"}},"layers":[{{"mediaType":"{DOCKER_LAYER}","size":"#,
        whole.blobs[&config].1.len()
    );
    let bytes = std::str::from_utf8(&whole.manifests[0].2).unwrap();
    assert!(bytes.starts_with(&text), "{bytes}");
    assert_eq!(whole.manifests[0].1, DOCKER_MANIFEST);
}

/// The digest that everybody who pushes this archive gets, on every machine and with every version
/// of ours. If a new version of the compressor changes it, say so in CHANGELOG.md: images that are
/// pushed from older archives get new digests.
#[tokio::test]
async fn the_same_archive_always_has_the_same_digest() {
    let lines = (0..20_000).map(|number| format!("line {number}\n"));
    let text = lines.collect::<Vec<_>>().concat();
    let layers = [text.into_bytes(), noise(42, 300_000), vec![0; 100_000]];
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let tar = old_archive(&[(&["app:1"], &layers)]).end();
    let first = opened(&tar, &Options::default()).await.unwrap();
    assert_eq!(opened(&gzip(&tar), &Options::default()).await.unwrap().root, first.root);
    assert_eq!(
        first.root.as_str(),
        "sha256:512491f90204ac99cf7e9c3be06312db9d830c29d94772b7bd58775b9608240a"
    );
}

#[tokio::test]
async fn a_layer_that_is_there_twice_is_compressed_once() {
    let layer = noise(3, 500_000);
    let config = config_of(&[&layer, &layer, &layer]);
    let tar = archive(&config, &["a/layer.tar", "./a/layer.tar", "b/layer.tar"])
        .file("a/layer.tar", &layer)
        .link("b/layer.tar", "../a/layer.tar")
        .end();
    let folder = tempfile::tempdir().unwrap();
    // Room for one copy.
    let limits = colophon_local::Limits { spool: 600_000, ..Default::default() };
    let options = Options { limits, ..crate::support::spool_in(&folder) };
    let image = opened(&tar, &options).await.unwrap();
    assert_eq!(image.blobs.len(), 2);
    let manifest: Value = serde_json::from_slice(&image.manifests[0].bytes).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    assert!(layers.len() == 3 && layers.iter().all(|it| it == &layers[0]));
}

#[tokio::test]
async fn layers_that_are_compressed_are_kept_or_read() {
    let layer = noise(4, 100_000);
    let config = config_of(&[&layer, &layer]);
    let packed = gzip(&layer);
    let tar = archive(&config, &["g", "z"]).file("g", &packed).file("z", &zstd(&layer)).end();
    let (image, _file) = opened_from(&tar, &Options::default()).await.unwrap();
    let whole = whole(&image).await;
    assert_eq!(whole.blobs[&Digest::sha256(&packed)].1, packed);
    let manifest: Value = serde_json::from_slice(&whole.manifests[0].2).unwrap();
    // A manifest of this kind has no zstd, so that one is gzip, too.
    assert_eq!(unpacked(&whole.blobs[&digest(&manifest["layers"][1])].1), layer);
}

#[tokio::test]
async fn layers_and_configurations_are_held_against_their_digests() {
    let config = config_of(&[b"layer"]);
    for packed in [b"other".to_vec(), gzip(b"other"), zstd(b"other")] {
        let tar = archive(&config, &["l"]).file("l", &packed).end();
        refused(&tar, LocalErrorKind::Damaged, "what should be sha256:").await;
    }
    let list = format!(r#"[{{"Config":"{}.json","Layers":[]}}]"#, "0".repeat(64));
    let tar = Tar::default()
        .file(format!("{}.json", "0".repeat(64)), b"{}")
        .file("manifest.json", list.as_bytes());
    refused(&tar.end(), LocalErrorKind::Damaged, "what should be sha256:0000").await;
    for (layers, kind, word) in [
        (&[][..], LocalErrorKind::Damaged, "has 0 layers"),
        (&["a", "a"], LocalErrorKind::Damaged, "has 2 layers"),
        (&["nowhere"], LocalErrorKind::Damaged, "\"nowhere\" is missing"),
        (&["../l"], LocalErrorKind::Refused, "leads to"),
        (&["/etc/passwd"], LocalErrorKind::Refused, "leads to"),
    ] {
        let tar = archive(&config, layers).file("a", b"layer").end();
        refused(&tar, kind, word).await;
    }
    for list in ["", "{}", "[{}]", r#"[{"Config":7}]"#] {
        let tar = Tar::default().file("manifest.json", list.as_bytes()).end();
        refused(&tar, LocalErrorKind::Damaged, "manifest.json").await;
    }
    // An image without layers is one.
    let tar = archive(&config_of(&[]), &[]).end();
    assert_eq!(opened(&tar, &Options::default()).await.unwrap().blobs.len(), 1);
}

#[tokio::test]
async fn one_of_several_is_chosen_and_only_its_layers_are_compressed() {
    let tar = old_archive(&[(&["app:1"], &[b"one"]), (&["app:2", "tool:3"], &[b"two"])]).end();
    let error = opened(&tar, &Options::default()).await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::Ambiguous);
    assert!(error.what().contains("app:1") && error.what().contains("tool:3"), "{error}");
    let (image, _file) = opened_from(&tar, &choice(Some("tool:3"), None)).await.unwrap();
    let texts: Vec<_> = whole(&image).await.blobs.into_values().map(|(_, bytes)| bytes).collect();
    assert!(texts.iter().any(|bytes| bytes.starts_with(b"\x1f\x8b") && unpacked(bytes) == b"two"));
    let id = image.image_id.unwrap();
    assert_eq!(opened(&tar, &choice(Some(id.as_str()), None)).await.unwrap().root, image.root);
    assert!(opened(&tar, &choice(Some("app:2"), Some("linux/amd64"))).await.is_ok());
    assert!(opened(&tar, &choice(Some("app:2"), Some("linux/arm64"))).await.is_err());
}

/// An archive with both lists, as engines write them since version 25.
fn both(manifest_layers: &Value, roots: usize) -> Vec<u8> {
    let layer = b"layer".repeat(100);
    let mut files = Files::default();
    let config =
        files.document("application/vnd.oci.image.config.v1+json", &config_of(&[layer.as_slice()]));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": manifest_layers,
    });
    let root = named(&files.document(MANIFEST, &manifest), "1");
    let layer = files.blob("application/vnd.oci.image.layer.v1.tar", &layer);
    let list = json!([{
        "Config": path(&digest(&config)), "RepoTags": ["app:1"], "Layers": [path(&digest(&layer))],
    }]);
    files.json("manifest.json", &list);
    files.layout(&vec![root; roots]).tar().end()
}

#[tokio::test]
async fn a_layout_without_its_layers_or_names_gives_way_to_the_older_list() {
    let layer = b"layer".repeat(100);
    let whole_one = json!([{
        "mediaType": "application/vnd.oci.image.layer.v1.tar", "size": layer.len(),
        "digest": Digest::sha256(&layer),
    }]);
    let image = opened(&both(&whole_one, 1), &Options::default()).await.unwrap();
    assert!(!image.digest_is_new && image.notes.is_empty());
    // Engine 25.0.0 wrote manifests without layers; images that were saved by digest are not listed.
    for (layers, roots, why) in [
        (json!([]), 1, "lacks layers"),
        (Value::Null, 1, "lacks layers"),
        (whole_one.clone(), 0, "names no image"),
    ] {
        let tar = both(&layers, roots);
        let (image, _file) = opened_from(&tar, &Options::default()).await.unwrap();
        assert!(image.digest_is_new);
        assert!(image.notes[1].contains(why), "{:?}", image.notes);
        assert_eq!(image.names, ["app:1"]);
        let whole = whole(&image).await;
        assert!(
            whole
                .blobs
                .values()
                .any(|(_, bytes)| { bytes.starts_with(b"\x1f\x8b") && unpacked(bytes) == layer })
        );
    }
    // Alone, it is no image.
    let mut files = Files::default();
    let root = files.image("linux/amd64", &[b"layer"]);
    let mut manifest: Value = serde_json::from_slice(&files.0[&path(&digest(&root))]).unwrap();
    manifest["layers"] = json!([]);
    let root = files.document(MANIFEST, &manifest);
    let tar = files.clone().layout(&[root]).tar().end();
    refused(&tar, LocalErrorKind::Damaged, "lacks layers").await;
    refused(&files.layout(&[]).tar().end(), LocalErrorKind::Damaged, "names no image").await;
}
