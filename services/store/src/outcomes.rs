//! The second transaction of a move: what was observed after the PUT, or that there was nothing
//! to do. It closes the intent, settles the tag and, with the last tag, the job.

use colophon_domain::{
    Decision, Digest, Failure, Reason, Repository, Result, Retry, Tag, TagMoveState,
};
use colophon_ledger::Kind;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Intent, Move, Role, Store,
    append::{Draft, Holder, LockedHead, Look},
    fan_in,
    intents::{decision_recorded, fence_shared, may_go_on},
    metrics::{self, Deed},
    put_back,
    tx::{self, Bounded as _, Fault},
    verdicts::{self, Settled, Verdict, reason_code, verdict, why},
};

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
        tx::run("move.finish", || self.try_finish(step, intent, look, refusal)).await
    }

    async fn try_finish(
        &self,
        step: &Move,
        intent: &Intent,
        look: Look<'_>,
        refusal: Option<&Failure>,
    ) -> Result<Outcome, Fault> {
        let settled = Settled::of(look.digest, intent.old.as_ref(), Some(&step.wanted));
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
        let holder = match settled {
            Settled::Applied => Some(step.holder(&head.state)),
            Settled::NotApplied => None,
            Settled::Conflict => Some(Holder::disturbed(&head.state)),
        };
        head.append(self, &mut tx, kind, step.purpose(), draft, holder).await?;
        let message = refusal.map(|refusal| refused(step, refusal));
        let verdict = match &step.restore {
            Some(_) => verdicts::put_back(settled, refusal, message.as_deref()),
            None => verdict(settled, refusal, message.as_deref()),
        };
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
        tx::run("tag.settle", || self.try_settle(step, tag_seq, look)).await
    }

    async fn try_settle(
        &self,
        step: &Move,
        tag_seq: i64,
        look: Look<'_>,
    ) -> Result<Outcome, Fault> {
        let mut tx = self.pool.begin().await?;
        may_go_on(&mut tx, step).await?;
        let mut head = LockedHead::lock(&mut tx, &step.repository, &step.tag).await?;
        if step.restore.is_some() {
            put_back::still_wanted(&mut tx, step).await?;
        }
        let decision = step.decide(look.digest, &head.state);
        if head.tag_seq != tag_seq || decision == Decision::Move || look.is_stale() {
            return Ok(Outcome::Stale);
        }
        head.observe(self, &mut tx, look).await?;
        let message;
        let verdict = if let Decision::Leave(state, reason) = decision {
            message = why(step, reason, look.digest, &head.state);
            head.touch(&mut tx).await?;
            // What stays after a restore is not known to be wrong: whoever has it next finds it so.
            if step.restore.as_ref().is_some_and(|restore| !restore.kept) {
                put_back::pass_on(&mut tx, step).await?;
            }
            match state {
                // It was never moved, so nothing is to be said about going back.
                TagMoveState::Unchanged => Verdict::bare(state),
                _ => Verdict { state, reason: Some(reason), message: &message },
            }
        } else {
            let (before, holder) = (Holder::of(&head.state), step.holder(&head.state));
            if step.restore.is_none() {
                put_back::claimed(&mut tx, step, &before).await?;
            }
            let draft = Draft {
                reason_code: decision_recorded(step, &head).filter(|_| !head.frozen),
                ..step.draft(look.digest)
            };
            head.append(self, &mut tx, Kind::Unchanged, step.purpose(), draft, Some(holder))
                .await?;
            match &step.restore {
                // It did not go anywhere, only back to whoever held it.
                Some(restore) if !restore.found || restore.moved_to != step.wanted => {
                    verdicts::put_back(Settled::Applied, None, None)
                }
                _ => Verdict::bare(TagMoveState::Unchanged),
            }
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
        tx::run("tag.fail", || async {
            let mut tx = self.pool.begin().await?;
            fence_shared(&mut tx, step.lease).await?;
            let state = match step.restore {
                Some(_) => step.stays(),
                None => TagMoveState::Failed,
            };
            let message = refused(step, failure);
            let verdict = Verdict { state, reason: Some(failure.reason()), message: &message };
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
        // A copy has more to do than its tags.
        if !verdict.state.ended() || step.role == Role::Companion {
            return Ok(Outcome::JobGoesOn);
        }
        if fan_in::tags_left(conn, step.publication, step.job).await? {
            return Ok(Outcome::JobGoesOn);
        }
        fan_in::complete(conn, step.lease.job).await?;
        Ok(Outcome::JobDone)
    }
}

/// Why a tag was not moved or not put back, in words.
fn refused(step: &Move, failure: &Failure) -> String {
    let text = failure.explained();
    if step.restore.is_some() { format!("the tag was not put back: {text}") } else { text }
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
            UPDATE job SET run_at = colophon_now(), blocked_on = NULL, waiting_for = NULL,
                   waiting_reason = NULL
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
        UPDATE tag_move SET state = $2, reason_code = $3,
               -- Why it moves was written with the intent.
               message = CASE WHEN $2 = 'MOVED' AND $4 = '' THEN message ELSE $4 END,
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
    if verdict.state.ended() {
        metrics::note(Deed::Tags(verdict.state, 1));
    }
    Ok(())
}
