//! The first transaction of a move: the intent. It is committed before the PUT is sent, so that
//! nothing reaches a registry of which the ledger does not know, and its row is the lock on the
//! reference until there is an outcome.

use std::time::Duration;

use colophon_domain::{
    Ask, Decision, Digest, Expected, Failure, HeadState, IfOlder, JobKind, Line, OrderKey, Purpose,
    Reason, Reference, Repository, Result, Tag, TagKind, TagMoveState, Version, decide,
    decide_restore, explain_move, goes_back, order_after,
};
use colophon_ledger::{Kind, Purpose as LedgerPurpose};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Lease, Store,
    append::{Author, Draft, Holder, LockedHead, Look},
    freezes::FREEZE_GATE,
    holds::on_hold,
    put_back, rows,
    tx::{self, Fault},
};

/// One tag of a job whose turn has come.
#[derive(Debug, Clone)]
pub struct Move {
    /// The right to do it.
    pub lease: Lease,
    /// The release.
    pub release: Uuid,
    /// The target of it.
    pub publication: Uuid,
    /// The tag of it.
    pub tag_move: Uuid,
    /// The job's kind.
    pub job: JobKind,
    /// Unique or floating.
    pub kind: TagKind,
    /// The repository.
    pub repository: Repository,
    /// The tag.
    pub tag: Tag,
    /// The order of acceptance.
    pub ticket: Option<i64>,
    /// Where the tag should point.
    pub wanted: Digest,
    /// Where the content comes from, by digest.
    pub source: Reference,
    /// Who asked, and why.
    pub author: Author,
    /// The conditions under which it may move.
    pub terms: Terms,
    /// The tag is to be put back.
    pub restore: Option<Restore>,
    /// Whose wish it is that the tag moves.
    pub role: Role,
}

/// Whose wish it is that a tag moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The caller's.
    Asked,
    /// The configuration's: it keeps a digest that a floating tag leaves.
    Retention,
    /// The content's: the tag belongs to what was copied.
    Companion,
}

/// The conditions under which a tag may move.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Why it is moved.
    pub purpose: Purpose,
    /// Where it must be.
    pub expected: Option<Expected>,
    /// What was expected is what a plan showed.
    pub planned: bool,
    /// What orders its builds in place of the ticket.
    pub order: Option<OrderKey>,
    /// What becomes of it where a newer build has it.
    pub if_older: IfOlder,
    /// It may go back behind a newer build.
    pub allow_backward: bool,
    /// It moves in spite of a freeze.
    pub break_glass: bool,
    /// The versions of which the release's must be the highest.
    pub line: Option<Line>,
    /// The highest of them that is there; whoever looked writes it here.
    pub highest: Option<Version>,
}

/// What a tag that is to be put back was moved to, and who held it before.
#[derive(Debug, Clone)]
pub struct Restore {
    /// Where the release moved it.
    pub moved_to: Digest,
    /// It was there already.
    pub(crate) found: bool,
    /// It stays all the same: the database was restored since.
    pub(crate) kept: bool,
    pub(crate) before: Holder,
}

impl Move {
    /// What the rules are asked.
    pub fn ask(&self) -> Ask<'_> {
        Ask {
            kind: self.kind,
            purpose: self.terms.purpose,
            wanted: &self.wanted,
            expected: self.terms.expected.as_ref(),
            planned: self.terms.planned,
            ticket: self.ticket,
            order: self.terms.order.as_ref(),
            if_older: self.terms.if_older,
            allow_backward: self.terms.allow_backward,
            highest: self.terms.highest.as_ref(),
        }
    }

    /// What happens to the tag, given what the registry shows and who holds it. A tag that is to
    /// be put back and is not ours any more stays, which is no failure.
    pub fn decide(&self, observed: Option<&Digest>, head: &HeadState) -> Decision {
        let Some(restore) = &self.restore else { return decide(&self.ask(), observed, head) };
        match decide_restore(self.tag_move, &restore.moved_to, &self.wanted, observed, head) {
            Some(Decision::Move) if restore.kept => {
                Decision::Leave(self.stays(), Reason::NotAttempted)
            }
            decision => decision.unwrap_or(Decision::Leave(self.stays(), Reason::TagMoved)),
        }
    }

    /// The state of a tag that is not put back: whether the release has moved it at all.
    pub(crate) fn stays(&self) -> TagMoveState {
        match &self.restore {
            Some(restore) if restore.found => TagMoveState::Unchanged,
            _ => TagMoveState::Moved,
        }
    }

    /// Who holds the tag when the move is done.
    pub(crate) fn holder(&self, head: &HeadState) -> Holder {
        match &self.restore {
            Some(restore) => restore.before.clone(),
            None => taken(&self.ask(), self.tag_move, head),
        }
    }

    /// Why the ledger says that the tag is moved.
    pub(crate) fn purpose(&self) -> LedgerPurpose {
        match self.terms.purpose {
            _ if self.role == Role::Retention => LedgerPurpose::Retention,
            _ if self.restore.is_some() => LedgerPurpose::Restore,
            Purpose::Publish => LedgerPurpose::Publish,
            Purpose::Rollback => LedgerPurpose::Rollback,
        }
    }

    pub(crate) fn draft<'a>(&'a self, new: Option<&'a Digest>) -> Draft<'a> {
        Draft {
            new,
            source: self.restore.is_none().then_some(&self.source),
            release: Some(self.release),
            author: Some(&self.author),
            ..Draft::default()
        }
    }
}

