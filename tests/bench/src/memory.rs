//! The peak of a process's memory while it copies one endless layer, and many images at once,
//! between registries that keep nothing.

use std::time::{Duration, Instant};

use anyhow::Result;
use colophon_testkit::endless::Endless;
use serde_json::json;

use crate::{
    rig::{Rig, RigOptions},
    table::Table,
};

const AT_ONCE: usize = 64;
const LOOK: Duration = Duration::from_millis(100);

pub(crate) async fn measure(giant_gb: u64, log: &str, table: &mut Table) -> Result<()> {
    let (source, target) = (Endless::start().await?, Endless::start().await?);
    source.publish("giant", "1", "giant", &[giant_gb * 1_000_000_000]).await?;
    for image in 0..AT_ONCE {
        let (name, seed) = (format!("many-{image}"), format!("image {image}"));
        source.publish(&name, "1", &seed, &[8_000_000; 4]).await?;
    }
    let rig = Rig::start(RigOptions {
        hosts: vec![source.host(), target.host()],
        worker: format!("concurrency = {AT_ONCE}"),
        log: log.to_owned(),
        ..RigOptions::default()
    })
    .await?;
    let publish = async |name: String| {
        rig.release(&json!({
            "source": format!("{}/{name}:1", source.host()),
            "targets": [{
                "repository": format!("{}/{name}", target.host()), "uniqueTags": ["1"],
            }],
        }))
        .await
    };
    let before = rig.peaks()?;
    let since = Instant::now();
    let id = publish("giant".to_owned()).await?;
    rig.succeeded(&id, LOOK).await?;
    let took = since.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "some gigabytes")]
    let speed = (giant_gb * 1_000) as f64 / took;
    let at = format!("{speed:.0} MB/s");
    row(&rig, table, &format!("peak memory, one layer of {giant_gb} GB"), &at, &before)?;
    rig.forget_peaks()?;
    let before = rig.peaks()?;
    for image in 0..AT_ONCE {
        publish(format!("many-{image}")).await?;
    }
    rig.all_succeeded().await?;
    let connections = target.peak_connections();
    let at = format!("{connections} connections to the target at most");
    row(&rig, table, &format!("peak memory, {AT_ONCE} copies at once"), &at, &before)?;
    rig.stop().await
}

fn row(
    rig: &Rig,
    table: &mut Table,
    what: &str,
    beside: &str,
    before: &[(String, f64)],
) -> Result<()> {
    for ((_, peak), (_, before)) in rig.peaks()?.iter().zip(before) {
        let own = format!("{peak:.1} MiB, {before:.1} before");
        table.row(what, &own, beside, "", "<= 64 MiB");
    }
    Ok(())
}
