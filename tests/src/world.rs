//! The parts of one test, and the processes that it starts on them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use colophon_testkit::{launcher::PostgresOptions, wait};
use secrecy::{ExposeSecret as _, SecretString};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    Client, Database, Node, Site, SiteOptions, Vault,
    node::{address_file, health_address_file},
};

/// Everything that a new world may do: its first caller.
const EVERYTHING: &str = r#"[{ repositories = ["*"], actions = ["read", "publish", "move_floating",
    "cancel", "rollback", "freeze", "break_glass", "settle"] }]"#;

/// Short times, so that what waits for a lease or a deadline does not wait long.
const QUICK: &str = "lease = \"2s\"\nput_timeout = \"700ms\"\ngrace = \"700ms\"\n\
                     poll_interval = \"50ms\"\nbackoff_min = \"50ms\"\nbackoff_max = \"500ms\"\n\
                     consistency_window = \"500ms\"\n";

/// One test's parts. What is set here goes into the configuration of processes that are
/// started afterwards.
pub struct World {
    folder: TempDir,
    database: Database,
    registries: Vec<String>,
    callers: Vec<String>,
    token: SecretString,
    vault: String,
    nodes: usize,
    /// The lines of `[worker]`; short times unless changed.
    pub worker: String,
    /// The lines of `[server.limits]`.
    pub limits: String,
    /// Further sections.
    pub sections: String,
    /// The lines of `[telemetry]`.
    pub telemetry: String,
    /// Further variables of the processes' environment, `RUST_LOG` among them.
    pub environment: Vec<(String, String)>,
}

/// How the client ended.
#[derive(Debug)]
pub struct CliOutput {
    /// The exit code.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub err: String,
}

