//! A private Docker engine, as root, where Debian's `docker.io` is installed.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use colophon_testkit::launcher::{
    process::{Process, Signal, bound},
    tool,
};
use tempfile::TempDir;
use tokio::process::Command;

use crate::tools;

const PATIENCE: Duration = Duration::from_mins(1);
const INSTALL: &str = "apt-get install -y docker.io";

/// A running engine.
pub(crate) struct Engine {
    daemon: Process,
    client: PathBuf,
    folder: TempDir,
}

impl Engine {
    pub(crate) async fn start() -> Result<Self> {
        // A short path, because that of a socket has 107 characters at most.
        let folder = tempfile::Builder::new().prefix("engine-").tempdir_in("/tmp")?;
        let at = |name: &str| folder.path().join(name);
        let mut command = bound(tool::find("dockerd", INSTALL)?)?;
        command.arg("--data-root").arg(at("data")).arg("--exec-root").arg(at("exec"));
        command.arg("--pidfile").arg(at("pid")).arg("--host").arg(socket(folder.path()));
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
        command.args(["--ip-forward=false", "--ip-masq=false"]);
        let mut daemon = Process::spawn("dockerd", command, &at("log")).await?;
        // The one of the same package, where another one is installed as well.
        let debian = PathBuf::from("/usr/bin/docker");
        let client = if debian.is_file() { debian } else { tool::find("docker", INSTALL)? };
        let answers = async || tools::run(docker(&client, &folder, &["info"])).await.ok();
        daemon.until("answering", PATIENCE, answers).await?;
        Ok(Self { daemon, client, folder })
    }

    /// Runs the client, and says how long it took.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<Duration> {
        tools::run(docker(&self.client, &self.folder, arguments)).await
    }

    /// Ends the engine with what it has started and mounted.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.daemon.stop(Signal::TERM, PATIENCE).await?;
        Ok(())
    }
}

fn socket(folder: &Path) -> String {
    format!("unix://{}", folder.join("docker.sock").display())
}

fn docker(client: &Path, folder: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(client);
    // Whatever logins the user has stay out of it.
    command.env("DOCKER_CONFIG", folder.path()).arg("--host").arg(socket(folder.path()));
    command.args(arguments);
    command
}
