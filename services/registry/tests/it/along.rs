//! What goes along with an image, and what registries do about it: lists by an API or by tags, lists
//! that lie, signatures that are at the target already.

use colophon_domain::{Digest, Reason, Referrers, Selection};
use colophon_registry::{Companion, Copied, CopyOptions, Manifest, Session};
use serde_json::{Value, json};

use crate::{
    copying::pair,
    fake::{Fake, error, status, with},
    support::{IMAGE, INDEX, LAYER, copy_along, descriptor, entry, image, index, manifest},
};

const SBOM: &str = "application/spdx+json";
const SIGNATURE: &str = "application/vnd.cncf.notary.signature";

fn blob(fake: &Fake, text: &str) -> Value {
    descriptor(LAYER, &fake.add_blob("a/src", text.as_bytes()), text.len())
}

/// An image at the source.
fn published(fake: &Fake, text: &str) -> Manifest {
    let image = image(&[blob(fake, text)]);
    fake.add_manifest("a/src", "v1", &image);
    image
}

/// An artifact about a manifest, at the source.
fn about(fake: &Fake, subject: &Manifest, kind: &str, text: &str) -> Manifest {
    let made = manifest(&json!({
        "schemaVersion": 2, "mediaType": IMAGE, "artifactType": kind,
        "config": descriptor("application/vnd.oci.empty.v1+json", &fake.add_blob("a/src", b"{}"), 2),
        "layers": [blob(fake, text)], "subject": entry(subject), "annotations": {"text": text},
    }));
    fake.add_manifest_as("a/src", &made.digest, IMAGE, &made.bytes);
    made
}

fn options(selection: Selection) -> CopyOptions {
    CopyOptions { selection, ..CopyOptions::default() }
}

fn tag_of(subject: &Manifest) -> String {
    format!("sha256-{}", subject.digest.hex())
}

async fn all(from: &Session, to: &Session, root: &Manifest) -> Copied {
    copy_along(from, to, &root.digest, Selection::default()).await.unwrap()
}

fn has(target: &Fake, manifest: &Manifest) -> bool {
    target.manifest("a/dst", manifest.digest.as_str()).is_some()
}

/// The digests that a list at the target names.
fn listed(target: &Fake, list: &Companion) -> Vec<String> {
    let (kind, bytes) = target.manifest("a/dst", list.digest.as_str()).unwrap();
    assert_eq!(kind, INDEX);
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    let digest = |entry: &Value| entry["digest"].as_str().unwrap().to_owned();
    body["manifests"].as_array().unwrap().iter().map(digest).collect()
}

#[tokio::test]
async fn a_target_that_says_it_knows_the_subject_and_has_no_api_gets_a_list() {
    let (source, target, from, to) = pair().await;
    source.lists_referrers();
    let root = published(&source, "app");
    let sbom = about(&source, &root, SBOM, "sbom");
    let signature = about(&source, &sbom, SIGNATURE, "signature of the sbom");
    // As some do: a PUT is answered as if there were the API.
    let said = root.digest.to_string();
    target.hook(move |seen| {
        let put = seen.is("PUT", "/manifests/");
        put.then(|| with(201, &[("oci-subject", &said)], ""))
    });
    let failure = copy_along(&from, &to, &root.digest, Selection::default()).await;
    // The hook keeps nothing, so what counts is what was asked for.
    let companions = failure.unwrap().companions;
    let tags: Vec<&str> = companions.iter().map(|it| it.tag.as_str()).collect();
    assert_eq!(tags, [tag_of(&root), tag_of(&sbom)]);
    assert_eq!(target.count("GET", "/referrers/"), 1, "one answer says that there is no API");
    let _ = signature;
}

#[tokio::test]
async fn a_list_at_the_target_keeps_what_others_have_written() {
    let (source, target, from, to) = pair().await;
    source.lists_referrers();
    let root = published(&source, "app");
    let sbom = about(&source, &root, SBOM, "sbom");
    let theirs = descriptor(IMAGE, &Digest::sha256(b"theirs"), 77);
    let list = index(std::slice::from_ref(&theirs));
    target.add_manifest("a/dst", &tag_of(&root), &list);
    let copied = all(&from, &to, &root).await;
    let [made] = copied.companions.as_slice() else { panic!("{copied:?}") };
    assert_eq!(
        (made.tag.as_str(), made.old.as_ref()),
        (tag_of(&root).as_str(), Some(&list.digest))
    );
    let expected = [theirs["digest"].as_str().unwrap(), sbom.digest.as_str()];
    assert_eq!(listed(&target, made), expected);
    // Not moved yet, so it is said again; then there is nothing to do.
    assert_eq!(all(&from, &to, &root).await.companions, copied.companions);
    target.set_tag("a/dst", made.tag.as_str(), &made.digest);
    assert_eq!(all(&from, &to, &root).await.companions, []);
    // What is something else than a list is nobody's to overwrite.
    target.add_manifest("a/dst", &tag_of(&root), &image(&[blob(&source, "x")]));
    let copied = all(&from, &to, &root).await;
    assert_eq!((copied.companions.len(), copied.totals.notes.len()), (0, 1), "{copied:?}");
}

