//! How much may wait. What has been accepted is never lost, so more than can be done in a reasonable
//! time is not accepted: a caller in a loop would else keep everybody waiting for hours.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use colophon_domain::{Failure, Reason, Result, Retry};
use tokio::sync::Mutex;

use crate::Engine;

/// A count is used again for so long; what this process accepts meanwhile is added to it.
const COUNT_AGE: Duration = Duration::from_secs(1);

/// When a caller may come back.
const PAUSE: Duration = Duration::from_secs(5);

/// How many releases may have been accepted and not have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Of all callers.
    pub all: u32,
    /// Of each.
    pub per_caller: u32,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { all: 20_000, per_caller: 10_000 }
    }
}

/// How many there were a moment ago.
#[derive(Default)]
pub(crate) struct Room {
    counted: Mutex<Option<Counted>>,
}

struct Counted {
    at: Instant,
    all: i64,
    of_callers: HashMap<String, i64>,
}

impl Counted {
    /// Takes a place; whose limit is reached if there is none.
    fn take(&mut self, caller: &str, limits: QueueLimits) -> Result<()> {
        let own = self.of_callers.entry(caller.to_owned()).or_default();
        if self.all >= i64::from(limits.all) {
            return Err(full(format!("{} releases wait already", limits.all)));
        }
        if *own >= i64::from(limits.per_caller) {
            return Err(full(format!("{} releases of {caller} wait already", limits.per_caller)));
        }
        self.all += 1;
        *own += 1;
        Ok(())
    }
}

fn full(text: String) -> Failure {
    Failure::new(Reason::QueueFull, text)
        .remedy("come back later; repeating a request under its idempotency key makes one release")
        .retry(Retry::Wait(PAUSE))
}

impl Engine {
    /// Refuses a release that there is no room for. The count is up to a second old, so the limit
    /// may be exceeded by what several processes accept in that time.
    pub(crate) async fn make_room(&self, caller: &str) -> Result<()> {
        let limits = self.limits;
        // Those that come meanwhile share the count.
        let mut counted = self.room.counted.lock().await;
        let counted = match &mut *counted {
            Some(counted) if counted.at.elapsed() < COUNT_AGE => counted,
            stale => {
                let at = Instant::now();
                let of_callers =
                    self.store.waiting_releases(i64::from(limits.all).saturating_add(1)).await?;
                let all = of_callers.values().sum();
                stale.insert(Counted { at, all, of_callers })
            }
        };
        counted.take(caller, limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_its_own_limit_within_that_of_all() {
        let limits = QueueLimits { all: 4, per_caller: 2 };
        let of_callers = HashMap::from([("a".to_owned(), 1)]);
        let mut counted = Counted { at: Instant::now(), all: 1, of_callers };
        counted.take("a", limits).unwrap();
        let refused = counted.take("a", limits).unwrap_err();
        assert_eq!(refused.reason(), Reason::QueueFull);
        assert!(refused.message().contains("of a"), "{refused}");
        counted.take("b", limits).unwrap();
        counted.take("c", limits).unwrap();
        let refused = counted.take("d", limits).unwrap_err();
        assert!(refused.message().starts_with("4 releases wait"), "{refused}");
        assert_eq!(refused.retry_class(), Retry::Wait(PAUSE));
    }
}
