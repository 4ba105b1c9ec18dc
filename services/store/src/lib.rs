//! Everything that Colophon keeps in PostgreSQL: releases, the queue and the ledger.
//!
//! One file is one family of statements. No function here does anything over the network but
//! talk to the database, and no transaction outlives its function.

mod append;
mod barriers;
mod blob_places;
mod cancel;
mod companions;
mod copies;
mod create;
mod entries;
mod fan_in;
mod findings;
mod finished;
mod flights;
mod freezes;
mod heads;
mod holds;
mod intents;
mod jobs;
mod keeping;
mod metrics;
mod outcomes;
mod past;
mod pruning;
mod put_back;
mod queue;
mod rate_budget;
mod reconcile;
mod releases;
mod retry;
mod room;
mod rows;
mod settle;
mod standing;
mod steps;
mod tag_at;
mod tx;
mod upload_blobs;
mod uploads;
mod verdicts;
mod wake;

use std::{str::FromStr, sync::Arc, time::Duration};

use crate::tx::Bounded as _;
use colophon_domain::{Entropy, Failure, Reason, Result};
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

pub use append::{Author, Look};
pub use colophon_domain::Lease;
pub use companions::Companion;
pub use create::{Created, Made, NewRelease};
pub use findings::{Compared, Finding, Found, Recorded};
pub use heads::{Blocker, Frozen, Head};
pub use holds::Hold;
pub use intents::{Begun, Intent, Move, Restore, Role, Terms};
pub use jobs::{GaveUp, Waiting};
pub use keeping::{Keeping, Kept};
pub use outcomes::Outcome;
pub use past::MovedTag;
pub use pruning::Prune;
pub use queue::{Claimed, Renewed};
pub use reconcile::DueIntent;
pub use standing::Standing;
pub use upload_blobs::{
    UploadBoard, UploadBoarded, UploadBoarding, UploadFlight, UploadLeft, UploadOrphan, UploadStand,
};
pub use uploads::UploadTerms;
pub use verdicts::Settled;
pub use wake::{Hint, Wakeups};

/// A connection that was not used for so long is asked before it is used again.
const RESTED: Duration = Duration::from_millis(500);

/// Between two statements of a transaction there is no waiting for anything. A process that
/// stands still there (stopped, swapped out, cut off) must not keep its locks: nobody could take
/// its job over or publish to its tags.
/// And no statement of ours takes long.
const PATIENCE: &str =
    "SET idle_in_transaction_session_timeout = '5s'; SET statement_timeout = '25s'";

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: PgPool,
    entropy: Arc<dyn Entropy>,
}

impl Store {
    /// Connects lazily: the first statement opens the first connection, so that a service
    /// starts, and says that it is not ready, while the database is away.
    ///
    /// `url` is `postgres://user@host/database`; TLS by its `sslmode` and `sslrootcert`.
    pub fn connect(url: &str, max_connections: u32, entropy: Arc<dyn Entropy>) -> Result<Self> {
        let options = address(url)?.application_name("colophon").statement_cache_capacity(200);
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(Duration::from_secs(5))
            .test_before_acquire(false)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    sqlx::raw_sql(PATIENCE).execute(connection).await?;
                    Ok(())
                })
            })
            .before_acquire(|connection, state| {
                Box::pin(async move {
                    // One that was in use a moment ago is not asked, which saves a round trip;
                    // one that rested may have lost its server.
                    if state.idle_for >= RESTED {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        Ok(Self { pool, entropy })
    }

    /// Whether an address of a database is of its form.
    pub fn check_address(url: &str) -> Result<()> {
        address(url).map(drop)
    }

    /// Brings the schema up to date; safe to run from several processes at once.
    pub async fn migrate(&self) -> Result<()> {
        let mut connection = self.pool.acquire().bounded().await?;
        // A migration may take its time, on a connection that nobody else gets afterwards.
        sqlx::raw_sql("SET statement_timeout = 0").execute(&mut *connection).bounded().await?;
        let mut connection = connection.detach();
        sqlx::migrate!("../../migrations").run(&mut connection).await.map_err(|error| {
            let failure = match &error {
                sqlx::migrate::MigrateError::Execute(sqlx::Error::Database(_)) => {
                    Failure::new(Reason::Internal, "a migration was refused by the database")
                }
                sqlx::migrate::MigrateError::VersionMissing(_)
                | sqlx::migrate::MigrateError::VersionMismatch(_) => Failure::new(
                    Reason::Internal,
                    "the database was migrated by another version of Colophon",
                )
                .remedy("run the newer version, or restore the database that belongs to this one"),
                _ => Failure::new(
                    Reason::DatabaseUnavailable,
                    "the database cannot be reached to migrate it",
                ),
            };
            failure.caused_by(error)
        })
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query_scalar!("SELECT 1 AS \"one!\"").fetch_one(&self.pool).bounded().await?;
        Ok(())
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn address(url: &str) -> Result<PgConnectOptions> {
    // The error of the parser repeats the address, which may hold a password.
    PgConnectOptions::from_str(url).map_err(|_| {
        Failure::invalid("database.url", "the database address cannot be read")
            .remedy("the form is postgres://user@host:port/database")
    })
}
