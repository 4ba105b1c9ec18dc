//! Reading releases: one, or a page of them, each with its targets and tags.

use std::collections::BTreeMap;

use colophon_domain::{
    AttemptView, CopyTotals, Failure, PublicationView, Reason, ReleaseQuery, ReleaseState,
    ReleaseView, RepositoryPattern, Result, RetryView, TagMoveView, Visibility,
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Store, copies::blobs, rows, tx::Bounded as _};

/// All of a release, or of a page of them, is read as it was at one moment, so that its revision holds
/// for all of it.
const ONE_MOMENT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";

impl Store {
    /// One release with its attempts; `None` if there is none, or the caller may not see it.
    pub async fn release(&self, visibility: &Visibility, id: Uuid) -> Result<Option<ReleaseView>> {
        if !self.is_visible(visibility, id).await? {
            return Ok(None);
        }
        self.whole_release(id).await
    }

    /// Whether there is such a release, and the caller may see it.
    async fn is_visible(&self, visibility: &Visibility, id: Uuid) -> Result<bool> {
        let visible = sqlx::query_scalar!(
            r#"
            SELECT r.id FROM release r
            WHERE r.id = $1 AND (r.principal = $2 OR NOT EXISTS (
                SELECT FROM publication p WHERE p.release_id = r.id
                  AND NOT (p.registry || '/' || p.repository LIKE ANY ($3))))
            "#,
            id,
            visibility.principal,
            &like_patterns(&visibility.readable),
        )
        .fetch_optional(&self.pool)
        .bounded()
        .await?;
        Ok(visible.is_some())
    }

    /// One release with its attempts and the blobs of its copies.
    pub async fn whole_release(&self, id: Uuid) -> Result<Option<ReleaseView>> {
        let mut tx = self.pool.begin_with(ONE_MOMENT).bounded().await?;
        let Some(mut view) = views(&mut tx, &[id], true).await?.pop() else { return Ok(None) };
        view.attempts = attempts(&mut tx, id).await?;
        view.retries = retries(&mut tx, id).await?;
        tx.commit().bounded().await?;
        Ok(Some(view))
    }

    /// The revisions of releases, for those who watch them; one that is gone has none.
    pub async fn revisions(&self, ids: &[Uuid]) -> Result<Vec<(Uuid, u64)>> {
        let rows = sqlx::query!(
            r#"SELECT id, release_revision(r) AS "revision!" FROM release r WHERE id = ANY ($1)"#,
            ids,
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        Ok(rows.into_iter().map(|row| (row.id, row.revision.unsigned_abs())).collect())
    }

    /// A release that its own caller asked for.
    pub async fn accepted(&self, id: Uuid) -> Result<ReleaseView> {
        self.whole_release(id)
            .await?
            .ok_or_else(|| Failure::new(Reason::Internal, "an accepted release cannot be read"))
    }

    /// A page of releases, newest first, without their attempts and the blobs of their copies.
    pub async fn list_releases(&self, query: &ReleaseQuery) -> Result<Vec<ReleaseView>> {
        let states: Vec<String> =
            query.states.iter().map(|state: &ReleaseState| state.as_str().to_owned()).collect();
        let label = query
            .label
            .as_ref()
            .map(|(key, value)| serde_json::json!({ key.as_str(): value.as_str() }));
        let mut tx = self.pool.begin_with(ONE_MOMENT).bounded().await?;
        let ids = sqlx::query_scalar!(
            r#"
            SELECT r.id FROM release r
            WHERE ($1::uuid IS NULL OR r.id < $1)
              AND ($2::text IS NULL OR EXISTS (
                    SELECT FROM publication p
                    WHERE p.release_id = r.id AND p.registry = $2 AND p.repository = $3))
              AND (cardinality($4::text[]) = 0 OR r.state = ANY ($4))
              AND ($5::text IS NULL OR r.principal = $5)
              AND ($6::jsonb IS NULL OR r.labels @> $6)
              AND (r.principal = $7 OR NOT EXISTS (
                    SELECT FROM publication p WHERE p.release_id = r.id
                      AND NOT (p.registry || '/' || p.repository LIKE ANY ($8))))
            ORDER BY r.id DESC LIMIT $9
            "#,
            query.before,
            query.repository.as_ref().map(|r| r.registry().as_str()),
            query.repository.as_ref().map(colophon_domain::Repository::name),
            &states,
            query.actor,
            label,
            query.visibility.principal,
            &like_patterns(&query.visibility.readable),
            i64::from(query.limit),
        )
        .fetch_all(&mut *tx)
        .bounded()
        .await?;
        let views = views(&mut tx, &ids, false).await?;
        tx.commit().bounded().await?;
        Ok(views)
    }
}

/// What a release waits for that has not ended.
#[derive(Default)]
struct Waiting {
    what: Option<String>,
    reason: Option<Reason>,
    until: Option<OffsetDateTime>,
}

impl Waiting {
    fn for_the_hold() -> Self {
        let what = "the end of the hold: the operator compares with the registries".to_owned();
        Self { what: Some(what), reason: Some(Reason::OnHold), until: None }
    }

