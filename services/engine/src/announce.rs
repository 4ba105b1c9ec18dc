//! Telling other processes that there is work. Hints are coalesced: however many releases are
//! accepted at once, one hint is enough.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::Engine;

/// The least time between two hints.
const PAUSE: Duration = Duration::from_millis(20);

impl Engine {
    /// Announces work until it is told to stop. A process that accepts releases runs this once.
    pub async fn announce(&self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = self.unannounced.notified() => {}
                () = shutdown.cancelled() => return,
            }
            if let Err(failure) = self.store.announce_jobs().await {
                // Workers poll as well, so this costs time and nothing else.
                tracing::warn!(%failure, "other processes were not told of new jobs");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
