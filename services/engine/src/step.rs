//! Working step by step: one job, one interrupted move, one look at the leases, for a process that
//! decides itself what happens next. A simulation of many workers is one.

use std::time::Instant;

use colophon_domain::Result;
use tokio_util::sync::CancellationToken;

use crate::{Engine, Worker, reconcile::HOLD};

impl Worker {
    /// Claims one job, works on it and writes how the attempt ended; `false` if there was no job
    /// whose time has come. Whoever drops this in between is a worker that died.
    ///
    /// # Errors
    /// `DATABASE_UNAVAILABLE` if nothing can be claimed. How the attempt ended is no error.
    pub async fn work_one(&self) -> Result<bool> {
        let asked = Instant::now();
        let engine = &self.engine;
        let claimed = engine.store.claim(&self.name, 1, engine.settings.lease).await?;
        let Some(job) = claimed.into_iter().next() else { return Ok(false) };
        engine.work(job, asked, &CancellationToken::new()).await;
        Ok(true)
    }
}

impl Engine {
    /// Looks after one interrupted move whose time has run out; `false` if there was none.
    ///
    /// # Errors
    /// `DATABASE_UNAVAILABLE`. A registry that does not answer is no error: somebody looks later.
    pub async fn reconcile_once(&self) -> Result<bool> {
        let due = self.store.take_due_intents(1, HOLD).await?.pop();
        let Some(due) = due else { return Ok(false) };
        self.resolve_one(due).await;
        self.wake();
        Ok(true)
    }

    /// Puts the jobs of workers that died or stalled back into the queue; how many there were.
    ///
    /// # Errors
    /// `DATABASE_UNAVAILABLE`.
    pub async fn reap_once(&self) -> Result<u64> {
        self.store.reap().await
    }
}
