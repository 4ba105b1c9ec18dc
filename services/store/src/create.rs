//! Accepting a release: everything about it in one transaction, so that an accepted release is
//! never lost and a repeated idempotency key never makes a second one.

use colophon_domain::{
    Digest, Failure, JobKind, Phase, PublicationState, Reason, ReleaseRequest, Result, TagKind,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Store,
    tx::{self, Bounded as _, Fault},
};

/// A release to be accepted.
pub struct NewRelease<'a> {
    /// Who asks.
    pub principal: &'a str,
    /// What was asked.
    pub request: &'a ReleaseRequest,
    /// What the source was resolved to.
    pub digest: &'a Digest,
    /// Tells whether two requests under one key are the same.
    pub fingerprint: [u8; 32],
}

/// What became of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// A new release.
    New(Uuid),
    /// The release that the same key and request made before.
    Existing(Uuid),
}

impl Created {
    /// The release's id.
    pub fn id(self) -> Uuid {
        match self {
            Self::New(id) | Self::Existing(id) => id,
        }
    }
}

/// One row of `tag_move`, collected before it is written.
struct TagRow<'a> {
    publication: Uuid,
    registry: &'a str,
    repository: &'a str,
    tag: &'a str,
    kind: TagKind,
    ordinal: i16,
}

impl Store {
    /// The release that this key made before. Another request under the key is refused.
    pub async fn find_by_key(
        &self,
        principal: &str,
        key: &str,
        fingerprint: &[u8; 32],
    ) -> Result<Option<Uuid>> {
        let row = sqlx::query!(
            "SELECT fingerprint, release_id FROM idempotency_key WHERE principal = $1 AND key = $2",
            principal,
            key,
        )
        .fetch_optional(&self.pool)
        .bounded()
        .await?;
        match row {
            None => Ok(None),
            Some(row) if row.fingerprint == fingerprint => Ok(Some(row.release_id)),
            Some(row) => Err(Failure::new(
                Reason::IdempotencyKeyReused,
                format!(
                    "the idempotency key was used for another request, release {}",
                    row.release_id
                ),
            )
            .field("idempotency_key")
            .remedy("take a new key for a new request; repeat a request with its exact fields")),
        }
    }

    /// Accepts a release, or finds the one that the same key made before.
    pub async fn create_release(&self, new: &NewRelease<'_>) -> Result<Created> {
        if let Some(id) = tx::run("create_release", || self.try_create(new)).await? {
            return Ok(Created::New(id));
        }
        // The key is taken: whoever took it has committed, or the insert would still wait.
        let key = new.request.idempotency_key.as_deref().unwrap_or_default();
        let id = self.find_by_key(new.principal, key, &new.fingerprint).await?;
        id.map(Created::Existing)
            .ok_or_else(|| Failure::new(Reason::Internal, "an idempotency key vanished"))
    }

    async fn try_create(&self, new: &NewRelease<'_>) -> Result<Option<Uuid>, Fault> {
        let id = self.entropy.uuid();
        let publications: Vec<Uuid> =
            new.request.targets.iter().map(|_| self.entropy.uuid()).collect();
        let tags = tag_rows(new.request, &publications);
        let first = first_phase(new.request, &publications);

        let mut tx = self.pool.begin().await?;
        insert_release(&mut tx, id, new, &publications, first).await?;
        if let Some(key) = &new.request.idempotency_key
            && !insert_key(&mut tx, id, new, key).await?
        {
            return Ok(None);
        }
        // Last, because it locks the references until the commit.
        self.insert_tags(&mut tx, id, &tags).await?;
        tx.commit().await?;
        Ok(Some(id))
    }

    /// Writes the tags and draws a ticket for each floating one, in one order for all releases,
    /// so that two of them never wait for each other.
    async fn insert_tags(
        &self,
        conn: &mut PgConnection,
        release: Uuid,
        tags: &[TagRow<'_>],
    ) -> Result<(), Fault> {
        let column = |text: fn(&TagRow<'_>) -> String| tags.iter().map(text).collect::<Vec<_>>();
        let ids: Vec<Uuid> = tags.iter().map(|_| self.entropy.uuid()).collect();
        let publications: Vec<Uuid> = tags.iter().map(|row| row.publication).collect();
        let ordinals: Vec<i16> = tags.iter().map(|row| row.ordinal).collect();
        sqlx::query!(
            r#"
            WITH wanted AS (
                SELECT * FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[],
                                     $7::text[], $8::smallint[])
                    AS t (id, publication_id, registry, repository, tag, kind, ordinal)
            ), head AS (
                INSERT INTO tag_head (registry, repository, tag, issued_ticket)
                SELECT registry, repository, tag, CASE kind WHEN 'floating' THEN 1 ELSE 0 END
                FROM wanted ORDER BY registry, repository, tag
                ON CONFLICT (registry, repository, tag) DO UPDATE
                    SET issued_ticket = tag_head.issued_ticket + EXCLUDED.issued_ticket
                RETURNING registry, repository, tag, issued_ticket
            )
            INSERT INTO tag_move (id, release_id, publication_id, ordinal, kind, tag, ticket)
            SELECT w.id, $1, w.publication_id, w.ordinal, w.kind, w.tag,
                   CASE w.kind WHEN 'floating' THEN h.issued_ticket END
            FROM wanted w JOIN head h USING (registry, repository, tag)
            "#,
            release,
            &ids,
            &publications,
            &column(|row| row.registry.to_owned()),
            &column(|row| row.repository.to_owned()),
            &column(|row| row.tag.to_owned()),
            &column(|row| row.kind.as_str().to_owned()),
            &ordinals,
        )
        .execute(conn)
        .await?;
        Ok(())
    }
}

fn tag_rows<'a>(request: &'a ReleaseRequest, publications: &[Uuid]) -> Vec<TagRow<'a>> {
    let mut rows = Vec::new();
    for (target, publication) in request.targets.iter().zip(publications) {
        let unique = target.unique_tags.iter().map(|tag| (tag, TagKind::Unique));
        let floating = target.floating_tags.iter().map(|tag| (tag, TagKind::Floating));
        for (ordinal, (tag, kind)) in (0_i16..).zip(unique.chain(floating)) {
            rows.push(TagRow {
                publication: *publication,
                registry: target.repository.registry().as_str(),
                repository: target.repository.name(),
                tag: tag.as_str(),
                kind,
                ordinal,
            });
        }
    }
    rows
}

