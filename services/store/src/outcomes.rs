//! The second transaction of a move: what was observed after the PUT, or that there was nothing
//! to do. It closes the intent, settles the tag and, with the last tag, the job.

use colophon_domain::{
    Decision, Digest, Failure, HeadState, Reason, Repository, Result, Retry, Tag, TagMoveState,
    decide,
};
use colophon_ledger::{Kind, Purpose};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Intent, Move, Store,
    append::{Draft, LockedHead, Look},
    fan_in,
    intents::{fence_shared, may_go_on},
    tx::{self, Bounded as _, Fault},
};

/// What a move came to, as the registry shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The tag is where it should be.
    Applied,
    /// The tag is where it was.
    NotApplied,
    /// The tag is elsewhere, or gone.
    Conflict,
}

impl Settled {
    /// Compares what was observed with what was there and what was wanted.
    pub fn of(observed: Option<&Digest>, old: Option<&Digest>, wanted: &Digest) -> Self {
        if observed == Some(wanted) {
            Self::Applied
        } else if observed == old {
            Self::NotApplied
        } else {
            Self::Conflict
        }
    }
}

/// Whether anything is left to do in the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The tag is settled; the job has other tags, or two were settled at the same moment and
    /// neither saw the other: then [`Store::complete`] ends the job.
    JobGoesOn,
    /// The job is done; other jobs may have become claimable.
    JobDone,
    /// Something was written about the reference since it was looked at: look again.
    Stale,
}

/// The final state of one tag, with its reason for the reader.
pub(crate) struct Verdict<'a> {
    pub(crate) state: TagMoveState,
    pub(crate) reason: Option<Reason>,
    pub(crate) message: &'a str,
}

impl Store {
    /// Writes the outcome of an intent with the observed digest. `refusal` is why the registry
    /// did not take the PUT, if it said so.
    pub async fn finish_move(
        &self,
        step: &Move,
        intent: &Intent,
        look: Look<'_>,
        refusal: Option<&Failure>,
    ) -> Result<Outcome> {
        tx::run("finish_move", || self.try_finish(step, intent, look, refusal)).await
    }

    async fn try_finish(
        &self,
        step: &Move,
        intent: &Intent,
        look: Look<'_>,
        refusal: Option<&Failure>,
    ) -> Result<Outcome, Fault> {
        let settled = Settled::of(look.digest, intent.old.as_ref(), &step.wanted);
        let kind = match settled {
            Settled::Applied => Kind::Confirmed,
            Settled::NotApplied => Kind::NotApplied,
            Settled::Conflict => Kind::Conflict,
        };
        let mut tx = self.pool.begin().await?;
        fence_shared(&mut tx, step.lease).await?;
        let mut head = LockedHead::lock(&mut tx, &step.repository, &step.tag).await?;
        close(&mut tx, intent.id, 0, &step.repository, &step.tag).await?;
        let draft = Draft {
            intent: Some(intent.id),
            reason_code: reason_code(settled, refusal),
            ..step.draft(look.digest)
        };
        head.seen(look);
        let ticket = step.ticket.filter(|_| settled == Settled::Applied);
        head.append(self, &mut tx, kind, Purpose::Publish, draft, ticket).await?;
        let verdict = verdict(settled, refusal);
        settle(&mut tx, step.tag_move, &verdict, look.digest).await?;
        let outcome = self.after_tag(&mut tx, step, &verdict).await?;
        tx.commit().await?;
        Ok(outcome)
    }

    /// Settles a tag that needs no PUT: it is there already, or a rule or a later release keeps
    /// it where it is. The decision is made again under the lock.
    pub async fn settle_without_move(
        &self,
        step: &Move,
        tag_seq: i64,
        look: Look<'_>,
    ) -> Result<Outcome> {
        tx::run("settle_without_move", || self.try_settle(step, tag_seq, look)).await
    }

