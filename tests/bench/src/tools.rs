//! The peers, `skopeo` and `crane` where it is installed, and Colophon's own client.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use colophon_testkit::launcher::tool;
use tokio::process::Command;

/// Whether there is a `crane`.
pub(crate) fn has_crane() -> bool {
    tool::find("crane", "").is_ok()
}

/// `skopeo copy` of a reference; what it remembers of blobs' places is in `home`.
pub(crate) async fn skopeo(from: &str, to: &str, home: &Path) -> Result<Duration> {
    let mut command = Command::new(tool::find("skopeo", "apt-get install -y skopeo")?);
    // The two variables move its cache of blobs' locations from the user's into this folder.
    command
        .env("XDG_DATA_HOME", home)
        .env("_CONTAINERS_ROOTLESS_UID", "1000")
        .args(["--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests"])
        .args(["--src-tls-verify=false", "--dest-tls-verify=false"])
        .args([format!("docker://{from}"), format!("docker://{to}")]);
    run(command).await
}

/// `crane copy` of a reference.
pub(crate) async fn crane(from: &str, to: &str) -> Result<Duration> {
    let mut command = Command::new(tool::find("crane", "")?);
    command.args(["copy", "--insecure", from, to]);
    run(command).await
}

/// `skopeo copy` from or to an archive or a layout of this machine.
pub(crate) async fn skopeo_local(from: &str, to: &str) -> Result<Duration> {
    let mut command = Command::new(tool::find("skopeo", "apt-get install -y skopeo")?);
    command.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", from, to]);
    run(command).await
}

/// Runs a tool to its end, and says how long that took.
pub(crate) async fn run(mut command: Command) -> Result<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let since = Instant::now();
    let output = command.output().await?;
    let took = since.elapsed();
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(took)
}
