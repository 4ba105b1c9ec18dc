//! An OCI layout, in a folder or in an archive: which image of its index, and for which platform.

use std::collections::BTreeSet;

use colophon_domain::{Digest, Platform};
use serde::Deserialize;

use crate::{
    Options,
    choose::{Candidate, choose},
    document::{Config, Content, Descriptor, Document},
    error::{LocalError, LocalErrorKind, damaged, unsupported},
    graph::{self, Broken, Graph},
    image::Image,
    store::Store,
};

/// What an OCI layout's index calls an image (OCI image-spec, "Pre-Defined Annotation Keys").
const OCI_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole name, as containerd and the Docker engine add it.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// What a layout turned out to hold.
pub(crate) enum Layout {
    /// The image.
    Image(Image),
    /// It names no image, or one without its layers; the older list of the archive may do better.
    Unusable(String),
}

#[derive(Deserialize)]
struct Index {
    manifests: Option<Vec<Descriptor>>,
}

/// An entry of the index, or several of one digest.
struct Entry<'a> {
    store: &'a dyn Store,
    descriptor: Descriptor,
    names: Vec<String>,
}

impl Candidate for Entry<'_> {
    fn names(&self) -> &[String] {
        &self.names
    }

    fn digests(&self) -> Vec<Digest> {
        let digest = self.descriptor.digest.clone();
        [Some(digest), config_of(self.store, &self.descriptor)].into_iter().flatten().collect()
    }
}

/// Reads the layout that `index.json` begins.
pub(crate) fn read(
    store: &dyn Store,
    index: &[u8],
    options: &Options,
) -> Result<Layout, LocalError> {
    let index: Index = serde_json::from_slice(index)
        .map_err(|error| damaged(format!("index.json cannot be read: {error}")))?;
    let entries = entries(store, index.manifests.unwrap_or_default(), options);
    if entries.is_empty() {
        return Ok(Layout::Unusable("its index.json names no image".to_owned()));
    }
    let entry = choose(&entries, options.image.as_deref())?;
    let (graph, mut notes) = platform(store, &entry.descriptor, options.platform.as_ref())?;
    let root = graph.manifests.last().ok_or_else(|| damaged("has no manifest"))?;
    let document = Document::read(&root.bytes, root.digest.as_str(), &root.media_type)?;
    let mut image_id = Some(root.digest.clone());
    if let Content::Image { config, layers } = &document.content
        && config.is_container_config()
    {
        image_id = Some(config.digest.clone());
        let read = container_config(store, config, root.digest.as_str())?;
        if layers.len() < read.diff_ids().len() {
            return Ok(Layout::Unusable(format!("{} lacks layers of its image", root.digest)));
        }
        check_platform(&read, options.platform.as_ref())?;
    } else if options.platform.is_some() && matches!(document.content, Content::Image { .. }) {
        return Err(unsupported("is no container's image, and has no platform")
            .remedy("leave out --platform"));
    }
    notes.extend(graph.notes.iter().cloned());
    Ok(Layout::Image(Image {
        root: root.digest.clone(),
        blobs: graph.blobs(),
        names: entry.names.clone(),
        image_id,
        digest_is_new: false,
        listed: entry.descriptor.digest.clone(),
        notes,
        manifests: graph.manifests,
    }))
}

/// The images of an index, each once. Where nothing else tells them apart, the platform does.
fn entries<'a>(
    store: &'a dyn Store,
    descriptors: Vec<Descriptor>,
    options: &Options,
) -> Vec<Entry<'a>> {
    let mut entries: Vec<Entry<'a>> = Vec::new();
    for descriptor in descriptors.into_iter().filter(|one| !one.is_attestation()) {
        // The whole name first, because it says more than a tag.
        let names = [CONTAINERD_NAME, OCI_NAME].map(|key| descriptor.annotation(key));
        let names: Vec<String> = names.into_iter().flatten().map(str::to_owned).collect();
        let known = entries.iter_mut().find(|entry| entry.descriptor.digest == descriptor.digest);
        match known {
            Some(entry) => entry.names.extend(names),
            None => entries.push(Entry { store, descriptor, names }),
        }
    }
    for entry in &mut entries {
        let mut seen = BTreeSet::new();
        entry.names.retain(|name| seen.insert(name.clone()));
    }
    if let (Some(wanted), None) = (&options.platform, &options.image)
        && entries.iter().any(|entry| takes(wanted, &entry.descriptor))
    {
        entries.retain(|entry| takes(wanted, &entry.descriptor));
    }
    entries
}

fn takes(wanted: &Platform, descriptor: &Descriptor) -> bool {
    descriptor.platform().is_some_and(|here| wanted.takes(&here))
}

