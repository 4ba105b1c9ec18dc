//! Putting a release to work again that ended without success. It keeps its tickets: its place in
//! the order of acceptance is the one that it had, so a newer release keeps what it has. Only what
//! did not come about is done again.

use std::time::Duration;

use colophon_domain::{Failure, JobKind, Phase, Purpose, Reason, ReleaseState, Result, Retry};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Store, fan_in, rows,
    tx::{self, Fault},
};

/// A release is put to work again at most so often: whoever does it more wants another release.
const MOST: i64 = 50;
/// Releases that were put back one after the other while each held the tag of the one before.
const CHAIN: usize = 100;
/// How long to wait for another release that is moving a tag.
const MOVING: Duration = Duration::from_secs(5);

impl Store {
    /// Puts a release to work again that ended `FAILED` or `ERRORED`; `false` if it is at work.
    ///
    /// # Errors
    /// `NOT_RETRYABLE` with the remedy.
    pub async fn retry_release(&self, id: Uuid, by: &str, reason: &str) -> Result<bool> {
        tx::run("release.retry", || self.try_retry(id, by, reason)).await
    }

    async fn try_retry(&self, id: Uuid, by: &str, reason: &str) -> Result<bool, Fault> {
        let mut tx = self.pool.begin().await?;
        // The lock is a statement of its own: what is read next must be seen after it was got.
        sqlx::query_scalar!("SELECT id FROM release WHERE id = $1 FOR UPDATE", id)
            .fetch_optional(&mut *tx)
            .await?
            .ok_or_else(|| Failure::new(Reason::NotFound, format!("there is no release {id}")))?;
        let (state, past) = past(&mut tx, id).await?;
        if !state.ended() {
            return Ok(false);
        }
        if let Some((text, remedy)) = refusal(state, &past) {
            let text = format!("release {id} {text}");
            return Err(Failure::new(Reason::NotRetryable, text).remedy(remedy).into());
        }
        lock_heads(&mut tx, id).await?;
        record(&mut tx, id, by, reason).await?;
        inherit(&mut tx, id).await?;
        bequeath(&mut tx, id).await?;
        reopen_tags(&mut tx, id).await?;
        discount_put_backs(&mut tx, id).await?;
        reopen_publications(&mut tx, id).await?;
        let phase = reopen(&mut tx, id).await?;
        match phase.job() {
            Some(JobKind::Copy) | None => fan_in::copy_again(&mut tx, id).await?,
            Some(kind) => fan_in::open(&mut tx, id, phase, kind).await?,
        }
        // One of which nothing is left to do ends here.
        fan_in::advance(&mut tx, id).await?;
        tx.commit().await?;
        Ok(true)
    }
}

/// What there was that may keep a release from being put to work again.
#[expect(clippy::struct_excessive_bools, reason = "each is a reason of its own")]
struct Past {
    rollback: bool,
    late: bool,
    /// It ended so long ago that jobs of it were let go of.
    forgotten: bool,
    /// The database was restored since it was accepted.
    restored: bool,
    before: i64,
}

/// How the release stands, and what there was.
async fn past(conn: &mut PgConnection, id: Uuid) -> Result<(ReleaseState, Past), Fault> {
    let row = sqlx::query!(
        r#"
        SELECT state, purpose, COALESCE(not_after <= colophon_now(), false) AS "late!",
               (SELECT count(*) FROM release_retry t WHERE t.release_id = r.id) AS "before!",
               -- Those that ended first are let go of first: the copies.
               (EXISTS (SELECT FROM publication p JOIN tag_move m ON m.publication_id = p.id
                        WHERE p.release_id = r.id AND m.state <> 'KEPT' AND NOT m.retention
                          AND (p.registry, p.repository)
                              <> (r.source_registry, r.source_repository)
                          AND NOT EXISTS (SELECT FROM job j WHERE j.publication_id = p.id
                                            AND j.kind = 'copy'))
                OR NOT EXISTS (SELECT FROM job j WHERE j.release_id = r.id))
                   AS "forgotten!",
               EXISTS (SELECT FROM hold h WHERE h.cause = 'restore'
                         AND h.began_at >= r.created_at) AS "restored!"
        FROM release r WHERE id = $1
        "#,
        id,
    )
    .fetch_one(conn)
    .await?;
    let past = Past {
        rollback: rows::purpose(&row.purpose)? == Purpose::Rollback,
        late: row.late,
        forgotten: row.forgotten,
        restored: row.restored,
        before: row.before,
    };
    Ok((rows::release_state(&row.state)?, past))
}

