//! Uploads are their callers' alone, are no more than they may be, and leave nothing behind; of a blob
//! that comes one call at a time has the right to it.

use std::time::Duration;

use colophon_domain::{Digest, Reason, Repository, Trail, UploadView};
use colophon_store::{
    Created, NewRelease, UploadBoard, UploadBoarded, UploadBoarding, UploadFlight, UploadLeft,
    UploadTerms,
};
use uuid::Uuid;

use crate::base::{Base, digest, repository, request};

const LEASE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_hours(1);
const TERMS: UploadTerms = UploadTerms { idle: HOUR, max_age: Duration::from_hours(3) };
const BLOBS: &str = "SELECT count(*) FROM upload_blob";

fn trail(offset: u64) -> Trail {
    Trail { location: vec![1, 2, 3], offset, hash: vec![4; 40] }
}

async fn start(base: &Base, principal: &str) -> Option<UploadView> {
    base.store.start_upload(principal, &place(), "app:1 on mars", TERMS, 2).await.unwrap()
}

fn place() -> Repository {
    repository("source")
}

/// An upload of `ci`, and blobs of ten bytes in it.
struct Sends {
    base: Base,
    id: Uuid,
}

impl Sends {
    async fn new() -> Self {
        let base = Base::new().await;
        let id = start(&base, "ci").await.unwrap().id;
        Self { base, id }
    }

    async fn ask(
        &self,
        principal: &str,
        upload: Uuid,
        blob: &Digest,
        most: (u64, u32),
    ) -> UploadBoarding {
        let ask = UploadBoard {
            principal,
            upload,
            repository: &place(),
            digest: blob,
            size: 10,
            lease: LEASE,
            max_bytes: most.0,
            max_blobs: most.1,
        };
        self.base.store.board_blob(ask).await.unwrap()
    }

    async fn board(&self, number: u8) -> Option<UploadBoarded> {
        match self.ask("ci", self.id, &digest(number), (1000, 100)).await {
            UploadBoarding::Boarded(boarded) => Some(boarded),
            UploadBoarding::Taken => None,
            other => panic!("{other:?}"),
        }
    }

    async fn flight(&self, number: u8) -> UploadFlight {
        self.board(number).await.unwrap().flight
    }

    async fn mark(&self, flight: &UploadFlight, offset: u64) -> bool {
        self.base.store.mark_blob(flight, &trail(offset)).await.unwrap()
    }

