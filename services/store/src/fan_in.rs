//! The end of a job: the last one of a phase opens the next phase, or concludes the release.
//!
//! All of it happens under a lock of the release row, so that two jobs that end together never
//! both see the other as unfinished.

use colophon_domain::{
    Failure, JobKind, Phase, PublicationState, Reason, ReleaseState, Result, TagMoveState, conclude,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    barriers,
    metrics::{self, Deed},
    put_back, rows,
    tx::Fault,
};

/// The release as it stands when one of its jobs ends, locked.
#[expect(clippy::struct_excessive_bools, reason = "a row: each is a column of its own")]
struct Standing {
    id: Uuid,
    phase: Phase,
    cancelled: bool,
    failing: Option<Reason>,
    message: String,
    /// Jobs of the phase are left.
    unfinished: bool,
    /// Every tag that the phase was to settle is where it should be.
    good: bool,
    /// A tag of the phase was refused or failed. One that a newer release has is no failure: what
    /// this release has moved elsewhere is what would be there had it been quicker.
    broken: bool,
    /// What the release has moved is put back if it does not succeed.
    restores: bool,
    /// The release has unique tags.
    unique: bool,
    /// The release has floating tags.
    floating: bool,
}

impl Standing {
    /// The release was cancelled, or a job of it was given up.
    fn stopped(&self) -> bool {
        self.cancelled || self.failing.is_some()
    }

    /// The next phase that has work.
    fn next(&self) -> Option<(Phase, JobKind)> {
        let mut phase = self.phase.next();
        loop {
            match phase.job()? {
                JobKind::Unique if !self.unique => phase = phase.next(),
                JobKind::Floating if !self.floating => phase = phase.next(),
                kind => return Some((phase, kind)),
            }
        }
    }
}

/// Whether tags of this job are still to be settled.
pub(crate) async fn tags_left(
    conn: &mut PgConnection,
    publication: Uuid,
    job: JobKind,
) -> Result<bool, Fault> {
    Ok(sqlx::query_scalar!(
        r#"
        SELECT EXISTS (SELECT FROM tag_move
                       WHERE publication_id = $1
                         AND CASE WHEN $2 = 'restore' THEN state = 'RESTORING'
                                  ELSE kind = $2 AND NOT retention
                                       AND state IN ('PENDING', 'MOVING', 'UNKNOWN') END)
                   AS "left!"
        "#,
        publication,
        job.as_str(),
    )
    .fetch_one(conn)
    .await?)
}

/// Ends a job as done, and its phase or its release with it.
pub(crate) async fn complete(conn: &mut PgConnection, job: i64) -> Result<(), Fault> {
    end(conn, job, "done").await
}

/// Ends a job in one of its final states, and its phase or its release with it.
pub(crate) async fn end(conn: &mut PgConnection, job: i64, state: &str) -> Result<(), Fault> {
    let release = sqlx::query_scalar!(
        r#"
        UPDATE job SET state = $2, lease_token = NULL, lease_expires_at = NULL,
               ended_at = colophon_now(), waiting_for = NULL, waiting_reason = NULL,
               blocked_on = NULL
        WHERE id = $1
        RETURNING release_id
        "#,
        job,
        state,
    )
    .fetch_one(&mut *conn)
    .await?;
    advance(conn, release).await
}

/// Opens the next phase or concludes the release, if nothing of this phase is left.
pub(crate) async fn advance(conn: &mut PgConnection, release: Uuid) -> Result<(), Fault> {
    // The lock is a statement of its own: what is counted next must be seen after it was got.
    sqlx::query_scalar!("SELECT id FROM release WHERE id = $1 FOR UPDATE", release)
        .fetch_one(&mut *conn)
        .await?;
    let standing = look(conn, release).await?;
    if standing.unfinished {
        return Ok(());
    }
    if standing.phase == Phase::Restore {
        return close(conn, &standing).await;
    }
    if standing.stopped() || !standing.good {
        let back = standing.restores && (standing.stopped() || standing.broken);
        if back && put_back::open(conn, release).await? {
            return Ok(());
        }
        return close(conn, &standing).await;
    }
    match standing.next() {
        Some((phase, kind)) => open(conn, release, phase, kind).await,
        None => succeed(conn, release).await,
    }
}

