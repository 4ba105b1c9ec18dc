//! Accepting a release: everything about it in one transaction, so that an accepted release is
//! never lost and a repeated idempotency key never makes a second one.

use colophon_domain::{
    Digest, Failure, JobKind, OrderKey, Phase, PublicationState, Purpose, Reason, Reference,
    ReleaseRequest, Repository, Result, TagKind, TagRequest, TargetRequest,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Store, rows,
    tx::{self, Bounded as _, Fault},
    uploads::take_upload,
};

/// A release to be accepted.
pub struct NewRelease<'a> {
    /// Who asks.
    pub principal: &'a str,
    /// What was asked.
    pub request: &'a ReleaseRequest,
    /// What is published: what the source was resolved to, or what was made of it.
    pub digest: &'a Digest,
    /// The index that is published, if it was made of what the source was resolved to.
    pub made: Option<&'a Made>,
    /// Tells whether two requests under one key are the same.
    pub fingerprint: [u8; 32],
    /// The trace that the release is accepted in, for its jobs to go on with.
    pub traceparent: Option<&'a str>,
}

/// An index that was made for a release: what is left of another if only some platforms are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What it was made of.
    pub from: Digest,
    /// Its bytes.
    pub manifest: Vec<u8>,
    /// Its media type.
    pub media_type: String,
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
    repository: &'a Repository,
    ordinal: i16,
    tag: &'a TagRequest,
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
        let key = new.request.idempotency_key.as_deref().unwrap_or_default();
        // A key that is let go of in between is free the second time.
        for _ in 0..2 {
            if let Some(id) = tx::run("release.create", || self.try_create(new)).await? {
                return Ok(Created::New(id));
            }
            // The key is taken: whoever took it has committed, or the insert would still wait.
            if let Some(id) = self.find_by_key(new.principal, key, &new.fingerprint).await? {
                return Ok(Created::Existing(id));
            }
        }
        Err(Failure::new(Reason::Internal, "an idempotency key vanished twice"))
    }

    async fn try_create(&self, new: &NewRelease<'_>) -> Result<Option<Uuid>, Fault> {
        let id = self.entropy.uuid();
        let publications: Vec<Uuid> =
            new.request.targets.iter().map(|_| self.entropy.uuid()).collect();
        let tags = tag_rows(new.request, &publications);
        let first = first_phase(new, &publications);

        let mut tx = self.pool.begin().await?;
        insert_release(&mut tx, id, new, &publications, first).await?;
        if let Some(key) = &new.request.idempotency_key
            && !insert_key(&mut tx, id, new, key).await?
        {
            return Ok(None);
        }
        // After the key, which answers for an upload that the same request has ended before.
        if let Some(upload) = new.request.upload {
            take_upload(&mut tx, id, new, upload).await?;
        }
        // Last, because it locks the references until the commit.
        self.insert_tags(&mut tx, id, new.request.purpose, &tags).await?;
        tx.commit().await?;
        Ok(Some(id))
    }

    /// Writes the tags and draws a ticket for each floating one, in one order for all releases,
    /// so that two of them never wait for each other. A rollback's ticket is a barrier from now
    /// on: what was accepted before and has not moved the tag comes too late.
    async fn insert_tags(
        &self,
        conn: &mut PgConnection,
        release: Uuid,
        purpose: Purpose,
        tags: &[TagRow<'_>],
    ) -> Result<(), Fault> {
        let texts = |of: fn(&TagRow<'_>) -> String| tags.iter().map(of).collect::<Vec<_>>();
        let perhaps =
            |of: fn(&TagRow<'_>) -> Option<String>| tags.iter().map(of).collect::<Vec<_>>();
        let ids: Vec<Uuid> = tags.iter().map(|_| self.entropy.uuid()).collect();
        let publications: Vec<Uuid> = tags.iter().map(|row| row.publication).collect();
        let ordinals: Vec<i16> = tags.iter().map(|row| row.ordinal).collect();
        sqlx::query!(
            r#"
            WITH wanted AS (
                SELECT * FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[],
                                     $7::text[], $8::smallint[], $9::text[], $10::text[],
                                     $11::text[], $12::text[], $13::text[], $14::text[],
                                     $15::text[], $16::text[], $17::text[], $18::text[])
                    AS t (id, publication_id, registry, repository, tag, kind, ordinal,
                          content_registry, content_repository, content_digest, expected,
                          order_kind, order_value, if_older, line, kept_reason, kept_message)
            ), head AS (
                INSERT INTO tag_head (registry, repository, tag, issued_ticket, barrier_ticket,
                                      barrier_release)
                SELECT registry, repository, tag, CASE kind WHEN 'floating' THEN 1 ELSE 0 END,
                       CASE WHEN $19 AND kept_reason IS NULL THEN 1 END,
                       CASE WHEN $19 AND kept_reason IS NULL THEN $1::uuid END
                FROM wanted ORDER BY registry, repository, tag
                ON CONFLICT (registry, repository, tag) DO UPDATE
                    SET issued_ticket = tag_head.issued_ticket + EXCLUDED.issued_ticket,
                        barrier_ticket = CASE WHEN EXCLUDED.barrier_ticket IS NULL
                            THEN tag_head.barrier_ticket
                            ELSE tag_head.issued_ticket + EXCLUDED.issued_ticket END,
                        barrier_release = COALESCE(EXCLUDED.barrier_release,
                                                   tag_head.barrier_release)
                RETURNING registry, repository, tag, issued_ticket
            )
            INSERT INTO tag_move (id, release_id, publication_id, ordinal, kind, tag, ticket,
                                  content_registry, content_repository, content_digest, expected,
                                  order_kind, order_value, if_older, line, state, reason_code,
                                  message, ended_at)
            SELECT w.id, $1, w.publication_id, w.ordinal, w.kind, w.tag,
                   CASE w.kind WHEN 'floating' THEN h.issued_ticket END,
                   w.content_registry, w.content_repository, w.content_digest, w.expected,
                   w.order_kind, w.order_value, w.if_older, w.line,
                   CASE WHEN w.kept_reason IS NULL THEN 'PENDING' ELSE 'KEPT' END, w.kept_reason,
                   COALESCE(w.kept_message, ''),
                   CASE WHEN w.kept_reason IS NOT NULL THEN colophon_now() END
            FROM wanted w JOIN head h USING (registry, repository, tag)
            "#,
            release,
            &ids,
            &publications,
            &texts(|row| row.repository.registry().as_str().to_owned()),
            &texts(|row| row.repository.name().to_owned()),
            &texts(|row| row.tag.tag.as_str().to_owned()),
            &texts(|row| row.tag.kind.as_str().to_owned()),
            &ordinals,
            &perhaps(|row| row.content().map(|it| it.repository.registry().to_string())) as _,
            &perhaps(|row| row.content().map(|it| it.repository.name().to_owned())) as _,
            &perhaps(|row| row.content().map(|it| it.target.as_str().to_owned())) as _,
            &perhaps(|row| row.tag.expected.as_ref().map(|it| it.as_str().to_owned())) as _,
            &perhaps(|row| row.tag.order.as_ref().map(|it| it.kind().as_str().to_owned())) as _,
            &perhaps(|row| row.tag.order.as_ref().map(OrderKey::value)) as _,
            &texts(|row| row.tag.if_older.as_str().to_owned()),
            &perhaps(|row| row.tag.line.as_ref().map(rows::line_text)) as _,
            &perhaps(|row| row.tag.kept.as_ref().map(|(reason, _)| reason.to_string())) as _,
            &perhaps(|row| row.tag.kept.as_ref().map(|(_, message)| message.clone())) as _,
            purpose == Purpose::Rollback,
        )
        .execute(conn)
        .await?;
        Ok(())
    }
}

impl TagRow<'_> {
    fn content(&self) -> Option<&Reference> {
        self.tag.content.as_ref()
    }
}

