//! A database for each test, in one cluster, with a clock that the test holds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use colophon_domain::{
    Digest, OrderKey, Purpose, Reference, ReleaseRequest, Repository, SystemEntropy, TagKind,
    TagRequest, TargetRequest,
};
use colophon_launcher::{Postgres, PostgresOptions};
use colophon_store::{Claimed, Created, NewRelease, Store};
use sqlx::PgPool;
use tokio::sync::OnceCell;
use uuid::Uuid;

static CLUSTER: OnceCell<Postgres> = OnceCell::const_new();
static NUMBER: AtomicU32 = AtomicU32::new(0);

pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// Locks that are waited for in a circle cost so long: more than a busy machine.
pub(crate) const CIRCLE: Duration = Duration::from_secs(15);

/// A migrated database whose clock stands still until it is moved.
pub(crate) struct Base {
    pub(crate) store: Store,
    /// For looking behind the store's back.
    pub(crate) pool: PgPool,
}

impl Base {
    pub(crate) async fn new() -> Self {
        let cluster = CLUSTER
            .get_or_init(|| async { Postgres::start(PostgresOptions::default()).await.unwrap() })
            .await;
        let name = format!("store{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let url = cluster.create_database(&name).await.unwrap();
        let pool = PgPool::connect(&url).await.unwrap();
        let patient = format!("ALTER DATABASE {name} SET deadlock_timeout = '{CIRCLE:?}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(patient)).execute(&pool).await.unwrap();
        let store = Store::connect(&url, 8, Arc::new(SystemEntropy)).unwrap();
        store.migrate().await.unwrap();
        let hold = "CREATE TABLE held_clock (now timestamptz NOT NULL);
             INSERT INTO held_clock VALUES ('2026-01-01T00:00:00Z');
             CREATE OR REPLACE FUNCTION colophon_now() RETURNS timestamptz LANGUAGE sql STABLE
                 AS 'SELECT now FROM held_clock'";
        sqlx::raw_sql(hold).execute(&pool).await.unwrap();
        Self { store, pool }
    }

    /// Moves the clock.
    pub(crate) async fn pass(&self, time: Duration) {
        self.jump(time.as_secs_f64()).await;
    }

    /// Moves the clock by so many seconds, backwards too.
    pub(crate) async fn jump(&self, seconds: f64) {
        sqlx::query("UPDATE held_clock SET now = now + $1 * interval '1 second'")
            .bind(seconds)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    pub(crate) async fn accept(&self, request: &ReleaseRequest, digest: &Digest) -> Uuid {
        self.try_accept(request, digest).await.id()
    }

    pub(crate) async fn try_accept(&self, request: &ReleaseRequest, digest: &Digest) -> Created {
        let new = NewRelease {
            made: None,
            principal: "ci",
            request,
            digest,
            fingerprint: [7; 32],
            traceparent: None,
        };
        self.store.create_release(&new).await.unwrap()
    }

    pub(crate) async fn claim(&self, limit: i64) -> Vec<Claimed> {
        self.store.claim("test", limit, LEASE).await.unwrap()
    }

    pub(crate) async fn text(&self, statement: &'static str) -> Option<String> {
        sqlx::query_scalar(statement).fetch_one(&self.pool).await.unwrap()
    }

    pub(crate) async fn count(&self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement).fetch_one(&self.pool).await.unwrap()
    }
}

pub(crate) fn digest(number: u8) -> Digest {
    Digest::sha256(&[number])
}

pub(crate) fn repository(name: &str) -> Repository {
    Repository::parse(&format!("r.test/{name}")).unwrap()
}

/// A request from `r.test/source`; `targets` are name, unique tags, floating tags.
pub(crate) fn request(targets: &[(&str, &[&str], &[&str])]) -> ReleaseRequest {
    let of = |tags: &[&str], kind: TagKind| -> Vec<TagRequest> {
        tags.iter().map(|tag| TagRequest::new(tag.parse().unwrap(), kind)).collect()
    };
    let targets = targets
        .iter()
        .map(|(name, unique, floating)| {
            let mut tags = of(unique, TagKind::Unique);
            tags.extend(of(floating, TagKind::Floating));
            TargetRequest { repository: repository(name), tags }
        })
        .collect();
    let source = "r.test/source:build".parse().unwrap();
    ReleaseRequest { reason: "because".into(), ..ReleaseRequest::publish(source, targets) }
}

/// The same with a build number for every floating tag.
pub(crate) fn numbered(targets: &[(&str, &[&str], &[&str])], number: u64) -> ReleaseRequest {
    let mut request = request(targets);
    for tag in request.targets.iter_mut().flat_map(|target| &mut target.tags) {
        if tag.kind == TagKind::Floating {
            tag.order = Some(OrderKey::Number(number));
        }
    }
    request
}

/// A rollback of one floating tag to a digest.
pub(crate) fn rollback(name: &str, tag: &str, to: &Digest) -> ReleaseRequest {
    let mut request = request(&[(name, &[], &[tag])]);
    let content = Reference::digest(repository(name), to.clone());
    request.purpose = Purpose::Rollback;
    request.source = content.clone();
    request.targets[0].tags[0].content = Some(content);
    request
}