async fn look(conn: &mut PgConnection, release: Uuid) -> Result<Standing, Fault> {
    let row = sqlx::query!(
        r#"
        SELECT r.phase, r.cancel_requested_at IS NOT NULL AS "cancelled!", r.failing_reason,
               r.message,
               EXISTS (SELECT FROM job WHERE release_id = $1 AND state IN ('queued', 'running'))
                   AS "unfinished!",
               COALESCE(bool_and(m.state IN ('MOVED', 'UNCHANGED', 'KEPT'))
                            FILTER (WHERE m.kind = r.phase AND NOT m.retention), true) AS "good!",
               COALESCE(bool_or(m.state IN ('REFUSED', 'FAILED')), false) AS "broken!",
               r.on_failure = 'restore' AS "restores!",
               COALESCE(bool_or(m.kind = 'unique' AND NOT m.retention), false) AS "unique!",
               COALESCE(bool_or(m.kind = 'floating' AND NOT m.retention), false) AS "floating!"
        FROM release r JOIN tag_move m ON m.release_id = r.id
        WHERE r.id = $1 GROUP BY r.id
        "#,
        release,
    )
    .fetch_one(conn)
    .await?;
    Ok(Standing {
        id: release,
        phase: rows::phase(&row.phase)?,
        cancelled: row.cancelled,
        failing: row.failing_reason.as_deref().map(rows::reason).transpose()?,
        message: row.message,
        unfinished: row.unfinished,
        good: row.good,
        broken: row.broken,
        restores: row.restores,
        unique: row.unique,
        floating: row.floating,
    })
}