    async fn try_settle(
        &self,
        step: &Move,
        tag_seq: i64,
        look: Look<'_>,
    ) -> Result<Outcome, Fault> {
        let mut tx = self.pool.begin().await?;
        may_go_on(&mut tx, step.lease).await?;
        let mut head = LockedHead::lock(&mut tx, &step.repository, &step.tag).await?;
        let state = HeadState { moved_ticket: head.moved_ticket };
        let decision = decide(step.kind, &step.wanted, look.digest, step.ticket, state);
        if head.tag_seq != tag_seq || decision == Decision::Move || look.is_stale() {
            return Ok(Outcome::Stale);
        }
        head.observe(self, &mut tx, look).await?;
        let message;
        let verdict = if let Decision::Leave(reason) = decision {
            message = leave_message(reason, step, look.digest);
            head.touch(&mut tx).await?;
            let state = match reason {
                Reason::Superseded => TagMoveState::Superseded,
                _ => TagMoveState::Refused,
            };
            Verdict { state, reason: Some(reason), message: &message }
        } else {
            let draft = step.draft(look.digest);
            head.append(self, &mut tx, Kind::Unchanged, Purpose::Publish, draft, step.ticket)
                .await?;
            Verdict { state: TagMoveState::Unchanged, reason: None, message: "" }
        };
        settle(&mut tx, step.tag_move, &verdict, look.digest).await?;
        // The job is ended by a transaction of its own: this one shares the lock on the release
        // with other jobs of it, and one that shares must never ask for more.
        tx.commit().await?;
        Ok(Outcome::JobGoesOn)
    }

    /// Settles a tag that failed without an intent: the registry could not even be asked for a
    /// reason that stays.
    pub async fn fail_tag(&self, step: &Move, failure: &Failure) -> Result<Outcome> {
        tx::run("fail_tag", || async {
            let mut tx = self.pool.begin().await?;
            fence_shared(&mut tx, step.lease).await?;
            let message = shown(failure);
            let verdict = Verdict {
                state: TagMoveState::Failed,
                reason: Some(failure.reason()),
                message: &message,
            };
            settle(&mut tx, step.tag_move, &verdict, None).await?;
            let outcome = self.after_tag(&mut tx, step, &verdict).await?;
            tx.commit().await?;
            Ok(outcome)
        })
        .await
    }

    /// The answer to a PUT never came: the tag stays blocked until the reconciler has looked.
    pub async fn mark_unknown(&self, step: &Move) -> Result<()> {
        sqlx::query!(
            r#"
            UPDATE tag_move SET state = 'UNKNOWN'
            WHERE id = $1 AND state = 'MOVING'
              AND EXISTS (SELECT FROM job WHERE job.id = $2 AND lease_token = $3 AND job.state = 'running')
            "#,
            step.tag_move,
            step.lease.job,
            step.lease.token,
        )
        .execute(&self.pool)
        .bounded().await?;
        Ok(())
    }

    async fn after_tag(
        &self,
        conn: &mut PgConnection,
        step: &Move,
        verdict: &Verdict<'_>,
    ) -> Result<Outcome, Fault> {
        if !verdict.state.ended() {
            return Ok(Outcome::JobGoesOn);
        }
        if fan_in::tags_left(conn, step.publication, step.job).await? {
            return Ok(Outcome::JobGoesOn);
        }
        fan_in::complete(conn, step.lease.job).await?;
        Ok(Outcome::JobDone)
    }
}

/// Why the entry says what it says.
pub(crate) fn reason_code(settled: Settled, refusal: Option<&Failure>) -> Option<Reason> {
    match settled {
        Settled::Applied => None,
        Settled::NotApplied => refusal.map(Failure::reason),
        Settled::Conflict => Some(Reason::TagMoved),
    }
}

