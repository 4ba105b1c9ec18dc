//! Large blobs go in chunks (distribution-spec, "Pushing a blob in chunks"), and go on where they
//! broke off, at each kind of registry that people use.

use bytes::Bytes;
use colophon_domain::{CopyTotals, Digest, Reason, Result};
use colophon_registry::{CopyOptions, Manifest, RegistryConfig};
use colophon_testkit::scripted::{ALWAYS, Answer, Personality, Scripted, Seen, When};

use crate::{
    fake::{Fake, Seen as FakeSeen, with},
    stage::{ALL, DISTRIBUTION, ECR, GHCR, Kind, Stage},
    support::{Keys, LAYER, copy_with, descriptor, image, registries},
};

/// The least that can be configured.
pub const CHUNK: usize = 64 << 10;
/// Eight chunks and a half.
pub const SIZE: usize = CHUNK * 17 / 2;

const V3: Kind = ("v3.example.com", Personality::distribution_v3);

pub fn layer() -> Bytes {
    (0..SIZE).map(|at| u8::try_from(at * 31 % 253).unwrap()).collect::<Vec<u8>>().into()
}

/// A large layer at the source, and the image with it and nothing else.
pub fn publish(source: &Scripted, name: &str) -> (String, Manifest) {
    let digest = source.add_blob(name, layer());
    let image = image(&[descriptor(LAYER, &digest.parse::<Digest>().unwrap(), SIZE)]);
    source.add_manifest(name, image.digest.as_str(), &image.media_type, image.bytes.clone());
    (digest, image)
}

/// A source that is open to all, and a target of a kind.
pub struct Ways {
    pub source: Stage,
    pub target: Stage,
    pub digest: String,
    pub image: Manifest,
}

impl Ways {
    pub async fn to(target: Stage) -> Self {
        let source = Stage::with("source.corp.lan", Personality::default()).await;
        let (digest, image) = publish(&source.fake, &source.name("src"));
        Self { source, target, digest, image }
    }

    pub fn config(&self) -> RegistryConfig {
        RegistryConfig { chunk_bytes: CHUNK as u64, ..self.target.config() }
    }

    pub async fn copy(&self) -> Result<CopyTotals> {
        let from = self.source.reads();
        let keys = self.target.keys();
        let to = registries([self.config()], keys)
            .session(&self.target.repository("dst"), colophon_domain::Access::Push)
            .unwrap();
        copy_with(&from, &to, &self.image.digest, CopyOptions::default()).await
    }

    /// The blob is there, and the wire carried so many of its bytes to the target.
    pub fn arrived(&self) -> u64 {
        let there = self.target.fake.blob(&self.target.name("dst"), &self.digest);
        assert!(there.is_some_and(|blob| blob == layer()), "{}", self.target.host);
        self.target.fake.bytes_received_in_all()
    }

    pub fn patches(&self) -> Vec<Seen> {
        let seen = self.target.fake.seen().into_iter();
        seen.filter(|seen| seen.is("PATCH", "/uploads/")).collect()
    }
}

/// The nth chunk meets something.
pub fn nth_chunk(n: usize, answer: Answer) -> Vec<(When, Answer, usize)> {
    let pass = (When::of("PATCH", "/uploads/"), Answer::change(|answer| answer), n - 1);
    let met = (When::of("PATCH", "/uploads/"), answer, 1);
    if n > 1 { vec![pass, met] } else { vec![met] }
}

