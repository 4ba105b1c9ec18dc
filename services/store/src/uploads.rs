//! Content on its way from clients: whose it is, how long it may take, and how much it may be. An upload
//! is its caller's alone; to everybody else it is not there.

use std::time::Duration;

use colophon_domain::{Failure, Reason, Repository, Result, UploadView};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    NewRelease, Store, rows,
    tx::{self, Bounded as _, Fault},
};

/// Keeps the lock of a caller's uploads apart from other advisory locks.
const OPENING: i64 = 0x636f_6c6f_7570_6c6f;

/// How long an upload lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadTerms {
    /// Without a request.
    pub idle: Duration,
    /// At most.
    pub max_age: Duration,
}

struct Row {
    id: Uuid,
    principal: String,
    registry: String,
    repository: String,
    origin: String,
    created_at: OffsetDateTime,
    expires_at: OffsetDateTime,
    bytes_received: i64,
}

impl Row {
    fn view(self) -> Result<UploadView> {
        Ok(UploadView {
            id: self.id,
            repository: rows::repository(&self.registry, &self.repository)?,
            origin: self.origin,
            principal: self.principal,
            created_at: self.created_at,
            expires_at: self.expires_at,
            bytes_received: self.bytes_received.unsigned_abs(),
        })
    }
}

impl Store {
    /// Begins an upload; `None` if the caller has `most` of them already.
    pub async fn start_upload(
        &self,
        principal: &str,
        repository: &Repository,
        origin: &str,
        terms: UploadTerms,
        most: u32,
    ) -> Result<Option<UploadView>> {
        let id = self.entropy.uuid();
        let row = tx::run("upload.start", || async {
            let mut tx = self.pool.begin().await?;
            // Two that begin at once must not both see the last place.
            sqlx::query!(
                "SELECT pg_advisory_xact_lock(hashtextextended($1, $2))",
                principal,
                OPENING,
            )
            .execute(&mut *tx)
            .await?;
            let row = sqlx::query_as!(
                Row,
                r#"
                INSERT INTO upload (id, principal, registry, repository, origin, expires_at)
                SELECT $1, $2, $3, $4, $5,
                       colophon_now() + least($6::float8, $7::float8) * interval '1 second'
                WHERE (SELECT count(*) FROM upload
                       WHERE principal = $2 AND expires_at > colophon_now()) < $8
                RETURNING id, principal, registry, repository, origin, created_at, expires_at,
                          bytes_received
                "#,
                id,
                principal,
                repository.registry().as_str(),
                repository.name(),
                origin,
                terms.idle.as_secs_f64(),
                terms.max_age.as_secs_f64(),
                i64::from(most),
            )
            .fetch_optional(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(row)
        })
        .await?;
        row.map(Row::view).transpose()
    }

    /// An upload of the caller's that has not ended, whose end is moved on; `None` if there is none.
    pub async fn touch_upload(
        &self,
        principal: &str,
        id: Uuid,
        terms: UploadTerms,
    ) -> Result<Option<UploadView>> {
        let row = sqlx::query_as!(
            Row,
            r#"
            UPDATE upload
            SET expires_at = greatest(expires_at,
                    least(colophon_now() + $3::float8 * interval '1 second',
                          created_at + $4::float8 * interval '1 second'))
            WHERE id = $1 AND principal = $2 AND expires_at > colophon_now()
            RETURNING id, principal, registry, repository, origin, created_at, expires_at,
                      bytes_received
            "#,
            id,
            principal,
            terms.idle.as_secs_f64(),
            terms.max_age.as_secs_f64(),
        )
        .fetch_optional(&self.pool)
        .bounded()
        .await?;
        row.map(Row::view).transpose()
    }

    /// Ends an upload of the caller's; false if there is none. What it was sending is left to be
    /// cancelled.
    pub async fn end_upload(&self, principal: &str, id: Uuid) -> Result<bool> {
        let done =
            sqlx::query!("DELETE FROM upload WHERE id = $1 AND principal = $2", id, principal,)
                .execute(&self.pool)
                .bounded()
                .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends up to `limit` uploads whose time has passed; how many there were.
    pub async fn expire_uploads(&self, limit: i64) -> Result<u64> {
        let done = sqlx::query!(
            r#"
            WITH old AS (
                SELECT id FROM upload WHERE expires_at <= (SELECT colophon_now())
                ORDER BY expires_at LIMIT $1
                FOR UPDATE SKIP LOCKED
            )
            DELETE FROM upload USING old WHERE upload.id = old.id
            "#,
            limit,
        )
        .execute(&self.pool)
        .bounded()
        .await?;
        Ok(done.rows_affected())
    }
}

/// Ends the upload that brought a release's content, and notes where it came from.
///
/// # Errors
/// `NOT_FOUND` unless it is the caller's, and goes where the release's source is.
pub(crate) async fn take_upload(
    conn: &mut PgConnection,
    release: Uuid,
    new: &NewRelease<'_>,
    upload: Uuid,
) -> Result<(), Fault> {
    let source = &new.request.source.repository;
    let done = sqlx::query!(
        r#"
        WITH taken AS (
            DELETE FROM upload
            WHERE id = $2 AND principal = $3 AND registry = $4 AND repository = $5
              AND expires_at > colophon_now()
            RETURNING origin
        )
        UPDATE release SET origin = taken.origin FROM taken WHERE release.id = $1
        "#,
        release,
        upload,
        new.principal,
        source.registry().as_str(),
        source.name(),
    )
    .execute(conn)
    .await?;
    if done.rows_affected() == 1 {
        return Ok(());
    }
    let text = format!("there is no upload {upload} of yours into {source}");
    Err(Failure::new(Reason::NotFound, text)
        .field("upload")
        .remedy("it may have ended; begin another, which finds what has arrived")
        .into())
}
