//! Blobs on their way: who brings which one, and how far its upload is. Each function is one
//! statement about one row, so that no two of them can wait for each other.

use colophon_domain::{Boarding, Flight, FlightBook, Lease, Result, Trail};
use futures_util::future::BoxFuture;

use crate::{Store, intents::lease_lost, tx::Bounded as _};

impl FlightBook for Store {
    fn board<'a>(&'a self, flight: Flight<'a>) -> BoxFuture<'a, Result<Boarding>> {
        Box::pin(async move {
            match self.take_flight(flight).await? {
                Some(boarding) => Ok(boarding),
                None if self.holds(flight.lease).await? => Ok(Boarding::Taken),
                None => Err(lease_lost()),
            }
        })
    }

    fn mark<'a>(&'a self, flight: Flight<'a>, trail: &'a Trail) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.write_trail(flight, trail))
    }

    fn land<'a>(&'a self, flight: Flight<'a>, arrived: bool) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.end_flight(flight, arrived))
    }
}

impl Store {
    /// Inserts the row, or takes over one that nobody holds any more; `None` if neither may be.
    async fn take_flight(&self, flight: Flight<'_>) -> Result<Option<Boarding>> {
        let row = sqlx::query!(
            r#"
            INSERT INTO blob_flight AS f (registry, repository, digest, job_id, lease_token)
            SELECT $1, $2, $3, j.id, j.lease_token FROM job j
            WHERE j.id = $4 AND j.lease_token = $5 AND j.state = 'running'
            ON CONFLICT (registry, repository, digest) DO UPDATE
            SET job_id = EXCLUDED.job_id, lease_token = EXCLUDED.lease_token,
                boarded = f.boarded + 1, updated_at = colophon_now()
            WHERE f.lease_token = EXCLUDED.lease_token
               OR NOT EXISTS (SELECT FROM job j
                              WHERE j.id = f.job_id AND j.lease_token = f.lease_token
                                AND j.state = 'running' AND j.lease_expires_at > colophon_now())
            RETURNING f.location, f.sent_bytes, f.hash_state, f.boarded,
                EXISTS (SELECT FROM blob_location l
                        WHERE l.registry = $1 AND l.repository = $2 AND l.digest = $3) AS "seen!"
            "#,
            flight.repository.registry().as_str(),
            flight.repository.name(),
            flight.digest.as_str(),
            flight.lease.job,
            flight.lease.token,
        )
        .fetch_optional(&self.pool)
        .bounded()
        .await?;
        Ok(row.map(|row| {
            let trail = match (row.location, row.sent_bytes, row.hash_state) {
                (Some(location), Some(offset), Some(hash)) => {
                    Some(Trail { location, offset: offset.unsigned_abs(), hash })
                }
                _ => None,
            };
            if row.boarded == 1 && !row.seen { Boarding::First } else { Boarding::After(trail) }
        }))
    }

    /// Whether the job is still the asker's.
    async fn holds(&self, lease: Lease) -> Result<bool> {
        let held = sqlx::query_scalar!(
            r#"
            SELECT EXISTS (SELECT FROM job
                           WHERE id = $1 AND lease_token = $2 AND state = 'running') AS "held!"
            "#,
            lease.job,
            lease.token,
        )
        .fetch_one(&self.pool)
        .bounded()
        .await?;
        Ok(held)
    }

    async fn write_trail(&self, flight: Flight<'_>, trail: &Trail) -> Result<()> {
        let offset = i64::try_from(trail.offset).unwrap_or(i64::MAX);
        let done = sqlx::query!(
            r#"
            UPDATE blob_flight f
            SET location = $6, sent_bytes = $7, hash_state = $8, updated_at = colophon_now()
            FROM job j
            WHERE f.registry = $1 AND f.repository = $2 AND f.digest = $3
              AND f.job_id = $4 AND f.lease_token = $5
              AND j.id = f.job_id AND j.lease_token = f.lease_token AND j.state = 'running'
            "#,
            flight.repository.registry().as_str(),
            flight.repository.name(),
            flight.digest.as_str(),
            flight.lease.job,
            flight.lease.token,
            &trail.location,
            offset,
            &trail.hash,
        )
        .execute(&self.pool)
        .bounded()
        .await?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(lease_lost()) }
    }

    /// That the blob is there is known with the end of its flight: whoever looked for it before, and
    /// boards after, would send it again.
    async fn end_flight(&self, flight: Flight<'_>, arrived: bool) -> Result<()> {
        sqlx::query!(
            r#"
            WITH landed AS (
                DELETE FROM blob_flight
                WHERE registry = $1 AND repository = $2 AND digest = $3
                  AND job_id = $4 AND lease_token = $5
                RETURNING registry, digest, repository
            )
            INSERT INTO blob_location (registry, digest, repository, seen_at)
            SELECT registry, digest, repository, colophon_now() FROM landed WHERE $6
            ON CONFLICT (registry, digest, repository) DO NOTHING
            "#,
            flight.repository.registry().as_str(),
            flight.repository.name(),
            flight.digest.as_str(),
            flight.lease.job,
            flight.lease.token,
            arrived,
        )
        .execute(&self.pool)
        .bounded()
        .await?;
        Ok(())
    }
}
