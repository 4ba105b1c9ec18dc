//! The fake itself: what it answers is what the tests of the client rest on.

use std::time::Duration;

use http::header;
use reqwest::{Client, Response as Answered};
use serde_json::{Value, json};

use super::*;
use crate::wait::wait_until;

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

fn client() -> Client {
    let client = Client::builder().tls_certs_only([]).no_proxy();
    client.redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

fn header<'a>(answer: &'a Answered, name: &str) -> &'a str {
    answer.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

/// The status, the `Range` and where to go on.
fn stands(fake: &Scripted, answer: &Answered) -> (u16, String, String) {
    let url: url::Url = fake.url().parse().unwrap();
    let next = url.join(header(answer, "location")).unwrap().to_string();
    (answer.status().as_u16(), header(answer, "range").to_owned(), next)
}

async fn begin(fake: &Scripted, query: &str) -> Answered {
    client().post(format!("{}/v2/a/b/blobs/uploads/{query}", fake.url())).send().await.unwrap()
}

async fn patch(at: &str, range: &str, bytes: &'static [u8]) -> Answered {
    client().patch(at).header(header::CONTENT_RANGE, range).body(bytes).send().await.unwrap()
}

fn put(at: &str, digest: &str) -> reqwest::RequestBuilder {
    client().put(at).query(&[("digest", digest)])
}

#[tokio::test]
async fn chunks_in_order_make_a_blob_and_others_are_told_where_it_stands() {
    let fake = Scripted::start(Personality::default()).await.unwrap();
    let begun = begin(&fake, "").await;
    let (code, _, at) = stands(&fake, &begun);
    assert_eq!(code, 202);
    let (code, range, at) = stands(&fake, &patch(&at, "0-3", b"0123").await);
    assert_eq!((code, range.as_str()), (202, "0-3"));
    for wrong in ["0-3", "5-8", "4-9", "odd"] {
        let (code, range, _) = stands(&fake, &patch(&at, wrong, b"4567").await);
        assert_eq!((code, range.as_str()), (416, "0-3"), "{wrong}");
    }
    let asked = client().get(&at).send().await.unwrap();
    let (code, range, at) = stands(&fake, &asked);
    assert_eq!((code, range.as_str()), (204, "0-3"));
    let (_, _, at) = stands(&fake, &patch(&at, "4-7", b"4567").await);
    let digest = sha256(b"0123456789");
    let done = put(&at, &digest).header("content-range", "8-9").body("89").send().await.unwrap();
    assert_eq!((done.status().as_u16(), header(&done, "docker-content-digest")), (201, &*digest));
    assert_eq!(fake.blob("a/b", &digest).unwrap(), "0123456789");
    assert_eq!((fake.bytes_received(&digest), fake.open_uploads()), (10, 0));
    assert_eq!(fake.bytes_received_in_all(), 10, "what was refused was not taken");
    assert_eq!(fake.by_method()["PATCH"], 6);
    assert!(fake.peak_connections() >= 1);
}

#[tokio::test]
async fn an_upload_ends_by_an_empty_put_a_wrong_digest_or_a_delete() {
    let fake = Scripted::start(Personality::default()).await.unwrap();
    let digest = sha256(b"0123");
    let (_, _, at) = stands(&fake, &begin(&fake, "").await);
    let (_, _, at) = stands(&fake, &patch(&at, "0-3", b"0123").await);
    assert_eq!(put(&at, &digest).send().await.unwrap().status(), 201);
    let (_, _, at) = stands(&fake, &begin(&fake, "").await);
    assert_eq!(put(&at, &digest).body("other").send().await.unwrap().status(), 400);
    assert_eq!(client().get(&at).send().await.unwrap().status(), 404);
    let (_, _, at) = stands(&fake, &begin(&fake, "").await);
    assert_eq!(client().delete(&at).send().await.unwrap().status(), 204);
    assert_eq!(client().delete(&at).send().await.unwrap().status(), 404);
    let whole = client().post(format!("{}/v2/a/b/blobs/uploads/", fake.url()));
    let whole = whole.query(&[("digest", sha256(b"w"))]).body("w").send().await.unwrap();
    assert_eq!((whole.status().as_u16(), fake.open_uploads()), (201, 0));
    let mount = format!("?mount={digest}&from=a/b");
    assert_eq!(begin(&fake, &mount).await.status(), 201);
    assert_eq!(begin(&fake, &format!("{mount}c")).await.status(), 202);
}

