//! Many images of many small layers, half of which all of them share, into an empty registry: by
//! releases that are sent together, and by `skopeo` and `crane` in a loop.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use colophon_domain::{Entropy as _, SystemEntropy};
use colophon_testkit::{
    launcher::{Registry, RegistryOptions},
    peer::Peer,
};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::{rig::Rig, stats::Sample, table::Table, tools};

const IMAGES: usize = 100;
/// As many shared by all, and as many of its own in each.
const HALF: usize = 10;
const LAYER_BYTES: usize = 20_000;
/// Requests that are sent at the same time.
const AT_ONCE: usize = 16;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub(crate) async fn measure(rig: &mut Rig, pairs: usize, table: &mut Table) -> Result<()> {
    let source = Peer::of(&rig.source)?;
    let shared = blobs(&source, HALF).await?;
    for image in 0..IMAGES {
        let own = blobs(&source, HALF + 1).await?;
        let (config, own) = own.split_first().context("an image has a configuration")?;
        let layers: Vec<&Value> = shared.iter().chain(own).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        let bytes = manifest.to_string().into_bytes();
        source.put_manifest("many", &format!("i{image}"), MANIFEST, &bytes).await?;
    }
    let (mut own, mut skopeos, mut cranes) = (vec![], vec![], vec![]);
    for _ in 0..pairs {
        let target = rig.fresh.pop().context("no fresh registry is left")?;
        own.push(colophon(rig, &target).await?);
        let home = tempfile::tempdir()?;
        let target = Registry::start(RegistryOptions::default()).await?;
        let mut took = Duration::ZERO;
        for image in 0..IMAGES {
            let (from, to) = names(rig, &target, image);
            took += tools::skopeo(&from, &to, home.path()).await?;
        }
        skopeos.push(took);
        if tools::has_crane() {
            let target = Registry::start(RegistryOptions::default()).await?;
            let mut took = Duration::ZERO;
            for image in 0..IMAGES {
                let (from, to) = names(rig, &target, image);
                took += tools::crane(&from, &to).await?;
            }
            cranes.push(took);
        }
    }
    let layers = 2 * HALF;
    let what = format!("{IMAGES} images of {layers} layers, half shared, median of {pairs}");
    let own = Sample::new(own);
    table.beside(&what, &own, "skopeo copy in a loop", skopeos, "<= 0.5");
    table.beside(&what, &own, "crane copy in a loop", cranes, "<= 0.5");
    Ok(())
}

/// So many new blobs, as descriptors of layers.
async fn blobs(source: &Peer, count: usize) -> Result<Vec<Value>> {
    let mut made = Vec::with_capacity(count);
    for _ in 0..count {
        let salt = SystemEntropy.salt();
        let bytes: Vec<u8> = salt.iter().copied().cycle().take(LAYER_BYTES).collect();
        let digest = source.put_blob("many", &bytes).await?;
        let kind = "application/vnd.oci.image.layer.v1.tar";
        made.push(json!({ "mediaType": kind, "digest": digest, "size": LAYER_BYTES }));
    }
    Ok(made)
}

fn names(rig: &Rig, target: &Registry, image: usize) -> (String, String) {
    (format!("{}/many:i{image}", rig.source.host()), format!("{}/many:i{image}", target.host()))
}

async fn colophon(rig: &Rig, target: &Registry) -> Result<Duration> {
    let publish = async |image: usize| {
        let tag = format!("i{image}");
        let request = json!({
            "source": format!("{}/many:{tag}", rig.source.host()),
            "targets": [{ "repository": format!("{}/many", target.host()), "uniqueTags": [tag] }],
        });
        rig.release(&request).await
    };
    let since = Instant::now();
    let mut sent = stream::iter(0..IMAGES).map(publish).buffer_unordered(AT_ONCE);
    while let Some(accepted) = sent.next().await {
        accepted?;
    }
    rig.all_succeeded().await?;
    Ok(since.elapsed())
}
