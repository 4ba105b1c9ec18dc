//! Keeping digests that floating tags leave, each under a tag of its own.

use colophon_domain::{
    Digest, Failure, IfOlder, Purpose, Reason, Reference, Repository, Result, Tag, TagKind,
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Move, Role, Store, Terms,
    intents::fence_shared,
    rows,
    tx::{self, Bounded as _},
};

/// Whether a digest has its tag.
#[derive(Debug, Clone)]
pub enum Keeping {
    /// It has.
    Done,
    /// It gets one by this move.
    Wanted(Box<Move>),
}

/// A digest that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The repository.
    pub repository: Repository,
    /// The floating tag that left it.
    pub tag: Tag,
    /// The digest.
    pub digest: Digest,
    /// The tag that keeps it.
    pub kept_tag: Tag,
    /// When the floating tag left it.
    pub left_at: OffsetDateTime,
    /// It may be let go now; else deleting its tag did not work a while ago.
    pub due: bool,
    pub(crate) tag_move: Uuid,
}

impl Store {
    /// Notes that a floating tag leaves a digest, and gives the move of the tag that keeps it.
    /// The digest counts as left now, also if it was kept before.
    ///
    /// # Errors
    /// The reason for which the same release could not keep it before.
    pub async fn keep(&self, step: &Move, digest: &Digest, kept_tag: &Tag) -> Result<Keeping> {
        let id = self.entropy.uuid();
        let row = tx::run("digest.keep", || async {
            let mut tx = self.pool.begin().await?;
            fence_shared(&mut tx, step.lease).await?;
            let row = sqlx::query!(
                r#"
                WITH head AS (
                    INSERT INTO tag_head (registry, repository, tag) VALUES ($1, $2, $3)
                    ON CONFLICT DO NOTHING
                )
                INSERT INTO tag_move (id, release_id, publication_id, ordinal, kind, tag, retention,
                                      content_registry, content_repository, content_digest)
                SELECT $4, $5, $6, max(ordinal) + 1, 'unique', $3, true, $1, $2, $7
                FROM tag_move WHERE publication_id = $6
                ON CONFLICT (publication_id, tag) DO UPDATE SET retention = tag_move.retention
                RETURNING id, state, reason_code, message
                "#,
                step.repository.registry().as_str(),
                step.repository.name(),
                kept_tag.as_str(),
                id,
                step.release,
                step.publication,
                digest.as_str(),
            )
            .fetch_one(&mut *tx)
            .await?;
            sqlx::query!(
                r#"
                INSERT INTO kept_digest (registry, repository, tag, digest, kept_tag, tag_move_id,
                                         left_at)
                VALUES ($1, $2, $3, $4, $5, $6, colophon_now())
                ON CONFLICT (registry, repository, tag, digest)
                DO UPDATE SET left_at = EXCLUDED.left_at, tag_move_id = EXCLUDED.tag_move_id
                "#,
                step.repository.registry().as_str(),
                step.repository.name(),
                step.tag.as_str(),
                digest.as_str(),
                kept_tag.as_str(),
                row.id,
            )
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(row)
        })
        .await?;
        let state = rows::tag_move_state(&row.state)?;
        if state.good() {
            return Ok(Keeping::Done);
        }
        if state.ended() {
            let reason = row.reason_code.as_deref().map(rows::reason).transpose()?;
            return Err(not_kept(step, digest, reason, &row.message));
        }
        Ok(Keeping::Wanted(Box::new(kept_move(step, digest, kept_tag, row.id))))
    }

    /// Every kept digest, those of one floating tag together, the last that was left first. One at
    /// which the tag is was not left after all, or has it again: it takes no other's place.
    pub async fn kept(&self, after: Option<&Kept>, limit: i64) -> Result<Vec<Kept>> {
        let rows = sqlx::query!(
            r#"
            SELECT registry, repository, tag, digest, kept_tag, tag_move_id, left_at,
                   COALESCE(retry_at <= colophon_now(), true) AS "due!"
            FROM kept_digest k
            WHERE ($1::text IS NULL OR (registry, repository, tag) > ($1, $2, $3))
              AND NOT EXISTS (SELECT FROM tag_head h
                              WHERE h.registry = k.registry AND h.repository = k.repository
                                AND h.tag = k.tag AND h.digest = k.digest)
            ORDER BY registry, repository, tag, left_at DESC LIMIT $4
            "#,
            after.map(|kept| kept.repository.registry().as_str()),
            after.map(|kept| kept.repository.name()),
            after.map(|kept| kept.tag.as_str()),
            limit,
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Kept {
                    repository: rows::repository(&row.registry, &row.repository)?,
                    tag: rows::tag(&row.tag)?,
                    digest: rows::digest(&row.digest)?,
                    kept_tag: rows::tag(&row.kept_tag)?,
                    left_at: row.left_at,
                    due: row.due,
                    tag_move: row.tag_move_id,
                })
            })
            .collect()
    }
}

fn not_kept(step: &Move, digest: &Digest, reason: Option<Reason>, message: &str) -> Failure {
    Failure::new(
        reason.unwrap_or(Reason::Internal),
        format!(
            "{}:{} does not leave {digest}, which could not be kept: {message}",
            step.repository, step.tag
        ),
    )
    .remedy("mend that, or have the operator remove the retention of the repository")
}

/// The move of a tag that keeps a digest: like a unique tag of the same release.
fn kept_move(step: &Move, digest: &Digest, kept_tag: &Tag, tag_move: Uuid) -> Move {
    Move {
        tag_move,
        kind: TagKind::Unique,
        tag: kept_tag.clone(),
        ticket: None,
        wanted: digest.clone(),
        source: Reference::digest(step.repository.clone(), digest.clone()),
        terms: Terms {
            purpose: Purpose::Publish,
            expected: None,
            planned: false,
            order: None,
            if_older: IfOlder::Refuse,
            allow_backward: false,
            break_glass: step.terms.break_glass,
            line: None,
            highest: None,
        },
        restore: None,
        role: Role::Retention,
        ..step.clone()
    }
}
