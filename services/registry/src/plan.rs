//! What has to be done to have an image somewhere else, as data: which blobs to move, each
//! once, and which manifests to put in which order. A pure function of the manifests.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use colophon_domain::{Digest, Reason};

use crate::manifest::{Content, Descriptor, Manifest, is_manifest};

/// Indexes within indexes: real images have one or two levels.
pub(crate) const MOST_LEVELS: usize = 8;

/// What to do, in this order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The blobs, largest first, so that the last one to finish is a small one.
    pub blobs: Vec<Descriptor>,
    /// Those of them that are foreign layers.
    pub foreign: BTreeSet<Digest>,
    /// The manifests to put, stage by stage: whatever a manifest refers to, or is about, is in an
    /// earlier stage.
    pub stages: Vec<Vec<Digest>>,
    /// What is left out.
    pub notes: Vec<String>,
}

impl Plan {
    /// Bytes of all blobs.
    pub(crate) fn bytes_total(&self) -> i64 {
        self.blobs.iter().map(|blob| blob.size).fold(0, i64::saturating_add)
    }
}

/// Whether an index's entry is a manifest. Build caches list plain blobs in an index.
pub(crate) fn is_child(entry: &Descriptor) -> bool {
    let kind = &entry.media_type;
    // Other kinds of manifests are asked for as such, and then refused by their type.
    kind.is_empty() || is_manifest(kind) || kind.contains(".manifest.")
}

/// Plans the copy of `roots`: an image, and what goes along with it. `present` are manifests that
/// the target has already with all that is below them, so nothing there is looked at. `foreign` are
/// layers copied that are found elsewhere.
///
/// # Errors
/// A loop, too many levels, a blob with two sizes, or a manifest that nobody read.
pub(crate) fn plan<'a>(
    roots: impl IntoIterator<Item = &'a Digest>,
    manifests: &BTreeMap<Digest, Manifest>,
    present: &BTreeSet<Digest>,
    foreign: bool,
) -> Result<Plan, (Reason, String)> {
    let mut walk = Walk {
        manifests,
        present,
        takes_foreign: foreign,
        heights: HashMap::new(),
        path: Vec::new(),
        blobs: BTreeMap::new(),
        foreign: BTreeSet::new(),
        notes: BTreeSet::new(),
    };
    for root in roots {
        walk.visit(root)?;
    }
    let notes = walk.notes.into_iter().collect();
    let mut plan = Plan { notes, foreign: walk.foreign, ..Plan::default() };
    let mut stages: BTreeMap<usize, Vec<Digest>> = BTreeMap::new();
    for (digest, height) in walk.heights {
        if let Some(height) = height {
            stages.entry(height).or_default().push(digest.clone());
        }
    }
    plan.stages = stages.into_values().collect();
    plan.blobs = walk.blobs.into_values().collect();
    plan.blobs.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.digest.cmp(&b.digest)));
    Ok(plan)
}

struct Walk<'a> {
    manifests: &'a BTreeMap<Digest, Manifest>,
    present: &'a BTreeSet<Digest>,
    takes_foreign: bool,
    /// The longest way down from a manifest; `None` for one that is present.
    heights: HashMap<&'a Digest, Option<usize>>,
    path: Vec<Digest>,
    blobs: BTreeMap<Digest, Descriptor>,
    foreign: BTreeSet<Digest>,
    notes: BTreeSet<String>,
}

