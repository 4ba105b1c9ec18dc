//! The tags of a job that are not settled yet, each with everything that its move depends on.

use colophon_domain::{Digest, Reference, Result};

use crate::{Claimed, Move, Restore, Role, Store, Terms, append::Holder, rows, tx::Bounded as _};

impl Store {
    /// The tags of a job that are not settled yet, in the order of the request.
    pub async fn unsettled_tags(&self, job: &Claimed) -> Result<Vec<Move>> {
        let rows = sqlx::query!(
            r#"
            SELECT id, tag, kind, ticket, old_digest, content_registry, content_repository,
                   content_digest, expected, order_kind, order_value, if_older, line,
                   before_ticket, before_order_kind, before_order_value, before_mover, found,
                   (SELECT r.on_failure = 'keep' FROM release r WHERE r.id = tag_move.release_id)
                       AS "kept!"
            FROM tag_move
            WHERE publication_id = $1
              AND CASE WHEN $2 = 'restore' THEN state = 'RESTORING'
                       ELSE kind = $2 AND NOT retention
                            AND state IN ('PENDING', 'MOVING', 'UNKNOWN') END
            ORDER BY ordinal
            "#,
            job.publication,
            job.kind.as_str(),
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        let mut steps = Vec::with_capacity(rows.len());
        for row in rows {
            let content =
                content(row.content_registry, row.content_repository, row.content_digest)?;
            // What was made of the source has another digest than it.
            let (source, content) = match content {
                Some((source, digest)) => (source, digest),
                None => (job.source.clone(), job.digest.clone()),
            };
            let before = Holder {
                ticket: row.before_ticket,
                order: rows::order(
                    row.before_order_kind.as_deref(),
                    row.before_order_value.as_deref(),
                )?,
                mover: row.before_mover,
            };
            // Only tags that had a digest before are put back.
            let back = rows::digest_option(row.old_digest.as_deref())?.filter(|_| job.restores());
            let (wanted, restore) = match back {
                Some(old) => {
                    let (found, kept) = (row.found, row.kept);
                    (old, Some(Restore { moved_to: content, found, kept, before }))
                }
                None => (content, None),
            };
            steps.push(Move {
                lease: job.lease,
                release: job.release,
                publication: job.publication,
                tag_move: row.id,
                job: job.kind,
                kind: rows::tag_kind(&row.kind)?,
                repository: job.repository.clone(),
                tag: rows::tag(&row.tag)?,
                ticket: row.ticket,
                wanted,
                source,
                author: job.author.clone(),
                terms: Terms {
                    purpose: job.purpose,
                    expected: rows::expected(row.expected.as_deref())?,
                    planned: job.planned,
                    order: rows::order(row.order_kind.as_deref(), row.order_value.as_deref())?,
                    if_older: rows::if_older(&row.if_older)?,
                    allow_backward: job.allow_backward,
                    break_glass: job.break_glass,
                    line: rows::line(row.line.as_deref())?,
                    highest: None,
                },
                restore,
                role: Role::Asked,
            });
        }
        Ok(steps)
    }

    /// What has to be at the job's target before its tags can move: the release's content, or
    /// what each of its tags goes to. Every digest once.
    pub async fn contents(&self, job: &Claimed) -> Result<Vec<Reference>> {
        let rows = sqlx::query!(
            r#"
            SELECT DISTINCT ON (content_digest) content_registry, content_repository, content_digest
            FROM tag_move WHERE publication_id = $1 AND state = 'PENDING' AND NOT retention
            ORDER BY content_digest, ordinal
            "#,
            job.publication,
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        rows.into_iter()
            .map(|row| {
                let content =
                    content(row.content_registry, row.content_repository, row.content_digest)?;
                Ok(content.map_or_else(|| job.content(), |(content, _)| content))
            })
            .collect()
    }
}

fn content(
    registry: Option<String>,
    repository: Option<String>,
    digest: Option<String>,
) -> Result<Option<(Reference, Digest)>> {
    let (Some(registry), Some(repository), Some(digest)) = (registry, repository, digest) else {
        return Ok(None);
    };
    let repository = rows::repository(&registry, &repository)?;
    let digest = rows::digest(&digest)?;
    Ok(Some((Reference::digest(repository, digest.clone()), digest)))
}
