//! An upload goes on in another process, and a blob that several processes want moves once. Two
//! processes are two sets of registries here, which know nothing of each other but the book.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use colophon_domain::{Access, CopyTotals, Lease, Reason, Repository, Result};
use colophon_launcher::{Registry, RegistryOptions};
use colophon_registry::{
    BlobOutcome, CopyOptions, Manifest, Progress, Registries, RegistryConfig, copy,
};
use colophon_testkit::{
    proxy::{Action, FaultProxy, Rule},
    scripted::{Answer, Personality, Scripted, When},
};
use http::Method;
use tokio_util::sync::CancellationToken;

use crate::{
    book::{Book, lease},
    chunks::{CHUNK, SIZE, Ways, layer, nth_chunk, publish},
    stage::{Kind, Stage, WRITER},
    support::{Keys, Told, copy_with, registries},
};

const V3: Kind = ("v3.example.com", Personality::distribution_v3);

/// One process with the target's registry.
struct Process {
    registries: Registries,
    book: Arc<Book>,
}

impl Process {
    fn new(ways: &Ways, book: &Arc<Book>) -> Self {
        Self::with(ways.config(), ways.target.keys(), book)
    }

    fn with(config: RegistryConfig, keys: Arc<Keys>, book: &Arc<Book>) -> Self {
        let registries = registries([config], keys).with_flights(book.clone());
        Self { registries, book: book.clone() }
    }

    /// An attempt at a job.
    async fn copies(&self, ways: &Ways, lease: Lease) -> Result<(CopyTotals, Arc<Told>)> {
        let told = Arc::new(Told::default());
        let totals =
            self.copies_until(ways, lease, told.clone(), &CancellationToken::new()).await?;
        Ok((totals, told))
    }

    async fn copies_until(
        &self,
        ways: &Ways,
        lease: Lease,
        progress: Arc<dyn Progress>,
        cancel: &CancellationToken,
    ) -> Result<CopyTotals> {
        let to = self.registries.session(&ways.target.repository("dst"), Access::Push)?;
        let options =
            CopyOptions { lease: Some(self.book.begins(lease)), ..CopyOptions::default() };
        copy(&ways.source.reads(), &to, &ways.image.digest, options, progress, cancel.clone())
            .await
            .map(|copied| copied.totals)
    }
}

