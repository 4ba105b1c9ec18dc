//! `/metrics`: the figures are those of what was done, there are no more of them however many
//! repositories, tags and routes there were, and the API's port does not show them.

use std::collections::{BTreeMap, BTreeSet};

use colophon_testkit::{
    collector::Collector,
    image::ImageSpec,
    proxy::{Action, Rule},
    wait::wait_until,
};
use colophon_tests::{Node, PATIENCE, SiteOptions, World, request};
use http::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::release_scene::{published, state, succeeded};

const SCRAPED: &str = "prometheus_listen = \"127.0.0.1:0\"\n";

/// Every series of a page with its value.
type Page = BTreeMap<String, String>;

/// Where a process shows its metrics, which its log says.
fn place(node: &Node) -> String {
    let log = node.log();
    let line = log.lines().find(|line| line.contains("serving metrics")).unwrap();
    let (_, rest) = line.split_once("address=").unwrap();
    format!("http://{}/metrics", rest.split_whitespace().next().unwrap())
}

/// What a process shows to Prometheus.
pub(crate) async fn page(node: &Node) -> String {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http.get(place(node)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    answer.text().await.unwrap()
}

async fn scrape(node: &Node) -> Page {
    read(&page(node).await)
}

/// Reads the text format, and refuses what is none: comments, and lines of a series and a number.
fn read(text: &str) -> Page {
    let mut page = Page::new();
    let mut typed = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(typed.insert(rest.split(' ').next().unwrap().to_owned()), "{line}");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let twice = page.insert(series.to_owned(), value.to_owned());
            assert_eq!(twice, None, "{series}");
        }
    }
    page
}

/// The sum of all series of a metric whose labels hold these texts.
fn sum(page: &Page, name: &str, labels: &[&str]) -> i64 {
    let found: Vec<i64> = page
        .iter()
        .filter(|(series, _)| series.split('{').next() == Some(name))
        .filter(|(series, _)| labels.iter().all(|label| series.contains(label)))
        .map(|(_, value)| value.parse().unwrap())
        .collect();
    found.iter().sum()
}

#[tokio::test]
async fn the_figures_are_those_of_what_was_done() {
    let mut world = World::new().await.unwrap();
    world.telemetry = SCRAPED.to_owned();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::proxied()).await.unwrap();
    let (api, worker) = (world.serve().await.unwrap(), world.work().await.unwrap());
    let client = world.client(&api).unwrap();
    staging.push(&ImageSpec::tiny("measured"), "app", "1").await.unwrap();
    let throttled = Rule::new(Action::Status(
        StatusCode::TOO_MANY_REQUESTS,
        vec![("retry-after".to_owned(), "0".to_owned())],
        String::new(),
    ));
    target.proxy().add(throttled.method(Method::HEAD).path("/blobs/").times(2));
    let source = staging.reference("app", "1");
    let repository = target.repository("app");
    let first = succeeded(&client, &source, &[(&repository, &["1.0.0"], &["1"])]).await;
    let again = succeeded(&client, &source, &[(&repository, &["1.0.1"], &[])]).await;
    let denied = Rule::new(Action::Status(StatusCode::FORBIDDEN, vec![], String::new()));
    target.proxy().add(denied.method(Method::POST).path("/closed/blobs/uploads/").always());
    let closed = target.repository("closed");
    let failed = published(&client, &source, &[(&closed, &["1", "2"], &["3"])]).await;
    assert!(state(&failed).starts_with("FAILED"), "{failed:#}");
    let nowhere = request(&source, &[("127.0.0.1:1/nowhere", &["1"], &[])]);
    assert_eq!(client.create(&nowhere).await.unwrap().status, StatusCode::BAD_REQUEST);

    let page = scrape(&worker).await;
    let copied = number(&first, "/publications/0/bytesCopied");
    assert!(copied > 0, "{first:#}");
    let host = format!("registry=\"{}\"", target.host());
    let bytes = |outcome: &str| {
        let outcome = format!("outcome=\"{outcome}\"");
        sum(&page, "colophon_copy_size_bytes_total", &[&host, &outcome])
    };
    assert_eq!(bytes("copied"), copied + number(&again, "/publications/0/bytesCopied"));
    assert_eq!(bytes("mounted"), 0);
    let attempts = |labels: &[&str]| sum(&page, "colophon_job_attempts_total", labels);
    assert_eq!(attempts(&["kind=\"copy\"", "outcome=\"done\""]), 2, "{page:#?}");
    assert_eq!(attempts(&["kind=\"unique\"", "outcome=\"done\""]), 2);
    assert_eq!(attempts(&["kind=\"floating\"", "outcome=\"done\""]), 1);
    assert_eq!(sum(&page, "colophon_registry_throttled_total", &[&host]), 2, "{page:#?}");
    let requests =
        |labels: &[&str]| sum(&page, "colophon_registry_request_duration_seconds_count", labels);
    assert_eq!(requests(&[&host, "method=\"HEAD\"", "status=\"429\""]), 2);
    let puts = target.proxy().manifest_puts().len();
    assert_eq!(puts, 4, "the manifest, and three tags");
    let put = ["endpoint=\"manifests\"", "method=\"PUT\"", "status=\"2xx\"", &host];
    assert_eq!(requests(&put), 4);
    assert_eq!(sum(&page, "colophon_tags_settled_total", &["state=\"MOVED\""]), 3);
    // Also those that were settled together, since their turn never came.
    assert_eq!(sum(&page, "colophon_tags_settled_total", &["state=\"NOT_ATTEMPTED\""]), 3);
    assert_eq!(sum(&page, "colophon_releases_ended_total", &["state=\"SUCCEEDED\""]), 2);
    let begun = ["transaction=\"move.begin\"", "outcome=\"ok\""];
    assert_eq!(sum(&page, "colophon_store_transaction_duration_seconds_count", &begun), 3);
    assert_eq!(sum(&page, "colophon_build_info", &["version="]), 1);

    let page = scrape(&api).await;
    let calls =
        |labels: &[&str]| sum(&page, "colophon_server_request_duration_seconds_count", labels);
    let posts = ["face=\"rest\"", "route=\"/v1/releases\"", "method=\"POST\""];
    assert_eq!(calls(&[posts.as_slice(), &["status=\"200\""]].concat()), 3, "{page:#?}");
    assert_eq!(calls(&posts), 4);
    for state in ["ready", "waiting", "running"] {
        let label = format!("state=\"{state}\"");
        assert!(
            page.keys().any(|key| key.starts_with("colophon_queue_jobs{") && key.contains(&label))
        );
        assert_eq!(sum(&page, "colophon_queue_jobs", &[&label]), 0);
    }
    assert_eq!(page["colophon_intents_open"], "0");
    assert_eq!(sum(&page, "colophon_releases_active", &[]), 0);

    // Not where callers are.
    let answer = client.call(Method::GET, "/metrics", &[], None).await.unwrap();
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

