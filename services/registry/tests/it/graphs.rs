//! Copies of any image, and of what goes along with it: what is referred to first, each blob once, and at
//! the end all of it is there, byte for byte, whatever was there before.

use std::collections::BTreeSet;

use colophon_domain::{CopyTotals, Digest, Reason, Referrers, Result, Selection};
use colophon_registry::Companion;
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestCaseError, TestRunner},
};

use crate::{
    copying::pair,
    fake::{Fake, Seen},
    graph::{Below, Graph, TYPES, families, foreign, graphs, refers},
    support::{INDEX, copy, copy_along},
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

/// Goes through the target's PUTs: nothing comes twice, nothing that was there (but a referrer that the
/// registry may not have listed), and no manifest before all that it refers to or is about.
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
                let new = manifests.insert(digest.clone());
                assert!(new || refers.subject.is_some(), "{digest} was put, and was there");
                assert!(put_manifests.insert(digest.clone()), "{digest} was put twice");
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

/// How the source and the target list referrers, what is asked for, and whether with foreign layers.
#[derive(Debug, Clone)]
struct Way {
    source_lists: bool,
    target_lists: bool,
    types: Option<BTreeSet<String>>,
    foreign: bool,
}

fn ways() -> impl Strategy<Value = Way> {
    let types =
        prop::collection::btree_set(prop::sample::select(TYPES.map(str::to_owned).to_vec()), 1..3);
    let types = prop_oneof![2 => Just(None), 1 => types.prop_map(Some)];
    (any::<bool>(), any::<bool>(), types, any::<bool>()).prop_map(
        |(source_lists, target_lists, types, foreign)| Way {
            source_lists,
            target_lists,
            types,
            foreign,
        },
    )
}

/// The lists of referrers as tags, for a registry without the API.
fn tag_lists(fake: &Fake, name: &str, graph: &Graph) {
    for subject in graph.manifests.keys() {
        let about = graph.about(subject);
        if about.is_empty() {
            continue;
        }
        let listed: Vec<_> = about.into_values().collect();
        let body = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed});
        let bytes = bytes::Bytes::from(body.to_string());
        let digest = Digest::sha256(&bytes);
        fake.add_manifest_as(name, &digest, INDEX, &bytes);
        fake.set_tag(name, &schema_tag(subject), &digest);
    }
}

fn schema_tag(subject: &Digest) -> String {
    format!("{}-{}", subject.algorithm().as_str(), &subject.hex()[..64])
}

/// Does what is left to do after a copy.
fn move_tags(target: &Fake, companions: &[Companion]) {
    for companion in companions {
        let before = target.manifest(TARGET, companion.tag.as_str());
        assert_eq!(before.map(|(_, bytes)| Digest::sha256(&bytes)), companion.old);
        target.set_tag(TARGET, companion.tag.as_str(), &companion.digest);
    }
}

#[test]
fn whatever_goes_along_arrives_and_is_found_again() {
    let whole = prop::collection::vec(any::<Index>(), 0..3);
    hold((families(), ways(), whole), |(graph, way, whole)| async move {
        let root = graph.root.clone().unwrap();
        let mut wanted = graph.family(&root, way.types.as_ref());
        let mut served = graph.clone();
        if way.foreign {
            wanted.blobs.extend(wanted.foreign.clone());
            served.blobs.extend(wanted.foreign.iter().map(|it| (it.clone(), foreign(it))));
        }
        let (source, target, from, to) = pair().await;
        let everything = Below {
            manifests: served.manifests.keys().cloned().collect(),
            blobs: served.blobs.keys().cloned().collect(),
            ..Below::default()
        };
        serve(&source, SOURCE, &served, &everything);
        for (tag, digest) in &graph.tags {
            source.set_tag(SOURCE, tag, digest);
        }
        if way.source_lists {
            source.lists_referrers();
        } else {
            tag_lists(&source, SOURCE, &graph);
        }
        if way.target_lists {
            target.lists_referrers();
        }
        let mut there = already_there(&graph, &whole, &[]);
        if way.foreign {
            // A registry that insists on foreign layers has those of what it has.
            let foreign_there = there.manifests.iter().flat_map(|it| graph.below(it).foreign);
            there.blobs.extend(foreign_there.collect::<Vec<_>>());
        }
        serve(&target, TARGET, &Graph { blobs: with_foreign(&graph), ..graph.clone() }, &there);
        let selection = Selection {
            referrers: way.types.clone().map_or(Referrers::All, Referrers::Types),
            foreign: way.foreign,
            ..Selection::default()
        };
        let done = copy_along(&from, &to, &root, selection.clone()).await.unwrap();
        check_whole(&target, &Graph { blobs: with_foreign(&graph), ..graph.clone() }, &wanted);
        let (manifests, sent) = check_order(&target, &there);
        let lists: BTreeSet<_> = done.companions.iter().map(|it| it.digest.clone()).collect();
        assert!(manifests.difference(&lists).all(|it| wanted.manifests.contains(it)));
        let missing: BTreeSet<_> = wanted.blobs.difference(&there.blobs).cloned().collect();
        assert_eq!(sent, missing);
        move_tags(&target, &done.companions);
        for (tag, digest) in &wanted.tags {
            let at = target.manifest(TARGET, tag).unwrap().1;
            assert_eq!(at, graph.manifests[digest].1, "{tag}");
        }
        for subject in wanted.manifests.iter().filter(|_| !way.target_lists) {
            check_listed(&target, &graph, subject, &wanted);
        }
        // Nothing is left to do the second time.
        let puts = target.count("PUT", "/");
        let again = copy_along(&from, &to, &root, selection).await.unwrap();
        assert_eq!((again.companions, target.count("PUT", "/")), (Vec::new(), puts));
    });
}

fn with_foreign(graph: &Graph) -> std::collections::BTreeMap<Digest, bytes::Bytes> {
    let mut blobs = graph.blobs.clone();
    for digest in graph.manifests.keys().flat_map(|it| graph.below(it).foreign) {
        blobs.insert(digest.clone(), foreign(&digest));
    }
    blobs
}

/// A registry without the API lists, under the tag for that, all that came along.
fn check_listed(target: &Fake, graph: &Graph, subject: &Digest, wanted: &Below) {
    let mut about = graph.about(subject);
    about.retain(|digest, _| wanted.manifests.contains(digest));
    let list = target.manifest(TARGET, &schema_tag(subject));
    let body = list.map(|(_, bytes)| serde_json::from_slice::<serde_json::Value>(&bytes).unwrap());
    let listed = body.map(|it| it["manifests"].as_array().cloned().unwrap()).unwrap_or_default();
    let by = |entry: &serde_json::Value| entry["digest"].as_str().unwrap().to_owned();
    let listed: std::collections::BTreeMap<_, _> =
        listed.into_iter().map(|entry| (by(&entry), entry)).collect();
    let about = about.into_iter().map(|(digest, entry)| (digest.to_string(), entry)).collect();
    assert_eq!(listed, about, "{subject}");
}
