//! The queue: claiming under a lease, renewing it, and taking back what a dead worker left.

use std::time::Duration;

use colophon_domain::{
    Digest, JobKind, Lease, Purpose, Reason, Reference, Repository, Result, Selection,
};
use uuid::Uuid;

use crate::{Made, Store, append::Author, rows, tx::Bounded as _};

/// A job that this worker holds.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "a row: each is a column of its own")]
pub struct Claimed {
    /// The right to work on it.
    pub lease: Lease,
    /// What it does.
    pub kind: JobKind,
    /// The release that it belongs to.
    pub release: Uuid,
    /// The target that it works on.
    pub publication: Uuid,
    /// The target's repository.
    pub repository: Repository,
    /// The source, by the digest that it was resolved to.
    pub source: Reference,
    /// What is published: that, or what was made of it.
    pub digest: Digest,
    /// The index that is published, if it was made of the source.
    pub made: Option<Made>,
    /// What of the image goes along.
    pub selection: Selection,
    /// Who asked, and why.
    pub author: Author,
    /// The release's priority.
    pub priority: i16,
    /// Attempts that did not work so far.
    pub failures: i32,
    /// The time after which the release must not begin has passed.
    pub late: bool,
    /// The tags of all targets were looked at before anything was done.
    pub checked: bool,
    /// Floating tags of the release carry conditions that may fail it.
    pub guarded: bool,
    /// The release has several targets.
    pub several_targets: bool,
    /// The release was cancelled or is failing: do nothing but say so.
    pub stop: bool,
    /// Why the release was asked for.
    pub purpose: Purpose,
    /// Its floating tags may go back behind a newer build.
    pub allow_backward: bool,
    /// Its tags move in spite of a freeze.
    pub break_glass: bool,
    /// It follows a plan.
    pub planned: bool,
    /// The trace that the release was accepted in.
    pub traceparent: Option<String>,
    /// How long it could have been claimed before it was.
    pub waited: Duration,
}

impl Claimed {
    /// Whether the job puts tags back.
    pub fn restores(&self) -> bool {
        self.kind == JobKind::Restore
    }

    /// What is published, by digest, in the repository that it is copied from.
    pub fn content(&self) -> Reference {
        Reference::digest(self.source.repository.clone(), self.digest.clone())
    }
}

/// What a renewal found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// The lease holds on.
    Held,
    /// The lease holds on, and the release should stop: it was cancelled or is failing.
    Stop,
    /// The lease is somebody else's.
    Lost,
    /// The job has come to its end: most likely in this very moment, and by who asks.
    Ended,
}

impl Store {
    /// Claims up to `limit` jobs whose time has come, most urgent first; none while a hold is in
    /// force.
    pub async fn claim(&self, worker: &str, limit: i64, lease: Duration) -> Result<Vec<Claimed>> {
        // A newer version's jobs are left to its workers.
        let kinds: Vec<String> = JobKind::ALL.iter().map(ToString::to_string).collect();
        let rows = sqlx::query!(
            r#"
            WITH next AS (
                SELECT id FROM job
                WHERE state = 'queued' AND run_at <= (SELECT colophon_now()) AND kind = ANY ($4)
                  AND NOT (SELECT on_hold())
                ORDER BY priority DESC, run_at, id LIMIT $2
                FOR UPDATE SKIP LOCKED
            ), claimed AS (
                UPDATE job SET state = 'running', worker = $1, lease_token = gen_random_uuid(),
                       lease_expires_at = colophon_now() + $3::float8 * interval '1 second',
                       claimed_at = colophon_now(), waiting_for = NULL, waiting_reason = NULL,
                       blocked_on = NULL
                FROM next WHERE job.id = next.id
                RETURNING job.id, job.release_id, job.publication_id, job.kind, job.lease_token,
                          job.failures, job.priority, job.claimed_at - job.run_at AS waited
            ), started AS (
                UPDATE release SET state = 'RUNNING', started_at = colophon_now()
                WHERE state = 'QUEUED' AND id IN (SELECT release_id FROM claimed)
            ), copying AS (
                UPDATE publication SET state = 'COPYING'
                WHERE state = 'QUEUED' AND id IN (SELECT publication_id FROM claimed WHERE kind = 'copy')
            )
            SELECT c.id, c.release_id, c.publication_id, c.kind, c.lease_token AS "lease_token!",
                   c.failures, c.priority, r.source_registry, r.source_repository, r.digest,
                   r.source_digest, r.made_manifest, r.made_media_type, r.platforms, r.referrers,
                   r.cosign, r.include_foreign,
                   COALESCE(r.not_after < colophon_now(), false) AS "late!", r.purpose,
                   r.allow_backward, r.break_glass, r.plan IS NOT NULL AS "planned!", r.traceparent,
                   EXTRACT(EPOCH FROM c.waited)::float8 AS "waited!",
                   r.principal, r.on_behalf_of, r.reason, r.checked, p.registry, p.repository,
                   EXISTS (SELECT FROM publication o
                           WHERE o.release_id = r.id AND o.id <> p.id) AS "several_targets!",
                   EXISTS (SELECT FROM tag_move m
                           WHERE m.release_id = r.id AND m.kind = 'floating'
                             AND (m.expected IS NOT NULL OR m.order_kind IS NOT NULL)) AS "guarded!",
                   release_stops(r, c.kind) AS "stop!"
            FROM claimed c
            JOIN release r ON r.id = c.release_id
            JOIN publication p ON p.id = c.publication_id
            ORDER BY c.priority DESC, c.id
            "#,
            worker,
            limit,
            lease.as_secs_f64(),
            &kinds,
        )
        .fetch_all(&self.pool)
        .bounded().await?;
        rows.into_iter()
            .map(|row| {
                let digest = rows::digest(&row.digest)?;
                let source = rows::repository(&row.source_registry, &row.source_repository)?;
                let from = rows::digest_option(row.source_digest.as_deref())?;
                let made = from.zip(row.made_manifest.zip(row.made_media_type));
                let made =
                    made.map(|(from, (manifest, media_type))| Made { from, manifest, media_type });
                let resolved = made.as_ref().map_or(&digest, |made| &made.from).clone();
                Ok(Claimed {
                    lease: Lease { job: row.id, token: row.lease_token },
                    kind: rows::job_kind(&row.kind)?,
                    release: row.release_id,
                    publication: row.publication_id,
                    repository: rows::repository(&row.registry, &row.repository)?,
                    source: Reference::digest(source, resolved),
                    digest,
                    made,
                    selection: rows::selection(
                        &row.platforms,
                        &row.referrers,
                        row.cosign,
                        row.include_foreign,
                    )?,
                    author: Author {
                        principal: row.principal,
                        on_behalf_of: row.on_behalf_of,
                        reason: row.reason,
                    },
                    priority: row.priority,
                    failures: row.failures,
                    late: row.late,
                    checked: row.checked,
                    guarded: row.guarded,
                    several_targets: row.several_targets,
                    stop: row.stop,
                    purpose: rows::purpose(&row.purpose)?,
                    allow_backward: row.allow_backward,
                    break_glass: row.break_glass,
                    planned: row.planned,
                    traceparent: row.traceparent,
                    waited: Duration::try_from_secs_f64(row.waited).unwrap_or_default(),
                })
            })
            .collect()
    }

