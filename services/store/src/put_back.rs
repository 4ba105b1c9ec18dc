//! Putting floating tags back: what a release has moved goes back to what it was if the release
//! does not succeed, and what it only found in its place goes back to whoever held it. Unique tags
//! stay, and so does what had no digest before.

use std::time::Duration;

use colophon_domain::{Failure, Reason, Retry, TagMoveState};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Move,
    append::Holder,
    metrics::{self, Deed},
    rows,
    tx::Fault,
};

/// So many tags are named in a summary; each says for itself what became of it.
const NAMED: usize = 6;

/// Somebody waits for this: it goes before every release.
const PRIORITY: i16 = 100;

/// Opens the phase that puts tags back; `false` if there is nothing to put back. The release's
/// row is locked by the caller.
pub(crate) async fn open(conn: &mut PgConnection, release: Uuid) -> Result<bool, Fault> {
    let jobs = sqlx::query_scalar!(
        r#"
        WITH moved AS (
            -- What was found in its place is the release's too. It goes back to whoever held it before,
            -- and to another digest if that one would have gone back there.
            UPDATE tag_move SET state = 'RESTORING', ended_at = NULL
            WHERE release_id = $1 AND kind = 'floating' AND state IN ('MOVED', 'UNCHANGED')
              AND old_digest IS NOT NULL
            RETURNING publication_id
        ), new AS (
            UPDATE tag_move SET message = 'the tag was not put back: it did not exist before, and '
                                          'a registry cannot be asked to forget only a tag'
            WHERE release_id = $1 AND kind = 'floating' AND state = 'MOVED' AND old_digest IS NULL
        ), opened AS (
            INSERT INTO job (release_id, publication_id, kind, priority)
            SELECT $1, p.id, 'restore', $2 FROM publication p
            WHERE p.id IN (SELECT publication_id FROM moved)
            ORDER BY p.ordinal
            -- A release that was put to work again may have had such a job before.
            ON CONFLICT (publication_id, kind) DO UPDATE
                SET state = 'queued', priority = EXCLUDED.priority, run_at = colophon_now(),
                    created_at = colophon_now(), failures = 0, worker = NULL, claimed_at = NULL,
                    ended_at = NULL, waiting_for = NULL, waiting_reason = NULL, blocked_on = NULL
                WHERE job.state IN ('done', 'failed', 'cancelled')
            RETURNING id
        ), phase AS (
            UPDATE release SET phase = 'restore' WHERE id = $1 AND EXISTS (SELECT FROM opened)
        )
        SELECT count(*) AS "jobs!" FROM opened
        "#,
        release,
        PRIORITY,
    )
    .fetch_one(conn)
    .await?;
    if jobs > 0 {
        metrics::note(Deed::PutBack);
    }
    Ok(jobs > 0)
}

/// Writes down who held a tag that a release found where it wants it: the tag is the release's now,
/// and must be that holder's again if the release does not succeed.
pub(crate) async fn claimed(
    conn: &mut PgConnection,
    step: &Move,
    before: &Holder,
) -> Result<(), Fault> {
    let (order_kind, order_value) = rows::order_columns(before.order.as_ref());
    sqlx::query!(
        r#"
        UPDATE tag_move SET found = true, before_ticket = $2, before_order_kind = $3, before_order_value = $4,
               before_mover = $5
        WHERE id = $1
        "#,
        step.tag_move,
        before.ticket,
        order_kind,
        order_value,
        before.mover,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Asks whether a tag is still to go back where its job read that it should. Where it should go
/// changes when the release before is not put back because of this one, and when that is put to work
/// again: see [`pass_on`]. After a restore of the database it stays where it is. The tag's head is
/// locked by the caller.
pub(crate) async fn still_wanted(conn: &mut PgConnection, step: &Move) -> Result<(), Fault> {
    let restore = step.restore.as_ref();
    let wanted = sqlx::query_scalar!(
        r#"
        SELECT (m.state = 'RESTORING' AND m.old_digest = $2
                AND m.before_mover IS NOT DISTINCT FROM $3
                AND (r.on_failure = 'keep') = $4::bool) AS "wanted!"
        FROM tag_move m JOIN release r ON r.id = m.release_id WHERE m.id = $1
        "#,
        step.tag_move,
        step.wanted.as_str(),
        restore.and_then(|restore| restore.before.mover),
        restore.is_some_and(|restore| restore.kept),
    )
    .fetch_one(conn)
    .await?;
    if wanted {
        return Ok(());
    }
    Err(Failure::new(
        Reason::ReferenceBlocked,
        "the tag is to be put back elsewhere by now, or not at all",
    )
    .retry(Retry::Wait(Duration::ZERO))
    .into())
}

/// A release that fails leaves a tag to the one that has moved it since. If that one fails, too,
/// the tag must not come back to the digest of this one, but go where this one would have put it.
/// The tag's head is locked by the caller.
pub(crate) async fn pass_on(conn: &mut PgConnection, step: &Move) -> Result<(), Fault> {
    sqlx::query!(
        r#"
        UPDATE tag_move next
        SET old_digest = own.old_digest, before_ticket = own.before_ticket,
            before_order_kind = own.before_order_kind,
            before_order_value = own.before_order_value, before_mover = own.before_mover
        FROM tag_move own
        WHERE own.id = $1 AND next.before_mover = $1
          AND next.state IN ('MOVING', 'UNKNOWN', 'MOVED', 'UNCHANGED', 'RESTORING')
          AND EXISTS (SELECT FROM release r WHERE r.id = next.release_id AND r.ended_at IS NULL)
        "#,
        step.tag_move,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What became of the floating tags that a failed release had moved, in words; empty if it had
/// moved none.
pub(crate) fn summary(tags: &[(TagMoveState, &str)]) -> String {
    let named = |wanted: TagMoveState| {
        let names: Vec<_> =
            tags.iter().filter(|(state, _)| *state == wanted).map(|(_, name)| *name).collect();
        let shown = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        match names.len().checked_sub(NAMED) {
            Some(more @ 1..) => format!("{shown} and {more} more"),
            _ => shown,
        }
    };
    let (back, stays) = (named(TagMoveState::Restored), named(TagMoveState::Moved));
    match (back.is_empty(), stays.is_empty()) {
        (true, true) => String::new(),
        (false, true) => format!("put back: {back}"),
        (true, false) => format!("moved and not put back: {stays}"),
        (false, false) => format!("put back: {back}; moved and not put back: {stays}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_what_was_put_back_and_what_was_not() {
        use TagMoveState::{Failed, Moved, Restored};
        let said = |[a, b]: [TagMoveState; 2]| summary(&[(a, "a:1"), (b, "b:1")]);
        assert_eq!(said([Failed, Failed]), "");
        assert_eq!(said([Restored, Failed]), "put back: a:1");
        assert_eq!(said([Restored, Moved]), "put back: a:1; moved and not put back: b:1");
    }
}
