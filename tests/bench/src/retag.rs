//! One retag after the other on an idle service: from sending the request until a look shows
//! SUCCEEDED. Beside it stand what the registry and the database alone need for the same.

use std::time::{Duration, Instant};

use anyhow::Result;
use colophon_testkit::image::ImageSpec;
use serde_json::json;

use crate::{raw, rig::Rig, stats::Sample, table::Table};

/// How often the release is looked at.
const LOOK: Duration = Duration::from_millis(1);
/// Retags before the measurement, which warm caches and pools.
const WARM_UP: usize = 20;

pub(crate) async fn measure(rig: &Rig, count: usize, table: &mut Table) -> Result<()> {
    let host = rig.source.host();
    for build in 0..2 {
        rig.push(ImageSpec::tiny(format!("retag {build}")), "retag", &format!("build-{build}"))
            .await?;
    }
    let limit = raw::retag(rig, "retag", count).await?;
    let commits = raw::commits(&rig.pool, count).await?;
    for (name, unique) in [("one floating tag", false), ("unique and floating tag", true)] {
        let mut durations = Vec::with_capacity(count);
        for number in 0..WARM_UP + count {
            let unique_tags = if unique { vec![format!("1.0.{number}")] } else { Vec::new() };
            let request = json!({
                "source": format!("{host}/retag:build-{}", number % 2),
                "targets": [{
                    "repository": format!("{host}/retag"),
                    "uniqueTags": unique_tags, "floatingTags": ["latest"],
                }],
            });
            let since = Instant::now();
            let id = rig.release(&request).await?;
            rig.succeeded(&id, LOOK).await?;
            if number >= WARM_UP {
                durations.push(since.elapsed());
            }
        }
        let sample = Sample::new(durations);
        let ratio = sample.median().as_secs_f64() / limit.median().as_secs_f64();
        table.row(
            &format!("retag to SUCCEEDED, {name}, p50 / p95"),
            &sample.in_ms(),
            &format!("HEAD HEAD GET PUT HEAD {}", limit.in_ms()),
            &format!("{ratio:.1}"),
            if unique { "" } else { "p50 <= 25 ms" },
        );
    }
    table.row("one commit (fsync on), p50 / p95", "", &commits.in_ms(), "", "");
    Ok(())
}
