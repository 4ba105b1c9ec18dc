//! Moves whose worker died or stalled: after the deadline and the grace, whoever takes the
//! intent asks the registry and records what it sees. Only then may anyone move that tag again.

use std::time::Duration;

use colophon_domain::{
    Ask, Digest, Failure, HeadState, IfOlder, OrderKey, Purpose, Reason, Reference, Repository,
    Result, Tag, TagKind, TagMoveState,
};
use colophon_ledger::{Kind, Purpose as LedgerPurpose};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Settled, Store,
    append::{Author, Draft, Holder, LockedHead, Look},
    intents::taken,
    outcomes::{close, settle},
    rows,
    tx::{self, Bounded as _, Fault},
    verdicts::{Verdict, put_back, reason_code, verdict},
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
    /// Where it should point; `None` if it is to be deleted.
    pub wanted: Option<Digest>,
    /// The release.
    pub release: Uuid,
    epoch: i32,
    tag_move: Uuid,
    begun_at: OffsetDateTime,
    source: Reference,
    author: Author,
    kind: TagKind,
    ticket: Option<i64>,
    order: Option<OrderKey>,
    purpose: Purpose,
    recorded: LedgerPurpose,
    allow_backward: bool,
    /// Who held the tag before, if it is being put back.
    restore: Option<Holder>,
}

/// How it is known what became of a move.
#[derive(Clone, Copy)]
pub(crate) enum Finding<'a> {
    /// The registry showed it.
    Seen(Look<'a>),
    /// A person says so.
    Told(Option<&'a Digest>, &'a Author),
}

impl DueIntent {
    /// Who holds the tag if the move was made.
    fn holder(&self, head: &HeadState) -> Holder {
        if let Some(before) = &self.restore {
            return before.clone();
        }
        let Some(wanted) = &self.wanted else { return Holder::of(head) };
        let ask = Ask {
            kind: self.kind,
            purpose: self.purpose,
            wanted,
            expected: None,
            planned: false,
            ticket: self.ticket,
            order: self.order.as_ref(),
            if_older: IfOlder::Refuse,
            allow_backward: self.allow_backward,
            highest: None,
        };
        taken(&ask, self.tag_move, head)
    }

    /// What is put back or deleted comes from nowhere.
    fn has_source(&self) -> bool {
        self.restore.is_none() && self.wanted.is_some()
    }

    fn verdict(&self, settled: Settled) -> Verdict<'static> {
        match self.restore {
            Some(_) => put_back(settled, None, None),
            None => verdict(settled, None, None),
        }
    }
}

impl Store {
    /// Takes intents whose time has run out, for `hold`: after that another process may. Taking
    /// one ends its worker's right to write the outcome.
    pub async fn take_due_intents(&self, limit: i64, hold: Duration) -> Result<Vec<DueIntent>> {
        self.take(limit, hold, None).await
    }

    /// Takes the intent of one reference, also from another reconciler, whose look counts no more.
    /// `None` if there is none, or if its PUT may still be under way.
    pub(crate) async fn take_intent(
        &self,
        repository: &Repository,
        tag: &Tag,
        hold: Duration,
    ) -> Result<Option<DueIntent>> {
        Ok(self.take(1, hold, Some((repository, tag))).await?.pop())
    }

