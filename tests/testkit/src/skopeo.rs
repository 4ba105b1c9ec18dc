//! Debian's `skopeo`, the ordinary tool that puts images into registries and sees what is there.

use std::process::Stdio;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use colophon_launcher::{Login, tool};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio::process::Command;

use crate::{
    error::{Error, Result, While as _},
    peer::sha256,
};

/// The digest of what a registry serves under a tag, as `skopeo` sees it.
pub async fn skopeo_inspect_digest(
    host: &str,
    repository: &str,
    tag: &str,
    login: Option<&Login>,
) -> Result<String> {
    let arguments =
        ["inspect", "--raw", "--tls-verify=false", &format!("docker://{host}/{repository}:{tag}")]
            .map(str::to_owned);
    let raw = skopeo(arguments, "--authfile", host, login).await?;
    Ok(sha256(&raw))
}

/// Runs `skopeo`, handing it the login in a file: its arguments are visible to all users.
pub(crate) async fn skopeo(
    arguments: impl IntoIterator<Item = String>,
    authfile_flag: &str,
    host: &str,
    login: Option<&Login>,
) -> Result<Vec<u8>> {
    let program = tool::find("skopeo", "apt-get install -y skopeo")?;
    let folder = tempfile::tempdir().doing("making a folder")?;
    let authfile = folder.path().join("auth.json");
    let mut auths = json!({});
    if let Some(Login { username, password }) = login {
        let pair = STANDARD.encode(format!("{username}:{}", password.expose_secret()));
        auths = json!({ host: { "auth": pair } });
    }
    std::fs::write(&authfile, json!({ "auths": auths }).to_string()).doing("writing a login")?;
    let output = Command::new(program)
        .arg("--insecure-policy")
        .args(arguments)
        .arg(authfile_flag)
        .arg(&authfile)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .doing("running skopeo")?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("skopeo ended with {}: {}", output.status, said.trim())))
}
