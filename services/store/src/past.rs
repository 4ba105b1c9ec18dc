//! What tags were before, and where content was seen: what rollbacks and versions are decided by.

use colophon_domain::{Digest, Reference, Repository, Result, Step, StepKind, Tag, TagMoveState};
use uuid::Uuid;

use crate::{Store, rows, tx::Bounded as _};

/// Entries of one tag that are looked at; a rollback beyond that is one to a digest.
const ENTRIES: i64 = 10_000;
/// Places of one digest that are tried.
const PLACES: i64 = 32;
/// Versions of one repository that are looked at.
const VERSIONS: i64 = 200_000;

/// A floating tag that a release moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedTag {
    /// Its repository.
    pub repository: Repository,
    /// The tag.
    pub tag: Tag,
    /// What it was before; `None` if there was no such tag.
    pub old: Option<Digest>,
    /// Where the release moved it.
    pub new: Digest,
    /// It is the release's still: nobody has moved it since.
    pub ours: bool,
}

impl Store {
    /// The positions of a tag in the order in which it took them.
    pub async fn tag_steps(&self, repository: &Repository, tag: &Tag) -> Result<Vec<Step>> {
        let rows = sqlx::query!(
            r#"
            SELECT e.new_digest, e.kind, e.purpose, r.purpose AS "asked_for?"
            FROM audit_entry e LEFT JOIN release r ON r.id = e.release_id
            WHERE registry = $1 AND repository = $2 AND tag = $3
              AND e.kind IN ('baseline', 'confirmed', 'recovered', 'conflict', 'drift', 'deleted',
                           'unchanged')
            ORDER BY tag_seq DESC LIMIT $4
            "#,
            repository.registry().as_str(),
            repository.name(),
            tag.as_str(),
            ENTRIES,
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        rows.into_iter()
            .rev()
            .map(|row| {
                // A rollback that is put back goes forward again. Where somebody else moved the tag
                // meanwhile, it went nowhere that it had been.
                let undone = row.asked_for.as_deref() == Some("rollback");
                let back = row.kind != "conflict"
                    && (row.purpose == "rollback" || row.purpose == "restore" && !undone);
                let kind = if back { StepKind::Back } else { StepKind::Moved };
                Ok(Step { digest: rows::digest_option(row.new_digest.as_deref())?, kind })
            })
            .collect()
    }

    /// The floating tags that a release moved, in the order of its request.
    pub async fn moved_tags(&self, release: Uuid) -> Result<Vec<MovedTag>> {
        let rows = sqlx::query!(
            r#"
            SELECT p.registry, p.repository, m.tag, m.old_digest,
                   COALESCE(m.content_digest, r.digest) AS "digest!",
                   (h.mover = m.id AND h.digest = COALESCE(m.content_digest, r.digest)) AS ours
            FROM tag_move m
            JOIN publication p ON p.id = m.publication_id
            JOIN release r ON r.id = m.release_id
            JOIN tag_head h ON h.registry = p.registry AND h.repository = p.repository
                           AND h.tag = m.tag
            WHERE m.release_id = $1 AND m.kind = 'floating' AND m.state = $2
            ORDER BY p.ordinal, m.ordinal
            "#,
            release,
            TagMoveState::Moved.as_str(),
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(MovedTag {
                    repository: rows::repository(&row.registry, &row.repository)?,
                    tag: rows::tag(&row.tag)?,
                    old: rows::digest_option(row.old_digest.as_deref())?,
                    new: rows::digest(&row.digest)?,
                    ours: row.ours.unwrap_or_default(),
                })
            })
            .collect()
    }

    /// Where a digest was seen, or copied from: newest first, each repository once.
    pub async fn places(&self, digest: &Digest) -> Result<Vec<Repository>> {
        let rows = sqlx::query!(
            r#"
            SELECT registry, repository, source, max(at) AS "last!" FROM audit_entry
            WHERE new_digest = $1 AND kind <> 'intent'
            GROUP BY registry, repository, source ORDER BY 4 DESC LIMIT $2
            "#,
            digest.as_str(),
            PLACES,
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        let mut places = Vec::new();
        for row in rows {
            places.push(rows::repository(&row.registry, &row.repository)?);
            // A part of an index was made here, and is not where the whole one is.
            let source = row.source.as_deref().map(str::parse::<Reference>).transpose()?;
            let has = |source: &Reference| source.target.as_str() == digest.as_str();
            places.extend(source.filter(has).map(|source| source.repository));
        }
        let mut seen = std::collections::BTreeSet::new();
        places.retain(|place| seen.insert(place.clone()));
        Ok(places)
    }

    /// Tags of a repository that look like versions and are there by the ledger.
    pub async fn version_tags(&self, repository: &Repository) -> Result<Vec<String>> {
        sqlx::query_scalar!(
            r#"
            SELECT tag FROM tag_head
            WHERE registry = $1 AND repository = $2 AND digest IS NOT NULL
              AND tag ~ '^v?[0-9]+\.[0-9]+\.[0-9]+'
            LIMIT $3
            "#,
            repository.registry().as_str(),
            repository.name(),
            VERSIONS,
        )
        .fetch_all(&self.pool)
        .bounded()
        .await
    }
}
