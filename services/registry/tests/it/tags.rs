//! Listing a repository's tags: all of them, page by page, and never a list that only looks
//! complete.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{body::Body, response::Response};
use colophon_domain::{Access, Digest, Failure, Reason, Repository};
use colophon_registry::Session;

use crate::{
    fake::{Fake, Seen, error, status, with},
    support::{Keys, descriptor, image, registries, session},
};

const SECRET: &str = "ghp_neverShown";

/// The tags that were shown, and how it ended.
async fn list(session: &Session) -> (Vec<String>, Result<bool, Failure>) {
    let mut tags = Vec::new();
    let ended = session.tags(&mut |tag: &str| tags.push(tag.to_owned())).await;
    (tags, ended)
}

async fn fake() -> (Fake, Session) {
    let fake = Fake::start().await;
    let session = session(fake.config(), Keys::none(), &fake.repository("a/b"), Access::Pull);
    (fake, session)
}

fn page(tags: &[&str], link: Option<&str>) -> Response {
    let body = serde_json::json!({"name": "a/b", "tags": tags}).to_string();
    match link {
        Some(link) => with(200, &[("link", link)], body),
        None => with(200, &[], body),
    }
}

fn next(target: &str) -> String {
    format!("<{target}>; rel=\"next\"")
}

/// How a listing ends whose first page has this `Link`.
async fn linked(link: String) -> (Fake, Result<bool, Failure>) {
    let (fake, session) = fake().await;
    fake.hook(move |seen| {
        Some(if seen.query.starts_with("n=") {
            page(&["v1"], Some(&link))
        } else {
            page(&["v2"], None)
        })
    });
    let (tags, ended) = list(&session).await;
    assert_eq!(ended.is_ok(), tags == ["v1", "v2"], "{tags:?}");
    (fake, ended)
}

#[tokio::test]
async fn all_pages_are_shown_in_their_order() {
    let (fake, session) = fake().await;
    let image = image(&[descriptor("c", &Digest::sha256(b""), 0)]);
    let expected: Vec<String> = (0..2500).map(|number| format!("v{number:04}")).collect();
    for tag in &expected {
        fake.add_manifest("a/b", tag, &image);
    }
    let (tags, ended) = list(&session).await;
    assert!(ended.unwrap());
    assert_eq!(tags, expected);
    let seen = fake.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| seen.is("GET", "/v2/a/b/tags/list")));
    assert_eq!((seen[0].query.as_str(), seen[1].query("last")), ("n=1000", vec!["v0999".into()]));
}

#[tokio::test]
async fn a_link_is_relative_or_absolute_and_stands_among_others() {
    for target in [
        "/v2/a/b/tags/list?last=v1",
        "list?last=v1",
        "?last=v1",
        "//HOST/p?last=v1",
        "http://HOST/p?last=v1#x",
    ] {
        let (fake, session) = fake().await;
        let target = target.replace("HOST", &fake.address.to_string());
        let link = format!("</style>; rel=preload, {}", next(&target));
        fake.hook(move |seen| {
            Some(if seen.query("last") == ["v1"] {
                page(&["v2"], None)
            } else {
                page(&["v1"], Some(&link))
            })
        });
        let (tags, ended) = list(&session).await;
        assert!(ended.unwrap());
        assert_eq!(tags, ["v1", "v2"], "{target}");
    }
}

#[tokio::test]
async fn another_place_gets_no_request() {
    let other = Fake::start().await;
    other.hook(|_| Some(page(&["stolen"], None)));
    let stranger = Fake::start_on("127.0.0.2").await;
    for target in [
        other.url("/v2/a/b/tags/list?last=v1"),
        format!("//{}/v2/a/b/tags/list?last=v1", other.address),
        stranger.url("/v2/a/b/tags/list?last=v1"),
    ] {
        let fake = Fake::start().await;
        let keys = Keys::one("robot", SECRET);
        let session = session(fake.config(), keys, &fake.repository("a/b"), Access::Pull);
        let link = next(&target);
        fake.hook(move |seen| {
            let challenge = || with(401, &[("www-authenticate", "Basic realm=x")], "");
            Some(if seen.authorization().is_empty() {
                challenge()
            } else {
                page(&["v1"], Some(&link))
            })
        });
        let (tags, ended) = list(&session).await;
        assert_eq!((tags.len(), ended.unwrap_err().reason()), (0, Reason::RegistryProtocol));
        assert!(other.seen().is_empty() && stranger.seen().is_empty(), "{target}");
    }
}

