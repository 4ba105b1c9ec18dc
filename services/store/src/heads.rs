//! What is known of a reference before its turn: the newest entry's digest, and whether a move
//! is under way.

use std::time::Duration;

use colophon_domain::{Digest, HeadState, Repository, Result, Tag};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::{Move, Store, rows, tx::Bounded as _};

/// The newest state of a reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// How many entries the reference has; whoever writes next must have seen this number.
    pub tag_seq: i64,
    /// What the newest entry says that the tag points to.
    pub digest: Option<Digest>,
    /// What the rules need to know.
    pub state: HeadState,
    /// A move that is under way.
    pub blocker: Option<Blocker>,
    /// A freeze that stops moves of the tag.
    pub frozen: Option<Frozen>,
    /// Another release that holds the tag now and has not ended: it may yet be put back.
    pub holder: Option<Uuid>,
    /// The tag of this release was settled since its job was looked at, by whoever found out
    /// what became of an interrupted move: nothing is left to do.
    pub settled: bool,
}

/// A move that is under way and blocks its reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// The release that it belongs to.
    pub release: Uuid,
    /// The tag of that release.
    pub tag_move: Uuid,
    /// How long until the reconciler looks, if nobody finishes it before.
    pub resolved_in: Duration,
}

/// A freeze that stops moves of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// What is frozen until when and why, in words.
    pub what: String,
    /// How long until it ends, if nobody lifts it before.
    pub ends_in: Duration,
}

impl Store {
    /// The newest state of a tag's reference. Whatever is written about it afterwards shows in
    /// the number of its entries.
    pub async fn head(&self, step: &Move) -> Result<Head> {
        let row = sqlx::query!(
            r#"
            SELECT h.tag_seq, h.digest, h.moved_ticket, h.order_kind, h.order_value,
                   h.barrier_ticket, h.barrier_release, h.mover,
                   f.pattern AS "frozen_pattern?", f.reason AS "frozen_reason?",
                   f.ends_at AS "frozen_until?",
                   EXTRACT(EPOCH FROM f.ends_at - colophon_now())::float8 AS frozen_for,
                   (SELECT r.id FROM release r
                    WHERE r.ended_at IS NULL
                      AND (r.id = h.barrier_release
                           OR r.on_failure = 'restore'
                              AND r.id = (SELECT t.release_id FROM tag_move t WHERE t.id = h.mover))
                      AND r.id <> (SELECT t.release_id FROM tag_move t WHERE t.id = $4)
                      -- Not one that waits itself: two must not wait for each other. One that puts
                      -- its tags back waits for no other.
                      AND (r.phase = 'restore' OR NOT EXISTS (SELECT FROM job j
                                      WHERE j.release_id = r.id AND j.waiting_for IS NOT NULL))
                    LIMIT 1) AS holder,
                   i.tag_move_id AS "tag_move_id?", m.release_id AS "release_id?",
                   EXTRACT(EPOCH FROM i.resolve_after - colophon_now())::float8 AS resolved_in,
                   (SELECT own.ended_at IS NOT NULL FROM tag_move own WHERE own.id = $4) AS settled
            FROM tag_head h
            LEFT JOIN open_intent i USING (registry, repository, tag)
            LEFT JOIN tag_move m ON m.id = i.tag_move_id
            LEFT JOIN LATERAL freeze_of(h.registry, h.repository) f ON true
            WHERE h.registry = $1 AND h.repository = $2 AND h.tag = $3
            "#,
            step.repository.registry().as_str(),
            step.repository.name(),
            step.tag.as_str(),
            step.tag_move,
        )
        .fetch_one(&self.pool)
        .bounded()
        .await?;
        let blocker = row.tag_move_id.zip(row.release_id).map(|(tag_move, release)| Blocker {
            release,
            tag_move,
            resolved_in: Duration::try_from_secs_f64(row.resolved_in.unwrap_or_default())
                .unwrap_or_default(),
        });
        Ok(Head {
            tag_seq: row.tag_seq,
            digest: rows::digest_option(row.digest.as_deref())?,
            state: HeadState {
                moved_ticket: row.moved_ticket,
                order: rows::order(row.order_kind.as_deref(), row.order_value.as_deref())?,
                barrier: row.barrier_ticket,
                barrier_release: row.barrier_release,
                mover: row.mover,
            },
            blocker,
            holder: row.holder,
            frozen: frozen(row.frozen_pattern, row.frozen_reason, row.frozen_until, row.frozen_for),
            settled: row.settled.unwrap_or_default(),
        })
    }
}

