//! A worker whose job was taken away, and who does not know: no clock and no death helps here,
//! only the fence in each of its transactions. The test takes the job away while the worker's
//! transaction waits for it.

use colophon_testkit::{
    image::ImageSpec,
    proxy::{Action, Rule},
    wait::wait_until,
};
use colophon_tests::PATIENCE;
use http::Method;

use crate::{
    kill::{Crew, LONG_TIMES},
    ledger_check,
};

#[tokio::test]
async fn a_copy_ends_only_in_the_hands_of_its_holder() {
    let rule = Rule::new(Action::HoldAfter).method(Method::PUT).path("/v2/app/manifests/sha256:");
    let crew = taken_away("copy", rule).await;
    ends(&crew, "intent confirmed").await;
}

#[tokio::test]
async fn an_intent_is_written_only_by_the_holder() {
    let rule = Rule::new(Action::HoldAfter).method(Method::HEAD).path("/v2/app/manifests/1");
    let crew = taken_away("floating", rule).await;
    ends(&crew, "intent confirmed").await;
}

#[tokio::test]
async fn an_outcome_is_written_only_by_the_holder() {
    let rule = Rule::new(Action::HoldAfter).method(Method::PUT).path("/v2/app/manifests/1");
    let crew = taken_away("floating", rule).await;
    ends(&crew, "intent recovered").await;
}

/// Brings a worker to the request of the rule, and takes its job away before its next
/// transaction. Afterwards the job waits for its next holder, untouched.
async fn taken_away(kind: &str, rule: Rule) -> (Crew, String) {
    // No renewal and no expiry comes between.
    let crew = Crew::with(&LONG_TIMES.replace("60s", "10m"), 1).await;
    let source = crew.image(&ImageSpec::tiny("one"), "app").await;
    let fault = crew.target.proxy().add(rule);
    let release = crew.publish(&source, "app", &[], &["1"]).await;
    fault.reached(PATIENCE).await.unwrap();
    crew.holder(&release, kind).await;

    let mut lock = crew.lock_job(&release, kind).await;
    fault.forward();
    let waiting = crew.somebody_waits_for(&mut lock).await;
    lock.take_away(&release, kind).await;
    let over = async || {
        let state: Option<String> =
            sqlx::query_scalar("SELECT state FROM pg_stat_activity WHERE pid = $1")
                .bind(waiting)
                .fetch_optional(crew.world.database().pool())
                .await
                .unwrap();
        (state.as_deref() != Some("active") && state.as_deref() != Some("idle in transaction"))
            .then_some(())
    };
    wait_until("the worker's transaction is over", PATIENCE, over).await.unwrap();
    let state: String =
        sqlx::query_scalar("SELECT state FROM job WHERE release_id = $1::uuid AND kind = $2")
            .bind(&release)
            .bind(kind)
            .fetch_one(crew.world.database().pool())
            .await
            .unwrap();
    assert_eq!(state, "queued", "it is not the worker's any more\n{}", crew.logs());
    (crew, release)
}

/// The job's next holder finishes it.
async fn ends((crew, release): &(Crew, String), wanted: &str) {
    crew.intents_are_due(release).await;
    sqlx::query("UPDATE job SET run_at = colophon_now() WHERE release_id = $1::uuid")
        .bind(release)
        .execute(crew.world.database().pool())
        .await
        .unwrap();
    crew.succeeds(release).await;
    let story = ledger_check::story(&crew.world, &crew.target, "app", "1").await.words();
    assert_eq!(story, wanted, "{}", crew.logs());
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}