    /// What its first waiting job waits for. Where that is another release, it looks again and again,
    /// and the time of the next look says nothing to a reader.
    fn of(
        what: Option<String>,
        reason: Option<&str>,
        run_at: Option<OffsetDateTime>,
    ) -> Result<Self> {
        let reason = reason.map(rows::reason).transpose()?;
        let until = run_at.filter(|_| reason != Some(Reason::ReferenceBlocked));
        Ok(Self { what, reason, until })
    }
}

async fn views(
    conn: &mut PgConnection,
    ids: &[Uuid],
    with_blobs: bool,
) -> Result<Vec<ReleaseView>> {
    let rows = sqlx::query!(
        r#"
        SELECT r.id, r.principal, r.on_behalf_of, r.reason, r.labels, r.source_registry,
               r.source_repository, r.source_reference, r.digest, r.not_after, r.priority, r.state,
               r.state_reason, r.message, r.phase, r.cancel_requested_at, r.created_at, r.started_at,
               r.ended_at, r.purpose, r.on_failure, r.allow_backward, r.break_glass, r.plan, r.version,
               r.source_digest, r.platforms, r.referrers, r.cosign, r.include_foreign,
               r.origin,
               release_revision(r) AS "whole_revision!", w.waiting_for AS "waiting_for?",
               w.waiting_reason AS "waiting_reason?", w.run_at AS "waiting_until?",
               (SELECT on_hold()) AS "held!"
        FROM release r
        LEFT JOIN LATERAL (SELECT j.waiting_for, j.waiting_reason, j.run_at FROM job j
                           WHERE j.release_id = r.id AND j.waiting_for IS NOT NULL
                           ORDER BY j.id LIMIT 1) w ON true
        WHERE r.id = ANY ($1) ORDER BY r.id DESC
        "#,
        ids,
    )
    .fetch_all(&mut *conn)
    .bounded()
    .await?;
    let mut publications = publications(conn, ids, with_blobs).await?;
    rows.into_iter()
        .map(|row| {
            let state = rows::release_state(&row.state)?;
            let waiting = if state.ended() {
                Waiting::default()
            } else if row.held {
                Waiting::for_the_hold()
            } else {
                Waiting::of(row.waiting_for, row.waiting_reason.as_deref(), row.waiting_until)?
            };
            Ok(ReleaseView {
                id: row.id,
                source: rows::reference(
                    &row.source_registry,
                    &row.source_repository,
                    &row.source_reference,
                )?,
                digest: rows::digest(&row.digest)?,
                made_from: rows::digest_option(row.source_digest.as_deref())?,
                selection: rows::selection(
                    &row.platforms,
                    &row.referrers,
                    row.cosign,
                    row.include_foreign,
                )?,
                state,
                state_reason: row.state_reason.as_deref().map(rows::reason).transpose()?,
                message: row.message,
                phase: rows::phase(&row.phase)?,
                waiting_for: waiting.what,
                publications: publications.remove(&row.id).unwrap_or_default(),
                actor: row.principal,
                on_behalf_of: row.on_behalf_of,
                reason: row.reason,
                labels: labels(&row.labels),
                not_after: row.not_after,
                priority: row.priority,
                created_at: row.created_at,
                started_at: row.started_at,
                ended_at: row.ended_at,
                attempts: Vec::new(),
                cancel_requested: row.cancel_requested_at.is_some() && !state.ended(),
                purpose: rows::purpose(&row.purpose)?,
                waiting_reason: waiting.reason,
                on_failure: rows::on_failure(&row.on_failure)?,
                plan: row.plan,
                version: row.version,
                break_glass: row.break_glass,
                waiting_until: waiting.until,
                revision: row.whole_revision.unsigned_abs(),
                allow_backward: row.allow_backward,
                retries: Vec::new(),
                origin: row.origin,
            })
        })
        .collect()
}

async fn publications(
    conn: &mut PgConnection,
    releases: &[Uuid],
    with_blobs: bool,
) -> Result<BTreeMap<Uuid, Vec<PublicationView>>> {
    let mut tags = tag_moves(conn, releases, false).await?;
    let mut companions = tag_moves(conn, releases, true).await?;
    let rows = sqlx::query!(
        r#"
        SELECT id, release_id, registry, repository, state, blobs_copied, blobs_present,
               blobs_mounted, bytes_copied, bytes_total, notes, blobs_total,
               CASE WHEN $2 THEN blobs ELSE '[]' END AS "blobs!"
        FROM publication WHERE release_id = ANY ($1) ORDER BY release_id, ordinal
        "#,
        releases,
        with_blobs,
    )
    .fetch_all(&mut *conn)
    .bounded()
    .await?;
    let mut by_release: BTreeMap<Uuid, Vec<PublicationView>> = BTreeMap::new();
    for row in rows {
        by_release.entry(row.release_id).or_default().push(PublicationView {
            repository: rows::repository(&row.registry, &row.repository)?,
            state: rows::publication_state(&row.state)?,
            tags: tags.remove(&row.id).unwrap_or_default(),
            companions: companions.remove(&row.id).unwrap_or_default(),
            copied: CopyTotals {
                blobs_copied: row.blobs_copied,
                blobs_present: row.blobs_present,
                blobs_mounted: row.blobs_mounted,
                bytes_copied: row.bytes_copied,
                bytes_total: row.bytes_total,
                notes: row.notes,
                blobs: blobs(row.blobs),
                blobs_total: row.blobs_total,
            },
        });
    }
    Ok(by_release)
}

/// The tags that were asked for, or those that belong to what was copied. Those that keep a digest are
/// the service's own business; the ledger has them.
async fn tag_moves(
    conn: &mut PgConnection,
    releases: &[Uuid],
    companions: bool,
) -> Result<BTreeMap<Uuid, Vec<TagMoveView>>> {
    let rows = sqlx::query!(
        r#"
        SELECT * FROM tag_move
        WHERE release_id = ANY ($1) AND CASE WHEN $2 THEN companion ELSE NOT retention END
        ORDER BY publication_id, ordinal
        "#,
        releases,
        companions,
    )
    .fetch_all(&mut *conn)
    .bounded()
    .await?;
    let mut by_publication: BTreeMap<Uuid, Vec<TagMoveView>> = BTreeMap::new();
    for row in rows {
        by_publication.entry(row.publication_id).or_default().push(TagMoveView {
            tag: rows::tag(&row.tag)?,
            kind: rows::tag_kind(&row.kind)?,
            state: rows::tag_move_state(&row.state)?,
            reason: row.reason_code.as_deref().map(rows::reason).transpose()?,
            message: row.message,
            old_digest: rows::digest_option(row.old_digest.as_deref())?,
            new_digest: rows::digest_option(row.new_digest.as_deref())?,
            wanted: rows::digest_option(row.content_digest.as_deref())?,
            expected: row.expected,
            order: rows::order(row.order_kind.as_deref(), row.order_value.as_deref())?,
            ticket: row.ticket,
            ended_at: row.ended_at,
        });
    }
    Ok(by_publication)
}

/// The last 50 attempts of each job that did not work, oldest first.
async fn attempts(conn: &mut PgConnection, release: Uuid) -> Result<Vec<AttemptView>> {
    let rows = sqlx::query!(
        r#"
        SELECT j.kind, p.registry, p.repository, a.number, a.reason_code, a.message,
               a.started_at, a.ended_at, a.worker
        FROM job j
        JOIN publication p ON p.id = j.publication_id
        CROSS JOIN LATERAL (SELECT * FROM attempt WHERE job_id = j.id
                            ORDER BY id DESC LIMIT 50) a
        WHERE j.release_id = $1 ORDER BY a.id
        "#,
        release,
    )
    .fetch_all(&mut *conn)
    .bounded()
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(AttemptView {
                job: rows::job_kind(&row.kind)?,
                repository: rows::repository(&row.registry, &row.repository)?,
                number: row.number,
                reason: rows::reason(&row.reason_code)?,
                message: row.message,
                started_at: row.started_at,
                ended_at: row.ended_at,
                worker: row.worker,
            })
        })
        .collect()
}

