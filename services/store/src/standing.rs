//! How the whole of it stands, in one cheap statement: for gauges, which any process may ask for.

use std::time::Duration;

use colophon_domain::Result;

use crate::{Store, tx::Bounded as _};

/// The queue, the releases at work and the moves without an outcome, over all processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Jobs that could be claimed now; none on hold.
    pub ready: u64,
    /// Jobs whose time has not come: they wait for something, or for their next attempt.
    pub waiting: u64,
    /// Jobs that a worker holds.
    pub running: u64,
    /// How long the job that could be claimed for the longest time has been left.
    pub oldest_ready: Duration,
    /// The age of the oldest job in the queue, whatever it waits for.
    pub oldest: Duration,
    /// Releases that no worker has begun.
    pub queued_releases: u64,
    /// Releases at work.
    pub running_releases: u64,
    /// Moves whose outcome is not recorded yet.
    pub open_intents: u64,
    /// Those of them whose worker never heard an answer, or died.
    pub unknown: u64,
    /// How long ago the oldest of these was begun.
    pub oldest_unknown: Duration,
}

impl Store {
    /// How the whole of it stands.
    pub async fn standing(&self) -> Result<Standing> {
        let row = sqlx::query!(
            r#"
            WITH at AS (SELECT colophon_now() AS now, on_hold() AS held),
            queue AS (
                SELECT count(*) FILTER (WHERE run_at <= at.now AND NOT at.held) AS ready,
                       count(*) FILTER (WHERE run_at > at.now OR at.held) AS waiting,
                       EXTRACT(EPOCH FROM max(at.now - run_at) FILTER (WHERE NOT at.held))::float8
                           AS oldest_ready,
                       EXTRACT(EPOCH FROM max(at.now - created_at))::float8 AS oldest
                FROM job, at WHERE state = 'queued'
            ), leased AS (
                SELECT count(*) AS running FROM job WHERE state = 'running'
            ), active AS (
                SELECT count(*) FILTER (WHERE state = 'QUEUED') AS queued,
                       count(*) FILTER (WHERE state = 'RUNNING') AS running
                FROM release WHERE ended_at IS NULL
            ), moves AS (
                SELECT count(*) AS open, count(*) FILTER (WHERE m.state = 'UNKNOWN') AS unknown,
                       EXTRACT(EPOCH FROM max(at.now - e.at) FILTER (WHERE m.state = 'UNKNOWN'))::float8
                           AS oldest
                FROM open_intent i JOIN tag_move m ON m.id = i.tag_move_id
                JOIN audit_entry e ON e.id = i.intent_id, at
            )
            SELECT q.ready AS "ready!", q.waiting AS "waiting!", q.oldest_ready, q.oldest,
                   l.running AS "running!", a.queued AS "queued_releases!",
                   a.running AS "running_releases!", i.open AS "open!", i.unknown AS "unknown!",
                   i.oldest AS oldest_unknown
            FROM queue q, leased l, active a, moves i
            "#,
        )
        .fetch_one(&self.pool)
        .bounded()
        .await?;
        let count = |number: i64| u64::try_from(number).unwrap_or_default();
        // The time of a job that is still to come is before now by less than nothing.
        let age = |seconds: Option<f64>| {
            Duration::try_from_secs_f64(seconds.unwrap_or_default()).unwrap_or_default()
        };
        Ok(Standing {
            ready: count(row.ready),
            waiting: count(row.waiting),
            running: count(row.running),
            oldest_ready: age(row.oldest_ready),
            oldest: age(row.oldest),
            queued_releases: count(row.queued_releases),
            running_releases: count(row.running_releases),
            open_intents: count(row.open),
            unknown: count(row.unknown),
            oldest_unknown: age(row.oldest_unknown),
        })
    }
}
