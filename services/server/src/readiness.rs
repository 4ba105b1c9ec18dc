//! What a process needs to do its work, asked not more often than once in a while: one look at
//! all parts serves every probe of a second.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use colophon_domain::{Clock, Failure, Reason, Result};
use futures_util::future::{BoxFuture, join_all};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::{Mutex, Semaphore};

/// A part that has not answered within this time is away.
const PATIENCE: Duration = Duration::from_secs(4);
/// So many watch the readiness of a process at once. They need no token, and hold a stream each.
const WATCHERS: usize = 64;

/// One part that a process depends on, and a look at it.
pub struct Part<'a> {
    /// What it is called to whoever asks: `database`, `vault`.
    pub name: &'static str,
    /// Without it nothing can be answered. Without any other part something has to wait, and the
    /// process is ready all the same.
    pub needed: bool,
    /// Fails with what is wrong. Only the reason is told to strangers; the rest is logged.
    pub look: BoxFuture<'a, Result<()>>,
}

/// A process, as its probes see it.
pub trait Probe: Send + Sync + 'static {
    /// Its parts, those that are needed first.
    fn parts(&self) -> Vec<Part<'_>>;
}

/// How one part was at the last look.
#[derive(Clone)]
struct Seen {
    name: &'static str,
    needed: bool,
    wrong: Option<Reason>,
    /// When it was first seen to be so.
    since: OffsetDateTime,
}

/// How all parts were at the last look.
#[derive(Clone)]
pub(crate) struct Condition(Arc<[Seen]>);

impl Condition {
    /// The first part that is needed and away.
    pub(crate) fn missing(&self) -> Option<Missing> {
        let seen = self.0.iter().find(|seen| seen.needed && seen.wrong.is_some())?;
        Some(Missing { part: seen.name, reason: seen.wrong?, since: text(seen.since) })
    }

    /// `ok`, `degraded` while a part is away that is not needed, else `unavailable`.
    pub(crate) fn status(&self) -> &'static str {
        match (self.missing(), self.0.iter().any(|seen| seen.wrong.is_some())) {
            (Some(_), _) => "unavailable",
            (None, true) => "degraded",
            (None, false) => "ok",
        }
    }

    /// Every part with its status; of one that is away also why and since when.
    pub(crate) fn parts(&self) -> Value {
        let part = |seen: &Seen| match seen.wrong {
            None => json!({ "status": "ok" }),
            Some(reason) => json!({
                "status": if seen.needed { "unavailable" } else { "degraded" },
                "reason": reason.as_str(),
                "since": text(seen.since),
            }),
        };
        let parts = self.0.iter().map(|seen| (seen.name.to_owned(), part(seen)));
        Value::Object(parts.collect::<Map<_, _>>())
    }
}

/// A part without which nothing can be answered.
pub(crate) struct Missing {
    pub(crate) part: &'static str,
    pub(crate) reason: Reason,
    pub(crate) since: String,
}

fn text(time: OffsetDateTime) -> String {
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
}

/// Looks at the parts of a process, but not more often than once in `max_age`.
#[derive(Clone)]
pub(crate) struct Readiness {
    probe: Arc<dyn Probe>,
    clock: Arc<dyn Clock>,
    max_age: Duration,
    last: Arc<Mutex<Option<(Instant, Condition)>>>,
    /// Places for those who watch.
    pub(crate) watchers: Arc<Semaphore>,
}

impl Readiness {
    pub(crate) fn new(probe: Arc<dyn Probe>, clock: Arc<dyn Clock>, max_age: Duration) -> Self {
        let watchers = Arc::new(Semaphore::new(WATCHERS));
        Self { probe, clock, max_age, last: Arc::default(), watchers }
    }

    pub(crate) fn max_age(&self) -> Duration {
        self.max_age
    }

    /// How the parts are.
    pub(crate) async fn condition(&self) -> Condition {
        // The lock is held over the question on purpose: probes that come meanwhile share it.
        let mut last = self.last.lock().await;
        if let Some((at, condition)) = &*last
            && at.elapsed() < self.max_age
        {
            return condition.clone();
        }
        let parts = self.probe.parts();
        let looks = parts.into_iter().map(|part| async move {
            let looked = tokio::time::timeout(PATIENCE, part.look).await;
            let silent = || Err(Failure::new(Reason::Timeout, "there is no answer"));
            (part.name, part.needed, looked.unwrap_or_else(|_| silent()))
        });
        let before = last.as_ref().map(|(_, condition)| condition.clone());
        let seen = join_all(looks).await.into_iter().map(|look| self.seen(look, before.as_ref()));
        let condition = Condition(seen.collect());
        *last = Some((Instant::now(), condition.clone()));
        condition
    }

    /// What a look showed; a change is logged, once.
    fn seen(
        &self,
        (name, needed, looked): (&'static str, bool, Result<()>),
        before: Option<&Condition>,
    ) -> Seen {
        let wrong = looked.as_ref().err().map(Failure::reason);
        let before = before.and_then(|all| all.0.iter().find(|seen| seen.name == name));
        match before {
            Some(before) if before.wrong == wrong => return before.clone(),
            _ => {}
        }
        match &looked {
            Ok(()) => tracing::info!(part = name, "ready"),
            Err(failure) if needed => {
                tracing::warn!(part = name, reason = %failure.reason(), %failure, "not ready");
            }
            Err(failure) => {
                tracing::warn!(part = name, reason = %failure.reason(), %failure, "degraded");
            }
        }
        Seen { name, needed, wrong, since: self.clock.now() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    struct Still;

    impl Clock for Still {
        fn now(&self) -> OffsetDateTime {
            OffsetDateTime::UNIX_EPOCH
        }
    }

    /// Two parts, each away while its bit is set.
    struct Two(AtomicU8);

    impl Probe for Two {
        fn parts(&self) -> Vec<Part<'_>> {
            let part = |name, needed, bit, reason| Part {
                name,
                needed,
                look: Box::pin(async move {
                    if self.0.load(Ordering::SeqCst) & bit == 0 {
                        return Ok(());
                    }
                    Err(Failure::new(reason, "10.0.0.7 is away"))
                }),
            };
            vec![
                part("database", true, 1, Reason::DatabaseUnavailable),
                part("vault", false, 2, Reason::VaultSealed),
            ]
        }
    }

    #[tokio::test]
    async fn only_what_is_needed_makes_a_process_unready() {
        let two = Arc::new(Two(AtomicU8::new(0)));
        let readiness = Readiness::new(two.clone(), Arc::new(Still), Duration::ZERO);
        for (bits, status, missing) in [
            (0, "ok", None),
            (2, "degraded", None),
            (3, "unavailable", Some("database")),
            (1, "unavailable", Some("database")),
        ] {
            two.0.store(bits, Ordering::SeqCst);
            let condition = readiness.condition().await;
            assert_eq!(condition.status(), status, "{bits}");
            assert_eq!(condition.missing().map(|missing| missing.part), missing, "{bits}");
            assert!(!condition.parts().to_string().contains("10.0.0.7"));
        }
        let parts = readiness.condition().await.parts();
        assert_eq!(parts["vault"], json!({ "status": "ok" }));
        assert_eq!(
            parts["database"],
            json!({ "status": "unavailable", "reason": "DATABASE_UNAVAILABLE",
                    "since": "1970-01-01T00:00:00Z" })
        );
    }
}
