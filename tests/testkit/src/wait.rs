//! Waiting for something to come true, and finding and starting the project's own binaries.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use colophon_launcher::process::{Process, bound};
use tokio::time::sleep;

use crate::error::{Error, Result, While as _};

const LOOK: Duration = Duration::from_millis(10);

/// Looks until `look` returns something, for at most `patience`.
pub async fn wait_until<T>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    let since = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return Ok(seen);
        }
        if since.elapsed() >= patience {
            return Err(Error::new(format!("waited {patience:?} in vain until {what}")));
        }
        sleep(LOOK).await;
    }
}

/// Where one of this workspace's binaries is: in `COLOPHON_BIN_DIR`, else beside the running
/// test (`target/debug`). Tests do not build it; `make test` and `cargo build` do.
pub fn binary(name: &str) -> Result<PathBuf> {
    let named = env::var_os("COLOPHON_BIN_DIR").map(PathBuf::from);
    let test = env::current_exe().doing("finding the running test")?;
    // A test is in target/debug/deps, an example in target/debug/examples.
    let beside = test.ancestors().skip(1).take(2).map(Path::to_path_buf);
    named
        .into_iter()
        .chain(beside)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .doing(format!("`{name}` is not built; run `cargo build --workspace --bins`"))
}

/// Starts one of this workspace's binaries with nothing of the caller's environment but `PATH`,
/// so that a developer's settings do not change a test. What it writes goes to `log`.
pub async fn start<A: AsRef<OsStr>>(
    name: &str,
    arguments: impl IntoIterator<Item = A>,
    environment: &[(&str, &str)],
    log: &Path,
) -> Result<Process> {
    let mut command = bound(binary(name)?)?;
    command.env_clear().envs(env::var_os("PATH").map(|path| ("PATH", path)));
    command.args(arguments).envs(environment.iter().copied());
    Ok(Process::spawn(name, command, log).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_ends_when_it_is_there_or_says_what_was_missing() {
        let mut looks = 0;
        let third = async || {
            looks += 1;
            (looks == 3).then_some(looks)
        };
        assert_eq!(wait_until("third", Duration::from_secs(20), third).await.unwrap(), 3);
        let error = wait_until("pigs fly", Duration::ZERO, async || None::<()>).await.unwrap_err();
        assert!(error.to_string().contains("pigs fly"));
    }

    #[test]
    fn a_binary_that_was_not_built_is_named() {
        let error = binary("no-such-binary").unwrap_err().to_string();
        assert!(error.contains("no-such-binary") && error.contains("cargo build"), "{error}");
    }
}
