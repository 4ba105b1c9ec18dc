//! Which repositories of a registry hold which blobs. Nothing depends on it but the work that a copy
//! has, so each statement stands alone.

use std::time::Duration;

use colophon_domain::{BlobPlaces, Digest, Repository, Result};
use futures_util::future::BoxFuture;

use crate::{
    Store,
    finished::alone,
    rows,
    tx::{self, Bounded as _},
};

/// Repositories of one blob that are told.
const MOST_PLACES: i64 = 32;
/// Repositories of one blob that are looked at for that.
const NEWEST: i64 = 256;
/// Blobs of one statement.
const BATCH: usize = 500;
/// What was seen so lately is not written again: most copies bring what others have brought.
const FRESH: Duration = Duration::from_hours(1);

impl Store {
    async fn blob_places(
        &self,
        target: &Repository,
        blobs: &[Digest],
    ) -> Result<Vec<(Digest, Repository)>> {
        let (registry, name) = (target.registry().as_str(), target.name());
        // A credential is mostly for repositories that stand together.
        let beside = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut found = Vec::new();
        for blobs in blobs.chunks(BATCH) {
            let blobs: Vec<String> = blobs.iter().map(|blob| blob.as_str().to_owned()).collect();
            let rows = sqlx::query!(
                r#"
                SELECT blob.digest AS "digest!", place.repository
                FROM unnest($2::text[]) AS blob (digest)
                CROSS JOIN LATERAL (
                    SELECT repository FROM (
                        SELECT repository, seen_at FROM blob_location l
                        WHERE l.registry = $1 AND l.digest = blob.digest
                        ORDER BY l.seen_at DESC LIMIT $5
                    ) AS newest
                    ORDER BY starts_with(repository, $3 || '/') DESC, seen_at DESC, repository
                    LIMIT $4
                ) AS place
                "#,
                registry,
                &blobs,
                beside,
                MOST_PLACES,
                NEWEST,
            )
            .fetch_all(&self.pool)
            .bounded()
            .await?;
            for row in rows {
                found.push((
                    rows::digest(&row.digest)?,
                    rows::repository(registry, &row.repository)?,
                ));
            }
        }
        Ok(found)
    }

    async fn blobs_seen(&self, repositories: &[&Repository], blobs: &[Digest]) -> Result<()> {
        let registries: Vec<String> =
            repositories.iter().map(|place| place.registry().as_str().to_owned()).collect();
        let names: Vec<String> = repositories.iter().map(|place| place.name().to_owned()).collect();
        for blobs in blobs.chunks(BATCH) {
            let blobs: Vec<String> = blobs.iter().map(|blob| blob.as_str().to_owned()).collect();
            // In one order, so that copies which bring the same do not wait for each other in a circle.
            sqlx::query!(
                r#"
                INSERT INTO blob_location AS known (registry, digest, repository, seen_at)
                SELECT DISTINCT place.registry, blob.digest, place.repository, colophon_now()
                FROM unnest($1::text[], $2::text[]) AS place (registry, repository)
                CROSS JOIN unnest($3::text[]) AS blob (digest)
                ORDER BY 1, 2, 3
                ON CONFLICT (registry, digest, repository) DO UPDATE SET seen_at = EXCLUDED.seen_at
                WHERE known.seen_at < EXCLUDED.seen_at - $4::float8 * interval '1 second'
                "#,
                &registries,
                &names,
                &blobs,
                FRESH.as_secs_f64(),
            )
            .execute(&self.pool)
            .bounded()
            .await?;
        }
        Ok(())
    }

    async fn blob_gone(&self, repository: &Repository, blob: &Digest) -> Result<()> {
        sqlx::query!(
            "DELETE FROM blob_location WHERE registry = $1 AND digest = $2 AND repository = $3",
            repository.registry().as_str(),
            blob.as_str(),
            repository.name(),
        )
        .execute(&self.pool)
        .bounded()
        .await?;
        Ok(())
    }

    /// Lets go of up to `limit` places of blobs that were last seen so long ago. `None` if another
    /// process is at it.
    pub async fn forget_places(&self, age: Duration, limit: i64) -> Result<Option<u64>> {
        tx::run("places.forget", || async {
            let mut tx = self.pool.begin().await?;
            if !alone(&mut tx).await? {
                return Ok(None);
            }
            let done = sqlx::query!(
                r#"
                WITH old AS (
                    SELECT registry, digest, repository FROM blob_location
                    WHERE seen_at < (SELECT colophon_now() - $1::float8 * interval '1 second')
                    ORDER BY seen_at LIMIT $2
                    FOR UPDATE SKIP LOCKED
                )
                DELETE FROM blob_location USING old
                WHERE blob_location.registry = old.registry AND blob_location.digest = old.digest
                  AND blob_location.repository = old.repository
                "#,
                age.as_secs_f64(),
                limit,
            )
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(Some(done.rows_affected()))
        })
        .await
    }
}

impl BlobPlaces for Store {
    fn holders<'a>(
        &'a self,
        target: &'a Repository,
        blobs: &'a [Digest],
    ) -> BoxFuture<'a, Result<Vec<(Digest, Repository)>>> {
        Box::pin(self.blob_places(target, blobs))
    }

    fn seen<'a>(
        &'a self,
        repositories: &'a [&'a Repository],
        blobs: &'a [Digest],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.blobs_seen(repositories, blobs))
    }

    fn gone<'a>(
        &'a self,
        repository: &'a Repository,
        blob: &'a Digest,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.blob_gone(repository, blob))
    }
}
