//! Blobs that clients send: who sends which one, and how far it is. Who sends one holds a short lease on
//! it, by a token that nobody else has, and writes nothing any more when the lease is another's or the
//! upload has ended. Whatever locks an upload and a blob locks the upload first.

use std::time::Duration;

use colophon_domain::{Digest, Repository, Result, Trail};
use uuid::Uuid;

use crate::{
    Store, UploadTerms, rows,
    tx::{self, Bounded as _, Fault},
};

/// A blob that somebody sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadFlight {
    /// Where it goes.
    pub repository: Repository,
    /// What it is.
    pub digest: Digest,
    /// Fresh for each who sends it.
    pub token: Uuid,
}

/// Who wants to send a blob.
#[derive(Debug, Clone, Copy)]
pub struct UploadBoard<'a> {
    /// Whose upload it is.
    pub principal: &'a str,
    /// The upload.
    pub upload: Uuid,
    /// Where it goes.
    pub repository: &'a Repository,
    /// What it is.
    pub digest: &'a Digest,
    /// Its bytes.
    pub size: u64,
    /// How long the lease holds that is not renewed.
    pub lease: Duration,
    /// Bytes that the upload may have in all.
    pub max_bytes: u64,
    /// Blobs that it may have in all.
    pub max_blobs: u32,
}

/// What became of the wish to send a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadBoarding {
    /// There is no such upload of the caller's.
    Gone,
    /// The upload would have too many bytes or blobs.
    TooLarge,
    /// Somebody else sends it at the moment.
    Taken,
    /// It is the asker's to send.
    Boarded(UploadBoarded),
}

/// A blob that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadBoarded {
    /// The right to send it.
    pub flight: UploadFlight,
    /// How far it is.
    pub trail: Option<Trail>,
    /// The registry takes it in one request only.
    pub whole: bool,
    /// How many have begun since it last came further, this one included.
    pub boarded: u32,
}

/// What is left of a blob that is not sent on for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadLeft {
    /// As far as it is written down.
    Trail,
    /// Nothing: it begins anew.
    Nothing,
    /// Nothing, and the registry takes it in one request only.
    Whole,
}

/// How far a blob is that is not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadStand {
    /// Which one.
    pub digest: Digest,
    /// Bytes that need not be sent again.
    pub offset: u64,
    /// Somebody sends it at the moment.
    pub busy: bool,
}

/// A blob of an upload that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadOrphan {
    /// The right to cancel it.
    pub flight: UploadFlight,
    /// How far it is.
    pub trail: Option<Trail>,
    /// It is not tried again after this time.
    pub last: bool,
}

