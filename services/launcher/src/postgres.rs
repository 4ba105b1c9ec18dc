//! A private PostgreSQL cluster in a temporary folder, reached through a Unix socket that only
//! its owner (and root) can open: no port, no password, nothing shared with a system's cluster.

use std::{
    fs::{DirBuilder, Permissions},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    Error, Result,
    home::Home,
    process::{Process, Signal, User, bound_as, run},
    tool,
};

/// How long a start may take. It needs a second at most on an idle machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Linux takes no longer path for a Unix socket (`sun_path` less its terminator).
const SOCKET_PATH_LIMIT: usize = 107;

/// How a private cluster is set up.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Whether commits reach the disk before they are confirmed. Off for tests: a commit
    /// survives the server's death, not the machine's. On where speed is measured.
    pub fsync: bool,
    /// How many connections all clients may have open together.
    pub max_connections: u16,
    /// Further settings, as in `postgresql.conf`.
    pub settings: Vec<(String, String)>,
    /// The folder in which it stays; a temporary one without. Who uses it makes sure that no two
    /// processes do so at once.
    pub kept: Option<PathBuf>,
}

impl Default for PostgresOptions {
    /// For tests: nothing waits for the disk, and there is room for many parallel tests.
    fn default() -> Self {
        Self { fsync: false, max_connections: 400, settings: Vec::new(), kept: None }
    }
}

/// A running cluster. Dropping it stops it and removes its folder, unless that is kept.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    user: Option<User>,
    settings: Vec<(String, String)>,
    server: Option<Process>,
    folder: Home,
}

impl Postgres {
    /// Makes a cluster, unless there is a kept one, and starts it. When the caller is root it runs as user `postgres`,
    /// since PostgreSQL refuses to run as root.
    pub async fn start(options: PostgresOptions) -> Result<Self> {
        let bin = tool::postgres_folder()?;
        let user = unprivileged().await?;
        let folder = prepare_folder(options.kept.as_deref(), user)?;
        let mut postgres =
            Self { bin, user, settings: settings(options, folder.path()), server: None, folder };
        if !postgres.data().exists() {
            postgres.initialise().await?;
        }
        postgres.resume().await?;
        Ok(postgres)
    }

    /// The URL of the database `postgres`, as its superuser.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The URL of another database of the cluster.
    pub fn url_of(&self, database: &str) -> String {
        let socket = self.socket_folder();
        // Of the characters that a temporary folder's name may have only these need an escape.
        let socket = socket.to_string_lossy().replace('%', "%25").replace('/', "%2F");
        format!("postgres://postgres@localhost/{database}?host={socket}")
    }

    /// The folder with the socket, for `PGHOST`.
    pub fn socket_folder(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// The server's process id while it runs.
    pub fn id(&self) -> Option<u32> {
        self.server.as_ref().map(Process::id)
    }

    /// What the server wrote.
    pub fn log(&self) -> String {
        self.server.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Creates a database and returns its URL. Many tests share a cluster with a database each.
    pub async fn create_database(&self, name: &str) -> Result<String> {
        self.sql("postgres", &format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""))).await?;
        Ok(self.url_of(name))
    }

    /// Drops a database, disconnecting whoever uses it.
    pub async fn drop_database(&self, name: &str) -> Result<()> {
        let name = name.replace('"', "\"\"");
        self.sql("postgres", &format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)")).await?;
        Ok(())
    }

    /// Runs a statement with `psql` as the superuser and returns its rows, unaligned and
    /// without headers. For set-up and for tests that tamper; services use their own client.
    pub async fn sql(&self, database: &str, statement: &str) -> Result<String> {
        let mut psql = bound_as(self.bin.join("psql"), None)?;
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d"])
            .args([database, "-c", statement])
            .env("PGHOST", self.socket_folder());
        run("psql", psql).await
    }

