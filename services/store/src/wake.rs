//! Hints that there is work, or something new of a registry's budget: `NOTIFY` after a commit, never
//! inside the transaction, where it would take a lock of the whole instance. A lost hint costs a poll
//! interval and nothing else.

use colophon_domain::{RegistryHost, Result};
use sqlx::postgres::PgListener;

use crate::{
    Store,
    tx::{self, Bounded as _},
};

const JOBS: &str = "colophon_jobs";
/// The payload is the registry.
pub(crate) const BUDGETS: &str = "colophon_budgets";

/// What another process has hinted at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// Jobs have become claimable.
    Jobs,
    /// A registry asks for a pause, or its limit has changed.
    Budget(RegistryHost),
}

/// Hints from any process on the same database.
pub struct Wakeups(PgListener);

impl Wakeups {
    /// Waits for the next hint. A broken connection is opened again by the next call.
    pub async fn next(&mut self) -> Result<Hint> {
        loop {
            let hint = self.0.recv().await.map_err(tx::lost)?;
            if hint.channel() == JOBS {
                return Ok(Hint::Jobs);
            }
            if let Ok(registry) = hint.payload().parse() {
                return Ok(Hint::Budget(registry));
            }
        }
    }
}

impl Store {
    /// Tells workers of other processes that jobs have become claimable.
    pub async fn announce_jobs(&self) -> Result<()> {
        sqlx::query!("SELECT pg_notify($1, '')", JOBS).execute(&self.pool).bounded().await?;
        Ok(())
    }

    /// Listens for hints on a connection of its own.
    pub async fn wakeups(&self) -> Result<Wakeups> {
        let mut listener = PgListener::connect_with(&self.pool).bounded().await?;
        listener.listen_all([JOBS, BUDGETS]).bounded().await?;
        Ok(Wakeups(listener))
    }
}