impl<'a> Walk<'a> {
    /// The manifest's height; that of a present one is not looked at and counts as nothing.
    fn visit(&mut self, digest: &Digest) -> Result<usize, (Reason, String)> {
        if let Some(height) = self.heights.get(digest) {
            return Ok(height.unwrap_or_default());
        }
        if let Some(digest) = self.present.get(digest) {
            self.heights.insert(digest, None);
            return Ok(0);
        }
        if self.path.contains(digest) {
            return Err((
                Reason::UnsupportedManifest,
                format!("the index {digest} contains itself"),
            ));
        }
        if self.path.len() >= MOST_LEVELS {
            return Err((Reason::TooLarge, format!("more than {MOST_LEVELS} levels of indexes")));
        }
        let manifests: &'a BTreeMap<Digest, Manifest> = self.manifests;
        let (digest, manifest) = manifests
            .get_key_value(digest)
            .ok_or_else(|| (Reason::Internal, format!("the manifest {digest} was not read")))?;
        self.path.push(digest.clone());
        let mut height = 0;
        // A registry may refuse what is about something that it does not have.
        if let Some(subject) = manifest.subject.as_ref().filter(|it| manifests.contains_key(it)) {
            height = self.visit(subject)? + 1;
        }
        match &manifest.content {
            Content::Index { entries } => {
                for entry in entries {
                    if is_child(entry) {
                        height = height.max(self.visit(&entry.digest)? + 1);
                    } else {
                        self.blob(entry)?;
                    }
                }
            }
            Content::Image { config, layers } => {
                self.blob(config)?;
                for layer in layers {
                    let digest = &layer.descriptor.digest;
                    if layer.foreign && !self.takes_foreign {
                        self.notes.insert(format!("the foreign layer {digest} was not copied"));
                        continue;
                    }
                    if layer.foreign {
                        self.foreign.insert(digest.clone());
                    }
                    self.blob(&layer.descriptor)?;
                }
            }
        }
        self.path.pop();
        self.heights.insert(digest, Some(height));
        Ok(height)
    }