fn verdict(settled: Settled, refusal: Option<&Failure>) -> Verdict<'_> {
    match (settled, refusal) {
        (Settled::Applied, _) => Verdict { state: TagMoveState::Moved, reason: None, message: "" },
        (Settled::Conflict, _) => conflict(),
        (Settled::NotApplied, Some(refusal)) if refusal.retry_class() == Retry::Never => Verdict {
            state: TagMoveState::Failed,
            reason: Some(refusal.reason()),
            message: refusal.message(),
        },
        // It will be tried again, with a new intent.
        (Settled::NotApplied, _) => {
            Verdict { state: TagMoveState::Pending, reason: None, message: "" }
        }
    }
}

pub(crate) fn conflict() -> Verdict<'static> {
    Verdict {
        state: TagMoveState::Failed,
        reason: Some(Reason::TagMoved),
        message: "somebody else moved the tag while it was being moved; see its history",
    }
}

/// A failure's text with its remedy, as one message.
pub(crate) fn shown(failure: &Failure) -> String {
    match failure.remedy_text() {
        Some(remedy) => format!("{}; {remedy}", failure.message()),
        None => failure.message().to_owned(),
    }
}

fn leave_message(reason: Reason, step: &Move, observed: Option<&Digest>) -> String {
    match (reason, observed) {
        (Reason::TagImmutable, Some(other)) => format!(
            "the unique tag {}:{} is at {other} already and never moves; take a new tag, or publish \
             that digest",
            step.repository, step.tag
        ),
        _ => format!(
            "a release that was accepted later has already moved {}:{}; nothing is to be done",
            step.repository, step.tag
        ),
    }
}

/// Somebody else has written the outcome, or this very call did and its answer was lost: the job
/// looks at the tag anew.
fn closed_already() -> Failure {
    Failure::new(Reason::ReferenceBlocked, "the outcome of the move is written already")
        .retry(Retry::Wait(std::time::Duration::ZERO))
}

/// Closes an intent in the name of its holder and makes jobs claimable that waited for the
/// reference; whoever was replaced finds nothing to close.
pub(crate) async fn close(
    conn: &mut PgConnection,
    intent: Uuid,
    epoch: i32,
    repository: &Repository,
    tag: &Tag,
) -> Result<(), Fault> {
    // A job that somebody is claiming is not waited for: the poll will find it.
    let closed = sqlx::query_scalar!(
        r#"
        WITH closed AS (
            DELETE FROM open_intent WHERE intent_id = $1 AND epoch = $2 RETURNING intent_id
        ), woken AS (
            UPDATE job SET run_at = colophon_now(), blocked_on = NULL
            WHERE id IN (SELECT id FROM job WHERE blocked_on = $3 AND state = 'queued'
                         FOR UPDATE SKIP LOCKED)
        )
        SELECT EXISTS (SELECT FROM closed) AS "closed!"
        "#,
        intent,
        epoch,
        blocked_on(repository, tag),
    )
    .fetch_one(conn)
    .await?;
    if closed { Ok(()) } else { Err(closed_already().into()) }
}

/// The text by which a job says which reference it waits for.
pub(crate) fn blocked_on(repository: &Repository, tag: &Tag) -> String {
    format!("{repository}:{tag}")
}

/// Writes the state of one tag.
pub(crate) async fn settle(
    conn: &mut PgConnection,
    tag_move: Uuid,
    verdict: &Verdict<'_>,
    observed: Option<&Digest>,
) -> Result<(), Fault> {
    sqlx::query!(
        r#"
        UPDATE tag_move SET state = $2, reason_code = $3, message = $4,
               old_digest = CASE WHEN state = 'PENDING' THEN $5 ELSE old_digest END,
               new_digest = COALESCE($5, new_digest),
               ended_at = CASE WHEN $6 THEN colophon_now() END
        WHERE id = $1
        "#,
        tag_move,
        verdict.state.as_str(),
        verdict.reason.map(Reason::as_str),
        verdict.message,
        observed.map(Digest::as_str),
        verdict.state.ended(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
