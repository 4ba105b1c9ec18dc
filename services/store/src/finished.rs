//! Letting go of what has ended long ago: jobs with their attempts, and idempotency keys. Releases,
//! their tags and the ledger stay.

use std::time::Duration;

use colophon_domain::Result;
use sqlx::PgConnection;

use crate::{
    Store,
    tx::{self, Fault},
};

/// The key of the advisory lock under which one process at a time lets go of something.
const TIDYING: i64 = 0x636f_6c6f_7469_6479;

impl Store {
    /// Lets go of up to `limit` jobs of releases that ended so long ago, with their attempts.
    /// `None` if another process is at it.
    pub async fn forget_jobs(&self, age: Duration, limit: i64) -> Result<Option<u64>> {
        tx::run("jobs.forget", || async {
            let mut tx = self.pool.begin().await?;
            if !alone(&mut tx).await? {
                return Ok(None);
            }
            let done = sqlx::query!(
                r#"
                WITH old AS (
                    SELECT j.id FROM job j JOIN release r ON r.id = j.release_id
                    WHERE j.ended_at < (SELECT colophon_now() - $1::float8 * interval '1 second')
                      AND r.ended_at < (SELECT colophon_now() - $1::float8 * interval '1 second')
                    ORDER BY j.ended_at LIMIT $2
                    -- The release, too: one that is put to work again meanwhile has not ended.
                    FOR UPDATE OF j, r SKIP LOCKED
                ), tried AS (
                    DELETE FROM attempt a USING old WHERE a.job_id = old.id
                )
                DELETE FROM job USING old WHERE job.id = old.id
                "#,
                age.as_secs_f64(),
                limit,
            )
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(Some(done.rows_affected()))
        })
        .await
    }

    /// Lets go of up to `limit` idempotency keys of releases that ended so long ago. `None` if
    /// another process is at it.
    pub async fn forget_keys(&self, age: Duration, limit: i64) -> Result<Option<u64>> {
        tx::run("keys.forget", || async {
            let mut tx = self.pool.begin().await?;
            if !alone(&mut tx).await? {
                return Ok(None);
            }
            let done = sqlx::query!(
                r#"
                WITH old AS (
                    SELECT k.principal, k.key
                    FROM idempotency_key k JOIN release r ON r.id = k.release_id
                    WHERE k.created_at < (SELECT colophon_now() - $1::float8 * interval '1 second')
                      AND r.ended_at < (SELECT colophon_now() - $1::float8 * interval '1 second')
                    ORDER BY k.created_at LIMIT $2
                    FOR UPDATE OF k SKIP LOCKED FOR SHARE OF r SKIP LOCKED
                )
                DELETE FROM idempotency_key k USING old
                WHERE k.principal = old.principal AND k.key = old.key
                "#,
                age.as_secs_f64(),
                limit,
            )
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(Some(done.rows_affected()))
        })
        .await
    }
}

/// Whether nobody else is at it, until the transaction ends.
pub(crate) async fn alone(conn: &mut PgConnection) -> Result<bool, Fault> {
    Ok(sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock($1) AS "alone!""#, TIDYING)
        .fetch_one(conn)
        .await?)
}
