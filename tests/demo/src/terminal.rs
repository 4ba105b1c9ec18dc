//! What the viewer sees: headings, commands as one would type them, and their real output, which
//! goes straight to the terminal. On a terminal it is coloured and paced for reading; in a log it
//! is plain text without pauses.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{process::Command, time::sleep};

const BOLD: &str = "\x1b[1m";
const BLUE: &str = "\x1b[1;34m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[1;31m";
const PLAIN: &str = "\x1b[0m";

/// Where the demo is shown.
pub(crate) struct Terminal {
    colour: bool,
    pause: Duration,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        let live = io::stdout().is_terminal();
        let colour = live && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colour, pause: if live { Duration::from_millis(800) } else { Duration::ZERO } }
    }

    /// Begins a part of the story.
    pub(crate) fn heading(&self, text: &str) {
        let rule = "─".repeat(76_usize.saturating_sub(text.chars().count()));
        print(&format!("\n{}\n\n", self.paint(BLUE, &format!("── {text} {rule}"))));
    }

    /// Says something about what is seen.
    pub(crate) fn note(&self, text: &str) {
        print(&format!("{}\n", self.paint(DIM, text)));
    }

    /// One fact and whether it is as it should be.
    pub(crate) fn verdict(&self, right: bool, text: &str) {
        let mark = if right { self.paint(GREEN, "ok   ") } else { self.paint(RED, "WRONG") };
        print(&format!("{mark}  {text}\n"));
    }

    /// Why the demo ends early.
    pub(crate) fn failed(&self, text: &str) {
        let _closed = writeln!(io::stderr(), "{}", self.paint(RED, text));
    }

    async fn type_in(&self, command: &str) {
        sleep(self.pause).await;
        print(&format!("{} {}\n", self.paint(DIM, "$"), self.paint(BOLD, command)));
        sleep(self.pause / 2).await;
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("{colour}{text}{PLAIN}") } else { text.to_owned() }
    }
}

/// Written at once, since the commands write to the same terminal. A viewer who has gone
/// away is no reason to leave the parts running, so a closed pipe is not an error here.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _closed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A shell in the demo's folder, with the variables that were exported in it.
pub(crate) struct Shell<'a> {
    terminal: &'a Terminal,
    folder: PathBuf,
    path: String,
    variables: Vec<(String, String)>,
}

impl<'a> Shell<'a> {
    /// `programs` goes before the caller's `PATH`.
    pub(crate) fn new(terminal: &'a Terminal, folder: &Path, programs: &Path) -> Self {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", programs.display());
        Self { terminal, folder: folder.to_owned(), path, variables: Vec::new() }
    }

    /// Sets a variable for all commands that follow, and shows it.
    pub(crate) async fn export(&mut self, name: &str, value: &str) {
        self.terminal.type_in(&format!("export {name}={value}")).await;
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Runs a command whose output goes straight to the terminal, progress bars included.
    pub(crate) async fn run(&self, command: &str) -> Result<()> {
        self.terminal.type_in(command).await;
        let status = self.bash(command).status().await;
        let status = status.context("bash cannot be started")?;
        if !status.success() {
            bail!("`{command}` ended with {status}");
        }
        Ok(())
    }

    /// Runs a command, shows its output and returns it.
    pub(crate) async fn ask(&self, command: &str) -> Result<String> {
        self.terminal.type_in(command).await;
        let output = self.bash(command).stdout(Stdio::piped()).output().await;
        let output = output.context("bash cannot be started")?;
        let said = String::from_utf8_lossy(&output.stdout);
        print(&said);
        if !output.status.success() {
            bail!("`{command}` ended with {}", output.status);
        }
        Ok(said.trim().to_owned())
    }

    fn bash(&self, command: &str) -> Command {
        let mut bash = Command::new("bash");
        bash.args(["-eu", "-o", "pipefail", "-c", command])
            .current_dir(&self.folder)
            .env("PATH", &self.path)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        bash
    }
}
