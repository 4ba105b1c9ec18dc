//! Letting go of what is old: the jobs of releases that ended long ago with their attempts, idempotency
//! keys, and where blobs were seen. Releases with their tags stay, and so does the ledger.

use std::time::Duration;

use colophon_domain::{Failure, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::Engine;

/// The pause between two rounds.
const PAUSE: Duration = Duration::from_mins(5);

/// Rows that are deleted at once: few enough for a statement of milliseconds.
const BATCH: u32 = 500;

/// Less is most likely a mistake of units.
const LEAST: Duration = Duration::from_hours(1);

/// `[retention]`: how long things are kept; what belongs to a release, from the release's end on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSettings {
    /// Jobs and their attempts; at least an hour.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub finished_jobs: Duration,
    /// Idempotency keys; at least an hour. Afterwards the same request makes a new release.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub idempotency_keys: Duration,
    /// Which repositories hold a blob, since it was last seen there; at least an hour. Afterwards it
    /// is sent instead of mounted.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub known_blobs: Duration,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        let days = |days: u64| Duration::from_hours(24 * days);
        Self { finished_jobs: days(30), idempotency_keys: days(7), known_blobs: days(30) }
    }
}

impl RetentionSettings {
    /// Refuses times that are too short, by name.
    pub fn check(&self) -> Result<()> {
        for (field, time) in [
            ("finished_jobs", self.finished_jobs),
            ("idempotency_keys", self.idempotency_keys),
            ("known_blobs", self.known_blobs),
        ] {
            if time < LEAST {
                let field = format!("retention.{field}");
                let text = format!("{field} must be at least 1h");
                return Err(Failure::invalid(field, text));
            }
        }
        Ok(())
    }
}

impl Engine {
    /// Lets go of what is old, from time to time, until it is told to stop.
    pub(crate) async fn forget(&self, shutdown: CancellationToken) {
        loop {
            match self.forget_once().await {
                Ok(0) => {}
                Ok(rows) => tracing::info!(rows, "what is old was let go"),
                Err(failure) => tracing::warn!(%failure, "what is old could not be let go"),
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Lets go of everything that is old enough, in small steps; how much there was. Of several
    /// processes one does it.
    pub async fn forget_once(&self) -> Result<u64> {
        let (store, times, batch) = (&self.store, self.retention, i64::from(BATCH));
        Ok(all_of(|| store.forget_jobs(times.finished_jobs, batch)).await?
            + all_of(|| store.forget_keys(times.idempotency_keys, batch)).await?
            + all_of(|| store.forget_places(times.known_blobs, batch)).await?)
    }
}

/// Takes steps until one has less to do than it could; how much all of them did.
async fn all_of<S: Future<Output = Result<Option<u64>>>>(step: impl Fn() -> S) -> Result<u64> {
    let mut gone = 0;
    while let Some(done) = step().await? {
        gone += done;
        if done < u64::from(BATCH) {
            break;
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_instead_of_days_are_refused() {
        RetentionSettings::default().check().unwrap();
        let short = RetentionSettings {
            idempotency_keys: Duration::from_mins(7),
            ..RetentionSettings::default()
        };
        assert_eq!(short.check().unwrap_err().field_name(), Some("retention.idempotency_keys"));
    }
}
