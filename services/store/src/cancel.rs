//! Cancelling a release: allowed until it has ended, or its tags are being put back already. What
//! it has moved is put back then, if it was asked to.

use colophon_domain::{Failure, Phase, Reason, Result};
use uuid::Uuid;

use crate::{
    Store, fan_in, rows,
    tx::{self, Fault},
};

impl Store {
    /// Asks a release to stop. Jobs that nobody works on end at once, running ones when their
    /// worker sees it, and one with an interrupted move when its outcome is known. Cancelling a
    /// cancelled release again is no error.
    pub async fn cancel_release(&self, id: Uuid, by: &str, reason: &str) -> Result<()> {
        tx::run("release.cancel", || self.try_cancel(id, by, reason)).await
    }

    async fn try_cancel(&self, id: Uuid, by: &str, reason: &str) -> Result<(), Fault> {
        let mut tx = self.pool.begin().await?;
        // The lock waits for an intent that is being committed; the next one sees the cancel.
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
        if rows::phase(&row.phase)? == Phase::Restore {
            let text = format!("release {id} does not succeed; its tags are being put back");
            return Err(Failure::new(Reason::NotCancellable, text)
                .remedy("wait for its end; if a freeze holds it up, lift that one")
                .into());
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
            if reason.is_empty() {
                format!("cancelled by {by}")
            } else {
                format!("cancelled by {by}: {reason}")
            },
        )
        .execute(&mut *tx)
        .await?;
        // A job that is being claimed right now is left to its worker. One with an open intent
        // stays until there is an outcome: what was moved must be known before it is put back.
        sqlx::query!(
            r#"
            UPDATE job SET state = 'cancelled', ended_at = colophon_now(), waiting_for = NULL,
                   waiting_reason = NULL, blocked_on = NULL
            WHERE id IN (SELECT id FROM job j WHERE release_id = $1 AND state = 'queued'
                           AND NOT EXISTS (SELECT FROM tag_move m
                                           JOIN open_intent i ON i.tag_move_id = m.id
                                           WHERE m.publication_id = j.publication_id)
                         FOR UPDATE OF j SKIP LOCKED)
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
        .remedy("roll the release back, if its tags should be where they were before it")
        .into()
}
