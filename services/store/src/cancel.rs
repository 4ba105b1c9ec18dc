//! Cancelling a release: allowed until the first intent is committed.

use colophon_domain::{Failure, Reason, Result};
use uuid::Uuid;

use crate::{
    Store, fan_in, rows,
    tx::{self, Fault},
};

impl Store {
    /// Asks a release to stop. Jobs that nobody has begun end at once, running ones when their
    /// worker sees it. Cancelling a cancelled release again is no error.
    pub async fn cancel_release(&self, id: Uuid, by: &str, reason: &str) -> Result<()> {
        tx::run("cancel_release", || self.try_cancel(id, by, reason)).await
    }

    async fn try_cancel(&self, id: Uuid, by: &str, reason: &str) -> Result<(), Fault> {
        let mut tx = self.pool.begin().await?;
        // The lock waits for an intent that is being committed, and keeps the next one waiting.
        let row = sqlx::query!(
            r#"
            SELECT state, phase, cancel_requested_at IS NOT NULL AS "cancelled!"
            FROM release WHERE id = $1 FOR UPDATE
            "#,
            id,
        )
        .fetch_optional(&mut *tx)
        .await?
        .ok_or_else(|| Failure::new(Reason::NotFound, format!("there is no release {id}")))?;
        if row.cancelled {
            return Ok(());
        }
        let state = rows::release_state(&row.state)?;
        if state.ended() {
            return Err(refusal(format!("release {id} has ended: {state}")));
        }
        let moving = sqlx::query_scalar!(
            r#"
            SELECT EXISTS (SELECT FROM audit_entry WHERE release_id = $1 AND kind = 'intent')
                AS "moving!"
            "#,
            id,
        )
        .fetch_one(&mut *tx)
        .await?;
        if moving {
            return Err(refusal(format!("release {id} is moving its tags already")));
        }
        sqlx::query!(
            r#"
            UPDATE release SET cancel_requested_at = colophon_now(), cancelled_by = $2,
                   cancel_reason = $3, message = $4
            WHERE id = $1
            "#,
            id,
            by,
            reason,
            format!("cancelled by {by}"),
        )
        .execute(&mut *tx)
        .await?;
        // A job that is being claimed right now is left to its worker.
        sqlx::query!(
            r#"
            UPDATE job SET state = 'cancelled', ended_at = colophon_now(), waiting_for = NULL,
                   blocked_on = NULL
            WHERE id IN (SELECT id FROM job WHERE release_id = $1 AND state = 'queued'
                         FOR UPDATE SKIP LOCKED)
            "#,
            id,
        )
        .execute(&mut *tx)
        .await?;
        fan_in::advance(&mut tx, id).await?;
        tx.commit().await?;
        Ok(())
    }
}

fn refusal(message: String) -> Fault {
    Failure::new(Reason::NotCancellable, message)
        .remedy("publish the digest that the tags should have; history shows what they had")
        .into()
}
