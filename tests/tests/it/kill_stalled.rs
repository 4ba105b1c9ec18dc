//! Workers that are stopped past their leases and go on afterwards, and PUTs that are under way
//! for longer than anybody waits: what leases alone cannot prevent.

use colophon_testkit::{
    image::ImageSpec,
    proxy::{Action, Exchange, Fault, Rule},
    wait::wait_until,
};
use colophon_tests::PATIENCE;
use http::Method;

use crate::{
    kill::{Crew, LONG_TIMES},
    ledger_check,
    release_scene::attempts,
};

/// Times that really pass: long enough for a test to stop a worker within them.
const STALLS: &str = "lease = \"6s\"\nput_timeout = \"3s\"\ngrace = \"500ms\"\n\
                      consistency_window = \"500ms\"\npoll_interval = \"50ms\"\n\
                      backoff_min = \"50ms\"\nbackoff_max = \"500ms\"";

/// A crew whose target has the tag `app:1` at an old image, and a new image in the source.
/// `setting` is a line of `[worker]` that goes before the usual one, or empty.
async fn scene(workers: usize, setting: &str) -> (Crew, String) {
    let name = setting.split(" = ").next().unwrap_or_default();
    let others = STALLS.lines().filter(|line| name.is_empty() || !line.starts_with(name));
    let times = others.chain([setting]).collect::<Vec<_>>().join("\n");
    let crew = Crew::with(&times, workers).await;
    let old = crew.image(&ImageSpec::tiny("old"), "app").await;
    crew.publish_well(&old, "app", &[], &["1"]).await;
    let new = crew.image(&ImageSpec::tiny("new"), "app").await;
    (crew, new)
}

fn put(crew: &Crew, action: Action) -> Fault {
    let rule = Rule::new(action).method(Method::PUT).path("/v2/app/manifests/1");
    crew.target.proxy().add(rule)
}

fn puts(crew: &Crew) -> usize {
    ledger_check::tag_puts(&crew.target, "app", "1").len()
}

async fn words(crew: &Crew) -> String {
    ledger_check::story(&crew.world, &crew.target, "app", "1").await.words()
}

async fn check(crew: &Crew) {
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}

/// The worker that was stopped has seen that it is too late.
async fn knows(crew: &mut Crew, index: usize, words: &str) {
    crew.workers[index].process().until_log(words, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_worker_that_sleeps_over_the_answer_changes_nothing_when_it_wakes() {
    let (mut crew, new) = scene(2, "").await;
    let fault = put(&crew, Action::HoldAfter);
    let release = crew.publish(&new, "app", &[], &["1"]).await;
    fault.reached(PATIENCE).await.unwrap();
    let sleeper = crew.holder(&release, "floating").await;
    crew.workers[sleeper].freeze().await.unwrap();
    crew.succeeds(&release).await;
    let (before, sent) = (words(&crew).await, puts(&crew));
    assert_eq!(before, "intent confirmed intent recovered");
    fault.forward();
    crew.workers[sleeper].go_on().unwrap();
    knows(&mut crew, sleeper, "the lease was lost").await;
    assert_eq!((words(&crew).await, puts(&crew)), (before, sent));
    // It is as good a worker as before.
    works_alone(&mut crew, sleeper).await;
    check(&crew).await;
}

#[tokio::test]
async fn a_worker_that_sleeps_over_its_lease_sends_no_put() {
    let (mut crew, new) = scene(2, "").await;
    let (release, sleeper) = asleep_before_the_put(&mut crew, &new).await;
    crew.succeeds(&release).await;
    let (before, sent) = (words(&crew).await, puts(&crew));
    assert_eq!(before, "intent confirmed intent not_applied intent confirmed");
    crew.workers[sleeper].go_on().unwrap();
    works_alone(&mut crew, sleeper).await;
    check(&crew).await;
    assert_eq!(words(&crew).await, format!("{before} intent confirmed"));
    assert_eq!(puts(&crew), sent + 1, "only the PUT of the release that followed");
}

/// The lease is still good when the worker wakes, and the time for the PUT is over: somebody has
/// looked, and found that it never came.
#[tokio::test]
async fn a_worker_that_sleeps_over_its_deadline_sends_no_put() {
    let (mut crew, new) = scene(2, "lease = \"15s\"").await;
    let (release, sleeper) = asleep_before_the_put(&mut crew, &new).await;
    crew.intent_is_closed("app", "1").await;
    assert_eq!(words(&crew).await, "intent confirmed intent not_applied");
    let sent = puts(&crew);
    crew.workers[sleeper].go_on().unwrap();
    crew.succeeds(&release).await;
    assert_eq!(words(&crew).await, "intent confirmed intent not_applied intent confirmed");
    assert_eq!(puts(&crew), sent + 1);
    check(&crew).await;
}

/// A worker stopped when its intent is committed and its PUT is not sent: the first transaction
/// is held while it commits, so that its client hears of it only when it wakes.
async fn asleep_before_the_put(crew: &mut Crew, source: &str) -> (String, usize) {
    let mut stop = crew.stop_commits("open_intent", "true").await;
    let release = crew.publish(source, "app", &[], &["1"]).await;
    crew.somebody_waits_for(&mut stop).await;
    let sleeper = crew.holder(&release, "floating").await;
    crew.workers[sleeper].freeze().await.unwrap();
    stop.release().await;
    crew.let_commits_pass().await;
    (release, sleeper)
}

#[tokio::test]
async fn a_worker_that_sleeps_within_a_transaction_does_not_keep_its_locks() {
    let (mut crew, new) = scene(2, "").await;
    let (release, sleeper) = asleep_in_a_transaction(&mut crew, &new).await;
    crew.succeeds(&release).await;
    assert_eq!(words(&crew).await, "intent confirmed intent confirmed");
    crew.workers[sleeper].go_on().unwrap();
    works_alone(&mut crew, sleeper).await;
    check(&crew).await;
}

#[tokio::test]
async fn a_worker_that_loses_its_transaction_but_not_its_lease_tries_again() {
    let (mut crew, new) = scene(1, "lease = \"40s\"").await;
    let (release, sleeper) = asleep_in_a_transaction(&mut crew, &new).await;
    let broken_off = async || {
        let open: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
                            AND state LIKE 'idle in transaction%')",
        )
        .fetch_one(crew.world.database().pool())
        .await
        .unwrap();
        (!open).then_some(())
    };
    wait_until("the database breaks the transaction off", PATIENCE, broken_off).await.unwrap();
    crew.workers[sleeper].go_on().unwrap();
    crew.succeeds(&release).await;
    assert_eq!(words(&crew).await, "intent confirmed intent confirmed");
    check(&crew).await;
}