    fn blob(&mut self, blob: &Descriptor) -> Result<(), (Reason, String)> {
        let known = self.blobs.entry(blob.digest.clone()).or_insert_with(|| blob.clone());
        if known.size == blob.size {
            return Ok(());
        }
        let text =
            format!("the blob {} has two sizes, {} and {}", blob.digest, known.size, blob.size);
        Err((Reason::DigestMismatch, text))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use oci_client::manifest::{OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE};
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::Layer;

    fn blob(number: usize) -> Descriptor {
        Descriptor {
            digest: Digest::sha256(format!("blob {number}").as_bytes()),
            size: i64::try_from(number).unwrap(),
            media_type: "application/vnd.oci.image.layer.v1.tar".into(),
        }
    }

    fn named(name: &str) -> Digest {
        Digest::sha256(name.as_bytes())
    }

    fn manifest(name: &str, content: Content) -> (Digest, Manifest) {
        let digest = named(name);
        let media_type = match content {
            Content::Index { .. } => OCI_IMAGE_INDEX_MEDIA_TYPE,
            Content::Image { .. } => OCI_IMAGE_MEDIA_TYPE,
        };
        let media_type = media_type.to_owned();
        (
            digest.clone(),
            Manifest { bytes: Bytes::new(), media_type, digest, content, subject: None },
        )
    }

    fn image(name: &str, layers: &[usize]) -> (Digest, Manifest) {
        let layer = |number: &usize| Layer { descriptor: blob(*number), foreign: false };
        let layers = layers.iter().map(layer).collect();
        manifest(name, Content::Image { config: blob(0), layers })
    }

    fn index(name: &str, children: &[&str]) -> (Digest, Manifest) {
        let entry = |child: &&str| Descriptor {
            digest: named(child),
            size: 0,
            media_type: OCI_IMAGE_INDEX_MEDIA_TYPE.to_owned(),
        };
        manifest(name, Content::Index { entries: children.iter().map(entry).collect() })
    }

    #[test]
    fn shared_children_and_blobs_come_once_and_present_ones_not_at_all() {
        let all = BTreeMap::from([
            index("root", &["a", "nested", "a", "there"]),
            index("nested", &["a", "b"]),
            image("a", &[1, 2, 2]),
            image("b", &[2, 3]),
        ]);
        let plan = plan([&named("root")], &all, &BTreeSet::from([named("there")]), false).unwrap();
        let sizes: Vec<i64> = plan.blobs.iter().map(|blob| blob.size).collect();
        assert_eq!((sizes.as_slice(), plan.bytes_total()), ([3, 2, 1, 0].as_slice(), 6));
        assert_eq!(plan.stages.len(), 3);
        assert_eq!(plan.stages[0].len(), 2);
        assert_eq!(plan.stages[1..], [vec![named("nested")], vec![named("root")]]);
    }

    #[test]
    fn an_entry_may_be_a_blob_and_a_foreign_layer_is_noted() {
        let mut cache = index("cache", &[]);
        cache.1.content = Content::Index { entries: vec![blob(7)] };
        let plan_of = |root: &str, all, foreign| {
            plan([&named(root)], &all, &BTreeSet::new(), foreign).unwrap()
        };
        assert_eq!(plan_of("cache", BTreeMap::from([cache]), false).blobs, [blob(7)]);
        let foreign = Layer { descriptor: blob(9), foreign: true };
        let windows = manifest("w", Content::Image { config: blob(1), layers: vec![foreign] });
        let plan = plan_of("w", BTreeMap::from([windows.clone()]), false);
        assert_eq!((plan.blobs.len(), plan.notes.len(), plan.foreign.len()), (1, 1, 0));
        let plan = plan_of("w", BTreeMap::from([windows]), true);
        assert_eq!((plan.blobs.len(), plan.notes.len(), plan.foreign.len()), (2, 0, 1));
    }

    #[test]
    fn what_is_about_something_comes_after_it() {
        let about = |name: &str, subject: &str| {
            let mut made = image(name, &[1]);
            made.1.subject = Some(named(subject));
            made
        };
        let all = BTreeMap::from([
            index("root", &["a"]),
            image("a", &[1]),
            about("signature", "root"),
            about("of the signature", "signature"),
            about("of something that is not copied", "elsewhere"),
        ]);
        let roots = ["of something that is not copied", "of the signature", "signature", "root"];
        let plan = plan(&roots.map(named), &all, &BTreeSet::new(), false).unwrap();
        let stage = |name: &str| plan.stages.iter().position(|it| it.contains(&named(name)));
        assert_eq!(stage("root"), Some(1));
        assert_eq!((stage("signature"), stage("of the signature")), (Some(2), Some(3)));
        assert_eq!(stage("of something that is not copied"), Some(0));
        assert_eq!(plan.blobs.len(), 2);
    }

    #[test]
    fn loops_depth_and_contradictions_are_refused() {
        let reason =
            |root: &str, all| plan([&named(root)], &all, &BTreeSet::new(), false).unwrap_err().0;
        let circle = BTreeMap::from([index("a", &["b"]), index("b", &["a"])]);
        assert_eq!(reason("a", circle), Reason::UnsupportedManifest);
        let deep = (0..20).map(|n| index(&n.to_string(), &[&(n + 1).to_string()])).collect();
        assert_eq!(reason("0", deep), Reason::TooLarge);
        let mut lie = image("lie", &[1, 1]);
        if let Content::Image { layers, .. } = &mut lie.1.content {
            layers[1].descriptor.size = 2;
        }
        assert_eq!(reason("lie", BTreeMap::from([lie])), Reason::DigestMismatch);
    }

    proptest! {
        /// Manifest `n` may refer to lower numbers only, so the graph has no loops.
        #[test]
        fn children_come_first_and_every_blob_once(
            graph in prop::collection::vec(
                (prop::collection::vec(0_usize..6, 0..4), prop::collection::vec(0_usize..9, 0..5)),
                1..7,
            ),
        ) {
            let mut all = BTreeMap::new();
            for (number, (children, layers)) in graph.iter().enumerate() {
                let name = number.to_string();
                let below: Vec<String> =
                    children.iter().filter(|c| **c < number).map(ToString::to_string).collect();
                let below: Vec<&str> = below.iter().map(String::as_str).collect();
                let (digest, made) =
                    if below.is_empty() { image(&name, layers) } else { index(&name, &below) };
                all.insert(digest, made);
            }
            let root = named(&(graph.len() - 1).to_string());
            let plan = plan([&root], &all, &BTreeSet::new(), false).unwrap();
            let mut done = BTreeSet::new();
            for stage in &plan.stages {
                for digest in stage {
                    match &all[digest].content {
                        Content::Index { entries } => {
                            prop_assert!(entries.iter().all(|e| done.contains(&e.digest)));
                        }
                        Content::Image { config, layers } => {
                            let mut needed = layers.iter().map(|l| &l.descriptor).chain([config]);
                            prop_assert!(needed.all(|blob| plan.blobs.contains(blob)));
                        }
                    }
                }
                for digest in stage {
                    prop_assert!(done.insert(digest.clone()));
                }
            }
            prop_assert_eq!(plan.stages.last(), Some(&vec![root]));
            let unique: BTreeSet<&Digest> = plan.blobs.iter().map(|blob| &blob.digest).collect();
            prop_assert_eq!(unique.len(), plan.blobs.len());
        }
    }
}