#[tokio::test]
async fn another_scheme_a_name_and_nonsense_are_refused() {
    let (https, named) = ("https://HOST/p?last=v1", "http://robot:pw@HOST/p?last=v1");
    for target in [https, named, "file:///etc/passwd", "http://", "mailto:a@b.c", "data:,x"] {
        let (fake, session) = fake().await;
        let link = next(&target.replace("HOST", &fake.address.to_string()));
        fake.hook(move |_| Some(page(&["v1"], Some(&link))));
        let failure = list(&session).await.1.unwrap_err();
        assert_eq!(failure.reason(), Reason::RegistryProtocol, "{target}");
        assert_eq!(fake.seen().len(), 1, "{target}");
        assert!(!failure.message().contains("pw@"), "{failure}");
    }
    for link in
        ["/v2/a/b/tags/list?last=v1; rel=next", "</p?last=v1; rel=\"next\"", "</p>; rel=\"next"]
    {
        let failure = linked(link.to_owned()).await.1.unwrap_err();
        assert_eq!(failure.reason(), Reason::RegistryProtocol, "{link}");
    }
    assert!(linked(next("/p?last=v1")).await.1.unwrap());
}

#[tokio::test]
async fn a_secret_in_a_link_is_not_shown() {
    let fake = Fake::start().await;
    let keys = Keys::one("robot", SECRET);
    let session = session(fake.config(), keys, &fake.repository("a/b"), Access::Pull);
    fake.hook(|seen| {
        let challenge = || with(401, &[("www-authenticate", "Basic realm=x")], "");
        let link = next(&format!("http://{SECRET}.invalid/"));
        Some(if seen.authorization().is_empty() { challenge() } else { page(&[], Some(&link)) })
    });
    let failure = list(&session).await.1.unwrap_err();
    assert_eq!(failure.reason(), Reason::RegistryProtocol);
    assert!(!format!("{failure:?}").to_lowercase().contains(&SECRET.to_lowercase()));
}

#[tokio::test]
async fn a_loop_is_noticed_and_an_endless_list_given_up() {
    // To itself, to itself with another fragment, and back to the first of two.
    for targets in [["?last=a", "?last=a"], ["?last=a", "?last=a#again"], ["?last=a", "?n=1000"]] {
        let (fake, session) = fake().await;
        fake.hook(move |seen| {
            let target = targets[usize::from(seen.query == "last=a")];
            Some(page(&["v1"], Some(&next(target))))
        });
        let failure = list(&session).await.1.unwrap_err();
        assert_eq!(failure.reason(), Reason::RegistryProtocol, "{targets:?}");
        assert_eq!(fake.seen().len(), 2, "{targets:?}");
    }
    let (fake, session) = fake().await;
    let asked = AtomicUsize::new(0);
    fake.hook(move |_| {
        let number = asked.fetch_add(1, Ordering::SeqCst);
        Some(page(&[], Some(&next(&format!("?last={number}")))))
    });
    let failure = list(&session).await.1.unwrap_err();
    assert_eq!((failure.reason(), fake.seen().len()), (Reason::TooLarge, 1000));
}

#[tokio::test]
async fn a_page_of_more_than_four_mebibytes_is_refused() {
    let (fake, session) = fake().await;
    for announced in [true, false] {
        fake.hook(move |_| {
            let body = vec![b' '; (4 << 20) + 1];
            let pieces = body.chunks(1 << 20).map(|piece| Ok::<_, std::io::Error>(piece.to_vec()));
            let pieces: Vec<_> = pieces.collect();
            Some(if announced {
                with(200, &[], body)
            } else {
                with(200, &[], Body::from_stream(futures_util::stream::iter(pieces)))
            })
        });
        let (tags, ended) = list(&session).await;
        assert_eq!((tags.len(), ended.unwrap_err().reason()), (0, Reason::TooLarge));
    }
}