/// A walk through uploads: each answer's status, `Range` and code.
async fn walk(url: &str) -> Vec<(&'static str, u16, String, String)> {
    let (base, mut told) = (url::Url::parse(url).unwrap(), Vec::new());
    let mut note = async |step, answer: Answered| {
        let next = base.join(header(&answer, "location")).unwrap().to_string();
        let (code, range) = (answer.status().as_u16(), header(&answer, "range").to_owned());
        let body = answer.text().await.unwrap();
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        let error = body["errors"][0]["code"].as_str().unwrap_or_default().to_owned();
        told.push((step, code, range, error));
        next
    };
    let begin = || client().post(format!("{url}/v2/a/b/blobs/uploads/")).send();
    let first = note("begin", begin().await.unwrap()).await;
    assert!(first.starts_with(url) && first.contains("_state="), "{first}");
    let second = note("chunk", patch(&first, "7-9", b"0123").await).await;
    let second = note("status", client().get(&second).send().await.unwrap()).await;
    note("status with an old state", client().get(&first).send().await.unwrap()).await;
    note("with the newest", client().get(&second).send().await.unwrap()).await;
    let first = note("begin", begin().await.unwrap()).await;
    let second = note("chunk", patch(&first, "0-3", b"0123").await).await;
    note("chunk with an old state", patch(&first, "4-7", b"4567").await).await;
    note("with the newest", patch(&second, "4-7", b"4567").await).await;
    let first = note("begin", begin().await.unwrap()).await;
    let second = note("chunk", patch(&first, "0-3", b"0123").await).await;
    let rest = put(&second, &sha256(b"01234567")).body("4567").send().await.unwrap();
    note("the last chunk", rest).await;
    let first = note("begin", begin().await.unwrap()).await;
    let second = note("chunk", patch(&first, "0-3", b"0123").await).await;
    note("an empty put", put(&second, &sha256(b"0123")).send().await.unwrap()).await;
    let first = note("begin", begin().await.unwrap()).await;
    note("cancel", client().delete(&first).send().await.unwrap()).await;
    note("once more", client().delete(&first).send().await.unwrap()).await;
    let first = note("begin", begin().await.unwrap()).await;
    note("wrong", put(&first, &sha256(b"x")).body("y").send().await.unwrap()).await;
    told
}

#[tokio::test]
async fn uploads_are_those_of_a_real_distribution() {
    let real = colophon_launcher::Registry::start(colophon_launcher::RegistryOptions::default());
    let real = real.await.unwrap();
    let fake = Scripted::start(Personality::distribution_v2()).await.unwrap();
    let (of_the_real, of_the_fake) = (walk(&real.url()).await, walk(&fake.url()).await);
    for (wanted, found) in of_the_real.iter().zip(&of_the_fake) {
        assert_eq!(found, wanted);
    }
    assert_eq!(of_the_real.len(), of_the_fake.len());
    let refused = ("status with an old state", 404, String::new(), "BLOB_UPLOAD_INVALID".into());
    assert!(of_the_fake.contains(&refused), "{of_the_fake:?}");
    let harsh = Personality { old_query: OldQuery::Destroys, ..Personality::distribution_v2() };
    let harsh = walk(&Scripted::start(harsh).await.unwrap().url()).await;
    let lost = ("with the newest", 404, String::new(), "BLOB_UPLOAD_UNKNOWN".to_owned());
    assert_eq!(harsh.iter().filter(|step| **step == lost).count(), 2);
}

