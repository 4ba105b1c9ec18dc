//! A database of a test's own, in a cluster that all tests of a process share while any of them
//! runs; or in a cluster of its own, for tests that restart the server.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::Result;
use colophon_testkit::launcher::{Postgres, PostgresOptions};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::sync::Mutex;

/// The shared cluster. The last world that uses it takes it along, so that its folder does not
/// stay behind.
static SHARED: Mutex<Weak<Mutex<Postgres>>> = Mutex::const_new(Weak::new());
static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// One database and the server that holds it.
pub struct Database {
    cluster: Arc<Mutex<Postgres>>,
    name: String,
    url: String,
    pool: PgPool,
}

impl Database {
    /// A database in the shared cluster.
    pub(crate) async fn shared() -> Result<Self> {
        let mut shared = SHARED.lock().await;
        let cluster = if let Some(cluster) = shared.upgrade() {
            cluster
        } else {
            let cluster = Arc::new(Mutex::new(Postgres::start(PostgresOptions::default()).await?));
            *shared = Arc::downgrade(&cluster);
            cluster
        };
        drop(shared);
        Self::inside(cluster).await
    }

    /// A database in a cluster of its own, which may be stopped and killed.
    pub(crate) async fn alone(options: PostgresOptions) -> Result<Self> {
        Self::inside(Arc::new(Mutex::new(Postgres::start(options).await?))).await
    }

    async fn inside(cluster: Arc<Mutex<Postgres>>) -> Result<Self> {
        let name = format!("world_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let url = cluster.lock().await.create_database(&name).await?;
        // Connected when first used, so that a world may outlive restarts of its server.
        let pool = PgPoolOptions::new().max_connections(8).connect_lazy(&url)?;
        Ok(Self { cluster, name, url, pool })
    }

    /// The URL, as superuser, through a Unix socket.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The database's name in its cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Connections of the test's own, as superuser.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The server, to be stopped, killed and started again; only in a world of
    /// [`World::with_own_postgres`](crate::World::with_own_postgres).
    pub fn server(&self) -> &Mutex<Postgres> {
        &self.cluster
    }
}
