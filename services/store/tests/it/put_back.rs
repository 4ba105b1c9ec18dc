//! Putting tags back when a release does not succeed: what goes back, what stays and says so, and
//! what holds afterwards.

use std::time::Duration;

use colophon_domain::{Failure, JobKind, OnFailure, Reason};
use colophon_store::{GaveUp, Look};

use crate::{
    base::{CIRCLE, LEASE, digest, numbered, request},
    hand::{Hand, denied},
};

/// Two targets of which `b:latest` cannot be moved.
async fn scene() -> Hand {
    let mut hand = Hand::new().await;
    hand.denied.insert("b:latest");
    hand
}

const TWO: &[(&str, &[&str], &[&str])] = &[("a", &[], &["latest"]), ("b", &[], &["latest"])];

#[tokio::test(flavor = "multi_thread")]
async fn one_target_is_put_back_when_another_is_refused() {
    let mut hand = scene().await;
    hand.serve("a:latest", 9);
    let id = hand.publish(&request(TWO), 1).await;
    assert_eq!(hand.serves("a:latest"), Some(digest(9)));
    let back = hand.tag(id, "a:latest").await;
    assert_eq!((back.state.as_str(), back.reason.as_deref()), ("RESTORED", Some("RESTORED")));
    let release = hand.release(id).await;
    assert_eq!(release.state, "FAILED");
    assert_eq!(release.reason.as_deref(), Some("REGISTRY_DENIED"));
    assert!(release.message.ends_with("; put back: r.test/a:latest"), "{}", release.message);
    let recorded = "SELECT count(*) FROM audit_entry WHERE purpose = 'restore'
                    AND kind IN ('intent', 'confirmed')";
    assert_eq!(hand.base.count(recorded).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_be_kept_on_failure_stays() {
    let mut hand = scene().await;
    hand.serve("a:latest", 9);
    let mut wanted = request(TWO);
    wanted.on_failure = OnFailure::Keep;
    let id = hand.publish(&wanted, 1).await;
    assert_eq!(hand.serves("a:latest"), Some(digest(1)));
    assert_eq!(hand.tag(id, "a:latest").await.state, "MOVED");
    let release = hand.release(id).await;
    assert!(release.message.ends_with("moved and not put back: r.test/a:latest"), "{release:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_did_not_exist_before_stays_and_says_so() {
    let mut hand = scene().await;
    let id = hand.publish(&request(TWO), 1).await;
    assert_eq!(hand.serves("a:latest"), Some(digest(1)));
    let stays = hand.tag(id, "a:latest").await;
    assert_eq!(stays.state, "MOVED");
    assert!(stays.message.contains("it did not exist before"), "{}", stays.message);
    assert_eq!(hand.release(id).await.state, "FAILED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_somebody_else_moved_since_stays() {
    let mut hand = scene().await;
    hand.serve("a:latest", 9);
    let id = hand.accept(&request(TWO), 1).await;
    // Two copies, two targets; `a` is moved and `b` refused.
    hand.works(4).await;
    let job = hand.claim().await;
    assert_eq!(job.kind, JobKind::Restore);
    hand.serve("a:latest", 7);
    hand.work(&job).await;
    assert_eq!(hand.serves("a:latest"), Some(digest(7)));
    let stays = hand.tag(id, "a:latest").await;
    assert_eq!((stays.state.as_str(), stays.reason.as_deref()), ("MOVED", Some("TAG_MOVED")));
    assert!(stays.message.contains("was not put back"), "{}", stays.message);
}

/// Another release moves the tag on, or only finds it where it wants it: both make it theirs.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_another_release_claims_stays() {
    for claimed_as in [1, 2] {
        let mut hand = scene().await;
        hand.serve("a:latest", 9);
        let id = hand.accept(&request(TWO), 1).await;
        hand.works(3).await;
        let slow = hand.claim().await;
        let claims = hand.publish(&request(&[("a", &[], &["latest"])]), claimed_as).await;
        let found = if claimed_as == 1 { "UNCHANGED" } else { "MOVED" };
        assert_eq!(hand.tag(claims, "a:latest").await.state, found);
        hand.work(&slow).await;
        hand.work_all().await;
        assert_eq!(hand.serves("a:latest"), Some(digest(claimed_as)));
        let stays = hand.tag(id, "a:latest").await;
        assert_eq!((stays.state.as_str(), stays.reason.as_deref()), ("MOVED", Some("TAG_MOVED")));
        assert_eq!(hand.release(id).await.state, "FAILED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_back_restores_who_holds_the_tag() {
    let mut hand = Hand::new().await;
    let held = hand.publish(&numbered(&[("a", &[], &["latest"])], 10), 9).await;
    let holder = "SELECT concat_ws(' ', moved_ticket, order_kind, order_value, mover) FROM tag_head
                WHERE repository = 'a'";
    let before = hand.base.text(holder).await;
    hand.denied.insert("b:latest");
    hand.publish(&numbered(TWO, 50), 1).await;
    assert_eq!(hand.base.text(holder).await, before);
    assert_eq!(hand.tag(held, "a:latest").await.state, "MOVED");

    // The key that was put back is no obstacle to a smaller one; the one before it still is.
    let next = hand.publish(&numbered(&[("a", &[], &["latest"])], 11), 2).await;
    assert_eq!(hand.tag(next, "a:latest").await.state, "MOVED");
    let older = hand.publish(&numbered(&[("a", &[], &["latest"])], 10), 3).await;
    let refused = hand.tag(older, "a:latest").await;
    assert_eq!(refused.reason.as_deref(), Some("ORDER_REGRESSION"));
    let value = "SELECT order_value FROM tag_head WHERE repository = 'a'";
    assert_eq!(hand.base.text(value).await.unwrap(), "11");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tag_keeps_a_key_of_its_own() {
    let mut hand = Hand::new().await;
    let both: &[(&str, &[&str], &[&str])] = &[("a", &[], &["latest", "stable"])];
    let mut wanted = numbered(both, 7);
    wanted.targets[0].tags[1].order = Some(colophon_domain::OrderKey::Number(3));
    hand.publish(&wanted, 1).await;
    let between = hand.publish(&numbered(both, 5), 2).await;
    assert_eq!(hand.tag(between, "a:latest").await.state, "REFUSED");
    // The refusal put back what had moved with the key in between.
    assert_ne!(hand.serves("a:stable"), Some(digest(2)));
    let only = hand.publish(&numbered(&[("a", &[], &["stable"])], 5), 2).await;
    assert_eq!(hand.tag(only, "a:stable").await.state, "MOVED");
    let keys = "SELECT string_agg(order_value, ' ' ORDER BY tag) FROM tag_head";
    assert_eq!(hand.base.text(keys).await.unwrap(), "7 5");
}

/// Whoever puts a tag back may die at every step: another one goes on, whether the PUT arrived
/// or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_put_back_goes_on_after_a_lost_lease() {
    for arrived in [None, Some(false), Some(true)] {
        let mut hand = scene().await;
        hand.serve("a:latest", 9);
        let id = hand.accept(&request(TWO), 1).await;
        hand.works(4).await;
        let dead = hand.claim().await;
        let step = hand.step(&dead).await;
        let intent = if arrived.is_some() { Some(hand.intent(&step).await) } else { None };
        if arrived == Some(true) {
            hand.serve("a:latest", 9);
        }
        hand.base.pass(LEASE + Duration::from_secs(1)).await;
        assert_eq!(hand.base.store.reap().await.unwrap(), 1);
        for due in hand.base.store.take_due_intents(5, LEASE).await.unwrap() {
            let seen = hand.serves("a:latest");
            hand.base.store.resolve(&due, Look::now(seen.as_ref())).await.unwrap();
        }
        if let Some(intent) = intent {
            let late = hand.base.store.finish_move(&step, &intent, Look::now(None), None).await;
            assert_eq!(late.unwrap_err().reason(), Reason::LeaseLost);
        }
        hand.work_all().await;
        assert_eq!(hand.serves("a:latest"), Some(digest(9)), "{arrived:?}");
        assert_eq!(hand.tag(id, "a:latest").await.state, "RESTORED", "{arrived:?}");
        assert_eq!(hand.release(id).await.state, "FAILED");
    }
}

/// The attempts to put a tag back are used up: the release keeps the reason for which it failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_put_back_that_is_given_up_hides_no_reason() {
    let mut hand = scene().await;
    hand.serve("a:latest", 9);
    let id = hand.accept(&request(TWO), 1).await;
    hand.works(4).await;
    let job = hand.claim().await;
    let away = Failure::new(Reason::AttemptsExhausted, "the attempts are used up");
    assert_eq!(hand.base.store.give_up(&job, &away, &away).await.unwrap(), GaveUp::Yes);
    let stays = hand.tag(id, "a:latest").await;
    assert_eq!(stays.state, "MOVED");
    assert_eq!(stays.message, "the tag was not put back: the attempts are used up");
    let release = hand.release(id).await;
    assert_eq!(
        (release.state.as_str(), release.reason.as_deref()),
        ("FAILED", Some("REGISTRY_DENIED"))
    );
    assert!(release.message.ends_with("moved and not put back: r.test/a:latest"), "{release:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_back_that_the_registry_refuses_says_so() {
    let mut hand = scene().await;
    hand.serve("a:latest", 9);
    let id = hand.accept(&request(TWO), 1).await;
    hand.works(4).await;
    let job = hand.claim().await;
    let step = hand.step(&job).await;
    let intent = hand.intent(&step).await;
    let there = digest(1);
    let look = Look::now(Some(&there));
    hand.base.store.finish_move(&step, &intent, look, Some(&denied())).await.unwrap();
    let stays = hand.tag(id, "a:latest").await;
    assert_eq!(stays.state, "MOVED");
    assert_eq!(stays.message, "the tag was not put back: the registry says no");
    assert_eq!(hand.release(id).await.state, "FAILED");
}

/// A release that a newer one overtook somewhere is no broken one: what it moved elsewhere stays.
#[tokio::test(flavor = "multi_thread")]
async fn being_overtaken_puts_nothing_back() {
    let mut hand = Hand::new().await;
    hand.serve("a:latest", 9);
    let id = hand.accept(&request(TWO), 1).await;
    let newer = hand.accept(&request(&[("b", &[], &["latest"])]), 2).await;
    let mut jobs = hand.base.claim(10).await;
    jobs.sort_by_key(|job| job.release != newer);
    for job in &jobs {
        hand.work(job).await;
    }
    let mut jobs = hand.base.claim(10).await;
    jobs.sort_by_key(|job| job.release != newer);
    for job in &jobs {
        hand.work(job).await;
    }
    assert_eq!(hand.tag(id, "b:latest").await.state, "SUPERSEDED");
    assert_eq!(hand.tag(id, "a:latest").await.state, "MOVED");
    assert_eq!(hand.release(id).await.reason.as_deref(), Some("SUPERSEDED"));
    assert_eq!(hand.serves("a:latest"), Some(digest(1)));
}

/// Many targets of one release end at the same moment, then many put-backs of it.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_end_at_once_and_are_put_back_do_not_wait_for_each_other() {
    let hand = Hand::new().await;
    let names: Vec<String> = (0..8).map(|number| format!("t{number}")).collect();
    let targets: Vec<(&str, &[&str], &[&str])> =
        names.iter().map(|name| (name.as_str(), &[][..], &["latest"][..])).collect();
    let id = hand.accept(&request(&targets), 1).await;
    let store = &hand.base.store;
    for job in hand.base.claim(8).await {
        store.finish_copy(&job, &colophon_domain::CopyTotals::default()).await.unwrap();
    }
    let start = std::time::Instant::now();
    let (old, new) = (digest(9), digest(1));
    for (from, to) in [(&old, &new), (&new, &old)] {
        let jobs = hand.base.claim(8).await;
        let mut steps = Vec::new();
        for job in &jobs {
            let step = hand.step(job).await;
            let head = store.head(&step).await.unwrap();
            if step.repository.name() == "t0" {
                steps.push((step, None));
                continue;
            }
            let look = Look::now(Some(from));
            let begun = store.begin_move(&step, head.tag_seq, look, LEASE, LEASE).await.unwrap();
            let colophon_store::Begun::Intent(intent) = begun else { panic!("{begun:?}") };
            steps.push((step, Some(intent)));
        }
        assert!(steps.len() >= 7, "{}", steps.len());
        let ends = steps.iter().map(|(step, intent)| async move {
            match intent {
                Some(intent) => store.finish_move(step, intent, Look::now(Some(to)), None).await,
                None => store.fail_tag(step, &denied()).await,
            }
        });
        for end in futures_util::future::join_all(ends).await {
            end.unwrap();
        }
    }
    assert!(start.elapsed() < CIRCLE, "{:?}", start.elapsed());
    assert_eq!(hand.release(id).await.state, "FAILED");
    let back = "SELECT count(*) FROM tag_move WHERE state = 'RESTORED'";
    assert_eq!(hand.base.count(back).await, 7);
}

/// Two releases move a tag one after the other, and both fail: it goes back to what was there
/// before either, whichever is put back first.
#[tokio::test(flavor = "multi_thread")]
async fn two_releases_that_fail_leave_nothing_of_either() {
    for first_fails_first in [true, false] {
        let mut hand = scene().await;
        hand.serve("a:latest", 9);
        let mut ids = Vec::new();
        let mut slow = Vec::new();
        for number in [1, 2] {
            ids.push(hand.accept(&request(TWO), number).await);
            hand.works(3).await;
            slow.push(hand.claim().await);
        }
        assert_eq!(hand.serves("a:latest"), Some(digest(2)));
        if !first_fails_first {
            slow.reverse();
        }
        for job in &slow {
            hand.work(job).await;
            hand.work_all().await;
        }
        assert_eq!(hand.serves("a:latest"), Some(digest(9)), "{first_fails_first}");
        let first = hand.tag(ids[0], "a:latest").await;
        assert_eq!(first.state, if first_fails_first { "MOVED" } else { "RESTORED" });
        assert_eq!(hand.tag(ids[1], "a:latest").await.state, "RESTORED");
        let mover = "SELECT count(*) FROM tag_head WHERE repository = 'a' AND mover IS NULL";
        assert_eq!(hand.base.count(mover).await, 1);
    }
}

/// Somebody else puts the tag back himself: that is written down, and nothing is left to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_somebody_else_has_put_back_counts_as_put_back() {
    let mut hand = scene().await;
    hand.serve("a:latest", 9);
    let id = hand.accept(&request(TWO), 1).await;
    hand.works(4).await;
    hand.serve("a:latest", 9);
    hand.work_all().await;
    assert_eq!(hand.tag(id, "a:latest").await.state, "RESTORED");
    let kinds = "SELECT string_agg(concat_ws(' ', kind, purpose), ', ' ORDER BY tag_seq)
                 FROM audit_entry WHERE repository = 'a' AND tag_seq > 3";
    assert_eq!(hand.base.text(kinds).await.unwrap(), "drift observation, unchanged restore");
}

/// Somebody else moves the tag while another release moves it, and then to where the failing
/// release had it: it is his decision, and stays, whoever found out about it.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_somebody_else_brought_to_the_same_digest_stays() {
    for by_reconciler in [false, true] {
        let mut hand = scene().await;
        hand.serve("a:latest", 9);
        let id = hand.accept(&request(TWO), 1).await;
        hand.works(3).await;
        let slow = hand.claim().await;
        let other = hand.accept(&request(&[("a", &[], &["latest"])]), 2).await;
        let job = hand.claim().await;
        hand.work(&job).await;
        let job = hand.claim().await;
        let step = hand.step(&job).await;
        let intent = hand.intent(&step).await;
        let foreign = digest(7);
        let look = Look::now(Some(&foreign));
        if by_reconciler {
            hand.base.pass(crate::hand::WINDOW + crate::hand::GRACE).await;
            let due = hand.base.store.take_due_intents(1, LEASE).await.unwrap().remove(0);
            hand.base.store.resolve(&due, look).await.unwrap();
        } else {
            hand.base.store.finish_move(&step, &intent, look, None).await.unwrap();
        }
        assert_eq!(hand.tag(other, "a:latest").await.reason.as_deref(), Some("TAG_MOVED"));
        hand.serve("a:latest", 1);
        hand.work(&slow).await;
        hand.work_all().await;
        assert_eq!(hand.serves("a:latest"), Some(digest(1)), "{by_reconciler}");
        assert_eq!(hand.tag(id, "a:latest").await.state, "MOVED");
    }
}

/// The same image is published twice, and both releases fail: the second only found the tag in its
/// place, and still leaves nothing of the first.
#[tokio::test(flavor = "multi_thread")]
async fn two_releases_of_one_image_that_fail_leave_nothing_of_either() {
    for first_fails_first in [true, false] {
        let mut hand = scene().await;
        hand.serve("a:latest", 9);
        let (mut ids, mut slow) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            ids.push(hand.accept(&request(TWO), 1).await);
            hand.works(3).await;
            slow.push(hand.claim().await);
        }
        assert_eq!(hand.tag(ids[1], "a:latest").await.state, "UNCHANGED");
        if !first_fails_first {
            slow.reverse();
        }
        for job in &slow {
            hand.work(job).await;
            hand.work_all().await;
        }
        assert_eq!(hand.serves("a:latest"), Some(digest(9)), "{first_fails_first}");
        let states = [hand.tag(ids[0], "a:latest").await, hand.tag(ids[1], "a:latest").await];
        let states = states.map(|tag| tag.state);
        let expected =
            if first_fails_first { ["MOVED", "RESTORED"] } else { ["RESTORED", "UNCHANGED"] };
        assert_eq!(states, expected);
        let mover = "SELECT count(*) FROM tag_head WHERE repository = 'a' AND mover IS NULL";
        assert_eq!(hand.base.count(mover).await, 1);
    }
}

/// A release that fails has held no tag, also where it only found the tag in its place: its key must
/// not keep the next build away.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_fails_leaves_no_key_behind() {
    let mut hand = Hand::new().await;
    hand.publish(&numbered(&[("a", &[], &["latest"])], 10), 1).await;
    hand.denied.insert("b:latest");
    let failed = hand.publish(&numbered(TWO, 100), 1).await;
    let found = hand.tag(failed, "a:latest").await;
    assert_eq!((found.state.as_str(), found.message.as_str()), ("UNCHANGED", ""));
    assert_eq!(hand.release(failed).await.state, "FAILED");
    let next = hand.publish(&numbered(&[("a", &[], &["latest"])], 11), 2).await;
    assert_eq!(hand.tag(next, "a:latest").await.state, "MOVED");
    // The attempts to look at it are used up: the key stays, and it is said.
    let found = hand.accept(&numbered(TWO, 100), 2).await;
    hand.works(4).await;
    let job = hand.claim().await;
    assert_eq!(job.kind, JobKind::Restore);
    let away = Failure::new(Reason::AttemptsExhausted, "the attempts are used up");
    assert_eq!(hand.base.store.give_up(&job, &away, &away).await.unwrap(), GaveUp::Yes);
    let stays = hand.tag(found, "a:latest").await;
    assert_eq!(stays.state, "UNCHANGED");
    assert!(stays.message.contains("the attempts are used up"), "{}", stays.message);
}
