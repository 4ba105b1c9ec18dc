//! Copies of any image: children first, each blob once, and at the end all of it is there, byte for byte,
//! whatever was there before.

use std::collections::BTreeSet;

use colophon_domain::{CopyTotals, Digest, Reason, Result};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestCaseError, TestRunner},
};

use crate::{
    copying::pair,
    fake::{Fake, Seen},
    graph::{Below, Graph, graphs, refers},
    support::copy,
};

const SOURCE: &str = "a/src";
const TARGET: &str = "a/dst";

/// So many graphs, or as many as the variable says.
fn cases() -> u32 {
    let set = std::env::var("COLOPHON_GRAPH_CASES").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(96)
}

/// Runs an asynchronous property; what failed is printed small, and its seed with it.
fn hold<S: Strategy, F: Future<Output = ()>>(values: S, property: impl Fn(S::Value) -> F) {
    let config = Config { cases: cases(), failure_persistence: None, ..Config::default() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = |value| {
        runtime.block_on(property(value));
        Ok::<(), TestCaseError>(())
    };
    TestRunner::new(config).run(&values, run).unwrap();
}

fn serve(fake: &Fake, name: &str, graph: &Graph, part: &Below) {
    for digest in &part.manifests {
        let (kind, bytes) = &graph.manifests[digest];
        fake.add_manifest_as(name, digest, kind, bytes);
    }
    for digest in &part.blobs {
        fake.add_blob_as(name, digest, &graph.blobs[digest]);
    }
}

/// What the target has before: whole images, as registries insist on, and stray blobs.
fn already_there(graph: &Graph, whole: &[Index], blobs: &[Index]) -> Below {
    let manifests: Vec<Digest> = graph.manifests.keys().cloned().collect();
    let mut there = Below::default();
    for at in whole {
        let below = graph.below(at.get(&manifests));
        there.manifests.extend(below.manifests);
        there.blobs.extend(below.blobs);
    }
    let known: Vec<Digest> = graph.blobs.keys().cloned().collect();
    if !known.is_empty() {
        there.blobs.extend(blobs.iter().map(|at| at.get(&known).clone()));
    }
    there
}

/// The digest at the end of a PUT's path, or in its query.
fn put(seen: &Seen) -> Option<(bool, Digest)> {
    if !seen.is("PUT", TARGET) {
        return None;
    }
    match seen.path.split_once("/manifests/") {
        Some((_, reference)) => Some((true, reference.parse().unwrap())),
        None => Some((false, seen.query("digest").pop()?.parse().unwrap())),
    }
}

/// Goes through the target's PUTs: nothing comes twice, nothing that was there, and no manifest before
/// all that it refers to.
fn check_order(target: &Fake, there: &Below) -> (BTreeSet<Digest>, BTreeSet<Digest>) {
    let (mut manifests, mut blobs) = (there.manifests.clone(), there.blobs.clone());
    let (mut put_manifests, mut put_blobs) = (BTreeSet::new(), BTreeSet::new());
    for seen in target.seen() {
        match put(&seen) {
            None => {}
            Some((false, digest)) => {
                assert!(blobs.insert(digest.clone()), "{digest} was sent, and was there");
                put_blobs.insert(digest);
            }
            Some((true, digest)) => {
                let refers = refers(seen.body.as_ref().unwrap());
                assert!(refers.blobs.is_subset(&blobs), "{digest} came before its blobs");
                assert!(
                    refers.manifests.is_subset(&manifests),
                    "{digest} came before its children"
                );
                assert!(manifests.insert(digest.clone()), "{digest} was put, and was there");
                put_manifests.insert(digest);
            }
        }
    }
    (put_manifests, put_blobs)
}

/// Whole, and the same bytes.
fn check_whole(target: &Fake, graph: &Graph, part: &Below) {
    for digest in &part.manifests {
        let (kind, bytes) = &graph.manifests[digest];
        let got = target.manifest(TARGET, digest.as_str());
        assert_eq!(got, Some((kind.clone(), bytes.clone())), "{digest}");
    }
    for digest in &part.blobs {
        assert_eq!(target.blob(TARGET, digest).as_ref(), Some(&graph.blobs[digest]), "{digest}");
    }
}

/// Copies a graph from one registry to another that has a part of it.
async fn copied(graph: &Graph, served: &Below, there: &Below) -> (Fake, Fake, Result<CopyTotals>) {
    let (source, target, from, to) = pair().await;
    serve(&source, SOURCE, graph, served);
    serve(&target, TARGET, graph, there);
    let totals = copy(&from, &to, graph.root.as_ref().unwrap()).await;
    (source, target, totals)
}

#[test]
fn whatever_the_image_all_of_it_arrives_once_and_in_order() {
    let whole = prop::collection::vec(any::<Index>(), 0..3);
    let blobs = prop::collection::vec(any::<Index>(), 0..4);
    hold((graphs(), whole, blobs), |(graph, whole, blobs)| async move {
        let wanted = graph.below(graph.root.as_ref().unwrap());
        let there = already_there(&graph, &whole, &blobs);
        let (source, target, totals) = copied(&graph, &wanted, &there).await;
        let totals = totals.unwrap();
        check_whole(&target, &graph, &wanted);
        let (manifests, sent) = check_order(&target, &there);
        let missing: BTreeSet<_> = wanted.manifests.difference(&there.manifests).cloned().collect();
        assert_eq!(manifests, missing);
        let missing: BTreeSet<_> = wanted.blobs.difference(&there.blobs).cloned().collect();
        assert_eq!(sent, missing);
        assert_eq!(usize::try_from(totals.blobs_copied).unwrap(), missing.len());
        for digest in &missing {
            let read = source.count("GET", &format!("/blobs/{digest}"));
            // Nobody need ask for nothing.
            let needed = usize::from(!graph.blobs[digest].is_empty());
            assert_eq!(read, needed, "{digest} was read so often");
        }
        // The empty blob included, bytes are those of what was sent.
        let bytes: usize = missing.iter().map(|digest| graph.blobs[digest].len()).sum();
        assert_eq!(usize::try_from(totals.bytes_copied).unwrap(), bytes);
    });
}

/// A registry that has lost something of an image (but the empty blob, which nobody asks it for): the copy says what, and what it leaves behind is
/// whole as far as it goes, without the root.
#[test]
fn what_the_source_has_lost_is_said_and_leaves_nothing_broken() {
    hold((graphs(), any::<Index>()), |(graph, lost)| async move {
        let root = graph.root.clone().unwrap();
        let wanted = graph.below(&root);
        let all: Vec<Digest> = wanted.manifests.iter().chain(&wanted.blobs).cloned().collect();
        let lost = lost.get(&all).clone();
        if graph.blobs.get(&lost).is_some_and(bytes::Bytes::is_empty) {
            return;
        }
        let mut served = graph.below(&root);
        served.manifests.remove(&lost);
        served.blobs.remove(&lost);
        let (_source, target, copied) = copied(&graph, &served, &Below::default()).await;
        let failure = copied.unwrap_err();
        assert_eq!(failure.reason(), Reason::SourceGone, "{failure}");
        assert!(failure.message().contains(lost.as_str()), "{failure} does not name {lost}");
        check_order(&target, &Below::default());
        assert_eq!(target.manifest(TARGET, root.as_str()), None);
    });
}
