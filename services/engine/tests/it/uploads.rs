//! Content that clients send: it becomes a release, goes on where it broke off whoever sends the rest, is
//! its caller's alone, and leaves nothing at the registry.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use colophon_domain::{
    Action, BlobWish, Digest, Failure, Grant, NewUpload, Principal, Reason, Reference,
    ReleaseRequest, Repository, Result, Retry, SystemEntropy, TagKind, TagRequest, TagRules,
    TargetRequest, UploadView, Wanted,
};
use colophon_engine::{Engine, UploadLimits, WorkSettings};
use colophon_registry::{Registries, RegistryConfig};
use colophon_testkit::scripted::{Personality, Scripted};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use uuid::Uuid;

use crate::{base::Base, world::Anonymous};

const CHUNK: usize = 64 << 10;
const SIZE: usize = CHUNK * 11 / 2;
const HOST: &str = "corp.test";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

fn blob() -> Bytes {
    (0..SIZE).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect::<Vec<u8>>().into()
}

fn wish(blob: &[u8]) -> BlobWish {
    BlobWish { digest: Digest::sha256(blob), size: blob.len() as u64 }
}

fn caller(name: &str) -> Principal {
    let grant = Grant { repositories: vec!["*".parse().unwrap()], actions: vec![Action::Publish] };
    Principal { name: name.to_owned(), grants: vec![grant] }
}

fn place() -> Repository {
    Repository::parse(&format!("{HOST}/app")).unwrap()
}

/// The bytes of a blob from one offset to another.
fn content(blob: &Bytes, from: usize, to: usize) -> BoxStream<'static, Result<Bytes>> {
    let pieces: Vec<_> = blob[from..to].chunks(10_000).map(Bytes::copy_from_slice).collect();
    stream::iter(pieces.into_iter().map(Ok)).boxed()
}

/// A registry that takes uploads, and processes that share a database.
struct Scene {
    base: Base,
    fake: Scripted,
    engine: Engine,
}

impl Scene {
    async fn new() -> Self {
        Self::limited(UploadLimits::default()).await
    }

    async fn limited(limits: UploadLimits) -> Self {
        let base = Base::new().await;
        let fake = Scripted::start(Personality::default()).await.unwrap();
        fake.add_repository("app");
        let engine = process(&base, &fake, limits);
        Self { base, fake, engine }
    }

    /// Another process.
    fn another(&self) -> Engine {
        process(&self.base, &self.fake, UploadLimits::default())
    }

    async fn start(&self, name: &str) -> Result<UploadView> {
        let request = NewUpload { repository: place(), origin: "app:dev on mars".into() };
        self.engine.start_upload(&caller(name), request).await
    }

    async fn wanted(&self, name: &str, id: Uuid) -> Wanted {
        let found = self.engine.find_blobs(&caller(name), id, vec![wish(&blob())]).await.unwrap();
        found[0].wanted
    }

    /// Waits until a blob is nobody's, or stands somewhere.
    async fn wait_for(&self, id: Uuid, wanted: Wanted) {
        for _ in 0..1000 {
            if self.wanted("ci", id).await == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?} in place of {wanted:?}", self.wanted("ci", id).await);
    }

    /// Sends a blob up to an offset; then its process dies.
    async fn dies_at(&self, id: Uuid, confirmed: usize) {
        let stalls = content(&blob(), 0, confirmed + 1).chain(stream::pending()).boxed();
        let (engine, ci) = (self.another(), caller("ci"));
        let sending = engine.put_blob(&ci, id, wish(&blob()), 0, stalls);
        let arrived = async {
            let sent = "SELECT COALESCE(max(sent_bytes), 0) FROM upload_blob";
            while self.base.count(sent).await < i64::try_from(confirmed).unwrap() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(self.wanted("ci", id).await, Wanted::Busy);
        };
        tokio::select! {
            ended = sending => panic!("{ended:?}"),
            () = arrived => {}
        }
    }
}

