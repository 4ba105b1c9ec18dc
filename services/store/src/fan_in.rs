//! The end of a job: the last one of a phase opens the next phase, or concludes the release.
//!
//! All of it happens under a lock of the release row, so that two jobs that end together never
//! both see the other as unfinished.

use colophon_domain::{
    Failure, JobKind, Phase, PublicationState, Reason, ReleaseState, Result, TagMoveState, conclude,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{create::insert_jobs, rows, tx::Fault};

/// The release as it stands when one of its jobs ends, locked.
struct Standing {
    id: Uuid,
    phase: Phase,
    priority: i16,
    cancelled: bool,
    failing: Option<Reason>,
    message: String,
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
                       WHERE publication_id = $1 AND kind = $2
                         AND state IN ('PENDING', 'MOVING', 'UNKNOWN')) AS "left!"
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
               ended_at = colophon_now(), waiting_for = NULL, blocked_on = NULL
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
    let standing = lock(conn, release).await?;
    let unfinished = sqlx::query_scalar!(
        r#"
        SELECT EXISTS (SELECT FROM job WHERE release_id = $1 AND state IN ('queued', 'running'))
            AS "unfinished!"
        "#,
        release,
    )
    .fetch_one(&mut *conn)
    .await?;
    if unfinished {
        return Ok(());
    }
    if standing.cancelled || standing.failing.is_some() || !phase_is_good(conn, &standing).await? {
        return close(conn, &standing).await;
    }
    let mut phase = standing.phase.next();
    while let Some(kind) = phase.job() {
        let jobs = publications_with(conn, release, kind).await?;
        if !jobs.is_empty() {
            sqlx::query!("UPDATE release SET phase = $2 WHERE id = $1", release, phase.as_str())
                .execute(&mut *conn)
                .await?;
            return insert_jobs(conn, release, standing.priority, &jobs).await;
        }
        phase = phase.next();
    }
    close(conn, &standing).await
}

async fn lock(conn: &mut PgConnection, release: Uuid) -> Result<Standing, Fault> {
    let row = sqlx::query!(
        r#"
        SELECT phase, priority, cancel_requested_at IS NOT NULL AS "cancelled!", failing_reason,
               message
        FROM release WHERE id = $1 FOR UPDATE
        "#,
        release,
    )
    .fetch_one(conn)
    .await?;
    Ok(Standing {
        id: release,
        phase: rows::phase(&row.phase)?,
        priority: row.priority,
        cancelled: row.cancelled,
        failing: row.failing_reason.as_deref().map(rows::reason).transpose()?,
        message: row.message,
    })
}

/// Whether every tag that this phase was to settle is where it should be.
async fn phase_is_good(conn: &mut PgConnection, standing: &Standing) -> Result<bool, Fault> {
    let Some(kind) = standing.phase.job().and_then(JobKind::tags) else {
        return Ok(true);
    };
    Ok(sqlx::query_scalar!(
        r#"
        SELECT NOT EXISTS (SELECT FROM tag_move
                           WHERE release_id = $1 AND kind = $2
                             AND state NOT IN ('MOVED', 'UNCHANGED')) AS "good!"
        "#,
        standing.id,
        kind.as_str(),
    )
    .fetch_one(conn)
    .await?)
}

/// The targets that have work in a phase of tags.
async fn publications_with(
    conn: &mut PgConnection,
    release: Uuid,
    kind: JobKind,
) -> Result<Vec<(Uuid, JobKind)>, Fault> {
    let ids = sqlx::query_scalar!(
        r#"
        SELECT p.id FROM publication p
        WHERE p.release_id = $1
          AND EXISTS (SELECT FROM tag_move m WHERE m.publication_id = p.id AND m.kind = $2)
        ORDER BY p.ordinal
        "#,
        release,
        kind.as_str(),
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(|id| (id, kind)).collect())
}

/// Ends the release: tags whose turn never came are said to be so, every publication gets its
/// state, and the release the one that follows from its tags.
async fn close(conn: &mut PgConnection, standing: &Standing) -> Result<(), Fault> {
    let left = if standing.cancelled { Reason::Cancelled } else { Reason::NotAttempted };
    sqlx::query!(
        r#"
        UPDATE tag_move SET state = 'NOT_ATTEMPTED', reason_code = $2, ended_at = colophon_now()
        WHERE release_id = $1 AND state = 'PENDING'
        "#,
        standing.id,
        left.as_str(),
    )
    .execute(&mut *conn)
    .await?;
    close_publications(conn, standing).await?;
    let (state, reason, message) = conclusion(conn, standing).await?;
    sqlx::query!(
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
                  AND m.state NOT IN ('MOVED', 'UNCHANGED')) THEN 'SUCCEEDED'
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
    if standing.cancelled {
        return Ok((ReleaseState::Cancelled, Some(Reason::Cancelled), standing.message.clone()));
    }
    let rows = sqlx::query!(
        r#"
        SELECT m.state, m.reason_code, m.message, m.tag, p.registry, p.repository
        FROM tag_move m JOIN publication p ON p.id = m.publication_id
        WHERE m.release_id = $1 ORDER BY p.ordinal, m.ordinal
        "#,
        standing.id,
    )
    .fetch_all(conn)
    .await?;
    let mut tags = Vec::with_capacity(rows.len());
    for row in &rows {
        let reason = row.reason_code.as_deref().map(rows::reason).transpose()?;
        tags.push((rows::tag_move_state(&row.state)?, reason));
    }
    if let Some(reason) = standing.failing {
        let exhausted = reason == Reason::AttemptsExhausted;
        let state = if exhausted { ReleaseState::Errored } else { ReleaseState::Failed };
        return Ok((state, Some(reason), standing.message.clone()));
    }
    let (state, reason) = conclude(&tags);
    let message = tags
        .iter()
        .zip(&rows)
        .find(|((state, own), _)| !state.good() && *own == reason)
        .map(|(_, row)| match row.message.as_str() {
            "" => format!("{}/{}:{}", row.registry, row.repository, row.tag),
            message => message.to_owned(),
        })
        .unwrap_or_default();
    Ok((state, reason, message))
}

/// Settles what is left of a job that is given up, and makes the release fail for its reason.
pub(crate) async fn doom(
    conn: &mut PgConnection,
    publication: Uuid,
    job: JobKind,
    failure: &Failure,
    message: &str,
) -> Result<(), Fault> {
    sqlx::query!(
        r#"
        WITH tags AS (
            UPDATE tag_move SET state = $3, reason_code = $4, message = $5, ended_at = colophon_now()
            WHERE publication_id = $1 AND kind = $2 AND state = 'PENDING'
        ), target AS (
            UPDATE publication SET state = 'FAILED' WHERE id = $1 RETURNING release_id
        )
        UPDATE release SET failing_reason = COALESCE(failing_reason, $4),
               message = CASE WHEN failing_reason IS NULL THEN $5 ELSE message END
        WHERE id = (SELECT release_id FROM target)
        "#,
        publication,
        job.as_str(),
        TagMoveState::Failed.as_str(),
        failure.reason().as_str(),
        message,
    )
    .execute(&mut *conn)
    .await?;
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
