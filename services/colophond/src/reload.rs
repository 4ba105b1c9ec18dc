//! Reading the configuration again while the process runs: on SIGHUP, and, where the configuration
//! says so, when the file has changed. A bad file changes nothing.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, FIXED_SECTIONS},
    live::{Fresh, Live},
    with_key,
};

/// The file, what was read of it, and what it is read for.
pub(crate) struct Reload {
    path: PathBuf,
    live: Live,
    hang_up: Signal,
    /// How often the file is looked at; never without it.
    interval: Option<Duration>,
    /// The text that is in use, or that was refused last.
    seen: String,
    /// The text that the process was started with: some of it holds until its end.
    started: String,
}

impl Reload {
    /// `text` is what the process was started with. From now on SIGHUP does not end the process.
    pub(crate) fn new(
        path: PathBuf,
        live: Live,
        interval: Option<Duration>,
        text: String,
    ) -> Result<Self> {
        let hang_up = signal(SignalKind::hangup())?;
        Ok(Self { path, live, hang_up, interval, seen: text.clone(), started: text })
    }

    /// Reloads until the process stops.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut changed: Option<String> = None;
        loop {
            let look = async {
                match self.interval {
                    Some(interval) => tokio::time::sleep(interval).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = self.hang_up.recv() => self.reload().await,
                () = look => {
                    let Ok(now) = tokio::fs::read_to_string(&self.path).await else { continue };
                    // Twice the same: nobody is in the middle of writing it.
                    if now != self.seen && changed.as_ref() == Some(&now) {
                        self.reload().await;
                    }
                    changed = Some(now);
                }
            }
        }
    }

    async fn reload(&mut self) {
        let path = self.path.display().to_string();
        match self.try_reload().await {
            Ok((registries, callers)) => {
                tracing::info!(%path, registries, callers, "the configuration was reloaded");
                for section in Config::changed(&self.started, &self.seen, FIXED_SECTIONS) {
                    tracing::warn!(
                        %path, section,
                        "this section has changed and holds from the next start on"
                    );
                }
            }
            Err(error) => {
                let error = format!("{:#}", with_key(error));
                tracing::error!(
                    %path, %error, "the configuration was not reloaded; the one before holds on"
                );
            }
        }
    }

    /// Puts what the file says into use; how many registries and callers there are.
    async fn try_reload(&mut self) -> Result<(usize, usize)> {
        let text = Config::text(&self.path)?;
        text.clone_into(&mut self.seen);
        let mut config = Config::parse(&text)?;
        let counts = (config.registries.len(), config.callers.len());
        let before = self.live.engine.registries();
        // Certificates are read from files here, which may take a moment.
        let fresh = tokio::task::spawn_blocking(move || {
            Fresh::build(&mut config, |configs, credentials| before.replaced(configs, credentials))
        });
        self.live.replace(fresh.await??);
        Ok(counts)
    }
}