fn process(base: &Base, fake: &Scripted, limits: UploadLimits) -> Engine {
    let config = RegistryConfig {
        endpoint: Some(fake.host()),
        plain_http: true,
        chunk_bytes: CHUNK as u64,
        ..RegistryConfig::new(HOST.parse().unwrap())
    };
    let registries = Registries::new(vec![config], Arc::new(Anonymous)).unwrap();
    let held = (base.clock.clone() as _, Arc::new(SystemEntropy) as _);
    let settings = WorkSettings::default();
    Engine::new(base.store.clone(), registries, held, TagRules::default(), settings)
        .with_uploads(limits)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_becomes_a_release_that_says_where_it_came_from() {
    let scene = Scene::new().await;
    let (engine, ci) = (&scene.engine, caller("ci"));
    let id = scene.start("ci").await.unwrap().id;
    let config = Bytes::from("{}");
    let wishes = vec![wish(&blob()), wish(&config)];
    let found = engine.find_blobs(&ci, id, wishes).await.unwrap();
    assert!(found.iter().all(|blob| blob.wanted == Wanted::From(0)));
    let of = |blob: &Bytes| {
        let digest = Digest::sha256(blob).to_string();
        serde_json::json!({ "mediaType": "x/y", "digest": digest, "size": blob.len() })
    };
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": IMAGE, "config": of(&config), "layers": [of(&blob())],
    });
    let manifest = Bytes::from(manifest.to_string());
    let digest = Digest::sha256(&manifest);
    let put = |engine: &Engine| {
        let (engine, manifest, digest) = (engine.clone(), manifest.clone(), digest.clone());
        async move { engine.put_manifest(&caller("ci"), id, IMAGE.into(), digest, manifest).await }
    };
    let early = put(engine).await.unwrap_err();
    assert_eq!((early.reason(), early.retry_class()), (Reason::ContentMissing, Retry::Never));
    for bytes in [blob(), config] {
        let all = content(&bytes, 0, bytes.len());
        let sent = engine.put_blob(&ci, id, wish(&bytes), 0, all).await.unwrap();
        assert_eq!(sent.wanted, Wanted::Present);
    }
    assert_eq!(scene.wanted("ci", id).await, Wanted::Present);
    put(engine).await.unwrap();
    assert_eq!(engine.upload(&ci, id).await.unwrap().bytes_received, SIZE as u64 + 2);

    let tag = TagRequest::new("1.0".parse().unwrap(), TagKind::Unique);
    let target = TargetRequest { repository: place(), tags: vec![tag] };
    let source = Reference::digest(place(), digest);
    let key = Some("key".to_owned());
    let request = ReleaseRequest {
        upload: Some(id),
        idempotency_key: key,
        ..ReleaseRequest::publish(source, vec![target])
    };
    let foreign = engine.create_release("other", &request).await.unwrap_err();
    assert_eq!(foreign.reason(), Reason::NotFound);
    let release = engine.create_release("ci", &request).await.unwrap();
    assert_eq!(release.origin, "app:dev on mars");
    assert_eq!(engine.upload(&ci, id).await.unwrap_err().reason(), Reason::NotFound);
    // Sent again, by another upload, it is the same release.
    let again = ReleaseRequest { upload: Some(Uuid::nil()), ..request };
    assert_eq!(engine.create_release("ci", &again).await.unwrap().id, release.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_there_for_its_caller_alone() {
    let scene = Scene::new().await;
    let id = scene.start("ci").await.unwrap().id;
    let (engine, other) = (&scene.engine, caller("other"));
    let all = || content(&blob(), 0, SIZE);
    let refused = [
        engine.upload(&other, id).await.err(),
        engine.find_blobs(&other, id, vec![wish(&blob())]).await.err(),
        engine.put_blob(&other, id, wish(&blob()), 0, all()).await.err(),
        engine
            .put_manifest(&other, id, IMAGE.into(), Digest::sha256(b""), Bytes::new())
            .await
            .err(),
        engine.abandon(&other, id).await.err(),
    ];
    for failure in refused {
        assert_eq!(failure.unwrap().reason(), Reason::NotFound);
    }
    // A right that was taken back is gone at once.
    let revoked = Principal { grants: Vec::new(), ..caller("ci") };
    let refused = engine.put_blob(&revoked, id, wish(&blob()), 0, all()).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::PermissionDenied);
    assert_eq!(scene.fake.seen().len(), 0);
    engine.abandon(&revoked, id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_sent_goes_on_in_another_one() {
    let scene = Scene::new().await;
    let id = scene.start("ci").await.unwrap().id;
    scene.dies_at(id, CHUNK * 3).await;
    scene.wait_for(id, Wanted::From((CHUNK * 3) as u64)).await;
    let (engine, ci) = (scene.another(), caller("ci"));
    let all = content(&blob(), 0, SIZE);
    let wrong = engine.put_blob(&ci, id, wish(&blob()), 0, all).await.unwrap_err();
    assert_eq!(wrong.reason(), Reason::UploadOffset);
    let rest = content(&blob(), CHUNK * 3, SIZE);
    let sent = engine.put_blob(&ci, id, wish(&blob()), (CHUNK * 3) as u64, rest).await.unwrap();
    assert_eq!(sent.wanted, Wanted::Present);
    let arrived = scene.fake.bytes_received_in_all();
    assert!(arrived <= (SIZE + CHUNK) as u64, "{arrived}");
    assert_eq!(scene.fake.count("POST", "/uploads/"), 1);
    assert_eq!(scene.base.count("SELECT count(*) FROM upload_blob").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_somebody_sends_is_busy_and_then_there_or_gone_on_with() {
    let scene = Scene::new().await;
    let id = scene.start("ci").await.unwrap().id;
    let other = scene.start("other").await.unwrap().id;
    let pieces = stream::unfold(0_usize, |at| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let end = (at + 10_000).min(SIZE);
        (at < SIZE).then(|| (Ok(blob().slice(at..end)), end))
    })
    .boxed();
    let first = tokio::spawn({
        let engine = scene.another();
        async move { engine.put_blob(&caller("ci"), id, wish(&blob()), 0, pieces).await }
    });
    while scene.wanted("other", other).await != Wanted::Busy {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let all = content(&blob(), 0, SIZE);
    let busy = scene.engine.put_blob(&caller("other"), other, wish(&blob()), 0, all).await;
    let busy = busy.unwrap_err();
    assert_eq!(busy.reason(), Reason::UploadBusy);
    assert!(matches!(busy.retry_class(), Retry::Wait(_)));
    assert_eq!(first.await.unwrap().unwrap().wanted, Wanted::Present);
    assert_eq!(scene.wanted("other", other).await, Wanted::Present);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_without_a_release_is_cancelled_at_the_registry() {
    let scene = Scene::new().await;
    let id = scene.start("ci").await.unwrap().id;
    scene.dies_at(id, CHUNK * 2).await;
    scene.wait_for(id, Wanted::From((CHUNK * 2) as u64)).await;
    assert_eq!(scene.fake.open_uploads(), 1);
    scene.engine.abandon(&caller("ci"), id).await.unwrap();
    assert_eq!(scene.fake.open_uploads(), 0);

    let id = scene.start("ci").await.unwrap().id;
    scene.dies_at(id, CHUNK * 2).await;
    scene.wait_for(id, Wanted::From((CHUNK * 2) as u64)).await;
    assert_eq!(scene.another().end_uploads_once().await.unwrap(), 0);
    assert_eq!(scene.fake.open_uploads(), 1);
    scene.base.pass(Duration::from_hours(1)).await;
    let (one, two) = (scene.another(), scene.another());
    let ended = tokio::join!(one.end_uploads_once(), two.end_uploads_once());
    assert_eq!(ended.0.unwrap() + ended.1.unwrap(), 1);
    assert_eq!(scene.fake.open_uploads(), 0);
    assert_eq!(scene.base.count("SELECT count(*) FROM upload_blob").await, 0);
    assert_eq!(
        scene.engine.upload(&caller("ci"), id).await.unwrap_err().reason(),
        Reason::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_wrong_is_refused_once_and_leaves_nothing() {
    let scene = Scene::new().await;
    let (id, ci) = (scene.start("ci").await.unwrap().id, caller("ci"));
    let mut wrong = blob().to_vec();
    wrong[7] ^= 1;
    let wrong = Bytes::from(wrong);
    let refused = scene
        .engine
        .put_blob(&ci, id, wish(&blob()), 0, content(&wrong, 0, SIZE))
        .await
        .unwrap_err();
    assert_eq!((refused.reason(), refused.retry_class()), (Reason::DigestMismatch, Retry::Never));
    assert_eq!((scene.wanted("ci", id).await, scene.fake.open_uploads()), (Wanted::From(0), 0));
    // A connection that breaks off in a small blob leaves nothing either.
    let gone = Failure::new(Reason::ServerStopping, "gone").retry(Retry::Backoff);
    let half = stream::iter([Ok(Bytes::from("sm")), Err(gone)]).boxed();
    let small = wish(b"small");
    let broken = scene.engine.put_blob(&ci, id, small, 0, half).await.unwrap_err();
    assert_eq!(broken.reason(), Reason::ServerStopping);
    assert_eq!(scene.fake.open_uploads(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_caller_has_more_than_the_limits_say() {
    let limits = UploadLimits {
        max_bytes: SIZE as u64 - 1,
        max_per_caller: 1,
        max_streams_per_caller: 1,
        ..UploadLimits::default()
    };
    let scene = Scene::limited(limits).await;
    let (id, ci) = (scene.start("ci").await.unwrap().id, caller("ci"));
    assert_eq!(scene.start("ci").await.unwrap_err().reason(), Reason::UploadLimit);
    scene.start("other").await.unwrap();
    let all = || content(&blob(), 0, SIZE);
    let large = scene.engine.put_blob(&ci, id, wish(&blob()), 0, all()).await.unwrap_err();
    assert_eq!(large.reason(), Reason::UploadTooLarge);
    assert_eq!(scene.fake.seen().len(), 0);
    let engine = scene.engine.clone();
    let mut waits = Box::pin(engine.put_blob(&ci, id, wish(b"x"), 0, stream::pending().boxed()));
    tokio::select! {
        ended = &mut waits => panic!("{ended:?}"),
        () = tokio::time::sleep(Duration::from_millis(200)) => {}
    }
    let one_too_many = scene.engine.put_blob(&ci, id, wish(b"y"), 0, all()).await.unwrap_err();
    assert_eq!(one_too_many.reason(), Reason::UploadLimit);
}