    async fn received(&self) -> u64 {
        self.base.store.touch_upload("ci", self.id, TERMS).await.unwrap().unwrap().bytes_received
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_its_callers_and_ends_when_nothing_comes_or_it_is_old() {
    let base = Base::new().await;
    let upload = start(&base, "ci").await.unwrap();
    assert_eq!((upload.repository.clone(), upload.origin.as_str()), (place(), "app:1 on mars"));
    assert_eq!(upload.expires_at - upload.created_at, HOUR);
    let find = |who: &'static str| base.store.touch_upload(who, upload.id, TERMS);
    assert!(find("other").await.unwrap().is_none());
    assert!(!base.store.end_upload("other", upload.id).await.unwrap());
    for _ in 0..3 {
        base.pass(HOUR - Duration::from_secs(1)).await;
        let seen = find("ci").await.unwrap().unwrap();
        assert!(seen.expires_at - seen.created_at <= TERMS.max_age);
    }
    assert_eq!(base.store.expire_uploads(10).await.unwrap(), 0);
    base.pass(Duration::from_secs(3)).await;
    assert!(find("ci").await.unwrap().is_none());
    assert_eq!(base.store.expire_uploads(10).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_has_so_many_uploads_however_many_begin_at_once() {
    let base = Base::new().await;
    let all = futures_util::future::join_all((0..6).map(|_| start(&base, "ci"))).await;
    let begun: Vec<_> = all.into_iter().flatten().collect();
    assert_eq!(begun.len(), 2);
    assert!(start(&base, "other").await.is_some());
    assert!(base.store.end_upload("ci", begun[0].id).await.unwrap());
    assert!(start(&base, "ci").await.is_some());
    // Those that have ended by themselves take no place.
    base.pass(HOUR * 2).await;
    assert!(start(&base, "ci").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_sends_a_blob_and_the_next_one_goes_on_from_its_trail() {
    let sends = Sends::new().await;
    let first = sends.board(1).await.unwrap();
    assert_eq!((first.trail.clone(), first.boarded, first.whole), (None, 1, false));
    assert!(sends.board(1).await.is_none());
    assert!(sends.mark(&first.flight, 4).await && sends.mark(&first.flight, 7).await);
    assert_eq!(sends.received().await, 7);
    sends.base.pass(LEASE - Duration::from_secs(1)).await;
    assert!(sends.base.store.renew_blob(&first.flight, LEASE, TERMS).await.unwrap());
    sends.base.pass(LEASE - Duration::from_secs(1)).await;
    assert!(sends.board(1).await.is_none());
    let stands = sends.base.store.blob_stands(&place(), &[digest(1), digest(2)]).await.unwrap();
    assert_eq!((stands.len(), stands[0].offset, stands[0].busy), (1, 7, true));
    sends.base.pass(Duration::from_secs(2)).await;
    let second = sends.board(1).await.unwrap();
    assert_eq!((second.trail, second.boarded), (Some(trail(7)), 2));
    // The one that stalled writes nothing any more.
    assert!(!sends.mark(&first.flight, 9).await);
    assert!(!sends.base.store.renew_blob(&first.flight, LEASE, TERMS).await.unwrap());
    sends.base.store.leave_blob(&first.flight, UploadLeft::Nothing).await.unwrap();
    sends.base.store.land_blob(&first.flight, true).await.unwrap();
    assert!(sends.board(1).await.is_none());
    sends.base.store.land_blob(&second.flight, true).await.unwrap();
    assert_eq!((sends.received().await, sends.base.count(BLOBS).await), (10, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_blob_is_what_was_said() {
    let sends = Sends::new().await;
    let flight = sends.flight(1).await;
    sends.mark(&flight, 4).await;
    sends.base.store.leave_blob(&flight, UploadLeft::Trail).await.unwrap();
    let again = sends.board(1).await.unwrap();
    assert_eq!(again.trail, Some(trail(4)));
    sends.base.store.leave_blob(&again.flight, UploadLeft::Whole).await.unwrap();
    let anew = sends.board(1).await.unwrap();
    assert_eq!((anew.trail, anew.whole, anew.boarded), (None, true, 3));
    sends.base.store.leave_blob(&anew.flight, UploadLeft::Nothing).await.unwrap();
    assert!(sends.board(1).await.unwrap().whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_has_so_many_bytes_and_blobs_and_those_under_way_count() {
    let sends = Sends::new().await;
    let ask = |number: u8, most| {
        let (sends, digest) = (&sends, digest(number));
        async move { sends.ask("ci", sends.id, &digest, most).await }
    };
    assert_eq!(ask(1, (9, 5)).await, UploadBoarding::TooLarge);
    assert_eq!(sends.base.count(BLOBS).await, 0);
    let first = sends.flight(1).await;
    assert_eq!(ask(2, (19, 5)).await, UploadBoarding::TooLarge);
    assert_eq!(ask(2, (20, 1)).await, UploadBoarding::TooLarge);
    sends.base.store.land_blob(&first, true).await.unwrap();
    assert_eq!(ask(2, (19, 5)).await, UploadBoarding::TooLarge);
    assert_eq!(ask(2, (20, 1)).await, UploadBoarding::TooLarge);
    assert!(matches!(ask(2, (20, 2)).await, UploadBoarding::Boarded(_)));
    let nobody = sends.ask("other", sends.id, &digest(3), (1000, 10)).await;
    assert_eq!(nobody, UploadBoarding::Gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_upload_takes_a_blob_over_and_the_end_of_the_first_leaves_it() {
    let sends = Sends::new().await;
    let flight = sends.flight(1).await;
    sends.mark(&flight, 4).await;
    let other = start(&sends.base, "other").await.unwrap();
    assert_eq!(sends.ask("other", other.id, &digest(1), (99, 9)).await, UploadBoarding::Taken);
    sends.base.store.leave_blob(&flight, UploadLeft::Trail).await.unwrap();
    let taken = sends.ask("other", other.id, &digest(1), (99, 9)).await;
    let UploadBoarding::Boarded(taken) = taken else { panic!("{taken:?}") };
    assert_eq!(taken.trail, Some(trail(4)));
    assert!(sends.base.store.end_upload("ci", sends.id).await.unwrap());
    assert!(sends.base.store.take_orphans(9, LEASE, HOUR).await.unwrap().is_empty());
    assert!(sends.base.store.mark_blob(&taken.flight, &trail(8)).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upload_leaves_is_cancelled_by_one_process_unless_somebody_goes_on() {
    let sends = Sends::new().await;
    for number in [1, 2] {
        let flight = sends.flight(number).await;
        sends.mark(&flight, 4).await;
        sends.base.store.leave_blob(&flight, UploadLeft::Trail).await.unwrap();
    }
    let sending = sends.flight(3).await;
    sends.base.store.end_upload("ci", sends.id).await.unwrap();
    // Who is at it learns that it is over, and nobody cancels behind its back.
    assert!(!sends.mark(&sending, 5).await);
    assert!(!sends.base.store.renew_blob(&sending, LEASE, TERMS).await.unwrap());
    let take = || sends.base.store.take_orphans(9, LEASE, HOUR);
    let (some, others) = tokio::join!(take(), take());
    let mut left: Vec<_> = some.unwrap().into_iter().chain(others.unwrap()).collect();
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|it| it.trail == Some(trail(4)) && !it.last));
    let again = start(&sends.base, "ci").await.unwrap();
    let ask = sends.ask("ci", again.id, &left[0].flight.digest.clone(), (99, 9)).await;
    assert_eq!(ask, UploadBoarding::Taken);
    sends.base.store.land_blob(&left.remove(0).flight, false).await.unwrap();
    sends.base.pass(HOUR * 2).await;
    // What could not be cancelled, and what was sent then, come again; for the last time.
    let late = take().await.unwrap();
    assert_eq!(late.len(), 2);
    assert!(late.iter().all(|it| it.last));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_ends_the_upload_of_its_content_and_says_where_that_came_from() {
    let sends = Sends::new().await;
    let accept = async |principal: &str, upload: Uuid, key: Option<&str>| {
        let mut asked = request(&[("app", &[], &["latest"])]);
        (asked.upload, asked.idempotency_key) = (Some(upload), key.map(str::to_owned));
        let new = NewRelease {
            made: None,
            principal,
            request: &asked,
            digest: &digest(1),
            fingerprint: [7; 32],
            traceparent: None,
        };
        sends.base.store.create_release(&new).await
    };
    let elsewhere = sends
        .base
        .store
        .start_upload("ci", &repository("tool"), "", TERMS, 9)
        .await
        .unwrap()
        .unwrap();
    for (who, upload) in [("other", sends.id), ("ci", elsewhere.id), ("ci", Uuid::nil())] {
        let refused = accept(who, upload, None).await.unwrap_err();
        assert_eq!((refused.reason(), refused.field_name()), (Reason::NotFound, Some("upload")));
    }
    assert_eq!(sends.base.count("SELECT count(*) FROM release").await, 0);
    let Created::New(id) = accept("ci", sends.id, Some("key")).await.unwrap() else { panic!() };
    let release = sends.base.store.accepted(id).await.unwrap();
    assert_eq!(release.origin, "app:1 on mars");
    // The upload has ended; the key answers all the same.
    assert!(sends.base.store.touch_upload("ci", sends.id, TERMS).await.unwrap().is_none());
    assert_eq!(accept("ci", sends.id, Some("key")).await.unwrap(), Created::Existing(id));
    assert_eq!(accept("ci", sends.id, None).await.unwrap_err().reason(), Reason::NotFound);
}
