//! The configuration of `colophond dev`, as an operator would write it.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::parts::{SECRET, VaultLogin};

/// Registries that everybody may read from.
const PUBLIC: [&str; 3] = ["docker.io", "ghcr.io", "quay.io"];

/// What is known only once the parts run.
pub(super) struct Settings<'a> {
    pub(super) folder: &'a Path,
    pub(super) listen: SocketAddr,
    pub(super) database: &'a str,
    pub(super) vault: Option<&'a VaultLogin>,
    pub(super) token_sha256: &'a str,
    pub(super) registries: [Option<String>; 2],
    pub(super) others: &'a [String],
}

/// The TOML file.
pub(super) fn text(settings: &Settings<'_>) -> Result<String> {
    let Settings { folder, listen, database, vault, token_sha256, registries, others } = settings;
    let [staging, production] = registries;
    let local = |host: &String| json!({ "host": host, "plain_http": true });
    let mut tables: Vec<Value> = Vec::new();
    tables.extend(staging.as_ref().map(local));
    tables.extend(production.as_ref().map(|host| {
        let mut table = local(host);
        if let (Some(_), Value::Object(fields)) = (vault, &mut table) {
            fields.insert("credentials".to_owned(), json!([{ "push": SECRET }]));
        }
        table
    }));
    let public = PUBLIC.iter().copied().filter(|host| !others.iter().any(|other| other == host));
    tables.extend(
        public.chain(others.iter().map(String::as_str)).map(|host| json!({ "host": host })),
    );
    let mut config = json!({
        "server": { "listen": listen, "address_file": folder.join("address") },
        "database": { "url": database },
        "registry": tables,
        "caller": [{
            "name": "developer",
            "token_sha256": token_sha256,
            "grants": [{ "repositories": ["*"], "actions": [
                "read", "publish", "move_floating", "cancel", "rollback", "freeze", "break_glass",
                "settle",
            ] }],
        }],
        // The screen is for what one has to know; RUST_LOG=info says more.
        "log": { "filter": "warn" },
    });
    if let (Some(vault), Value::Object(sections)) = (vault, &mut config) {
        let auth = json!({
            "method": "approle", "role_id": vault.role_id,
            "secret_id_file": folder.join("secret-id"),
        });
        sections.insert("vault".to_owned(), json!({ "address": vault.address, "auth": auth }));
    }
    let body = toml::to_string(&config).context("the configuration cannot be written")?;
    Ok(format!("# Made anew by every `colophond dev`; changes are lost.\n\n{body}"))
}
