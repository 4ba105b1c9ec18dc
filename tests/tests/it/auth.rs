//! The main job as users have it: an image goes from staging to guarded registries with PATs
//! from Vault, is tagged twice, tagged anew, and what the ledger says of it is true.

use colophon_testkit::{
    image::ImageSpec,
    peer::assert_same,
    token_service::{Allowed, TokenRequest},
};
use colophon_tests::{Client, SiteOptions, Trust, World};
use http::Method;
use serde_json::{Value, json};

use crate::release_scene::{
    assert_refused, kinds, login, published, state, succeeded, tags, tags_with_hosts, text,
};

/// The credentials of `team-a`, with another PAT for reading than for writing.
const TEAM_A: &str = r#"
    [[registry.credentials]]
    repositories = "team-a/*"
    pull = "registries/reader"
    push = "registries/writer"
"#;

#[tokio::test]
async fn an_image_is_published_to_two_guarded_registries_and_tagged_anew_in_one() {
    let mut world = World::new().await.unwrap();
    let vault = world.vault("").await.unwrap();
    let (writer, reader) = (login("writer"), login("reader"));
    vault.put_login("writer", &writer).await.unwrap();
    vault.put_login("reader", &reader).await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let basic = SiteOptions::default().login(&writer).login(&reader).settings(TEAM_A);
    let basic = world.site(basic).await.unwrap();
    let bearer = SiteOptions::default()
        .trust(Trust::PrivateCa)
        .token_login(&writer, vec![Allowed::new("team-a/*", "pull,push")])
        .token_login(&reader, vec![Allowed::new("team-a/*", "pull")])
        .settings(TEAM_A);
    let bearer = world.site(bearer).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();

    let image = staging.push(&ImageSpec::new("whole"), "app", "sha-1").await.unwrap();
    let (first, second) = (basic.repository("team-a/app"), bearer.repository("team-a/app"));
    let targets =
        [(first.as_str(), &["1.4.2"][..], &["1.4", "latest"][..]), (&second, &["1.4.2"], &["1"])];
    let release = succeeded(&client, &staging.reference("app", "sha-1"), &targets).await;
    assert_eq!(text(&release, "/digest"), image.digest());
    let source = staging.peer().unwrap();
    for (site, names) in [(&basic, ["1.4.2", "1.4", "latest"]), (&bearer, ["1.4.2", "1", "1"])] {
        let peer = site.peer().unwrap();
        for tag in names {
            let both = assert_same((&source, "app", "sha-1"), (&peer, "team-a/app", tag)).await;
            assert_eq!(both.unwrap().root, image.digest());
            assert_eq!(site.inspect("team-a/app", tag).await.unwrap(), image.digest());
        }
    }

    // A tag within one registry needs no copy, and reading goes by the reader's PAT.
    let moved = &[(second.as_str(), &["1.4.2-ga"][..], &["stable"][..])];
    let retag = succeeded(&client, &bearer.reference("team-a/app", "1.4.2"), moved).await;
    assert_eq!(retag["publications"][0]["bytesCopied"], "0", "{retag:#}");
    let onward = basic.repository("team-a/mirror");
    let source = bearer.reference("team-a/app", "stable");
    succeeded(&client, &source, &[(onward.as_str(), &["1"], &[])]).await;
    assert_eq!(basic.inspect("team-a/mirror", "1").await.unwrap(), image.digest());
    let asked = bearer.tokens().unwrap().requests();
    let scope = |name: &str, scope: &str| {
        let granted = |request: &TokenRequest| {
            request.username.as_deref() == Some(name) && request.granted == [scope]
        };
        asked.iter().any(granted)
    };
    assert!(scope("writer", "repository:team-a/app:pull,push"), "{asked:#?}");
    assert!(scope("reader", "repository:team-a/app:pull"), "{asked:#?}");
    // What was asked for is never more than what was needed.
    assert!(asked.iter().all(|request| request.scopes.len() == 1), "{asked:#?}");

    // Another team's repository has no credential, and that is what the failure says.
    let foreign = basic.repository("team-b/app");
    let source = staging.reference("app", "sha-1");
    let refused = published(&client, &source, &[(foreign.as_str(), &["1"], &[])]).await;
    assert_eq!(state(&refused), "FAILED REGISTRY_UNAUTHORIZED", "{refused:#}");
    assert!(text(&refused, "/message").contains(&foreign), "{refused:#}");

    ledger_tells(&client, &format!("{second}:1"), image.digest(), text(&release, "/id")).await;
}

