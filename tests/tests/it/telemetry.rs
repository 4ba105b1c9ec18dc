//! One trace from a caller's header through the API, the queue and a worker of another process to
//! the registries; and a collector that nobody waits for.

use std::{collections::BTreeMap, time::Duration};

use colophon_testkit::{
    collector::{Collector, Span},
    image::ImageSpec,
    wait::wait_until,
};
use colophon_tests::{Client, PATIENCE, SiteOptions, World, request};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::release_scene::{state, text};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// Asks for a release with these `traceparent` headers; returns its id.
async fn create(client: &Client, request: &Value, traces: &[&str]) -> String {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/v1/releases", client.url());
    let mut call = http.post(url).bearer_auth(client.token().expose_secret()).json(request);
    for trace in traces {
        call = call.header("traceparent", *trace);
    }
    let call = call.header("tracestate", "own=note-of-the-caller").header("baggage", "k=carried");
    let answer = call.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    text(&answer.json().await.unwrap(), "/id").to_owned()
}

/// Every span as the names from the caller down to it, with what tells it apart; sorted.
fn paths(spans: &[Span]) -> Vec<String> {
    let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    assert_eq!(by_id.len(), spans.len(), "two spans have one id");
    let mut paths: Vec<String> = spans
        .iter()
        .map(|span| {
            let mut path = vec![shown(span)];
            let mut at = span;
            while at.parent != CALLER {
                at = by_id.get(at.parent.as_str()).unwrap_or_else(|| {
                    panic!("{} has a parent that was not sent", at.name);
                });
                path.push(at.name.clone());
            }
            path.reverse();
            path.join(" > ")
        })
        .collect();
    paths.sort();
    paths
}

fn shown(span: &Span) -> String {
    let name = &span.name;
    match name.as_str() {
        "server.request" => {
            format!("{name} {} {}", span.attribute("route"), span.attribute("status"))
        }
        "engine.job.work" => {
            format!("{name} {} {}", span.attribute("kind"), span.attribute("outcome"))
        }
        "engine.tag.move" => format!("{name} {}", span.attribute("tag")),
        "registry.request" => {
            let about = ["method", "repository", "attempt", "status"];
            format!("{name} {}", about.map(|name| span.attribute(name)).join(" "))
        }
        _ => name.clone(),
    }
}

#[tokio::test]
async fn one_release_is_one_trace_across_processes() {
    let mut world = World::new().await.unwrap();
    let collector = Collector::start(Some(("x-tenant", "acme"))).await.unwrap();
    let headers = world.folder().join("otlp-headers");
    std::fs::write(&headers, "X-Tenant: acme\n").unwrap();
    world.telemetry = format!(
        "otlp_endpoint = {:?}\notlp_headers_file = {:?}\n\
         attributes = {{ \"deployment.environment\" = \"test\" }}\n",
        collector.endpoint(),
        headers.display().to_string(),
    );
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::proxied()).await.unwrap();
    let mut api = world.serve().await.unwrap();
    let mut worker = world.work().await.unwrap();
    let client = world.client(&api).unwrap();
    staging.push(&ImageSpec::tiny("traced"), "app", "1").await.unwrap();
    let repository = target.repository("app");
    let wanted = request(&staging.reference("app", "1"), &[(&repository, &["1.0.0"], &["1"])]);
    let id = create(&client, &wanted, &[&format!("00-{TRACE}-{CALLER}-01")]).await;
    let release = client.wait_end(&id).await.unwrap();
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    // What is left is sent at the end.
    worker.stop().await.unwrap();
    api.stop().await.unwrap();

    let spans = collector.spans(TRACE);
    let found = paths(&spans);
    let expected: Vec<&str> = EXPECTED.lines().collect();
    assert_eq!(found, expected, "{found:#?}");

    let one = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    let (request, job) = (one("server.request"), one("engine.job.work"));
    assert_eq!((request.kind.as_str(), job.kind.as_str()), ("Server", "Consumer"));
    assert_eq!(request.attribute("caller"), "ci");
    assert_eq!(job.attribute("release"), id);
    assert_eq!(one("registry.request").kind, "Client");
    for span in [request, job] {
        assert_eq!(span.resource["service.name"], "colophon");
        assert_eq!(span.resource["deployment.environment"], "test");
    }
    assert_ne!(request.resource["service.instance.id"], job.resource["service.instance.id"]);

    // The log can be joined with the trace, and registries hear nothing of it.
    let line =
        |log: &str, what: &str| log.lines().find(|line| line.contains(what)).unwrap().to_owned();
    let accepted = line(&api.log(), "release accepted");
    assert!(accepted.contains(&format!("trace_id={TRACE} span_id=")), "{accepted}");
    let exchanges = target.proxy().log();
    assert!(!exchanges.is_empty() && exchanges.iter().all(|exchange| !exchange.traced));
    let everything = collector.everything();
    assert!(!everything.contains("note-of-the-caller") && !everything.contains("carried"));
}

/// Every span of the release, as [`paths`] writes them.
const EXPECTED: &str = include_str!("telemetry_tree.txt");

#[tokio::test]
async fn a_traceparent_in_no_good_form_begins_a_trace_of_our_own() {
    let mut world = World::new().await.unwrap();
    let collector = Collector::start(None).await.unwrap();
    world.telemetry = format!("otlp_endpoint = {:?}\n", collector.endpoint());
    let site = world.site(SiteOptions::default()).await.unwrap();
    let mut node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    let image = site.push(&ImageSpec::tiny("forged"), "app", "1").await.unwrap();
    let source = format!("{}@{}", site.repository("app"), image.digest());
    let wanted = request(&source, &[(&site.repository("app"), &["2"], &[])]);
    let good = format!("00-{TRACE}-{CALLER}-01");
    let zero = format!("00-{}-{CALLER}-01", "0".repeat(32));
    let long = format!("{good}{}", "f".repeat(4_000));
    for traces in [&[good.as_str(), &good] as &[&str], &[&zero], &[&long], &["'; DROP TABLE job"]] {
        let id = create(&client, &wanted, traces).await;
        let release = client.wait_end(&id).await.unwrap();
        assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    }
    node.stop().await.unwrap();
    assert_eq!(collector.spans(TRACE), vec![]);
    let everything = collector.everything();
    assert!(everything.contains("server.request") && !everything.contains("DROP TABLE"));
}

#[tokio::test]
async fn nobody_waits_for_a_collector_that_does_not_answer() {
    let mut world = World::new().await.unwrap();
    // Accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    world.telemetry = format!("otlp_endpoint = \"http://{address}\"\n");
    let site = world.site(SiteOptions::default()).await.unwrap();
    let mut node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    let image = site.push(&ImageSpec::tiny("silent"), "app", "1").await.unwrap();
    let source = format!("{}@{}", site.repository("app"), image.digest());
    for tag in ["a", "b", "c"] {
        let id = client.publish(&source, &[(&site.repository("app"), &[tag], &[])]).await.unwrap();
        let release = client.wait_end_for(&id, Duration::from_secs(20)).await.unwrap();
        assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    }
    // The spans were on their way, and the end of the process does not wait for them for long.
    let connected = async || tokio::time::timeout(PATIENCE, silent.accept()).await.ok();
    wait_until("the collector was called", PATIENCE, connected).await.unwrap().unwrap();
    let begun = std::time::Instant::now();
    node.stop().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}
