//! Tags that belong to what a release copies: cosign's, and the lists of referrers where a registry has
//! no other. They move like every tag, with intents and outcomes, and are no tags of the release: they
//! do not decide how it ends, and are not put back.

use colophon_domain::{
    Digest, Expected, Failure, IfOlder, Purpose, Reason, Reference, Repository, Result, Tag,
    TagKind,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Claimed, Move, Role, Store, Terms,
    intents::fence_shared,
    rows,
    tx::{self, Bounded as _, Fault},
};

/// A tag to be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Companion {
    /// The tag.
    pub tag: Tag,
    /// Where what it goes to was copied from.
    pub from: Repository,
    /// Where it goes.
    pub digest: Digest,
    /// Where it must be for that.
    pub expected: Expected,
}

impl Store {
    /// Writes down that a tag is to be moved with what a copy job has copied, and gives its move. One
    /// that was tried before begins anew, unless nobody knows yet what became of it. `None` if the
    /// release was asked for this very tag: then that holds.
    pub async fn companion(&self, job: &Claimed, asked: &Companion) -> Result<Option<Move>> {
        let id = self.entropy.uuid();
        let row = tx::run("companion.want", || async {
            let mut tx = self.pool.begin().await?;
            fence_shared(&mut tx, job.lease).await?;
            want(&mut tx, id, job, asked).await?;
            let row = sqlx::query!(
                r#"
                SELECT id, companion, content_digest, expected FROM tag_move
                WHERE publication_id = $1 AND tag = $2
                "#,
                job.publication,
                asked.tag.as_str(),
            )
            .fetch_one(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(row)
        })
        .await?;
        let Some(digest) = row.content_digest.filter(|_| row.companion) else { return Ok(None) };
        let expected = rows::expected(row.expected.as_deref())?;
        Ok(Some(companion_move(job, asked, row.id, rows::digest(&digest)?, expected)))
    }

    /// Why one of these tags is not where it should be, if one is not.
    pub async fn companion_failure(&self, job: &Claimed, tags: &[Tag]) -> Result<Option<Failure>> {
        let names: Vec<String> = tags.iter().map(|tag| tag.as_str().to_owned()).collect();
        let row = sqlx::query!(
            r#"
            SELECT tag, reason_code, message FROM tag_move
            WHERE publication_id = $1 AND companion AND tag = ANY ($2)
              AND state IN ('REFUSED', 'FAILED')
            ORDER BY ordinal LIMIT 1
            "#,
            job.publication,
            &names,
        )
        .fetch_optional(&self.pool)
        .bounded()
        .await?;
        let Some(row) = row else { return Ok(None) };
        let reason = row.reason_code.as_deref().map(rows::reason).transpose()?;
        let reason = reason.unwrap_or(Reason::Internal);
        let reference = format!("{}:{}", job.repository, row.tag);
        Ok(Some(Failure::new(reason, format!("{reference} was not moved: {}", row.message))))
    }
}

async fn want(
    conn: &mut PgConnection,
    id: Uuid,
    job: &Claimed,
    asked: &Companion,
) -> Result<(), Fault> {
    sqlx::query!(
        r#"
        WITH head AS (
            INSERT INTO tag_head (registry, repository, tag) VALUES ($1, $2, $3)
            ON CONFLICT DO NOTHING
        )
        INSERT INTO tag_move (id, release_id, publication_id, ordinal, kind, tag, retention,
                              companion, content_registry, content_repository, content_digest,
                              expected)
        SELECT $4, $5, $6, max(ordinal) + 1, 'unique', $3, true, true, $7, $8, $9, $10
        FROM tag_move WHERE publication_id = $6
        ON CONFLICT (publication_id, tag) DO UPDATE
            SET state = 'PENDING', reason_code = NULL, message = '', old_digest = NULL,
                new_digest = NULL, ended_at = NULL, content_registry = EXCLUDED.content_registry,
                content_repository = EXCLUDED.content_repository,
                content_digest = EXCLUDED.content_digest, expected = EXCLUDED.expected
            WHERE tag_move.companion
              AND NOT EXISTS (SELECT FROM open_intent i WHERE i.tag_move_id = tag_move.id)
        "#,
        job.repository.registry().as_str(),
        job.repository.name(),
        asked.tag.as_str(),
        id,
        job.release,
        job.publication,
        asked.from.registry().as_str(),
        asked.from.name(),
        asked.digest.as_str(),
        asked.expected.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// When a copy is done: companions that did not move turned out to need it no more.
pub(crate) async fn needless(conn: &mut PgConnection, publication: Uuid) -> Result<(), Fault> {
    sqlx::query!(
        r#"
        UPDATE tag_move SET state = 'NOT_ATTEMPTED', reason_code = 'NOT_ATTEMPTED',
               ended_at = colophon_now()
        WHERE publication_id = $1 AND companion AND state IN ('PENDING', 'REFUSED', 'FAILED')
        "#,
        publication,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// It may move again when there is more to say of its digest, so it is no unique tag; and it has no
/// place in an order of acceptance: what must be true of it is where it was.
fn companion_move(
    job: &Claimed,
    asked: &Companion,
    tag_move: Uuid,
    wanted: Digest,
    expected: Option<Expected>,
) -> Move {
    Move {
        lease: job.lease,
        release: job.release,
        publication: job.publication,
        tag_move,
        job: job.kind,
        kind: TagKind::Floating,
        repository: job.repository.clone(),
        tag: asked.tag.clone(),
        ticket: None,
        source: Reference::digest(asked.from.clone(), wanted.clone()),
        wanted,
        author: job.author.clone(),
        terms: Terms {
            purpose: Purpose::Publish,
            expected,
            planned: false,
            order: None,
            if_older: IfOlder::Refuse,
            allow_backward: false,
            break_glass: job.break_glass,
            line: None,
            highest: None,
        },
        restore: None,
        role: Role::Companion,
    }
}