/// The history of a floating tag that was moved once, and what it was at every time.
async fn ledger_tells(client: &Client, reference: &str, digest: &str, release: &str) {
    assert_eq!(kinds(client, reference).await, ["intent", "confirmed"]);
    let moves = client.moves(reference).await.unwrap();
    let (confirmed, intent) = (&moves[0], &moves[1]);
    assert_eq!(text(confirmed, "/newDigest"), digest);
    assert_eq!(text(confirmed, "/oldDigest"), "");
    assert_eq!(text(confirmed, "/release"), release);
    assert_eq!(text(confirmed, "/actor"), "ci");
    assert_eq!(text(confirmed, "/intent"), text(intent, "/id"));
    assert!(text(confirmed, "/source").ends_with(&format!("/app@{digest}")), "{confirmed:#}");

    let at = async |time: &str| -> (String, String) {
        let query = [("reference", reference), ("at", time)];
        let tag = client.get("/v1/tag", &query).await.unwrap();
        (text(&tag, "/certainty").to_owned(), text(&tag, "/digest").to_owned())
    };
    let nowhere = |certainty: &str| (certainty.to_owned(), String::new());
    let here = |certainty: &str| (certainty.to_owned(), digest.to_owned());
    assert_eq!(at("2020-01-01T00:00:00Z").await, nowhere("CERTAINTY_UNKNOWN"));
    assert_eq!(at(text(intent, "/at")).await, nowhere("CERTAINTY_UNCERTAIN"));
    // The look came before the entry, and nobody has looked since.
    assert_eq!(at(text(confirmed, "/at")).await, here("CERTAINTY_LAST_OBSERVED"));
    let now = client.tag(reference).await.unwrap();
    assert_eq!(text(&now, "/certainty"), "CERTAINTY_LAST_OBSERVED", "{now:#}");
    assert_eq!(text(&now, "/digest"), digest);
    assert_eq!(text(&now, "/entry/id"), text(confirmed, "/id"));
    let query = [("reference", reference), ("at", "2999-01-01T00:00:00Z")];
    let future = client.call(Method::GET, "/v1/tag", &query, None).await.unwrap();
    assert_refused(&future, 400, "INVALID_ARGUMENT", "at");
}

#[tokio::test]
async fn two_teams_of_one_host_are_served_each_with_its_own_pat() {
    let mut world = World::new().await.unwrap();
    let vault = world.vault("").await.unwrap();
    let (from, to) = (login("from"), login("to"));
    vault.put_login("from", &from).await.unwrap();
    vault.put_login("to", &to).await.unwrap();
    let credentials = "[[registry.credentials]]\nrepositories = \"from/*\"\npull = \
                       \"registries/from\"\n[[registry.credentials]]\nrepositories = \"to/*\"\n\
                       push = \"registries/to\"";
    let options = SiteOptions::default()
        .token_login(&from, vec![Allowed::new("from/*", "pull,push")])
        .token_login(&to, vec![Allowed::new("to/*", "pull,push")])
        .settings(credentials);
    let site = world.site(options).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();

    let image = site.push(&ImageSpec::new("teams"), "from/app", "1").await.unwrap();
    let target = site.repository("to/app");
    let source = site.reference("from/app", "1");
    let release = succeeded(&client, &source, &[(&target, &["1"], &["latest"])]).await;
    // The target's PAT may not read the source, so nothing can be mounted.
    assert_eq!(release["publications"][0]["blobsMounted"], "0", "{release:#}");
    let peer = site.peer().unwrap().login(to);
    let walk = peer.walk("to/app", "latest").await.unwrap();
    assert_eq!(walk.root, image.digest());

    // A credential that is for reading only is never used for writing.
    let back = site.repository("from/copy");
    let source = site.reference("from/app", "1");
    let refused = published(&client, &source, &[(&back, &["1"], &[])]).await;
    let message = text(&refused, "/message");
    assert!(message.contains("pulling only") && message.contains(&back), "{refused:#}");
}

