//! Whatever way an image comes, it is the same image, and it can be read from any offset.

use std::{collections::BTreeMap, sync::Mutex};

use colophon_local::{Events, Limits, LocalErrorKind, Options, Progress, Source, Step, open};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::Value;

use crate::{
    child,
    fixture::{Files, digest, gzip, named, noise, zstd},
    support::{Whole, archive, bytes_of, opened, spool_in, stored, whole},
};

/// Images over layers that they share, in indexes within indexes.
fn graph(seed: u64, layers: &[usize], images: &[Vec<usize>], nested: bool) -> (Files, Value) {
    let mut files = Files::default();
    let layers: Vec<Vec<u8>> =
        layers.iter().zip(0..).map(|(size, number)| noise(seed + number, *size)).collect();
    let mut children: Vec<Value> = images
        .iter()
        .zip(["linux/amd64", "linux/arm64", "linux/arm/v7", "windows/amd64"])
        .map(|(picks, platform)| {
            let picked: Vec<&[u8]> =
                picks.iter().map(|pick| layers[pick % layers.len()].as_slice()).collect();
            files.image(platform, &picked)
        })
        .collect();
    if nested {
        let inner = files.index(&children[..1]);
        children.push(inner);
    }
    let root = if children.len() == 1 { children.remove(0) } else { files.index(&children) };
    (files, root)
}

#[test]
fn a_folder_an_archive_and_a_stream_give_the_same_image() {
    let cases = ProptestConfig { cases: 24, ..ProptestConfig::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sizes = prop::collection::vec(prop_oneof![Just(0), 1..9usize, 1..700_000usize], 1..5);
    let picks = prop::collection::vec(prop::collection::vec(any::<usize>(), 0..6), 1..5);
    let inputs = (any::<u32>(), sizes, picks, any::<bool>(), any::<prop::sample::Index>());
    TestRunner::new(cases)
        .run(&inputs, |(seed, sizes, picks, nested, offset)| {
            let (files, root) = graph(u64::from(seed), &sizes, &picks, nested);
            let files = files.layout(&[named(&root, "it")]);
            runtime.block_on(all_the_same(&files, &root, &offset));
            Ok(())
        })
        .unwrap();
}

async fn all_the_same(files: &Files, root: &Value, offset: &prop::sample::Index) {
    let folder = tempfile::tempdir().unwrap();
    files.folder(folder.path());
    let options = Options::default();
    let source = Source::OciFolder(folder.path().to_owned());
    let image = open(&source, &options, &()).await.unwrap();
    let expected = whole(&image).await;
    assert_eq!(expected.root, digest(root));
    assert!(!image.digest_is_new);
    assert_eq!(image.names, ["it"]);
    let blob = offset.get(&image.blobs);
    let from = offset.index(usize::try_from(blob.size).unwrap() + 1);
    let rest = bytes_of(&image, blob, from as u64).await.unwrap();
    assert_eq!(rest, expected.blobs[&blob.digest].1[from..]);
    let tar = files.tar().end();
    for bytes in [&tar, &files.tar().cut(), &gzip(&tar), &zstd(&tar)] {
        let file = stored(bytes);
        let source = Source::OciArchive(file.path().to_owned());
        let image = open(&source, &options, &()).await.unwrap();
        assert_eq!(whole(&image).await, expected);
        let rest = bytes_of(&image, offset.get(&image.blobs), from as u64).await.unwrap();
        assert_eq!(rest, expected.blobs[&offset.get(&image.blobs).digest].1[from..]);
    }
}

#[tokio::test]
async fn standard_input_gives_the_same_image_however_it_is_compressed() {
    let (files, root) = graph(7, &[300_000, 5], &[vec![0, 1], vec![1]], false);
    let tar = files.layout(&[root]).tar().end();
    let expected = opened(&tar, &Options::default()).await.unwrap();
    for bytes in [tar.clone(), gzip(&tar), zstd(&tar)] {
        assert_eq!(child::opened_from_stdin(&bytes).await, whole_in_short(&expected));
    }
}

fn whole_in_short(image: &colophon_local::Image) -> String {
    child::in_short(image)
}

#[tokio::test]
async fn every_offset_is_read_and_one_behind_the_end_is_not() {
    let (files, root) = graph(9, &[(512 << 10) + 3], &[vec![0]], false);
    let file = stored(&files.layout(&[root]).tar().end());
    let image = open(&archive(file.path()), &Options::default(), &()).await.unwrap();
    let layer = &image.blobs[0];
    let all = bytes_of(&image, layer, 0).await.unwrap();
    let piece = 256 << 10;
    for offset in [0, 1, piece - 1, piece, piece + 1, 2 * piece, 2 * piece + 2, layer.size] {
        let rest = bytes_of(&image, layer, offset).await.unwrap();
        assert_eq!(rest, all[usize::try_from(offset).unwrap()..], "{offset}");
    }
    let error = bytes_of(&image, layer, layer.size + 1).await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::Invalid);
}

