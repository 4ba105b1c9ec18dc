//! One process of Colophon's service, which dies with the test.

use std::{
    path::{Path, PathBuf},
    process::ExitStatus,
};

use anyhow::Result;
use colophon_testkit::{
    launcher::process::{Process, Signal},
    wait,
};

use serde_json::Value;

use crate::PATIENCE;

/// A running `colophond`.
pub struct Node {
    process: Process,
    address: Option<String>,
    folder: PathBuf,
}

impl Node {
    pub(crate) async fn start(
        role: &str,
        config: &Path,
        folder: &Path,
        environment: &[(String, String)],
    ) -> Result<Self> {
        let mut node = Self::spawn(role, config, folder, environment).await?;
        if role == "work" {
            // A worker serves nothing but probes; it says when it begins.
            node.process.until_log("working on the queue", PATIENCE).await?;
        } else {
            let file = address_file(folder);
            let written = async || std::fs::read_to_string(&file).ok();
            node.address = Some(node.process.until("at its address", PATIENCE, written).await?);
        }
        Ok(node)
    }

    /// Starts the process and does not wait for it.
    pub(crate) async fn spawn(
        role: &str,
        config: &Path,
        folder: &Path,
        environment: &[(String, String)],
    ) -> Result<Self> {
        let environment: Vec<(&str, &str)> =
            environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let arguments = [Path::new("-c"), config, Path::new(role)];
        let log = folder.join("log");
        let process = wait::start("colophond", arguments, &environment, &log).await?;
        Ok(Self { process, address: None, folder: folder.to_owned() })
    }

    /// `127.0.0.1:port` of gRPC and REST, of a node that serves.
    ///
    /// # Panics
    /// For a worker.
    #[expect(clippy::expect_used, reason = "a test that asks a worker for its address is wrong")]
    pub fn address(&self) -> &str {
        self.address.as_deref().expect("a worker has no address")
    }

    /// What a probe of a node that works answers: the status, and the body.
    pub async fn probe(&self, path: &str) -> Result<(u16, Value)> {
        let address = std::fs::read_to_string(health_address_file(&self.folder))?;
        probe(&address, path).await
    }

    /// The same of a node that serves.
    pub async fn probe_api(&self, path: &str) -> Result<(u16, Value)> {
        probe(self.address(), path).await
    }

    /// The file that it read its configuration from.
    pub fn config(&self) -> PathBuf {
        self.folder.join("colophon.toml")
    }

    /// The folder of this process.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The file that holds what it writes.
    pub fn log_path(&self) -> &Path {
        self.process.log_path()
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops it where it is (SIGSTOP), until [`go_on`](Self::go_on); returns when the last of its
    /// threads stands still, which on a busy machine is not at once.
    pub async fn freeze(&mut self) -> Result<()> {
        self.process.signal(Signal::STOP)?;
        let threads = PathBuf::from(format!("/proc/{}/task", self.id()));
        let still = async || threads_stand_still(&threads).then_some(());
        Ok(wait::wait_until("every thread stands still", PATIENCE, still).await?)
    }

    /// Lets it go on (SIGCONT).
    pub fn go_on(&mut self) -> Result<()> {
        Ok(self.process.signal(Signal::CONT)?)
    }

    /// Ends it in order (SIGTERM).
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop(Signal::TERM, PATIENCE).await?;
        Ok(())
    }

    /// The same, and how it ended.
    pub async fn stop_well(&mut self) -> Result<ExitStatus> {
        Ok(self.process.stop(Signal::TERM, PATIENCE).await?)
    }

    /// The process, for what the methods here do not cover.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Whether every thread of a process is stopped. The state follows the name, which is in
/// parentheses and may hold any character.
fn threads_stand_still(threads: &Path) -> bool {
    let Ok(threads) = std::fs::read_dir(threads) else { return false };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat"));
        stat.is_ok_and(|stat| {
            stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
        })
    })
}

async fn probe(address: &str, path: &str) -> Result<(u16, Value)> {
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let answer = http.get(format!("http://{address}{path}")).send().await?;
    Ok((answer.status().as_u16(), answer.json().await?))
}

pub(crate) fn health_address_file(folder: &Path) -> PathBuf {
    folder.join("health-address")
}

pub(crate) fn address_file(folder: &Path) -> PathBuf {
    folder.join("address")
}