fn ranges(patches: &[Seen]) -> Vec<String> {
    patches.iter().map(|seen| seen.header("content-range").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_inclusive_the_last_bytes_go_with_the_put_and_small_blobs_go_whole() {
    let ways = Ways::to(Stage::of(V3).await).await;
    ways.copy().await.unwrap();
    assert_eq!(ways.arrived(), SIZE as u64);
    let patches = ways.patches();
    assert_eq!(patches.len(), 8);
    let ends = |from: usize| format!("{}-{}", from * CHUNK, (from + 1) * CHUNK - 1);
    assert_eq!(ranges(&patches), (0..8).map(ends).collect::<Vec<_>>());
    let seen = ways.target.fake.seen();
    let put = seen.iter().find(|seen| seen.is("PUT", "/uploads/")).unwrap();
    assert_eq!(put.header("content-range"), format!("{}-{}", 8 * CHUNK, SIZE - 1));
    assert_eq!(put.content_length(), Some((CHUNK / 2) as u64));
    assert_eq!(ways.target.fake.count("GET", "/uploads/"), 0, "nobody asked what was known");

    let source = Stage::with("source.corp.lan", Personality::default()).await;
    let target = Stage::of(V3).await;
    let blob = Bytes::from(vec![7; 4 * CHUNK]);
    let digest = source.fake.add_blob(&source.name("src"), blob);
    let image = image(&[descriptor(LAYER, &digest.parse().unwrap(), 4 * CHUNK)]);
    let name = source.name("src");
    source.fake.add_manifest(&name, "v1", &image.media_type, image.bytes.clone());
    let ways = Ways { source, target, digest, image };
    ways.copy().await.unwrap();
    assert_eq!(ways.patches().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_breaks_off_costs_little_wherever_the_registry_says_where_it_stands() {
    for kind in ALL.into_iter().chain([V3, ("spec.example.com", Personality::default)]) {
        let ways = Ways::to(Stage::of(kind).await).await;
        let whole = kind.0 == GHCR.0;
        if whole {
            let put = (When::of("PUT", "/uploads/"), Answer::Cut(5 * CHUNK as u64 + 10_000), 1);
            ways.target.fake.script([put]);
        } else {
            ways.target.fake.script(nth_chunk(6, Answer::Cut(10_000)));
        }
        ways.copy().await.unwrap_or_else(|failure| panic!("{}: {failure}", kind.0));
        // These two refuse every later request for the upload, once a chunk broke off.
        let forgets = [DISTRIBUTION.0, crate::stage::CORP_LAN.0].contains(&kind.0);
        let again = if forgets { 5 * CHUNK + 10_000 } else { 0 };
        assert_eq!(ways.arrived(), (SIZE + again) as u64, "{}", kind.0);
        // The source is read again from the last state of the digest on.
        let read = ways.source.fake.bytes_sent(&ways.digest);
        let most = if forgets { 2 * SIZE } else { SIZE + 4 * CHUNK };
        assert!(read <= most as u64, "{} {read}", kind.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_a_chunk_that_is_lost_costs_nothing_where_it_can_be_asked_for() {
    for kind in [V3, ("spec.example.com", Personality::default as fn() -> Personality)] {
        let ways = Ways::to(Stage::of(kind).await).await;
        ways.target.fake.script(nth_chunk(3, Answer::DropAfter));
        ways.copy().await.unwrap();
        assert_eq!(ways.arrived(), SIZE as u64, "{}", kind.0);
        assert_eq!(ways.target.fake.count("GET", "/uploads/"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_the_last_put_that_is_lost_costs_one_look() {
    let ways = Ways::to(Stage::of(V3).await).await;
    ways.target.fake.script([(When::of("PUT", "/uploads/"), Answer::DropAfter, 1)]);
    ways.copy().await.unwrap();
    assert_eq!(ways.arrived(), SIZE as u64);
    assert_eq!(ways.target.fake.count("POST", "/uploads/"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_breaks_off_goes_on_where_it_was() {
    let ways = Ways::to(Stage::of(V3).await).await;
    ways.target.fake.script([(When::of("PUT", "/uploads/"), Answer::Cut(1000), 1)]);
    ways.copy().await.unwrap();
    assert_eq!(ways.arrived(), SIZE as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_416_is_answered_by_asking_where_the_upload_stands() {
    let ways = Ways::to(Stage::of(V3).await).await;
    // The chunk arrives, and what comes after it is refused as if it had not.
    let refused = Answer::change(|mut answer| {
        *answer.status_mut() = http::StatusCode::RANGE_NOT_SATISFIABLE;
        answer
    });
    ways.target.fake.script(nth_chunk(4, refused));
    ways.copy().await.unwrap();
    assert_eq!(ways.arrived(), SIZE as u64);
    assert_eq!(ways.target.fake.count("GET", "/uploads/"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_whose_range_stays_at_the_first_chunk_is_not_misled_by_it() {
    let ways = Ways::to(Stage::of(ECR).await).await;
    // Nothing of the chunk arrives: what was confirmed is right, whatever the registry says then.
    let sticks = Answer::change(|mut answer| {
        answer.headers_mut().insert("range", format!("0-{}", CHUNK - 1).parse().unwrap());
        answer
    });
    let asked = (When::of("GET", "/uploads/"), sticks, 1);
    ways.target.fake.script(nth_chunk(6, Answer::Drop).into_iter().chain([asked]));
    ways.copy().await.unwrap();
    assert_eq!(ways.arrived(), SIZE as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_has_lost_confirmed_bytes_is_believed_when_it_refuses_to_go_on() {
    let ways = Ways::to(Stage::of(V3).await).await;
    let lost = Answer::change(|mut answer| {
        answer.headers_mut().insert("range", format!("0-{}", 2 * CHUNK - 1).parse().unwrap());
        answer
    });
    let asked = (When::of("GET", "/uploads/"), lost, 1);
    let refused = nth_chunk(5, Answer::error(416, "RANGE_INVALID", "no"));
    ways.target.fake.script(refused.into_iter().chain([asked]));
    // It says so wrongly, so that it refuses that too, and another upload is begun.
    ways.copy().await.unwrap();
    let starts: Vec<_> = ranges(&ways.patches());
    assert!(starts.iter().any(|range| range.starts_with(&format!("{}-", 2 * CHUNK))));
    ways.arrived();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_was_forgotten_begins_anew() {
    let ways = Ways::to(Stage::of(V3).await).await;
    let unknown = Answer::error(404, "BLOB_UPLOAD_UNKNOWN", "unknown");
    ways.target.fake.script(nth_chunk(4, unknown));
    ways.copy().await.unwrap();
    assert_eq!(ways.arrived(), (SIZE + 3 * CHUNK) as u64);
    assert_eq!(ways.target.fake.count("POST", "/uploads/"), 2);
}

/// Uploads can be lost in more ways than registries say, and again and again: none is gone on with for
/// ever, and the way that needs no second request is still there.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_comes_no_further_is_given_up_and_the_blob_goes_whole() {
    let chunk = || When::of("PATCH", "/uploads/");
    let pass = || Answer::change(|answer| answer);
    let unknown = || Answer::error(404, "BLOB_UPLOAD_UNKNOWN", "unknown");
    let broken = || Answer::error(500, "UNKNOWN", "the state of the digest is damaged");
    let invalid = || Answer::error(400, "BLOB_UPLOAD_INVALID", "no second chunk, please");
    let forgotten = (0..2).flat_map(|_| [(chunk(), pass(), 1), (chunk(), unknown(), 1)]);
    for rows in [
        forgotten.collect::<Vec<_>>(),
        vec![
            (chunk(), pass(), 3),
            (chunk(), broken(), ALWAYS),
            (When::of("GET", "/uploads/"), broken(), ALWAYS),
        ],
        vec![(chunk(), pass(), 1), (chunk(), invalid(), ALWAYS)],
    ] {
        let ways = Ways::to(Stage::of(V3).await).await;
        ways.target.fake.script(rows);
        ways.copy().await.unwrap();
        assert!(ways.arrived() <= (2 * SIZE) as u64);
        assert!(ways.target.fake.count("POST", "/uploads/") <= 4);
        assert!(ways.patches().len() <= 8, "{}", ways.patches().len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_takes_no_such_chunks_gets_whole_blobs_and_is_not_asked_again() {
    let big = Personality { largest_chunk: Some(1000), ..Personality::ghcr() };
    let none = Personality { largest_chunk: Some(0), drains: false, ..Personality::ghcr() };
    for personality in [big, none] {
        let ways = Ways::to(Stage::with(GHCR.0, personality).await).await;
        let registries = registries([ways.config()], ways.target.keys());
        let to = ways.target.repository("dst");
        let to = registries.session(&to, colophon_domain::Access::Push).unwrap();
        let from = ways.source.reads();
        copy_with(&from, &to, &ways.image.digest, CopyOptions::default()).await.unwrap();
        ways.arrived();
        assert!(ways.patches().len() <= 2);
        let before = ways.patches().len();
        let other = Bytes::from(vec![3; SIZE]);
        let digest = ways.source.fake.add_blob(&ways.source.name("src"), other);
        let image = image(&[descriptor(LAYER, &digest.parse().unwrap(), SIZE)]);
        let name = ways.source.name("src");
        ways.source.fake.add_manifest(&name, "v2", &image.media_type, image.bytes.clone());
        copy_with(&from, &to, &image.digest, CopyOptions::default()).await.unwrap();
        assert_eq!(ways.patches().len(), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_as_large_as_the_registry_wants() {
    let least = CHUNK as u64 * 3 / 2;
    let wants = Personality { smallest_chunk: Some(least), ..Personality::default() };
    let ways = Ways::to(Stage::with("wants.example.com", wants).await).await;
    ways.target.fake.script(nth_chunk(2, Answer::Cut(100)));
    ways.copy().await.unwrap();
    assert_eq!(ways.arrived(), SIZE as u64);
    let lengths: Vec<_> = ways.patches().iter().filter_map(Seen::content_length).collect();
    assert!(lengths.len() >= 3 && lengths.iter().all(|length| *length >= least), "{lengths:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn throttled_chunks_wait_and_go_on() {
    let ways = Ways::to(Stage::of(V3).await).await;
    ways.target.fake.script(nth_chunk(4, Personality::throttled("1")));
    ways.copy().await.unwrap();
    assert_eq!(ways.arrived(), SIZE as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_breaks_every_chunk_is_given_up_only_when_nothing_gets_through() {
    let ways = Ways::to(Stage::of(V3).await).await;
    // Eleven breaks, each after more than a chunk: more than the attempts at one place.
    let pass = || (When::of("PATCH", "/uploads/"), Answer::change(|answer| answer), 1);
    let cut = || (When::of("PATCH", "/uploads/"), Answer::Cut(5000), 1);
    let rows = (0..6).flat_map(|_| [pass(), cut()]);
    ways.target.fake.script(rows);
    ways.copy().await.unwrap();
    assert_eq!(ways.arrived(), SIZE as u64);

    let ways = Ways::to(Stage::of(V3).await).await;
    let all = |method: &str| (When::of(method, "/uploads/"), Answer::Drop, ALWAYS);
    ways.target.fake.script([all("PATCH"), all("PUT")]);
    let failure = ways.copy().await.unwrap_err();
    assert_eq!(failure.reason(), Reason::RegistryUnavailable);
}

/// The source serves another last byte, so only the digest over everything can tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_blob_in_chunks_is_never_completed() {
    let source = Fake::start().await;
    let digest = source.add_blob("a/src", &layer());
    let image = image(&[descriptor(LAYER, &digest, SIZE)]);
    source.add_manifest("a/src", "v1", &image);
    source.hook(|seen: &FakeSeen| {
        seen.is("GET", "/blobs/").then(|| {
            let mut bytes = layer().to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            with(200, &[], bytes)
        })
    });
    let target = Stage::of(V3).await;
    let config = RegistryConfig { chunk_bytes: CHUNK as u64, ..target.config() };
    let registries = registries([source.config(), config], Keys::none());
    let from = source.repository("a/src");
    let from = registries.session(&from, colophon_domain::Access::Pull).unwrap();
    let to = target.repository("dst");
    let to = registries.session(&to, colophon_domain::Access::Push).unwrap();
    let failure = copy_with(&from, &to, &image.digest, CopyOptions::default()).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::DigestMismatch);
    assert_eq!(source.count("GET", "/blobs/"), 2, "read once more");
    assert_eq!(target.fake.count("POST", "/uploads/"), 2);
    assert_eq!(target.fake.blob(&target.name("dst"), digest.as_str()), None);
    assert_eq!(target.fake.open_uploads(), 0, "and cancelled");
}