#[tokio::test]
async fn a_list_of_what_was_deleted_does_not_stand_in_the_way() {
    let (source, target, from, to) = pair().await;
    source.lists_referrers();
    let root = published(&source, "app");
    let sbom = about(&source, &root, SBOM, "sbom");
    let theirs = image(&[blob(&source, "theirs")]);
    target.add_manifest_as("a/dst", &theirs.digest, IMAGE, &theirs.bytes);
    let gone = descriptor(IMAGE, &Digest::sha256(b"deleted"), 77);
    target.add_manifest("a/dst", &tag_of(&root), &index(&[gone.clone(), entry(&theirs)]));
    let name = gone["digest"].as_str().unwrap().to_owned();
    target.hook(move |seen| {
        let body = seen.body.as_ref().map(|body| String::from_utf8_lossy(body).into_owned());
        let refused = seen.is("PUT", "/manifests/") && body.is_some_and(|it| it.contains(&name));
        refused.then(|| error(404, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry"))
    });
    let copied = all(&from, &to, &root).await;
    let [made] = copied.companions.as_slice() else { panic!("{copied:?}") };
    assert_eq!(listed(&target, made), [theirs.digest.as_str(), sbom.digest.as_str()]);
}

#[tokio::test]
async fn an_api_that_is_not_one_is_none() {
    let (source, target, from, to) = pair().await;
    target.lists_referrers();
    let root = published(&source, "app");
    let sbom = about(&source, &root, SBOM, "sbom");
    let list = index(&[entry(&sbom)]);
    source.add_manifest("a/src", &tag_of(&root), &list);
    let kinds: [fn() -> axum::response::Response; 5] = [
        || status(404),
        || with(200, &[("content-type", "text/html")], "<html>"),
        || with(303, &[("location", "https://example.com/login")], ""),
        || error(401, "UNAUTHORIZED", "no"),
        || error(400, "UNSUPPORTED", "no"),
    ];
    for (number, kind) in kinds.into_iter().enumerate() {
        source.hook(move |seen| seen.path.contains("/referrers/").then(kind));
        target.forget();
        let copied = all(&from, &to, &root).await;
        assert!(has(&target, &sbom), "{number}");
        assert_eq!(copied.companions, [], "the target has the API");
        let said = copied.totals.notes.iter().any(|note| note.contains("refuses its referrers"));
        assert_eq!(said, number == 3, "{:?}", copied.totals.notes);
    }
}

#[tokio::test]
async fn no_answer_is_never_taken_for_no_signature() {
    let (source, target, from, to) = pair().await;
    let root = published(&source, "app");
    let reasons = [(503, Reason::RegistryUnavailable), (500, Reason::RegistryUnavailable)];
    for (code, reason) in reasons {
        for part in ["/referrers/", "/manifests/sha256-"] {
            source.hook(move |seen| seen.path.contains(part).then(|| status(code)));
            let failure =
                copy_along(&from, &to, &root.digest, Selection::default()).await.unwrap_err();
            assert_eq!(failure.reason(), reason, "{code} {part}");
        }
    }
    assert_eq!(target.count("PUT", "/manifests/"), 0);
    source.lists_referrers();
    about(&source, &root, SBOM, "sbom");
    let page = json!({"schemaVersion": 2, "manifests": "none"}).to_string();
    source.hook(move |seen| {
        let asked = seen.path.contains("/referrers/");
        asked.then(|| with(200, &[("content-type", INDEX)], page.clone()))
    });
    let failure = copy_along(&from, &to, &root.digest, Selection::default()).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::RegistryProtocol);
}

#[tokio::test]
async fn what_a_list_says_is_looked_at() {
    let (source, target, from, to) = pair().await;
    let root = published(&source, "app");
    let sbom = about(&source, &root, SBOM, "sbom");
    let other = published(&source, "other");
    let stranger = about(&source, &other, SIGNATURE, "of another image");
    let gone = descriptor(IMAGE, &Digest::sha256(b"gone"), 9);
    let list = index(&[entry(&stranger), gone, entry(&root), entry(&other), entry(&sbom)]);
    source.add_manifest("a/src", &tag_of(&root), &list);
    let copied = all(&from, &to, &root).await;
    assert!(has(&target, &sbom) && !has(&target, &stranger) && !has(&target, &other));
    assert_eq!(copied.totals.notes.len(), 4, "{:?}", copied.totals.notes);
    let [made] = copied.companions.as_slice() else { panic!("{copied:?}") };
    assert_eq!(listed(&target, made), [sbom.digest.as_str()]);
}

#[tokio::test]
async fn types_are_seen_also_where_a_list_does_not_say_them() {
    let (source, target, from, to) = pair().await;
    let root = published(&source, "app");
    let (sbom, signature) =
        (about(&source, &root, SBOM, "sbom"), about(&source, &root, SIGNATURE, "signature"));
    let list = index(&[entry(&sbom), entry(&signature)]);
    source.add_manifest("a/src", &tag_of(&root), &list);
    let only = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Selection { referrers: Referrers::parse(&words).unwrap(), ..Selection::default() }
    };
    let copied = copy_along(&from, &to, &root.digest, only(&[SBOM])).await.unwrap();
    assert!(has(&target, &sbom) && !has(&target, &signature));
    let [made] = copied.companions.as_slice() else { panic!("{copied:?}") };
    assert_eq!(listed(&target, made), [sbom.digest.as_str()]);
    let asked = source.count("GET", "/referrers/");
    copy_along(&from, &to, &root.digest, only(&["none"])).await.unwrap();
    assert_eq!(source.count("GET", "/referrers/"), asked, "nobody was asked");
}

