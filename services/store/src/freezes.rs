//! Freezes: times in which no tag of the repositories that they cover is moved.
//!
//! Every intent is committed under a shared lock of one gate, and a freeze under the exclusive one:
//! when a freeze is there, no intent can follow that has not seen it.

use colophon_domain::{Failure, FreezeRequest, FreezeView, Lifted, Reason, Result};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Store, rows,
    tx::{self, Bounded as _, Fault},
};

/// The key of the gate's advisory lock. It is held within transactions only, so that it works
/// behind a pooler too.
pub(crate) const FREEZE_GATE: i64 = 0x636f_6c6f_7068_6f6e;

/// What jobs that wait for the end of a freeze are blocked on.
pub(crate) const FREEZES: &str = "freezes";

/// Freezes of one caller that hold at the same time: more are a mistake of a script.
const HELD_MOST: i64 = 100;
/// Freezes that have ended and are shown, the newest first. Those that hold are all shown.
const ENDED_SHOWN: i64 = 200;

struct Row {
    id: Uuid,
    pattern: String,
    reason: String,
    principal: String,
    created_at: OffsetDateTime,
    ends_at: OffsetDateTime,
    lifted_at: Option<OffsetDateTime>,
    lifted_by: Option<String>,
    lift_reason: String,
    active: bool,
}

impl Row {
    fn view(self) -> Result<FreezeView> {
        Ok(FreezeView {
            id: self.id,
            pattern: rows::pattern(&self.pattern)?,
            reason: self.reason,
            actor: self.principal,
            created_at: self.created_at,
            ends_at: self.ends_at,
            lifted: self.lifted_at.zip(self.lifted_by).map(|(at, by)| Lifted {
                at,
                by,
                reason: self.lift_reason,
            }),
            active: self.active,
        })
    }
}

fn too_many() -> Failure {
    Failure::new(Reason::RateLimited, format!("{HELD_MOST} freezes of this caller hold already"))
        .remedy("lift those that are not needed any more, or freeze a wider pattern")
}

impl Store {
    /// Stops moves from now on: when this returns, no intent is committed any more that has not
    /// seen the freeze.
    pub async fn create_freeze(&self, principal: &str, request: &FreezeRequest) -> Result<Uuid> {
        let id = self.entropy.uuid();
        tx::run("freeze.create", || async {
            let mut tx = self.pool.begin().await?;
            sqlx::query!("SELECT pg_advisory_xact_lock($1)::text AS gate", FREEZE_GATE)
                .fetch_one(&mut *tx)
                .await?;
            let made = sqlx::query!(
                r#"
                INSERT INTO tag_freeze (id, pattern, reason, principal, ends_at)
                SELECT $1, $2, $3, $4, $5
                WHERE (SELECT count(*) FROM tag_freeze
                       WHERE principal = $4 AND lifted_at IS NULL AND ends_at > colophon_now()
                         AND id <> $1) < $6
                ON CONFLICT (id) DO UPDATE SET id = EXCLUDED.id
                "#,
                id,
                request.pattern.to_string(),
                request.reason,
                principal,
                request.ends_at,
                HELD_MOST,
            )
            .execute(&mut *tx)
            .await?;
            if made.rows_affected() == 0 {
                return Err(too_many().into());
            }
            tx.commit().await?;
            Ok::<Uuid, Fault>(id)
        })
        .await
    }

    /// Ends a freeze before its time and makes the jobs claimable that waited for it.
    pub async fn lift_freeze(&self, id: Uuid, by: &str, reason: &str) -> Result<()> {
        tx::run("freeze.lift", || async {
            let mut tx = self.pool.begin().await?;
            sqlx::query!(
                r#"
                UPDATE tag_freeze
                SET lifted_at = colophon_now(), lifted_by = $2, lift_reason = $3
                WHERE id = $1 AND lifted_at IS NULL AND ends_at > colophon_now()
                "#,
                id,
                by,
                reason,
            )
            .execute(&mut *tx)
            .await?;
            // Whoever is covered by another freeze waits on; a job that somebody is claiming is
            // left to the poll.
            sqlx::query!(
                r#"
                UPDATE job SET run_at = colophon_now(), blocked_on = NULL, waiting_for = NULL,
                       waiting_reason = NULL
                WHERE id IN (SELECT id FROM job WHERE blocked_on = $1 AND state = 'queued'
                             FOR UPDATE SKIP LOCKED)
                "#,
                FREEZES,
            )
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok::<(), Fault>(())
        })
        .await
    }

    /// One freeze.
    pub async fn freeze(&self, id: Uuid) -> Result<Option<FreezeView>> {
        let row = sqlx::query_as!(
            Row,
            r#"
            SELECT id, pattern, reason, principal, created_at, ends_at, lifted_at, lifted_by,
                   lift_reason, (lifted_at IS NULL AND ends_at > colophon_now()) AS "active!"
            FROM tag_freeze WHERE id = $1
            "#,
            id,
        )
        .fetch_optional(&self.pool)
        .bounded()
        .await?;
        row.map(Row::view).transpose()
    }

    /// The freezes that hold, newest first, and on request the newest of those that have ended.
    pub async fn freezes(&self, include_ended: bool) -> Result<Vec<FreezeView>> {
        let rows = sqlx::query_as!(
            Row,
            r#"
            WITH held AS (
                SELECT * FROM tag_freeze WHERE lifted_at IS NULL AND ends_at > colophon_now()
            ), ended AS (
                SELECT * FROM tag_freeze
                WHERE $1 AND NOT (lifted_at IS NULL AND ends_at > colophon_now())
                ORDER BY id DESC LIMIT $2
            )
            SELECT id AS "id!", pattern AS "pattern!", reason AS "reason!",
                   principal AS "principal!", created_at AS "created_at!", ends_at AS "ends_at!",
                   lifted_at, lifted_by, lift_reason AS "lift_reason!", active AS "active!"
            FROM (SELECT *, true AS active FROM held UNION ALL SELECT *, false FROM ended) f
            ORDER BY active DESC, id DESC
            "#,
            include_ended,
            ENDED_SHOWN,
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        rows.into_iter().map(Row::view).collect()
    }
}
