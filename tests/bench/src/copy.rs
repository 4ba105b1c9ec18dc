//! A big incompressible image from one registry into an empty one, by Colophon, by `skopeo`
//! without its cache, by `crane` where it is installed, and by plain requests; taking turns.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use colophon_testkit::{
    image::ImageSpec,
    launcher::{Registry, RegistryOptions, tool},
};
use serde_json::json;
use tokio::process::Command;

use crate::{raw, rig::Rig, stats::Sample, table::Table};

const LAYERS: usize = 8;
const LOOK: Duration = Duration::from_millis(10);

pub(crate) async fn measure(
    rig: &mut Rig,
    pairs: usize,
    layer_mb: u64,
    table: &mut Table,
) -> Result<()> {
    let mut spec = ImageSpec::tiny("copy");
    for _ in 0..LAYERS {
        spec = spec.layer(layer_mb * 1_000_000);
    }
    rig.push(spec, "copy", "big").await?;
    let manifest = raw::manifest(rig, "copy", "big").await?;
    let crane = tool::find("crane", "").is_ok();
    let (mut own, mut skopeos, mut cranes, mut limits) = (vec![], vec![], vec![], vec![]);
    // The first turn of each warms the source's page cache and does not count.
    for turn in 0..=pairs {
        let target = rig.fresh.pop().context("no fresh registry is left")?;
        let times = [
            Some(colophon(rig, &target).await?),
            Some(skopeo(rig).await?),
            if crane { Some(crane_copy(rig).await?) } else { None },
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
    let own = Sample::new(own).median().as_secs_f64();
    let mb = layer_mb * LAYERS as u64;
    let tools = [
        ("skopeo copy", skopeos, "<= 1.0"),
        ("crane copy", cranes, "<= 1.0"),
        ("plain GET | PUT", limits, ""),
    ];
    for (name, times, to_reach) in tools {
        if times.is_empty() {
            continue;
        }
        let peer = Sample::new(times).median().as_secs_f64();
        table.row(
            &format!("copy {mb} MB in {LAYERS} layers, median of {pairs}"),
            &format!("{own:.2} s"),
            &format!("{name} {peer:.2} s"),
            &format!("{:.2}", own / peer),
            to_reach,
        );
    }
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
    let mut command = Command::new(tool::find("skopeo", "apt-get install -y skopeo")?);
    // The two variables move its cache of blobs' locations from the user's into an empty folder.
    command
        .env("XDG_DATA_HOME", home.path())
        .env("_CONTAINERS_ROOTLESS_UID", "1000")
        .args(["--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests"])
        .args(["--src-tls-verify=false", "--dest-tls-verify=false"])
        .arg(format!("docker://{}/copy:big", rig.source.host()))
        .arg(format!("docker://{}/copy:big", target.host()));
    run(command).await
}

async fn crane_copy(rig: &Rig) -> Result<Duration> {
    let target = Registry::start(RegistryOptions::default()).await?;
    let mut command = Command::new(tool::find("crane", "")?);
    command
        .args(["copy", "--insecure"])
        .arg(format!("{}/copy:big", rig.source.host()))
        .arg(format!("{}/copy:big", target.host()));
    run(command).await
}

async fn plain(rig: &Rig, manifest: &[u8]) -> Result<Duration> {
    let target = Registry::start(RegistryOptions::default()).await?;
    raw::copy(rig, &target.url(), "copy", manifest).await
}

async fn run(mut command: Command) -> Result<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let since = Instant::now();
    let output = command.output().await?;
    let took = since.elapsed();
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(took)
}
