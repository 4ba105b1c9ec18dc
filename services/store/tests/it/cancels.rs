//! Cancelling a release whose tags are being moved.

use std::time::Duration;

use colophon_domain::{OnFailure, Reason};
use colophon_store::{GaveUp, Look, Waiting};

use crate::{
    base::{LEASE, digest, request},
    hand::Hand,
};

const TWO: &[(&str, &[&str], &[&str])] = &[("a", &[], &["latest"]), ("b", &[], &["latest"])];

/// A release that has moved `a:latest` from 9 to 1 and not `b:latest`.
async fn half_moved(on_failure: OnFailure) -> (Hand, uuid::Uuid) {
    let mut hand = Hand::new().await;
    hand.serve("a:latest", 9);
    let mut wanted = request(TWO);
    wanted.on_failure = on_failure;
    let id = hand.accept(&wanted, 1).await;
    hand.works(3).await;
    assert_eq!(hand.serves("a:latest"), Some(digest(1)));
    (hand, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_among_the_tags_puts_back_what_was_moved() {
    let (mut hand, id) = half_moved(OnFailure::Restore).await;
    hand.base.store.cancel_release(id, "bot", "oops").await.unwrap();
    assert_eq!(hand.tag(id, "a:latest").await.state, "RESTORING");
    // Again is no error, also while tags are being put back.
    hand.base.store.cancel_release(id, "bot", "oops").await.unwrap();
    hand.work_all().await;
    assert_eq!(hand.serves("a:latest"), Some(digest(9)));
    assert_eq!(hand.tag(id, "a:latest").await.state, "RESTORED");
    let left = hand.tag(id, "b:latest").await;
    assert_eq!((left.state.as_str(), left.reason.as_deref()), ("NOT_ATTEMPTED", Some("CANCELLED")));
    let release = hand.release(id).await;
    assert_eq!(release.state, "CANCELLED");
    assert_eq!(release.message, "cancelled by bot: oops; put back: r.test/a:latest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_among_the_tags_keeps_what_is_to_be_kept() {
    let (mut hand, id) = half_moved(OnFailure::Keep).await;
    hand.base.store.cancel_release(id, "bot", "oops").await.unwrap();
    assert_eq!(hand.release(id).await.state, "CANCELLED");
    hand.work_all().await;
    assert_eq!(hand.serves("a:latest"), Some(digest(1)));
    assert_eq!(hand.tag(id, "a:latest").await.state, "MOVED");
    let message = hand.release(id).await.message;
    assert_eq!(message, "cancelled by bot: oops; moved and not put back: r.test/a:latest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_being_put_back_cannot_be_cancelled_any_more() {
    let (mut hand, id) = half_moved(OnFailure::Restore).await;
    hand.denied.insert("b:latest");
    let job = hand.claim().await;
    hand.work(&job).await;
    assert_eq!(hand.tag(id, "a:latest").await.state, "RESTORING");
    let refusal = hand.base.store.cancel_release(id, "bot", "").await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::NotCancellable);
    hand.work_all().await;
    assert_eq!(hand.release(id).await.state, "FAILED");
    let refusal = hand.base.store.cancel_release(id, "bot", "").await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::NotCancellable);
}

/// A job that waits for the outcome of its interrupted move is in the queue, and nobody works on
/// it. The release must not end without that outcome: the tag may have moved.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_waits_for_an_outcome_that_is_not_known() {
    for (arrived, state) in [(true, "RESTORED"), (false, "NOT_ATTEMPTED")] {
        let mut hand = Hand::new().await;
        hand.serve("source:latest", 9);
        let id = hand.accept(&request(&[("source", &[], &["latest"])]), 1).await;
        let job = hand.claim().await;
        let step = hand.step(&job).await;
        hand.intent(&step).await;
        hand.base.store.mark_unknown(&step).await.unwrap();
        let of = (&step.repository, &step.tag);
        let waiting = Waiting::on_reference("an outcome".into(), of, LEASE);
        hand.base.store.wait(job.lease, &waiting).await.unwrap();

        hand.base.store.cancel_release(id, "bot", "").await.unwrap();
        assert_eq!(hand.release(id).await.state, "RUNNING");
        assert_eq!(hand.tag(id, "source:latest").await.state, "UNKNOWN");
        hand.base.pass(LEASE).await;
        let early = hand.claim().await;
        assert!(early.stop);
        assert_eq!(hand.base.store.stop(&early).await.unwrap(), GaveUp::NotYet);
        hand.base.store.wait(early.lease, &waiting).await.unwrap();

        if arrived {
            hand.serve("source:latest", 1);
        }
        let due = hand.base.store.take_due_intents(5, LEASE).await.unwrap().remove(0);
        let seen = hand.serves("source:latest");
        hand.base.store.resolve(&due, Look::now(seen.as_ref())).await.unwrap();
        hand.work_all().await;
        assert_eq!(hand.release(id).await.state, "CANCELLED");
        assert_eq!(hand.tag(id, "source:latest").await.state, state);
        assert_eq!(hand.serves("source:latest"), Some(digest(9)));
    }
}

/// The same for a worker that died with an intent and whose job went back into the queue.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_waits_for_the_outcome_of_a_dead_worker() {
    let mut hand = Hand::new().await;
    hand.serve("source:latest", 9);
    let id = hand.accept(&request(&[("source", &[], &["latest"])]), 1).await;
    let job = hand.claim().await;
    hand.intent(&hand.step(&job).await).await;
    hand.base.pass(LEASE + Duration::from_secs(1)).await;
    hand.base.store.reap().await.unwrap();
    hand.base.store.cancel_release(id, "bot", "").await.unwrap();
    assert_eq!(hand.release(id).await.state, "RUNNING");
    let due = hand.base.store.take_due_intents(5, LEASE).await.unwrap().remove(0);
    let seen = digest(9);
    hand.base.store.resolve(&due, Look::now(Some(&seen))).await.unwrap();
    hand.work_all().await;
    assert_eq!(hand.release(id).await.state, "CANCELLED");
    assert_eq!(hand.tag(id, "source:latest").await.state, "NOT_ATTEMPTED");
}
