//! Layouts in which something is missing, wrong, too large or not what it seems.

use std::os::unix::fs::symlink;

use colophon_local::{LocalErrorKind, Options, Source, open};
use serde_json::{Value, json};

use crate::{
    fixture::{CONFIG, Files, LAYER, MANIFEST, digest, noise, path},
    support::{bytes_of, opened, opened_from, refused},
};

fn simple() -> (Files, Value) {
    let mut files = Files::default();
    let root = files.image("linux/amd64", &[&noise(5, 600_000)]);
    (files.layout(std::slice::from_ref(&root)), root)
}

fn manifest_of(files: &Files, root: &Value) -> Value {
    serde_json::from_slice(&files.0[&path(&digest(root))]).unwrap()
}

#[tokio::test]
async fn whatever_is_missing_is_named_with_what_refers_to_it() {
    let (files, root) = simple();
    let manifest = manifest_of(&files, &root);
    for (gone, referrer) in [
        (&root, "index.json"),
        (&manifest["config"], root["digest"].as_str().unwrap()),
        (&manifest["layers"][0], root["digest"].as_str().unwrap()),
    ] {
        let tar = files.clone().without(gone).tar().end();
        let error = refused(&tar, LocalErrorKind::Damaged, "is missing").await;
        assert!(error.what().contains(gone["digest"].as_str().unwrap()), "{error}");
        assert!(error.what().contains(referrer), "{error}");
    }
}

#[tokio::test]
async fn a_wrong_size_is_found_before_anything_is_sent() {
    let (files, root) = simple();
    let manifest = manifest_of(&files, &root);
    for blob in [&root, &manifest["config"], &manifest["layers"][0]] {
        for change in [1, -1] {
            let mut files = files.clone();
            let bytes = files.0.get_mut(&path(&digest(blob))).unwrap();
            let length = bytes.len().checked_add_signed(change).unwrap();
            bytes.resize(length, b' ');
            refused(&files.tar().end(), LocalErrorKind::Damaged, "bytes").await;
        }
    }
}

#[tokio::test]
async fn a_wrong_digest_is_found_at_the_latest_before_the_last_piece() {
    let (files, root) = simple();
    let manifest = manifest_of(&files, &root);
    for (blob, at) in [(&root, 3), (&manifest["config"], 3)] {
        let mut files = files.clone();
        files.0.get_mut(&path(&digest(blob))).unwrap()[at] ^= 1;
        refused(&files.tar().end(), LocalErrorKind::Damaged, "what should be sha256:").await;
    }
    let mut files = files.clone();
    files.0.get_mut(&path(&digest(&manifest["layers"][0]))).unwrap()[17] ^= 1;
    let (image, _file) = opened_from(&files.tar().end(), &Options::default()).await.unwrap();
    let layer = &image.blobs[0];
    for offset in [0, 300_000, layer.size - 1, layer.size] {
        let error = bytes_of(&image, layer, offset).await.unwrap_err();
        assert_eq!(error.kind(), LocalErrorKind::Damaged, "{offset}");
    }
    // What comes before the error is never the whole blob.
    let mut reader = image.read(layer, 0);
    let mut count = 0;
    let error = loop {
        match reader.next().await {
            Ok(piece) => count += piece.unwrap().len() as u64,
            Err(error) => break error,
        }
    };
    assert!(count < layer.size && error.to_string().contains("what should be"), "{count}");
}

#[tokio::test]
async fn documents_have_a_bound() {
    let (files, root) = simple();
    let large = vec![b' '; (4 << 20) + 1];
    for name in ["index.json", "oci-layout", "manifest.json"] {
        let mut files = files.clone();
        files.0.insert(name.to_owned(), large.clone());
        refused(&files.tar().end(), LocalErrorKind::TooLarge, name).await;
    }
    let mut files = files.clone();
    let huge = files.blob(MANIFEST, &large);
    refused(&files.layout(&[huge]).tar().end(), LocalErrorKind::TooLarge, "4194304").await;
    for text in
        ["", "[", "null", "{\"manifests\":{}}", &"[".repeat(100_000), "{\"manifests\":[{}]}"]
    {
        let (mut files, _) = simple();
        files.0.insert("index.json".to_owned(), text.as_bytes().to_vec());
        let error = opened(&files.tar().end(), &Options::default()).await.unwrap_err();
        assert_eq!(error.kind(), LocalErrorKind::Damaged, "{text:.20}: {error}");
    }
    let hostile = root.to_string().replace("sha256:", "sha256:../../");
    let (mut files, _) = simple();
    let text = format!(r#"{{"manifests":[{hostile}]}}"#);
    files.0.insert("index.json".to_owned(), text.into_bytes());
    refused(&files.tar().end(), LocalErrorKind::Damaged, "is not a digest").await;
}

#[tokio::test]
async fn graphs_have_bounds() {
    // Nine indexes within each other.
    let mut files = Files::default();
    let mut root = files.image("linux/amd64", &[b"x"]);
    for level in 0..9 {
        assert!(
            opened(&files.clone().layout(&[root.clone()]).tar().end(), &Options::default())
                .await
                .is_ok(),
            "{level}"
        );
        root = files.index(&[root]);
    }
    refused(&files.layout(&[root]).tar().end(), LocalErrorKind::TooLarge, "levels").await;

    let mut files = Files::default();
    let children: Vec<Value> = (0..2000)
        .map(|number| {
            let config = files.blob("application/x", b"{}");
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [],
                "annotations": { "number": number.to_string() },
            });
            files.document(MANIFEST, &manifest)
        })
        .collect();
    let most = files.index(&children[..1999]);
    assert!(opened(&files.clone().layout(&[most]).tar().end(), &Options::default()).await.is_ok());
    let root = files.index(&children);
    refused(&files.layout(&[root]).tar().end(), LocalErrorKind::TooLarge, "manifests").await;

    let mut files = Files::default();
    let layers: Vec<Value> =
        (0..2000u32).map(|number| files.blob(LAYER, &number.to_le_bytes())).collect();
    let config = files.blob("application/x", b"{}");
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let root = files.document(MANIFEST, &manifest);
    refused(&files.layout(&[root]).tar().end(), LocalErrorKind::TooLarge, "2000 blobs").await;

    // Five manifests of nearly 4 MiB each.
    let mut files = Files::default();
    let config = files.blob(CONFIG, b"{}");
    let children: Vec<Value> = (0..5)
        .map(|number| {
            let padding = number.to_string().repeat(4_000_000);
            let manifest = json!({
                "schemaVersion": 2, "config": config, "layers": [],
                "annotations": { "padding": padding },
            });
            files.document(MANIFEST, &manifest)
        })
        .collect();
    let root = files.index(&children);
    refused(&files.layout(&[root]).tar().end(), LocalErrorKind::TooLarge, "manifests").await;
}