/// Why a release that has ended is not put to work again, and what to do instead.
fn refusal(state: ReleaseState, past: &Past) -> Option<(&'static str, &'static str)> {
    match state {
        ReleaseState::Succeeded => {
            Some(("has succeeded", "nothing is to be done; publish again what should move again"))
        }
        ReleaseState::Cancelled => {
            Some(("was cancelled", "publish again; the new release takes its place in the order"))
        }
        // It keeps older releases away from its acceptance on, and that ended with it.
        _ if past.rollback => Some((
            "is a rollback, which others may have overtaken since it ended",
            "roll back again; what is at the target already is not copied again",
        )),
        // What was accepted after it, and moved its tags, may be lost.
        _ if past.restored => Some((
            "was accepted before the database was restored, so nobody knows what came after it",
            "publish again",
        )),
        _ if past.forgotten => Some(("ended too long ago", "publish again")),
        _ if past.late => {
            Some(("is too late: its not_after has passed", "publish again with a later not_after"))
        }
        _ if past.before >= MOST => {
            Some(("was put to work again 50 times", "mend the cause, and publish again"))
        }
        _ => None,
    }
}

/// Locks the heads of the release's floating tags, so that nobody moves them or passes them on while
/// it is found out what becomes of them. Refuses where one that the release would leave to another
/// is being moved: who holds it, and where it should go back to, is known when that has ended.
async fn lock_heads(conn: &mut PgConnection, id: Uuid) -> Result<(), Fault> {
    sqlx::query!(
        r#"
        SELECT h.tag FROM tag_head h
        JOIN publication p ON p.registry = h.registry AND p.repository = h.repository
        JOIN tag_move m ON m.publication_id = p.id AND m.tag = h.tag AND m.kind = 'floating'
        WHERE m.release_id = $1
        ORDER BY h.registry, h.repository, h.tag FOR UPDATE OF h
        "#,
        id,
    )
    .fetch_all(&mut *conn)
    .await?;
    let moving = sqlx::query!(
        r#"
        SELECT h.registry, h.repository, h.tag
        FROM tag_move m JOIN publication p ON p.id = m.publication_id
        JOIN tag_head h ON h.registry = p.registry AND h.repository = p.repository
                       AND h.tag = m.tag
        JOIN open_intent i ON i.registry = h.registry AND i.repository = h.repository
                          AND i.tag = h.tag
        WHERE m.release_id = $1 AND m.kind = 'floating' AND m.state IN ('MOVED', 'UNCHANGED')
          AND h.mover IS DISTINCT FROM m.id
        LIMIT 1
        "#,
        id,
    )
    .fetch_optional(conn)
    .await?;
    let Some(at) = moving else { return Ok(()) };
    let text =
        format!("{}/{}:{} is being moved by another release", at.registry, at.repository, at.tag);
    Err(Failure::new(Reason::ReferenceBlocked, text)
        .remedy("put the release to work again when that has ended")
        .retry(Retry::Wait(MOVING))
        .into())
}