/// A worker stopped within its first transaction of a move.
async fn asleep_in_a_transaction(crew: &mut Crew, source: &str) -> (String, usize) {
    let rule = Rule::new(Action::HoldAfter).method(Method::HEAD).path("/v2/app/manifests/1");
    let fault = crew.target.proxy().add(rule);
    let release = crew.publish(source, "app", &[], &["1"]).await;
    fault.reached(PATIENCE).await.unwrap();
    let mut lock = crew.lock_head("app", "1").await;
    fault.forward();
    crew.somebody_waits_for(&mut lock).await;
    let sleeper = crew.holder(&release, "floating").await;
    crew.workers[sleeper].freeze().await.unwrap();
    lock.release().await;
    (release, sleeper)
}

/// One more release of the same tag, with nobody else to work on it.
async fn works_alone(crew: &mut Crew, index: usize) {
    for (other, node) in crew.workers.iter_mut().enumerate() {
        if other != index {
            node.stop().await.unwrap();
        }
    }
    let next = crew.image(&ImageSpec::tiny("next"), "app").await;
    crew.publish_well(&next, "app", &["next"], &["1"]).await;
}

#[tokio::test]
async fn a_put_that_lands_before_anybody_looks_is_recovered() {
    // Long enough for the test to let the PUT go once it is given up.
    let (crew, new) = scene(2, "grace = \"6s\"").await;
    let fault = put(&crew, Action::HoldBefore);
    let release = crew.publish(&new, "app", &[], &["1"]).await;
    fault.reached(PATIENCE).await.unwrap();
    tag_becomes(&crew, &release, "TAG_MOVE_STATE_UNKNOWN").await;
    fault.forward();
    let ended = crew.succeeds(&release).await;
    assert_eq!(words(&crew).await, "intent confirmed intent recovered");
    // The PUT whose answer never came was one; waiting for what became of it is none.
    assert_eq!(attempts(&ended), ["REGISTRY_UNAVAILABLE"], "{ended:#}");
    check(&crew).await;
}