/// Opens a phase: one job for each target that has tags of the kind. A release that was put to work
/// again has such a job already, which begins anew.
pub(crate) async fn open(
    conn: &mut PgConnection,
    release: Uuid,
    phase: Phase,
    kind: JobKind,
) -> Result<(), Fault> {
    sqlx::query!(
        r#"
        WITH opened AS (UPDATE release SET phase = $2 WHERE id = $1 RETURNING id, priority)
        INSERT INTO job (release_id, publication_id, kind, priority)
        SELECT opened.id, p.id, $3, opened.priority
        FROM opened JOIN publication p ON p.release_id = opened.id
        WHERE EXISTS (SELECT FROM tag_move m
                      WHERE m.publication_id = p.id AND m.kind = $3 AND NOT m.retention)
        ORDER BY p.ordinal
        ON CONFLICT (publication_id, kind) DO UPDATE
            SET state = 'queued', priority = EXCLUDED.priority, run_at = colophon_now(),
                created_at = colophon_now(), failures = 0, worker = NULL, claimed_at = NULL,
                ended_at = NULL, waiting_for = NULL, waiting_reason = NULL, blocked_on = NULL
            WHERE job.state IN ('done', 'failed', 'cancelled')
        "#,
        release,
        phase.as_str(),
        kind.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Lets those copies of a release begin anew that did not come about.
pub(crate) async fn copy_again(conn: &mut PgConnection, release: Uuid) -> Result<(), Fault> {
    sqlx::query!(
        r#"
        UPDATE job SET state = 'queued', run_at = colophon_now(), created_at = colophon_now(),
               failures = 0, worker = NULL, claimed_at = NULL, ended_at = NULL,
               waiting_for = NULL, waiting_reason = NULL, blocked_on = NULL
        WHERE release_id = $1 AND kind = 'copy' AND state IN ('failed', 'cancelled')
        "#,
        release,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends a release all of whose tags are where they should be.
async fn succeed(conn: &mut PgConnection, release: Uuid) -> Result<(), Fault> {
    let done = sqlx::query!(
        r#"
        WITH targets AS (
            UPDATE publication SET state = 'SUCCEEDED' WHERE release_id = $1
        ), needless AS (
            -- A digest that was to be kept and then was not left.
            UPDATE tag_move SET state = 'NOT_ATTEMPTED', reason_code = 'NOT_ATTEMPTED',
                   ended_at = colophon_now()
            WHERE release_id = $1 AND retention AND state = 'PENDING'
        )
        UPDATE release SET state = 'SUCCEEDED', phase = 'done', ended_at = colophon_now()
        WHERE id = $1 AND state IN ('QUEUED', 'RUNNING')
        "#,
        release,
    )
    .execute(conn)
    .await?;
    if done.rows_affected() > 0 {
        metrics::note(Deed::Ended(ReleaseState::Succeeded));
    }
    Ok(())
}

/// Ends the release: tags whose turn never came are said to be so, every publication gets its
/// state, and the release the one that follows from its tags.
async fn close(conn: &mut PgConnection, standing: &Standing) -> Result<(), Fault> {
    let left = if standing.cancelled { Reason::Cancelled } else { Reason::NotAttempted };
    let tags = sqlx::query!(
        r#"
        WITH not_back AS (
            -- No job is left that would put it back.
            UPDATE tag_move
            SET state = CASE WHEN found THEN 'UNCHANGED' ELSE 'MOVED' END,
                reason_code = $2, ended_at = colophon_now(),
                message = 'the tag was not put back; see the attempts for why'
            WHERE release_id = $1 AND state = 'RESTORING'
        )
        UPDATE tag_move SET state = 'NOT_ATTEMPTED', reason_code = $2, ended_at = colophon_now()
        WHERE release_id = $1 AND state = 'PENDING'
        "#,
        standing.id,
        left.as_str(),
    )
    .execute(&mut *conn)
    .await?;
    metrics::note(Deed::Tags(TagMoveState::NotAttempted, tags.rows_affected()));
    barriers::lift(conn, standing.id).await?;
    close_publications(conn, standing).await?;
    let (state, reason, message) = conclusion(conn, standing).await?;
    let done = sqlx::query!(
        r#"
        UPDATE release SET state = $2, state_reason = $3, message = $4, phase = 'done',
               ended_at = colophon_now()
        WHERE id = $1 AND state IN ('QUEUED', 'RUNNING')
        "#,
        standing.id,
        state.as_str(),
        reason.map(Reason::as_str),
        message,
    )
    .execute(conn)
    .await?;
    if done.rows_affected() > 0 {
        metrics::note(Deed::Ended(state));
    }
    Ok(())
}

async fn close_publications(conn: &mut PgConnection, standing: &Standing) -> Result<(), Fault> {
    let failed =
        if standing.cancelled { PublicationState::Cancelled } else { PublicationState::Failed };
    sqlx::query!(
        r#"
        UPDATE publication p SET state = CASE
            WHEN p.state <> 'FAILED' AND NOT EXISTS (
                SELECT FROM tag_move m WHERE m.publication_id = p.id
                  -- A digest that was to be kept and then was not left is nobody's failure.
                  AND NOT m.retention AND m.state NOT IN ('MOVED', 'UNCHANGED', 'KEPT')) THEN 'SUCCEEDED'
            ELSE $2 END
        WHERE p.release_id = $1
        "#,
        standing.id,
        failed.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn conclusion(
    conn: &mut PgConnection,
    standing: &Standing,
) -> Result<(ReleaseState, Option<Reason>, String), Fault> {
    let rows = sqlx::query!(
        r#"
        SELECT m.state, m.reason_code, m.message, m.tag, m.kind = 'floating' AS "floating!",
               p.registry, p.repository
        FROM tag_move m JOIN publication p ON p.id = m.publication_id
        WHERE m.release_id = $1 ORDER BY p.ordinal, m.ordinal
        "#,
        standing.id,
    )
    .fetch_all(conn)
    .await?;
    let mut tags = Vec::with_capacity(rows.len());
    let mut names = Vec::with_capacity(rows.len());
    for row in &rows {
        let reason = row.reason_code.as_deref().map(rows::reason).transpose()?;
        tags.push((rows::tag_move_state(&row.state)?, reason));
        names.push(format!("{}/{}:{}", row.registry, row.repository, row.tag));
    }
    let (state, reason, message) = match standing.failing {
        _ if standing.cancelled => {
            (ReleaseState::Cancelled, Some(Reason::Cancelled), standing.message.clone())
        }
        Some(reason) => {
            let exhausted = reason == Reason::AttemptsExhausted;
            let state = if exhausted { ReleaseState::Errored } else { ReleaseState::Failed };
            (state, Some(reason), standing.message.clone())
        }
        None => {
            let (state, reason) = conclude(&tags);
            let culprit = tags.iter().position(|(state, own)| !state.good() && *own == reason);
            let text = culprit.and_then(|at| rows.get(at).zip(names.get(at)));
            let message = text.map(|(row, name)| match row.message.as_str() {
                "" => name.clone(),
                message => message.to_owned(),
            });
            (state, reason, message.unwrap_or_default())
        }
    };
    // Unique tags stay, and so do those that keep a digest: nobody expects them back.
    let states = tags.iter().map(|(state, _)| *state).zip(names.iter().map(String::as_str));
    let floating: Vec<_> =
        states.zip(&rows).filter(|(_, row)| row.floating).map(|(tag, _)| tag).collect();
    let back = put_back::summary(&floating);
    let message = match (message.is_empty(), back.is_empty()) {
        (false, false) => format!("{message}; {back}"),
        _ => message + &back,
    };
    Ok((state, reason, message))
}

/// Settles what is left of a job that is given up, and makes the release fail for its reason. A
/// release whose tags are being put back has failed already, for a reason of its own.
pub(crate) async fn doom(
    conn: &mut PgConnection,
    publication: Uuid,
    job: JobKind,
    failure: &Failure,
    message: &str,
) -> Result<(), Fault> {
    sqlx::query!(
        r#"
        WITH not_back AS (
            UPDATE tag_move
            SET state = CASE WHEN found THEN 'UNCHANGED' ELSE 'MOVED' END,
                reason_code = $3, message = 'the tag was not put back: ' || $4,
                ended_at = colophon_now()
            WHERE publication_id = $1 AND $2 = 'restore' AND state = 'RESTORING'
        ), target AS (
            UPDATE publication SET state = 'FAILED' WHERE id = $1 RETURNING release_id
        )
        UPDATE release SET failing_reason = COALESCE(failing_reason, $3),
               message = CASE WHEN failing_reason IS NULL THEN $4 ELSE message END
        WHERE id = (SELECT release_id FROM target) AND $2 <> 'restore'
        "#,
        publication,
        job.as_str(),
        failure.reason().as_str(),
        message,
    )
    .execute(&mut *conn)
    .await?;
    let failed = TagMoveState::Failed;
    let tags = sqlx::query!(
        r#"
        UPDATE tag_move SET state = $3, reason_code = $4, message = $5, ended_at = colophon_now()
        WHERE publication_id = $1 AND kind = $2 AND state = 'PENDING'
        "#,
        publication,
        job.as_str(),
        failed.as_str(),
        failure.reason().as_str(),
        message,
    )
    .execute(&mut *conn)
    .await?;
    metrics::note(Deed::Tags(failed, tags.rows_affected()));
    // Others of the phase that nobody has begun need not begin; those that run see it when they
    // renew their lease. One that is being claimed right now is left to its worker.
    sqlx::query!(
        r#"
        UPDATE job SET state = 'cancelled', ended_at = colophon_now(), waiting_for = NULL,
               blocked_on = NULL
        WHERE id IN (
            SELECT o.id FROM job o JOIN publication p ON p.release_id = o.release_id
            WHERE p.id = $1 AND o.kind = 'copy' AND o.state = 'queued'
            FOR UPDATE OF o SKIP LOCKED)
        "#,
        publication,
    )
    .execute(conn)
    .await?;
    Ok(())
}
