//! Accepting, claiming, fencing, fan-in and cancelling, each on its own.

use std::time::Duration;

use colophon_domain::{CopyTotals, Failure, JobKind, Reason, Retry};
use colophon_store::{Begun, Created, GaveUp, Lease, Look, NewRelease, Renewed, Waiting};
use uuid::Uuid;

use crate::base::{Base, CIRCLE, LEASE, digest, request};

const STATE: &str = "SELECT state FROM release";

#[tokio::test(flavor = "multi_thread")]
async fn one_key_makes_one_release_however_many_ask_at_once() {
    let base = Base::new().await;
    let mut request = request(&[("app", &["v1"], &["latest"])]);
    request.idempotency_key = Some("key".into());
    let digest = digest(1);
    let asks = (0..20).map(|_| base.try_accept(&request, &digest));
    let created = futures_util::future::join_all(asks).await;
    let new = created.iter().filter(|created| matches!(created, Created::New(_))).count();
    assert_eq!(new, 1, "{created:?}");
    assert!(created.iter().all(|other| other.id() == created[0].id()));
    assert_eq!(base.count("SELECT count(*) FROM job").await, 1);
    assert_eq!(base.count("SELECT issued_ticket FROM tag_head WHERE tag = 'latest'").await, 1);

    let other = NewRelease {
        made: None,
        principal: "ci",
        request: &request,
        digest: &digest,
        fingerprint: [8; 32],
        traceparent: None,
    };
    let refusal = base.store.create_release(&other).await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::IdempotencyKeyReused);
    let stranger = NewRelease { principal: "bot", fingerprint: [8; 32], ..other };
    assert!(matches!(base.store.create_release(&stranger).await, Ok(Created::New(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_follow_the_order_of_acceptance_and_do_not_deadlock() {
    let base = Base::new().await;
    let there = request(&[("app", &[], &["a", "b", "c"])]);
    let back = request(&[("app", &[], &["c", "b", "a"])]);
    let (one, two) = (digest(1), digest(2));
    let asks = (0..40).map(|n| {
        if n % 2 == 0 { base.try_accept(&there, &one) } else { base.try_accept(&back, &two) }
    });
    futures_util::future::join_all(asks).await;
    let distinct = "SELECT count(DISTINCT (tag, ticket)) FROM tag_move";
    assert_eq!(base.count(distinct).await, 120);
    assert_eq!(base.count("SELECT max(ticket) FROM tag_move").await, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_job_is_claimed_twice() {
    let base = Base::new().await;
    for _ in 0..15 {
        base.accept(&request(&[("app", &["v1"], &[])]), &digest(1)).await;
    }
    let claims = futures_util::future::join_all((0..6).map(|_| base.claim(4))).await;
    let mut jobs: Vec<i64> = claims.into_iter().flatten().map(|job| job.lease.job).collect();
    jobs.extend(base.claim(20).await.into_iter().map(|job| job.lease.job));
    jobs.sort_unstable();
    let all = jobs.len();
    jobs.dedup();
    assert_eq!((jobs.len(), all), (15, 15));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_copy_opens_the_next_phase_exactly_once() {
    let base = Base::new().await;
    for _ in 0..10 {
        base.accept(
            &request(&[("a", &["v1"], &[]), ("b", &["v1"], &[]), ("c", &[], &["l"])]),
            &digest(1),
        )
        .await;
        let jobs = base.claim(10).await;
        assert!(jobs.len() == 3 && jobs.iter().all(|job| job.kind == JobKind::Copy));
        let totals = CopyTotals::default();
        let ends = jobs.iter().map(|job| base.store.finish_copy(job, &totals));
        for end in futures_util::future::join_all(ends).await {
            end.unwrap();
        }
        let next = base.claim(10).await;
        assert!(next.len() == 2 && next.iter().all(|job| job.kind == JobKind::Unique));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_changes_nothing() {
    let base = Base::new().await;
    base.accept(&request(&[("app", &["v1"], &[])]), &digest(1)).await;
    let old = base.claim(1).await.remove(0);
    base.pass(LEASE + Duration::from_secs(1)).await;
    assert_eq!(base.store.reap().await.unwrap(), 1);
    let new = base.claim(1).await.remove(0);
    assert_eq!((new.lease.job, new.failures), (old.lease.job, 1));

    let lost = |failure: Failure| assert_eq!(failure.reason(), Reason::LeaseLost);
    assert_eq!(base.store.renew(old.lease, LEASE).await.unwrap(), Renewed::Lost);
    lost(base.store.finish_copy(&old, &CopyTotals::default()).await.unwrap_err());
    let failure = Failure::new(Reason::RegistryDenied, "no");
    lost(base.store.give_up(&old, &failure, &failure).await.unwrap_err());
    lost(base.store.retry(old.lease, &failure, Duration::ZERO).await.unwrap_err());
    lost(base.store.stop(&old).await.unwrap_err());
    base.store.wait(old.lease, &Waiting::on("nothing", None, Duration::ZERO)).await.unwrap();
    assert_eq!(base.store.renew(new.lease, LEASE).await.unwrap(), Renewed::Held);
    base.store.finish_copy(&new, &CopyTotals::default()).await.unwrap();
    lost(base.store.finish_copy(&new, &CopyTotals::default()).await.unwrap_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_is_no_attempt_and_a_retry_is_one() {
    let base = Base::new().await;
    base.accept(&request(&[("app", &["v1"], &[])]), &digest(1)).await;
    let job = base.claim(1).await.remove(0);
    let sealed = Waiting::on("vault is sealed", None, Duration::from_secs(5));
    base.store.wait(job.lease, &sealed).await.unwrap();
    assert!(base.claim(1).await.is_empty());
    assert_eq!(base.store.next_due().await.unwrap(), Some(Duration::from_secs(5)));
    base.pass(Duration::from_secs(5)).await;
    let job = base.claim(1).await.remove(0);
    assert_eq!(job.failures, 0);
    let failure = Failure::new(Reason::RegistryUnavailable, "away").retry(Retry::Backoff);
    base.store.retry(job.lease, &failure, Duration::ZERO).await.unwrap();
    let job = base.claim(1).await.remove(0);
    assert_eq!(job.failures, 1);
    assert_eq!(base.text("SELECT reason_code FROM attempt").await.unwrap(), "REGISTRY_UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_given_up_fails_the_release_and_stops_the_others() {
    let base = Base::new().await;
    base.accept(
        &request(&[("a", &["v1"], &[]), ("b", &["v1"], &["l"]), ("c", &["v1"], &[])]),
        &digest(1),
    )
    .await;
    let jobs = base.claim(2).await;
    let failure = Failure::new(Reason::RegistryDenied, "no").remedy("ask");
    assert_eq!(base.store.give_up(&jobs[0], &failure, &failure).await.unwrap(), GaveUp::Yes);
    assert_eq!(base.text(STATE).await.unwrap(), "RUNNING");
    assert!(base.claim(5).await.is_empty(), "the third copy is not begun any more");
    assert_eq!(base.store.renew(jobs[1].lease, LEASE).await.unwrap(), Renewed::Stop);
    base.store.stop(&jobs[1]).await.unwrap();
    assert_eq!(base.text(STATE).await.unwrap(), "FAILED");
    let wrong = "SELECT count(*) FROM tag_move WHERE state <> 'NOT_ATTEMPTED'";
    assert_eq!(base.count(wrong).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_what_nobody_began_and_tells_who_did() {
    let base = Base::new().await;
    let id = base.accept(&request(&[("a", &["v1"], &[])]), &digest(1)).await;
    base.store.cancel_release(id, "bot", "oops").await.unwrap();
    base.store.cancel_release(id, "bot", "again").await.unwrap();
    assert_eq!(base.text(STATE).await.unwrap(), "CANCELLED");

    let id = base.accept(&request(&[("a", &["v1"], &[]), ("b", &["v1"], &[])]), &digest(1)).await;
    let job = base.claim(1).await.remove(0);
    base.store.cancel_release(id, "bot", "").await.unwrap();
    assert!(base.store.should_stop(job.lease).await.unwrap());
    // A copy that ends in spite of it opens no phase.
    base.store.finish_copy(&job, &CopyTotals::default()).await.unwrap();
    assert!(base.claim(5).await.is_empty());
    assert_eq!(base.count("SELECT count(*) FROM release WHERE state = 'CANCELLED'").await, 2);

    let unknown = base.store.cancel_release(Uuid::nil(), "bot", "").await.unwrap_err();
    assert_eq!(unknown.reason(), Reason::NotFound);
}

/// However a cancel and an intent interleave, one of them is first: after a cancel there is no
/// intent, and an intent before it has its outcome before the release ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_and_an_intent_exclude_each_other() {
    let base = Base::new().await;
    for round in 0..40 {
        let mut wanted = request(&[("source", &["v1"], &[])]);
        wanted.targets[0].tags[0].tag = format!("v{round}").parse().unwrap();
        let id = base.accept(&wanted, &digest(1)).await;
        let job = base.claim(1).await.remove(0);
        let step = base.store.unsettled_tags(&job).await.unwrap().remove(0);
        let second = Duration::from_secs(1);
        let (cancelled, begun) = tokio::join!(
            base.store.cancel_release(id, "bot", ""),
            base.store.begin_move(&step, 0, Look::now(None), second, second),
        );
        cancelled.unwrap();
        match begun {
            Err(failure) => {
                assert_eq!(failure.reason(), Reason::Cancelled);
                assert_eq!(base.store.stop(&job).await.unwrap(), GaveUp::Yes);
            }
            Ok(begun) => {
                let Begun::Intent(intent) = begun else { panic!("{begun:?}") };
                assert_eq!(base.store.stop(&job).await.unwrap(), GaveUp::NotYet);
                let there = digest(1);
                let look = Look::now(Some(&there));
                base.store.finish_move(&step, &intent, look, None).await.unwrap();
            }
        }
        let left = "SELECT count(*) FROM release WHERE state <> 'CANCELLED'";
        assert_eq!(base.count(left).await, 0);
    }
    let open = "SELECT count(*) FROM tag_move WHERE state NOT IN ('MOVED', 'NOT_ATTEMPTED')";
    assert_eq!(base.count(open).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_release_begins_nothing() {
    let base = Base::new().await;
    let mut wanted = request(&[("source", &["v1"], &[])]);
    wanted.not_after = Some(time::macros::datetime!(2026-01-01 00:00:10 UTC));
    base.accept(&wanted, &digest(1)).await;
    base.pass(Duration::from_secs(11)).await;
    let job = base.claim(1).await.remove(0);
    assert!(job.late);
    let step = base.store.unsettled_tags(&job).await.unwrap().remove(0);
    let second = Duration::from_secs(1);
    let refusal =
        base.store.begin_move(&step, 0, Look::now(None), second, second).await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::Expired);
    assert_eq!(base.store.give_up(&job, &refusal, &refusal).await.unwrap(), GaveUp::Yes);
    assert_eq!(base.text("SELECT state_reason FROM release").await.unwrap(), "EXPIRED");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_cannot_be_rewritten() {
    let base = Base::new().await;
    base.accept(&request(&[("source", &["v1"], &[])]), &digest(1)).await;
    let job = base.claim(1).await.remove(0);
    let step = base.store.unsettled_tags(&job).await.unwrap().remove(0);
    base.store.settle_without_move(&step, 0, Look::now(Some(&digest(1)))).await.unwrap();
    assert_eq!(base.count("SELECT count(*) FROM audit_entry").await, 2);
    for statement in [
        "UPDATE audit_entry SET new_digest = NULL",
        "DELETE FROM audit_entry WHERE kind = 'baseline'",
        "TRUNCATE audit_entry CASCADE",
    ] {
        let error = sqlx::raw_sql(statement).execute(&base.pool).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{statement}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_nobody_is_refused() {
    let base = Base::new().await;
    let lease = Lease { job: 1, token: Uuid::nil() };
    assert_eq!(base.store.renew(lease, LEASE).await.unwrap(), Renewed::Lost);
}

/// A release that is run again: every tag of every target is there already, and all targets find
/// that out at the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn many_targets_that_have_nothing_to_do_do_not_wait_for_each_other() {
    let base = Base::new().await;
    let names: Vec<String> = (0..8).map(|number| format!("t{number}")).collect();
    let targets: Vec<(&str, &[&str], &[&str])> =
        names.iter().map(|name| (name.as_str(), &["v1"][..], &[][..])).collect();
    base.accept(&request(&targets), &digest(1)).await;
    for job in base.claim(8).await {
        base.store.finish_copy(&job, &CopyTotals::default()).await.unwrap();
    }
    let jobs = base.claim(8).await;
    assert_eq!(jobs.len(), 8);
    let began = std::time::Instant::now();
    let there = digest(1);
    let ends = jobs.iter().map(|job| async {
        let step = base.store.unsettled_tags(job).await.unwrap().remove(0);
        base.store.settle_without_move(&step, 0, Look::now(Some(&there))).await.unwrap();
        base.store.complete(job).await.unwrap();
    });
    futures_util::future::join_all(ends).await;
    assert!(began.elapsed() < CIRCLE, "{:?}", began.elapsed());
    assert_eq!(base.text(STATE).await.unwrap(), "SUCCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_is_written_already_costs_neither_lease_nor_attempt() {
    let base = Base::new().await;
    base.accept(&request(&[("source", &["v1", "v2"], &[])]), &digest(1)).await;
    let job = base.claim(1).await.remove(0);
    let step = base.store.unsettled_tags(&job).await.unwrap().remove(0);
    let second = Duration::from_secs(1);
    let begun = base.store.begin_move(&step, 0, Look::now(None), second, second).await.unwrap();
    let Begun::Intent(intent) = begun else { panic!("{begun:?}") };
    let there = digest(1);
    let look = Look::now(Some(&there));
    base.store.finish_move(&step, &intent, look, None).await.unwrap();
    let again = base.store.finish_move(&step, &intent, look, None).await.unwrap_err();
    assert_eq!(again.reason(), Reason::ReferenceBlocked);
    assert!(matches!(again.retry_class(), Retry::Wait(_)));
    assert_eq!(base.store.renew(job.lease, LEASE).await.unwrap(), Renewed::Held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_is_too_old_is_taken_again() {
    let base = Base::new().await;
    base.accept(&request(&[("source", &["v1"], &[])]), &digest(1)).await;
    let job = base.claim(1).await.remove(0);
    let step = base.store.unsettled_tags(&job).await.unwrap().remove(0);
    let second = Duration::from_secs(1);
    let old = Look { digest: None, age: Duration::from_secs(9) };
    let begun = base.store.begin_move(&step, 0, old, second, second).await.unwrap();
    assert_eq!(begun, Begun::Stale);
    assert_eq!(base.count("SELECT count(*) FROM audit_entry").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_put_back_stops_nothing() {
    let base = Base::new().await;
    let tag = "latest".parse().unwrap();
    let place = crate::base::repository("source");
    for (number, jump) in [(1_u8, 3_600.0), (2, -3_600.0), (3, 0.0)] {
        base.accept(&request(&[("source", &[], &["latest"])]), &digest(number)).await;
        let job = base.claim(1).await.remove(0);
        let step = base.store.unsettled_tags(&job).await.unwrap().remove(0);
        let head = base.store.head(&step).await.unwrap();
        // Somebody else moved the tag in between.
        let foreign = digest(number + 100);
        let look = Look::now(Some(&foreign));
        let second = Duration::from_secs(1);
        let begun = base.store.begin_move(&step, head.tag_seq, look, second, second).await.unwrap();
        let Begun::Intent(intent) = begun else { panic!("{begun:?}") };
        let there = digest(number);
        base.store.finish_move(&step, &intent, Look::now(Some(&there)), None).await.unwrap();
        let view = base.store.tag_at(&place, &tag, None).await.unwrap();
        assert_eq!(view.digest, Some(there));
        base.jump(jump).await;
    }
}
