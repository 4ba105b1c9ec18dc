//! Freezes: no intent is committed that has not seen them, and whoever waits is woken.

use std::time::Duration;

use colophon_domain::{FreezeRequest, Reason, Retry};
use colophon_store::{Begun, Look, Waiting};
use sqlx::Connection as _;
use time::macros::datetime;

use crate::{
    base::{Base, digest, request},
    hand::{GRACE, Hand, WINDOW},
};

/// For an hour of the held clock.
pub(crate) fn freeze(pattern: &str) -> FreezeRequest {
    FreezeRequest {
        pattern: pattern.parse().unwrap(),
        reason: "a holiday".into(),
        ends_at: datetime!(2026-01-01 01:00:00 UTC),
    }
}

const LATEST: &[(&str, &[&str], &[&str])] = &[("source", &[], &["latest"])];

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_stops_moves_until_it_is_lifted() {
    let mut hand = Hand::new().await;
    let elsewhere = hand.base.store.create_freeze("op", &freeze("r.test/a")).await.unwrap();
    hand.publish(&request(LATEST), 1).await;
    assert_eq!(hand.serves("source:latest"), Some(digest(1)));
    for pattern in ["*", "r.test/*", "r.test/source"] {
        let id = hand.accept(&request(LATEST), 2).await;
        let job = hand.claim().await;
        let step = hand.step(&job).await;
        let frozen = hand.base.store.create_freeze("op", &freeze(pattern)).await.unwrap();
        assert_eq!(hand.begin(&step).await.unwrap(), Begun::Stale, "{pattern}");
        let told = hand.base.store.head(&step).await.unwrap().frozen.unwrap();
        assert!(told.what.contains("a holiday"), "{}", told.what);
        hand.base.store.lift_freeze(frozen, "op", "over").await.unwrap();
        assert!(!hand.base.store.freeze(frozen).await.unwrap().unwrap().active);
        hand.work(&job).await;
        assert_eq!(hand.release(id).await.state, "SUCCEEDED");
        hand.serve("source:latest", 1);
    }
    assert!(hand.base.store.freeze(elsewhere).await.unwrap().unwrap().active);
    assert_eq!(hand.base.store.freezes(false).await.unwrap().len(), 1);
    assert_eq!(hand.base.store.freezes(true).await.unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_ends_by_itself() {
    let hand = Hand::new().await;
    hand.base.store.create_freeze("op", &freeze("*")).await.unwrap();
    hand.accept(&request(LATEST), 1).await;
    hand.base.pass(Duration::from_secs(3_599)).await;
    let job = hand.claim().await;
    let step = hand.step(&job).await;
    assert_eq!(hand.begin(&step).await.unwrap(), Begun::Stale);
    hand.base.pass(Duration::from_secs(1)).await;
    assert!(matches!(hand.begin(&step).await.unwrap(), Begun::Intent(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_glass_is_said_where_it_was_broken() {
    let mut hand = Hand::new().await;
    let mut wanted = request(LATEST);
    wanted.break_glass = true;
    hand.publish(&wanted, 1).await;
    let broken = "SELECT count(*) FROM audit_entry WHERE reason_code = 'BREAK_GLASS'";
    assert_eq!(hand.base.count(broken).await, 0);
    hand.base.store.create_freeze("op", &freeze("*")).await.unwrap();
    let id = hand.publish(&wanted, 2).await;
    assert_eq!(hand.release(id).await.state, "SUCCEEDED");
    assert_eq!(hand.base.count(broken).await, 1);
}

/// An intent is under way, held by somebody's lock on its reference: the freeze is not there
/// before it is committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_waits_for_an_intent_that_is_being_committed() {
    let hand = Hand::new().await;
    hand.accept(&request(LATEST), 1).await;
    let job = hand.claim().await;
    let step = hand.step(&job).await;
    let mut other = hand.base.pool.acquire().await.unwrap();
    let mut held = other.begin().await.unwrap();
    sqlx::raw_sql("SELECT FROM tag_head FOR UPDATE").execute(&mut *held).await.unwrap();

    let store = hand.base.store.clone();
    let begins = tokio::spawn({
        let store = store.clone();
        async move { store.begin_move(&step, 0, Look::now(None), WINDOW, GRACE).await }
    });
    waits_for_a_lock(&hand.base, 1).await;
    let freezes = tokio::spawn(async move { store.create_freeze("op", &freeze("*")).await });
    waits_for_a_lock(&hand.base, 2).await;
    assert_eq!(hand.base.count("SELECT count(*) FROM tag_freeze").await, 0);
    assert!(!freezes.is_finished());

    held.commit().await.unwrap();
    let begun = begins.await.unwrap().unwrap();
    assert!(matches!(begun, Begun::Intent(_)), "it saw no freeze");
    freezes.await.unwrap().unwrap();
    assert_eq!(hand.base.count("SELECT count(*) FROM tag_freeze").await, 1);
}

/// A freeze is being committed, held by somebody's lock on its table: an intent waits, and sees it.
#[tokio::test(flavor = "multi_thread")]
async fn an_intent_waits_for_a_freeze_that_is_being_committed() {
    let hand = Hand::new().await;
    hand.accept(&request(LATEST), 1).await;
    let job = hand.claim().await;
    let step = hand.step(&job).await;
    let mut other = hand.base.pool.acquire().await.unwrap();
    let mut held = other.begin().await.unwrap();
    let lock = "LOCK TABLE tag_freeze IN SHARE MODE";
    sqlx::raw_sql(lock).execute(&mut *held).await.unwrap();

    let store = hand.base.store.clone();
    let freezes = tokio::spawn({
        let store = store.clone();
        async move { store.create_freeze("op", &freeze("*")).await }
    });
    waits_for_a_lock(&hand.base, 1).await;
    let begins =
        tokio::spawn(
            async move { store.begin_move(&step, 0, Look::now(None), WINDOW, GRACE).await },
        );
    waits_for_a_lock(&hand.base, 2).await;
    assert!(!begins.is_finished());

    held.commit().await.unwrap();
    freezes.await.unwrap().unwrap();
    assert_eq!(begins.await.unwrap().unwrap(), Begun::Stale);
    assert_eq!(hand.base.count("SELECT count(*) FROM audit_entry").await, 0);
}

/// Waits until so many backends of the test's database wait for a lock.
async fn waits_for_a_lock(base: &Base, backends: i64) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE wait_event_type = 'Lock' AND datname = current_database()";
    for _ in 0..500 {
        if base.count(waiting).await == backends {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{backends} backends never waited");
}

/// Whichever is first: when the freeze is there, nobody can commit an intent any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_and_an_intent_race() {
    let hand = Hand::new().await;
    let (mut first, mut late) = (0, 0);
    for round in 0..30_u64 {
        let mut wanted = request(LATEST);
        wanted.targets[0].tags[0].tag = format!("t{round}").parse().unwrap();
        hand.accept(&wanted, 1).await;
        let job = hand.claim().await;
        let step = hand.step(&job).await;
        let moves = async {
            hand.base.store.begin_move(&step, 0, Look::now(None), WINDOW, GRACE).await.unwrap()
        };
        let create = async {
            if round % 2 == 1 {
                tokio::time::sleep(Duration::from_millis(round % 3)).await;
            }
            let frozen = hand.base.store.create_freeze("op", &freeze("*")).await.unwrap();
            (frozen, hand.base.count("SELECT count(*) FROM audit_entry").await)
        };
        let ((frozen, known), begun) = tokio::join!(create, moves);
        assert_eq!(hand.base.count("SELECT count(*) FROM audit_entry").await, known);
        match begun {
            Begun::Intent(_) => first += 1,
            Begun::Stale => {
                late += 1;
                assert_eq!(hand.begin(&step).await.unwrap(), Begun::Stale);
            }
        }
        hand.base.store.lift_freeze(frozen, "op", "").await.unwrap();
        if begun == Begun::Stale {
            assert!(matches!(hand.begin(&step).await.unwrap(), Begun::Intent(_)));
        }
    }
    println!("{first} intents before a freeze, {late} behind one");
    assert_eq!(first + late, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn lifting_a_freeze_wakes_who_waits_for_it() {
    let hand = Hand::new().await;
    let frozen = hand.base.store.create_freeze("op", &freeze("*")).await.unwrap();
    hand.accept(&request(LATEST), 1).await;
    hand.accept(&request(&[("source", &[], &["other"])]), 1).await;
    let (waits, sleeps) = (hand.claim().await, hand.claim().await);
    let hour = Duration::from_hours(1);
    let thaw = Waiting::on_freeze("the freeze".into(), hour);
    hand.base.store.wait(waits.lease, &thaw).await.unwrap();
    let vault = Waiting::on("vault is sealed", Some(Reason::Frozen), hour);
    hand.base.store.wait(sleeps.lease, &vault).await.unwrap();
    let reason = "SELECT waiting_reason FROM job WHERE blocked_on = 'freezes'";
    assert_eq!(hand.base.text(reason).await.unwrap(), "FROZEN");
    assert!(hand.base.claim(5).await.is_empty());
    hand.base.store.lift_freeze(frozen, "op", "over").await.unwrap();
    let woken = hand.base.claim(5).await;
    assert_eq!(woken.iter().map(|job| job.lease.job).collect::<Vec<_>>(), [waits.lease.job]);
}

#[tokio::test(flavor = "multi_thread")]
async fn not_after_ends_a_wait_early_and_none_is_as_long_as_asked() {
    let hand = Hand::new().await;
    let mut wanted = request(LATEST);
    wanted.not_after = Some(datetime!(2026-01-01 00:00:10 UTC));
    hand.accept(&wanted, 1).await;
    let job = hand.claim().await;
    let minute = Waiting::on("nothing", None, Duration::from_mins(1));
    hand.base.store.wait(job.lease, &minute).await.unwrap();
    let due = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(hand.base.store.next_due().await.unwrap(), due(10));
    hand.base.pass(Duration::from_secs(11)).await;
    let job = hand.claim().await;
    assert!(job.late);
    // Late or not, an outcome is waited for without a hurry.
    hand.base.store.wait(job.lease, &minute).await.unwrap();
    assert_eq!(hand.base.store.next_due().await.unwrap(), due(60));
    let other = hand.accept(&request(&[("source", &[], &["other"])]), 1).await;
    let job = hand.claim().await;
    assert_eq!(job.release, other);
    let short = Waiting::on("nothing", None, Duration::from_secs(30));
    hand.base.store.wait(job.lease, &short).await.unwrap();
    assert_eq!(hand.base.store.next_due().await.unwrap(), due(30));
}

/// What is put back is frozen like everything else, and comes when the freeze ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_put_back_waits_for_the_end_of_a_freeze() {
    let mut hand = Hand::new().await;
    hand.serve("source:latest", 9);
    hand.denied.insert("source:stable");
    let id = hand.accept(&request(&[("source", &[], &["latest", "stable"])]), 1).await;
    let job = hand.claim().await;
    hand.work(&job).await;
    let frozen = hand.base.store.create_freeze("op", &freeze("*")).await.unwrap();
    let job = hand.claim().await;
    let step = hand.step(&job).await;
    assert_eq!(hand.begin(&step).await.unwrap(), Begun::Stale);
    hand.base.store.lift_freeze(frozen, "op", "").await.unwrap();
    hand.work(&job).await;
    assert_eq!(hand.tag(id, "source:latest").await.state, "RESTORED");
    let away = hand.base.store.retry(job.lease, &crate::hand::denied(), Duration::ZERO).await;
    assert!(matches!(away.unwrap_err().retry_class(), Retry::Never));
}