fn number(message: &serde_json::Value, pointer: &str) -> i64 {
    let value = message.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or("0");
    value.parse().unwrap()
}

#[tokio::test]
async fn what_waits_is_counted_by_those_who_serve() {
    let mut world = World::new().await.unwrap();
    world.telemetry = SCRAPED.to_owned();
    let site = world.site(SiteOptions::default()).await.unwrap();
    let api = world.serve().await.unwrap();
    let client = world.client(&api).unwrap();
    let image = site.push(&ImageSpec::tiny("waits"), "app", "1").await.unwrap();
    let source = format!("{}@{}", site.repository("app"), image.digest());
    for tag in ["a", "b", "c"] {
        client.publish(&source, &[(&site.repository("app"), &[tag], &[])]).await.unwrap();
    }
    let page = scrape(&api).await;
    assert_eq!(sum(&page, "colophon_queue_jobs", &["state=\"ready\""]), 3, "{page:#?}");
    assert_eq!(sum(&page, "colophon_releases_active", &["state=\"QUEUED\""]), 3);
    let age: f64 = page["colophon_queue_oldest_seconds{state=\"ready\"}"].parse().unwrap();
    assert!(age > 0.0, "{age}");
}

#[tokio::test]
async fn names_that_others_choose_make_no_series() {
    let mut world = World::new().await.unwrap();
    let collector = Collector::start(None).await.unwrap();
    world.telemetry =
        format!("{SCRAPED}otlp_endpoint = {:?}\nmetrics_interval = \"1s\"\n", collector.endpoint());
    let site = world.site(SiteOptions::default()).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    let image = site.push(&ImageSpec::tiny("bounded"), "app", "1").await.unwrap();
    let source = format!("{}@{}", site.repository("app"), image.digest());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let round = async |round: usize| {
        let name = format!("r{round}");
        succeeded(&client, &source, &[(&site.repository(&name), &[&name], &[&format!("f{name}")])])
            .await;
        let paths = [format!("/v1/{name}"), format!("/{name}"), format!("/v1/releases/{name}")];
        for path in &paths {
            client.call(Method::GET, path, &[("page_size", &name)], None).await.unwrap();
            let method = Method::from_bytes(name.to_uppercase().as_bytes()).unwrap();
            client.call(method, path, &[], None).await.unwrap();
        }
        let unknown = json!({ "source": format!("{name}.example/x:1"), "targets": [] });
        client.create(&unknown).await.unwrap();
        let grpc = format!("{}/colophon.v1.ReleaseService/{name}", client.url());
        for token in ["none", client.token().expose_secret()] {
            let call =
                http.post(&grpc).header("content-type", "application/grpc").bearer_auth(token);
            call.body(vec![0; 5]).send().await.unwrap();
        }
    };
    round(0).await;
    let before: BTreeSet<String> = scrape(&node).await.into_keys().collect();
    for number in 1..8 {
        round(number).await;
    }
    let after: BTreeSet<String> = scrape(&node).await.into_keys().collect();
    // A transaction may have been tried again, a job have waited for another: closed sets too.
    let new: Vec<&String> = after.difference(&before).collect();
    assert!(new.len() < 40, "{} new series: {new:#?}", new.len());
    for number in 0..8 {
        let name = format!("r{number}");
        let shows = |series: &&String| series.to_lowercase().contains(&format!("\"{name}"));
        assert_eq!(after.iter().filter(shows).collect::<Vec<_>>(), Vec::<&String>::new());
        assert!(!after.iter().any(|series| series.contains(&format!("/{name}"))), "{after:#?}");
    }
    // The collector gets the same metrics.
    let sent = async || {
        let metrics = collector.metrics();
        let there = |name: &str| metrics.iter().any(|metric| metric == name);
        (there("colophon.job.attempts") && there("colophon.queue.jobs")).then_some(())
    };
    wait_until("metrics reach the collector", PATIENCE, sent).await.unwrap();
}
