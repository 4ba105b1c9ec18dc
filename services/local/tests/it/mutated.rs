//! Archives with random damage: whatever comes of it, it is an answer, and a small one.

use colophon_local::{LocalErrorKind, Options};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    child,
    fixture::{Files, gzip, named, noise, old_archive, zstd},
    support::{bytes_of, opened_from},
    tars::Tar,
};

const MUTATIONS: u64 = 2_000;
/// What the process may have taken at its peak, in KiB.
const MEMORY: u64 = 64 << 10;

#[tokio::test]
async fn damaged_archives_are_answered_within_64_mib() {
    let output = child::command("mutated::two_thousand").output().await.unwrap();
    let said = child::said(&output);
    let mut words = said.split(' ').map(|word| word.parse::<u64>().unwrap());
    let (opened, refused, peak) =
        (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    assert_eq!(opened + refused, MUTATIONS);
    // Else the damage would not reach what is to be tested.
    assert!(refused > MUTATIONS / 4 && opened > MUTATIONS / 50, "{said}");
    assert!(peak < MEMORY, "{peak} KiB");
}

fn originals() -> Vec<Vec<u8>> {
    let mut files = Files::default();
    let layers = [noise(1, 3_000), vec![9; 5_000]];
    let one = files.image("linux/amd64", &[&layers[0], &layers[1]]);
    let two = files.image("linux/arm64", &[&layers[1]]);
    let root = files.index(&[one, two]);
    let layout = files.layout(&[named(&root, "app:1")]).tar();
    let old = Tar::default().pax(&[("path", "long/name")]).file("x", b"x").link("y", "long/name");
    let old = [old.cut(), old_archive(&[(&["app:1"], &[&layers[0], &layers[1]])]).end()].concat();
    let layout = layout.end();
    vec![gzip(&layout), zstd(&layout), gzip(&old), zstd(&old), layout, old]
}

fn damage(bytes: &mut Vec<u8>, random: &mut StdRng) {
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..bytes.len());
        let to = (at + random.random_range(1..600)).min(bytes.len());
        match random.random_range(0..6) {
            0..3 => bytes[at] ^= 1 << random.random_range(0..8),
            3 => bytes[at..to].fill(random.random()),
            4 => drop(bytes.drain(at..to)),
            _ => {
                let copy = bytes[at..to].to_vec();
                bytes.splice(at..at, copy);
            }
        }
        if bytes.is_empty() {
            return;
        }
    }
    if random.random_bool(0.1) {
        bytes.truncate(random.random_range(0..bytes.len()));
    }
}

#[tokio::test]
#[ignore = "what the other test runs as a process of its own"]
async fn two_thousand() {
    let originals = originals();
    let mut random = StdRng::seed_from_u64(6);
    let (mut good, mut bad) = (0, 0);
    for number in 0..MUTATIONS {
        let mut bytes = originals[usize::try_from(number).unwrap() % originals.len()].clone();
        damage(&mut bytes, &mut random);
        match opened_from(&bytes, &Options::default()).await {
            Err(error) => {
                let expected = error.kind() != LocalErrorKind::Io;
                assert!(expected && error.to_string().len() < 2_000, "{number}: {error}");
                bad += 1;
            }
            Ok((image, _file)) => {
                for blob in &image.blobs {
                    match bytes_of(&image, blob, 0).await {
                        Ok(bytes) => assert!(blob.digest.matches(&bytes)),
                        Err(error) => assert_eq!(error.kind(), LocalErrorKind::Damaged),
                    }
                }
                good += 1;
            }
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak = peak.trim().trim_end_matches(" kB");
    child::say(&format!("{good} {bad} {peak}"));
}
