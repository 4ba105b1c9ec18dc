//! What one sees once everything runs: where the parts are, and what to type next.

use std::{fmt::Write as _, io::Write as _, path::Path, time::Duration};

use colophon_launcher::{Bao, Postgres};

use super::{folder::Folder, parts::Beside};

/// What is shown.
pub(super) struct Shown<'a> {
    pub(super) server: &'a str,
    pub(super) folder: &'a Folder,
    pub(super) beside: &'a Beside,
    pub(super) took: Duration,
}

/// Shows it. A reader who has gone away is no reason to stop.
pub(super) fn show(shown: &Shown<'_>) {
    let _closed = std::io::stdout().lock().write_all(text(shown).as_bytes());
}

fn text(shown: &Shown<'_>) -> String {
    let Shown { server, folder, beside, took } = shown;
    let mut text = String::new();
    let mut line = |name: &str, what: &str| {
        // Writing to a text cannot fail.
        let _never = writeln!(text, "  {name:<12} {what}");
    };
    line("API", &format!("{server}  (gRPC, REST, and a worker)"));
    let [staging, production] = beside.hosts();
    if let Some(host) = &staging {
        line("staging", &format!("{host}  open to all: push builds here"));
    }
    if let Some(host) = &production {
        let who = if beside.vault().is_some() { "its PAT is in Vault" } else { "open to all" };
        line("production", &format!("{host}  {who}"));
    }
    line("PostgreSQL", &beside.postgres().map_or_else(|| "yours".to_owned(), psql));
    line("OpenBao", &beside.vault().map_or_else(|| "none".to_owned(), |bao| vault(bao, folder)));
    let kept = if folder.is_kept() { "kept" } else { "removed at the end" };
    line("folder", &format!("{}  ({kept})", folder.path().display()));
    let ready =
        format!("Colophon is ready after {:.1} s; Ctrl-C stops everything.", took.as_secs_f64());
    let mut text = format!("{ready}\n\n{text}\nIn another terminal:\n\n");
    let token = folder.token_file();
    let mut commands = vec![
        format!("export COLOPHON_SERVER={server}"),
        format!("export COLOPHON_TOKEN_FILE={}", quoted(&token)),
    ];
    if let (Some(staging), Some(production)) = (staging, production) {
        commands.push(format!("colophon history {production}/hello:latest"));
        commands.push(format!(
            "colophon publish {staging}/hello:build-2 --semver 1.1.0 --to {production}/hello"
        ));
    }
    for command in commands {
        let _never = writeln!(text, "  {command}");
    }
    text
}

fn psql(postgres: &Postgres) -> String {
    format!("psql -h {} -U postgres postgres", quoted(&postgres.socket_folder()))
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if path.bytes().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

fn vault(bao: &Bao, folder: &Folder) -> String {
    let token = folder.path().join("vault-root-token");
    format!("{}  (its root token is in {})", bao.address(), token.display())
}
