//! A blob that a client sends goes on where it broke off, whoever sends the rest; what is not what it
//! should be leaves nothing behind.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use colophon_domain::{Access, BlobWish, Digest, Failure, Reason, Result, Retry, Trail};
use colophon_registry::{Broken, Received, Reception, RegistryConfig, Remains, Session, TrailBook};
use colophon_testkit::scripted::{Answer, Personality, When};
use futures_util::{
    StreamExt as _,
    future::{BoxFuture, ready},
    stream::{self, BoxStream},
};

use crate::{
    chunks::{CHUNK, SIZE, layer, nth_chunk},
    stage::{Kind, Stage, WRITER},
    support::{Keys, LAYER, descriptor, entry, image, index, registries},
};

const V3: Kind = ("v3.example.com", Personality::distribution_v3);

/// What is written down of the one blob that there is.
#[derive(Default)]
struct Book {
    trail: Mutex<Option<Trail>>,
    lost: Mutex<bool>,
}

impl TrailBook for Book {
    fn mark<'a>(&'a self, trail: &'a Trail) -> BoxFuture<'a, Result<()>> {
        let lost = *self.lost.lock().unwrap();
        *self.trail.lock().unwrap() = Some(trail.clone());
        let lost = lost.then(|| Failure::new(Reason::LeaseLost, "lost"));
        Box::pin(ready(lost.map_or(Ok(()), Err)))
    }
}

/// A registry, and a client that sends a blob to it.
struct Sends {
    stage: Stage,
    book: Arc<Book>,
    wish: BlobWish,
}

impl Sends {
    async fn to(kind: Kind) -> Self {
        Self::a(Stage::of(kind).await, &layer())
    }

    fn a(stage: Stage, blob: &[u8]) -> Self {
        let wish = BlobWish { digest: Digest::sha256(blob), size: blob.len() as u64 };
        Self { stage, book: Arc::default(), wish }
    }

    /// A process that has just begun.
    fn session(&self) -> Session {
        self.session_of(self.stage.keys())
    }

    fn session_of(&self, keys: Arc<Keys>) -> Session {
        let config = RegistryConfig { chunk_bytes: CHUNK as u64, ..self.stage.config() };
        let repository = self.stage.repository("dst");
        registries([config], keys).session(&repository, Access::Push).unwrap()
    }

    fn trail(&self) -> Option<Trail> {
        self.book.trail.lock().unwrap().clone()
    }

    async fn send(
        &self,
        session: &Session,
        offset: u64,
        content: BoxStream<'static, Result<Bytes>>,
    ) -> Result<Received, Broken> {
        let (blob, trail, book) = (&self.wish, self.trail(), &*self.book);
        let whole = false;
        session.receive(Reception { blob, offset, trail, whole, book }, content).await
    }

    fn arrived(&self) -> u64 {
        let there = self.stage.fake.blob(&self.stage.name("dst"), self.wish.digest.as_str());
        assert_eq!(there.unwrap().len() as u64, self.wish.size);
        self.stage.fake.bytes_received_in_all()
    }

    /// Nothing is there, and nothing is under way.
    async fn nothing_is_left(&self) {
        let there = self.stage.fake.blob(&self.stage.name("dst"), self.wish.digest.as_str());
        assert!(there.is_none());
        for _ in 0..500 {
            if self.stage.fake.open_uploads() == 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("an upload stays open");
    }
}

/// The bytes of a blob from one offset to another.
fn content(blob: &Bytes, from: usize, to: usize) -> BoxStream<'static, Result<Bytes>> {
    let pieces: Vec<_> = blob[from..to].chunks(10_000).map(Bytes::copy_from_slice).collect();
    stream::iter(pieces.into_iter().map(Ok)).boxed()
}

