//! Letting go of kept digests that are too many or too old: their tags are deleted, under intents
//! like every other change.

use std::time::Duration;

use colophon_domain::{Digest, Failure, Result, Tag};
use colophon_ledger::{Kind, Purpose};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Author, Intent, Kept, Look, Store,
    append::{Draft, LockedHead},
    freezes::FREEZE_GATE,
    outcomes::close,
    rows,
    tx::{self, Bounded as _, Fault},
    verdicts::{Settled, reason_code},
};

/// In whose name tags are deleted: nobody asked for it at that moment.
const PRUNER: &str = "colophon/retention";

/// Tags from which one digest was published, of which each is looked at.
const SOURCE_TAGS: i64 = 32;

/// What becomes of a kept digest that is too many or too old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prune {
    /// Nothing is to be deleted: another floating tag keeps it too, it was left again, or its tag is
    /// gone or somebody else's already.
    Forgotten,
    /// Not now: something else points to the digest, a move is under way, or a freeze holds.
    Later,
    /// Delete the tag under this intent.
    Delete(Intent),
}

impl Store {
    /// Commits the intent to delete the tag of a kept digest, if nothing stands against it.
    /// `tag_seq` is the number of the tag's entries before the look, `window` and `grace` are those
    /// of a move.
    pub async fn begin_prune(
        &self,
        kept: &Kept,
        tag_seq: i64,
        look: Look<'_>,
        window: Duration,
        grace: Duration,
    ) -> Result<Prune> {
        tx::run("prune.begin", || self.try_prune(kept, tag_seq, look, window, grace)).await
    }

    async fn try_prune(
        &self,
        kept: &Kept,
        tag_seq: i64,
        look: Look<'_>,
        window: Duration,
        grace: Duration,
    ) -> Result<Prune, Fault> {
        let mut tx = self.pool.begin().await?;
        sqlx::query!("SELECT pg_advisory_xact_lock_shared($1)::text AS gate", FREEZE_GATE)
            .fetch_one(&mut *tx)
            .await?;
        let mut head = LockedHead::lock(&mut tx, &kept.repository, &kept.kept_tag).await?;
        let used = uses(&mut tx, kept).await?;
        // It was left again since it was read, and is the newest by now.
        if !used.known {
            return Ok(Prune::Forgotten);
        }
        if used.moving || head.frozen || head.held || look.is_stale() || head.tag_seq != tag_seq {
            return Ok(Prune::Later);
        }
        if used.shared {
            forget(&mut tx, kept).await?;
            tx.commit().await?;
            return Ok(Prune::Forgotten);
        }
        head.observe(self, &mut tx, look).await?;
        if look.digest != Some(&kept.digest) {
            head.touch(&mut tx).await?;
            forget(&mut tx, kept).await?;
            tx.commit().await?;
            return Ok(Prune::Forgotten);
        }
        // Some registries delete the manifest with its tag; what a tag points to must stay.
        if used.tagged {
            return Ok(Prune::Later);
        }
        let author = pruner();
        let draft = Draft { author: Some(&author), ..Draft::default() };
        let purpose = Purpose::Retention;
        let id = head.append(self, &mut tx, Kind::Intent, purpose, draft, None).await?;
        open(&mut tx, kept, id, window, grace).await?;
        tx.commit().await?;
        Ok(Prune::Delete(Intent { id, old: look.digest.cloned() }))
    }

    /// Writes the outcome of a deletion as the registry shows it. A tag that is still there is
    /// tried again after `pause`.
    pub async fn finish_prune(
        &self,
        kept: &Kept,
        intent: &Intent,
        look: Look<'_>,
        refusal: Option<&Failure>,
        pause: Duration,
    ) -> Result<Settled> {
        let settled = Settled::of(look.digest, intent.old.as_ref(), None);
        let kind = match settled {
            Settled::Applied => Kind::Confirmed,
            Settled::NotApplied => Kind::NotApplied,
            Settled::Conflict => Kind::Conflict,
        };
        tx::run("prune.finish", || async {
            let mut tx = self.pool.begin().await?;
            let mut head = LockedHead::lock(&mut tx, &kept.repository, &kept.kept_tag).await?;
            close(&mut tx, intent.id, 0, &kept.repository, &kept.kept_tag).await?;
            let author = pruner();
            let draft = Draft {
                new: look.digest,
                intent: Some(intent.id),
                reason_code: reason_code(settled, refusal),
                author: Some(&author),
                ..Draft::default()
            };
            head.seen(look);
            head.append(self, &mut tx, kind, Purpose::Retention, draft, None).await?;
            if settled == Settled::Applied {
                forget(&mut tx, kept).await?;
            }
            tx.commit().await?;
            Ok(())
        })
        .await?;
        if settled != Settled::Applied {
            self.prune_later(kept, pause).await?;
        }
        Ok(settled)
    }