async fn record(conn: &mut PgConnection, id: Uuid, by: &str, reason: &str) -> Result<(), Fault> {
    sqlx::query!(
        r#"
        INSERT INTO release_retry (release_id, number, principal, reason, ended_state,
                                   ended_reason, ended_at)
        SELECT r.id, 1 + (SELECT count(*) FROM release_retry t WHERE t.release_id = r.id), $2, $3,
               r.state, COALESCE(r.state_reason, ''), COALESCE(r.ended_at, colophon_now())
        FROM release r WHERE r.id = $1
        "#,
        id,
        by,
        reason,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A tag that the release still holds may have been another's before, which failed after this
/// release had ended and left the tag to it. Should this one fail again, the tag must go where that
/// one would have put it, as if this one had been at work then.
async fn inherit(conn: &mut PgConnection, id: Uuid) -> Result<(), Fault> {
    for _ in 0..CHAIN {
        let done = sqlx::query!(
            r#"
            UPDATE tag_move own
            SET old_digest = prev.old_digest, before_ticket = prev.before_ticket,
                before_order_kind = prev.before_order_kind,
                before_order_value = prev.before_order_value, before_mover = prev.before_mover
            FROM tag_move prev JOIN release r ON r.id = prev.release_id
            WHERE own.release_id = $1 AND own.kind = 'floating'
              AND own.state IN ('MOVED', 'UNCHANGED') AND own.before_mover = prev.id
              AND prev.release_id <> $1 AND prev.old_digest IS NOT NULL
              -- One that still puts tags back does not succeed either.
              AND (r.phase = 'restore' OR r.ended_at IS NOT NULL AND r.state <> 'SUCCEEDED')
              AND (prev.state = 'MOVED' AND prev.reason_code IS NOT NULL
                   OR prev.state = 'UNCHANGED')
              AND EXISTS (SELECT FROM job j
                          WHERE j.publication_id = prev.publication_id AND j.kind = 'restore'
                            AND j.state <> 'cancelled')
            "#,
            id,
        )
        .execute(&mut *conn)
        .await?;
        if done.rows_affected() == 0 {
            break;
        }
    }
    Ok(())
}

/// The same the other way round: a tag that was left to another release, which failed, too, and may be
/// put to work again later. This one is about to forget where it would have put the tag.
async fn bequeath(conn: &mut PgConnection, id: Uuid) -> Result<(), Fault> {
    sqlx::query!(
        r#"
        UPDATE tag_move next
        SET old_digest = own.old_digest, before_ticket = own.before_ticket,
            before_order_kind = own.before_order_kind,
            before_order_value = own.before_order_value, before_mover = own.before_mover
        FROM tag_move own JOIN publication p ON p.id = own.publication_id
        JOIN tag_head h ON h.registry = p.registry AND h.repository = p.repository
                       AND h.tag = own.tag
        WHERE own.release_id = $1 AND own.kind = 'floating' AND own.old_digest IS NOT NULL
          AND own.state IN ('MOVED', 'UNCHANGED') AND h.mover <> own.id
          AND EXISTS (SELECT FROM job j
                      WHERE j.publication_id = own.publication_id AND j.kind = 'restore'
                        AND j.state <> 'cancelled')
          AND next.before_mover = own.id AND next.release_id <> $1
          AND next.state IN ('MOVING', 'UNKNOWN', 'MOVED', 'UNCHANGED', 'RESTORING')
          AND EXISTS (SELECT FROM release r WHERE r.id = next.release_id AND r.state <> 'SUCCEEDED')
        "#,
        id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What did not come about is to be done: also what was moved and then put back, or was to be put
/// back and is somebody else's now. What is where it should be stays, and so does what is kept.
async fn reopen_tags(conn: &mut PgConnection, id: Uuid) -> Result<(), Fault> {
    sqlx::query!(
        r#"
        UPDATE tag_move m
        SET state = 'PENDING', reason_code = NULL, message = '', old_digest = NULL,
            new_digest = NULL, ended_at = NULL, found = false, before_ticket = NULL,
            before_order_kind = NULL, before_order_value = NULL, before_mover = NULL
        FROM publication p
        WHERE m.release_id = $1 AND p.id = m.publication_id
          AND (m.state IN ('REFUSED', 'FAILED', 'NOT_ATTEMPTED', 'RESTORED', 'SUPERSEDED')
               -- Whether the digest is still kept is found out when it is left again.
               OR m.retention AND NOT m.companion
               OR m.kind = 'floating' AND m.state IN ('MOVED', 'UNCHANGED')
                  AND m.old_digest IS NOT NULL
                  AND EXISTS (SELECT FROM job j
                              WHERE j.publication_id = p.id AND j.kind = 'restore'
                                AND j.state <> 'cancelled')
                  AND NOT EXISTS (SELECT FROM tag_head h
                                  WHERE h.registry = p.registry AND h.repository = p.repository
                                    AND h.tag = m.tag AND h.mover = m.id))
          AND NOT EXISTS (SELECT FROM open_intent i WHERE i.tag_move_id = m.id)
        "#,
        id,
    )
    .execute(&mut *conn)
    .await?;
    // Nobody asks any more why these were not put back.
    sqlx::query!(
        r#"
        UPDATE tag_move SET reason_code = NULL, message = ''
        WHERE release_id = $1 AND kind = 'floating' AND state IN ('MOVED', 'UNCHANGED')
          AND (reason_code IS NOT NULL OR message LIKE 'the tag was not put back%')
        "#,
        id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What was put back counts for the run that put it back, and not for the next. Jobs that put tags
/// back are never cancelled otherwise, so `cancelled` tells those of an earlier run; one that the next
/// run needs begins anew.
async fn discount_put_backs(conn: &mut PgConnection, id: Uuid) -> Result<(), Fault> {
    sqlx::query!(
        r#"
        UPDATE job SET state = 'cancelled'
        WHERE release_id = $1 AND kind = 'restore' AND state IN ('done', 'failed')
        "#,
        id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn reopen_publications(conn: &mut PgConnection, id: Uuid) -> Result<(), Fault> {
    sqlx::query!(
        r#"
        UPDATE publication p SET state = CASE
            WHEN EXISTS (SELECT FROM job j WHERE j.publication_id = p.id AND j.kind = 'copy'
                           AND j.state <> 'done') THEN 'QUEUED'
            WHEN EXISTS (SELECT FROM tag_move m WHERE m.publication_id = p.id
                           AND m.state = 'PENDING' AND NOT m.retention) THEN 'COPIED'
            ELSE 'SUCCEEDED' END
        WHERE p.release_id = $1
        "#,
        id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Opens the release itself; returns the phase in which it goes on. Content that was copied once is
/// not copied again: a tag whose content is gone since sees to that itself.
async fn reopen(conn: &mut PgConnection, id: Uuid) -> Result<Phase, Fault> {
    let phase = sqlx::query_scalar!(
        r#"
        UPDATE release r
        SET state = 'RUNNING', state_reason = NULL, message = '', failing_reason = NULL,
            checked = false, ended_at = NULL,
            phase = CASE
                WHEN EXISTS (SELECT FROM job j WHERE j.release_id = r.id AND j.kind = 'copy'
                               AND j.state <> 'done') THEN 'copy'
                WHEN EXISTS (SELECT FROM tag_move m WHERE m.release_id = r.id AND m.kind = 'unique'
                               AND m.state = 'PENDING' AND NOT m.retention) THEN 'unique'
                ELSE 'floating' END
        WHERE r.id = $1 RETURNING phase
        "#,
        id,
    )
    .fetch_one(conn)
    .await?;
    Ok(rows::phase(&phase)?)
}
