//! What is measured: PostgreSQL that waits for its disk, registries, and `colophond` as it is
//! shipped, each a process of its own, reached over the loopback interface.

use std::{
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use colophon_domain::{Entropy as _, SystemEntropy};
use colophon_testkit::{
    collector::Collector,
    image::{Destination, ImageSpec},
    launcher::{
        Postgres, PostgresOptions, Registry, RegistryOptions,
        process::{Process, Signal},
    },
    wait::{binary, start},
};
use reqwest::Client;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::{Row as _, postgres::PgPool};
use tempfile::TempDir;
use tokio::{process::Command, time::sleep};

use crate::tools;

const PATIENCE: Duration = Duration::from_mins(1);

/// The running parts.
pub(crate) struct Rig {
    daemons: Vec<(String, Process)>,
    pub(crate) client: Client,
    server: String,
    token: String,
    pub(crate) source: Registry,
    /// Empty registries that Colophon knows; each copy takes a new one.
    pub(crate) fresh: Vec<Registry>,
    /// The big image is at the source.
    pub(crate) big: bool,
    pub(crate) pool: PgPool,
    postgres: Postgres,
    folder: TempDir,
    /// Takes every trace and metric, if they are sent.
    _collector: Option<Collector>,
}

/// What is to run.
#[derive(Default)]
pub(crate) struct RigOptions {
    /// Empty registries.
    pub(crate) fresh: usize,
    /// Further registries, which run already.
    pub(crate) hosts: Vec<String>,
    /// Lines of `[worker]`.
    pub(crate) worker: String,
    /// PostgreSQL counts its statements.
    pub(crate) statements: bool,
    /// Every trace and metric is sent.
    pub(crate) traced: bool,
    /// The log filter.
    pub(crate) log: String,
}

impl Rig {
    pub(crate) async fn start(wanted: RigOptions) -> Result<Self> {
        let RigOptions { fresh, statements, traced, .. } = wanted;
        let folder = tempfile::Builder::new().prefix("colophon-bench-").tempdir()?;
        let mut options = PostgresOptions { fsync: true, ..PostgresOptions::default() };
        if statements {
            let library = ("shared_preload_libraries", "pg_stat_statements");
            options.settings.push((library.0.to_owned(), library.1.to_owned()));
        }
        let postgres = Postgres::start(options).await?;
        let pool = PgPool::connect(&postgres.url()).await?;
        if statements {
            sqlx::query("CREATE EXTENSION pg_stat_statements").execute(&pool).await?;
        }
        let source = Registry::start(RegistryOptions::default()).await?;
        let mut registries = Vec::new();
        for _ in 0..fresh {
            registries.push(Registry::start(RegistryOptions::default()).await?);
        }
        let token = format!("clp_{}", hex::encode(SystemEntropy.salt()));
        let hosts = std::iter::once(&source).chain(&registries).map(Registry::host);
        let hosts = hosts.chain(wanted.hosts).collect();
        let mut config = config(folder.path(), &postgres.url(), &token, hosts, &wanted.log)?;
        writeln!(config, "\n[worker]\n{}", wanted.worker)?;
        let collector = if traced { Some(Collector::start(None).await?) } else { None };
        if let Some(collector) = &collector {
            writeln!(config, "\n[telemetry]\notlp_endpoint = {:?}", collector.endpoint())?;
        }
        std::fs::write(folder.path().join("colophon.toml"), config)?;
        let client = Client::builder().tls_certs_only([]).no_proxy().build()?;
        let mut rig = Self {
            daemons: Vec::new(),
            client,
            server: String::new(),
            token,
            source,
            fresh: registries,
            big: false,
            pool,
            postgres,
            folder,
            _collector: collector,
        };
        rig.add_daemon("run").await?;
        let address = rig.folder.path().join("address");
        let Some((_, daemon)) = rig.daemons.last_mut() else { bail!("nothing was started") };
        let known = async || std::fs::read_to_string(&address).ok();
        rig.server = format!("http://{}", daemon.until("serving", PATIENCE, known).await?);
        Ok(rig)
    }

    /// Starts a further `colophond` in one of its roles.
    pub(crate) async fn add_daemon(&mut self, role: &str) -> Result<()> {
        let folder = self.folder.path();
        let log = folder.join(format!("colophond-{}.log", self.daemons.len()));
        let config = folder.join("colophon.toml");
        let arguments = ["-c".as_ref(), config.as_os_str(), role.as_ref()];
        let daemon = start("colophond", arguments, &[], &log).await?;
        self.daemons.push((format!("colophond {role}"), daemon));
        Ok(())
    }

    /// What the daemons wrote.
    pub(crate) fn log(&self) -> String {
        self.daemons.iter().map(|(_, daemon)| daemon.log()).collect()
    }

    /// Pushes an image of one manifest and returns its digest.
    pub(crate) async fn push(
        &self,
        spec: ImageSpec,
        repository: &str,
        tag: &str,
    ) -> Result<String> {
        let image = spec.build().await?;
        let host = self.source.host();
        image.push(&Destination { host: &host, repository, tag, login: None }).await?;
        Ok(image.digest().to_owned())
    }

    /// Runs the client's program, and says how long it took.
    pub(crate) async fn colophon(&self, arguments: &[&str]) -> Result<Duration> {
        let mut command = Command::new(binary("colophon")?);
        command.env("COLOPHON_SERVER", &self.server).env("COLOPHON_TOKEN", &self.token);
        command.args(arguments);
        tools::run(command).await
    }

    /// Sends a release request and returns the release's id.
    pub(crate) async fn release(&self, request: &Value) -> Result<String> {
        let url = format!("{}/v1/releases", self.server);
        let answer = self.client.post(url).bearer_auth(&self.token).json(request).send().await?;
        let status = answer.status();
        let release: Value = answer.json().await?;
        let id = release.get("id").and_then(Value::as_str);
        id.map(str::to_owned).with_context(|| format!("{status}: {release}"))
    }

    /// The bytes of blobs that a release has sent.
    pub(crate) async fn copied(&self, id: &str) -> Result<i64> {
        let url = format!("{}/v1/releases/{id}", self.server);
        let answer = self.client.get(&url).bearer_auth(&self.token).send().await?;
        let release: Value = answer.json().await?;
        let bytes = release.pointer("/publications/0/bytesCopied").and_then(Value::as_str);
        bytes.with_context(|| format!("no bytesCopied: {release}"))?.parse().context("a number")
    }

    /// Asks until a release has ended, and fails unless it succeeded.
    pub(crate) async fn succeeded(&self, id: &str, pause: Duration) -> Result<()> {
        let url = format!("{}/v1/releases/{id}", self.server);
        let since = Instant::now();
        loop {
            let answer = self.client.get(&url).bearer_auth(&self.token).send().await?;
            let release: Value = answer.json().await?;
            match release.get("state").and_then(Value::as_str) {
                Some("RELEASE_STATE_SUCCEEDED") => return Ok(()),
                Some("RELEASE_STATE_QUEUED" | "RELEASE_STATE_RUNNING") => {}
                _ => bail!("the release did not succeed: {release}"),
            }
            if since.elapsed() > 10 * PATIENCE {
                bail!("the release goes on for ever: {release}");
            }
            sleep(pause).await;
        }
    }

    /// Waits until every release has ended; fails if one did not succeed.
    pub(crate) async fn all_succeeded(&self) -> Result<()> {
        let open = "SELECT count(*) FILTER (WHERE ended_at IS NULL), \
                    count(*) FILTER (WHERE ended_at IS NOT NULL AND state <> 'SUCCEEDED') \
                    FROM release";
        loop {
            let row = sqlx::query(open).fetch_one(&self.pool).await?;
            if row.get::<i64, _>(1) > 0 {
                bail!("{} releases did not succeed", row.get::<i64, _>(1));
            }
            if row.get::<i64, _>(0) == 0 {
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The number of the newest job.
    pub(crate) async fn newest_job(&self) -> Result<i64> {
        let newest = sqlx::query("SELECT COALESCE(max(id), 0) FROM job");
        Ok(newest.fetch_one(&self.pool).await?.get(0))
    }

    /// How many workers have worked on jobs that are newer than that.
    pub(crate) async fn workers_since(&self, job: i64) -> Result<i64> {
        let workers = sqlx::query("SELECT count(DISTINCT worker) FROM job WHERE id > $1");
        Ok(workers.bind(job).fetch_one(&self.pool).await?.get(0))
    }

    /// The statements that took most of PostgreSQL's time since the last call.
    pub(crate) async fn statements(&self, name: &str) -> Result<String> {
        let query = "SELECT calls, total_exec_time, regexp_replace(query, '\\s+', ' ', 'g') \
                     FROM pg_stat_statements ORDER BY total_exec_time DESC LIMIT 25";
        let mut text = format!("\n{name}: calls, ms in all, statement\n");
        for row in sqlx::query(query).fetch_all(&self.pool).await? {
            let statement: String = row.get::<String, _>(2).chars().take(110).collect();
            let (calls, ms) = (row.get::<i64, _>(0), row.get::<f64, _>(1));
            writeln!(text, "{calls:>8} {ms:>10.1}  {statement}")?;
        }
        sqlx::query("SELECT pg_stat_statements_reset()").execute(&self.pool).await?;
        Ok(text)
    }

    /// The peak memory of each daemon in MiB.
    pub(crate) fn peaks(&self) -> Result<Vec<(String, f64)>> {
        let peak = |(name, daemon): &(String, Process)| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id()))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
            let kib: f64 = kib.context("no VmHWM")?.trim().parse()?;
            Ok((name.clone(), kib / 1_024.0))
        };
        self.daemons.iter().map(peak).collect()
    }

    /// Lets each daemon's peak begin anew.
    pub(crate) fn forget_peaks(&self) -> Result<()> {
        for (_, daemon) in &self.daemons {
            // proc(5): 5 resets the peak resident set size.
            std::fs::write(format!("/proc/{}/clear_refs", daemon.id()), "5")?;
        }
        Ok(())
    }

    /// Ends everything in order.
    pub(crate) async fn stop(mut self) -> Result<()> {
        for (_, daemon) in &mut self.daemons {
            daemon.stop(Signal::TERM, PATIENCE).await?;
        }
        self.pool.close().await;
        self.postgres.stop().await?;
        Ok(())
    }
}

fn config(
    folder: &Path,
    database: &str,
    token: &str,
    hosts: Vec<String>,
    log: &str,
) -> Result<String> {
    let address = folder.join("address").display().to_string();
    let mut text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\naddress_file = {address:?}\n\n\
         [database]\nurl = {database:?}\n\n[log]\nfilter = {log:?}\n\n"
    );
    for host in hosts {
        writeln!(text, "[[registry]]\nhost = {host:?}\nplain_http = true\n")?;
    }
    let hash = hex::encode(Sha256::digest(token));
    writeln!(
        text,
        "[[caller]]\nname = \"bench\"\ntoken_sha256 = {hash:?}\ngrants = [{{ repositories = \
         [\"*\"], actions = [\"read\", \"publish\", \"move_floating\", \"cancel\"] }}]"
    )?;
    Ok(text)
}