/// The same, and then the connection is gone.
fn broken(blob: &Bytes, from: usize, to: usize) -> BoxStream<'static, Result<Bytes>> {
    let gone = Failure::new(Reason::ServerStopping, "the client is gone").retry(Retry::Backoff);
    content(blob, from, to).chain(stream::iter([Err(gone)])).boxed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_blob_goes_in_one_request_and_a_large_one_in_chunks() {
    for (blob, patches) in [(Bytes::from("small"), 0), (layer(), 8), (Bytes::new(), 0)] {
        let sends = Sends::a(Stage::of(V3).await, &blob);
        let all = content(&blob, 0, blob.len());
        let received = sends.send(&sends.session(), 0, all).await.unwrap();
        assert_eq!(received, Received::Complete);
        assert_eq!(sends.arrived(), blob.len() as u64);
        assert_eq!(sends.stage.fake.count("PATCH", "/uploads/"), patches);
        assert!(sends.session().has_blob(&sends.wish.digest).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_broke_off_goes_on_in_another_process() {
    let (sends, blob) = (Sends::to(V3).await, layer());
    let half = CHUNK * 4 + 10_000;
    let gone = sends.send(&sends.session(), 0, broken(&blob, 0, half)).await.unwrap_err();
    assert_eq!((gone.failure.reason(), gone.left), (Reason::ServerStopping, Remains::Trail));
    let trail = sends.trail().unwrap();
    assert_eq!(trail.offset, (CHUNK * 4) as u64);
    assert!(!String::from_utf8_lossy(&trail.location).contains("uploads"));
    // Elsewhere than it stands it is not taken.
    for offset in [0, half] {
        let all = content(&blob, offset, SIZE);
        let refused = sends.send(&sends.session(), offset as u64, all).await.unwrap_err();
        assert_eq!(
            (refused.failure.reason(), refused.left),
            (Reason::UploadOffset, Remains::Trail)
        );
        assert!(refused.failure.message().contains(&trail.offset.to_string()));
    }
    let rest = content(&blob, CHUNK * 4, SIZE);
    let received = sends.send(&sends.session(), trail.offset, rest).await.unwrap();
    assert_eq!(received, Received::Complete);
    // The registry may have kept what came of the chunk that broke off.
    assert!((SIZE..=SIZE + 10_000).contains(&usize::try_from(sends.arrived()).unwrap()));
    assert_eq!(sends.stage.fake.count("POST", "/uploads/"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_leaves_what_was_confirmed() {
    let (sends, blob) = (Sends::to(V3).await, layer());
    let stalls = content(&blob, 0, CHUNK * 3 + 5).chain(stream::pending()).boxed();
    let session = sends.session();
    let confirmed = async {
        while sends.trail().is_none_or(|trail| trail.offset < (CHUNK * 3) as u64) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        ended = sends.send(&session, 0, stalls) => panic!("{ended:?}"),
        () = confirmed => {}
    }
    let rest = content(&blob, CHUNK * 3, SIZE);
    let received = sends.send(&sends.session(), (CHUNK * 3) as u64, rest).await.unwrap();
    assert_eq!(received, Received::Complete);
    assert!(sends.arrived() <= (SIZE + 5) as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_ends_early_counts_as_far_as_it_was_confirmed() {
    let (sends, blob) = (Sends::to(V3).await, layer());
    let part = content(&blob, 0, CHUNK * 2 + 7);
    let received = sends.send(&sends.session(), 0, part).await.unwrap();
    assert_eq!(received, Received::Part((CHUNK * 2) as u64));
    let rest = content(&blob, CHUNK * 2, SIZE);
    let received = sends.send(&sends.session(), (CHUNK * 2) as u64, rest).await.unwrap();
    assert_eq!(received, Received::Complete);

    let small = Sends::a(Stage::of(V3).await, b"small");
    let part = content(&Bytes::from("small"), 0, 3);
    assert_eq!(small.send(&small.session(), 0, part).await.unwrap(), Received::Part(0));
    small.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_of_another_digest_or_size_leaves_nothing() {
    let wrong = |change: fn(&mut Vec<u8>)| {
        let mut blob = layer().to_vec();
        change(&mut blob);
        Bytes::from(blob)
    };
    for blob in
        [wrong(|blob| blob[5] ^= 1), wrong(|blob| blob[SIZE - 1] ^= 1), wrong(|blob| blob.push(1))]
    {
        let sends = Sends::to(V3).await;
        let all = content(&blob, 0, blob.len());
        let refused = sends.send(&sends.session(), 0, all).await.unwrap_err();
        assert_eq!(refused.failure.reason(), Reason::DigestMismatch);
        assert_eq!(refused.failure.retry_class(), Retry::Never);
        assert_eq!(refused.left, Remains::Nothing);
        sends.nothing_is_left().await;
        assert_eq!(sends.stage.fake.count("POST", "/uploads/"), 1, "it is not tried again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_takes_no_chunks_gets_the_blob_whole_the_next_time() {
    fn picky() -> Personality {
        Personality { largest_chunk: Some(100), ..Personality::distribution_v3() }
    }
    let (sends, blob) = (Sends::to(("picky.example.com", picky)).await, layer());
    let session = sends.session();
    let all = || content(&layer(), 0, SIZE);
    let refused = sends.send(&session, 0, all()).await.unwrap_err();
    assert_eq!((refused.failure.retry_class(), refused.left), (Retry::Backoff, Remains::Whole));
    assert_eq!(sends.trail(), None);
    let (wish, book) = (&sends.wish, &*sends.book);
    let reception = Reception { blob: wish, offset: 0, trail: None, whole: true, book };
    let received = session.receive(reception, all()).await.unwrap();
    assert_eq!(received, Received::Complete);
    sends.arrived();
    // From now on the process knows.
    let other = Bytes::from(blob.iter().map(|byte| byte ^ 1).collect::<Vec<u8>>());
    let wish = BlobWish { digest: Digest::sha256(&other), size: SIZE as u64 };
    let reception = Reception { blob: &wish, offset: 0, trail: None, whole: false, book };
    let received = session.receive(reception, content(&other, 0, SIZE)).await.unwrap();
    assert_eq!(received, Received::Complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_fails_costs_the_chunk_and_one_that_forgets_the_blob() {
    let (sends, blob) = (Sends::to(V3).await, layer());
    sends.stage.fake.script(nth_chunk(4, Answer::status(503)));
    let all = content(&blob, 0, SIZE);
    let failed = sends.send(&sends.session(), 0, all).await.unwrap_err();
    assert_eq!((failed.failure.retry_class(), failed.left), (Retry::Backoff, Remains::Trail));
    let offset = sends.trail().unwrap().offset;
    assert_eq!(offset, (CHUNK * 3) as u64);

    let gone = Answer::error(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown");
    sends.stage.fake.script([(When::of("GET", "/uploads/"), gone, 1)]);
    let rest = content(&blob, CHUNK * 3, SIZE);
    let lost = sends.send(&sends.session(), offset, rest).await.unwrap_err();
    assert_eq!((lost.failure.reason(), lost.left), (Reason::UploadOffset, Remains::Nothing));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_lost_the_lease_sends_nothing_more() {
    let (sends, blob) = (Sends::to(V3).await, layer());
    *sends.book.lost.lock().unwrap() = true;
    let all = content(&blob, 0, SIZE);
    let lost = sends.send(&sends.session(), 0, all).await.unwrap_err();
    assert_eq!(lost.failure.reason(), Reason::LeaseLost);
    assert_eq!(sends.stage.fake.count("PATCH", "/uploads/"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_abandoned_is_cancelled_by_who_can_read_where_it_is() {
    let (sends, blob) = (Sends::to(V3).await, layer());
    sends.send(&sends.session(), 0, broken(&blob, 0, CHUNK * 3 + 5)).await.unwrap_err();
    let trail = sends.trail().unwrap();
    assert_eq!(sends.stage.fake.open_uploads(), 1);
    let name = sends.stage.name("dst");
    let rotated = Keys::none().and(&format!("{name} push"), WRITER.0, "rotated_PatNeverShown");
    sends.session_of(rotated).abandon(&sends.wish.digest, &trail).await.unwrap();
    assert_eq!(sends.stage.fake.open_uploads(), 1);
    // The piece that broke off comes to the registry after the upload was asked where it stands.
    sends.stage.fake.script(vec![(When::of("DELETE", "/uploads/"), Answer::status(416), 1)]);
    sends.session().abandon(&sends.wish.digest, &trail).await.unwrap();
    sends.nothing_is_left().await;
    // Once more, and by another registry's word, it is gone all the same.
    sends.session().abandon(&sends.wish.digest, &trail).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_put_by_the_digest_that_its_bytes_have() {
    let stage = Stage::of(V3).await;
    let layer = Bytes::from("layer");
    let digest: Digest = stage.fake.add_blob(&stage.name("dst"), layer).parse().unwrap();
    let image = image(&[descriptor(LAYER, &digest, 5)]);
    let root = index(&[entry(&image)]);
    let to = stage.writes();
    let put = |it: &colophon_registry::Manifest| {
        let (to, it) = (to.clone(), it.clone());
        async move { to.put_content(&it.digest, &it.media_type, it.bytes).await }
    };
    let early = put(&root).await.unwrap_err();
    assert_eq!(early.reason(), Reason::ContentMissing);
    put(&image).await.unwrap();
    put(&root).await.unwrap();
    assert!(stage.fake.manifest(&stage.name("dst"), root.digest.as_str()).is_some());
    let other = Digest::sha256(b"other");
    let refused = to.put_content(&other, &root.media_type, root.bytes.clone()).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::DigestMismatch);
    let refused = to.put_content(&root.digest, &image.media_type, root.bytes.clone()).await;
    assert_eq!(refused.unwrap_err().reason(), Reason::UnsupportedManifest);
    let large = Bytes::from(vec![b' '; (4 << 20) + 1]);
    let refused = to.put_content(&Digest::sha256(&large), &root.media_type, large).await;
    assert_eq!(refused.unwrap_err().reason(), Reason::TooLarge);
}
