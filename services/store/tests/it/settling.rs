//! Settling an interrupted move by hand.

use std::time::Duration;

use colophon_domain::{Failure, Reason, Result, Settlement};
use colophon_store::{Author, Look, Move};

use crate::{
    base::{digest, request},
    hand::{GRACE, Hand, WINDOW},
};

const LATEST: &[(&str, &[&str], &[&str])] = &[("source", &[], &["latest"])];

fn person() -> Author {
    let reason = "the registry is gone".into();
    Author { principal: "op".into(), on_behalf_of: String::new(), reason }
}

async fn settle(hand: &Hand, step: &Move, settlement: Settlement) -> Result<()> {
    let (repository, tag) = (&step.repository, &step.tag);
    let due = hand.base.store.take_unknown(repository, tag).await?;
    hand.base.store.settle_by_hand(&due, settlement, &person()).await
}

fn refused(settled: Result<()>) {
    assert_eq!(settled.unwrap_err().reason(), Reason::NotUnknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_settles_only_what_is_unknown_for_good() {
    for (settlement, state) in [(Settlement::Moved, "MOVED"), (Settlement::NotMoved, "PENDING")] {
        let mut hand = Hand::new().await;
        hand.serve("source:latest", 9);
        let id = hand.accept(&request(LATEST), 1).await;
        let job = hand.claim().await;
        let step = hand.step(&job).await;
        refused(settle(&hand, &step, settlement).await);
        let intent = hand.intent(&step).await;
        refused(settle(&hand, &step, settlement).await);
        // The PUT may be under way until the deadline and the grace are over.
        hand.base.pass(WINDOW).await;
        refused(settle(&hand, &step, settlement).await);
        hand.base.pass(GRACE).await;
        settle(&hand, &step, settlement).await.unwrap();
        assert_eq!(hand.tag(id, "source:latest").await.state, state);
        refused(settle(&hand, &step, settlement).await);

        let said = "SELECT concat_ws(' ', e.kind, e.reason_code, o.principal, o.reason)
                    FROM audit_entry e JOIN opening o ON o.entry_id = e.id
                    WHERE e.reason_code = 'SETTLED_BY_HAND'";
        let kind = if settlement == Settlement::Moved { "recovered" } else { "not_applied" };
        let told = format!("{kind} SETTLED_BY_HAND op the registry is gone");
        assert_eq!(hand.base.text(said).await.unwrap(), told);
        // The worker comes back: its word counts no more.
        let there = digest(1);
        let look = Look::now(Some(&there));
        let late = hand.base.store.finish_move(&step, &intent, look, None).await;
        assert_eq!(late.unwrap_err().reason(), Reason::ReferenceBlocked);
        hand.work(&job).await;
        assert_eq!(hand.release(id).await.state, "SUCCEEDED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconciler_that_holds_the_intent_is_overruled() {
    let mut hand = Hand::new().await;
    hand.serve("source:latest", 9);
    hand.accept(&request(LATEST), 1).await;
    let job = hand.claim().await;
    let step = hand.step(&job).await;
    hand.intent(&step).await;
    hand.base.pass(WINDOW + GRACE).await;
    let hold = Duration::from_hours(1);
    let due = hand.base.store.take_due_intents(1, hold).await.unwrap().remove(0);
    // The reconciler has the intent for an hour and cannot reach the registry.
    settle(&hand, &step, Settlement::NotMoved).await.unwrap();
    let there = digest(1);
    let blocked = |failure: Failure| assert_eq!(failure.reason(), Reason::ReferenceBlocked);
    blocked(hand.base.store.resolve(&due, Look::now(Some(&there))).await.unwrap_err());
    let later = hand.base.store.look_later(&due, "away", hold).await.unwrap_err();
    assert_eq!(later.reason(), Reason::LeaseLost);
    let outcomes = "SELECT count(*) FROM audit_entry WHERE intent_id IS NOT NULL";
    assert_eq!(hand.base.count(outcomes).await, 1);
}

/// A put-back whose PUT was interrupted is settled like a move.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_settles_a_put_back() {
    for (settlement, state) in
        [(Settlement::Moved, "RESTORED"), (Settlement::NotMoved, "RESTORING")]
    {
        let mut hand = Hand::new().await;
        hand.serve("source:latest", 9);
        hand.denied.insert("source:stable");
        let id = hand.accept(&request(&[("source", &[], &["latest", "stable"])]), 1).await;
        let job = hand.claim().await;
        hand.work(&job).await;
        let job = hand.claim().await;
        let step = hand.step(&job).await;
        hand.intent(&step).await;
        hand.base.pass(WINDOW + GRACE).await;
        settle(&hand, &step, settlement).await.unwrap();
        assert_eq!(hand.tag(id, "source:latest").await.state, state);
        hand.work(&job).await;
        assert_eq!(hand.tag(id, "source:latest").await.state, "RESTORED");
        assert_eq!(hand.release(id).await.state, "FAILED");
        let mover = "SELECT count(*) FROM tag_head WHERE tag = 'latest' AND mover IS NULL";
        assert_eq!(hand.base.count(mover).await, 1);
    }
}