#[tokio::test]
async fn blobs_are_mounted_where_one_pat_reads_and_writes() {
    let mut world = World::new().await.unwrap();
    let vault = world.vault("").await.unwrap();
    let team = login("team");
    vault.put_login("team", &team).await.unwrap();
    let options = SiteOptions::default()
        .token_login(&team, vec![Allowed::new("*", "pull,push")])
        .settings("[[registry.credentials]]\npush = \"registries/team\"");
    let site = world.site(options).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    let image = site.push(&ImageSpec::new("mounts"), "a/app", "1").await.unwrap();
    let target = site.repository("b/app");
    let release =
        succeeded(&client, &site.reference("a/app", "1"), &[(&target, &["1"], &[])]).await;
    let counts = |name: &str| text(&release["publications"][0], name).to_owned();
    assert_eq!((counts("/blobsCopied"), counts("/bytesCopied")), ("0".into(), "0".into()));
    assert_ne!(counts("/blobsMounted"), "0", "{release:#}");
    assert_eq!(site.peer().unwrap().walk("b/app", "1").await.unwrap().root, image.digest());
}

#[tokio::test]
async fn certificates_are_trusted_as_configured_and_not_otherwise() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let pinned = world.site(SiteOptions::default().trust(Trust::SelfSigned)).await.unwrap();
    let image = staging.push(&ImageSpec::tiny("pinned"), "app", "1").await.unwrap();

    // Another world sees the same registry with other settings.
    let host = pinned.host();
    let table = |trust: &str| format!("[[registry]]\nhost = {host:?}\n{trust}\n");
    let staging_table = format!("[[registry]]\nhost = {:?}\nplain_http = true\n", staging.host());
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    let (source, target) = (staging.reference("app", "1"), pinned.repository("app"));
    succeeded(&client, &source, &[(&target, &["1"], &[])]).await;
    assert_eq!(pinned.inspect("app", "1").await.unwrap(), image.digest());

    for (trust, reason) in [
        (format!("cert_sha256 = \"{}\"", "0".repeat(64)), "TLS_UNTRUSTED"),
        (String::new(), "TLS_UNTRUSTED"),
        ("plain_http = true".to_owned(), "REGISTRY_PROTOCOL"),
    ] {
        let mut other = World::new().await.unwrap();
        other.registry_table(&staging_table);
        other.registry_table(&table(&trust));
        let node = other.run().await.unwrap();
        let client = other.client(&node).unwrap();
        let refused = published(&client, &source, &[(&target, &["2"], &[])]).await;
        assert_eq!(state(&refused), format!("FAILED {reason}"), "{trust}: {refused:#}");
        assert_eq!(tags(&refused)["app:2"], "NOT_ATTEMPTED NOT_ATTEMPTED", "{trust}");
        assert!(text(&refused, "/message").contains(&host), "{trust}: {refused:#}");
    }
    assert!(pinned.inspect("app", "2").await.is_err());
}

#[tokio::test]
async fn plain_http_is_spoken_only_where_the_configuration_says_so() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let image = staging.push(&ImageSpec::tiny("plain"), "app", "1").await.unwrap();
    let mut other = World::new().await.unwrap();
    other.registry_table(&format!("[[registry]]\nhost = {:?}\n", staging.host()));
    let node = other.run().await.unwrap();
    let client = other.client(&node).unwrap();
    let target = staging.repository("app");
    let request = |source: &str| -> Value {
        json!({ "source": source, "targets": [{ "repository": target, "uniqueTags": ["2"] }] })
    };
    let answer = client.create(&request(&staging.reference("app", "1"))).await.unwrap();
    assert_refused(&answer, 409, "PLAIN_HTTP_REFUSED", "source");
    assert!(answer.text("/remedy").contains("plain_http"), "{:#}", answer.body);

    // A digest is accepted without a word to the registry; the release then fails the same way.
    let by_digest = format!("{target}@{}", image.digest());
    let refused = published(&client, &by_digest, &[(&target, &["2"], &[])]).await;
    assert_eq!(state(&refused), "FAILED PLAIN_HTTP_REFUSED", "{refused:#}");
    let tag = format!("{target}:2");
    assert_eq!(tags_with_hosts(&refused)[&tag], "FAILED PLAIN_HTTP_REFUSED", "{refused:#}");
}
