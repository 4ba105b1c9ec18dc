//! A big incompressible image from one registry into an empty one, by Colophon, by `skopeo`
//! without its cache, by `crane` where it is installed, and by plain requests; taking turns.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use colophon_testkit::{
    image::ImageSpec,
    launcher::{Registry, RegistryOptions},
};
use serde_json::json;

use crate::{raw, rig::Rig, stats::Sample, table::Table, tools};

pub(crate) const LAYERS: usize = 8;
const LOOK: Duration = Duration::from_millis(5);

/// Pushes the image to the source, unless it is there.
pub(crate) async fn push(rig: &mut Rig, layer_mb: u64) -> Result<()> {
    if !rig.big {
        let mut spec = ImageSpec::tiny("copy");
        for _ in 0..LAYERS {
            spec = spec.layer(layer_mb * 1_000_000);
        }
        rig.push(spec, "copy", "big").await?;
        rig.big = true;
    }
    Ok(())
}

pub(crate) async fn measure(
    rig: &mut Rig,
    pairs: usize,
    layer_mb: u64,
    table: &mut Table,
) -> Result<()> {
    push(rig, layer_mb).await?;
    let manifest = raw::manifest(rig, "copy", "big").await?;
    let (mut own, mut skopeos, mut cranes, mut limits) = (vec![], vec![], vec![], vec![]);
    // The first turn of each warms the source's page cache and does not count.
    for turn in 0..=pairs {
        let target = rig.fresh.pop().context("no fresh registry is left")?;
        let times = [
            Some(colophon(rig, &target).await?),
            Some(skopeo(rig).await?),
            if tools::has_crane() { Some(crane(rig).await?) } else { None },
            Some(plain(rig, &manifest).await?),
        ];
        drop(target);
        if turn > 0 {
            let lists = [&mut own, &mut skopeos, &mut cranes, &mut limits];
            for (list, time) in lists.into_iter().zip(times) {
                list.extend(time);
            }
        }
    }
    let mb = layer_mb * LAYERS as u64;
    let what = format!("copy {mb} MB in {LAYERS} layers, median of {pairs}");
    let own = Sample::new(own);
    table.beside(&what, &own, "skopeo copy", skopeos, "<= 0.5");
    table.beside(&what, &own, "crane copy", cranes, "<= 1.0");
    table.beside(&what, &own, "plain GET | PUT", limits, "");
    Ok(())
}

async fn colophon(rig: &Rig, target: &Registry) -> Result<Duration> {
    let request = json!({
        "source": format!("{}/copy:big", rig.source.host()),
        "targets": [{ "repository": format!("{}/copy", target.host()), "uniqueTags": ["big"] }],
    });
    let since = Instant::now();
    let id = rig.release(&request).await?;
    rig.succeeded(&id, LOOK).await?;
    Ok(since.elapsed())
}

async fn skopeo(rig: &Rig) -> Result<Duration> {
    let target = Registry::start(RegistryOptions::default()).await?;
    let home = tempfile::tempdir()?;
    let (from, to) = (rig.source.host(), target.host());
    tools::skopeo(&format!("{from}/copy:big"), &format!("{to}/copy:big"), home.path()).await
}

async fn crane(rig: &Rig) -> Result<Duration> {
    let target = Registry::start(RegistryOptions::default()).await?;
    let (from, to) = (rig.source.host(), target.host());
    tools::crane(&format!("{from}/copy:big"), &format!("{to}/copy:big")).await
}

async fn plain(rig: &Rig, manifest: &[u8]) -> Result<Duration> {
    let target = Registry::start(RegistryOptions::default()).await?;
    raw::copy(rig, &target.url(), "copy", manifest).await
}
