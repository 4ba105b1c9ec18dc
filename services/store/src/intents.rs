//! The first transaction of a move: the intent. It is committed before the PUT is sent, so that
//! nothing reaches a registry of which the ledger does not know, and its row is the lock on the
//! reference until there is an outcome.

use std::time::Duration;

use colophon_domain::{
    Decision, Digest, Failure, HeadState, JobKind, Reason, Reference, Repository, Result, Tag,
    TagKind, decide,
};
use colophon_ledger::{Kind, Purpose};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Claimed, Lease, Store,
    append::{Author, Draft, LockedHead, Look},
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
}

impl Move {
    /// One tag of a claimed job.
    pub fn of(job: &Claimed, tag_move: Uuid, kind: TagKind, tag: Tag, ticket: Option<i64>) -> Self {
        Self {
            lease: job.lease,
            release: job.release,
            publication: job.publication,
            tag_move,
            job: job.kind,
            kind,
            repository: job.repository.clone(),
            tag,
            ticket,
            wanted: job.digest.clone(),
            source: job.source.clone(),
            author: job.author.clone(),
        }
    }

    pub(crate) fn draft<'a>(&'a self, new: Option<&'a Digest>) -> Draft<'a> {
        Draft {
            new,
            source: Some(&self.source),
            release: Some(self.release),
            author: Some(&self.author),
            ..Draft::default()
        }
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
        tx::run("begin_move", || self.try_begin(step, tag_seq, look, window, grace)).await
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
        may_go_on(&mut tx, step.lease).await?;
        let mut head = LockedHead::lock(&mut tx, &step.repository, &step.tag).await?;
        let state = HeadState { moved_ticket: head.moved_ticket };
        let decision = decide(step.kind, &step.wanted, look.digest, step.ticket, state);
        // Opening or closing an intent writes an entry: at the same number there is still none.
        if head.tag_seq != tag_seq || decision != Decision::Move || look.is_stale() {
            return Ok(Begun::Stale);
        }
        head.observe(self, &mut tx, look).await?;
        let draft = step.draft(Some(&step.wanted));
        let id = head.append(self, &mut tx, Kind::Intent, Purpose::Publish, draft, None).await?;
        open(&mut tx, step, id, look.digest, window, grace).await?;
        tx.commit().await?;
        Ok(Begun::Intent(Intent { id, old: look.digest.cloned() }))
    }
}

/// The fence of a lease, and the last look at the release before something is done for it. Both
/// rows are share-locked: nobody can take the job over or cancel the release before the commit,
/// and the tags of one job do not wait for each other.
pub(crate) async fn may_go_on(conn: &mut PgConnection, lease: Lease) -> Result<(), Fault> {
    let row = sqlx::query!(
        r#"
        SELECT r.cancel_requested_at IS NOT NULL AS "cancelled!",
               COALESCE(r.not_after < colophon_now(), false) AS "late!"
        FROM job j JOIN release r ON r.id = j.release_id
        WHERE j.id = $1 AND j.lease_token = $2 AND j.state = 'running'
        FOR SHARE
        "#,
        lease.job,
        lease.token,
    )
    .fetch_optional(conn)
    .await?;
    match row {
        None => Err(lease_lost().into()),
        Some(row) if row.cancelled => {
            Err(Failure::new(Reason::Cancelled, "the release was cancelled").into())
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

async fn open(
    conn: &mut PgConnection,
    step: &Move,
    intent: Uuid,
    old: Option<&Digest>,
    window: Duration,
    grace: Duration,
) -> Result<(), Fault> {
    sqlx::query!(
        r#"
        WITH moving AS (
            UPDATE tag_move SET state = 'MOVING', old_digest = $6 WHERE id = $5
        )
        INSERT INTO open_intent (registry, repository, tag, intent_id, tag_move_id, old_digest,
                                 new_digest, deadline, resolve_after)
        VALUES ($1, $2, $3, $4, $5, $6, $7,
                colophon_now() + $8::float8 * interval '1 second',
                colophon_now() + ($8::float8 + $9::float8) * interval '1 second')
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
    )
    .execute(conn)
    .await?;
    Ok(())
}
