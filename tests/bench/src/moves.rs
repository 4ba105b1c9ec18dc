//! Tag moves each second when many releases with several floating tags come at once, with one
//! worker and with two, divided by the raw PUTs each second of the same registry.

use std::time::Instant;

use anyhow::Result;
use colophon_testkit::image::ImageSpec;
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use crate::{raw, rig::Rig, table::Table};

/// Requests that are sent at the same time, and raw PUTs: as many as one worker's jobs.
const AT_ONCE: usize = 16;

pub(crate) async fn measure(
    rig: &mut Rig,
    releases: usize,
    tags: usize,
    table: &mut Table,
) -> Result<()> {
    let mut manifests = Vec::new();
    for build in 0..4 {
        let tag = format!("build-{build}");
        rig.push(ImageSpec::tiny(format!("moves {build}")), "moves", &tag).await?;
        manifests.push(raw::manifest(rig, "moves", &tag).await?);
    }
    // Each tag exists before it is measured, on both sides: what is measured are moves.
    let total = releases * tags;
    round(rig, "build-0", releases, tags).await?;
    for (workers, build) in [(1, 1), (2, 2)] {
        if workers == 2 {
            rig.add_daemon("work").await?;
            // Long enough a load for the second one to have started and warmed up.
            round(rig, "build-0", releases, tags).await?;
        }
        let mut limits = Vec::new();
        limits.push(puts(rig, &manifests, total).await?);
        let own = round(rig, &format!("build-{build}"), releases, tags).await?;
        limits.push(puts(rig, &manifests, total).await?);
        // One before and one after, so that a change of the machine's load meets both.
        let limit = limits.iter().sum::<f64>() / 2.0;
        table.row(
            &format!("tag moves/s, {workers} worker(s), {tags} tags a release"),
            &format!("{own:.0}"),
            &format!("raw PUTs/s {limit:.0}"),
            &format!("{:.2}", own / limit),
            ">= 0.25",
        );
    }
    Ok(())
}

/// Raw moves: the tags are there, at another digest, when the measured PUTs come.
async fn puts(rig: &Rig, manifests: &[Vec<u8>], total: usize) -> Result<f64> {
    let mut last = 0.0;
    for manifest in manifests.iter().take(2) {
        last = raw::puts(rig, "moves", manifest, total, AT_ONCE).await?;
    }
    Ok(last)
}

/// Moves every tag to the digest of `build`; from the first request to the last SUCCEEDED.
async fn round(rig: &Rig, build: &str, releases: usize, tags: usize) -> Result<f64> {
    let host = rig.source.host();
    let host = host.as_str();
    let publish = async |release: usize| {
        let floating: Vec<String> = (0..tags).map(|tag| format!("r{release}-{tag}")).collect();
        let request = json!({
            "source": format!("{host}/moves:{build}"),
            "targets": [{ "repository": format!("{host}/moves"), "floatingTags": floating }],
        });
        rig.release(&request).await
    };
    let since = Instant::now();
    let mut sent = stream::iter(0..releases).map(publish).buffer_unordered(AT_ONCE);
    while let Some(accepted) = sent.next().await {
        accepted?;
    }
    rig.all_succeeded().await?;
    #[expect(clippy::cast_precision_loss, reason = "far fewer tags than 2^52")]
    Ok((releases * tags) as f64 / since.elapsed().as_secs_f64())
}
