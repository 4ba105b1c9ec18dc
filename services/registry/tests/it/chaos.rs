//! Copies through a network and registries that do everything wrong now and then, in both directions.
//! Each ends right, or with a reason; nothing broken is left where somebody could pull it; and no
//! credential goes where it does not belong.

use std::collections::BTreeSet;

use base64::Engine as _;
use colophon_domain::{Access, Digest, Failure, Reason, Repository};
use colophon_registry::{RegistryConfig, Session};
use colophon_testkit::proxy::{Chaos, FaultProxy};
use futures_util::{StreamExt as _, stream};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::{
    fake::{Fake, Seen, with},
    graph::{Graph, graphs, refers},
    support::{Keys, copy, registries},
};

/// Requests that must have come through the proxies, at the least.
const OPERATIONS: usize = 10_000;
/// Images under way at the same time, each between a pair of registries of its own.
const AT_ONCE: usize = 48;
/// Of a hundred requests so many meet a fault.
const FAULTS: u64 = 20;
/// Tries of a copy, as the queue would make them.
const TRIES: usize = 60;

/// What a copy may say of the faults that are made here.
const KNOWN: &[Reason] = &[
    Reason::RegistryUnavailable,
    Reason::RegistryProtocol,
    Reason::RateLimited,
    Reason::DigestMismatch,
    Reason::UnsupportedManifest,
    Reason::ContentMissing,
    Reason::SourceGone,
    Reason::AddressRefused,
];

/// The seed of the first image, and the next ones have the next; `COLOPHON_CHAOS_SEED` asks for others.
fn first_seed() -> u64 {
    let set = std::env::var("COLOPHON_CHAOS_SEED").ok().and_then(|text| text.parse().ok());
    set.unwrap_or(1)
}

fn graph_of(seed: u64) -> Graph {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    graphs().new_tree(&mut TestRunner::new_with_rng(Config::default(), rng)).unwrap().current()
}

/// A registry that lets nobody in without its password, behind a proxy that makes faults.
struct Site {
    fake: Fake,
    proxy: FaultProxy,
    password: String,
}

impl Site {
    async fn new(seed: u64, what: &str, thief: &Fake) -> Self {
        let fake = Fake::start().await;
        fake.trust_uploads();
        let password = format!("{what}-pat-{seed}");
        let login = base64::engine::general_purpose::STANDARD.encode(format!("ci:{password}"));
        let expected = format!("Basic {login}");
        fake.hook(move |seen| {
            let challenge = [("www-authenticate", "Basic realm=\"fake\"")];
            (seen.authorization() != expected).then(|| with(401, &challenge, ""))
        });
        let proxy = FaultProxy::start(fake.address).await.unwrap();
        let thief = format!("http://{}", thief.address);
        proxy.chaos(Some(Chaos::new(seed, FAULTS, thief)));
        Self { fake, proxy, password }
    }

    fn session(&self, name: &str, access: Access) -> Session {
        let host = self.proxy.host().parse().unwrap();
        let config = RegistryConfig { plain_http: true, ..RegistryConfig::new(host) };
        let repository = Repository::parse(&format!("{}/{name}", self.proxy.host())).unwrap();
        registries([config], Keys::one("ci", &self.password)).session(&repository, access).unwrap()
    }
}

/// Goes through what arrived at the target: whatever it took is what it should be, and nothing came
/// before what it refers to.
fn check_taken(target: &Fake, graph: &Graph) {
    let (mut manifests, mut blobs) = (BTreeSet::<Digest>::new(), BTreeSet::<Digest>::new());
    let put = |seen: &&Seen| seen.is("PUT", "/v2/a/dst/") && seen.body.is_some();
    for seen in target.seen().iter().filter(put) {
        let body = seen.body.as_ref().unwrap();
        if let Some((_, reference)) = seen.path.split_once("/manifests/") {
            let digest: Digest = reference.parse().unwrap();
            assert_eq!(*body, graph.manifests[&digest].1, "other bytes under {digest}");
            let refers = refers(body);
            assert!(refers.blobs.is_subset(&blobs), "{digest} came before its blobs");
            assert!(refers.manifests.is_subset(&manifests), "{digest} came before its children");
            manifests.insert(digest);
        } else if let Some(digest) = seen.query("digest").pop() {
            // This registry takes whatever it gets: that it was right is the copy's doing.
            let digest: Digest = digest.parse().unwrap();
            assert!(digest.matches(body), "other bytes under {digest}");
            blobs.insert(digest);
        }
    }
}

fn is_known(failure: &Failure, seed: u64) {
    assert!(KNOWN.contains(&failure.reason()), "seed {seed}: {} {failure}", failure.reason());
}

/// One image from registry to registry; how many requests that took, and how often it failed.
async fn one(seed: u64, thief: &Fake) -> (usize, usize) {
    let graph = graph_of(seed);
    let root = graph.root.clone().unwrap();
    let wanted = graph.below(&root);
    let source = Site::new(2 * seed, "source", thief).await;
    let target = Site::new(2 * seed + 1, "target", thief).await;
    for digest in &wanted.manifests {
        let (kind, bytes) = &graph.manifests[digest];
        source.fake.add_manifest_as("a/src", digest, kind, bytes);
    }
    for digest in &wanted.blobs {
        source.fake.add_blob_as("a/src", digest, &graph.blobs[digest]);
    }
    let from = source.session("a/src", Access::Pull);
    let to = target.session("a/dst", Access::Push);
    let mut failed = 0;
    while let Err(failure) = copy(&from, &to, &root).await {
        is_known(&failure, seed);
        failed += 1;
        assert!(failed < TRIES, "seed {seed}: still {failure} after {failed} tries");
    }
    check_taken(&target.fake, &graph);
    for digest in &wanted.manifests {
        let got = target.fake.manifest("a/dst", digest.as_str());
        assert_eq!(got.map(|it| it.1), Some(graph.manifests[digest].1.clone()), "seed {seed}");
    }
    for digest in &wanted.blobs {
        assert_eq!(target.fake.blob("a/dst", digest).as_ref(), Some(&graph.blobs[digest]));
    }
    (source.proxy.log().len() + target.proxy.log().len(), failed)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_copy_ends_right_whatever_goes_wrong_on_its_way() {
    let begin = first_seed();
    println!("chaos from COLOPHON_CHAOS_SEED={begin}");
    let thief = Fake::start().await;
    let (mut operations, mut failed, mut copies) = (0, 0, 0);
    let mut running = stream::iter(begin..).map(|seed| one(seed, &thief)).buffer_unordered(AT_ONCE);
    while operations < OPERATIONS {
        let (requests, failures) = running.next().await.unwrap();
        operations += requests;
        failed += failures;
        copies += 1;
    }
    println!("{copies} images, {operations} requests, {failed} copies failed and were tried again");
    // Led astray, and with nothing that is not for everybody.
    let stolen = thief.seen();
    assert!(!stolen.is_empty(), "nobody was led astray");
    for seen in stolen {
        assert_eq!(seen.authorization(), "", "{} {}", seen.method, seen.path);
        let all = format!("{} {} {:?} {:?}", seen.path, seen.query, seen.headers, seen.body);
        assert!(!all.contains("-pat-"), "{all}");
    }
}
