//! Moves whose worker died or stalled: after the deadline and the grace, whoever takes the
//! intent asks the registry and records what it sees. Only then may anyone move that tag again.

use std::time::Duration;

use colophon_domain::{Digest, Failure, Reason, Reference, Repository, Result, Tag, TagMoveState};
use colophon_ledger::{Kind, Purpose};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Settled, Store,
    append::{Author, Draft, LockedHead, Look},
    outcomes::{Verdict, close, conflict, reason_code, settle},
    rows,
    tx::{self, Bounded as _, Fault},
};

/// An intent without an outcome that this process has taken to look after.
#[derive(Debug, Clone)]
pub struct DueIntent {
    /// The intent's entry.
    pub id: Uuid,
    /// The reference.
    pub repository: Repository,
    /// The reference's tag.
    pub tag: Tag,
    /// What it pointed to.
    pub old: Option<Digest>,
    /// Where it should point.
    pub wanted: Digest,
    /// The release.
    pub release: Uuid,
    epoch: i32,
    tag_move: Uuid,
    ticket: Option<i64>,
    begun_at: OffsetDateTime,
    source: Reference,
    author: Author,
}

impl Store {
    /// Takes intents whose time has run out, for `hold`: after that another process may. Taking
    /// one ends its worker's right to write the outcome.
    pub async fn take_due_intents(&self, limit: i64, hold: Duration) -> Result<Vec<DueIntent>> {
        let rows = sqlx::query!(
            r#"
            WITH due AS (
                SELECT intent_id FROM open_intent WHERE resolve_after <= colophon_now()
                ORDER BY resolve_after LIMIT $1 FOR UPDATE SKIP LOCKED
            ), taken AS (
                UPDATE open_intent i
                SET epoch = i.epoch + 1,
                    resolve_after = colophon_now() + $2::float8 * interval '1 second'
                FROM due WHERE i.intent_id = due.intent_id
                RETURNING i.*
            ), unknown AS (
                UPDATE tag_move SET state = 'UNKNOWN'
                WHERE id IN (SELECT tag_move_id FROM taken) AND state = 'MOVING'
            )
            SELECT t.intent_id, t.registry, t.repository, t.tag, t.old_digest, t.new_digest,
                   t.epoch, t.tag_move_id, m.ticket, e.at, r.id AS release_id, r.source_registry,
                   r.source_repository, r.digest, r.principal, r.on_behalf_of, r.reason
            FROM taken t
            JOIN tag_move m ON m.id = t.tag_move_id
            JOIN audit_entry e ON e.id = t.intent_id
            JOIN release r ON r.id = m.release_id
            "#,
            limit,
            hold.as_secs_f64(),
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        rows.into_iter()
            .map(|row| {
                let source = rows::repository(&row.source_registry, &row.source_repository)?;
                Ok(DueIntent {
                    id: row.intent_id,
                    repository: rows::repository(&row.registry, &row.repository)?,
                    tag: rows::tag(&row.tag)?,
                    old: rows::digest_option(row.old_digest.as_deref())?,
                    wanted: rows::digest(&row.new_digest)?,
                    release: row.release_id,
                    epoch: row.epoch,
                    tag_move: row.tag_move_id,
                    ticket: row.ticket,
                    begun_at: row.at,
                    source: Reference::digest(source, rows::digest(&row.digest)?),
                    author: Author {
                        principal: row.principal,
                        on_behalf_of: row.on_behalf_of,
                        reason: row.reason,
                    },
                })
            })
            .collect()
    }

    /// How long until the next intent's time runs out; `None` if none is open.
    pub async fn next_intent_due(&self) -> Result<Option<Duration>> {
        let seconds = sqlx::query_scalar!(
            r#"
            SELECT EXTRACT(EPOCH FROM min(resolve_after) - colophon_now())::float8 FROM open_intent
            "#,
        )
        .fetch_one(&self.pool)
        .bounded()
        .await?;
        Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
    }

    /// Records what the registry shows for a taken intent, and wakes the job that waits for it.
    pub async fn resolve(&self, due: &DueIntent, look: Look<'_>) -> Result<Settled> {
        tx::run("resolve", || self.try_resolve(due, look)).await
    }

    async fn try_resolve(&self, due: &DueIntent, look: Look<'_>) -> Result<Settled, Fault> {
        let settled = Settled::of(look.digest, due.old.as_ref(), &due.wanted);
        let (kind, verdict) = match settled {
            Settled::Applied => {
                (Kind::Recovered, Verdict { state: TagMoveState::Moved, reason: None, message: "" })
            }
            Settled::NotApplied => (
                Kind::NotApplied,
                Verdict { state: TagMoveState::Pending, reason: None, message: "" },
            ),
            Settled::Conflict => (Kind::Conflict, conflict()),
        };
        let mut tx = self.pool.begin().await?;
        let mut head = LockedHead::lock(&mut tx, &due.repository, &due.tag).await?;
        close(&mut tx, due.id, due.epoch, &due.repository, &due.tag).await?;
        let window = settled != Settled::NotApplied;
        let draft = Draft {
            new: look.digest,
            intent: Some(due.id),
            not_before: window.then_some(due.begun_at),
            source: Some(&due.source),
            release: Some(due.release),
            reason_code: reason_code(settled, None),
            author: Some(&due.author),
        };
        head.seen(look);
        let ticket = due.ticket.filter(|_| settled == Settled::Applied);
        head.append(self, &mut tx, kind, Purpose::Publish, draft, ticket).await?;
        settle(&mut tx, due.tag_move, &verdict, look.digest).await?;
        self.wake_owner(&mut tx, due.tag_move).await?;
        tx.commit().await?;
        Ok(settled)
    }

    /// The job that waits for this outcome can go on at once.
    async fn wake_owner(&self, conn: &mut PgConnection, tag_move: Uuid) -> Result<(), Fault> {
        sqlx::query!(
            r#"
            UPDATE job SET run_at = colophon_now()
            WHERE id IN (SELECT j.id FROM job j JOIN tag_move m
                             ON m.publication_id = j.publication_id AND m.kind = j.kind
                         WHERE m.id = $1 AND j.state = 'queued' FOR UPDATE OF j SKIP LOCKED)
            "#,
            tag_move,
        )
        .execute(conn)
        .await?;
        Ok(())
    }

    /// The registry could not be asked: somebody looks again after `delay`, and whoever waits for
    /// the job is told why.
    pub async fn look_later(&self, due: &DueIntent, why: &str, delay: Duration) -> Result<()> {
        let done = sqlx::query!(
            r#"
            WITH told AS (
                UPDATE job SET waiting_for = $4
                WHERE id IN (SELECT j.id FROM job j JOIN tag_move m
                                 ON m.publication_id = j.publication_id AND m.kind = j.kind
                             WHERE m.id = $5 AND j.state = 'queued' FOR UPDATE OF j SKIP LOCKED)
            )
            UPDATE open_intent SET resolve_after = colophon_now() + $3::float8 * interval '1 second'
            WHERE intent_id = $1 AND epoch = $2
            "#,
            due.id,
            due.epoch,
            delay.as_secs_f64(),
            format!("the outcome of an interrupted move of {}:{}: {why}", due.repository, due.tag),
            due.tag_move,
        )
        .execute(&self.pool)
        .bounded()
        .await?;
        if done.rows_affected() == 1 {
            return Ok(());
        }
        Err(Failure::new(Reason::LeaseLost, "another process looks after the intent now"))
    }
}
