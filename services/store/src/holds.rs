//! Holds: times in which nothing is claimed and no move begins, until a person ends them. One begins
//! by itself when the database lives elsewhere than it did, since it may have been restored: an old
//! queue must not move tags back.
//!
//! SQL decides (`on_hold()`), also before any process has noticed. A hold that somebody asks for
//! begins under the gate of freezes, so that no intent follows that has not seen it. Where the
//! database was restored it is a hold of that kind, too, whoever was first.

use colophon_domain::{Failure, Reason, Result, Retry};
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::{
    Store,
    freezes::FREEZE_GATE,
    tx::{self, Bounded as _, Fault},
};

/// In whose name a hold begins by itself.
const ITSELF: &str = "colophon";

/// Why it does.
const RESTORED: &str = "the database lives elsewhere than it did: it was restored, or a standby took \
                        over; what the registries show may be newer than what is recorded";

/// Everything is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The database may have been restored: that was noticed, or somebody has said so.
    pub restored: bool,
    /// Why.
    pub reason: String,
    /// Who began it.
    pub by: String,
    /// Since when.
    pub since: OffsetDateTime,
}

impl Hold {
    /// What whoever has to wait for its end is told.
    pub fn failure(&self) -> Failure {
        on_hold(format!("the service is on hold: {}", self.reason))
    }
}

/// What a job is told that could go on only without a hold.
pub(crate) fn on_hold(text: String) -> Failure {
    Failure::new(Reason::OnHold, text)
        .remedy("the operator compares with the registries and ends the hold")
        .retry(Retry::Wait(std::time::Duration::from_secs(5)))
}

impl Store {
    /// The hold that is in force.
    pub async fn hold(&self) -> Result<Option<Hold>> {
        let held = sqlx::query_scalar!("SELECT on_hold() AS \"held!\"")
            .fetch_one(&self.pool)
            .bounded()
            .await?;
        if held { self.look_for_restore().await } else { Ok(None) }
    }

    /// Writes down where the database lives, at the first time; begins a hold if it lives elsewhere
    /// than it did; and returns the hold that is in force.
    pub async fn look_for_restore(&self) -> Result<Option<Hold>> {
        tx::run("hold.look_for_restore", || async {
            let mut tx = self.pool.begin().await?;
            one_by_one(&mut tx).await?;
            sqlx::query!("UPDATE instance SET lineage = database_lineage() WHERE lineage IS NULL")
                .execute(&mut *tx)
                .await?;
            begin_if_restored(&mut tx).await?;
            let hold = in_force(&mut tx).await?;
            tx.commit().await?;
            Ok(hold)
        })
        .await
    }

    /// Holds everything from now on: when this returns, no intent is committed any more. The hold
    /// is that of a restore where the database lives elsewhere than it did.
    ///
    /// # Errors
    /// `ON_HOLD` if a hold is in force already.
    pub async fn begin_hold(&self, by: &str, reason: &str) -> Result<Hold> {
        tx::run("hold.begin", || async {
            let mut tx = self.pool.begin().await?;
            sqlx::query!("SELECT pg_advisory_xact_lock($1)::text AS gate", FREEZE_GATE)
                .fetch_one(&mut *tx)
                .await?;
            one_by_one(&mut tx).await?;
            let made = sqlx::query!(
                r#"
                INSERT INTO hold (cause, reason, began_by, lineage)
                VALUES ('asked', $1, $2, database_lineage()) ON CONFLICT DO NOTHING
                "#,
                reason,
                by,
            )
            .execute(&mut *tx)
            .await?;
            begin_if_restored(&mut tx).await?;
            let hold = in_force(&mut tx).await?.ok_or_else(nothing_holds)?;
            tx.commit().await?;
            if made.rows_affected() == 0 {
                let text = format!("the service is on hold already: {}", hold.reason);
                return Err(on_hold(text).into());
            }
            Ok(hold)
        })
        .await
    }

    /// Holds everything because somebody knows that the database was restored, which it cannot
    /// always tell itself. A hold that is in force becomes one of a restore and begins anew: it may
    /// have come with what was restored.
    pub async fn begin_restored(&self, by: &str, reason: &str) -> Result<Hold> {
        tx::run("hold.begin_restored", || async {
            let mut tx = self.pool.begin().await?;
            sqlx::query!("SELECT pg_advisory_xact_lock($1)::text AS gate", FREEZE_GATE)
                .fetch_one(&mut *tx)
                .await?;
            one_by_one(&mut tx).await?;
            sqlx::query!(
                r#"
                INSERT INTO hold (cause, reason, began_by, lineage)
                VALUES ('restore', $1, $2, database_lineage())
                ON CONFLICT ((ended_at IS NULL)) WHERE ended_at IS NULL DO UPDATE
                    SET cause = EXCLUDED.cause, reason = EXCLUDED.reason,
                        began_by = EXCLUDED.began_by, began_at = EXCLUDED.began_at,
                        lineage = EXCLUDED.lineage
                "#,
                reason,
                by,
            )
            .execute(&mut *tx)
            .await?;
            sqlx::query!("DELETE FROM restore_finding").execute(&mut *tx).await?;
            let hold = in_force(&mut tx).await?.ok_or_else(nothing_holds)?;
            tx.commit().await?;
            Ok(hold)
        })
        .await
    }

