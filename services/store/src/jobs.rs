//! The ends of an attempt that did not finish its job: wait, try again, stop, give up.

use std::time::Duration;

use colophon_domain::{Failure, Reason, Repository, Result, Retry, Tag};
use sqlx::PgConnection;

use crate::{
    Claimed, Lease, Store, fan_in,
    freezes::FREEZES,
    intents::fence,
    outcomes::blocked_on,
    tx::{self, Bounded as _, Fault},
};

/// What became of giving up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GaveUp {
    /// The job has failed.
    Yes,
    /// A move of this job has no outcome yet; the job goes back into the queue until it has.
    NotYet,
}

/// Why a job goes back into the queue without an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What it waits for, in words.
    pub what: String,
    /// The documented reason, if one applies.
    pub reason: Option<Reason>,
    /// Who wakes it: the reference whose outcome is awaited, or the end of freezes.
    pub blocked_on: Option<String>,
    /// When it is looked at without being woken.
    pub delay: Duration,
}

impl Waiting {
    /// For anything that comes by itself.
    pub fn on(what: impl Into<String>, reason: Option<Reason>, delay: Duration) -> Self {
        Self { what: what.into(), reason, blocked_on: None, delay }
    }

    /// For the outcome of a move of this reference.
    pub fn on_reference(what: String, of: (&Repository, &Tag), delay: Duration) -> Self {
        let reason = Some(Reason::ReferenceBlocked);
        Self { what, reason, blocked_on: Some(blocked_on(of.0, of.1)), delay }
    }

    /// For the end of a freeze.
    pub fn on_freeze(what: String, delay: Duration) -> Self {
        let reason = Some(Reason::Frozen);
        Self { what, reason, blocked_on: Some(FREEZES.to_owned()), delay }
    }
}

impl Store {
    /// Puts a job back into the queue; waiting uses up no attempt. Its release's `not_after` ends
    /// the wait early, so that a release that is late says so at once. A job that was late when it
    /// was claimed has something to wait for in spite of it, as has one that puts tags back.
    pub async fn wait(&self, lease: Lease, waiting: &Waiting) -> Result<()> {
        let mut connection = self.pool.acquire().bounded().await?;
        requeue(&mut connection, lease, waiting).bounded().await
    }

    /// The same after an attempt of which nobody knows yet what became.
    pub async fn wait_after(
        &self,
        lease: Lease,
        waiting: &Waiting,
        failure: &Failure,
    ) -> Result<()> {
        tx::run("job.wait_after", || async {
            let mut tx = self.pool.begin().await?;
            fence(&mut tx, lease).await?;
            record_attempt(&mut tx, lease, failure).await?;
            sqlx::query!("UPDATE job SET failures = failures + 1 WHERE id = $1", lease.job)
                .execute(&mut *tx)
                .await?;
            requeue(&mut tx, lease, waiting).await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    /// Puts a job back into the queue after an attempt that did not work.
    pub async fn retry(&self, lease: Lease, failure: &Failure, delay: Duration) -> Result<()> {
        tx::run("job.retry", || async {
            let mut tx = self.pool.begin().await?;
            fence(&mut tx, lease).await?;
            record_attempt(&mut tx, lease, failure).await?;
            sqlx::query!(
                r#"
                UPDATE job SET state = 'queued', lease_token = NULL, lease_expires_at = NULL,
                       failures = failures + 1, waiting_for = 'the next attempt',
                       waiting_reason = $3, run_at = colophon_now() + $2::float8 * interval '1 second'
                WHERE id = $1
                "#,
                lease.job,
                delay.as_secs_f64(),
                failure.reason().as_str(),
            )
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    /// Gives a job up: what is left of its tags fails, and the release with it. `failure` is how
    /// the last attempt ended, `verdict` why there is no further one.
    pub async fn give_up(
        &self,
        job: &Claimed,
        failure: &Failure,
        verdict: &Failure,
    ) -> Result<GaveUp> {
        tx::run("job.give_up", || async {
            let mut tx = self.pool.begin().await?;
            fence(&mut tx, job.lease).await?;
            if move_is_open(&mut tx, job).await? {
                return Ok(GaveUp::NotYet);
            }
            record_attempt(&mut tx, job.lease, failure).await?;
            fan_in::doom(&mut tx, job.publication, job.kind, verdict, &verdict.explained()).await?;
            fan_in::end(&mut tx, job.lease.job, "failed").await?;
            tx.commit().await?;
            Ok(GaveUp::Yes)
        })
        .await
    }

    /// Ends a job because its release was cancelled or is failing.
    pub async fn stop(&self, job: &Claimed) -> Result<GaveUp> {
        tx::run("job.stop", || async {
            let mut tx = self.pool.begin().await?;
            fence(&mut tx, job.lease).await?;
            if move_is_open(&mut tx, job).await? {
                return Ok(GaveUp::NotYet);
            }
            fan_in::end(&mut tx, job.lease.job, "cancelled").await?;
            tx.commit().await?;
            Ok(GaveUp::Yes)
        })
        .await
    }

    /// Ends a job of tags all of which are settled already, by an attempt before this one or by
    /// the reconciler.
    pub async fn complete(&self, job: &Claimed) -> Result<()> {
        tx::run("job.complete", || async {
            let mut tx = self.pool.begin().await?;
            fence(&mut tx, job.lease).await?;
            if fan_in::tags_left(&mut tx, job.publication, job.kind).await? {
                let text = "a job has unsettled tags";
                return Err(Failure::new(Reason::Internal, text).retry(Retry::Backoff).into());
            }
            fan_in::complete(&mut tx, job.lease.job).await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }
}

async fn move_is_open(conn: &mut PgConnection, job: &Claimed) -> Result<bool, Fault> {
    Ok(sqlx::query_scalar!(
        r#"
        SELECT EXISTS (SELECT FROM tag_move m JOIN open_intent i ON i.tag_move_id = m.id
                       WHERE m.publication_id = $1 AND (m.kind = $2 OR $2 = 'restore' OR m.retention)) AS "open!"
        "#,
        job.publication,
        job.kind.as_str(),
    )
    .fetch_one(conn)
    .await?)
}

async fn record_attempt(
    conn: &mut PgConnection,
    lease: Lease,
    failure: &Failure,
) -> Result<(), Fault> {
    sqlx::query!(
        r#"
        INSERT INTO attempt (job_id, number, worker, reason_code, message, started_at)
        SELECT id, failures + 1, COALESCE(worker, ''), $2, $3, COALESCE(claimed_at, colophon_now())
        FROM job WHERE id = $1
        "#,
        lease.job,
        failure.reason().as_str(),
        failure.explained(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Puts a job back into the queue.
async fn requeue(
    conn: &mut PgConnection,
    lease: Lease,
    waiting: &Waiting,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        UPDATE job SET state = 'queued', lease_token = NULL, lease_expires_at = NULL,
               waiting_for = $3, blocked_on = $4, waiting_reason = $6,
               run_at = LEAST(colophon_now() + $5::float8 * interval '1 second',
                              CASE WHEN r.not_after > colophon_now() THEN r.not_after END)
        FROM release r
        WHERE job.id = $1 AND lease_token = $2 AND job.state = 'running'
          AND r.id = job.release_id
        "#,
        lease.job,
        lease.token,
        waiting.what,
        waiting.blocked_on,
        waiting.delay.as_secs_f64(),
        waiting.reason.map(Reason::as_str),
    )
    .execute(conn)
    .await?;
    Ok(())
}