/// When the release was put to work again, oldest first.
async fn retries(conn: &mut PgConnection, release: Uuid) -> Result<Vec<RetryView>> {
    let rows = sqlx::query!(
        r#"
        SELECT principal, reason, created_at, ended_reason
        FROM release_retry WHERE release_id = $1 ORDER BY number
        "#,
        release,
    )
    .fetch_all(conn)
    .bounded()
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| RetryView {
            actor: row.principal,
            reason: row.reason,
            at: row.created_at,
            ended_reason: Reason::parse(&row.ended_reason),
        })
        .collect())
}

fn labels(json: &serde_json::Value) -> BTreeMap<String, String> {
    let pairs = json.as_object().into_iter().flatten();
    pairs.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// Patterns as `LIKE` understands them: only a final star means anything.
pub(crate) fn like_patterns(patterns: &[RepositoryPattern]) -> Vec<String> {
    let like = |pattern: &RepositoryPattern| {
        let text =
            pattern.to_string().replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%");
        match text.strip_suffix('*') {
            Some(prefix) => format!("{prefix}_%"),
            None => text,
        }
    };
    patterns.iter().map(like).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_underscore_in_a_name_matches_only_itself() {
        let patterns = ["ghcr.io/a_b/*", "ghcr.io/a_b", "*"].map(|text| text.parse().unwrap());
        assert_eq!(like_patterns(&patterns), ["ghcr.io/a\\_b/_%", "ghcr.io/a\\_b", "_%"]);
    }
}
