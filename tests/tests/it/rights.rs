//! What callers may do: each missing right is named, and nothing else is told to those who may
//! not know.

use colophon_domain::{Clock as _, SystemClock};
use colophon_testkit::image::ImageSpec;
use colophon_tests::{Answer, Client, SiteOptions, World, request};
use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use time::{Duration, format_description::well_known::Rfc3339};

use crate::release_scene::{assert_refused, succeeded, text};

/// A refusal that names the action which is missing, and who lacks it.
fn lacks(answer: &Answer, action: &str, field: &str, caller: &str, repository: &str) {
    assert_refused(answer, 403, "PERMISSION_DENIED", field);
    let detail = answer.text("/detail");
    for word in [action, caller, repository] {
        assert!(detail.contains(word), "{word}: {detail}");
    }
    assert!(answer.text("/remedy").contains(action), "{:#}", answer.body);
}

async fn releases(client: &Client) -> Vec<String> {
    let page = client.get("/v1/releases", &[]).await.unwrap();
    let releases = page["releases"].as_array().unwrap();
    releases.iter().map(|release| text(release, "/id").to_owned()).collect()
}

#[tokio::test]
async fn every_missing_right_is_named_and_what_may_not_be_seen_does_not_exist() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::default()).await.unwrap();
    let grant = |host: &str, pattern: &str, actions: &str| {
        format!("{{ repositories = [\"{host}/{pattern}\"], actions = [{actions}] }}")
    };
    let (from, to) = (staging.host(), target.host());
    let reads = grant(&from, "app", "\"read\"");
    let a = grant(&to, "team-a/*", "\"read\", \"publish\"");
    let stranger = world.caller("stranger", &format!("[{a}]")).unwrap();
    let onlooker = world.caller("onlooker", &format!("[{reads}]")).unwrap();
    let member = world.caller("member", &format!("[{reads}, {a}]")).unwrap();
    let both = grant(&to, "*", "\"read\"");
    let auditor = world.caller("auditor", &format!("[{both}]")).unwrap();
    let api = world.serve().await.unwrap();
    let worker = world.work().await.unwrap();
    let ci = world.client(&api).unwrap();
    let [stranger, onlooker, member, auditor] =
        [stranger, onlooker, member, auditor].map(|token| world.client_of(&api, &token).unwrap());
    staging.push(&ImageSpec::tiny("rights"), "app", "1").await.unwrap();
    let source = staging.reference("app", "1");
    let (ours, theirs) = (target.repository("team-a/app"), target.repository("team-b/app"));

    let fixed = request(&source, &[(&ours, &["1"], &[])]);
    let answer = stranger.create(&fixed).await.unwrap();
    lacks(&answer, "read", "source", "stranger", &staging.repository("app"));
    let answer = onlooker.create(&fixed).await.unwrap();
    lacks(&answer, "publish", "targets[0].repository", "onlooker", &ours);
    let second = request(&source, &[(&ours, &["1"], &[]), (&theirs, &["1"], &[])]);
    let answer = member.create(&second).await.unwrap();
    lacks(&answer, "publish", "targets[1].repository", "member", &theirs);
    let floating = request(&source, &[(&ours, &["1"], &["latest"])]);
    let answer = member.create(&floating).await.unwrap();
    lacks(&answer, "move_floating", "targets[0].floating_tags", "member", &ours);
    // Rights are asked for before anything else: whether the source is there is not told.
    let missing = request(&staging.reference("app", "none"), &[(&theirs, &["1"], &[])]);
    let answer = member.create(&missing).await.unwrap();
    lacks(&answer, "publish", "targets[0].repository", "member", &theirs);
    let stored = "SELECT count(*) FROM release";
    let count: i64 = sqlx::query_scalar(stored).fetch_one(world.database().pool()).await.unwrap();
    assert_eq!(count, 0, "a refused request left something behind");

    // A release is shown to its caller and to those who may read all of its targets.
    let own = member.publish(&source, &[(&ours, &["1"], &[])]).await.unwrap();
    member.wait_end(&own).await.unwrap();
    let targets = [(ours.as_str(), &["2"][..], &["latest"][..]), (&theirs, &["2"], &[])];
    let wide = text(&succeeded(&ci, &source, &targets).await, "/id").to_owned();
    assert_eq!(releases(&ci).await, [wide.clone(), own.clone()]);
    assert_eq!(releases(&auditor).await, [wide.clone(), own.clone()]);
    assert_eq!(releases(&member).await, [own.as_str()]);
    assert_eq!(releases(&onlooker).await, [""; 0]);
    let get = async |client: &Client, id: &str| {
        client.call(Method::GET, &format!("/v1/releases/{id}"), &[], None).await.unwrap()
    };
    let unknown = "019a4d1c-0000-7000-8000-000000000001";
    let without_ids = |answer: &Answer, id: &str| -> Value {
        let body = answer.body.to_string().replace(id, "ID");
        let mut body: Value = serde_json::from_str(&body).unwrap();
        body["instance"] = Value::Null;
        body
    };
    for client in [&member, &onlooker] {
        let (hidden, none) = (get(client, &wide).await, get(client, unknown).await);
        assert_refused(&hidden, 404, "NOT_FOUND", "id");
        assert_eq!(without_ids(&hidden, &wide), without_ids(&none, unknown));
        let hidden = client.cancel(&wide).await.unwrap();
        assert_refused(&hidden, 404, "NOT_FOUND", "id");
    }
    assert_eq!(get(&auditor, &wide).await.status, 200);

    // Who sees a release may still not be the one to cancel it.
    drop(worker);
    let open = ci.publish(&source, &[(&ours, &["3"], &[])]).await.unwrap();
    lacks(&auditor.cancel(&open).await.unwrap(), "cancel", "id", "auditor", &ours);
    assert_eq!(ci.cancel(&open).await.unwrap().status, 200);

    // The ledger is read by repository.
    let moves = async |client: &Client| {
        let page = client.get("/v1/tag-moves", &[]).await.unwrap();
        let moves = page["moves"].as_array().unwrap();
        let mut seen: Vec<String> =
            moves.iter().map(|entry| text(entry, "/reference").to_owned()).collect();
        seen.sort();
        seen
    };
    let all = [("team-a/app", "1"), ("team-a/app", "2"), ("team-a/app", "latest")];
    let all = all.map(|(name, tag)| target.reference(name, tag));
    assert_eq!(moves(&member).await, all);
    assert_eq!(moves(&onlooker).await, [""; 0]);
    assert_eq!(moves(&auditor).await.len(), 4);
    let query = [("reference", target.reference("team-b/app", "2"))];
    let query = query.each_ref().map(|(name, value)| (*name, value.as_str()));
    let answer = member.call(Method::GET, "/v1/tag", &query, None).await.unwrap();
    lacks(&answer, "read", "reference", "member", &theirs);
    let answer = member.call(Method::GET, "/v1/tag-moves", &query, None).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body["moves"]), (200, &json!([])));
}

