//! What the registries show beside what the ledger says, after a restore: written down tag by tag,
//! so that a comparison that was broken off goes on where it was.

use colophon_domain::{Digest, Repository, Result, Tag};
use uuid::Uuid;

use crate::{
    Look, Store,
    append::LockedHead,
    rows,
    tx::{self, Bounded as _},
};

/// A tag that releases have named, and what the newest entry of the ledger says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The repository.
    pub repository: Repository,
    /// The tag.
    pub tag: Tag,
    /// Where it points, as recorded; `None` if it does not exist, or was never seen.
    pub digest: Option<Digest>,
    tag_seq: i64,
}

/// What a registry showed of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// What is recorded.
    Same,
    /// Something else, or nothing.
    Differs(Option<Digest>),
    /// The registry did not say; why.
    Unreachable(String),
}

/// A tag whose registry does not show what is recorded, or cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The tag, and what is recorded.
    pub recorded: Recorded,
    /// What was found.
    pub found: Found,
}

/// How far a comparison is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// Tags that are as recorded.
    pub same: i64,
    /// Tags that are not.
    pub differ: i64,
    /// Tags whose registry could not be asked.
    pub unreachable: i64,
    /// Tags that were not compared yet.
    pub left: i64,
}

impl Store {
    /// A page of the tags that are still to be compared, or could not be; `after` the last one of
    /// the page before.
    pub async fn to_compare(&self, after: Option<&Recorded>, limit: i64) -> Result<Vec<Recorded>> {
        let rows = sqlx::query!(
            r#"
            SELECT h.registry, h.repository, h.tag, h.digest, h.tag_seq
            FROM tag_head h LEFT JOIN restore_finding f USING (registry, repository, tag, tag_seq)
            WHERE (f.found IS NULL OR f.found = 'unreachable')
              AND ($1::text IS NULL OR (h.registry, h.repository, h.tag) > ($1, $2, $3))
            ORDER BY h.registry, h.repository, h.tag LIMIT $4
            "#,
            after.map(|last| last.repository.registry().as_str()),
            after.map(|last| last.repository.name()),
            after.map(|last| last.tag.as_str()),
            limit,
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Recorded {
                    repository: rows::repository(&row.registry, &row.repository)?,
                    tag: rows::tag(&row.tag)?,
                    digest: rows::digest_option(row.digest.as_deref())?,
                    tag_seq: row.tag_seq,
                })
            })
            .collect()
    }

    /// Writes down what a registry showed.
    pub async fn found(&self, recorded: &Recorded, found: &Found) -> Result<()> {
        let (word, served, message) = match found {
            Found::Same => ("same", recorded.digest.as_ref(), ""),
            Found::Differs(served) => ("differs", served.as_ref(), ""),
            Found::Unreachable(why) => ("unreachable", None, why.as_str()),
        };
        sqlx::query!(
            r#"
            INSERT INTO restore_finding (registry, repository, tag, found, recorded, served,
                                         message, tag_seq, differed)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $4 = 'differs')
            ON CONFLICT (registry, repository, tag) DO UPDATE
                SET found = EXCLUDED.found, recorded = EXCLUDED.recorded,
                    served = EXCLUDED.served, message = EXCLUDED.message,
                    tag_seq = EXCLUDED.tag_seq, checked_at = colophon_now(),
                    differed = restore_finding.differed OR EXCLUDED.differed
            "#,
            recorded.repository.registry().as_str(),
            recorded.repository.name(),
            recorded.tag.as_str(),
            word,
            recorded.digest.as_ref().map(Digest::as_str),
            served.map(Digest::as_str),
            message,
            recorded.tag_seq,
        )
        .execute(&self.pool)
        .bounded()
        .await?;
        Ok(())
    }

    /// Lets everything be compared again.
    pub async fn compare_again(&self) -> Result<()> {
        // No tag has so few entries, so that none counts as compared.
        sqlx::query!("UPDATE restore_finding SET tag_seq = -1")
            .execute(&self.pool)
            .bounded()
            .await?;
        Ok(())
    }

    /// How far the comparison is. A tag of which the ledger has an entry more is to be compared again.
    pub async fn compared(&self) -> Result<Compared> {
        sqlx::query_as!(
            Compared,
            r#"
            SELECT count(*) FILTER (WHERE f.found = 'same') AS "same!",
                   count(*) FILTER (WHERE f.found = 'differs') AS "differ!",
                   count(*) FILTER (WHERE f.found = 'unreachable') AS "unreachable!",
                   count(*) FILTER (WHERE f.found IS NULL) AS "left!"
            FROM tag_head h LEFT JOIN restore_finding f USING (registry, repository, tag, tag_seq)
            "#,
        )
        .fetch_one(&self.pool)
        .bounded()
        .await
    }

    /// A page of the tags that are not as recorded, or whose registry could not be asked.
    pub async fn findings(&self, after: Option<&Recorded>, limit: i64) -> Result<Vec<Finding>> {
        let rows = sqlx::query!(
            r#"
            SELECT registry, repository, tag, found, recorded, served, message, tag_seq
            FROM restore_finding
            WHERE found <> 'same'
              AND ($1::text IS NULL OR (registry, repository, tag) > ($1, $2, $3))
            ORDER BY registry, repository, tag LIMIT $4
            "#,
            after.map(|last| last.repository.registry().as_str()),
            after.map(|last| last.repository.name()),
            after.map(|last| last.tag.as_str()),
            limit,
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        rows.into_iter()
            .map(|row| {
                let recorded = Recorded {
                    repository: rows::repository(&row.registry, &row.repository)?,
                    tag: rows::tag(&row.tag)?,
                    digest: rows::digest_option(row.recorded.as_deref())?,
                    tag_seq: row.tag_seq,
                };
                let found = match row.found.as_str() {
                    "differs" => Found::Differs(rows::digest_option(row.served.as_deref())?),
                    _ => Found::Unreachable(row.message),
                };
                Ok(Finding { recorded, found })
            })
            .collect()
    }

    /// Writes what a registry shows now into the ledger, where it is not what the newest entry says.
    /// A tag with a move under way is left to who finds out what became of that; `false` then, and
    /// where the look is too old, or the tag has an entry more than `tag_seq`, read before it.
    pub async fn record_sight(
        &self,
        repository: &Repository,
        tag: &Tag,
        tag_seq: i64,
        look: Look<'_>,
    ) -> Result<bool> {
        tx::run("sight.record", || async {
            let mut tx = self.pool.begin().await?;
            let mut head = LockedHead::lock(&mut tx, repository, tag).await?;
            let open = sqlx::query_scalar!(
                r#"
                SELECT EXISTS (SELECT FROM open_intent
                               WHERE registry = $1 AND repository = $2 AND tag = $3) AS "open!"
                "#,
                repository.registry().as_str(),
                repository.name(),
                tag.as_str(),
            )
            .fetch_one(&mut *tx)
            .await?;
            if open || look.is_stale() || head.tag_seq != tag_seq {
                return Ok(false);
            }
            head.observe(self, &mut tx, look).await?;
            head.touch(&mut tx).await?;
            // What was found stays found, also if the end of the hold is broken off after this.
            sqlx::query!(
                r#"
                UPDATE restore_finding f SET served = $4, tag_seq = h.tag_seq FROM tag_head h
                WHERE f.registry = $1 AND f.repository = $2 AND f.tag = $3
                  AND (h.registry, h.repository, h.tag) = (f.registry, f.repository, f.tag)
                "#,
                repository.registry().as_str(),
                repository.name(),
                tag.as_str(),
                look.digest.map(Digest::as_str),
            )
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(true)
        })
        .await
    }

    /// Releases from before the hold that may have been overtaken: one of their floating tags was seen
    /// elsewhere than recorded, or nobody knows, and is not where they would move it either.
    pub async fn overtaken(&self) -> Result<Vec<Uuid>> {
        sqlx::query_scalar!(
            r#"
            SELECT r.id AS "id!" FROM held_release r
            WHERE r.cancel_requested_at IS NULL AND r.phase <> 'restore'
              AND EXISTS (
                SELECT FROM tag_move m JOIN publication p ON p.id = m.publication_id
                JOIN tag_head h
                    ON h.registry = p.registry AND h.repository = p.repository AND h.tag = m.tag
                LEFT JOIN restore_finding f
                    ON f.registry = h.registry AND f.repository = h.repository AND f.tag = h.tag
                   AND f.tag_seq = h.tag_seq
                WHERE m.release_id = r.id AND m.kind = 'floating' AND NOT m.retention
                  AND m.state IN ('PENDING', 'MOVING', 'UNKNOWN')
                  AND (f.differed OR COALESCE(f.found, 'unreachable') <> 'same')
                  AND f.served IS DISTINCT FROM COALESCE(m.content_digest, r.digest))
            ORDER BY r.id
            "#,
        )
        .fetch_all(&self.pool)
        .bounded()
        .await
    }

    /// Lets no release from before the hold put anything back any more, also where it has begun to:
    /// the release may have succeeded since, and what it moved then looks as if it were its own still.
    pub async fn put_nothing_back(&self) -> Result<()> {
        tx::run("hold.put_nothing_back", || async {
            sqlx::query!(
                r#"
                UPDATE release r SET on_failure = 'keep' FROM held_release h
                WHERE h.id = r.id AND r.on_failure <> 'keep'
                "#,
            )
            .execute(&self.pool)
            .await?;
            Ok(())
        })
        .await
    }

    /// Releases from before the hold that move tags when it ends, forward or back.
    pub async fn going_on(&self) -> Result<Vec<Uuid>> {
        sqlx::query_scalar!(
            r#"
            SELECT r.id AS "id!" FROM held_release r
            WHERE r.phase <> 'restore' AND r.cancel_requested_at IS NULL
               OR r.phase = 'restore' AND r.on_failure = 'restore'
            ORDER BY r.id
            "#,
        )
        .fetch_all(&self.pool)
        .bounded()
        .await
    }
}
