//! Rollbacks: whatever was accepted before one comes too late, and what comes after it does not.

use crate::{
    base::{digest, numbered, rollback},
    hand::Hand,
};

const LATEST: &[(&str, &[&str], &[&str])] = &[("source", &[], &["latest"])];

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_before_a_rollback_comes_too_late() {
    let mut hand = Hand::new().await;
    hand.publish(&numbered(LATEST, 10), 1).await;
    hand.publish(&numbered(LATEST, 11), 2).await;
    // Accepted before the rollback, with greater keys; one is slow, one has not begun.
    let slow = hand.accept(&numbered(LATEST, 99), 3).await;
    let job = hand.claim().await;
    let queued = hand.accept(&numbered(LATEST, 98), 4).await;
    let back = hand.accept(&rollback("source", "latest", &digest(1)), 1).await;
    // The barrier is there from the acceptance on, and not only when the rollback has moved.
    hand.work(&job).await;
    assert_eq!(hand.tag(slow, "source:latest").await.state, "SUPERSEDED");
    assert_eq!(hand.serves("source:latest"), Some(digest(2)));
    hand.work_all().await;
    assert_eq!(hand.tag(queued, "source:latest").await.state, "SUPERSEDED");
    assert_eq!(hand.release(queued).await.reason.as_deref(), Some("SUPERSEDED"));
    assert_eq!(hand.release(back).await.state, "SUCCEEDED");
    assert_eq!(hand.serves("source:latest"), Some(digest(1)));
    let recorded = "SELECT count(*) FROM audit_entry WHERE purpose = 'rollback'";
    assert_eq!(hand.base.count(recorded).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_keeps_the_order_key_and_lets_the_next_build_through() {
    let mut hand = Hand::new().await;
    hand.publish(&numbered(LATEST, 10), 1).await;
    hand.publish(&numbered(LATEST, 11), 2).await;
    hand.publish(&rollback("source", "latest", &digest(1)), 1).await;
    let key = "SELECT order_value FROM tag_head";
    assert_eq!(hand.base.text(key).await.unwrap(), "11");
    let older = hand.publish(&numbered(LATEST, 10), 1).await;
    assert_eq!(hand.tag(older, "source:latest").await.reason.as_deref(), Some("ORDER_REGRESSION"));
    let next = hand.publish(&numbered(LATEST, 12), 3).await;
    assert_eq!(hand.release(next).await.state, "SUCCEEDED");
    assert_eq!(hand.serves("source:latest"), Some(digest(3)));
}

/// Of two rollbacks the one that was accepted last decides, whichever comes first.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_rollback_decides() {
    let mut hand = Hand::new().await;
    hand.publish(&numbered(LATEST, 10), 1).await;
    hand.publish(&numbered(LATEST, 11), 2).await;
    let first = hand.accept(&rollback("source", "latest", &digest(1)), 1).await;
    let last = hand.accept(&rollback("source", "latest", &digest(7)), 7).await;
    let jobs = hand.base.claim(2).await;
    for job in jobs.iter().rev() {
        hand.work(job).await;
    }
    assert_eq!(hand.tag(first, "source:latest").await.state, "SUPERSEDED");
    assert_eq!(hand.tag(last, "source:latest").await.state, "MOVED");
    assert_eq!(hand.serves("source:latest"), Some(digest(7)));
}

/// A rollback that did not come about keeps nobody from anything; the one before it still does.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_is_cancelled_lifts_its_barrier() {
    let mut hand = Hand::new().await;
    hand.publish(&numbered(LATEST, 10), 1).await;
    let before = hand.accept(&numbered(LATEST, 11), 2).await;
    let job = hand.claim().await;
    let first = hand.accept(&rollback("source", "latest", &digest(7)), 7).await;
    let between = hand.accept(&numbered(LATEST, 12), 3).await;
    let second = hand.accept(&rollback("source", "latest", &digest(8)), 8).await;
    hand.base.store.cancel_release(second, "bot", "").await.unwrap();
    hand.work(&job).await;
    assert_eq!(hand.tag(before, "source:latest").await.state, "SUPERSEDED");
    hand.work_all().await;
    assert_eq!(hand.tag(first, "source:latest").await.state, "MOVED");
    assert_eq!(hand.tag(between, "source:latest").await.state, "MOVED");
    assert_eq!(hand.serves("source:latest"), Some(digest(3)));
}

/// Two rollbacks of one tag are stopped at the same moment: no barrier is left of either.
#[tokio::test(flavor = "multi_thread")]
async fn two_rollbacks_that_end_together_leave_no_barrier() {
    let mut hand = Hand::new().await;
    hand.publish(&numbered(LATEST, 10), 1).await;
    let before = hand.accept(&numbered(LATEST, 11), 2).await;
    let first = hand.accept(&rollback("source", "latest", &digest(7)), 7).await;
    let second = hand.accept(&rollback("source", "latest", &digest(8)), 8).await;
    // Both come as far as the tag before either can go on.
    let mut gate = hand.base.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM tag_head FOR UPDATE").execute(&mut *gate).await.unwrap();
    let stop = |id| {
        let store = hand.base.store.clone();
        tokio::spawn(async move { store.cancel_release(id, "bot", "").await })
    };
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let mut stopping = Vec::new();
    for (id, number) in [(second, 1), (first, 2)] {
        stopping.push(stop(id));
        while hand.base.count(waiting).await < number
            && !stopping.iter().all(tokio::task::JoinHandle::is_finished)
        {
            tokio::task::yield_now().await;
        }
    }
    gate.commit().await.unwrap();
    for stopping in stopping {
        stopping.await.unwrap().unwrap();
    }
    let barriers = "SELECT count(*) FROM tag_head WHERE barrier_release IS NOT NULL";
    assert_eq!(hand.base.count(barriers).await, 0);
    hand.work_all().await;
    assert_eq!(hand.tag(before, "source:latest").await.state, "MOVED");
}
