//! What the tests of safe moves share: releases with conditions, rollbacks, freezes, and hands that
//! move tags behind Colophon's back.

use colophon_domain::{Clock as _, SystemClock};
use colophon_testkit::{
    image::{Image, ImageSpec},
    proxy::{Action, Fault, Rule},
    wait::wait_until,
};
use colophon_tests::{Answer, Client, PATIENCE, Site, SiteOptions, Target, World, request};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use crate::{kill::Crew, release_scene::text};

/// A crew, and a second registry behind a proxy that releases may go to.
pub(crate) async fn two_targets(times: &str, workers: usize) -> (Crew, Site) {
    let mut world = World::new().await.unwrap();
    let second = world.site(SiteOptions::proxied()).await.unwrap();
    (Crew::on(world, times, workers).await, second)
}

/// A request with further fields.
pub(crate) fn with(source: &str, targets: &[Target<'_>], more: &Value) -> Value {
    let mut request = request(source, targets);
    merge(&mut request, more);
    request
}

/// The same fields, and those of `more` in their place or beside them.
pub(crate) fn merge(message: &mut Value, more: &Value) {
    for (key, value) in more.as_object().unwrap() {
        message[key] = value.clone();
    }
}

/// Asks for a release that must be accepted; returns its id.
pub(crate) async fn accepted(client: &Client, request: &Value) -> String {
    let release = client.create(request).await.unwrap().good().unwrap();
    text(&release, "/id").to_owned()
}

/// The same, and waits for its end.
pub(crate) async fn ended(client: &Client, request: &Value) -> Value {
    let id = accepted(client, request).await;
    client.wait_end(&id).await.unwrap()
}

/// Asks for a plan; the answer may be a refusal.
pub(crate) async fn plan(client: &Client, request: &Value) -> Answer {
    client.call(Method::POST, "/v1/plans", &[], Some(request)).await.unwrap()
}

/// Asks for a rollback; the answer may be a refusal.
pub(crate) async fn rollback(client: &Client, body: &Value) -> Answer {
    client.call(Method::POST, "/v1/rollbacks", &[], Some(body)).await.unwrap()
}

/// Rolls one tag back, waits for the end, and returns the release.
pub(crate) async fn rolled_back(client: &Client, reference: &str, position: &Value) -> Value {
    let mut body = json!({ "reference": reference, "reason": "a test" });
    merge(&mut body, position);
    let release = rollback(client, &body).await.good().unwrap();
    client.wait_end(text(&release, "/id")).await.unwrap()
}

/// Asks for a freeze; the answer may be a refusal.
pub(crate) async fn freeze(client: &Client, pattern: &str, end: time::Duration) -> Answer {
    let body = json!({ "pattern": pattern, "reason": "holidays", "endTime": from_now(end) });
    client.call(Method::POST, "/v1/freezes", &[], Some(&body)).await.unwrap()
}

/// Freezes for an hour; returns the freeze's id.
pub(crate) async fn frozen(client: &Client, pattern: &str) -> String {
    let freeze = freeze(client, pattern, time::Duration::HOUR).await.good().unwrap();
    text(&freeze, "/id").to_owned()
}

/// Lifts a freeze.
pub(crate) async fn lift(client: &Client, id: &str) -> Value {
    let body = json!({ "reason": "back at work" });
    let path = format!("/v1/freezes/{id}/lift");
    let answer = client.call(Method::POST, &path, &[], Some(&body)).await.unwrap();
    answer.good().unwrap()
}

/// Waits until a release waits for this reason.
pub(crate) async fn waits(client: &Client, id: &str, reason: &str) -> Value {
    let waits = |release: &Value| text(release, "/waitingReason") == reason;
    client.wait_release(id, PATIENCE, waits).await.unwrap()
}

/// A time so far from now, as a request has it.
pub(crate) fn from_now(offset: time::Duration) -> String {
    (SystemClock.now() + offset).format(&Rfc3339).unwrap()
}

/// The digest of a reference by digest.
pub(crate) fn digest(reference: &str) -> &str {
    reference.split_once('@').unwrap().1
}

/// The message of one tag of a release.
pub(crate) fn message<'a>(release: &'a Value, tag: &str) -> &'a str {
    let publications = release["publications"].as_array().unwrap().iter();
    let mut tags = publications.flat_map(|it| it["tags"].as_array().unwrap());
    text(tags.find(|it| text(it, "/tag") == tag).expect("a tag of the release"), "/message")
}

/// What the ledger says of a tag, oldest first, without intents: kind and purpose.
pub(crate) async fn deeds(client: &Client, reference: &str) -> Vec<String> {
    let mut moves = client.moves(reference).await.unwrap();
    moves.reverse();
    moves.retain(|entry| text(entry, "/kind") != "intent");
    let deed = |entry: &Value| format!("{} {}", text(entry, "/kind"), text(entry, "/purpose"));
    moves.iter().map(deed).collect()
}

/// Somebody else moves a tag, with `skopeo` and behind the proxy.
pub(crate) async fn foreign(site: &Site, repository: &str, tag: &str) -> Image {
    let image = ImageSpec::tiny(format!("foreign {repository}:{tag}"));
    site.push(&image, repository, tag).await.unwrap()
}

/// A rule for requests about exactly this tag.
pub(crate) fn about(action: Action, method: Method, repository: &str, tag: &str) -> Rule {
    let path = format!("/v2/{repository}/manifests/{tag}");
    Rule::new(action).method(method).when(move |exchange| exchange.path == path)
}

/// A registry that refuses the tag, after the test has let it be looked at: until then the other
/// targets of a release move theirs.
pub(crate) fn refuses_when_let(site: &Site, repository: &str, tag: &str) -> Fault {
    let look = about(Action::HoldBefore, Method::HEAD, repository, tag);
    let look = site.proxy().add(look);
    site.proxy().add(about(denied(), Method::PUT, repository, tag).always());
    look
}

/// Waits until a registry serves the tag at the digest of a source.
pub(crate) async fn served(site: &Site, repository: &str, tag: &str, source: &str) {
    let peer = site.peer().unwrap();
    let there = async || {
        let found = peer.digest_of(repository, tag).await.ok()?;
        (found.as_deref() == Some(digest(source))).then_some(())
    };
    wait_until("the tag is there", PATIENCE, there).await.unwrap();
}

/// A registry that says no.
pub(crate) fn denied() -> Action {
    let body = r#"{"errors":[{"code":"DENIED","message":"not today"}]}"#;
    let json = ("Content-Type".to_owned(), "application/json".to_owned());
    Action::Status(StatusCode::FORBIDDEN, vec![json], body.to_owned())
}