fn tag_rows<'a>(request: &'a ReleaseRequest, publications: &[Uuid]) -> Vec<TagRow<'a>> {
    let mut rows = Vec::new();
    for (target, publication) in request.targets.iter().zip(publications) {
        for (ordinal, tag) in (0_i16..).zip(&target.tags) {
            let publication = *publication;
            rows.push(TagRow { publication, repository: &target.repository, ordinal, tag });
        }
    }
    rows
}

/// Whether content has to be brought to a target; what lies in it already needs no copy, and what was
/// made for the release lies nowhere.
fn needs_copy(new: &NewRelease<'_>, target: &TargetRequest) -> bool {
    target.tags.iter().filter(|tag| tag.kept.is_none()).any(|tag| match &tag.content {
        Some(content) => content.repository != target.repository,
        None => new.made.is_some() || new.request.source.repository != target.repository,
    })
}

/// Where a release begins.
fn first_phase(new: &NewRelease<'_>, publications: &[Uuid]) -> (Phase, Vec<(Uuid, JobKind)>) {
    let targets = || new.request.targets.iter().zip(publications.iter().copied());
    let copies: Vec<_> = targets()
        .filter(|(target, _)| needs_copy(new, target))
        .map(|(_, id)| (id, JobKind::Copy))
        .collect();
    if !copies.is_empty() {
        return (Phase::Copy, copies);
    }
    let uniques: Vec<_> = targets()
        .filter(|(target, _)| target.of(TagKind::Unique).next().is_some())
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
    let states: Vec<_> = request
        .targets
        .iter()
        .map(|target| {
            let copy = needs_copy(new, target);
            let state = if copy { PublicationState::Queued } else { PublicationState::Copied };
            state.as_str().to_owned()
        })
        .collect();
    let platforms: Vec<String> =
        request.selection.platforms.iter().map(ToString::to_string).collect();
    let (places, kinds): (Vec<Uuid>, Vec<String>) =
        jobs.into_iter().map(|(id, kind)| (id, kind.as_str().to_owned())).unzip();
    sqlx::query!(
        r#"
        WITH accepted AS (
            INSERT INTO release (id, principal, on_behalf_of, reason, labels, source_registry,
                                 source_repository, source_reference, digest, not_after, priority,
                                 phase, purpose, on_failure, allow_backward, break_glass, plan,
                                 version, traceparent, platforms, referrers, cosign,
                                 include_foreign, source_digest, made_manifest, made_media_type)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $19, $20, $21, $22, $23, $24,
                    $25, $26, $27, $28, $29, $30, $31, $32)
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
        request.purpose.as_str(),
        request.on_failure.as_str(),
        request.allow_backward,
        request.break_glass,
        request.plan,
        request.version.as_ref().map(|asked| asked.version.to_string()),
        new.traceparent,
        &platforms,
        &request.selection.referrers.words(),
        request.selection.cosign,
        request.selection.foreign,
        new.made.map(|made| made.from.as_str()),
        new.made.map(|made| made.manifest.as_slice()),
        new.made.map(|made| made.media_type.as_str()),
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