#[tokio::test]
async fn the_image_outlives_its_file_and_can_be_read_by_many_at_once() {
    let (files, root) = graph(11, &[400_000, 400_001, 400_002], &[vec![0, 1, 2]], false);
    let (image, file) =
        crate::support::opened_from(&files.layout(&[root]).tar().end(), &Options::default())
            .await
            .unwrap();
    file.close().unwrap();
    let readers = image.blobs.iter().map(|blob| bytes_of(&image, blob, 0));
    let read = futures_util::future::join_all(readers).await;
    for (blob, bytes) in image.blobs.iter().zip(read) {
        assert!(blob.digest.matches(&bytes.unwrap()));
    }
}

/// Keeps what it hears.
#[derive(Default)]
struct Heard(Mutex<BTreeMap<&'static str, Progress>>);

impl Events for Heard {
    fn progress(&self, progress: Progress) {
        let step = match progress.step {
            Step::Reading => "reading",
            Step::Spooling => "spooling",
            Step::Compressing => "compressing",
        };
        self.0.lock().unwrap().insert(step, progress);
    }
}

#[tokio::test]
async fn temporary_files_have_no_name_and_a_limit() {
    let (files, root) = graph(13, &[3_000_000], &[vec![0]], false);
    let packed = gzip(&files.layout(&[root]).tar().end());
    let folder = tempfile::tempdir().unwrap();
    let heard = Heard::default();
    let file = stored(&packed);
    let image = open(&archive(file.path()), &spool_in(&folder), &heard).await.unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let Whole { root, .. } = whole(&image).await;
    assert_eq!(root, image.root);
    // Whether a step is heard of depends on the threads; what is heard is true.
    if let Some(spooling) = heard.0.into_inner().unwrap().get("spooling") {
        assert_eq!(spooling.total, Some(packed.len() as u64));
        assert!(spooling.bytes <= packed.len() as u64);
    }

    let limits = Limits { spool: 1_000_000, ..Limits::default() };
    let small = Options { limits, ..spool_in(&folder) };
    let error = opened(&packed, &small).await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::TooLarge);
    assert!(error.remedy_text().unwrap().contains("--spool-limit"), "{error}");

    let missing = Options { spool: Some(folder.path().join("no")), ..Options::default() };
    let error = opened(&packed, &missing).await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::Spool);
    assert!(error.remedy_text().unwrap().contains("TMPDIR"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_pipe_is_read_once_and_a_full_disk_is_explained() {
    let (files, root) = graph(15, &[100_000], &[vec![0]], false);
    let tar = files.layout(&[root]).tar().end();
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let (into, bytes) = (pipe.clone(), tar.clone());
    let writer = std::thread::spawn(move || std::fs::write(into, bytes));
    let image = open(&archive(&pipe), &Options::default(), &()).await.unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(image.root, opened(&tar, &Options::default()).await.unwrap().root);

    // Nothing can be written there, by nobody.
    let full = Options { spool: Some("/proc".into()), ..Options::default() };
    let error = opened(&gzip(&tar), &full).await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::Spool, "{error}");
}