/// A process that dies when so many bytes of the nth chunk have arrived.
async fn dies_in_chunk(ways: &Ways, book: &Arc<Book>, n: usize, bytes: usize) {
    ways.target.fake.script(nth_chunk(n, Answer::Stall(bytes as u64)));
    let (first, process) = (lease(1, 1), Process::new(ways, book));
    let arrived = async {
        while ways.patches().len() < n || received(ways) < (n - 1) * CHUNK + bytes {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // What is dropped goes on with nothing.
    tokio::select! {
        ended = process.copies(ways, first) => panic!("{:?}", ended.map(drop)),
        () = arrived => {}
    }
    book.dies(first);
}

fn received(ways: &Ways) -> usize {
    usize::try_from(ways.target.fake.bytes_received_in_all()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_goes_on_where_the_first_one_died() {
    for n in [2, 5, 8] {
        let (ways, book) = (Ways::to(Stage::of(V3).await).await, Book::new());
        dies_in_chunk(&ways, &book, n, 10_000).await;
        let trail = book.trail().unwrap();
        assert_eq!(trail.offset, ((n - 1) * CHUNK) as u64);
        assert!(!String::from_utf8_lossy(&trail.location).contains("uploads"));
        let (totals, told) = Process::new(&ways, &book).copies(&ways, lease(1, 2)).await.unwrap();
        assert_eq!((totals.blobs_copied, ways.arrived()), (1, SIZE as u64));
        // Of the chunk that broke off, the source is read twice.
        let seen = ways.source.fake.seen();
        let ranges = seen.iter().filter(|seen| seen.is("GET", "/blobs/"));
        let ranges: Vec<_> = ranges.map(|seen| seen.header("range")).collect();
        assert_eq!(ranges, ["", &format!("bytes={}-", (n - 1) * CHUNK)]);
        let there = (n - 1) * CHUNK + 10_000;
        assert_eq!(told.resumed.load(Ordering::SeqCst), i64::try_from(there).unwrap());
        assert_eq!(told.sent.load(Ordering::SeqCst), i64::try_from(SIZE - there).unwrap());
        assert_eq!(ways.target.fake.count("POST", "/uploads/"), 1);
        assert_eq!(book.rows(), 0, "the flight has landed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_gone_on_with_begins_anew() {
    let changes: [fn(&mut colophon_domain::Trail); 4] = [
        |trail| trail.offset += CHUNK as u64,
        |trail| trail.location[20] ^= 1,
        |trail| trail.hash[0] ^= 1,
        |trail| trail.hash.truncate(7),
    ];
    for change in changes {
        let (ways, book) = (Ways::to(Stage::of(V3).await).await, Book::new());
        dies_in_chunk(&ways, &book, 4, 0).await;
        book.garble(change);
        Process::new(&ways, &book).copies(&ways, lease(1, 2)).await.unwrap();
        assert_eq!(ways.arrived(), (SIZE + 3 * CHUNK) as u64);
        assert_eq!(ways.target.fake.count("POST", "/uploads/"), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_another_credential_begins_anew() {
    let (ways, book) = (Ways::to(Stage::of(V3).await).await, Book::new());
    dies_in_chunk(&ways, &book, 4, 0).await;
    let name = ways.target.name("dst");
    let keys = Keys::none().and(&format!("{name} push"), WRITER.0, "rotated_PatNeverShown");
    let other = Process::with(ways.config(), keys, &book);
    other.copies(&ways, lease(1, 2)).await.unwrap();
    assert_eq!(ways.target.fake.count("POST", "/uploads/"), 2);
    ways.arrived();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_arrived_before_its_process_died_is_found() {
    let (ways, book) = (Ways::to(Stage::of(V3).await).await, Book::new());
    let first = book.begins(lease(1, 1));
    let digest = ways.digest.parse().unwrap();
    let to = ways.target.repository("dst");
    let flight = colophon_domain::Flight { lease: first, repository: &to, digest: &digest };
    colophon_domain::FlightBook::board(&*book, flight).await.unwrap();
    // It comes between the look at all blobs and the one behind the flight.
    let source = (When::of("HEAD", "/blobs/"), Answer::status(404), 1);
    ways.target.fake.script([source]);
    ways.target.fake.add_blob(&ways.target.name("dst"), layer());
    book.dies(first);
    let (totals, _) = Process::new(&ways, &book).copies(&ways, lease(1, 2)).await.unwrap();
    assert_eq!((totals.blobs_copied, ways.arrived()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_two_processes_want_moves_once() {
    let (ways, book) = (Ways::to(Stage::of(V3).await).await, Book::new());
    let late = Answer::Late(Duration::from_millis(700));
    ways.target.fake.script(nth_chunk(2, late));
    let (one, other) = (Process::new(&ways, &book), Process::new(&ways, &book));
    let (one, other) =
        tokio::join!(one.copies(&ways, lease(1, 1)), other.copies(&ways, lease(2, 1)));
    let outcomes = [one.unwrap().1, other.unwrap().1];
    let mut outcomes: Vec<_> =
        outcomes.iter().map(|told| told.blobs.lock().unwrap()[0].0).collect();
    outcomes.sort_by_key(|outcome| *outcome == BlobOutcome::Present);
    assert_eq!(outcomes, [BlobOutcome::Copied, BlobOutcome::Present]);
    assert_eq!(ways.arrived(), SIZE as u64);
    assert!(book.waits.load(Ordering::SeqCst) > 0);
    assert_eq!(book.rows(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_came_after_it_was_looked_for_is_not_sent_again() {
    let (ways, book) = (Ways::to(Stage::of(V3).await).await, Book::new());
    Process::new(&ways, &book).copies(&ways, lease(1, 1)).await.unwrap();
    // What the second one saw before the first one was through.
    let missing = |part: &str| (When::of("HEAD", part), Answer::status(404), 1);
    let blob = format!("/blobs/{}", ways.digest);
    ways.target.fake.script(vec![missing("/manifests/"), missing(&blob)]);
    let (_, told) = Process::new(&ways, &book).copies(&ways, lease(2, 1)).await.unwrap();
    let outcomes: Vec<_> = told.blobs.lock().unwrap().iter().map(|told| told.0).collect();
    assert_eq!(outcomes[0], BlobOutcome::Present);
    assert_eq!(ways.arrived(), SIZE as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_another_process_can_be_cancelled_and_holds_nothing() {
    let (ways, book) = (Ways::to(Stage::of(V3).await).await, Book::new());
    let digest = ways.digest.parse().unwrap();
    let to = ways.target.repository("dst");
    let first = book.begins(lease(1, 1));
    let flight = colophon_domain::Flight { lease: first, repository: &to, digest: &digest };
    colophon_domain::FlightBook::board(&*book, flight).await.unwrap();
    let (process, cancel) = (Process::new(&ways, &book), CancellationToken::new());
    let told = Arc::new(Told::default());
    let waiting = process.copies_until(&ways, lease(2, 1), told, &cancel);
    let stops = async {
        while book.waits.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let (ended, ()) = tokio::join!(waiting, stops);
    assert_eq!(ended.unwrap_err().reason(), Reason::Cancelled);
    assert_eq!(ways.target.fake.count("POST", "/uploads/"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_copy_leaves_no_upload_although_it_was_written_down() {
    let (ways, book) = (Ways::to(Stage::of(V3).await).await, Book::new());
    let late = Answer::Late(Duration::from_mins(1));
    ways.target.fake.script(nth_chunk(4, late));
    let (process, cancel) = (Process::new(&ways, &book), CancellationToken::new());
    let told = Arc::new(Told::default());
    let copying = process.copies_until(&ways, lease(1, 1), told, &cancel);
    let stops = async {
        while ways.patches().len() < 4 {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let (ended, ()) = tokio::join!(copying, stops);
    assert_eq!(ended.unwrap_err().reason(), Reason::Cancelled);
    assert_eq!(book.trail().unwrap().offset, 3 * CHUNK as u64);
    while ways.target.fake.open_uploads() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An upload that the registry leads to another host is gone on with in the process only.
#[tokio::test(flavor = "multi_thread")]
async fn where_uploads_are_on_another_host_is_not_written_down() {
    let (ways, book) = (Ways::to(Stage::of(V3).await).await, Book::new());
    let address = ways.target.fake.host().parse().unwrap();
    let front = FaultProxy::start(address).await.unwrap();
    let config = RegistryConfig {
        endpoint: Some(front.host()),
        storage_hosts: vec![ways.target.fake.host()],
        ..ways.config()
    };
    ways.target.fake.script(nth_chunk(4, Answer::Cut(10_000)));
    let process = Process::with(config, ways.target.keys(), &book);
    process.copies(&ways, lease(1, 1)).await.unwrap();
    assert_eq!(ways.arrived(), SIZE as u64);
    assert_eq!(ways.target.fake.count("PATCH", "/uploads/"), 9);
    assert_eq!(book.rows(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_lost_the_lease_sends_no_more() {
    let (ways, book) = (Ways::to(Stage::of(V3).await).await, Book::new());
    let late = Answer::Late(Duration::from_millis(300));
    ways.target.fake.script(nth_chunk(3, late));
    let process = Process::new(&ways, &book);
    let copying = process.copies(&ways, lease(1, 1));
    let stalls = async {
        while ways.patches().len() < 3 {
            tokio::task::yield_now().await;
        }
        book.dies(lease(1, 1));
    };
    let (ended, ()) = tokio::join!(copying, stalls);
    assert_eq!(ended.map(drop).unwrap_err().reason(), Reason::LeaseLost);
    assert_eq!(ways.patches().len(), 3);
    assert_eq!(ways.target.fake.open_uploads(), 1, "the next one goes on with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_of_the_configuration_keeps_who_moves_what() {
    let (ways, book) = (Ways::to(Stage::of(V3).await).await, Book::new());
    let process = Process::new(&ways, &book);
    let reloaded = process.registries.replaced(vec![ways.config()], ways.target.keys()).unwrap();
    let reloaded = Process { registries: reloaded, book: book.clone() };
    let late = Answer::Late(Duration::from_millis(100));
    ways.target.fake.script(nth_chunk(2, late));
    let (one, other) =
        tokio::join!(process.copies(&ways, lease(1, 1)), reloaded.copies(&ways, lease(2, 1)));
    assert_eq!(one.unwrap().0.blobs_copied + other.unwrap().0.blobs_copied, 1);
    assert_eq!(ways.arrived(), SIZE as u64);
    assert_eq!(book.waits.load(Ordering::SeqCst), 0, "they waited for each other in memory");
}

/// The real distribution 2.8 behind a proxy, with a copy to it.
struct Real {
    registry: Registry,
    proxy: FaultProxy,
    source: Scripted,
    digest: String,
    image: Manifest,
}

impl Real {
    async fn new() -> Self {
        let registry = Registry::start(RegistryOptions::default()).await.unwrap();
        let proxy = FaultProxy::start(registry.address()).await.unwrap();
        let source = Scripted::start(Personality::default()).await.unwrap();
        let (digest, image) = publish(&source, "a/src");
        Self { registry, proxy, source, digest, image }
    }

    async fn copies(&self, book: &Arc<Book>, lease: Lease) -> Result<CopyTotals> {
        let plain = |host: String| RegistryConfig {
            plain_http: true,
            chunk_bytes: CHUNK as u64,
            ..RegistryConfig::new(host.parse().unwrap())
        };
        let configs = [plain(self.source.host()), plain(self.proxy.host())];
        let registries = registries(configs, Keys::none()).with_flights(book.clone());
        let at = |host: String, name: &str| Repository::parse(&format!("{host}/{name}")).unwrap();
        let from = registries.session(&at(self.source.host(), "a/src"), Access::Pull)?;
        let to = registries.session(&at(self.proxy.host(), "a/dst"), Access::Push)?;
        let lease = Some(book.begins(lease));
        let options = CopyOptions { lease, ..CopyOptions::default() };
        copy_with(&from, &to, &self.image.digest, options).await
    }

    /// The requests of uploads that write, once the right blob is there.
    async fn requests(&self) -> (usize, usize) {
        let url = format!("{}/v2/a/dst/blobs/{}", self.registry.url(), self.digest);
        assert_eq!(reqwest::get(url).await.unwrap().bytes().await.unwrap(), layer());
        let log = self.proxy.log();
        let of = |method: Method| {
            log.iter().filter(|it| it.method == method && it.path.contains("/uploads/")).count()
        };
        (of(Method::POST), of(Method::PATCH))
    }

    /// The bytes of the only upload that is not complete.
    fn stored(&self) -> u64 {
        let uploads =
            self.registry.storage().join("docker/registry/v2/repositories/a/dst/_uploads");
        let Ok(uploads) = std::fs::read_dir(uploads) else { return 0 };
        let sizes = uploads.filter_map(|it| it.unwrap().path().join("data").metadata().ok());
        sizes.map(|data| data.len()).sum()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_distribution_goes_on_after_a_chunk_that_never_came() {
    let (real, book) = (Real::new().await, Book::new());
    real.proxy.add(Rule::new(Action::DropBefore).method(Method::PATCH).nth(5));
    real.copies(&book, lease(1, 1)).await.unwrap();
    assert_eq!(real.requests().await, (1, 9));
}

/// Of a chunk that broke off it keeps the bytes, and refuses every later request for the upload.
#[tokio::test(flavor = "multi_thread")]
async fn at_a_real_distribution_a_blob_begins_anew_after_a_part_of_a_chunk() {
    let (real, book) = (Real::new().await, Book::new());
    let slow = Rule::new(Action::SlowRequest(100_000)).method(Method::PATCH).nth(5);
    real.proxy.add(slow);
    let part = async {
        while real.stored() <= 4 * CHUNK as u64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        ended = real.copies(&book, lease(1, 1)) => panic!("{ended:?}"),
        () = part => {}
    }
    book.dies(lease(1, 1));
    assert_eq!(book.trail().unwrap().offset, 4 * CHUNK as u64);
    real.copies(&book, lease(1, 2)).await.unwrap();
    assert_eq!(real.requests().await, (2, 5 + 8));
}