#[tokio::test]
async fn lists_have_an_end() {
    let (source, _target, from, to) = pair().await;
    let root = published(&source, "app");
    let many: Vec<Value> =
        (0..2001).map(|n: u32| descriptor(IMAGE, &Digest::sha256(&n.to_be_bytes()), 9)).collect();
    let page = index(&many).bytes;
    source.hook(move |seen| {
        let asked = seen.path.contains("/referrers/");
        asked.then(|| with(200, &[("content-type", INDEX)], page.clone()))
    });
    let fails =
        async || copy_along(&from, &to, &root.digest, Selection::default()).await.unwrap_err();
    let failure = fails().await;
    assert_eq!(failure.reason(), Reason::TooLarge);
    assert!(failure.remedy_text().unwrap().contains("types"), "{failure}");
    // A page that leads to itself, and one that leads ever on.
    for (path, reason) in [
        ("x?page=1", Reason::RegistryProtocol),
        ("https://elsewhere.example/x", Reason::RegistryProtocol),
    ] {
        let link = format!("<{path}>; rel=\"next\"");
        source.hook(move |seen| {
            let asked = seen.path.contains("/referrers/");
            let headers = [("content-type", INDEX), ("link", link.as_str())];
            asked.then(|| with(200, &headers, r#"{"manifests":[]}"#))
        });
        assert_eq!(fails().await.reason(), reason);
    }
}

/// Something like what cosign stores: a layer for each signature.
fn signatures(fake: &Fake, name: &str, texts: &[&str]) -> Manifest {
    let add = |text: &str| descriptor(LAYER, &fake.add_blob(name, text.as_bytes()), text.len());
    let mut blobs = vec![add("{}")];
    blobs.extend(texts.iter().map(|text| add(text)));
    image(&blobs)
}

#[tokio::test]
async fn cosigns_tags_go_along_and_lose_no_signature_of_the_target() {
    let (source, target, from, to) = pair().await;
    let child = published(&source, "app");
    let root = index(&[entry(&child)]);
    source.add_manifest("a/src", "v1", &root);
    let ours = signatures(&source, "a/src", &["one", "two"]);
    for (subject, suffix) in [(&root, "sig"), (&child, "sig"), (&child, "att"), (&child, "other")] {
        source.add_manifest("a/src", &format!("{}.{suffix}", tag_of(subject)), &ours);
    }
    let tags = |copied: &Copied| -> Vec<String> {
        copied.companions.iter().map(|it| it.tag.to_string()).collect()
    };
    let mut expected = [
        format!("{}.att", tag_of(&child)),
        format!("{}.sig", tag_of(&child)),
        format!("{}.sig", tag_of(&root)),
    ];
    expected.sort();
    let copied = all(&from, &to, &root).await;
    let mut found = tags(&copied);
    found.sort();
    assert_eq!(found, expected);
    assert!(has(&target, &ours), "their content is there before the tag");
    assert!(copied.companions.iter().all(|it| it.old.is_none() && it.digest == ours.digest));
    for companion in &copied.companions {
        target.set_tag("a/dst", companion.tag.as_str(), &companion.digest);
    }
    assert_eq!(all(&from, &to, &root).await.companions, []);

    // One signature of ours is there: the other is added.
    let sig = format!("{}.sig", tag_of(&root));
    let fewer = signatures(&target, "a/dst", &["one"]);
    target.add_manifest("a/dst", &sig, &fewer);
    let copied = all(&from, &to, &root).await;
    assert_eq!(
        (tags(&copied), copied.companions[0].old.as_ref()),
        (vec![sig.clone()], Some(&fewer.digest))
    );
    // One of somebody else's: it stays.
    let theirs = signatures(&target, "a/dst", &["one", "theirs"]);
    target.add_manifest("a/dst", &sig, &theirs);
    let copied = all(&from, &to, &root).await;
    assert_eq!(tags(&copied), Vec::<String>::new());
    assert!(copied.totals.notes[0].contains(&sig), "{:?}", copied.totals.notes);

    let without = Selection { cosign: false, ..Selection::default() };
    let before = source.seen().len();
    let copied = copy_along(&from, &to, &root.digest, without).await.unwrap();
    assert_eq!(copied.companions, []);
    let asked = source.seen().split_off(before);
    assert!(asked.iter().all(|seen| !seen.path.contains(".sig")), "nobody was asked");
}

#[tokio::test]
async fn a_registry_without_head_is_asked_for_cosigns_tags_by_get() {
    let (source, _target, from, to) = pair().await;
    let root = published(&source, "app");
    let sig = format!("{}.sig", tag_of(&root));
    source.add_manifest("a/src", &sig, &signatures(&source, "a/src", &["one"]));
    source.hook(|seen| (seen.method == http::Method::HEAD).then(|| status(405)));
    let copied = all(&from, &to, &root).await;
    assert_eq!(copied.companions[0].tag.as_str(), sig);
}

#[tokio::test]
async fn foreign_layers_come_from_the_source_or_not_at_all() {
    let (source, target, from, to) = pair().await;
    let text = b"windows base";
    let elsewhere = json!({
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "digest": Digest::sha256(text), "size": text.len(), "urls": ["https://example.com/base"],
    });
    let root = image(&[blob(&source, "config"), elsewhere]);
    source.add_manifest("a/src", "v1", &root);
    let with = Selection { foreign: true, ..Selection::bare() };
    let failure = copy_along(&from, &to, &root.digest, with.clone()).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::SourceGone);
    assert!(failure.message().contains(Digest::sha256(text).as_str()), "{failure}");
    assert!(failure.remedy_text().unwrap().contains("foreign"));
    let measured =
        colophon_registry::measure(&from, &to, &root.digest, options(with.clone())).await;
    assert_eq!(measured.unwrap_err().reason(), Reason::SourceGone, "a plan says so, too");
    assert_eq!(target.count("PUT", "/"), 0, "it is said before anything is sent");
    let copied = copy_along(&from, &to, &root.digest, Selection::bare()).await.unwrap();
    assert_eq!(copied.totals.notes.len(), 1);
    assert_eq!(target.blob("a/dst", &Digest::sha256(text)), None);
    // The target has the manifest now, and may lack a layer of it.
    source.add_blob("a/src", text);
    let totals = copy_along(&from, &to, &root.digest, with).await.unwrap().totals;
    assert_eq!((totals.blobs_copied, totals.notes.len()), (1, 0));
    assert_eq!(target.blob("a/dst", &Digest::sha256(text)).unwrap(), &text[..]);
}

#[tokio::test]
async fn a_plan_counts_what_goes_along() {
    let (source, target, from, to) = pair().await;
    source.lists_referrers();
    let root = published(&source, "app");
    let sbom = about(&source, &root, SBOM, "sbom");
    about(&source, &sbom, SIGNATURE, "signature");
    let sig = format!("{}.sig", tag_of(&root));
    source.add_manifest("a/src", &sig, &signatures(&source, "a/src", &["one"]));
    let measure = async || {
        let options = options(Selection::default());
        colophon_registry::measure(&from, &to, &root.digest, options).await.unwrap()
    };
    let need = measure().await;
    let tags: Vec<String> = need.companions.iter().map(ToString::to_string).collect();
    assert_eq!(tags, [sig, tag_of(&root), tag_of(&sbom)]);
    assert_eq!(target.count("PUT", "/") + target.count("POST", "/"), 0);
    let copied = all(&from, &to, &root).await;
    assert_eq!(copied.totals.blobs_copied, need.blobs);
    for companion in &copied.companions {
        target.set_tag("a/dst", companion.tag.as_str(), &companion.digest);
    }
    assert_eq!(measure().await, colophon_registry::Need::default());
}
