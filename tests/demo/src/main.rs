//! `make demo`: starts PostgreSQL, three registries, OpenBao and Colophon, publishes two builds of
//! an image with the commands that a user would type, shows what the ledger recorded, and asks
//! `skopeo` whether every registry serves what Colophon says. Fails if a single digest differs.

mod config;
mod parts;
mod story;
mod terminal;

use std::{process::ExitCode, time::Instant};

use anyhow::{Result, bail};

use crate::{parts::Parts, terminal::Terminal};

#[tokio::main]
async fn main() -> ExitCode {
    let terminal = Terminal::new();
    let result = tokio::select! {
        result = run(&terminal) => result,
        // The parts are stopped when `run` is dropped.
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal.failed(&format!("the demo failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(terminal: &Terminal) -> Result<()> {
    let since = Instant::now();
    terminal.heading("The parts");
    let parts = Parts::start(terminal).await?;
    let told = story::tell(terminal, &parts).await;
    if told.is_err() {
        terminal.note(&format!("Colophon's log:\n{}", parts.log()));
    }
    let stopped = parts.stop().await;
    let digests = told?;
    stopped?;
    terminal.heading("Summary");
    let mut wrong = 0;
    for line in digests {
        wrong += usize::from(!line.is_right());
        terminal.verdict(line.is_right(), &line.to_string());
    }
    terminal
        .note(&format!("All parts are stopped; this took {:.1} s.", since.elapsed().as_secs_f64()));
    if wrong > 0 {
        bail!("{wrong} tags are not where Colophon says they are");
    }
    Ok(())
}