    /// How long until the next queued job's time comes; `None` if none is queued, or
    /// everything is held.
    pub async fn next_due(&self) -> Result<Option<Duration>> {
        let seconds = sqlx::query_scalar!(
            r#"
            SELECT EXTRACT(EPOCH FROM min(run_at) - colophon_now())::float8
            FROM job WHERE state = 'queued' AND NOT (SELECT on_hold())
            "#,
        )
        .fetch_one(&self.pool)
        .bounded()
        .await?;
        Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
    }

    /// Renews a lease, and learns whether the release should stop.
    pub async fn renew(&self, lease: Lease, by: Duration) -> Result<Renewed> {
        let stop = sqlx::query_scalar!(
            r#"
            UPDATE job SET lease_expires_at = colophon_now() + $3::float8 * interval '1 second'
            FROM release r
            WHERE job.id = $1 AND job.lease_token = $2 AND job.state = 'running'
              AND r.id = job.release_id
            RETURNING release_stops(r, job.kind) AS "stop!"
            "#,
            lease.job,
            lease.token,
            by.as_secs_f64(),
        )
        .fetch_optional(&self.pool)
        .bounded()
        .await?;
        Ok(match stop {
            None if self.has_ended(lease.job).await? => Renewed::Ended,
            None => Renewed::Lost,
            Some(true) => Renewed::Stop,
            Some(false) => Renewed::Held,
        })
    }

    async fn has_ended(&self, job: i64) -> Result<bool> {
        let ended = sqlx::query_scalar!(
            r#"SELECT ended_at IS NOT NULL AS "ended!" FROM job WHERE id = $1"#,
            job
        )
        .fetch_optional(&self.pool)
        .bounded()
        .await?;
        Ok(ended.unwrap_or(false))
    }

    /// Whether a job's release was cancelled or is failing, without renewing anything.
    pub async fn should_stop(&self, lease: Lease) -> Result<bool> {
        let stop = sqlx::query_scalar!(
            r#"
            SELECT release_stops(r, j.kind) AS "stop!"
            FROM job j JOIN release r ON r.id = j.release_id WHERE j.id = $1
            "#,
            lease.job,
        )
        .fetch_optional(&self.pool)
        .bounded()
        .await?;
        Ok(stop.unwrap_or(true))
    }

    /// Puts jobs whose lease has run out back into the queue; that uses up an attempt. Returns
    /// how many there were.
    pub async fn reap(&self) -> Result<u64> {
        let done = sqlx::query!(
            r#"
            WITH dead AS (
                SELECT id, worker, claimed_at, failures FROM job
                WHERE state = 'running' AND lease_expires_at < colophon_now()
                FOR UPDATE SKIP LOCKED
            ), requeued AS (
                UPDATE job SET state = 'queued', lease_token = NULL, lease_expires_at = NULL,
                       failures = job.failures + 1, run_at = colophon_now()
                FROM dead WHERE job.id = dead.id
            )
            INSERT INTO attempt (job_id, number, worker, reason_code, message, started_at)
            SELECT id, failures + 1, COALESCE(worker, ''), $1,
                   'the worker died or stalled; another one goes on',
                   COALESCE(claimed_at, colophon_now())
            FROM dead
            "#,
            Reason::LeaseLost.as_str(),
        )
        .execute(&self.pool)
        .bounded()
        .await?;
        Ok(done.rows_affected())
    }
}