/// Who holds a tag that a release moved, or found where it wanted it.
pub(crate) fn taken(ask: &Ask<'_>, mover: Uuid, head: &HeadState) -> Holder {
    Holder {
        ticket: ask.ticket.max(head.moved_ticket),
        order: order_after(ask, head),
        mover: Some(mover),
    }
}

/// A committed intent. Only its holder may send the PUT, once, before the deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The intent's entry.
    pub id: Uuid,
    /// What the tag pointed to.
    pub old: Option<Digest>,
}

/// What became of the wish to move a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// The intent is committed.
    Intent(Intent),
    /// Something was written about the reference since it was looked at: look again.
    Stale,
}

impl Store {
    /// Commits the intent to move a tag from what was observed to what is wanted.
    ///
    /// `tag_seq` is the number of entries that was read before the observation. `window` is how
    /// long the PUT may take from now on, `grace` how much longer it may be under way in the
    /// network, or invisible in the registry, after that.
    pub async fn begin_move(
        &self,
        step: &Move,
        tag_seq: i64,
        look: Look<'_>,
        window: Duration,
        grace: Duration,
    ) -> Result<Begun> {
        tx::run("move.begin", || self.try_begin(step, tag_seq, look, window, grace)).await
    }

    async fn try_begin(
        &self,
        step: &Move,
        tag_seq: i64,
        look: Look<'_>,
        window: Duration,
        grace: Duration,
    ) -> Result<Begun, Fault> {
        let mut tx = self.pool.begin().await?;
        may_go_on(&mut tx, step).await?;
        let mut head = LockedHead::lock(&mut tx, &step.repository, &step.tag).await?;
        if step.restore.is_some() {
            put_back::still_wanted(&mut tx, step).await?;
        }
        if head.held {
            return Err(on_hold("the service is on hold: no move begins".to_owned()).into());
        }
        let decision = step.decide(look.digest, &head.state);
        let frozen = head.frozen && !step.terms.break_glass;
        // Opening or closing an intent writes an entry: at the same number there is still none.
        if head.tag_seq != tag_seq || decision != Decision::Move || look.is_stale() || frozen {
            return Ok(Begun::Stale);
        }
        head.observe(self, &mut tx, look).await?;
        let draft =
            Draft { reason_code: decision_recorded(step, &head), ..step.draft(Some(&step.wanted)) };
        let id = head.append(self, &mut tx, Kind::Intent, step.purpose(), draft, None).await?;
        let before = Holder::of(&head.state);
        let why = explain_move(&step.ask(), &head.state);
        let times = (window, grace);
        open(&mut tx, step, id, look.digest, &before, &why, times).await?;
        tx.commit().await?;
        Ok(Begun::Intent(Intent { id, old: look.digest.cloned() }))
    }
}

