//! Transactions with names. A transaction may run twice: one that the database broke off to
//! resolve a conflict is simply tried again.

use std::{future::Future, time::Duration};

use colophon_domain::{Failure, Reason, Result, Retry};

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

/// How often a transaction is tried when the database breaks it off.
const TRIES: u32 = 6;

/// Runs a transaction, again if the database broke it off (`serialization_failure`,
/// `deadlock_detected`).
pub(crate) async fn run<T, F>(name: &'static str, mut work: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T, Fault>>,
{
    let mut tried = 0;
    loop {
        tried += 1;
        match work().await {
            Ok(value) => return Ok(value),
            Err(Fault::Failure(failure)) => return Err(failure),
            Err(Fault::Database(error)) if tried < TRIES && conflicts(&error) => {
                tracing::debug!(transaction = name, tried, "transaction broken off, trying again");
                tokio::time::sleep(Duration::from_millis(u64::from(tried) * 3)).await;
            }
            Err(Fault::Database(error)) => return Err(lost(error)),
        }
    }
}

fn conflicts(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("40001" | "40P01"))
}

/// What a database error means to the rest of Colophon. What the database refused is a defect
/// of ours; anything else is the database being away.
pub(crate) fn lost(error: sqlx::Error) -> Failure {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .map(|code| code.to_string());
    let refused = match (&error, code.as_deref()) {
        // 57: operator intervention, 53: out of resources, 08: connection, 55P03: lock timeout,
        // 25P03: this process stood still within a transaction.
        (sqlx::Error::Database(_), Some(code)) => {
            !["57", "53", "08", "55", "40", "25P03"].iter().any(|class| code.starts_with(class))
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
        return Failure::new(Reason::Internal, "the database refused a statement").caused_by(error);
    }
    Failure::new(Reason::DatabaseUnavailable, "the database cannot be reached")
        .remedy("try again; the operator sees the cause in the log")
        .retry(Retry::Wait(Duration::from_secs(1)))
        .caused_by(error)
}
