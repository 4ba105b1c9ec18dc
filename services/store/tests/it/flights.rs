//! Blobs on their way: one job brings each, whoever dies; what it has left is found by the next one,
//! and by nobody when the job has ended.

use std::time::Duration;

use colophon_domain::{
    Boarding, CopyTotals, Digest, Failure, Flight, FlightBook as _, Lease, Reason, Repository,
    Retry, Trail,
};
use colophon_store::{Claimed, GaveUp, Waiting};

use crate::base::{Base, LEASE, digest, repository, request};

const ROWS: &str = "SELECT count(*) FROM blob_flight";

/// A blob in a repository, whoever's job brings it.
struct Blob(Repository, Digest);

impl Blob {
    fn new(number: u8) -> Self {
        Self(repository("app"), digest(number))
    }

    fn by(&self, lease: Lease) -> Flight<'_> {
        Flight { lease, repository: &self.0, digest: &self.1 }
    }
}

fn trail(offset: u64) -> Trail {
    Trail { location: vec![1, 2, 3], offset, hash: vec![4; 40] }
}

/// Two releases of other images into one repository, and their copy jobs, which two workers hold.
async fn two() -> (Base, Claimed, Claimed) {
    let base = Base::new().await;
    for number in [1, 2] {
        base.accept(&request(&[("app", &[], &["latest"])]), &digest(number)).await;
    }
    let [one, other] = base.claim(2).await.try_into().unwrap();
    (base, one, other)
}

