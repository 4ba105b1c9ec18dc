//! A worker that is told to stop: it claims nothing new, lets short work end, and hands long work
//! over to another worker, which goes on at once. None of it is an attempt.

use std::time::{Duration, Instant};

use colophon_testkit::{
    image::ImageSpec,
    launcher::process::Signal,
    proxy::{Action, Fault, Rule},
    wait::wait_until,
};
use colophon_tests::{Client, PATIENCE};
use http::Method;

use crate::{kill::Crew, release_scene::attempts};

/// Nothing but a hint brings a worker to its work before half a minute has passed, and no lease
/// ends before a minute has.
const SLOW: &str = "lease = \"60s\"\nput_timeout = \"25s\"\ngrace = \"5s\"\n\
                    poll_interval = \"30s\"\nmax_attempts = 1\n";

fn upload(crew: &Crew) -> Fault {
    let rule = Rule::new(Action::HoldBefore).method(Method::POST).path("/v2/app/blobs/uploads/");
    crew.target.proxy().add(rule)
}

async fn says_no(crew: &Crew) {
    let stopping = async || {
        let (status, body) = crew.workers[0].probe("/readyz").await.ok()?;
        (status == 503 && body.to_string().contains("stopping")).then_some(())
    };
    wait_until("the worker says that it stops", PATIENCE, stopping).await.unwrap();
    assert_eq!(crew.workers[0].probe("/livez").await.unwrap().0, 200);
}

async fn publications(client: &Client, release: &str) -> String {
    client.release(release).await.unwrap()["publications"][0]["state"].to_string()
}

#[tokio::test]
async fn a_copy_that_ends_in_time_is_finished() {
    let mut crew = Crew::with(&format!("{SLOW}stop_grace = \"60s\"\n"), 1).await;
    let source = crew.image(&ImageSpec::tiny("short"), "app").await;
    let held = upload(&crew);
    let release = crew.publish(&source, "app", &["1.0.0"], &[]).await;
    held.reached(PATIENCE).await.unwrap();
    // What comes now is not begun any more.
    crew.workers[0].process().signal(Signal::TERM).unwrap();
    says_no(&crew).await;
    let late = crew.publish(&source, "late", &["1.0.0"], &[]).await;
    held.forward();
    let status = crew.workers[0].process().wait(PATIENCE).await.unwrap();
    assert!(status.success(), "{status}: {}", crew.logs());
    assert_eq!(publications(&crew.client, &release).await, "\"PUBLICATION_STATE_COPIED\"");
    assert_eq!(publications(&crew.client, &late).await, "\"PUBLICATION_STATE_QUEUED\"");
    crew.hire().await;
    for release in [release, late] {
        let ended = crew.succeeds(&release).await;
        assert_eq!(attempts(&ended), [""; 0], "{ended:#}");
    }
}

#[tokio::test]
async fn a_copy_that_takes_longer_goes_on_elsewhere_at_once() {
    let mut crew = Crew::with(&format!("{SLOW}stop_grace = \"300ms\"\n"), 1).await;
    let source = crew.image(&ImageSpec::tiny("long"), "app").await;
    let held = upload(&crew);
    let release = crew.publish(&source, "app", &["1.0.0"], &["latest"]).await;
    held.reached(PATIENCE).await.unwrap();
    crew.hire().await;
    let told = Instant::now();
    let status = crew.workers[0].process().stop(Signal::TERM, PATIENCE).await.unwrap();
    assert!(status.success(), "{status}: {}", crew.logs());
    // The first one's request is held still.
    let ended = crew.succeeds(&release).await;
    let took = told.elapsed();
    assert!(took < Duration::from_secs(25), "nobody went on for {took:?}: {}", crew.logs());
    assert_eq!(attempts(&ended), [""; 0], "{ended:#}");
    held.drop_connections();
}
