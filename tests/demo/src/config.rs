//! Colophon's configuration for the demo, as an operator would write it.

use std::{fmt::Write as _, path::Path};

use anyhow::Result;

/// What is known only once the parts run.
pub(crate) struct Settings<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) database: String,
    pub(crate) vault: String,
    pub(crate) role: &'a str,
    pub(crate) token_sha256: &'a str,
    pub(crate) hosts: [String; 3],
    pub(crate) realm: &'a str,
}

/// The TOML file.
pub(crate) fn text(settings: &Settings<'_>) -> Result<String> {
    let Settings { folder, database, vault, role, token_sha256, hosts, realm } = settings;
    let file = |name: &str| format!("{:?}", folder.join(name).display().to_string());
    let [staging, blue, green] = hosts;
    let mut text = String::new();
    write!(
        text,
        r#"[server]
listen = "127.0.0.1:0"
address_file = {address}

[database]
url = {database:?}

[vault]
address = {vault:?}
auth = {{ method = "approle", role_id = {role:?}, secret_id_file = {secret_id} }}

[[registry]]
host = {staging:?}
plain_http = true

[[registry]]
host = {blue:?}
plain_http = true
credentials = [{{ repositories = "apps/*", push = "registries/blue" }}]

[[registry]]
host = {green:?}
ca_file = {ca}
token_realms = [{realm:?}]
credentials = [{{ repositories = "apps/*", push = "registries/green" }}]

[[caller]]
name = "release-pipeline"
token_sha256 = {token_sha256:?}
grants = [
    {{ repositories = ["{staging}/*"], actions = ["read"] }},
    {{ repositories = ["{blue}/apps/*", "{green}/apps/*"], actions = ["read", "publish", "move_floating", "cancel", "rollback"] }},
]
"#,
        address = file("address"),
        secret_id = file("secret-id"),
        ca = file("certs/ca.crt"),
    )?;
    Ok(text)
}
