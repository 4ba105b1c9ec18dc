//! Keeping a lease while a job is worked on. The lease is renewed in good time; if it cannot be,
//! the work is broken off before anybody else may begin it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use colophon_domain::{Failure, Reason, Result};
use colophon_store::{Lease, Renewed, Store};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often a job that can be stopped looks whether it should.
const STOP_POLL: Duration = Duration::from_secs(1);

/// A lease that renews itself until it is dropped.
pub(crate) struct Keeper {
    until: Arc<Mutex<Instant>>,
    lost: CancellationToken,
    stop: CancellationToken,
    keeping: tokio::sync::Mutex<()>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// `until` is when the lease runs out, by this process's monotonic clock: taken before the
    /// statement that took the lease, so that it is never later than the database's time. A
    /// `stoppable` job is told within about a second that its release should stop.
    pub(crate) fn start(
        store: Store,
        lease: Lease,
        length: Duration,
        until: Instant,
        stoppable: bool,
    ) -> Self {
        let keeper = Renewal {
            store,
            lease,
            length,
            stoppable,
            until: Arc::new(Mutex::new(until)),
            lost: CancellationToken::new(),
            stop: CancellationToken::new(),
        };
        Self {
            until: keeper.until.clone(),
            lost: keeper.lost.clone(),
            stop: keeper.stop.clone(),
            keeping: tokio::sync::Mutex::new(()),
            task: tokio::spawn(keeper.run()),
        }
    }

    /// Resolves when the lease is lost.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Is cancelled when the release should stop.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Held while a tag of the job keeps the digest that it leaves.
    pub(crate) fn keeping(&self) -> &tokio::sync::Mutex<()> {
        &self.keeping
    }

    /// When the lease runs out unless it is renewed.
    pub(crate) fn until(&self) -> Instant {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By when a PUT that begins now must have ended: within `limit` and well before the lease
    /// runs out, so that nothing of ours is under way when somebody else takes over.
    pub(crate) fn put_window(&self, limit: Duration) -> Result<Duration> {
        let left = self.until().saturating_duration_since(Instant::now());
        let window = limit.min(left.mul_f64(0.9));
        if self.lost.is_cancelled() || window < limit / 4 {
            return Err(Failure::new(Reason::LeaseLost, "the lease is about to run out"));
        }
        Ok(window)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Renewal {
    store: Store,
    lease: Lease,
    length: Duration,
    stoppable: bool,
    until: Arc<Mutex<Instant>>,
    lost: CancellationToken,
    stop: CancellationToken,
}

impl Renewal {
    async fn run(self) {
        loop {
            self.rest().await;
            let asked = Instant::now();
            let left = self.until().saturating_duration_since(asked);
            if left.is_zero() {
                // A process that was stopped past its lease must not renew what it lost.
                return self.lost.cancel();
            }
            match tokio::time::timeout(left, self.store.renew(self.lease, self.length)).await {
                Ok(Ok(Renewed::Held)) => self.extend(asked),
                Ok(Ok(Renewed::Stop)) => {
                    self.extend(asked);
                    self.stop.cancel();
                }
                // The attempt hears of the end next, and until then keeps the time that is left.
                Ok(Ok(Renewed::Ended)) => {}
                Ok(Ok(Renewed::Lost)) | Err(_) => return self.lost.cancel(),
                Ok(Err(failure)) => {
                    tracing::warn!(job = self.lease.job, %failure, "a lease could not be renewed");
                }
            }
        }
    }

    /// Waits until the next renewal; meanwhile a job that can be stopped looks whether it should.
    async fn rest(&self) {
        let end = Instant::now() + self.length / 4;
        while self.stoppable && !self.stop.is_cancelled() {
            let left = end.saturating_duration_since(Instant::now());
            tokio::time::sleep(left.min(STOP_POLL)).await;
            if left <= STOP_POLL {
                return;
            }
            if matches!(self.store.should_stop(self.lease).await, Ok(true)) {
                self.stop.cancel();
            }
        }
        tokio::time::sleep(end.saturating_duration_since(Instant::now())).await;
    }

    fn until(&self) -> Instant {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn extend(&self, asked: Instant) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = asked + self.length;
    }
}