/// Where a release begins: content that lies in its target already needs no copy.
fn first_phase(request: &ReleaseRequest, publications: &[Uuid]) -> (Phase, Vec<(Uuid, JobKind)>) {
    let targets = || request.targets.iter().zip(publications.iter().copied());
    let copies: Vec<_> = targets()
        .filter(|(target, _)| target.repository != request.source.repository)
        .map(|(_, id)| (id, JobKind::Copy))
        .collect();
    if !copies.is_empty() {
        return (Phase::Copy, copies);
    }
    let uniques: Vec<_> = targets()
        .filter(|(target, _)| !target.unique_tags.is_empty())
        .map(|(_, id)| (id, JobKind::Unique))
        .collect();
    if !uniques.is_empty() {
        return (Phase::Unique, uniques);
    }
    (Phase::Floating, targets().map(|(_, id)| (id, JobKind::Floating)).collect())
}

/// Writes the release, its targets and the jobs of its first phase; the jobs are claimable when
/// the transaction commits.
async fn insert_release(
    conn: &mut PgConnection,
    id: Uuid,
    new: &NewRelease<'_>,
    publications: &[Uuid],
    (phase, jobs): (Phase, Vec<(Uuid, JobKind)>),
) -> Result<(), Fault> {
    let request = new.request;
    let labels = serde_json::Value::Object(
        request.labels.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect(),
    );
    let repositories = || request.targets.iter().map(|target| &target.repository);
    let registries: Vec<_> = repositories().map(|r| r.registry().as_str().to_owned()).collect();
    let names: Vec<_> = repositories().map(|r| r.name().to_owned()).collect();
    let states: Vec<_> = repositories()
        .map(|repository| {
            let there = *repository == request.source.repository;
            let state = if there { PublicationState::Copied } else { PublicationState::Queued };
            state.as_str().to_owned()
        })
        .collect();
    let (places, kinds): (Vec<Uuid>, Vec<String>) =
        jobs.into_iter().map(|(id, kind)| (id, kind.as_str().to_owned())).unzip();
    sqlx::query!(
        r#"
        WITH accepted AS (
            INSERT INTO release (id, principal, on_behalf_of, reason, labels, source_registry,
                                 source_repository, source_reference, digest, not_after, priority,
                                 phase)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        ), target AS (
            INSERT INTO publication (id, release_id, ordinal, registry, repository, state)
            SELECT t.id, $1, (t.n - 1)::smallint, t.registry, t.repository, t.state
            FROM unnest($13::uuid[], $14::text[], $15::text[], $16::text[])
                WITH ORDINALITY AS t (id, registry, repository, state, n)
        )
        INSERT INTO job (release_id, publication_id, kind, priority)
        SELECT $1, t.publication_id, t.kind, $11
        FROM unnest($17::uuid[], $18::text[]) AS t (publication_id, kind)
        "#,
        id,
        new.principal,
        request.on_behalf_of,
        request.reason,
        labels,
        request.source.repository.registry().as_str(),
        request.source.repository.name(),
        request.source.target.as_str(),
        new.digest.as_str(),
        request.not_after,
        request.priority,
        phase.as_str(),
        publications,
        &registries,
        &names,
        &states,
        &places,
        &kinds,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes the key; `false` if it is taken already.
async fn insert_key(
    conn: &mut PgConnection,
    id: Uuid,
    new: &NewRelease<'_>,
    key: &str,
) -> Result<bool, Fault> {
    let done = sqlx::query!(
        r#"
        INSERT INTO idempotency_key (principal, key, fingerprint, release_id)
        VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING
        "#,
        new.principal,
        key,
        &new.fingerprint[..],
        id,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
