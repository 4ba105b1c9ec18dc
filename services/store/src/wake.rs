//! Hints that there is work: `NOTIFY` after a commit, never inside the transaction, where it
//! would take a lock of the whole instance. A lost hint costs a poll interval and nothing else.

use colophon_domain::Result;
use sqlx::postgres::PgListener;

use crate::{
    Store,
    tx::{self, Bounded as _},
};

const CHANNEL: &str = "colophon_jobs";

/// Hints from any process on the same database.
pub struct Wakeups(PgListener);

impl Wakeups {
    /// Waits for the next hint. A broken connection is opened again by the next call.
    pub async fn next(&mut self) -> Result<()> {
        self.0.recv().await.map_err(tx::lost)?;
        Ok(())
    }
}

impl Store {
    /// Tells workers of other processes that jobs have become claimable.
    pub async fn announce_jobs(&self) -> Result<()> {
        sqlx::query!("SELECT pg_notify($1, '')", CHANNEL).execute(&self.pool).bounded().await?;
        Ok(())
    }

    /// Listens for hints on a connection of its own.
    pub async fn wakeups(&self) -> Result<Wakeups> {
        let mut listener = PgListener::connect_with(&self.pool).bounded().await?;
        listener.listen(CHANNEL).bounded().await?;
        Ok(Wakeups(listener))
    }
}
