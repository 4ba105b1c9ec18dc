//! How the worker works: times, limits, attempts.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use colophon_domain::{Failure, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Tags of one job that are looked at or moved at once.
const TAGS_AT_ONCE: usize = 4;

/// Settings of the worker, TOML `[worker]`. Times are written like `30s` or `5m`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WorkSettings {
    /// Jobs that are worked on at once; 1 to 512.
    pub concurrency: usize,
    /// How long a worker holds a job without renewing. A dead worker's jobs go on after this.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub lease: Duration,
    /// How long the PUT of a tag may take; at most half of the lease.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub put_timeout: Duration,
    /// How much longer a PUT may be under way in the network after its sender has given up.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub grace: Duration,
    /// How long a registry may serve a tag's old digest after it has accepted the new one.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub consistency_window: Duration,
    /// How often the queue is looked at without a hint.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub poll_interval: Duration,
    /// Attempts of a job before its release ends `ERRORED`; waiting is not an attempt.
    pub max_attempts: u16,
    /// The pause after the first attempt; it doubles with each further one.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub backoff_min: Duration,
    /// The longest pause between attempts.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub backoff_max: Duration,
    /// How long running jobs may go on after the worker was told to stop; what is left of them then
    /// goes on at another worker.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub stop_grace: Duration,
    /// Where a process that works answers probes (`/livez`, `/readyz`); nowhere unless given. The
    /// process serves it, not the engine.
    #[schemars(with = "Option<String>")]
    pub health_listen: Option<SocketAddr>,
    /// A file to which that address is written once it is known (for port 0).
    pub health_address_file: Option<PathBuf>,
    /// Tags of one job that are looked at or moved at once. Not in the configuration: it is for
    /// whoever must know which request comes next.
    #[serde(skip)]
    pub tags_at_once: usize,
}

impl Default for WorkSettings {
    fn default() -> Self {
        Self {
            concurrency: 16,
            lease: Duration::from_secs(30),
            put_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(5),
            consistency_window: Duration::from_secs(5),
            poll_interval: Duration::from_secs(1),
            max_attempts: 8,
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_mins(5),
            stop_grace: Duration::from_secs(20),
            health_listen: None,
            health_address_file: None,
            tags_at_once: TAGS_AT_ONCE,
        }
    }
}

impl WorkSettings {
    /// Refuses settings that contradict each other, by name.
    pub fn check(&self) -> Result<()> {
        let wrong = |field: &'static str, message: &'static str| {
            Err(Failure::invalid(format!("worker.{field}"), message))
        };
        if !(1..=512).contains(&self.concurrency) {
            return wrong("concurrency", "worker.concurrency must be 1 to 512");
        }
        if self.put_timeout.is_zero() || self.put_timeout * 2 > self.lease {
            return wrong(
                "put_timeout",
                "worker.put_timeout must be greater than 0 and at most half of worker.lease",
            );
        }
        if self.max_attempts == 0 {
            return wrong("max_attempts", "worker.max_attempts must be at least 1");
        }
        if self.poll_interval < Duration::from_millis(10) {
            return wrong("poll_interval", "worker.poll_interval must be at least 10ms");
        }
        if self.backoff_min > self.backoff_max {
            return wrong("backoff_min", "worker.backoff_min must not exceed worker.backoff_max");
        }
        Ok(())
    }

    /// The pause before the next attempt: exponential, with jitter of half its length so that
    /// jobs which failed together do not come back together.
    pub(crate) fn backoff(&self, failures: u32, random: f64) -> Duration {
        let doubled = self.backoff_min.saturating_mul(2_u32.saturating_pow(failures.min(16)));
        doubled.min(self.backoff_max).mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_up_to_its_bound_and_never_vanishes() {
        let settings = WorkSettings::default();
        assert_eq!(settings.backoff(0, 1.0), Duration::from_secs(1));
        assert_eq!(settings.backoff(3, 1.0), Duration::from_secs(8));
        assert_eq!(settings.backoff(60, 1.0), settings.backoff_max);
        assert_eq!(settings.backoff(1, 0.0), Duration::from_secs(1));
    }

    #[test]
    fn a_put_that_outlives_its_lease_is_refused() {
        let settings = WorkSettings { put_timeout: Duration::from_secs(20), ..Default::default() };
        assert_eq!(settings.check().unwrap_err().field_name(), Some("worker.put_timeout"));
        WorkSettings::default().check().unwrap();
    }
}