/// The image under a root: all of it, the platform that is wanted, or the only one that is there.
fn platform<'a>(
    store: &'a dyn Store,
    root: &Descriptor,
    wanted: Option<&Platform>,
) -> Result<(Graph<'a>, Vec<String>), LocalError> {
    let bytes = graph::manifest(store, root, "index.json")?;
    let document = Document::read(&bytes, root.digest.as_str(), &root.media_type)?;
    let Content::Index(children) = document.content else {
        return Ok((Graph::of(store, root)?, Vec::new()));
    };
    if let Some(wanted) = wanted {
        return Ok((Graph::of(store, one(&children, wanted)?)?, Vec::new()));
    }
    let lacking = match Graph::of(store, root) {
        Ok(graph) => return Ok((graph, Vec::new())),
        Err(Broken::Failed(error)) => return Err(error),
        Err(Broken::Missing(lacking)) => lacking,
    };
    // An engine that pulled one platform has the index of all, and saves what it has.
    let mut first = None;
    let mut there = Vec::new();
    for child in images(&children) {
        match Graph::of(store, child) {
            Ok(graph) => {
                there.push(name(child));
                first.get_or_insert(graph);
            }
            Err(Broken::Failed(error)) => return Err(error),
            Err(Broken::Missing(_)) => {}
        }
    }
    let here = there.join(", ");
    let index = &root.digest;
    match (first, there.len()) {
        (None, _) => Err(damaged(lacking)),
        (Some(graph), 1) => {
            let text = format!("only {here} of the index {index} is here; that is published alone");
            Ok((graph, vec![text]))
        }
        _ => {
            let text = format!("has {here} of the index {index}, and not all of it: {lacking}");
            Err(LocalError::new(LocalErrorKind::Ambiguous, text)
                .remedy("choose one of them by --platform"))
        }
    }
}

/// The images of an index, without what is said about them.
fn images(children: &[Descriptor]) -> impl Iterator<Item = &Descriptor> {
    children.iter().filter(|child| child.is_manifest() && !child.is_attestation())
}

/// The child for a platform. One without a variant is meant before those with one.
fn one<'a>(children: &'a [Descriptor], wanted: &Platform) -> Result<&'a Descriptor, LocalError> {
    let exactly = |child: &&Descriptor| child.platform().as_ref() == Some(wanted);
    let exact: Vec<_> = images(children).filter(exactly).collect();
    let close: Vec<_> = images(children).filter(|child| takes(wanted, child)).collect();
    if let ([only], _) | ([], [only]) = (exact.as_slice(), close.as_slice()) {
        return Ok(only);
    }
    let there: BTreeSet<String> = images(children).map(name).collect();
    let there = there.into_iter().collect::<Vec<_>>().join(", ");
    Err(if close.is_empty() {
        let text = format!("has no {wanted}; there is {there}");
        LocalError::new(LocalErrorKind::NotFound, text).remedy("choose by --platform")
    } else {
        let text = format!("has several manifests for {wanted}; there is {there}");
        LocalError::new(LocalErrorKind::Ambiguous, text).remedy("add the variant to --platform")
    })
}

fn name(child: &Descriptor) -> String {
    child.platform().map_or_else(|| child.digest.to_string(), |platform| platform.to_string())
}

/// Whether an image is for the platform that is wanted.
pub(crate) fn check_platform(config: &Config, wanted: Option<&Platform>) -> Result<(), LocalError> {
    let Some(wanted) = wanted else { return Ok(()) };
    let here = config.platform();
    if here.as_ref().is_some_and(|here| wanted.takes(here)) {
        return Ok(());
    }
    let here = here.map_or_else(|| "an unknown platform".to_owned(), |here| here.to_string());
    let text = format!("is for {here}, not for {wanted}");
    Err(LocalError::new(LocalErrorKind::NotFound, text).remedy("leave out --platform"))
}

fn container_config(
    store: &dyn Store,
    config: &Descriptor,
    referrer: &str,
) -> Result<Config, LocalError> {
    let bytes = graph::manifest(store, config, referrer)?;
    Config::read(&bytes, config.digest.as_str())
}

/// The configuration of an image manifest; whatever is wrong with it is found when it is read.
fn config_of(store: &dyn Store, root: &Descriptor) -> Option<Digest> {
    let bytes = graph::manifest(store, root, "index.json").ok()?;
    match Document::read(&bytes, root.digest.as_str(), &root.media_type).ok()?.content {
        Content::Image { config, .. } => Some(config.digest),
        Content::Index(_) => None,
    }
}
