//! A database for each simulation in one cluster, with time and randomness that it holds.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use colophon_domain::{Clock, Entropy};
use colophon_launcher::{Postgres, PostgresOptions};
use colophon_store::Store;
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::sync::Mutex;
use uuid::Uuid;

/// The shared cluster. The last simulation that uses it takes it along.
static SHARED: Mutex<Weak<Postgres>> = Mutex::const_new(Weak::new());
static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// When every simulation begins: 2026-01-01.
const BEGIN: i64 = 1_767_225_600;

/// Milliseconds since the beginning; they stand still until they are moved.
#[derive(Default)]
pub(crate) struct HeldClock(AtomicI64);

impl HeldClock {
    pub(crate) fn millis(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Clock for HeldClock {
    fn now(&self) -> OffsetDateTime {
        let begin = OffsetDateTime::from_unix_timestamp(BEGIN).unwrap();
        begin + Duration::from_millis(self.millis().try_into().unwrap())
    }
}

/// Numbers that are the same in every run. Ids grow as those of version 7 do.
#[derive(Default)]
pub(crate) struct Counted(AtomicU64);

impl Entropy for Counted {
    fn uuid(&self) -> Uuid {
        let number = u128::from(self.0.fetch_add(1, Ordering::SeqCst));
        Uuid::from_u128((number << 80) | (7 << 76) | (2 << 62) | number)
    }

    fn salt(&self) -> [u8; 32] {
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        let digest = colophon_domain::Digest::sha256(&number.to_be_bytes());
        let mut salt = [0; 32];
        salt.copy_from_slice(&digest.as_str().as_bytes()[7..39]);
        salt
    }
}

/// A migrated database with a clock that is held here and there.
pub(crate) struct Base {
    pub(crate) store: Store,
    /// For looking behind the store's back.
    pub(crate) pool: PgPool,
    pub(crate) clock: Arc<HeldClock>,
    pub(crate) entropy: Arc<Counted>,
    _cluster: Arc<Postgres>,
}

impl Base {
    pub(crate) async fn new() -> Self {
        let cluster = cluster().await;
        let name = format!("engine{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let url = cluster.create_database(&name).await.unwrap();
        let entropy = Arc::new(Counted::default());
        let store = Store::connect(&url, 6, entropy.clone()).unwrap();
        store.migrate().await.unwrap();
        let pool = PgPool::connect(&url).await.unwrap();
        let hold = "CREATE TABLE held_clock (now timestamptz NOT NULL);
             INSERT INTO held_clock VALUES ('2026-01-01T00:00:00Z');
             CREATE OR REPLACE FUNCTION colophon_now() RETURNS timestamptz LANGUAGE sql STABLE
                 AS 'SELECT now FROM held_clock'";
        sqlx::raw_sql(hold).execute(&pool).await.unwrap();
        Self { store, pool, clock: Arc::default(), entropy, _cluster: cluster }
    }

    /// Moves the clock, here and in the database.
    pub(crate) async fn pass(&self, time: Duration) {
        let millis = i64::try_from(time.as_millis()).unwrap();
        self.clock.0.fetch_add(millis, Ordering::SeqCst);
        sqlx::query("UPDATE held_clock SET now = now + $1 * interval '1 millisecond'")
            .bind(millis)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    pub(crate) async fn count(&self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement).fetch_one(&self.pool).await.unwrap()
    }
}

async fn cluster() -> Arc<Postgres> {
    let mut shared = SHARED.lock().await;
    if let Some(cluster) = shared.upgrade() {
        return cluster;
    }
    let cluster = Arc::new(Postgres::start(PostgresOptions::default()).await.unwrap());
    *shared = Arc::downgrade(&cluster);
    cluster
}