    /// Ends a hold; from now on the database is at home where it lives.
    ///
    /// # Errors
    /// `NOT_FOUND` if no hold is in force, and `ON_HOLD` if it is another one by now: what was
    /// compared for this one says nothing of that.
    pub async fn end_hold(
        &self,
        hold: &Hold,
        by: &str,
        reason: &str,
        kept_queue: bool,
    ) -> Result<()> {
        tx::run("hold.end", || async {
            let mut tx = self.pool.begin().await?;
            one_by_one(&mut tx).await?;
            let ended = sqlx::query!(
                r#"
                UPDATE hold SET ended_at = colophon_now(), ended_by = $1, end_reason = $2,
                       kept_queue = $3
                WHERE ended_at IS NULL AND began_at = $4 AND (cause = 'restore') = $5::bool
                  AND lineage = database_lineage()
                "#,
                by,
                reason,
                kept_queue,
                hold.since,
                hold.restored,
            )
            .execute(&mut *tx)
            .await?;
            if ended.rows_affected() == 0 {
                let other = in_force(&mut tx).await?;
                return Err(other.map_or_else(nothing_holds, |_| began_anew()).into());
            }
            sqlx::query!("UPDATE instance SET lineage = database_lineage()")
                .execute(&mut *tx)
                .await?;
            sqlx::query!("DELETE FROM restore_finding").execute(&mut *tx).await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }
}

/// What is said to who ends a hold that is not there.
pub(crate) fn nothing_holds() -> Failure {
    Failure::new(Reason::NotFound, "the service is not on hold")
}

/// What is said to who ends a hold that is not the one that was looked at.
fn began_anew() -> Failure {
    Failure::new(Reason::OnHold, "another hold has begun meanwhile")
        .remedy("compare once more, and end that one")
}

/// Holds begin and end one after the other. The lock is a statement of its own: what is read next must
/// be seen after it was got, or a hold that has just ended would begin once more.
async fn one_by_one(conn: &mut PgConnection) -> Result<(), Fault> {
    sqlx::query!("SELECT one FROM instance FOR UPDATE").fetch_one(conn).await?;
    Ok(())
}

async fn in_force(conn: &mut PgConnection) -> Result<Option<Hold>, Fault> {
    Ok(sqlx::query_as!(
        Hold,
        r#"
        SELECT cause = 'restore' AS "restored!", reason, began_by AS by, began_at AS since
        FROM hold WHERE ended_at IS NULL
        "#,
    )
    .fetch_optional(conn)
    .await?)
}

/// Begins a hold where the database lives elsewhere than it did. One that came with the database
/// from where it lived before begins anew: what was compared then says nothing of now. One that
/// somebody asked for since, before any process had noticed, must not hide what has happened: it
/// becomes one of a restore.
async fn begin_if_restored(conn: &mut PgConnection) -> Result<(), Fault> {
    let anew = sqlx::query!(
        r#"
        UPDATE hold SET cause = 'restore', reason = $1, began_by = $2, began_at = colophon_now(),
               lineage = database_lineage()
        WHERE ended_at IS NULL AND lineage <> database_lineage()
        "#,
        RESTORED,
        ITSELF,
    )
    .execute(&mut *conn)
    .await?;
    let asked = sqlx::query!(
        r#"
        UPDATE hold SET cause = 'restore', reason = reason || '; ' || $1
        WHERE ended_at IS NULL AND cause = 'asked'
          AND EXISTS (SELECT FROM instance i WHERE i.lineage <> database_lineage())
        "#,
        RESTORED,
    )
    .execute(&mut *conn)
    .await?;
    let begun = sqlx::query!(
        r#"
        INSERT INTO hold (cause, reason, began_by, lineage)
        SELECT 'restore', $1, $2, database_lineage() FROM instance
        WHERE lineage <> database_lineage()
        ON CONFLICT DO NOTHING
        "#,
        RESTORED,
        ITSELF,
    )
    .execute(&mut *conn)
    .await?;
    if anew.rows_affected() + asked.rows_affected() + begun.rows_affected() > 0 {
        sqlx::query!("DELETE FROM restore_finding").execute(&mut *conn).await?;
    }
    Ok(())
}
