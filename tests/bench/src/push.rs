//! An image in archives of this machine into an empty registry: by `colophon push`, by `skopeo copy`
//! of the same archive, and by `docker push` where an engine can be started; taking turns.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use colophon_testkit::{
    image::ImageSpec,
    launcher::{Registry, RegistryOptions},
};

use crate::{
    docker::Engine,
    rig::Rig,
    stats::Sample,
    table::{self, Table},
    tools,
};

const LAYERS: usize = 4;
/// Transport and file, as `skopeo` and `colophon push` both name them.
const KINDS: [&str; 2] = ["docker-archive", "oci-archive"];

pub(crate) async fn measure(
    rig: &mut Rig,
    pairs: usize,
    layer_mb: u64,
    table: &mut Table,
) -> Result<()> {
    let mut spec = ImageSpec::tiny("push");
    for _ in 0..LAYERS {
        spec = spec.layer(layer_mb * 1_000_000);
    }
    let image = spec.build().await?;
    let folder = tempfile::tempdir()?;
    let mut sources = Vec::new();
    for kind in KINDS {
        let file = folder.path().join(kind);
        let from = format!("oci:{}:image", image.layout().display());
        tools::skopeo_local(&from, &format!("{kind}:{}:bench/push:1", file.display())).await?;
        sources.push((kind, file));
    }
    let engine = engine(&sources).await;
    rig.forget_peaks()?;
    let before = rig.peaks()?;
    let mb = layer_mb * LAYERS as u64;
    let mut measured = Ok(());
    for (kind, file) in &sources {
        let what = format!("push {mb} MB in {LAYERS} layers from a {kind}, median of {pairs}");
        measured = turns(rig, (kind, file), engine.as_ref(), (pairs, &what), table).await;
        if measured.is_err() {
            break;
        }
    }
    if let Some(engine) = engine {
        engine.stop().await?;
    }
    measured?;
    for ((name, peak), (_, before)) in rig.peaks()?.iter().zip(&before) {
        let own = format!("{peak:.1} MiB, {before:.1} before");
        table.row(&format!("peak memory of {name}, pushes"), &own, "", "", "<= 64 MiB");
    }
    Ok(())
}

async fn turns(
    rig: &mut Rig,
    (kind, file): (&str, &Path),
    engine: Option<&Engine>,
    (pairs, what): (usize, &str),
    table: &mut Table,
) -> Result<()> {
    let (mut own, mut skopeos, mut dockers) = (vec![], vec![], vec![]);
    // The first turn warms the page cache and does not count.
    for turn in 0..=pairs {
        let target = rig.fresh.pop().context("no fresh registry is left")?;
        let times = [
            Some(colophon(rig, kind, file, &target).await?),
            Some(skopeo(kind, file).await?),
            match engine {
                Some(engine) => Some(docker(engine).await?),
                None => None,
            },
        ];
        if turn > 0 {
            for (list, time) in [&mut own, &mut skopeos, &mut dockers].into_iter().zip(times) {
                list.extend(time);
            }
        }
    }
    let own = Sample::new(own);
    table.beside(what, &own, &format!("skopeo copy {kind}:"), skopeos, "<= 1.0");
    table.beside(what, &own, "docker push", dockers, "<= 1.0");
    Ok(())
}

/// A Docker engine that has the image, where one can be started.
async fn engine(sources: &[(&str, PathBuf)]) -> Option<Engine> {
    let (_, archive) = sources.first()?;
    let started = async {
        let engine = Engine::start().await?;
        engine.run(&["load", "--input", &archive.display().to_string()]).await?;
        anyhow::Ok(engine)
    };
    match started.await {
        Ok(engine) => Some(engine),
        Err(error) => {
            table::say(&format!("without docker push: {error:#}"));
            None
        }
    }
}

async fn colophon(rig: &Rig, kind: &str, file: &Path, target: &Registry) -> Result<Duration> {
    let source = format!("{kind}:{}", file.display());
    let repository = format!("{}/push", target.host());
    rig.colophon(&["push", &source, "--to", &repository, "--tag", "1"]).await
}

async fn skopeo(kind: &str, file: &Path) -> Result<Duration> {
    let target = Registry::start(RegistryOptions::default()).await?;
    let from = format!("{kind}:{}", file.display());
    tools::skopeo_local(&from, &format!("docker://{}/push:1", target.host())).await
}

async fn docker(engine: &Engine) -> Result<Duration> {
    let target = Registry::start(RegistryOptions::default()).await?;
    let name = format!("{}/push:1", target.host());
    engine.run(&["tag", "bench/push:1", &name]).await?;
    engine.run(&["push", "--quiet", &name]).await
}
