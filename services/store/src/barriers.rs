//! Barriers: from its acceptance on, a rollback keeps releases that were accepted before it from
//! its tags. One that did not come about keeps nobody from anything.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::tx::Fault;

/// Takes the barriers of a rollback away where it did not bring the tag back. The barrier of the
/// rollback before it holds again, if that one did or still may.
pub(crate) async fn lift(conn: &mut PgConnection, release: Uuid) -> Result<(), Fault> {
    // The locks are a statement of their own: of two rollbacks of one tag that end together, the
    // second must see what the first has made of the barrier.
    sqlx::query!(
        r#"
        SELECT h.tag FROM tag_head h
        JOIN publication p ON p.registry = h.registry AND p.repository = h.repository
        JOIN tag_move m ON m.publication_id = p.id AND m.tag = h.tag AND m.kind = 'floating'
        JOIN release r ON r.id = m.release_id
        WHERE m.release_id = $1 AND r.purpose = 'rollback'
        ORDER BY h.registry, h.repository, h.tag FOR UPDATE OF h
        "#,
        release,
    )
    .fetch_all(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        WITH failed AS (
            SELECT p.registry, p.repository, m.tag
            FROM tag_move m
            JOIN publication p ON p.id = m.publication_id
            JOIN release r ON r.id = m.release_id
            JOIN tag_head h ON h.registry = p.registry AND h.repository = p.repository
                           AND h.tag = m.tag
            WHERE m.release_id = $1 AND r.purpose = 'rollback' AND m.kind = 'floating'
              AND m.state <> 'MOVED'
              -- A tag that was found in its place is the rollback's until that is put back.
              AND NOT (m.state = 'UNCHANGED' AND h.mover = m.id)
        ), earlier AS (
            SELECT DISTINCT ON (f.registry, f.repository, f.tag)
                   f.registry, f.repository, f.tag, m.ticket, m.release_id
            FROM failed f
            JOIN publication p ON p.registry = f.registry AND p.repository = f.repository
            JOIN tag_move m ON m.publication_id = p.id AND m.tag = f.tag AND m.kind = 'floating'
            JOIN release r ON r.id = m.release_id
            WHERE r.purpose = 'rollback' AND r.id <> $1
              AND m.state NOT IN ('REFUSED', 'FAILED', 'NOT_ATTEMPTED', 'RESTORED', 'SUPERSEDED',
                                  'KEPT')
            ORDER BY f.registry, f.repository, f.tag, m.ticket DESC
        )
        UPDATE tag_head h SET barrier_ticket = e.ticket, barrier_release = e.release_id
        FROM failed f LEFT JOIN earlier e USING (registry, repository, tag)
        WHERE h.registry = f.registry AND h.repository = f.repository AND h.tag = f.tag
          AND h.barrier_release = $1
        "#,
        release,
    )
    .execute(conn)
    .await?;
    Ok(())
}
