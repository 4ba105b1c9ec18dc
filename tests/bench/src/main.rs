//! `make bench`: what Colophon costs, beside peers and raw limits measured in the same run on the
//! same parts. Prints one table; ratios survive a change of machine, absolute figures do not.

mod copy;
mod docker;
mod known;
mod many;
mod memory;
mod moves;
mod push;
mod raw;
mod retag;
mod rig;
mod stats;
mod table;
mod tools;

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};

use crate::{
    rig::{Rig, RigOptions},
    table::Table,
};

/// Measures Colophon beside peers.
#[derive(Parser)]
struct Args {
    /// What to measure; everything if nothing is named
    what: Vec<What>,
    /// Retags one after the other
    #[arg(long, default_value_t = 200)]
    retags: usize,
    /// Releases that move tags at the same time
    #[arg(long, default_value_t = 150)]
    releases: usize,
    /// Floating tags of each of them
    #[arg(long, default_value_t = 8)]
    tags: usize,
    /// Measurements of tag moves with each number of workers
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Copies by each tool, taking turns
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Megabytes of one of the 8 layers that are copied
    #[arg(long, default_value_t = 100)]
    layer_mb: u64,
    /// Releases of an image whose blobs are known elsewhere, and with nothing to do
    #[arg(long, default_value_t = 20)]
    repeats: usize,
    /// Gigabytes of the one layer with which memory is measured
    #[arg(long, default_value_t = 10)]
    giant_gb: u64,
    /// Also print which statements PostgreSQL ran, how often and for how long
    #[arg(long)]
    statements: bool,
    /// Send every trace and metric to a collector, which runs within the bench
    #[arg(long)]
    traced: bool,
    /// A log filter for colophond
    #[arg(long, default_value = "warn")]
    log: String,
}

/// One of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum What {
    /// From the request to SUCCEEDED, on an idle service
    Retag,
    /// Tag moves each second beside raw PUTs
    Moves,
    /// A big image beside skopeo and crane
    Copy,
    /// A hundred small images beside skopeo and crane in a loop
    Many,
    /// A big image that another repository has already, and a release with nothing to do
    Known,
    /// Peak memory for one endless layer and for many copies at once
    Memory,
    /// Archives of this machine beside skopeo, and beside docker push where an engine can be started
    Push,
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = tokio::select! {
        result = run(Args::parse()) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            table::complain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let mut what: BTreeSet<What> = args.what.iter().copied().collect();
    if what.is_empty() {
        what = What::value_variants().iter().copied().collect();
    }
    let fresh = |one, count| if what.contains(&one) { count } else { 0 };
    let mut rig = Rig::start(RigOptions {
        fresh: fresh(What::Copy, args.pairs + 1)
            + fresh(What::Many, args.pairs)
            + fresh(What::Known, 2)
            + fresh(What::Push, 2 * (args.pairs + 1)),
        statements: args.statements,
        traced: args.traced,
        log: args.log.clone(),
        ..RigOptions::default()
    })
    .await?;
    let mut table = Table::default();
    table::say(&circumstances()?);
    for one in what {
        let measured = match one {
            What::Retag => retag::measure(&rig, args.retags, &mut table).await,
            What::Moves => {
                let Args { releases, tags, rounds, .. } = args;
                moves::measure(&mut rig, releases, tags, rounds, &mut table).await
            }
            What::Copy => copy::measure(&mut rig, args.pairs, args.layer_mb, &mut table).await,
            What::Many => many::measure(&mut rig, args.pairs, &mut table).await,
            What::Known => known::measure(&mut rig, args.repeats, args.layer_mb, &mut table).await,
            What::Memory => memory::measure(args.giant_gb, &args.log, &mut table).await,
            What::Push => push::measure(&mut rig, args.pairs, args.layer_mb, &mut table).await,
        };
        measured.with_context(|| format!("measuring {one:?}; colophond's log:\n{}", rig.log()))?;
        if args.statements {
            table::say(&rig.statements(&format!("{one:?}")).await?);
        }
    }
    for (name, peak) in rig.peaks()? {
        table.row(&format!("peak memory, {name}"), &format!("{peak:.1} MiB"), "", "", "<= 96 MiB");
    }
    table::say(&circumstances()?);
    table::say(&table.to_string());
    rig.stop().await
}

/// What else the machine does: figures taken beside a build are not those of a quiet machine.
fn circumstances() -> Result<String> {
    let load = std::fs::read_to_string("/proc/loadavg").context("reading the machine's load")?;
    let load: Vec<&str> = load.split(' ').take(3).collect();
    let cpus = std::thread::available_parallelism()?;
    Ok(format!("{cpus} CPUs, load averages {}", load.join(" ")))
}