fn trail(location: Option<Vec<u8>>, offset: Option<i64>, hash: Option<Vec<u8>>) -> Option<Trail> {
    Some(Trail { location: location?, offset: offset?.unsigned_abs(), hash: hash? })
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Store {
    /// Lets a caller send a blob that nobody else sends, within what its upload may have. What another
    /// upload has left of it becomes this one's.
    pub async fn board_blob(&self, ask: UploadBoard<'_>) -> Result<UploadBoarding> {
        let token = self.entropy.uuid();
        tx::run("upload.board", || self.try_board(ask, token)).await
    }

    async fn try_board(&self, ask: UploadBoard<'_>, token: Uuid) -> Result<UploadBoarding, Fault> {
        let (registry, name) = (ask.repository.registry().as_str(), ask.repository.name());
        let mut tx = self.pool.begin().await?;
        // The lock keeps two blobs of one upload from taking the same room.
        let upload = sqlx::query!(
            r#"
            SELECT bytes_received, blobs FROM upload
            WHERE id = $1 AND principal = $2 AND registry = $3 AND repository = $4
              AND expires_at > colophon_now()
            FOR UPDATE
            "#,
            ask.upload,
            ask.principal,
            registry,
            name,
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(upload) = upload else { return Ok(UploadBoarding::Gone) };
        let others = sqlx::query!(
            r#"
            SELECT count(*) AS "blobs!",
                   COALESCE(sum(size - COALESCE(sent_bytes, 0))
                       FILTER (WHERE lease_expires_at > colophon_now()), 0)::bigint AS "bytes!"
            FROM upload_blob WHERE upload_id = $1 AND digest <> $2
            "#,
            ask.upload,
            ask.digest.as_str(),
        )
        .fetch_one(&mut *tx)
        .await?;
        let row = sqlx::query!(
            r#"
            INSERT INTO upload_blob AS b (registry, repository, digest, upload_id, lease_token,
                                          lease_expires_at, size)
            VALUES ($1, $2, $3, $4, $5, colophon_now() + $6::float8 * interval '1 second', $7)
            ON CONFLICT (registry, repository, digest) DO UPDATE
            SET upload_id = EXCLUDED.upload_id, lease_token = EXCLUDED.lease_token,
                lease_expires_at = EXCLUDED.lease_expires_at, size = EXCLUDED.size,
                boarded = b.boarded + 1, updated_at = colophon_now()
            WHERE b.lease_expires_at IS NULL OR b.lease_expires_at <= colophon_now()
            RETURNING b.location, b.sent_bytes, b.hash_state, b.boarded, b.whole
            "#,
            registry,
            name,
            ask.digest.as_str(),
            ask.upload,
            token,
            ask.lease.as_secs_f64(),
            signed(ask.size),
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else { return Ok(UploadBoarding::Taken) };
        let sent = row.sent_bytes.unwrap_or_default().unsigned_abs();
        let bytes =
            upload.bytes_received.unsigned_abs().saturating_add(others.bytes.unsigned_abs());
        let blobs = others.blobs.saturating_add(upload.blobs.into());
        if bytes.saturating_add(ask.size.saturating_sub(sent)) > ask.max_bytes
            || blobs >= i64::from(ask.max_blobs)
        {
            // Not committed: the blob stays whose it was.
            return Ok(UploadBoarding::TooLarge);
        }
        tx.commit().await?;
        Ok(UploadBoarding::Boarded(UploadBoarded {
            flight: UploadFlight {
                repository: ask.repository.clone(),
                digest: ask.digest.clone(),
                token,
            },
            trail: trail(row.location, row.sent_bytes, row.hash_state),
            whole: row.whole,
            boarded: row.boarded.unsigned_abs(),
        }))
    }

    /// Goes on holding a blob, and its upload with it; false if it is not the asker's any more.
    pub async fn renew_blob(
        &self,
        flight: &UploadFlight,
        lease: Duration,
        terms: UploadTerms,
    ) -> Result<bool> {
        let done = sqlx::query!(
            r#"
            WITH held AS (
                SELECT upload_id FROM upload_blob
                WHERE registry = $1 AND repository = $2 AND digest = $3 AND lease_token = $4
            ), kept AS (
                UPDATE upload u
                SET expires_at = greatest(u.expires_at,
                        least(colophon_now() + $6::float8 * interval '1 second',
                              u.created_at + $7::float8 * interval '1 second'))
                FROM held WHERE u.id = held.upload_id AND u.expires_at > colophon_now()
                RETURNING u.id
            )
            UPDATE upload_blob b
            SET lease_expires_at = colophon_now() + $5::float8 * interval '1 second'
            FROM kept
            WHERE b.registry = $1 AND b.repository = $2 AND b.digest = $3 AND b.lease_token = $4
              AND b.upload_id = kept.id
            "#,
            flight.repository.registry().as_str(),
            flight.repository.name(),
            flight.digest.as_str(),
            flight.token,
            lease.as_secs_f64(),
            terms.idle.as_secs_f64(),
            terms.max_age.as_secs_f64(),
        )
        .execute(&self.pool)
        .bounded()
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Writes down how far a blob is; false if it is not the asker's any more.
    pub async fn mark_blob(&self, flight: &UploadFlight, trail: &Trail) -> Result<bool> {
        let done = sqlx::query!(
            r#"
            WITH held AS (
                SELECT upload_id, COALESCE(sent_bytes, 0) AS sent FROM upload_blob
                WHERE registry = $1 AND repository = $2 AND digest = $3 AND lease_token = $4
            ), counted AS (
                UPDATE upload u SET bytes_received = u.bytes_received + greatest($6 - held.sent, 0)
                FROM held WHERE u.id = held.upload_id
                RETURNING u.id
            )
            UPDATE upload_blob b
            SET location = $5, sent_bytes = $6, hash_state = $7, boarded = 1,
                updated_at = colophon_now()
            FROM counted
            WHERE b.registry = $1 AND b.repository = $2 AND b.digest = $3 AND b.lease_token = $4
              AND b.upload_id = counted.id
            "#,
            flight.repository.registry().as_str(),
            flight.repository.name(),
            flight.digest.as_str(),
            flight.token,
            &trail.location,
            signed(trail.offset),
            &trail.hash,
        )
        .execute(&self.pool)
        .bounded()
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The blob is in the repository. `sent` says whether the asker has sent it.
    pub async fn land_blob(&self, flight: &UploadFlight, sent: bool) -> Result<()> {
        sqlx::query!(
            r#"
            WITH held AS (
                SELECT upload_id, size - COALESCE(sent_bytes, 0) AS rest FROM upload_blob
                WHERE registry = $1 AND repository = $2 AND digest = $3 AND lease_token = $4
            ), counted AS (
                UPDATE upload u
                SET bytes_received = u.bytes_received + greatest(held.rest, 0), blobs = u.blobs + 1
                FROM held WHERE u.id = held.upload_id AND $5
                RETURNING u.id
            )
            DELETE FROM upload_blob b USING (SELECT count(*) AS uploads FROM counted) c
            WHERE b.registry = $1 AND b.repository = $2 AND b.digest = $3 AND b.lease_token = $4
              AND c.uploads >= 0
            "#,
            flight.repository.registry().as_str(),
            flight.repository.name(),
            flight.digest.as_str(),
            flight.token,
            sent,
        )
        .execute(&self.pool)
        .bounded()
        .await?;
        Ok(())
    }

    /// Leaves a blob to whoever comes next.
    pub async fn leave_blob(&self, flight: &UploadFlight, left: UploadLeft) -> Result<()> {
        sqlx::query!(
            r#"
            UPDATE upload_blob
            SET lease_token = NULL, lease_expires_at = NULL, whole = whole OR $6,
                location = CASE WHEN $5 THEN location END,
                sent_bytes = CASE WHEN $5 THEN sent_bytes END,
                hash_state = CASE WHEN $5 THEN hash_state END,
                updated_at = colophon_now()
            WHERE registry = $1 AND repository = $2 AND digest = $3 AND lease_token = $4
            "#,
            flight.repository.registry().as_str(),
            flight.repository.name(),
            flight.digest.as_str(),
            flight.token,
            left == UploadLeft::Trail,
            left == UploadLeft::Whole,
        )
        .execute(&self.pool)
        .bounded()
        .await?;
        Ok(())
    }

    /// How far those of the blobs are that somebody sends or has begun to send.
    pub async fn blob_stands(
        &self,
        repository: &Repository,
        digests: &[Digest],
    ) -> Result<Vec<UploadStand>> {
        let digests: Vec<String> = digests.iter().map(|it| it.as_str().to_owned()).collect();
        let rows = sqlx::query!(
            r#"
            SELECT digest, COALESCE(sent_bytes, 0) AS "offset!",
                   COALESCE(lease_expires_at > colophon_now(), false) AS "busy!"
            FROM upload_blob WHERE registry = $1 AND repository = $2 AND digest = ANY ($3)
            "#,
            repository.registry().as_str(),
            repository.name(),
            &digests,
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(UploadStand {
                    digest: rows::digest(&row.digest)?,
                    offset: row.offset.unsigned_abs(),
                    busy: row.busy,
                })
            })
            .collect()
    }

    /// Takes up to `limit` blobs of uploads that have ended, to be cancelled; no other process gets
    /// them while the lease holds. The time from which on one is tried for the last time is `patience`
    /// after anything happened to it.
    pub async fn take_orphans(
        &self,
        limit: i64,
        lease: Duration,
        patience: Duration,
    ) -> Result<Vec<UploadOrphan>> {
        let token = self.entropy.uuid();
        let rows = sqlx::query!(
            r#"
            WITH left_over AS (
                SELECT registry, repository, digest FROM upload_blob
                WHERE upload_id IS NULL
                  AND (lease_expires_at IS NULL OR lease_expires_at <= (SELECT colophon_now()))
                ORDER BY registry, repository, digest LIMIT $1
                FOR UPDATE SKIP LOCKED
            )
            UPDATE upload_blob b
            SET lease_token = $2, lease_expires_at = colophon_now() + $3::float8 * interval '1 second'
            FROM left_over o
            WHERE b.registry = o.registry AND b.repository = o.repository AND b.digest = o.digest
            RETURNING b.registry, b.repository, b.digest, b.location, b.sent_bytes, b.hash_state,
                      b.updated_at < colophon_now() - $4::float8 * interval '1 second' AS "last!"
            "#,
            limit,
            token,
            lease.as_secs_f64(),
            patience.as_secs_f64(),
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(UploadOrphan {
                    flight: UploadFlight {
                        repository: rows::repository(&row.registry, &row.repository)?,
                        digest: rows::digest(&row.digest)?,
                        token,
                    },
                    trail: trail(row.location, row.sent_bytes, row.hash_state),
                    last: row.last,
                })
            })
            .collect()
    }
}
