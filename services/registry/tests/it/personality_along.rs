//! What goes along between the registries that people use: some list referrers by the API, some by
//! tags, and each is asked with its own kind of login.

use colophon_domain::Selection;
use colophon_registry::Manifest;
use colophon_testkit::scripted::Scripted;
use serde_json::{Value, json};

use crate::{
    stage::{ALL, READER, Stage, WRITER, between},
    support::{IMAGE, INDEX, LAYER, copy_along, descriptor, entry, manifest},
};

const SBOM: &str = "application/spdx+json";

/// A signature under cosign's tag and an SBOM, for an index.
struct Signed {
    root: Manifest,
    sbom: Manifest,
    tag: String,
}

fn blob(fake: &Scripted, name: &str, text: &'static str) -> Value {
    descriptor(LAYER, &fake.add_blob(name, text).parse().unwrap(), text.len())
}

fn signed(stage: &Stage) -> Signed {
    let root = stage.publish("src");
    let (fake, name) = (&stage.fake, stage.name("src"));
    let part = |text| blob(fake, &name, text);
    let body = |subject: Option<Value>| {
        let mut body = json!({
            "schemaVersion": 2, "mediaType": IMAGE, "config": part("{}"), "layers": [part("proof")],
        });
        if let Some(subject) = subject {
            body["subject"] = subject;
            body["artifactType"] = SBOM.into();
        }
        manifest(&body)
    };
    let (signature, sbom) = (body(None), body(Some(entry(&root))));
    let schema = format!("sha256-{}", root.digest.hex());
    let tag = format!("{schema}.sig");
    fake.add_manifest(&name, &tag, IMAGE, signature.bytes.clone());
    fake.add_manifest(&name, sbom.digest.as_str(), IMAGE, sbom.bytes.clone());
    // Whoever pushed it kept the list, which counts only where there is no API.
    let mut listed = entry(&sbom);
    listed["artifactType"] = SBOM.into();
    let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed]});
    fake.add_manifest(&name, &schema, INDEX, list.to_string());
    Signed { root, sbom, tag }
}

#[tokio::test]
async fn what_was_signed_is_found_at_each() {
    for (number, kind) in ALL.into_iter().enumerate() {
        // Each is a source once and a target once.
        let source = Stage::of(ALL[(number + 3) % ALL.len()]).await;
        let target = Stage::of(kind).await;
        let Signed { root, sbom, tag } = signed(&source);
        let (_all, from, to) = between(&source, &target);
        let copied = copy_along(&from, &to, &root.digest, Selection::default()).await;
        let copied = copied.unwrap_or_else(|failure| panic!("{}: {failure}", target.host));
        let name = target.name("dst");
        let at = target.fake.manifest(&name, sbom.digest.as_str()).unwrap();
        assert_eq!(at.bytes, sbom.bytes, "{}", target.host);
        let lists = (kind.1)().referrers.is_none();
        let schema = tag.strip_suffix(".sig").unwrap().to_owned();
        let mut expected = vec![tag];
        expected.extend(lists.then_some(schema));
        let tags: Vec<String> = copied.companions.iter().map(|it| it.tag.to_string()).collect();
        assert_eq!(tags, expected, "{}", target.host);
        target.holds("dst", &root, (&source.fake, &source.name("src")));
        source.was_shown_only(&[READER]);
        target.was_shown_only(&[WRITER]);
    }
}