impl Store {
    /// What the rules need to know of a reference; nothing is known of one that no release named.
    pub async fn head_state(&self, repository: &Repository, tag: &Tag) -> Result<HeadState> {
        let row = sqlx::query!(
            r#"
            SELECT moved_ticket, order_kind, order_value, barrier_ticket, barrier_release, mover
            FROM tag_head WHERE registry = $1 AND repository = $2 AND tag = $3
            "#,
            repository.registry().as_str(),
            repository.name(),
            tag.as_str(),
        )
        .fetch_optional(&self.pool)
        .bounded()
        .await?;
        let Some(row) = row else { return Ok(HeadState::default()) };
        Ok(HeadState {
            moved_ticket: row.moved_ticket,
            order: rows::order(row.order_kind.as_deref(), row.order_value.as_deref())?,
            barrier: row.barrier_ticket,
            barrier_release: row.barrier_release,
            mover: row.mover,
        })
    }

    /// Those of some tags whose last move was interrupted, and nobody knows yet what became of it.
    pub async fn unknown_outcomes(
        &self,
        repository: &Repository,
        tags: &[&Tag],
    ) -> Result<Vec<Tag>> {
        let names: Vec<String> = tags.iter().map(|tag| tag.as_str().to_owned()).collect();
        let rows = sqlx::query_scalar!(
            r#"
            SELECT tag FROM open_intent
            WHERE registry = $1 AND repository = $2 AND tag = ANY ($3)
              AND deadline <= colophon_now()
            ORDER BY tag
            "#,
            repository.registry().as_str(),
            repository.name(),
            &names,
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        rows.iter().map(|tag| rows::tag(tag)).collect()
    }

    /// How many entries a tag has; 0 for one that no release named.
    pub async fn tag_seq(&self, repository: &Repository, tag: &Tag) -> Result<i64> {
        let seq = sqlx::query_scalar!(
            "SELECT tag_seq FROM tag_head WHERE registry = $1 AND repository = $2 AND tag = $3",
            repository.registry().as_str(),
            repository.name(),
            tag.as_str(),
        )
        .fetch_optional(&self.pool)
        .bounded()
        .await?;
        Ok(seq.unwrap_or_default())
    }

    /// The freeze that stops moves in a repository now.
    pub async fn frozen(&self, repository: &Repository) -> Result<Option<Frozen>> {
        let row = sqlx::query!(
            r#"
            SELECT pattern, reason, ends_at,
                   EXTRACT(EPOCH FROM ends_at - colophon_now())::float8 AS seconds
            FROM freeze_of($1, $2)
            "#,
            repository.registry().as_str(),
            repository.name(),
        )
        .fetch_optional(&self.pool)
        .bounded()
        .await?;
        Ok(row.and_then(|row| frozen(row.pattern, row.reason, row.ends_at, row.seconds)))
    }
}

/// The freeze of a row, in words for those who wait for its end.
fn frozen(
    pattern: Option<String>,
    reason: Option<String>,
    until: Option<OffsetDateTime>,
    seconds: Option<f64>,
) -> Option<Frozen> {
    let (pattern, reason, until) = (pattern?, reason?, until?);
    let until = until.replace_nanosecond(0).unwrap_or(until).format(&Rfc3339).unwrap_or_default();
    Some(Frozen {
        what: format!("the freeze of {pattern} until {until}: {reason}"),
        ends_in: Duration::try_from_secs_f64(seconds.unwrap_or_default()).unwrap_or_default(),
    })
}
