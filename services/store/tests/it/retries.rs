//! Releases that are put to work again while others work on the same tags, or while what is old is
//! let go of.

use std::time::Duration;

use colophon_domain::{Expected, Failure, Reason, Result};
use colophon_store::Look;
use uuid::Uuid;

use crate::{
    base::{digest, request},
    hand::{Hand, denied},
};

const TWO: &[(&str, &[&str], &[&str])] = &[("a", &[], &["latest"]), ("b", &[], &["latest"])];

async fn retry(hand: &Hand, id: Uuid) -> Result<bool> {
    hand.base.store.retry_release(id, "op", "again").await
}

fn blocked<T>(done: Result<T>) {
    assert_eq!(done.err().as_ref().map(Failure::reason), Some(Reason::ReferenceBlocked));
}

/// A release that has moved `a` from 9 to 1, failed for `b`, and could not put `a` back.
async fn stuck() -> (Hand, Uuid) {
    let mut hand = Hand::new().await;
    hand.serve("a:latest", 9);
    hand.denied.insert("b:latest");
    let id = hand.accept(&request(TWO), 1).await;
    hand.works(4).await;
    hand.denied.insert("a:latest");
    hand.work_all().await;
    assert_eq!(hand.tag(id, "a:latest").await.reason.as_deref(), Some(denied().reason().as_str()));
    assert_eq!(hand.serves("a:latest"), Some(digest(1)));
    hand.denied.remove("a:latest");
    (hand, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_another_release_is_putting_back_is_waited_for() {
    let (mut hand, id) = stuck().await;
    let next = hand.accept(&request(TWO), 3).await;
    hand.works(4).await;
    let job = hand.claim().await;
    let step = hand.step(&job).await;
    assert_eq!(step.wanted, digest(1));
    let intent = hand.intent(&step).await;
    blocked(retry(&hand, id).await);
    assert_eq!(hand.release(id).await.state, "FAILED");
    hand.serve("a:latest", 1);
    let there = digest(1);
    hand.base.store.finish_move(&step, &intent, Look::now(Some(&there)), None).await.unwrap();
    assert_eq!(hand.release(next).await.state, "FAILED");
    // The tag is the first release's again, which still has to put it back if it fails once more.
    retry(&hand, id).await.unwrap();
    hand.work_all().await;
    assert_eq!(hand.release(id).await.state, "FAILED");
    assert_eq!(hand.serves("a:latest"), Some(digest(9)));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_tag_goes_back_to_is_asked_again_after_a_retry() {
    let (mut hand, id) = stuck().await;
    hand.accept(&request(TWO), 3).await;
    hand.works(4).await;
    let job = hand.claim().await;
    let step = hand.step(&job).await;
    retry(&hand, id).await.unwrap();
    blocked(hand.begin(&step).await);
    // Nor is it said to be back because somebody put it there.
    hand.serve("a:latest", 1);
    blocked(hand.settle(&step).await);
    hand.serve("a:latest", 3);
    assert_eq!(hand.step(&job).await.wanted, digest(9));
    hand.work(&job).await;
    assert_eq!(hand.serves("a:latest"), Some(digest(9)));
    hand.work_all().await;
    assert_eq!(hand.release(id).await.state, "FAILED");
    assert_eq!(hand.serves("a:latest"), Some(digest(9)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_run_put_back_says_nothing_of_the_last() {
    let mut hand = Hand::new().await;
    hand.serve("a:latest", 9);
    hand.denied.insert("b:latest");
    let id = hand.publish(&request(TWO), 1).await;
    assert_eq!(hand.tag(id, "a:latest").await.state, "RESTORED");
    hand.denied.clear();
    hand.publish(&request(&TWO[1..]), 3).await;
    retry(&hand, id).await.unwrap();
    hand.work_all().await;
    assert_eq!(hand.release(id).await.reason.as_deref(), Some("SUPERSEDED"));
    assert_eq!(hand.serves("a:latest"), Some(digest(1)));
    // A person moves the tag, and a release sees it that wants it elsewhere.
    hand.serve("a:latest", 7);
    let mut seeing = request(&TWO[..1]);
    seeing.targets[0].tags[0].expected = Some(Expected::At(digest(8)));
    let seeing = hand.publish(&seeing, 4).await;
    assert_eq!(hand.tag(seeing, "a:latest").await.state, "REFUSED");
    retry(&hand, id).await.unwrap();
    hand.work_all().await;
    assert_eq!(hand.serves("a:latest"), Some(digest(7)), "a retry overwrote what came after it");
    assert_eq!(hand.tag(id, "a:latest").await.state, "MOVED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_inherited_from_a_release_that_still_puts_others_back() {
    let mut hand = Hand::new().await;
    hand.serve("a:latest", 9);
    hand.serve("c:latest", 9);
    let older = [("a", &[][..], &["latest"][..]), ("b", &[], &["latest"]), ("c", &[], &["latest"])];
    hand.accept(&request(&older), 1).await;
    // Three copies, and `a`.
    hand.works(4).await;
    let (b, c) = (hand.claim().await, hand.claim().await);
    hand.work(&c).await;
    let id = hand.accept(&request(&[TWO[0], ("d", &[], &["latest"])]), 2).await;
    hand.accept(&request(&[("d", &[], &["latest"])]), 3).await;
    // Three copies, and `a` of the first; `d` of the second comes before `d` of the first.
    hand.works(4).await;
    let d = hand.claim().await;
    hand.works(1).await;
    hand.work(&d).await;
    assert_eq!(hand.release(id).await.reason.as_deref(), Some("SUPERSEDED"));
    assert_eq!(hand.serves("a:latest"), Some(digest(2)));
    // The older one fails, and leaves `a` to the newer one. It is not done with `c`.
    hand.denied.insert("b:latest");
    hand.work(&b).await;
    hand.works(1).await;
    assert_eq!(hand.serves("a:latest"), Some(digest(2)));
    let back = hand.claim().await;
    hand.denied.insert("d:latest");
    retry(&hand, id).await.unwrap();
    hand.work_all().await;
    assert_eq!(hand.release(id).await.state, "FAILED");
    assert_eq!(
        hand.serves("a:latest"),
        Some(digest(9)),
        "left at what a failed release moved it to"
    );
    hand.work(&back).await;
    assert_eq!(hand.serves("c:latest"), Some(digest(9)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_to_work_again_loses_neither_jobs_nor_key() {
    let mut hand = Hand::new().await;
    hand.denied.insert("b:latest");
    let mut wanted = request(TWO);
    wanted.idempotency_key = Some("key".to_owned());
    let id = hand.accept(&wanted, 1).await;
    hand.works(2).await;
    hand.base.pass(Duration::from_secs(1)).await;
    hand.work_all().await;
    hand.base.pass(Duration::from_secs(1)).await;
    let store = hand.base.store.clone();
    let mut retrying = hand.base.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM release WHERE id = $1 FOR UPDATE")
        .bind(id)
        .execute(&mut *retrying)
        .await
        .unwrap();
    assert_eq!(store.forget_jobs(Duration::ZERO, 9).await.unwrap(), Some(0));
    assert_eq!(store.forget_keys(Duration::ZERO, 9).await.unwrap(), Some(0));
    retrying.rollback().await.unwrap();
    assert_eq!(store.forget_keys(Duration::ZERO, 9).await.unwrap(), Some(1));
    // One that has lost some of its jobs is not put to work again.
    assert_eq!(store.forget_jobs(Duration::ZERO, 1).await.unwrap(), Some(1));
    let failure = retry(&hand, id).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::NotRetryable);
    assert!(failure.message().contains("ended too long ago"), "{failure}");
}
