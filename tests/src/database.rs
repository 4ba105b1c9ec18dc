//! A database of a test's own, in a cluster that all tests of a process share while any of them
//! runs; or in a cluster of its own, for tests that restart the server.

use std::{
    path::Path,
    process::Stdio,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, Result, ensure};
use colophon_testkit::launcher::{Postgres, PostgresOptions};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::{process::Command, sync::Mutex};

/// The shared cluster. The last world that uses it takes it along, so that its folder does not
/// stay behind.
static SHARED: Mutex<Weak<Mutex<Postgres>>> = Mutex::const_new(Weak::new());
static NUMBER: AtomicUsize = AtomicUsize::new(0);

async fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().await.context("a tool of PostgreSQL")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

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

    /// Writes everything into a file, as `pg_dump` does.
    pub(crate) async fn dump(&self, file: &Path) -> Result<()> {
        run(Command::new("pg_dump").arg("--file").arg(file).arg(&self.url)).await
    }

    /// Another database of the same cluster, with the content of a dump.
    pub(crate) async fn restored(&self, dump: &Path) -> Result<Self> {
        let restored = Self::inside(self.cluster.clone()).await?;
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(dump).arg(&restored.url);
        run(&mut psql).await?;
        Ok(restored)
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
