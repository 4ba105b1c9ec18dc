//! Gauges of the whole: the queue, the releases at work, the moves without an outcome. Processes that
//! serve the API ask the database for them, one statement for many who look.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use colophon_store::{Standing, Store};
use colophon_telemetry::{KeyValue, meter};
use opentelemetry::metrics::{AsyncInstrument, Meter};
use tokio_util::sync::CancellationToken;

/// An answer is good for so long.
const FRESH: Duration = Duration::from_secs(5);
/// An older one is not shown any more: no figure is better than one of long ago.
const STALE: Duration = Duration::from_mins(2);
/// How long the database may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// What was seen last, and whoever asks again.
pub(crate) struct Gauges {
    store: Store,
    seen: Seen,
    asking: tokio::sync::Mutex<()>,
}

type Seen = Arc<Mutex<Option<(Instant, Standing)>>>;

impl Gauges {
    /// Makes the gauges known.
    pub(crate) fn new(store: Store) -> Arc<Self> {
        let seen = Seen::default();
        let meter = meter();
        counts(&meter, &seen);
        ages(&meter, &seen);
        Arc::new(Self { store, seen, asking: tokio::sync::Mutex::new(()) })
    }

    /// Asks the database, unless somebody did so a moment ago.
    pub(crate) async fn refresh(&self) {
        let _one_asks = self.asking.lock().await;
        if self.age().is_some_and(|age| age < FRESH) {
            return;
        }
        match tokio::time::timeout(PATIENCE, self.store.standing()).await {
            Ok(Ok(standing)) => {
                *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some((Instant::now(), standing));
            }
            Ok(Err(failure)) => tracing::debug!(%failure, "the gauges could not be read"),
            Err(_) => tracing::debug!("the gauges could not be read in time"),
        }
    }

    /// Asks oftener than it is shown, so that what is shown is not old, until told to stop.
    pub(crate) async fn keep_fresh(
        self: Arc<Self>,
        rhythm: Duration,
        shutdown: CancellationToken,
    ) -> Result<()> {
        let mut tick = tokio::time::interval(pause(rhythm));
        while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            self.refresh().await;
        }
        Ok(())
    }

    fn age(&self) -> Option<Duration> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.as_ref().map(|(at, _)| at.elapsed())
    }
}

/// Twice for each time that it is shown, and before an answer is too old to be shown.
fn pause(rhythm: Duration) -> Duration {
    (rhythm / 2).min(STALE / 2)
}

fn last(seen: &Seen) -> Option<Standing> {
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.filter(|(at, _)| at.elapsed() < STALE).map(|(_, standing)| standing)
}

fn counts(meter: &Meter, seen: &Seen) {
    let watch = |name: &'static str,
                 about: &'static str,
                 show: fn(&Standing, &dyn AsyncInstrument<u64>)| {
        let seen = Arc::clone(seen);
        meter
            .u64_observable_gauge(name)
            .with_description(about)
            .with_callback(move |gauge| {
                if let Some(standing) = last(&seen) {
                    show(&standing, gauge);
                }
            })
            .build();
    };
    watch("colophon.queue.jobs", "Jobs in the queue and at work", |at, gauge| {
        gauge.observe(at.ready, &[KeyValue::new("state", "ready")]);
        gauge.observe(at.waiting, &[KeyValue::new("state", "waiting")]);
        gauge.observe(at.running, &[KeyValue::new("state", "running")]);
    });
    watch("colophon.releases.active", "Releases that have not ended", |at, gauge| {
        gauge.observe(at.queued_releases, &[KeyValue::new("state", "QUEUED")]);
        gauge.observe(at.running_releases, &[KeyValue::new("state", "RUNNING")]);
    });
    watch("colophon.intents.open", "Moves whose outcome is not recorded yet", |at, gauge| {
        gauge.observe(at.open_intents, &[]);
    });
    watch("colophon.intents.unknown", "Those of which no answer came", |at, gauge| {
        gauge.observe(at.unknown, &[]);
    });
}

fn ages(meter: &Meter, seen: &Seen) {
    let watch = |name: &'static str,
                 about: &'static str,
                 show: fn(&Standing, &dyn AsyncInstrument<f64>)| {
        let seen = Arc::clone(seen);
        meter
            .f64_observable_gauge(name)
            .with_unit("s")
            .with_description(about)
            .with_callback(move |gauge| {
                if let Some(standing) = last(&seen) {
                    show(&standing, gauge);
                }
            })
            .build();
    };
    watch("colophon.queue.oldest", "The age of the oldest job in the queue", |at, gauge| {
        gauge.observe(at.oldest_ready.as_secs_f64(), &[KeyValue::new("state", "ready")]);
        gauge.observe(at.oldest.as_secs_f64(), &[KeyValue::new("state", "any")]);
    });
    watch("colophon.intents.unknown.oldest", "The age of the oldest of them", |at, gauge| {
        gauge.observe(at.oldest_unknown.as_secs_f64(), &[]);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_every_rhythm_there_is_an_answer_that_is_young_enough() {
        for seconds in 1..=3_600 {
            let rhythm = Duration::from_secs(seconds);
            // One that came late, and one that did not come at all.
            assert!(pause(rhythm) * 2 <= STALE && pause(rhythm) < rhythm, "{rhythm:?}");
        }
    }
}
