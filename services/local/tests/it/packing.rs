//! Compressed sources: what they may become, and what follows their end.

use colophon_local::{Limits, LocalErrorKind, Options};

use crate::{
    fixture::{Files, gzip, noise, old_archive, zstd},
    support::{opened, refused, spool_in, whole},
};

fn archive_of(layer: &[u8]) -> Vec<u8> {
    let mut files = Files::default();
    let root = files.image("linux/amd64", &[layer]);
    files.layout(&[root]).tar().end()
}

#[tokio::test]
async fn a_small_file_that_becomes_an_enormous_one_is_refused() {
    // 80 MB of zeros.
    let tar = archive_of(&vec![0; 80_000_000]);
    for packed in [gzip(&tar), zstd(&tar)] {
        assert!(packed.len() < 600_000, "{}", packed.len());
        let folder = tempfile::tempdir().unwrap();
        let error = opened(&packed, &spool_in(&folder)).await.unwrap_err();
        assert_eq!(error.kind(), LocalErrorKind::TooLarge, "{error}");
        assert!(error.to_string().contains("200 times"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        // Who knows that it is meant so can say so.
        let limits = Limits { ratio: u64::MAX, ..Limits::default() };
        opened(&packed, &Options { limits, ..Options::default() }).await.unwrap();
    }
}

#[tokio::test]
async fn a_layer_that_becomes_an_enormous_one_is_refused() {
    let layer = vec![0; 80_000_000];
    let image = |packed: &[u8]| {
        let config = serde_json::json!({
            "rootfs": { "diff_ids": [colophon_domain::Digest::sha256(&layer)] },
        });
        let list = r#"[{"Config":"c.json","RepoTags":null,"Layers":["l.tar"]}]"#;
        crate::tars::Tar::default()
            .file("c.json", config.to_string().as_bytes())
            .file("l.tar", packed)
            .file("manifest.json", list.as_bytes())
            .end()
    };
    for packed in [gzip(&layer), zstd(&layer)] {
        refused(&image(&packed), LocalErrorKind::TooLarge, "200 times").await;
    }
    // Uncompressed it is what it is, within its own bound.
    let plain = image(&layer);
    assert!(opened(&plain, &Options::default()).await.is_ok());
    let limits = Limits { layer: 70_000_000, ..Limits::default() };
    let error = opened(&plain, &Options { limits, ..Options::default() }).await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::TooLarge);
}

#[tokio::test]
async fn several_members_are_one_stream_and_garbage_is_refused() {
    let tar = archive_of(&noise(3, 200_000));
    let expected = whole(&opened(&tar, &Options::default()).await.unwrap()).await;
    let (start, end) = tar.split_at(70_000);
    // A frame that is skipped, with four bytes in it (RFC 8878, section 3.1.2).
    let skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip";
    for packed in [
        [gzip(start), gzip(end)].concat(),
        [zstd(start), zstd(end)].concat(),
        [&skipped[..], &zstd(start), skipped, &zstd(end), skipped].concat(),
    ] {
        let (image, _file) =
            crate::support::opened_from(&packed, &Options::default()).await.unwrap();
        assert_eq!(whole(&image).await, expected);
    }
    for packed in [gzip(&tar), zstd(&tar)] {
        for garbage in [&b"x"[..], b"garbage behind the end", &[0; 512]] {
            let bytes = [packed.as_slice(), garbage].concat();
            refused(&bytes, LocalErrorKind::Damaged, "").await;
        }
        for length in [1, 5, 20, packed.len() / 2, packed.len() - 1] {
            let error = opened(&packed[..length], &Options::default()).await.unwrap_err();
            let not_at_all = [LocalErrorKind::NotAnImage, LocalErrorKind::Damaged];
            assert!(not_at_all.contains(&error.kind()), "{length}: {error}");
        }
        let mut flipped = packed.clone();
        let last = flipped.len() - 3;
        flipped[last] ^= 1;
        refused(&flipped, LocalErrorKind::Damaged, "").await;
    }
    refused(&[&zstd(&tar)[..], &skipped[..10]].concat(), LocalErrorKind::Damaged, "").await;
}

#[tokio::test]
async fn what_cannot_be_read_is_named() {
    refused(b"\xfd7zXZ\0...", LocalErrorKind::Unsupported, "xz -dc").await;
    refused(b"BZh91AY&SY", LocalErrorKind::Unsupported, "bzip2 -dc").await;
    // A zstd frame whose window has 128 MiB (RFC 8878, section 3.1.1.1.2: exponent 17).
    refused(b"\x28\xb5\x2f\xfd\x00\x88\x01\x00\x00", LocalErrorKind::Unsupported, "--long").await;
    refused(b"", LocalErrorKind::NotAnImage, "docker save").await;
    refused(&[0; 10_240], LocalErrorKind::NotAnImage, "docker save").await;
    refused(b"no archive at all, but words", LocalErrorKind::Damaged, "entry 1").await;
    let other = crate::tars::Tar::default().file("readme", b"hello").end();
    refused(&other, LocalErrorKind::NotAnImage, "no archive of an image").await;
}

#[tokio::test]
async fn a_layout_that_was_asked_for_must_be_one() {
    let file = crate::support::stored(&old_archive(&[(&["a:1"], &[b"x"])]).end());
    let source = colophon_local::Source::OciArchive(file.path().to_owned());
    let error = colophon_local::open(&source, &Options::default(), &()).await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::NotAnImage);
    assert!(error.remedy_text().unwrap().contains("docker-archive:FILE"));
    assert_eq!(error.file(), Some(source.to_string().as_str()));
}