#[tokio::test]
async fn no_tags_and_what_is_no_tag() {
    let (fake, session) = fake().await;
    for body in [r#"{"name":"a/b","tags":null}"#, r#"{"name":"a/b","tags":[]}"#] {
        fake.hook(move |_| Some(with(200, &[], body)));
        let (tags, ended) = list(&session).await;
        assert!(ended.unwrap() && tags.is_empty(), "{body}");
    }
    fake.hook(|_| Some(page(&["ok", "-no", "", "a/b", "sha256:00", "v1.0_build.5"], None)));
    assert_eq!(list(&session).await.0, ["ok", "v1.0_build.5"]);
    for body in ["<html>welcome</html>", "{}", r#"{"tags":"v1"}"#, r#"{"tags":["v1",2]}"#] {
        fake.hook(move |_| Some(with(200, &[], body)));
        let failure = list(&session).await.1.unwrap_err();
        assert_eq!(failure.reason(), Reason::RegistryProtocol, "{body}");
    }
}

#[tokio::test]
async fn a_repository_that_does_not_exist_is_told_from_other_refusals() {
    let (fake, session) = fake().await;
    // The specification's code, and Harbor's.
    for code in ["NAME_UNKNOWN", "NOT_FOUND"] {
        fake.hook(move |_| Some(error(404, code, "repository a/b not found")));
        let (tags, ended) = list(&session).await;
        assert!(!ended.unwrap() && tags.is_empty(), "{code}");
    }
    fake.hook(|_| Some(with(404, &[], "<html>404 page not found</html>")));
    assert_eq!(list(&session).await.1.unwrap_err().reason(), Reason::RegistryProtocol);
    fake.hook(|_| Some(error(400, "PAGINATION_NUMBER_INVALID", "n")));
    assert_eq!(list(&session).await.1.unwrap_err().reason(), Reason::RegistryProtocol);
    fake.hook(|_| Some(error(403, "DENIED", "requested access to the resource is denied")));
    assert_eq!(list(&session).await.1.unwrap_err().reason(), Reason::RegistryUnauthorized);
    // It was there a page ago.
    let (fake, session) = self::fake().await;
    fake.hook(|seen| {
        let more = || page(&["v1"], Some(&next("?last=v1")));
        Some(if seen.query == "n=1000" { more() } else { error(404, "NAME_UNKNOWN", "gone") })
    });
    let (tags, ended) = list(&session).await;
    assert_eq!((tags.len(), ended.unwrap_err().reason()), (1, Reason::RepositoryNotFound));
}

#[tokio::test]
async fn pauses_and_short_absences_show_no_tag_twice() {
    let (fake, session) = fake().await;
    let asked = AtomicUsize::new(0);
    fake.hook(move |seen| {
        let number = asked.fetch_add(1, Ordering::SeqCst);
        Some(match (number, seen.query.as_str()) {
            (0, _) => status(503),
            (2, _) => with(429, &[("retry-after", "1")], ""),
            (_, "n=1000") => page(&["v1"], Some(&next("?last=v1"))),
            _ => page(&["v2"], None),
        })
    });
    let (tags, ended) = list(&session).await;
    assert!(ended.unwrap());
    assert_eq!((tags.len(), fake.seen().len()), (2, 4), "{tags:?}");
}

#[tokio::test]
async fn a_token_for_reading_suffices_whatever_the_session_may_do() {
    let fake = Fake::start().await;
    let challenge = format!(r#"Bearer realm="{}",service="x""#, fake.url("/token"));
    fake.hook(move |seen| {
        if seen.path == "/token" {
            return Some(with(200, &[], r#"{"token":"opaque"}"#));
        }
        let known = seen.authorization() == "Bearer opaque";
        Some(if known {
            page(&["v1"], None)
        } else {
            with(401, &[("www-authenticate", &challenge)], "")
        })
    });
    let keys = Keys::one("robot", SECRET);
    let session = session(fake.config(), keys, &fake.repository("a/b"), Access::Push);
    assert!(list(&session).await.1.unwrap());
    let tokens: Vec<Seen> = fake.seen().into_iter().filter(|seen| seen.path == "/token").collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].query("scope"), ["repository:a/b:pull"]);
}

#[tokio::test]
async fn a_listing_may_go_on_in_a_task_of_its_own() {
    let (fake, _) = fake().await;
    fake.hook(|_| Some(page(&["v1", "v2"], None)));
    let registries = registries([fake.config()], Keys::none());
    let repository: Repository = fake.repository("a/b");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let task = tokio::spawn(async move {
        let session = registries.session(&repository, Access::Pull)?;
        let mut visit = |_: &str| {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        session.tags(&mut visit).await
    });
    assert!(task.await.unwrap().unwrap());
    assert_eq!(count.load(Ordering::SeqCst), 2);
}