async fn board(base: &Base, blob: &Blob, job: &Claimed) -> Boarding {
    base.store.board(blob.by(job.lease)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_jobs_brings_a_blob_and_the_other_waits_until_it_has_landed() {
    let (base, one, other) = two().await;
    let blob = Blob::new(9);
    assert_eq!(board(&base, &blob, &one).await, Boarding::First);
    assert_eq!(board(&base, &blob, &other).await, Boarding::Taken);
    assert_eq!(board(&base, &Blob::new(8), &other).await, Boarding::First);
    let elsewhere = Blob(repository("tool"), digest(9));
    assert_eq!(board(&base, &elsewhere, &other).await, Boarding::First);
    // Who does not bring it cannot write about it.
    let refused = base.store.mark(blob.by(other.lease), &trail(5)).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::LeaseLost);
    base.store.land(blob.by(other.lease), true).await.unwrap();
    assert_eq!(board(&base, &blob, &other).await, Boarding::Taken);
    // One that has arrived may have been looked for before: whoever boards now looks once more.
    base.store.land(blob.by(one.lease), true).await.unwrap();
    assert_eq!(board(&base, &blob, &other).await, Boarding::After(None));
    assert_eq!(
        board(&base, &Blob(repository("other"), blob.1.clone()), &other).await,
        Boarding::First
    );
    // Of one that did not arrive nothing is known.
    let lost = Blob::new(7);
    assert_eq!(board(&base, &lost, &one).await, Boarding::First);
    base.store.land(lost.by(one.lease), false).await.unwrap();
    assert_eq!(board(&base, &lost, &other).await, Boarding::First);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_a_flight_over_finds_how_far_it_was() {
    let (base, one, other) = two().await;
    let blob = Blob::new(9);
    board(&base, &blob, &one).await;
    base.store.mark(blob.by(one.lease), &trail(64)).await.unwrap();
    base.store.mark(blob.by(one.lease), &trail(128)).await.unwrap();
    // The same attempt may try again.
    assert_eq!(board(&base, &blob, &one).await, Boarding::After(Some(trail(128))));
    base.pass(LEASE.saturating_sub(Duration::from_secs(1))).await;
    base.store.renew(other.lease, LEASE).await.unwrap();
    assert_eq!(board(&base, &blob, &other).await, Boarding::Taken);
    base.pass(Duration::from_secs(2)).await;
    assert_eq!(board(&base, &blob, &other).await, Boarding::After(Some(trail(128))));
    // The one that stalled writes nothing any more, and does not come back into it.
    let late = base.store.mark(blob.by(one.lease), &trail(192)).await.unwrap_err();
    assert_eq!(late.reason(), Reason::LeaseLost);
    assert_eq!(board(&base, &blob, &one).await, Boarding::Taken);
    base.store.reap().await.unwrap();
    let late = base.store.board(blob.by(one.lease)).await.unwrap_err();
    assert_eq!(late.reason(), Reason::LeaseLost);
    base.store.mark(blob.by(other.lease), &trail(192)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_put_back_into_the_queue_finds_its_flights_again() {
    let (base, one, other) = two().await;
    let blob = Blob::new(9);
    board(&base, &blob, &one).await;
    base.store.mark(blob.by(one.lease), &trail(64)).await.unwrap();
    let waiting = Waiting::on("another worker", None, Duration::ZERO);
    base.store.wait(one.lease, &waiting).await.unwrap();
    let again = base.claim(1).await.remove(0);
    assert_eq!(again.lease.job, one.lease.job);
    assert_ne!(again.lease.token, one.lease.token);
    assert_eq!(board(&base, &blob, &again).await, Boarding::After(Some(trail(64))));
    assert_eq!(board(&base, &blob, &other).await, Boarding::Taken);
    let away = Failure::new(Reason::RegistryUnavailable, "away").retry(Retry::Backoff);
    base.store.retry(again.lease, &away, Duration::from_mins(1)).await.unwrap();
    // Somebody else need not wait for the one that comes later.
    assert_eq!(board(&base, &blob, &other).await, Boarding::After(Some(trail(64))));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flight_outlives_its_job() {
    let (base, one, other) = two().await;
    for (job, number) in [(&one, 7), (&one, 8), (&other, 9)] {
        board(&base, &Blob::new(number), job).await;
    }
    assert_eq!(base.count(ROWS).await, 3);
    base.store.finish_copy(&one, &CopyTotals::default()).await.unwrap();
    assert_eq!(base.count(ROWS).await, 1);
    let gone = Failure::new(Reason::SourceGone, "gone");
    assert_eq!(base.store.give_up(&other, &gone, &gone).await.unwrap(), GaveUp::Yes);
    assert_eq!(base.count(ROWS).await, 0);
    // Nobody boards for a job that has ended.
    let late = base.store.board(Blob::new(9).by(other.lease)).await.unwrap_err();
    assert_eq!(late.reason(), Reason::LeaseLost);
    assert_eq!(base.count(ROWS).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_release_leaves_no_flight() {
    let base = Base::new().await;
    let id = base.accept(&request(&[("app", &[], &["latest"])]), &digest(1)).await;
    let job = base.claim(1).await.remove(0);
    board(&base, &Blob::new(9), &job).await;
    let waiting = Waiting::on("its turn", None, Duration::ZERO);
    base.store.wait(job.lease, &waiting).await.unwrap();
    assert_eq!(base.count(ROWS).await, 1);
    base.store.cancel_release(id, "bot", "").await.unwrap();
    assert_eq!(base.count(ROWS).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_come_at_once_one_brings_the_blob() {
    let base = Base::new().await;
    for number in 0..6 {
        base.accept(&request(&[("app", &[], &["latest"])]), &digest(number)).await;
    }
    let jobs = base.claim(6).await;
    for round in 0..20 {
        let blob = Blob::new(100 + round);
        let all = jobs.iter().map(|job| base.store.board(blob.by(job.lease)));
        let all = futures_util::future::join_all(all).await;
        let first = all.iter().filter(|it| *it.as_ref().unwrap() == Boarding::First).count();
        let taken = all.iter().filter(|it| *it.as_ref().unwrap() == Boarding::Taken).count();
        assert_eq!((first, taken), (1, 5), "round {round}");
    }
}
