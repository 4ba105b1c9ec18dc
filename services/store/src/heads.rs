//! What is known of a reference before its turn: the newest entry's digest, and whether a move
//! is under way.

use std::time::Duration;

use colophon_domain::{Digest, HeadState, Result};
use uuid::Uuid;

use crate::{Claimed, Move, Store, rows, tx::Bounded as _};

/// The newest state of a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// How many entries the reference has; whoever writes next must have seen this number.
    pub tag_seq: i64,
    /// What the newest entry says that the tag points to.
    pub digest: Option<Digest>,
    /// What the rules need to know.
    pub state: HeadState,
    /// A move that is under way.
    pub blocker: Option<Blocker>,
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

impl Store {
    /// The newest state of a tag's reference. Whatever is written about it afterwards shows in
    /// the number of its entries.
    pub async fn head(&self, step: &Move) -> Result<Head> {
        let row = sqlx::query!(
            r#"
            SELECT h.tag_seq, h.digest, h.moved_ticket,
                   i.tag_move_id AS "tag_move_id?", m.release_id AS "release_id?",
                   EXTRACT(EPOCH FROM i.resolve_after - colophon_now())::float8 AS resolved_in,
                   (SELECT own.ended_at IS NOT NULL FROM tag_move own WHERE own.id = $4) AS settled
            FROM tag_head h
            LEFT JOIN open_intent i USING (registry, repository, tag)
            LEFT JOIN tag_move m ON m.id = i.tag_move_id
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
            state: HeadState { moved_ticket: row.moved_ticket },
            blocker,
            settled: row.settled.unwrap_or_default(),
        })
    }

    /// The tags of a job that are not settled yet, in the order of the request.
    pub async fn unsettled_tags(&self, job: &Claimed) -> Result<Vec<Move>> {
        let rows = sqlx::query!(
            r#"
            SELECT id, tag, kind, ticket FROM tag_move
            WHERE publication_id = $1 AND kind = $2 AND state IN ('PENDING', 'MOVING', 'UNKNOWN')
            ORDER BY ordinal
            "#,
            job.publication,
            job.kind.as_str(),
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        rows.into_iter()
            .map(|row| {
                let (kind, tag) = (rows::tag_kind(&row.kind)?, rows::tag(&row.tag)?);
                Ok(Move::of(job, row.id, kind, tag, row.ticket))
            })
            .collect()
    }
}
