//! Releases that want the same floating tag at the same time: the tag ends on the one that was
//! accepted last, whoever is faster, and the others say so.

use std::collections::BTreeSet;

use colophon_testkit::{
    image::ImageSpec,
    proxy::{Action, Rule},
};
use colophon_tests::PATIENCE;
use futures_util::future::{join_all, try_join_all};
use http::Method;
use serde_json::Value;

use crate::{
    kill::Crew,
    ledger_check,
    release_scene::{state, text},
};

#[tokio::test]
async fn a_slow_release_never_slides_a_tag_back() {
    let crew = Crew::new(2).await;
    let big = ImageSpec::tiny("big").layer(20_000_000);
    let big = crew.image(&big, "big").await;
    let small = crew.image(&ImageSpec::tiny("small").layer(2_000_000), "small").await;
    // The first copy takes some seconds.
    let slow =
        Rule::new(Action::SlowResponse(4_000_000)).method(Method::GET).path("/v2/big/blobs/");
    let slow = crew.source.proxy().add(slow.always());
    let first = crew.publish(&big, "app", &["1.0.0"], &["1", "latest"]).await;
    slow.reached(PATIENCE).await.unwrap();
    let second = crew.publish(&small, "app", &["1.0.1"], &["1"]).await;
    crew.succeeds(&second).await;
    assert_eq!(running(&crew, &first).await, "RELEASE_STATE_RUNNING", "the first must be slower");

    let ended = crew.client.wait_end(&first).await.unwrap();
    assert_eq!(state(&ended), "FAILED SUPERSEDED", "{ended:#}");
    let tags = ended["publications"][0]["tags"].as_array().unwrap();
    let states: Vec<(&str, &str)> =
        tags.iter().map(|tag| (text(tag, "/tag"), text(tag, "/state"))).collect();
    assert_eq!(
        states,
        [
            ("1.0.0", "TAG_MOVE_STATE_MOVED"),
            ("1", "TAG_MOVE_STATE_SUPERSEDED"),
            ("latest", "TAG_MOVE_STATE_MOVED"),
        ]
    );
    let served = crew.target.inspect("app", "1").await.unwrap();
    assert!(small.ends_with(&served));
    assert_eq!(ledger_check::tag_puts(&crew.target, "app", "1").len(), 1);
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
    ledger_check::puts_never_overlap(&crew.target);
}

#[tokio::test]
async fn twenty_pipelines_on_one_tag_end_on_the_one_that_was_accepted_last() {
    const PIPELINES: usize = 20;
    let mut crew = Crew::new(2).await;
    let replica = crew.world.serve().await.unwrap();
    let clients = [crew.client.clone(), crew.world.client(&replica).unwrap()];
    let mut sources = Vec::new();
    for number in 0..PIPELINES {
        let image = ImageSpec::tiny(format!("pipeline {number}"));
        sources.push(crew.image(&image, "app").await);
    }
    let target = crew.target.repository("app");
    let pipelines = sources.iter().enumerate().map(async |(number, source)| {
        let client = &clients[number % clients.len()];
        let unique = format!("1.0.{number}");
        let targets = [(target.as_str(), &[unique.as_str()][..], &["1"][..])];
        let id = client.publish(source, &targets).await?;
        client.wait_end(&id).await
    });
    let releases = try_join_all(pipelines).await.unwrap();

    let ticket = |release: &Value| -> i64 {
        let tags = release["publications"][0]["tags"].as_array().unwrap();
        let tag = tags.iter().find(|tag| text(tag, "/tag") == "1").unwrap();
        text(tag, "/ticket").parse().unwrap()
    };
    let tickets: BTreeSet<i64> = releases.iter().map(ticket).collect();
    assert_eq!(tickets.len(), PIPELINES, "every release has a place of its own");
    let last = releases.iter().max_by_key(|release| ticket(release)).unwrap();
    assert_eq!(state(last), "SUCCEEDED", "{last:#}");
    let served = crew.target.inspect("app", "1").await.unwrap();
    assert_eq!(served, text(last, "/digest"));
    for release in &releases {
        let said = state(release);
        assert!(["SUCCEEDED", "FAILED SUPERSEDED"].contains(&said.as_str()), "{release:#}");
    }
    let uniques = (0..PIPELINES).map(async |number| {
        let tag = format!("1.0.{number}");
        crew.target.peer().unwrap().digest_of("app", &tag).await.unwrap()
    });
    let uniques = join_all(uniques).await;
    let wanted: Vec<_> = releases.iter().map(|release| text(release, "/digest")).collect();
    let found: Vec<_> = uniques.iter().map(|digest| digest.as_deref().unwrap()).collect();
    assert_eq!(found, wanted);
    let moved = releases.iter().filter(|release| state(release) == "SUCCEEDED").count();
    println!("of {PIPELINES} pipelines {moved} moved the tag, the others were superseded");
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
    ledger_check::puts_never_overlap(&crew.target);
}

async fn running(crew: &Crew, release: &str) -> String {
    text(&crew.client.release(release).await.unwrap(), "/state").to_owned()
}