#[tokio::test]
async fn kinds_that_are_not_published_are_refused() {
    let (mut files, root) = simple();
    let config = files.blob(CONFIG, b"{}");
    for (document, word) in [
        (json!({ "schemaVersion": 1, "fsLayers": [] }), "schema 1"),
        (json!({ "schemaVersion": 2, "config": config, "subject": root }), "subject"),
        (json!({ "schemaVersion": 2, "config": config, "manifests": [] }), "neither"),
        (json!({ "schemaVersion": 2, "mediaType": "application/x", "config": config }), "type"),
    ] {
        let mut files = files.clone();
        let root = files.document(MANIFEST, &document);
        refused(&files.layout(&[root]).tar().end(), LocalErrorKind::Unsupported, word).await;
    }
}

#[tokio::test]
async fn nothing_in_a_folder_is_followed_or_waited_for() {
    let (files, root) = simple();
    let layer = digest(&manifest_of(&files, &root)["layers"][0]);
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let at = folder.path().join(name);
        files.folder(&at);
        let blob = at.join(path(&layer));
        (Source::OciFolder(at.clone()), at, blob)
    };
    let options = Options::default();

    let (source, at, blob) = make("link");
    let moved = at.join("moved");
    std::fs::rename(&blob, &moved).unwrap();
    symlink(&moved, &blob).unwrap();
    let error = open(&source, &options, &()).await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::Refused, "{error}");

    let (source, at, _) = make("folders");
    std::fs::rename(at.join("blobs"), at.join("elsewhere")).unwrap();
    symlink("elsewhere", at.join("blobs")).unwrap();
    let error = open(&source, &options, &()).await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::Refused, "{error}");

    let (source, _, blob) = make("pipe");
    std::fs::remove_file(&blob).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&blob).status().unwrap().success());
    let error = open(&source, &options, &()).await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::Refused, "{error}");

    let (source, _, blob) = make("changed");
    let image = open(&source, &options, &()).await.unwrap();
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[4] ^= 1;
    std::fs::write(&blob, &bytes).unwrap();
    let read = |image| async move { bytes_of(image, &image.blobs[0], 0).await.unwrap_err() };
    assert_eq!(read(&image).await.kind(), LocalErrorKind::Damaged);
    std::fs::write(&blob, b"short").unwrap();
    assert!(read(&image).await.to_string().contains("changed while"));
    std::fs::remove_file(&blob).unwrap();
    assert!(read(&image).await.to_string().contains("changed while"));
    symlink("/etc/passwd", &blob).unwrap();
    assert_eq!(read(&image).await.kind(), LocalErrorKind::Refused);
    std::fs::remove_file(&blob).unwrap();
    symlink(folder.path(), &blob).unwrap();
    assert_eq!(read(&image).await.kind(), LocalErrorKind::Refused);
    // The folder itself may be named through a link.
    let (_, at, _) = make("whole");
    symlink(&at, folder.path().join("named")).unwrap();
    let source = Source::OciFolder(folder.path().join("named"));
    assert!(open(&source, &options, &()).await.is_ok());
}

#[tokio::test]
async fn an_archive_that_shrinks_while_it_is_read_is_an_error() {
    let (files, _) = simple();
    let (image, file) = opened_from(&files.tar().end(), &Options::default()).await.unwrap();
    file.as_file().set_len(1000).unwrap();
    let error = bytes_of(&image, &image.blobs[0], 0).await.unwrap_err();
    assert!(error.to_string().contains("became shorter"), "{error}");
}

#[tokio::test]
async fn what_is_not_there_or_has_a_suffix_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = simple();
    files.folder(&folder.path().join("layout"));
    std::fs::write(folder.path().join("a.tar"), files.tar().end()).unwrap();
    let at = |name: &str| folder.path().join(name);
    for (source, kind, word) in [
        (Source::OciFolder(at("nowhere")), LocalErrorKind::NotFound, "nowhere"),
        (Source::OciFolder(at("layout:v1")), LocalErrorKind::NotFound, "--image v1"),
        (Source::DockerArchive(at("a.tar:app:1")), LocalErrorKind::NotFound, "--image app:1"),
        (Source::OciFolder(at("")), LocalErrorKind::NotAnImage, "oci-layout is missing"),
        (Source::OciArchive(at("layout")), LocalErrorKind::Invalid, "oci:FOLDER"),
    ] {
        let error = open(&source, &Options::default(), &()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}