    /// Stops it as a power cut would (the server, not the machine): SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill();
        }
    }

    /// Stops it in order: transactions are rolled back, clients disconnected, data written.
    pub async fn stop(&mut self) -> Result<()> {
        match self.server.take() {
            Some(mut server) => server.stop(Signal::INT, PATIENCE).await.map(drop),
            None => Ok(()),
        }
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill`](Self::kill), under the same URL.
    pub async fn resume(&mut self) -> Result<()> {
        if self.server.as_mut().is_some_and(|server| server.ended().is_none()) {
            return Ok(());
        }
        let pid_file = self.data().join("postmaster.pid");
        // After SIGKILL the backends need a moment to notice; until the last of them is gone the
        // shared memory is in use and a new server refuses to start.
        let since = std::time::Instant::now();
        loop {
            self.forget_the_dead(&pid_file)?;
            let mut server =
                Process::spawn("postgres", self.server_command()?, &self.log_path()).await?;
            let id = server.id().to_string();
            let ready = async || {
                let text = tokio::fs::read_to_string(&pid_file).await.ok()?;
                let mut lines = text.lines().map(str::trim);
                // Line 1 is the process, line 8 its own word on its state (`pg_ctl -w` reads
                // them too). The file of a killed server stays: it is how a new one learns of
                // the shared memory, and must not be removed.
                (lines.next() == Some(&id) && lines.nth(6) == Some("ready")).then_some(())
            };
            match server.until("ready", PATIENCE, ready).await {
                Ok(()) => {
                    self.server = Some(server);
                    return Ok(());
                }
                Err(Error::Ended { log, .. })
                    if (log.contains("shared memory block") || log.contains("lock file"))
                        && since.elapsed() < PATIENCE => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Kills it with SIGKILL and starts it again: clients see a crash, and recovery runs.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        self.resume().await
    }

    /// A server that was killed is a zombie until somebody reaps it, and where nobody does (in a
    /// container without an init process) the next one would take it for alive for ever. Its files are
    /// removed once it is a zombie and none of its backends is left in the data folder.
    fn forget_the_dead(&self, pid_file: &Path) -> Result<()> {
        let Ok(text) = std::fs::read_to_string(pid_file) else { return Ok(()) };
        let id = text.lines().next().unwrap_or_default().trim();
        let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let zombie = state.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z "));
        if !zombie {
            return Ok(());
        }
        let processes = std::fs::read_dir("/proc").map_err(Error::prepare("/proc"))?;
        let data = self.data();
        let inside = |entry: &std::fs::DirEntry| {
            std::fs::read_link(entry.path().join("cwd")).is_ok_and(|folder| folder == data)
        };
        if !processes.flatten().any(|entry| inside(&entry)) {
            let socket_lock = self.socket_folder().join(".s.PGSQL.5432.lock");
            for file in [pid_file, &socket_lock] {
                match std::fs::remove_file(file) {
                    // It may have been killed before it made the second.
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(Error::prepare(file)(error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Makes the cluster beside its place and moves it there, so that what was broken off halfway
    /// is never taken for a cluster.
    async fn initialise(&self) -> Result<()> {
        let draft = self.folder.path().join("data.new");
        if draft.exists() {
            std::fs::remove_dir_all(&draft).map_err(Error::prepare(&draft))?;
        }
        private_folder(&draft, self.user)?;
        let mut initdb = bound_as(self.bin.join("initdb"), self.user)?;
        initdb
            .arg("--pgdata")
            .arg(&draft)
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"])
            .arg("--no-instructions")
            .current_dir(self.folder.path());
        if matches!(self.folder, Home::Temporary(_)) {
            initdb.arg("--no-sync");
        }
        run("initdb", initdb).await?;
        std::fs::rename(&draft, self.data()).map_err(Error::prepare(&draft))
    }

    fn server_command(&self) -> Result<Command> {
        let mut command = bound_as(self.bin.join("postgres"), self.user)?;
        command.arg("-D").arg(self.data()).current_dir(self.folder.path());
        for (name, value) in &self.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        Ok(command)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            // SIGQUIT is PostgreSQL's immediate shutdown: it takes its own children along, so
            // that nothing writes into the folder while it is removed.
            server.stop_now(Signal::QUIT, Duration::from_secs(5));
        }
    }
}

fn settings(options: PostgresOptions, folder: &Path) -> Vec<(String, String)> {
    let switch = |on: bool| if on { "on" } else { "off" };
    let mut settings = vec![
        ("listen_addresses".to_owned(), String::new()),
        ("unix_socket_directories".to_owned(), folder.join("socket").display().to_string()),
        ("max_connections".to_owned(), options.max_connections.to_string()),
        ("timezone".to_owned(), "UTC".to_owned()),
    ];
    // `synchronous_commit` stays on: without it a killed server forgets commits that it had
    // confirmed, while without `fsync` only the machine's own death does that.
    for name in ["fsync", "full_page_writes"] {
        settings.push((name.to_owned(), switch(options.fsync).to_owned()));
    }
    settings.extend(options.settings);
    settings
}

/// The user to run as: nobody else unless we are root.
async fn unprivileged() -> Result<Option<User>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let number = async |flag: &str| {
        let mut id = Command::new("id");
        id.args([flag, "postgres"]);
        let text = run("id", id).await?;
        text.trim().parse::<u32>().map_err(|_| Error::refused("id", "no number for user postgres"))
    };
    Ok(Some(User { uid: number("-u").await?, gid: number("-g").await? }))
}

/// The folder, and in it one for the socket which only the server's user may enter.
fn prepare_folder(kept: Option<&Path>, user: Option<User>) -> Result<Home> {
    let folder = match kept {
        None => Home::temporary("colophon-pg-")?,
        Some(folder) => Home::kept(folder)?,
    };
    let path = folder.path();
    let socket = path.join("socket");
    if socket.as_os_str().len() + "/.s.PGSQL.5432.lock".len() > SOCKET_PATH_LIMIT {
        return Err(Error::refused(
            "postgres",
            format!("the path of {} is too long for a socket; set TMPDIR", socket.display()),
        ));
    }
    // Another user's server must be able to pass through, but not to list.
    std::fs::set_permissions(path, Permissions::from_mode(0o711)).map_err(Error::prepare(path))?;
    if user.is_some() {
        passable(path)?;
    }
    if !socket.exists() {
        private_folder(&socket, user)?;
    }
    Ok(folder)
}

/// A folder that only the server's user may enter.
fn private_folder(path: &Path, user: Option<User>) -> Result<()> {
    DirBuilder::new().mode(0o700).create(path).map_err(Error::prepare(path))?;
    let Some(User { uid, gid }) = user else { return Ok(()) };
    chown(path, Some(uid), Some(gid)).map_err(Error::prepare(path))
}

/// Whether another user gets as far as `path`: every folder above must let everybody through.
fn passable(path: &Path) -> Result<()> {
    for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        let mode = std::fs::metadata(above).map_err(Error::prepare(above))?.permissions().mode();
        if mode & 0o001 == 0 {
            let message = format!(
                "runs as user postgres, since root may not run it, and that user may not pass \
                 through {}; choose a folder elsewhere, for example below /var/lib",
                above.display()
            );
            return Err(Error::refused("postgres", message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn data_survives_a_crash_and_the_url_stays() {
        let mut postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
        let url = postgres.create_database("one").await.unwrap();
        assert_eq!(url, postgres.url_of("one"));
        postgres.sql("one", "CREATE TABLE t AS SELECT 7 AS n").await.unwrap();
        let first = postgres.id();
        postgres.restart().await.unwrap();
        assert_ne!(postgres.id(), first);
        assert_eq!(postgres.sql("one", "SELECT n FROM t").await.unwrap().trim(), "7");
        postgres.stop().await.unwrap();
        assert!(postgres.sql("one", "SELECT 1").await.is_err());
        postgres.resume().await.unwrap();
        assert_eq!(postgres.sql("one", "SELECT n FROM t").await.unwrap().trim(), "7");
        postgres.drop_database("one").await.unwrap();
        let folder = postgres.folder.path().to_owned();
        drop(postgres);
        assert!(!folder.exists(), "the folder is removed");
    }

    #[tokio::test]
    async fn a_kept_cluster_comes_back_with_its_data() {
        let folder =
            tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        let kept = folder.path().join("postgres");
        // What a broken-off start left behind is no cluster.
        std::fs::create_dir_all(kept.join("data.new/base")).unwrap();
        let start = async || {
            let options =
                PostgresOptions { kept: Some(kept.clone()), ..PostgresOptions::default() };
            Postgres::start(options).await.unwrap()
        };
        let mut postgres = start().await;
        postgres.sql("postgres", "CREATE TABLE t AS SELECT 7 AS n").await.unwrap();
        // As when the machine is switched off.
        postgres.kill();
        drop(postgres);
        let postgres = start().await;
        assert_eq!(postgres.sql("postgres", "SELECT n FROM t").await.unwrap().trim(), "7");
        drop(postgres);
        assert!(kept.join("data").exists());
    }

    #[tokio::test]
    async fn one_that_was_killed_before_it_had_a_socket_is_forgotten() {
        let mut postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
        postgres.stop().await.unwrap();
        // Nobody reaps it until the end of the test.
        let mut dead = Command::new("true").spawn().unwrap();
        let stat = format!("/proc/{}/stat", dead.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
            tokio::task::yield_now().await;
        }
        let pid_file = postgres.data().join("postmaster.pid");
        std::fs::write(&pid_file, format!("{}\n", dead.id())).unwrap();
        assert!(!postgres.socket_folder().join(".s.PGSQL.5432.lock").exists());
        postgres.resume().await.unwrap();
        assert_eq!(postgres.sql("postgres", "SELECT 7").await.unwrap().trim(), "7");
        dead.wait().unwrap();
    }

    #[test]
    fn a_folder_that_another_user_cannot_reach_is_refused_by_name() {
        let closed = Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().permissions(closed).tempdir().unwrap();
        let error = passable(&folder.path().join("postgres")).unwrap_err().to_string();
        assert!(error.contains(folder.path().to_str().unwrap()), "{error}");
    }

    #[tokio::test]
    async fn a_setting_that_is_wrong_is_said() {
        let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
        let options = PostgresOptions { settings, ..PostgresOptions::default() };
        let error = Postgres::start(options).await.unwrap_err();
        assert!(error.to_string().contains("no_such_setting"), "{error}");
    }
}
