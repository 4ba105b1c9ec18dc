//! One child process: bound to the life of its parent, its output in a file, and signals to it.
//!
//! A child must not outlive a parent that was killed with SIGKILL, so it is started through
//! `setpriv --pdeathsig KILL` (`unsafe` code is forbidden here, and the standard library has no
//! safe call for it). The kernel sends that signal when the *thread* that started the child ends,
//! and a test's thread ends before its process; so all children are started by one thread of
//! ours that lives as long as the process.

use std::{
    ffi::OsStr,
    fs::OpenOptions,
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{LazyLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, kill_process};
use tokio::{sync::oneshot, time::sleep};

use crate::{Error, Result, tool};

pub use rustix::process::Signal;

/// How often something that is waited for is looked at. Parts are ready within tens or hundreds
/// of milliseconds; a look costs microseconds.
const LOOK: Duration = Duration::from_millis(5);

/// How much of a log an error carries.
const LOG_TAIL_BYTES: usize = 4_000;

struct Order {
    command: Command,
    answer: oneshot::Sender<io::Result<Child>>,
}

static LAUNCHER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
    let (orders, inbox) = mpsc::channel::<Order>();
    let work = move || {
        for mut order in inbox {
            // When nobody waits for the child any more it must not stay.
            if let Err(Ok(mut orphan)) = order.answer.send(order.command.spawn()) {
                let _gone = orphan.kill();
                let _reaped = orphan.wait();
            }
        }
    };
    // If the thread cannot be made its end of the channel is dropped, and sending says so.
    let _detached = thread::Builder::new().name("launcher".to_owned()).spawn(work);
    orders
});

/// A command that will die with this process, whichever way this process ends.
/// Arguments and environment are added to it as to any other.
pub fn bound(program: impl AsRef<OsStr>) -> Result<Command> {
    bound_as(program, None)
}

/// The same, running as another user (of which the caller must be root).
pub(crate) fn bound_as(program: impl AsRef<OsStr>, user: Option<User>) -> Result<Command> {
    let mut command = Command::new(tool::find("setpriv", "apt-get install -y util-linux")?);
    if let Some(User { uid, gid }) = user {
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
    }
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    // A Ctrl-C at the terminal is for the parent; it stops its parts in its own order.
    command.process_group(0).stdin(Stdio::null());
    Ok(command)
}

/// The numbers of a user and of the group of the same name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A running or ended child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    part: String,
    child: Child,
    ended: Option<ExitStatus>,
    log: PathBuf,
}

impl Process {
    /// Starts `command` (made by [`bound`]); what it writes is appended to `log`.
    pub async fn spawn(part: impl Into<String>, mut command: Command, log: &Path) -> Result<Self> {
        let part = part.into();
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .map_err(|source| Error::Prepare { path: log.to_owned(), source })?;
        let second = file.try_clone().map_err(Error::prepare(log))?;
        command.stdout(file).stderr(second);
        let child = start(command).await;
        let child = child.map_err(|source| Error::Spawn { part: part.clone(), source })?;
        Ok(Self { part, child, ended: None, log: log.to_owned() })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file that holds what it wrote.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Whether it ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Sends a signal; nothing happens when it already ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended().is_some() {
            return Ok(());
        }
        kill_process(Pid::from_child(&self.child), signal)
            .map_err(|error| Error::refused(&self.part, format!("takes no signal: {error}")))
    }

    /// Kills it with SIGKILL and waits until it is gone, which is immediate.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            let _already_gone = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }

    /// Sends `signal` and waits; kills it if it is still there after `patience`.
    /// Blocks the thread, so that it can be called while dropping.
    pub(crate) fn stop_now(&mut self, signal: Signal, patience: Duration) {
        let since = Instant::now();
        if self.signal(signal).is_ok() {
            while self.ended().is_none() && since.elapsed() < patience {
                thread::sleep(LOOK);
            }
        }
        self.kill();
    }

    /// Sends `signal` and waits for the end; after `patience` it is killed.
    pub async fn stop(&mut self, signal: Signal, patience: Duration) -> Result<ExitStatus> {
        self.signal(signal)?;
        let status = self.wait(patience).await;
        self.kill();
        status
    }