impl CliOutput {
    fn of(output: &std::process::Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl World {
    /// A world with a database in the cluster that tests share, and a caller who may do
    /// everything.
    pub async fn new() -> Result<Self> {
        Self::on(Database::shared().await?)
    }

    /// A world with a PostgreSQL of its own, which may be stopped and killed.
    pub async fn with_own_postgres(options: PostgresOptions) -> Result<Self> {
        Self::on(Database::alone(options).await?)
    }

    fn on(database: Database) -> Result<Self> {
        // More than one part has its own idea of a default; the service has the same one.
        let _already_chosen = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::Builder::new().prefix("colophon-world-").tempdir()?;
        let mut world = Self {
            folder,
            database,
            registries: Vec::new(),
            callers: Vec::new(),
            token: SecretString::default(),
            vault: String::new(),
            nodes: 0,
            worker: QUICK.to_owned(),
            limits: String::new(),
            sections: String::new(),
            telemetry: String::new(),
            environment: vec![("RUST_LOG".to_owned(), "info,colophon_engine=debug".to_owned())],
        };
        world.token = world.caller("ci", EVERYTHING)?;
        Ok(world)
    }

    /// The folder of the world: logs, configurations, files of the test's own.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Starts a registry, which processes that are started afterwards know.
    pub async fn site(&mut self, options: SiteOptions) -> Result<Site> {
        let site = Site::start(options, self.folder.path()).await?;
        self.registries.push(site.toml().to_owned());
        Ok(site)
    }

    /// Makes a `[[registry]]` table known as it is written.
    pub fn registry_table(&mut self, toml: &str) {
        self.registries.push(toml.to_owned());
    }

    /// Makes rules for the tags of repositories known: `toml` is a `[[repository]]` table without
    /// its title, and may end with a `[repository.retention]`.
    pub fn rule(&mut self, toml: &str) {
        self.registries.push(format!("[[repository]]\n{toml}\n"));
    }

    /// Starts `OpenBao`, which processes that are started afterwards read PATs from. `settings`
    /// are further lines of `[vault]`.
    pub async fn vault(&mut self, settings: &str) -> Result<Vault> {
        self.vault_with(settings, Duration::from_mins(10)).await
    }

    /// The same, and Colophon's token lives only so long without renewal.
    pub async fn vault_with(&mut self, settings: &str, token_ttl: Duration) -> Result<Vault> {
        let vault = Vault::start(self.folder.path(), settings, token_ttl).await?;
        vault.toml().clone_into(&mut self.vault);
        Ok(vault)
    }

    /// Adds a caller; `grants` is the TOML of its list of grants. Returns its token.
    pub fn caller(&mut self, name: &str, grants: &str) -> Result<SecretString> {
        let (token, hash) = colophon_server::new_token()?;
        self.callers.push(format!(
            "[[caller]]\nname = {name:?}\ntoken_sha256 = {hash:?}\ngrants = {grants}\n"
        ));
        Ok(token)
    }

    /// The token of the caller who may do everything.
    pub fn token(&self) -> &SecretString {
        &self.token
    }

    /// Starts a process that serves the API.
    pub async fn serve(&mut self) -> Result<Node> {
        self.start("serve").await
    }

    /// Starts a worker.
    pub async fn work(&mut self) -> Result<Node> {
        self.start("work").await
    }

    /// Starts a process that does both.
    pub async fn run(&mut self) -> Result<Node> {
        self.start("run").await
    }

    /// Starts a process and does not wait until it is ready.
    pub async fn start_only(&mut self, role: &str) -> Result<Node> {
        let (config, folder) = self.prepare(role)?;
        Node::spawn(role, &config, &folder, &self.environment).await
    }

    async fn start(&mut self, role: &str) -> Result<Node> {
        let (config, folder) = self.prepare(role)?;
        Node::start(role, &config, &folder, &self.environment).await
    }

    fn prepare(&mut self, role: &str) -> Result<(PathBuf, PathBuf)> {
        self.nodes += 1;
        let folder = self.folder.path().join(format!("{role}-{}", self.nodes));
        std::fs::create_dir(&folder).context("making a folder")?;
        let config = folder.join("colophon.toml");
        std::fs::write(&config, self.config(&folder)).context("writing a configuration")?;
        Ok((config, folder))
    }

    /// Runs a command of `colophond` that ends by itself, on the configuration as it is now.
    pub async fn service<S: AsRef<str>>(&mut self, arguments: &[S]) -> Result<CliOutput> {
        let mut command = self.service_command(arguments)?;
        let output = command.output().await.context("running colophond")?;
        Ok(CliOutput::of(&output))
    }

    /// The command behind [`service`](Self::service).
    pub fn service_command<S: AsRef<str>>(&mut self, arguments: &[S]) -> Result<Command> {
        let (config, _) = self.prepare("command")?;
        let mut command = Command::new(wait::binary("colophond")?);
        command
            .env_clear()
            .arg("-c")
            .arg(config)
            .args(arguments.iter().map(AsRef::as_ref))
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }

    /// What `pg_dump` makes of the database.
    pub async fn dump(&self) -> Result<PathBuf> {
        let file = self.folder.path().join("dump.sql");
        self.database.dump(&file).await?;
        Ok(file)
    }

    /// Puts a fresh database with a dump's content into the place of the one before.
    pub async fn restore(&mut self, dump: &Path) -> Result<()> {
        self.database = self.database.restored(dump).await?;
        Ok(())
    }

    /// The configuration of a process with this folder.
    pub fn config(&self, folder: &Path) -> String {
        let head = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\naddress_file = {:?}\n[server.limits]\n{}\n\
             [database]\nurl = {:?}\nmax_connections = 10\n[worker]\n{}\n\
             health_listen = \"127.0.0.1:0\"\nhealth_address_file = {:?}\n\
             [telemetry]\n{}\n",
            address_file(folder).display().to_string(),
            self.limits,
            self.database.url(),
            self.worker,
            health_address_file(folder).display().to_string(),
            self.telemetry,
        );
        let tables = self.callers.iter().chain(&self.registries).map(String::as_str);
        [head.as_str(), &self.sections, &self.vault]
            .into_iter()
            .chain(tables)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// The caller who may do everything, at this server.
    pub fn client(&self, node: &Node) -> Result<Client> {
        self.client_of(node, &self.token)
    }

    /// Another caller, at this server.
    pub fn client_of(&self, node: &Node, token: &SecretString) -> Result<Client> {
        Client::new(node.address(), token.clone())
    }

    /// Runs the real `colophon` against a server, as the caller who may do everything, with
    /// nothing else of this machine's environment.
    pub async fn cli<S: AsRef<str>>(&self, node: &Node, arguments: &[S]) -> Result<CliOutput> {
        let mut command = self.cli_command(node)?;
        command.args(arguments.iter().map(AsRef::as_ref));
        let output = command.output().await.context("running colophon")?;
        Ok(CliOutput::of(&output))
    }

    /// The command behind [`cli`](Self::cli), for tests that change its environment or send it
    /// signals.
    pub fn cli_command(&self, node: &Node) -> Result<Command> {
        let mut command = Command::new(wait::binary("colophon")?);
        command
            .env_clear()
            .env("COLOPHON_SERVER", format!("http://{}", node.address()))
            .env("COLOPHON_TOKEN", self.token.expose_secret())
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }
}
