//! Tag moves each second when many releases with several floating tags come at once, with one
//! worker and with two, divided by the raw PUTs each second of the same registry.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use colophon_testkit::image::ImageSpec;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::{raw, rig::Rig, table::Table};

/// Requests that are sent at the same time, and raw PUTs: as many as one worker's jobs.
const AT_ONCE: usize = 16;
const REPOSITORY: &str = "moves";

pub(crate) async fn measure(
    rig: &mut Rig,
    releases: usize,
    tags: usize,
    rounds: usize,
    table: &mut Table,
) -> Result<()> {
    rig.push(ImageSpec::tiny("moves"), REPOSITORY, "base").await?;
    let base = raw::manifest(rig, REPOSITORY, "base").await?;
    // Two builds of as many images as there are releases: the tags exist before they are moved.
    let builds = [images(&base, "old", releases)?, images(&base, "new", releases)?];
    for (build, images) in builds.iter().enumerate() {
        raw::put_each(rig, REPOSITORY, images, |image| format!("build-{build}-{image}"), AT_ONCE)
            .await?;
    }
    for workers in [1, 2] {
        if workers == 2 {
            rig.add_daemon("work").await?;
        }
        // The first round also gives a second worker the time to start.
        round(rig, 0, releases, tags).await?;
        let mut taken = Vec::with_capacity(rounds);
        let mut before = puts(rig, &builds, tags).await?;
        for number in 0..rounds {
            let newest = rig.newest_job().await?;
            let own = round(rig, (number + 1) % 2, releases, tags).await?;
            let active = rig.workers_since(newest).await?;
            ensure!(active == workers, "{active} of {workers} workers took part");
            // Raw ones before and after, so that a change of the machine's load meets both.
            let after = puts(rig, &builds, tags).await?;
            taken.push(Round { own, limit: f64::midpoint(before, after) });
            before = after;
        }
        taken.sort_by(|one, other| one.ratio().total_cmp(&other.ratio()));
        table.row(
            &format!("tag moves/s, {workers} worker(s), {tags} tags a release"),
            &listed(&taken, |round| format!("{:.0}", round.own)),
            &format!("raw PUTs/s {}", listed(&taken, |round| format!("{:.0}", round.limit))),
            &listed(&taken, |round| format!("{:.2}", round.ratio())),
            "median ratio >= 0.25",
        );
    }
    Ok(())
}

/// One measurement beside its limit.
struct Round {
    own: f64,
    limit: f64,
}

impl Round {
    fn ratio(&self) -> f64 {
        self.own / self.limit
    }
}

/// All rounds, the one with the worst ratio first: a median alone would hide how far they differ.
fn listed(rounds: &[Round], show: impl Fn(&Round) -> String) -> String {
    rounds.iter().map(show).collect::<Vec<_>>().join(" ")
}

/// Images that differ in nothing but an annotation.
fn images(base: &[u8], build: &str, count: usize) -> Result<Vec<Vec<u8>>> {
    let mut manifest: Value = serde_json::from_slice(base)?;
    let fields = manifest.as_object_mut().context("a manifest is an object")?;
    let mut images = Vec::with_capacity(count);
    for number in 0..count {
        fields.insert("annotations".to_owned(), json!({ "build": format!("{build} {number}") }));
        images.push(serde_json::to_vec(&fields)?);
    }
    Ok(images)
}

/// Raw moves: as many tags on as many images, at another digest before.
async fn puts(rig: &Rig, builds: &[Vec<Vec<u8>>], tags: usize) -> Result<f64> {
    let mut last = 0.0;
    for images in builds {
        let all: Vec<Vec<u8>> =
            images.iter().flat_map(|image| std::iter::repeat_n(image.clone(), tags)).collect();
        last = raw::put_each(rig, REPOSITORY, &all, |tag| format!("raw-{tag}"), AT_ONCE).await?;
    }
    Ok(last)
}

/// Moves every tag to its image of `build`; from the first request to the last SUCCEEDED.
async fn round(rig: &Rig, build: usize, releases: usize, tags: usize) -> Result<f64> {
    let repository = format!("{}/{REPOSITORY}", rig.source.host());
    let repository = repository.as_str();
    let publish = async |release: usize| {
        let floating: Vec<String> = (0..tags).map(|tag| format!("r{release}-{tag}")).collect();
        let request = json!({
            "source": format!("{repository}:build-{build}-{release}"),
            "targets": [{ "repository": repository, "floatingTags": floating }],
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