#[tokio::test]
async fn a_put_that_lands_long_after_is_found_and_said() {
    let (crew, first) = scene(2, "").await;
    let fault = put(&crew, Action::HoldBefore);
    let release = crew.publish(&first, "app", &[], &["1"]).await;
    fault.reached(PATIENCE).await.unwrap();
    crew.succeeds(&release).await;
    let before = "intent confirmed intent not_applied intent confirmed";
    assert_eq!(words(&crew).await, before);
    // Meanwhile the tag goes on to another image, and then the old PUT arrives after all.
    let second = crew.image(&ImageSpec::tiny("second"), "app").await;
    crew.publish_well(&second, "app", &[], &["1"]).await;
    let peer = crew.target.peer().unwrap();
    fault.forward();
    let (_, first_digest) = first.split_once('@').unwrap();
    // docker-registry answers 500 to who reads a tag while it is being written.
    let back = async || {
        let served = peer.digest_of("app", "1").await.ok().flatten();
        (served.as_deref() == Some(first_digest)).then_some(())
    };
    wait_until("the old PUT lands", PATIENCE, back).await.unwrap();
    // The next one who looks says so, and the tag goes where it should be.
    let ended = crew.publish(&second, "app", &[], &["1"]).await;
    let ended = crew.succeeds(&ended).await;
    assert_eq!(ended["publications"][0]["tags"][0]["oldDigest"], first_digest);
    let told = format!("{before} intent confirmed drift intent confirmed");
    assert_eq!(words(&crew).await, told);
    check(&crew).await;
}

async fn tag_becomes(crew: &Crew, release: &str, state: &str) {
    let seen = |release: &serde_json::Value| {
        release["publications"][0]["tags"][0]["state"].as_str() == Some(state)
    };
    crew.client.wait_release(release, PATIENCE, seen).await.unwrap();
}

/// Whoever looks after an interrupted move may die over it as well.
#[tokio::test]
async fn a_reconciler_that_dies_is_replaced() {
    let (mut crew, new) = scene(1, "").await;
    let fault = put(&crew, Action::HoldAfter);
    let release = crew.publish(&new, "app", &[], &["1"]).await;
    fault.reached(PATIENCE).await.unwrap();
    crew.kill_holder(&release, "floating").await;
    let rule = Rule::new(Action::HoldBefore).method(Method::HEAD).path("/v2/app/manifests/1");
    let look = crew.target.proxy().add(rule);
    crew.hire().await;
    look.reached(PATIENCE).await.unwrap();
    // The job waits for the outcome; the only HEAD there is is the reconciler's.
    crew.kill(0);
    crew.hire().await;
    crew.succeeds(&release).await;
    look.forward();
    assert_eq!(words(&crew).await, "intent confirmed intent recovered");
    check(&crew).await;
}

/// A job looks at its tags a few at a time. What became of a later one while it was busy with the
/// first ones is not done, or said, a second time.
#[tokio::test]
async fn a_tag_that_was_settled_meanwhile_is_left_alone() {
    let mut crew = Crew::with(LONG_TIMES, 1).await;
    let source = crew.image(&ImageSpec::tiny("one"), "app").await;
    let proxy = crew.target.proxy();
    let first_four = |exchange: &Exchange| {
        ["a", "b", "c", "d"].contains(&exchange.reference()) && exchange.method == Method::HEAD
    };
    proxy.add(Rule::new(Action::DropBefore).when(first_four).always());
    let rule = Rule::new(Action::HoldAfter).method(Method::PUT).path("/v2/app/manifests/e");
    let fault = proxy.add(rule);
    let release = crew.publish(&source, "app", &[], &["a", "b", "c", "d", "e"]).await;
    fault.reached(PATIENCE).await.unwrap();
    crew.kill_holder(&release, "floating").await;
    fault.drop_connections();

    let proxy = crew.target.proxy();
    proxy.clear();
    // One of the first must fail once more, or the job is over with them.
    let again = Rule::new(Action::DropBefore).method(Method::HEAD).path("/v2/app/manifests/d");
    proxy.add(again.times(4));
    let looks = proxy.add(Rule::new(Action::HoldBefore).when(first_four).times(3));
    crew.lease_ends(&release).await;
    crew.hire().await;
    looks.reached_times(3, PATIENCE).await.unwrap();
    crew.intents_are_due(&release).await;
    crew.intent_is_closed("app", "e").await;
    looks.forward();
    let ended = crew.succeeds(&release).await;
    let states = ended["publications"][0]["tags"].as_array().unwrap();
    assert!(states.iter().all(|tag| tag["state"] == "TAG_MOVE_STATE_MOVED"), "{ended:#}");
    let story = ledger_check::story(&crew.world, &crew.target, "app", "e").await;
    assert_eq!(story.words(), "intent recovered");
    check(&crew).await;
}
