//! Transactions with names. A transaction may run twice: one that the database broke off to
//! resolve a conflict is simply tried again.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use colophon_domain::{Failure, Reason, Result, Retry};
use tracing::{Instrument as _, field};

use crate::metrics;

/// Why a transaction did not go through.
pub(crate) enum Fault {
    /// The database said so.
    Database(sqlx::Error),
    /// A rule of ours did.
    Failure(Failure),
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// How long the database may take for a statement or a short transaction. One that is silent for
/// longer is away, whatever the state of the connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// Gives single statements the same bound and the same failures as transactions.
pub(crate) trait Bounded<T>: Future<Output = Result<T, sqlx::Error>> + Send + Sized {
    /// Waits for the database, but not for ever.
    fn bounded(self) -> impl Future<Output = Result<T>> + Send {
        async {
            match tokio::time::timeout(PATIENCE, self).await {
                Ok(done) => done.map_err(lost),
                Err(_) => Err(silent()),
            }
        }
    }
}

impl<T, F: Future<Output = Result<T, sqlx::Error>> + Send> Bounded<T> for F {}

fn silent() -> Failure {
    Failure::new(Reason::DatabaseUnavailable, "the database does not answer")
        .remedy("try again; the operator sees the cause in the log")
        .retry(Retry::Wait(Duration::from_secs(1)))
}

/// How often a transaction is tried when the database breaks it off.
const TRIES: u32 = 6;

/// Runs a transaction, again if the database broke it off (`serialization_failure`,
/// `deadlock_detected`).
pub(crate) async fn run<T, F>(name: &'static str, work: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T, Fault>>,
{
    let span = tracing::debug_span!(
        "store.transaction",
        otel.name = %format_args!("store.{name}"),
        otel.kind = "client",
        db.system.name = "postgresql",
        tries = field::Empty,
    );
    let begun = Instant::now();
    let (result, tries) = Box::pin(tried(name, work)).instrument(span.clone()).await;
    span.record("tries", tries);
    metrics::transaction(name, tries, result.is_ok(), begun.elapsed());
    result
}

/// What became of a transaction, and how often it was tried.
async fn tried<T, F>(name: &'static str, mut work: impl FnMut() -> F) -> (Result<T>, u32)
where
    F: Future<Output = Result<T, Fault>>,
{
    let mut tried = 0;
    loop {
        tried += 1;
        let done = tokio::time::timeout(PATIENCE, metrics::tallied(work())).await;
        match done.unwrap_or_else(|_| Err(Fault::Failure(silent()))) {
            Ok(value) => return (Ok(value), tried),
            Err(Fault::Failure(failure)) => return (Err(failure), tried),
            Err(Fault::Database(error)) if tried < TRIES && conflicts(&error) => {
                tracing::debug!(transaction = name, tried, "transaction broken off, trying again");
                tokio::time::sleep(Duration::from_millis(u64::from(tried) * 3)).await;
            }
            Err(Fault::Database(error)) => return (Err(lost(error)), tried),
        }
    }
}

fn conflicts(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("40001" | "40P01"))
}

/// Error classes and codes that pass (PostgreSQL, appendix A): connections (08), a stale statement
/// of a pooler (26000), a password that is being changed (28), a database that is being restored
/// (3D000), broken off transactions (40), resources (53), locks (55), operators (57), the system
/// (58), a server that has become a standby (25006), this process having stood still (25P03), a
/// plan from before a migration (0A000), and the server's own defects (XX).
const PASSES: &[&str] =
    &["08", "0A000", "25006", "25P03", "26000", "28", "3D000", "40", "53", "55", "57", "58", "XX"];

/// What a database error means to the rest of Colophon. What the database refused is a defect
/// of ours; anything else is the database being away.
pub(crate) fn lost(error: sqlx::Error) -> Failure {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .map(|code| code.to_string());
    let refused = match (&error, code.as_deref()) {
        (sqlx::Error::Database(_), Some(code)) => {
            !PASSES.iter().any(|class| code.starts_with(class))
        }
        (
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::Encode(_)
            | sqlx::Error::RowNotFound
            | sqlx::Error::ColumnNotFound(_),
            _,
        ) => true,
        _ => false,
    };
    if refused {
        // Tried again all the same: a statement that is refused for good uses up its attempts, and
        // one that is not must not cost a release.
        return Failure::new(Reason::Internal, "the database refused a statement")
            .retry(Retry::Backoff)
            .caused_by(error);
    }
    Failure::new(Reason::DatabaseUnavailable, "the database cannot be reached")
        .remedy("try again; the operator sees the cause in the log")
        .retry(Retry::Wait(Duration::from_secs(1)))
        .caused_by(error)
}
