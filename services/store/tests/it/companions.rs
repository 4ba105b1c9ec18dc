//! Tags that belong to what was copied: moved like every tag, and none of the release's.

use colophon_domain::{CopyTotals, Expected, Reason, Visibility};
use colophon_store::{Claimed, Companion, Move, Role};

use crate::{
    base::{digest, request},
    hand::Hand,
};

const APP: &[(&str, &[&str], &[&str])] = &[("app", &["v1"], &["latest"])];

fn wanted(job: &Claimed, tag: &str, number: u8, old: Option<u8>) -> Companion {
    Companion {
        tag: tag.parse().unwrap(),
        from: job.source.repository.clone(),
        digest: digest(number),
        expected: Expected::from(old.map(digest)),
    }
}

async fn step(hand: &Hand, job: &Claimed, wanted: &Companion) -> Move {
    hand.base.store.companion(job, wanted).await.unwrap().unwrap()
}

/// Ends the copy and all that follows.
async fn finish(hand: &mut Hand, job: &Claimed) {
    hand.base.store.finish_copy(job, &CopyTotals::default()).await.unwrap();
    hand.work_all().await;
}

#[tokio::test]
async fn one_that_moved_neither_ends_the_copy_nor_counts_for_the_release() {
    let mut hand = Hand::new().await;
    let id = hand.accept(&request(APP), 1).await;
    let job = hand.claim().await;
    let first = step(&hand, &job, &wanted(&job, "sha256-1.sig", 7, None)).await;
    assert_eq!((first.role, first.ticket), (Role::Companion, None));
    hand.settle(&first).await.unwrap();
    assert_eq!(hand.tag(id, "app:sha256-1.sig").await.state, "MOVED");
    assert_eq!(hand.release(id).await.state, "RUNNING");
    assert_eq!(hand.base.store.unsettled_tags(&job).await.unwrap().len(), 0);
    finish(&mut hand, &job).await;
    assert_eq!(hand.release(id).await.state, "SUCCEEDED");
    let view = hand.base.store.whole_release(id).await.unwrap().unwrap();
    let publication = &view.publications[0];
    assert_eq!((publication.tags.len(), publication.companions.len()), (2, 1));
    assert_eq!(publication.companions[0].new_digest, Some(digest(7)));
    let everything = Visibility { principal: "ci".into(), readable: vec![] };
    assert!(hand.base.store.release(&everything, id).await.unwrap().is_some());
}

#[tokio::test]
async fn one_that_is_elsewhere_by_then_is_refused_and_may_begin_anew() {
    let mut hand = Hand::new().await;
    let id = hand.accept(&request(APP), 1).await;
    let job = hand.claim().await;
    let tag = "sha256-1";
    hand.serve("app:sha256-1", 5);
    let late = step(&hand, &job, &wanted(&job, tag, 7, None)).await;
    hand.settle(&late).await.unwrap();
    let failure = hand.base.store.companion_failure(&job, &[tag.parse().unwrap()]).await.unwrap();
    assert_eq!(failure.unwrap().reason(), Reason::TagMoved);
    let again = step(&hand, &job, &wanted(&job, tag, 8, Some(5))).await;
    assert_eq!((again.tag_move, &again.wanted), (late.tag_move, &digest(8)));
    hand.settle(&again).await.unwrap();
    let failure = hand.base.store.companion_failure(&job, &[tag.parse().unwrap()]).await.unwrap();
    assert!(failure.is_none(), "{failure:?}");
    // It goes on from there, though it is no release's floating tag: to what has more.
    let more = step(&hand, &job, &wanted(&job, tag, 9, Some(8))).await;
    hand.settle(&more).await.unwrap();
    assert_eq!(hand.serves("app:sha256-1"), Some(digest(9)));
    // What turned out to be needless is nobody's failure.
    let needless = step(&hand, &job, &wanted(&job, tag, 6, Some(1))).await;
    hand.settle(&needless).await.unwrap();
    assert_eq!(hand.tag(id, "app:sha256-1").await.state, "REFUSED");
    finish(&mut hand, &job).await;
    assert_eq!(hand.tag(id, "app:sha256-1").await.state, "NOT_ATTEMPTED");
    assert_eq!(hand.release(id).await.state, "SUCCEEDED");
}

#[tokio::test]
async fn one_whose_outcome_is_open_waits_for_it() {
    let hand = Hand::new().await;
    hand.accept(&request(APP), 1).await;
    let job = hand.claim().await;
    let first = step(&hand, &job, &wanted(&job, "sha256-1.sig", 7, None)).await;
    hand.intent(&first).await;
    let again = step(&hand, &job, &wanted(&job, "sha256-1.sig", 8, None)).await;
    assert_eq!((again.tag_move, &again.wanted), (first.tag_move, &digest(7)), "as it was begun");
    assert!(hand.base.store.head(&again).await.unwrap().blocker.is_some());
}

#[tokio::test]
async fn a_tag_that_was_asked_for_is_the_releases() {
    let mut hand = Hand::new().await;
    let id = hand.accept(&request(&[("app", &["sha256-1.sig"], &[])]), 1).await;
    let job = hand.claim().await;
    let companion = wanted(&job, "sha256-1.sig", 7, None);
    assert!(hand.base.store.companion(&job, &companion).await.unwrap().is_none());
    finish(&mut hand, &job).await;
    assert_eq!(hand.serves("app:sha256-1.sig"), Some(digest(1)));
    assert_eq!(hand.release(id).await.state, "SUCCEEDED");
}

#[tokio::test]
async fn a_release_that_fails_leaves_them_and_trying_again_does_not_ask_for_them() {
    let mut hand = Hand::new().await;
    hand.denied.insert("app:latest");
    let id = hand.accept(&request(APP), 1).await;
    let job = hand.claim().await;
    let companion = step(&hand, &job, &wanted(&job, "sha256-1.sig", 7, None)).await;
    hand.settle(&companion).await.unwrap();
    finish(&mut hand, &job).await;
    assert_eq!(hand.release(id).await.state, "FAILED");
    assert_eq!(hand.tag(id, "app:sha256-1.sig").await.state, "MOVED");
    assert_eq!(hand.serves("app:sha256-1.sig"), Some(digest(7)));
    hand.denied.clear();
    assert!(hand.base.store.retry_release(id, "ci", "").await.unwrap());
    hand.work_all().await;
    assert_eq!(hand.release(id).await.state, "SUCCEEDED");
    assert_eq!(hand.tag(id, "app:sha256-1.sig").await.state, "MOVED");
}