    async fn take(
        &self,
        limit: i64,
        hold: Duration,
        only: Option<(&Repository, &Tag)>,
    ) -> Result<Vec<DueIntent>> {
        let rows = sqlx::query!(
            r#"
            WITH due AS (
                SELECT intent_id FROM open_intent
                WHERE CASE WHEN $3::text IS NULL THEN resolve_after <= colophon_now()
                           -- A reconciler had it, so its time has run out before.
                           ELSE registry = $3 AND repository = $4 AND tag = $5
                                AND (epoch > 0 OR resolve_after <= colophon_now()) END
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
                   t.epoch, t.tag_move_id, t.purpose, m.kind, m.ticket, m.order_kind, m.order_value,
                   m.before_ticket, m.before_order_kind, m.before_order_value, m.before_mover,
                   e.at, r.id AS release_id, r.principal, r.on_behalf_of, r.reason,
                   r.purpose AS asked_for, r.allow_backward,
                   COALESCE(m.content_registry, r.source_registry) AS "source_registry!",
                   COALESCE(m.content_repository, r.source_repository) AS "source_repository!",
                   COALESCE(m.content_digest, r.source_digest, r.digest) AS "digest!"
            FROM taken t
            JOIN tag_move m ON m.id = t.tag_move_id
            JOIN audit_entry e ON e.id = t.intent_id
            JOIN release r ON r.id = m.release_id
            "#,
            limit,
            hold.as_secs_f64(),
            only.map(|(repository, _)| repository.registry().as_str()),
            only.map(|(repository, _)| repository.name()),
            only.map(|(_, tag)| tag.as_str()),
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        rows.into_iter()
            .map(|row| {
                let source = rows::repository(&row.source_registry, &row.source_repository)?;
                let before = Holder {
                    ticket: row.before_ticket,
                    order: rows::order(
                        row.before_order_kind.as_deref(),
                        row.before_order_value.as_deref(),
                    )?,
                    mover: row.before_mover,
                };
                Ok(DueIntent {
                    id: row.intent_id,
                    repository: rows::repository(&row.registry, &row.repository)?,
                    tag: rows::tag(&row.tag)?,
                    old: rows::digest_option(row.old_digest.as_deref())?,
                    wanted: rows::digest_option(row.new_digest.as_deref())?,
                    release: row.release_id,
                    epoch: row.epoch,
                    tag_move: row.tag_move_id,
                    kind: rows::tag_kind(&row.kind)?,
                    ticket: row.ticket,
                    order: rows::order(row.order_kind.as_deref(), row.order_value.as_deref())?,
                    purpose: rows::purpose(&row.asked_for)?,
                    recorded: rows::ledger_purpose(&row.purpose)?,
                    allow_backward: row.allow_backward,
                    restore: (row.purpose == "restore").then_some(before),
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
        tx::run("intent.resolve", || self.try_resolve(due, Finding::Seen(look))).await
    }

    pub(crate) async fn try_resolve(
        &self,
        due: &DueIntent,
        finding: Finding<'_>,
    ) -> Result<Settled, Fault> {
        let digest = match finding {
            Finding::Seen(look) => look.digest,
            Finding::Told(digest, _) => digest,
        };
        let settled = Settled::of(digest, due.old.as_ref(), due.wanted.as_ref());
        let kind = match settled {
            Settled::Applied => Kind::Recovered,
            Settled::NotApplied => Kind::NotApplied,
            Settled::Conflict => Kind::Conflict,
        };
        let mut tx = self.pool.begin().await?;
        // Nobody tries again for a release that has ended: a floating tag that did not leave its
        // digest after all does not wait for the tag that was to keep it.
        let over = settled == Settled::NotApplied && release_ended(&mut tx, due.release).await?;
        let mut head = LockedHead::lock(&mut tx, &due.repository, &due.tag).await?;
        close(&mut tx, due.id, due.epoch, &due.repository, &due.tag).await?;
        let window = settled != Settled::NotApplied;
        let draft = Draft {
            new: digest,
            intent: Some(due.id),
            not_before: window.then_some(due.begun_at),
            source: due.has_source().then_some(&due.source),
            release: Some(due.release),
            reason_code: match finding {
                Finding::Seen(_) => reason_code(settled, None),
                Finding::Told(..) => Some(Reason::SettledByHand),
            },
            author: match finding {
                Finding::Seen(_) => Some(&due.author),
                Finding::Told(_, author) => Some(author),
            },
        };
        if let Finding::Seen(look) = finding {
            head.seen(look);
        }
        let holder = match settled {
            Settled::Applied => Some(due.holder(&head.state)),
            Settled::NotApplied => None,
            Settled::Conflict => Some(Holder::disturbed(&head.state)),
        };
        head.append(self, &mut tx, kind, due.recorded, draft, holder).await?;
        if due.wanted.is_some() {
            let verdict = if over { not_attempted() } else { due.verdict(settled) };
            settle(&mut tx, due.tag_move, &verdict, digest).await?;
            self.wake_owner(&mut tx, due.tag_move).await?;
        }
        tx.commit().await?;
        Ok(settled)
    }

    /// The job that waits for this outcome can go on at once.
    async fn wake_owner(&self, conn: &mut PgConnection, tag_move: Uuid) -> Result<(), Fault> {
        sqlx::query!(
            r#"
            UPDATE job SET run_at = colophon_now(), waiting_for = NULL, waiting_reason = NULL
            WHERE id IN (SELECT j.id FROM job j JOIN tag_move m
                             ON m.publication_id = j.publication_id
                                AND (m.kind = j.kind OR j.kind = 'restore' OR m.retention)
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
                                 ON m.publication_id = j.publication_id
                                AND (m.kind = j.kind OR j.kind = 'restore' OR m.retention)
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

fn not_attempted() -> Verdict<'static> {
    Verdict {
        state: TagMoveState::NotAttempted,
        reason: Some(Reason::NotAttempted),
        message: "the release has ended without it",
    }
}

/// Whether a release has ended. One whose last job ends right now is waited for.
async fn release_ended(conn: &mut PgConnection, release: Uuid) -> Result<bool, Fault> {
    let ended = sqlx::query_scalar!(
        r#"SELECT ended_at IS NOT NULL AS "ended!" FROM release WHERE id = $1 FOR SHARE"#,
        release,
    )
    .fetch_one(conn)
    .await?;
    Ok(ended)
}