/// The fence of a lease, and the last look at the release before something is done for it. Both
/// rows are share-locked: nobody can take the job over or cancel the release before the commit,
/// and the tags of one job do not wait for each other. So is the gate of freezes: a freeze is in
/// force when nobody who has not seen it can commit an intent any more.
pub(crate) async fn may_go_on(conn: &mut PgConnection, step: &Move) -> Result<(), Fault> {
    let row = sqlx::query!(
        r#"
        SELECT r.cancel_requested_at IS NOT NULL AS "cancelled!",
               COALESCE(r.not_after < colophon_now(), false) AS "late!",
               release_stops(r, j.kind) AS "broken!",
               pg_advisory_xact_lock_shared($3)::text AS gate
        FROM job j JOIN release r ON r.id = j.release_id
        WHERE j.id = $1 AND j.lease_token = $2 AND j.state = 'running'
        FOR SHARE
        "#,
        step.lease.job,
        step.lease.token,
        FREEZE_GATE,
    )
    .fetch_optional(conn)
    .await?;
    match row {
        None => Err(lease_lost().into()),
        // What a release has moved is put back however it ends.
        Some(_) if step.restore.is_some() => Ok(()),
        Some(row) if row.cancelled => {
            Err(Failure::new(Reason::Cancelled, "the release was cancelled").into())
        }
        // What is not moved need not be put back.
        Some(row) if row.broken => {
            let text = "another tag of the release was refused or failed; no more are moved";
            Err(Failure::new(Reason::Cancelled, text).into())
        }
        Some(row) if row.late => Err(Failure::new(
            Reason::Expired,
            "the time after which the release must not begin has passed",
        )
        .remedy("publish again with a later not_after")
        .into()),
        Some(_) => Ok(()),
    }
}

/// The fence of a lease, for a transaction that settles one of the job's tags: others may do the
/// same at once, and nobody can take the job over before the commit.
pub(crate) async fn fence_shared(conn: &mut PgConnection, lease: Lease) -> Result<(), Fault> {
    let row = sqlx::query_scalar!(
        "SELECT id FROM job WHERE id = $1 AND lease_token = $2 AND state = 'running' FOR SHARE",
        lease.job,
        lease.token,
    )
    .fetch_optional(conn)
    .await?;
    row.map(|_| ()).ok_or_else(|| lease_lost().into())
}

/// The fence of a lease, for a transaction that ends the job or the attempt.
pub(crate) async fn fence(conn: &mut PgConnection, lease: Lease) -> Result<(), Fault> {
    let row = sqlx::query_scalar!(
        "SELECT id FROM job WHERE id = $1 AND lease_token = $2 AND state = 'running' FOR UPDATE",
        lease.job,
        lease.token,
    )
    .fetch_optional(conn)
    .await?;
    row.map(|_| ()).ok_or_else(|| lease_lost().into())
}

pub(crate) fn lease_lost() -> Failure {
    Failure::new(Reason::LeaseLost, "the lease on the job is somebody else's now")
}

/// The decision without which the tag would not move now, for the ledger: said where the glass was
/// really broken or the tag really goes back, and nowhere else.
pub(crate) fn decision_recorded(step: &Move, head: &LockedHead<'_>) -> Option<Reason> {
    if head.frozen {
        return Some(Reason::BreakGlass);
    }
    let back = step.restore.is_none() && goes_back(&step.ask(), &head.state);
    back.then_some(Reason::OrderRegression)
}

async fn open(
    conn: &mut PgConnection,
    step: &Move,
    intent: Uuid,
    old: Option<&Digest>,
    before: &Holder,
    why: &str,
    (window, grace): (Duration, Duration),
) -> Result<(), Fault> {
    let (order_kind, order_value) = rows::order_columns(before.order.as_ref());
    sqlx::query!(
        r#"
        WITH moving AS (
            UPDATE tag_move SET state = 'MOVING', old_digest = $6, before_ticket = $11,
                   before_order_kind = $12, before_order_value = $13, before_mover = $14,
                   message = $15
            WHERE id = $5 AND $10 <> 'restore'
        )
        INSERT INTO open_intent (registry, repository, tag, intent_id, tag_move_id, old_digest,
                                 new_digest, deadline, resolve_after, purpose)
        VALUES ($1, $2, $3, $4, $5, $6, $7,
                colophon_now() + $8::float8 * interval '1 second',
                colophon_now() + ($8::float8 + $9::float8) * interval '1 second', $10)
        "#,
        step.repository.registry().as_str(),
        step.repository.name(),
        step.tag.as_str(),
        intent,
        step.tag_move,
        old.map(Digest::as_str),
        step.wanted.as_str(),
        window.as_secs_f64(),
        grace.as_secs_f64(),
        step.purpose().as_str(),
        before.ticket,
        order_kind,
        order_value,
        before.mover,
        why,
    )
    .execute(conn)
    .await?;
    Ok(())
}
