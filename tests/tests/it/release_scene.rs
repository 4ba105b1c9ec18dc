//! What the tests of releases share: reading an answer of the API at a glance.

use std::collections::BTreeMap;

use colophon_domain::{Entropy as _, SystemEntropy};
use colophon_testkit::launcher::Login;
use colophon_tests::{Answer, Client, Site, Target};
use secrecy::ExposeSecret as _;
use serde_json::Value;

/// A username with a PAT that nobody else has.
pub(crate) fn login(username: &str) -> Login {
    Login::new(username, format!("dckr_pat_{}", SystemEntropy.uuid().simple()))
}

/// The PAT of a login.
pub(crate) fn pat(login: &Login) -> &str {
    login.password.expose_secret()
}

/// A text of a message by JSON pointer; empty where there is none.
pub(crate) fn text<'a>(message: &'a Value, pointer: &str) -> &'a str {
    message.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The state of a release and its reason, in short: `FAILED TAG_IMMUTABLE`.
pub(crate) fn state(release: &Value) -> String {
    short(release, "/state", "RELEASE_STATE_", "/stateReason")
}

/// The state of every tag of a release: `repository:tag` without the host, and
/// `NOT_ATTEMPTED CANCELLED`, for example.
pub(crate) fn tags(release: &Value) -> BTreeMap<String, String> {
    let publications = release["publications"].as_array().unwrap();
    let tags = publications.iter().flat_map(|publication| {
        let repository = text(publication, "/repository").split_once('/').unwrap().1;
        publication["tags"].as_array().unwrap().iter().map(move |tag| {
            let name = format!("{repository}:{}", text(tag, "/tag"));
            (name, short(tag, "/state", "TAG_MOVE_STATE_", "/reason"))
        })
    });
    tags.collect()
}

/// The same as [`tags`] where the repositories of several hosts have equal names: with hosts.
pub(crate) fn tags_with_hosts(release: &Value) -> BTreeMap<String, String> {
    let publications = release["publications"].as_array().unwrap();
    let tags = publications.iter().flat_map(|publication| {
        publication["tags"].as_array().unwrap().iter().map(move |tag| {
            let name = format!("{}:{}", text(publication, "/repository"), text(tag, "/tag"));
            (name, short(tag, "/state", "TAG_MOVE_STATE_", "/reason"))
        })
    });
    tags.collect()
}

/// What tags should be, to compare [`tags`] with.
pub(crate) fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(tag, state)| ((*tag).to_owned(), (*state).to_owned())).collect()
}

fn short(message: &Value, state: &str, prefix: &str, reason: &str) -> String {
    let state = text(message, state);
    let state = state.strip_prefix(prefix).unwrap_or(state);
    format!("{state} {}", text(message, reason)).trim_end().to_owned()
}

/// The reasons of the attempts that did not work, oldest first.
pub(crate) fn attempts(release: &Value) -> Vec<&str> {
    let attempts = release["attempts"].as_array().unwrap();
    attempts.iter().map(|attempt| text(attempt, "/reason")).collect()
}

/// The kinds of a tag's entries, oldest first, intents included.
pub(crate) async fn kinds(client: &Client, reference: &str) -> Vec<String> {
    let mut moves = client.moves(reference).await.unwrap();
    moves.reverse();
    moves.iter().map(|entry| text(entry, "/kind").to_owned()).collect()
}

/// Publishes, waits for the end, and returns the release.
pub(crate) async fn published(client: &Client, source: &str, targets: &[Target<'_>]) -> Value {
    let id = client.publish(source, targets).await.unwrap();
    client.wait_end(&id).await.unwrap()
}

/// The same, for a release that must succeed.
pub(crate) async fn succeeded(client: &Client, source: &str, targets: &[Target<'_>]) -> Value {
    let release = published(client, source, targets).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    release
}

/// A refusal with its status, reason and field, and with a remedy unless the message suffices.
pub(crate) fn assert_refused(answer: &Answer, status: u16, reason: &str, field: &str) {
    let found = (answer.status.as_u16(), answer.text("/reason"), answer.text("/field"));
    assert_eq!(found, (status, reason, field), "{:#}", answer.body);
    assert!(!answer.text("/detail").is_empty(), "{:#}", answer.body);
    assert_eq!(answer.body["status"], status, "{:#}", answer.body);
}

/// Manifest PUTs and begun uploads that reached the registry behind a site's proxy.
pub(crate) fn writes(site: &Site) -> Vec<String> {
    let log = site.proxy().log();
    let writes = log.iter().filter(|exchange| {
        exchange.forwarded.is_some() && exchange.method != "GET" && exchange.method != "HEAD"
    });
    writes.map(|exchange| format!("{} {}", exchange.method, exchange.path)).collect()
}

/// Manifest PUTs under tags that reached the registry behind a site's proxy, as
/// `repository:tag`, in order.
pub(crate) fn tag_puts(site: &Site) -> Vec<String> {
    let puts = site.proxy().manifest_puts();
    let tags = puts.iter().filter(|put| !put.reference().contains(':')).map(|put| {
        let path = put.path.strip_prefix("/v2/").unwrap();
        path.replacen("/manifests/", ":", 1)
    });
    tags.collect()
}