/// What is said about content that is there or not: each answer's status, some headers and code.
async fn look_around(url: &str) -> Vec<(&'static str, u16, Vec<String>, String)> {
    let mut told = Vec::new();
    let mut note = async |step, request: reqwest::RequestBuilder| {
        let answer = request.send().await.unwrap();
        let shown = ["content-range", "docker-content-digest", "content-type", "link"];
        let shown = shown.map(|name| header(&answer, name).replace(url, "")).to_vec();
        let code = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap_or_default();
        let error = body["errors"][0]["code"].as_str().unwrap_or_default().to_owned();
        told.push((step, code, shown, error));
    };
    let at = |path: &str| format!("{url}/v2/a/b/{path}");
    note("tags of nothing", client().get(at("tags/list"))).await;
    note("a manifest of nothing", client().get(at("manifests/v1"))).await;
    let missing = sha256(b"missing");
    note("a blob of nothing", client().get(at(&format!("blobs/{missing}")))).await;
    let manifest = |config: &str| {
        let config = json!({ "digest": sha256(config.as_bytes()), "size": config.len(),
            "mediaType": "application/vnd.oci.image.config.v1+json" });
        json!({ "schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [] })
            .to_string()
    };
    let put_as = |reference: &str, body: String| {
        client().put(at(&format!("manifests/{reference}"))).header("content-type", IMAGE).body(body)
    };
    note("a manifest too early", put_as("v1", manifest("{}"))).await;
    let begun = client().post(at("blobs/uploads/")).send().await.unwrap();
    let digest = sha256(b"{}");
    note("a blob", put(header(&begun, "location"), &digest).body("{}")).await;
    let blob = at(&format!("blobs/{digest}"));
    note("the blob's head", client().head(&blob)).await;
    for range in ["bytes=1-", "bytes=0-0", "bytes=7-"] {
        note("a range", client().get(&blob).header("range", range)).await;
    }
    for tag in ["v1", "v2", "v3"] {
        note("a manifest", put_as(tag, manifest("{}"))).await;
    }
    note("not json", put_as("v1", "{".to_owned())).await;
    note("another digest", put_as(&missing, manifest("{}"))).await;
    note("its head", client().head(at("manifests/v1")).header("accept", IMAGE)).await;
    note("another tag", client().get(at("manifests/v9")).header("accept", IMAGE)).await;
    note("tags", client().get(at("tags/list?n=2"))).await;
    note("more tags", client().get(at("tags/list?n=2&last=v2"))).await;
    for (step, from) in [("a mount", "a/b"), ("a mount from nowhere", "x/y")] {
        let mount = [("mount", digest.as_str()), ("from", from)];
        note(step, client().post(format!("{url}/v2/c/d/blobs/uploads/")).query(&mount)).await;
    }
    note("the mounted blob", client().head(format!("{url}/v2/c/d/blobs/{digest}"))).await;
    note("referrers", client().get(at(&format!("referrers/{digest}")))).await;
    told
}

#[tokio::test]
async fn content_is_read_and_put_as_at_a_real_distribution() {
    let real = colophon_launcher::Registry::start(colophon_launcher::RegistryOptions::default());
    let real = real.await.unwrap();
    let fake = Scripted::start(Personality::distribution_v2()).await.unwrap();
    let (wanted, found) = (look_around(&real.url()).await, look_around(&fake.url()).await);
    let differ: Vec<_> = wanted.iter().zip(&found).filter(|(one, other)| one != other).collect();
    assert!(differ.is_empty(), "{differ:#?}");
}

/// Sends a chunk that is longer than what comes, and goes away.
async fn broken_chunk(at: &str) {
    use tokio::io::AsyncWriteExt as _;
    let at: url::Url = at.parse().unwrap();
    let host = at.authority();
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let head = format!(
        "PATCH {}?{} HTTP/1.1\r\nHost: {host}\r\nContent-Range: 0-7\r\nContent-Length: 8\r\n\r\n0123",
        at.path(),
        at.query().unwrap_or_default()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_came_of_a_chunk_that_broke_off_stays() {
    let fake = Scripted::start(Personality::default()).await.unwrap();
    let (_, _, at) = stands(&fake, &begin(&fake, "").await);
    broken_chunk(&at).await;
    let arrived = async || {
        let (_, range, _) = stands(&fake, &client().get(&at).send().await.unwrap());
        (range == "0-3").then_some(())
    };
    wait_until("the bytes are there", Duration::from_secs(20), arrived).await.unwrap();
    assert_eq!(fake.bytes_received_in_all(), 4);
    let rest = put(&at, &sha256(b"01234567")).header("content-range", "4-7").body("4567");
    assert_eq!(rest.send().await.unwrap().status(), 201);
}

#[tokio::test]
async fn after_a_broken_chunk_distribution_refuses_the_state_of_before() {
    let real = colophon_launcher::Registry::start(colophon_launcher::RegistryOptions::default());
    let real = real.await.unwrap();
    let fake = Scripted::start(Personality::distribution_v2()).await.unwrap();
    for url in [real.url(), fake.url()] {
        let begun = client().post(format!("{url}/v2/a/b/blobs/uploads/")).send().await.unwrap();
        let at = header(&begun, "location").to_owned();
        broken_chunk(&at).await;
        let refused = async || {
            let asked = client().get(&at).send().await.unwrap();
            (asked.status() == 404).then_some(asked.text().await.unwrap())
        };
        let refused = wait_until("it is refused", Duration::from_secs(20), refused).await;
        let refused = refused.unwrap();
        assert!(refused.contains("BLOB_UPLOAD_INVALID"), "{url} {refused}");
    }
}

#[tokio::test]
async fn chunks_are_answered_as_ecr_and_ghcr_do() {
    let ecr = Scripted::start(Personality { auth: Auth::None, ..Personality::ecr() });
    let ecr = ecr.await.unwrap();
    assert_eq!(begin(&ecr, "").await.status(), 404);
    ecr.add_repository("a/b");
    let (_, _, at) = stands(&ecr, &begin(&ecr, "").await);
    let (code, range, at) = stands(&ecr, &patch(&at, "0-3", b"0123").await);
    assert_eq!((code, range.as_str()), (201, "0-3"));
    let (_, range, at) = stands(&ecr, &patch(&at, "4-7", b"4567").await);
    assert_eq!(range, "0-3");
    assert_eq!(put(&at, &sha256(b"01234567")).send().await.unwrap().status(), 201);
    let ghcr = Personality { auth: Auth::None, smallest_chunk: Some(7), ..Personality::ghcr() };
    let ghcr = Scripted::start(ghcr).await.unwrap();
    let begun = begin(&ghcr, "").await;
    assert_eq!(header(&begun, "oci-chunk-min-length"), "7");
    let (_, _, at) = stands(&ghcr, &begun);
    let large = vec![0; (4 << 20) + 1];
    let refused = client().patch(&at).body(large.clone()).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), header(&refused, "range")), (416, ""));
    let digest = sha256(&large);
    assert_eq!(put(&at, &digest).body(large).send().await.unwrap().status(), 201);
}

#[tokio::test]
async fn blobs_are_read_by_ranges_and_from_a_storage_that_wants_no_authorization() {
    let fake = Scripted::start(Personality { redirects: true, ..Personality::default() });
    let fake = fake.await.unwrap();
    let digest = fake.add_blob("a/b", "0123456789");
    let url = format!("{}/v2/a/b/blobs/{digest}", fake.url());
    assert_eq!(header(&client().head(&url).send().await.unwrap(), "content-length"), "10");
    let redirect = client().get(&url).send().await.unwrap();
    assert_eq!(redirect.status(), 307);
    let stored = header(&redirect, "location").to_owned();
    assert!(stored.starts_with(&format!("http://{}/", fake.storage())));
    assert_ne!(fake.storage(), fake.host());
    for (range, code, body, shown) in [
        ("bytes=7-", 206, "789", "bytes 7-9/10"),
        ("bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("bytes=10-", 416, "invalid range: failed to overlap\n", "bytes */10"),
    ] {
        let part = client().get(&stored).header("range", range).send().await.unwrap();
        assert_eq!((part.status().as_u16(), header(&part, "content-range")), (code, shown));
        assert_eq!(part.text().await.unwrap(), body);
    }
    assert_eq!(fake.bytes_sent(&digest), 6);
    let known = client().get(&stored).bearer_auth("t").send().await.unwrap();
    assert_eq!(known.status(), 400);
    assert_eq!(fake.authorizations(Place::Storage), ["Bearer t"]);
    assert!(fake.authorizations(Place::Registry).is_empty());
    assert_eq!(client().get(stored.replace("signed", "x")).send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn manifests_come_after_what_they_refer_to_and_their_tags_and_referrers_in_pages() {
    let fake =
        Scripted::start(Personality { most_tags: 2, referrers: Some(1), ..Personality::default() });
    let fake = fake.await.unwrap();
    let url = |rest: &str| format!("{}/v2/a/b/{rest}", fake.url());
    let config = json!({ "digest": sha256(b"{}"), "size": 2, "mediaType": "c" });
    let image = json!({ "mediaType": IMAGE, "config": config, "layers": [] }).to_string();
    let put = async |reference: &str, body: &str| {
        let put = client().put(url(&format!("manifests/{reference}")));
        put.header("content-type", IMAGE).body(body.to_owned()).send().await.unwrap()
    };
    assert_eq!(put("v1", &image).await.status(), 404);
    fake.add_blob("a/b", "{}");
    for tag in ["v1", "v2", "v3"] {
        assert_eq!(put(tag, &image).await.status(), 201);
    }
    let subject = sha256(image.as_bytes());
    assert_eq!(put(&sha256(b"x"), &image).await.status(), 400);
    let body = client().get(url(&format!("manifests/{subject}"))).send().await.unwrap();
    assert_eq!(body.text().await.unwrap(), image);
    let page = client().get(url("tags/list?n=100")).send().await.unwrap();
    assert_eq!(header(&page, "link"), "</v2/a/b/tags/list?last=v2&n=100>; rel=\"next\"");
    for kind in ["one", "two"] {
        let about = json!({
            "artifactType": kind, "config": config, "annotations": { "k": kind },
            "subject": { "digest": subject },
        });
        let answer = put(kind, &about.to_string()).await;
        assert_eq!(header(&answer, "oci-subject"), subject);
    }
    let referrers = async |query: &str| {
        let asked = client().get(url(&format!("referrers/{subject}{query}")));
        let answer = asked.send().await.unwrap();
        let link = header(&answer, "link").to_owned();
        let body: Value = answer.json().await.unwrap();
        (body["manifests"].as_array().unwrap().clone(), link)
    };
    let (first, link) = referrers("").await;
    assert!(first.len() == 1 && link.contains("?page=1>"), "{link}");
    let (second, link) = referrers("?page=1").await;
    assert!(second.len() == 1 && second != first && link.is_empty());
    let (two, _) = referrers("?artifactType=two").await;
    assert_eq!(
        (&two[0]["artifactType"], &two[0]["annotations"]["k"]),
        (&"two".into(), &"two".into())
    );
    assert_eq!(client().delete(url("manifests/one")).send().await.unwrap().status(), 202);
    assert_eq!((fake.tag("a/b", "one"), fake.tag("a/b", "v1")), (None, Some(subject)));
}

#[tokio::test]
async fn rows_come_before_the_registry_and_must_be_used_up() {
    let fake = Scripted::start(Personality::default()).await.unwrap();
    let get = async |path: &str| client().get(format!("{}{path}", fake.url())).send().await;
    let slow = Answer::error(429, "TOOMANYREQUESTS", "slow").header("retry-after", "7");
    let changed = Answer::change(|mut answer| {
        *answer.status_mut() = http::StatusCode::IM_A_TEAPOT;
        answer
    });
    let with_query = When::of("GET", "/v2/").and(|seen| seen.query("drop") == ["1"]);
    fake.script([
        (with_query, Answer::Drop, 1),
        (When::of("GET", "/v2/"), slow, 2),
        (When::of("GET", "/v2/"), changed, ALWAYS),
        (When::of("PUT", "/never"), Answer::DropAfter, 2),
    ]);
    assert!(get("/v2/?drop=1").await.is_err());
    for wanted in [429, 429, 418, 418] {
        assert_eq!(get("/v2/").await.unwrap().status(), wanted);
    }
    assert_eq!(fake.hits(), [1, 2, 2, 0]);
    assert_eq!(fake.unused(), ["PUT /never: 0 of 2"]);
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(fake)));
    let text = *dropped.unwrap_err().downcast::<String>().unwrap();
    assert_eq!(text, "rows of the table were not used: PUT /never: 0 of 2");
}

#[tokio::test]
async fn requests_that_wait_at_the_same_time_are_counted() {
    let fake = Scripted::start(Personality::default()).await.unwrap();
    let late = Answer::Late(Duration::from_millis(200));
    fake.script([(When::of("GET", "/v2/"), late, ALWAYS)]);
    let get = || client().get(format!("{}/v2/", fake.url())).send();
    let (one, two) = tokio::join!(get(), get());
    assert!(one.unwrap().status() == 200 && two.unwrap().status() == 200);
    get().await.unwrap();
    assert_eq!(fake.peak_requests(), 2);
}

#[tokio::test]
async fn logins_and_tokens_are_good_for_what_they_may() {
    let hub = Scripted::start(Personality::docker_hub()).await.unwrap();
    assert_ne!(hub.realm(), hub.host());
    hub.login("robot", "pat", vec![Allowed::new("a/b", "pull,push")]);
    let root = client().get(format!("{}/v2/", hub.url())).send().await.unwrap();
    let challenge = header(&root, "www-authenticate");
    assert!(challenge.contains(&format!("realm=\"http://{}/token\"", hub.realm())), "{challenge}");
    let scope = [("scope", "repository:a/b:pull,push")];
    let asked = client().get(format!("http://{}/token", hub.realm())).query(&scope);
    let token: Value =
        asked.basic_auth("robot", Some("pat")).send().await.unwrap().json().await.unwrap();
    let upload = client().post(format!("{}/v2/a/b/blobs/uploads/", hub.url()));
    let begun = upload.bearer_auth(token["token"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(begun.status(), 202);
    let other = client().post(format!("{}/v2/a/c/blobs/uploads/", hub.url()));
    let refused = other.bearer_auth(token["token"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert!(header(&refused, "www-authenticate").contains("insufficient_scope"));
    assert_eq!(hub.authorizations(Place::Realm).len(), 1);
    assert_eq!(hub.token_requests()[0].granted, ["repository:a/b:pull,push"]);
    let corp = Scripted::start(Personality::corp_lan()).await.unwrap();
    corp.login("robot", "pat", vec![Allowed::new("a/*", "pull")]);
    let ask = async |password, part| {
        let asked = client().get(format!("{}/v2/a/b/{part}", corp.url()));
        asked.basic_auth("robot", Some(password)).send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask("wrong", "tags/list").await, 401);
    assert_eq!(ask("pat", "tags/list").await, 404);
    assert_eq!(ask("pat", "blobs/uploads/x").await, 403);
}
