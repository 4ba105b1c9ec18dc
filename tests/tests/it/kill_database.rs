//! PostgreSQL dies, or is stopped in order, in the middle of releases: everything goes on where
//! it was.

use std::time::Duration;

use colophon_testkit::{
    image::ImageSpec,
    launcher::PostgresOptions,
    proxy::{Action, Rule},
    wait::wait_until,
};
use colophon_tests::{PATIENCE, World, request};
use http::Method;
use tokio::time::sleep;

use crate::{
    kill::{Crew, LONG_TIMES, TIMES},
    ledger_check,
};

async fn crew(times: &str) -> Crew {
    let world = World::with_own_postgres(PostgresOptions::default()).await.unwrap();
    Crew::on(world, times, 2).await
}

/// The database is away while the answer of a PUT arrives, and back before the intent's time
/// runs out: the worker writes down what it saw, nobody has to look again.
#[tokio::test]
async fn a_short_absence_costs_no_second_look() {
    let crew = crew(LONG_TIMES).await;
    let release = cut_off_at_the_answer(&crew, async |crew| {
        crew.world.database().server().lock().await.kill();
    })
    .await;
    crew.world.database().server().lock().await.resume().await.unwrap();
    crew.succeeds(&release).await;
    let story = ledger_check::story(&crew.world, &crew.target, "app", "1").await;
    assert_eq!(story.words(), "intent confirmed", "{}", crew.logs());
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}

/// The database is away for longer than leases and intents last.
#[tokio::test]
async fn a_long_absence_is_survived() {
    let crew = crew(TIMES).await;
    let release = cut_off_at_the_answer(&crew, async |crew| {
        crew.world.database().server().lock().await.stop().await.unwrap();
        // Longer than the lease, and than the deadline with its grace.
        sleep(Duration::from_secs(4)).await;
    })
    .await;
    crew.world.database().server().lock().await.resume().await.unwrap();
    crew.succeeds(&release).await;
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}

/// Holds the answer of the floating tag's PUT while `meanwhile` happens.
async fn cut_off_at_the_answer(crew: &Crew, meanwhile: impl AsyncFnOnce(&Crew)) -> String {
    let source = crew.image(&ImageSpec::tiny("one"), "app").await;
    let rule = Rule::new(Action::HoldAfter).method(Method::PUT).path("/v2/app/manifests/1");
    let rule = rule.when(|exchange| exchange.path.ends_with("/1"));
    let fault = crew.target.proxy().add(rule);
    let release = crew.publish(&source, "app", &["1.0.0"], &["1"]).await;
    fault.reached(PATIENCE).await.unwrap();
    meanwhile(crew).await;
    fault.forward();
    release
}

/// Publishes as pipelines do: the same request under the same key, until it is accepted.
async fn accepted(crew: &Crew, source: &str, unique: &str) -> String {
    let target = crew.target.repository("app");
    let mut wanted = request(source, &[(&target, &[unique], &["1"])]);
    wanted["idempotencyKey"] = unique.into();
    let answered = async || {
        let answer = crew.client.create(&wanted).await.unwrap();
        (answer.text("/reason") != "DATABASE_UNAVAILABLE").then_some(answer)
    };
    let answer = wait_until("the release is accepted", PATIENCE, answered).await.unwrap();
    answer.good().unwrap()["id"].as_str().unwrap().to_owned()
}

/// The server is killed again and again while releases run.
#[tokio::test]
async fn crashes_in_the_middle_lose_nothing() {
    let crew = crew(TIMES).await;
    let mut releases = Vec::new();
    for number in 0..4 {
        let source = crew.image(&ImageSpec::tiny(format!("image {number}")), "app").await;
        let unique = format!("1.0.{number}");
        releases.push(accepted(&crew, &source, &unique).await);
        sleep(Duration::from_millis(40 * number)).await;
        crew.world.database().server().lock().await.restart().await.unwrap();
    }
    for release in &releases {
        let ended = crew.client.wait_end(release).await;
        let ended = ended.unwrap_or_else(|error| panic!("{error}\n{}", crew.logs()));
        let reason = ended["stateReason"].as_str().unwrap();
        assert!(["", "SUPERSEDED"].contains(&reason), "{ended:#}\n{}", crew.logs());
    }
    crew.succeeds(releases.last().unwrap()).await;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM release")
        .fetch_one(crew.world.database().pool())
        .await
        .unwrap();
    assert_eq!(usize::try_from(count).unwrap(), releases.len(), "one release for each key");
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
    ledger_check::puts_never_overlap(&crew.target);
}