    /// Waits for the end.
    pub async fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let since = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if since.elapsed() >= patience {
                return Err(self.too_slow("ended", patience));
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until `look` sees what it wants; fails at once when the process ends before.
    pub async fn until<T>(
        &mut self,
        what: &'static str,
        patience: Duration,
        mut look: impl AsyncFnMut() -> Option<T>,
    ) -> Result<T> {
        let since = Instant::now();
        loop {
            let ended = self.ended();
            if let Some(seen) = look().await {
                return Ok(seen);
            }
            if let Some(status) = ended {
                let (part, log) = (self.part.clone(), tail(&self.log()));
                return Err(Error::Ended { part, status, log });
            }
            if since.elapsed() >= patience {
                return Err(self.too_slow(what, patience));
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until its log has a line with `text`, and returns that line.
    pub async fn until_log(&mut self, text: &str, patience: Duration) -> Result<String> {
        let log = self.log.clone();
        let line = async || {
            let bytes = tokio::fs::read(&log).await.ok()?;
            let written = String::from_utf8_lossy(&bytes);
            written.lines().find(|line| line.contains(text)).map(str::to_owned)
        };
        self.until("at the awaited line of its log", patience, line).await
    }

    fn too_slow(&self, what: &'static str, waited: Duration) -> Error {
        Error::TooSlow { part: self.part.clone(), what, waited, log: tail(&self.log()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a short tool to its end and returns what it wrote to standard output.
pub(crate) async fn run(part: &str, command: Command) -> Result<String> {
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let output = command.output().await;
    let output = output.map_err(|source| Error::Spawn { part: part.to_owned(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let log = tail(&String::from_utf8_lossy(&output.stderr));
    Err(Error::Ended { part: part.to_owned(), status: output.status, log })
}

async fn start(command: Command) -> io::Result<Child> {
    let gone = || io::Error::other("the launcher's thread is gone");
    let (answer, child) = oneshot::channel();
    LAUNCHER.send(Order { command, answer }).map_err(|_| gone())?;
    child.await.map_err(|_| gone())?
}

fn tail(log: &str) -> String {
    let from = log.len().saturating_sub(LOG_TAIL_BYTES);
    let from = (from..=log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(log.len());
    log.get(from..).unwrap_or_default().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Command {
        let mut command = bound("/bin/sh").unwrap();
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_child_is_heard_signalled_and_reaped() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let script = "echo pid $$; trap 'echo bye; exit 3' TERM; while :; do sleep 0.01; done";
        let mut child = Process::spawn("shell", shell(script), &log).await.unwrap();
        let line = child.until_log("pid ", SOON).await.unwrap();
        assert_eq!(line, format!("pid {}", child.id()), "setpriv must be replaced by the program");
        let status = child.stop(Signal::TERM, SOON).await.unwrap();
        assert_eq!(status.code(), Some(3));
        assert!(child.log().ends_with("bye\n"));
    }

    #[tokio::test]
    async fn waiting_for_a_child_that_ended_fails_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut child = Process::spawn("shell", shell("echo broken; exit 1"), &log).await.unwrap();
        let error = child.until_log("ready", SOON).await.unwrap_err();
        assert!(matches!(&error, Error::Ended { log, .. } if log == "broken"), "{error}");
    }

    /// A process that is killed takes its parts with it: here a copy of this test's binary is
    /// the parent, started with a variable that makes it start a child and wait.
    #[tokio::test]
    async fn a_child_dies_with_a_parent_that_was_killed() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        if let Some(child_log) = std::env::var_os("LAUNCHER_TEST_CHILD_LOG") {
            let script = "echo pid $$; exec sleep 600";
            let path = PathBuf::from(child_log);
            let mut child = Process::spawn("child", shell(script), &path).await.unwrap();
            child.wait(Duration::from_mins(10)).await.unwrap();
            return;
        }
        let child_log = folder.path().join("child.log");
        let mut parent = bound(std::env::current_exe().unwrap()).unwrap();
        parent
            .args(["--exact", "process::tests::a_child_dies_with_a_parent_that_was_killed"])
            .env("LAUNCHER_TEST_CHILD_LOG", &child_log);
        let mut parent = Process::spawn("parent", parent, &log).await.unwrap();
        let pid = async || {
            let text = tokio::fs::read_to_string(&child_log).await.ok()?;
            text.strip_suffix('\n')?.strip_prefix("pid ").map(str::to_owned)
        };
        let pid = parent.until("with child", SOON, pid).await.unwrap();
        let stat = format!("/proc/{pid}/stat");
        assert!(Path::new(&stat).exists());
        parent.kill();
        let since = Instant::now();
        // Gone, or a zombie that whoever adopted it has not reaped yet.
        while std::fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z ")) {
            assert!(since.elapsed() < SOON, "the child outlived its parent");
            sleep(LOOK).await;
        }
    }
}