#[tokio::test]
async fn only_known_tokens_are_let_in_and_only_until_they_expire() {
    let mut world = World::new().await.unwrap();
    let (token, hash) = colophon_server::new_token().unwrap();
    let end = (SystemClock.now() + Duration::seconds(3)).format(&Rfc3339).unwrap();
    world.registry_table(&format!(
        "[[caller]]\nname = \"guest\"\ntoken_sha256 = {hash:?}\nexpires_at = {end:?}\n\
         grants = [{{ repositories = [\"*\"], actions = [\"read\"] }}]\n"
    ));
    let api = world.serve().await.unwrap();
    let guest = world.client_of(&api, &token).unwrap();
    assert_eq!(releases(&guest).await, [""; 0]);
    let refused =
        async |client: &Client| client.call(Method::GET, "/v1/releases", &[], None).await.unwrap();
    let until = "the token has expired";
    let expired = async || Some(refused(&guest).await).filter(|answer| answer.status == 401);
    let late =
        colophon_testkit::wait::wait_until(until, colophon_tests::PATIENCE, expired).await.unwrap();
    assert_refused(&late, 401, "UNAUTHENTICATED", "");
    let stranger = world.client_of(&api, &"clp_somebody_else".into()).unwrap();
    let unknown = refused(&stranger).await;
    // Whether it was ever known is not told.
    assert_eq!(unknown.text("/detail"), late.text("/detail"));
    assert!(!unknown.body.to_string().contains("clp_somebody"));

    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/v1/releases", guest.url());
    let good = world.token().expose_secret();
    for (header, status) in [
        (None, 401),
        (Some("Bearer".to_owned()), 401),
        (Some(good.to_owned()), 401),
        (Some(format!("Basic {good}")), 401),
        (Some(format!("bearer {good}")), 200),
    ] {
        let mut request = http.get(&url);
        if let Some(header) = &header {
            request = request.header("Authorization", header);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status);
        let challenge = answer.headers().get("WWW-Authenticate");
        assert_eq!(challenge.is_some(), status == 401);
        assert!(!answer.text().await.unwrap().contains(good));
    }
}
