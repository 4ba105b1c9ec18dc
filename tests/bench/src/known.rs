//! A big image whose blobs the target's registry has in another repository, brought there before
//! from another registry; and a release that finds everything in its place.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::{copy, raw, rig::Rig, stats::Sample, table::Table};

const LOOK: Duration = Duration::from_millis(1);

pub(crate) async fn measure(
    rig: &mut Rig,
    count: usize,
    layer_mb: u64,
    table: &mut Table,
) -> Result<()> {
    copy::push(rig, layer_mb).await?;
    let (other, target) = (rig.fresh.pop(), rig.fresh.pop());
    let (other, target) = other.zip(target).context("no fresh registry is left")?;
    let manifest = raw::manifest(rig, "copy", "big").await?;
    raw::copy(rig, &other.url(), "copy", &manifest).await?;
    let publish = async |source: String, repository: String| {
        let request = json!({
            "source": source,
            "targets": [{
                "repository": format!("{}/{repository}", target.host()), "uniqueTags": ["big"],
            }],
        });
        let since = Instant::now();
        let id = rig.release(&request).await?;
        rig.succeeded(&id, LOOK).await?;
        anyhow::Ok((since.elapsed(), rig.copied(&id).await?))
    };
    let first = format!("{}/copy:big", rig.source.host());
    let (_, copied) = publish(first.clone(), "team/first".to_owned()).await?;
    ensure!(copied > 0, "the first copy moved nothing");
    let (mut mounted, mut idle) = (Vec::new(), Vec::new());
    for number in 0..=count {
        let second = format!("{}/copy:raw", other.host());
        let repository = format!("team/app-{number}");
        let (took, copied) = publish(second.clone(), repository.clone()).await?;
        ensure!(copied == 0, "{copied} bytes moved although they were there");
        let (again, _) = publish(second, repository).await?;
        if number > 0 {
            mounted.push(took);
            idle.push(again);
        }
    }
    let mb = layer_mb * copy::LAYERS as u64;
    let (mounted, idle) = (Sample::new(mounted).in_ms(), Sample::new(idle).in_ms());
    let what = format!("{mb} MB that another repository has, p50 / p95 of {count}");
    table.row(&what, &mounted, "", "", "p50 <= 60 ms");
    table.row("a release with nothing to do, p50 / p95", &idle, "", "", "");
    Ok(())
}