    /// Tags of the repository from which the digest was published, newest first: Colophon has not
    /// moved them and does not know whether they are there still.
    pub async fn source_tags(&self, kept: &Kept) -> Result<Vec<Tag>> {
        let rows = sqlx::query_scalar!(
            r#"
            SELECT source_reference FROM release
            WHERE source_registry = $1 AND source_repository = $2 AND digest = $3
              AND source_reference NOT LIKE '%:%'
            GROUP BY source_reference ORDER BY max(id::text) DESC LIMIT $4
            "#,
            kept.repository.registry().as_str(),
            kept.repository.name(),
            kept.digest.as_str(),
            SOURCE_TAGS,
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        rows.iter().map(|tag| rows::tag(tag)).collect()
    }

    /// Tries to let go of a kept digest again after `pause`.
    pub async fn prune_later(&self, kept: &Kept, pause: Duration) -> Result<()> {
        sqlx::query!(
            r#"
            UPDATE kept_digest SET retry_at = colophon_now() + $5::float8 * interval '1 second'
            WHERE registry = $1 AND repository = $2 AND tag = $3 AND digest = $4
            "#,
            kept.repository.registry().as_str(),
            kept.repository.name(),
            kept.tag.as_str(),
            kept.digest.as_str(),
            pause.as_secs_f64(),
        )
        .execute(&self.pool)
        .bounded()
        .await?;
        Ok(())
    }
}

fn pruner() -> Author {
    Author {
        principal: PRUNER.to_owned(),
        on_behalf_of: String::new(),
        reason: "kept digests that are too many or too old are let go".to_owned(),
    }
}

/// Who else has to do with a kept digest.
#[expect(clippy::struct_excessive_bools, reason = "a row: each is a column of its own")]
struct Uses {
    /// It is kept as it was read.
    known: bool,
    /// Another floating tag left it too.
    shared: bool,
    /// A tag that we know points to it.
    tagged: bool,
    /// A move of its tag, or of one that goes to it, is under way or will be.
    moving: bool,
}

async fn uses(conn: &mut PgConnection, kept: &Kept) -> Result<Uses, Fault> {
    Ok(sqlx::query_as!(
        Uses,
        r#"
        SELECT EXISTS (SELECT FROM kept_digest
                       WHERE registry = $1 AND repository = $2 AND tag = $4 AND digest = $5
                         AND left_at = $6) AS "known!",
               EXISTS (SELECT FROM kept_digest
                       WHERE registry = $1 AND repository = $2 AND kept_tag = $3 AND tag <> $4)
                   AS "shared!",
               EXISTS (SELECT FROM tag_head
                       WHERE registry = $1 AND repository = $2 AND tag <> $3 AND digest = $5)
                   AS "tagged!",
               EXISTS (SELECT FROM open_intent
                       WHERE registry = $1 AND repository = $2 AND (tag = $3 OR new_digest = $5))
               OR EXISTS (SELECT FROM tag_move m JOIN publication p ON p.id = m.publication_id
                          JOIN release r ON r.id = m.release_id
                          WHERE p.registry = $1 AND p.repository = $2 AND r.ended_at IS NULL
                            AND (COALESCE(m.content_digest, r.digest) = $5 OR m.old_digest = $5))
               OR EXISTS (SELECT FROM tag_move m JOIN release r ON r.id = m.release_id
                          WHERE r.ended_at IS NULL AND m.content_registry = $1
                            AND m.content_repository = $2 AND m.content_digest = $5)
               OR EXISTS (SELECT FROM release r
                          WHERE r.source_registry = $1 AND r.source_repository = $2
                            AND r.digest = $5 AND r.ended_at IS NULL) AS "moving!"
        "#,
        kept.repository.registry().as_str(),
        kept.repository.name(),
        kept.kept_tag.as_str(),
        kept.tag.as_str(),
        kept.digest.as_str(),
        kept.left_at,
    )
    .fetch_one(conn)
    .await?)
}

async fn forget(conn: &mut PgConnection, kept: &Kept) -> Result<(), Fault> {
    // Not if the floating tag came and left again meanwhile: then it is kept anew.
    sqlx::query!(
        r#"
        DELETE FROM kept_digest
        WHERE registry = $1 AND repository = $2 AND tag = $3 AND digest = $4 AND left_at = $5
        "#,
        kept.repository.registry().as_str(),
        kept.repository.name(),
        kept.tag.as_str(),
        kept.digest.as_str(),
        kept.left_at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn open(
    conn: &mut PgConnection,
    kept: &Kept,
    intent: Uuid,
    window: Duration,
    grace: Duration,
) -> Result<(), Fault> {
    sqlx::query!(
        r#"
        INSERT INTO open_intent (registry, repository, tag, intent_id, tag_move_id, old_digest,
                                 deadline, resolve_after, purpose)
        VALUES ($1, $2, $3, $4, $5, $6,
                colophon_now() + $7::float8 * interval '1 second',
                colophon_now() + ($7::float8 + $8::float8) * interval '1 second', 'retention')
        "#,
        kept.repository.registry().as_str(),
        kept.repository.name(),
        kept.kept_tag.as_str(),
        intent,
        kept.tag_move,
        Digest::as_str(&kept.digest),
        window.as_secs_f64(),
        grace.as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
