//! A scripted engine, a clock that stands still, and a server around them on a port of its own.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use colophon_api::v1::{
    freeze_service_client::FreezeServiceClient, release_service_client::ReleaseServiceClient,
    tag_service_client::TagServiceClient, upload_service_client::UploadServiceClient,
};
use colophon_domain::{
    Action, Clock, EntryQuery, EntryView, FreezeRequest, FreezeView, Grant, PlanView, Principal,
    ReleaseQuery, ReleaseRequest, ReleaseState, ReleaseView, Repository, Result, RollbackRequest,
    Settlement, Tag, TagView, Visibility,
};
use colophon_server::{
    CallerConfig, Callers, ConnectionLimits, Part, Probe, Releases, ServerSettings,
};
use futures_util::{
    StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sha2::{Digest as _, Sha256};
use time::{OffsetDateTime, macros::datetime};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::{
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use uuid::Uuid;

use crate::fake_uploads::FakeUploads;
pub use crate::views::{entry, freeze, plan, release, tag, uuid};

pub const NOW: OffsetDateTime = datetime!(2026-11-03 14:02:00 UTC);

/// The caller that may do everything below `docker.io/acme` and `ghcr.io/acme`.
pub const CI: &str = "token-of-ci";
/// The caller that may publish and roll back everywhere, and neither freeze, settle nor break glass.
pub const DEV: &str = "token-of-dev";
/// The caller that may read `ghcr.io/acme` only.
pub const READER: &str = "token-of-reader";
/// The caller whose token expires at [`NOW`] plus one hour.
pub const GUEST: &str = "token-of-guest";

pub type Script<Q, A> = Mutex<Box<dyn FnMut(Q) -> BoxFuture<'static, Result<A>> + Send>>;

pub fn script<Q: 'static, A: Send + 'static>(
    mut answer: impl FnMut(Q) -> Result<A> + Send + 'static,
) -> Script<Q, A> {
    Mutex::new(Box::new(move |question| {
        let answer = answer(question);
        Box::pin(async move { answer })
    }))
}

type Watching =
    Box<dyn FnMut(Uuid) -> BoxStream<'static, Result<Arc<ReleaseView>>> + Send + 'static>;

/// What the engine is asked to settle: the caller, the tag, what became of it, why, for whom.
pub type Settle = (Principal, Repository, Tag, Settlement, String, String);

/// An engine that answers what the test says, and remembers what it was asked.
pub struct Fake {
    create: Script<(Principal, ReleaseRequest), ReleaseView>,
    get: Script<(Visibility, Uuid), Option<ReleaseView>>,
    watch: Mutex<Watching>,
    list: Script<ReleaseQuery, Vec<ReleaseView>>,
    cancel: Script<(Principal, Uuid, String), ReleaseView>,
    retry: Script<(Principal, Uuid, String), ReleaseView>,
    plan: Script<(Principal, ReleaseRequest), PlanView>,
    rollback: Script<(Principal, RollbackRequest), ReleaseView>,
    tag: Script<(Repository, Tag, Option<OffsetDateTime>), TagView>,
    settle: Script<Settle, TagView>,
    entries: Script<EntryQuery, Vec<EntryView>>,
    freeze: Script<(Principal, FreezeRequest), FreezeView>,
    freezes: Script<bool, Vec<FreezeView>>,
    find_freeze: Script<Uuid, Option<FreezeView>>,
    lift: Script<(Principal, Uuid, String), FreezeView>,
    ready: Script<(), ()>,
    vault: Script<(), ()>,
    pub uploads: Arc<FakeUploads>,
    /// The methods called, in order, without those of uploads.
    pub called: Mutex<Vec<&'static str>>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            create: script(|_| Ok(release(1))),
            get: script(|(_, id)| Ok(Some(ReleaseView { id, ..release(1) }))),
            watch: Mutex::new(Box::new(|id| {
                let ended = ReleaseState::Succeeded;
                let view = ReleaseView { id, state: ended, revision: 2, ..release(1) };
                stream::iter([Ok(Arc::new(view))]).boxed()
            })),
            list: script(|_| Ok(vec![])),
            cancel: script(|(_, id, _)| Ok(ReleaseView { id, ..release(1) })),
            retry: script(|(_, id, _)| Ok(ReleaseView { id, ..release(1) })),
            plan: script(|_| Ok(plan())),
            rollback: script(|_| Ok(release(1))),
            tag: script(|_| Ok(tag())),
            settle: script(|_| Ok(tag())),
            entries: script(|_| Ok(vec![])),
            freeze: script(|_| Ok(freeze(1))),
            freezes: script(|_| Ok(vec![freeze(2), freeze(1)])),
            find_freeze: script(|id| Ok(Some(FreezeView { id, ..freeze(1) }))),
            lift: script(|(_, id, _)| Ok(FreezeView { id, ..freeze(1) })),
            ready: script(|()| Ok(())),
            vault: script(|()| Ok(())),
            uploads: Arc::default(),
            called: Mutex::default(),
        }
    }
}

macro_rules! scripted {
    ($($method:ident($question:ty) -> $answer:ty;)+) => {$(
        pub fn $method(
            mut self,
            answer: impl FnMut($question) -> Result<$answer> + Send + 'static,
        ) -> Self {
            self.$method = script(answer);
            self
        }
    )+};
}

impl Fake {
    scripted! {
        create((Principal, ReleaseRequest)) -> ReleaseView;
        get((Visibility, Uuid)) -> Option<ReleaseView>;
        list(ReleaseQuery) -> Vec<ReleaseView>;
        retry((Principal, Uuid, String)) -> ReleaseView;
        plan((Principal, ReleaseRequest)) -> PlanView;
        rollback((Principal, RollbackRequest)) -> ReleaseView;
        settle(Settle) -> TagView;
        entries(EntryQuery) -> Vec<EntryView>;
        freeze((Principal, FreezeRequest)) -> FreezeView;
        freezes(bool) -> Vec<FreezeView>;
        find_freeze(Uuid) -> Option<FreezeView>;
        lift((Principal, Uuid, String)) -> FreezeView;
        ready(()) -> ();
        vault(()) -> ();
    }

    /// What those see who watch.
    pub fn watch(
        mut self,
        sights: impl FnMut(Uuid) -> BoxStream<'static, Result<Arc<ReleaseView>>> + Send + 'static,
    ) -> Self {
        self.watch = Mutex::new(Box::new(sights));
        self
    }

    /// A release that answers when the test lets it.
    pub fn create_later(
        mut self,
        answer: impl FnMut((Principal, ReleaseRequest)) -> BoxFuture<'static, Result<ReleaseView>>
        + Send
        + 'static,
    ) -> Self {
        self.create = Mutex::new(Box::new(answer));
        self
    }

    fn ask<Q, A>(
        &self,
        name: &'static str,
        script: &Script<Q, A>,
        question: Q,
    ) -> BoxFuture<'static, Result<A>> {
        self.called.lock().unwrap().push(name);
        (script.lock().unwrap())(question)
    }
}

impl Releases for Fake {
    fn create(
        &self,
        caller: Principal,
        request: ReleaseRequest,
    ) -> BoxFuture<'_, Result<ReleaseView>> {
        self.ask("create", &self.create, (caller, request))
    }

    fn get(&self, visibility: Visibility, id: Uuid) -> BoxFuture<'_, Result<Option<ReleaseView>>> {
        self.ask("get", &self.get, (visibility, id))
    }

    fn watch(&self, id: Uuid) -> BoxStream<'static, Result<Arc<ReleaseView>>> {
        self.called.lock().unwrap().push("watch");
        (self.watch.lock().unwrap())(id)
    }

    fn list(&self, query: ReleaseQuery) -> BoxFuture<'_, Result<Vec<ReleaseView>>> {
        self.ask("list", &self.list, query)
    }

    fn cancel(
        &self,
        caller: Principal,
        id: Uuid,
        reason: String,
    ) -> BoxFuture<'_, Result<ReleaseView>> {
        self.ask("cancel", &self.cancel, (caller, id, reason))
    }

    fn retry(
        &self,
        caller: Principal,
        id: Uuid,
        reason: String,
    ) -> BoxFuture<'_, Result<ReleaseView>> {
        self.ask("retry", &self.retry, (caller, id, reason))
    }

    fn tag(
        &self,
        repository: Repository,
        tag: Tag,
        at: Option<OffsetDateTime>,
    ) -> BoxFuture<'_, Result<TagView>> {
        self.ask("tag", &self.tag, (repository, tag, at))
    }

    fn entries(&self, query: EntryQuery) -> BoxFuture<'_, Result<Vec<EntryView>>> {
        self.ask("entries", &self.entries, query)
    }

    fn plan(&self, caller: Principal, request: ReleaseRequest) -> BoxFuture<'_, Result<PlanView>> {
        self.ask("plan", &self.plan, (caller, request))
    }

    fn rollback(
        &self,
        caller: Principal,
        request: RollbackRequest,
    ) -> BoxFuture<'_, Result<ReleaseView>> {
        self.ask("rollback", &self.rollback, (caller, request))
    }

    fn settle(
        &self,
        caller: Principal,
        repository: Repository,
        tag: Tag,
        settlement: Settlement,
        reason: String,
        on_behalf_of: String,
    ) -> BoxFuture<'_, Result<TagView>> {
        let question = (caller, repository, tag, settlement, reason, on_behalf_of);
        self.ask("settle", &self.settle, question)
    }

    fn freeze(
        &self,
        caller: Principal,
        request: FreezeRequest,
    ) -> BoxFuture<'_, Result<FreezeView>> {
        self.ask("freeze", &self.freeze, (caller, request))
    }

    fn freezes(&self, include_ended: bool) -> BoxFuture<'_, Result<Vec<FreezeView>>> {
        self.ask("freezes", &self.freezes, include_ended)
    }

    fn find_freeze(&self, id: Uuid) -> BoxFuture<'_, Result<Option<FreezeView>>> {
        self.ask("find_freeze", &self.find_freeze, id)
    }

    fn lift(
        &self,
        caller: Principal,
        id: Uuid,
        reason: String,
    ) -> BoxFuture<'_, Result<FreezeView>> {
        self.ask("lift", &self.lift, (caller, id, reason))
    }
}

impl Probe for Fake {
    fn parts(&self) -> Vec<Part<'_>> {
        let part = |name, needed, look| Part { name, needed, look };
        vec![
            part("database", true, self.ask("ready", &self.ready, ())),
            part("vault", false, self.ask("vault", &self.vault, ())),
        ]
    }
}

/// A clock that the test sets.
pub struct TestClock(Mutex<OffsetDateTime>);

impl Default for TestClock {
    fn default() -> Self {
        Self(Mutex::new(NOW))
    }
}

impl TestClock {
    pub fn set(&self, time: OffsetDateTime) {
        *self.0.lock().unwrap() = time;
    }
}

impl Clock for TestClock {
    fn now(&self) -> OffsetDateTime {
        *self.0.lock().unwrap()
    }
}

fn callers() -> Callers {
    let entry = |name: &str, token: &str, expires_at: Option<&str>, grants| CallerConfig {
        name: name.into(),
        token_sha256: hex::encode(Sha256::digest(token)),
        expires_at: expires_at.map(Into::into),
        grants,
    };
    let grant = |pattern: &str, actions: &[Action]| Grant {
        repositories: vec![pattern.parse().unwrap()],
        actions: actions.to_vec(),
    };
    let all = [
        Action::Read,
        Action::Publish,
        Action::MoveFloating,
        Action::Cancel,
        Action::Rollback,
        Action::Freeze,
        Action::BreakGlass,
        Action::Settle,
    ];
    let narrow = [Action::Read, Action::Publish, Action::MoveFloating, Action::Rollback];
    Callers::new(vec![
        entry("ci", CI, None, vec![grant("docker.io/acme/*", &all), grant("ghcr.io/acme/*", &all)]),
        entry("dev", DEV, None, vec![grant("*", &narrow)]),
        entry("reader", READER, None, vec![grant("ghcr.io/acme/*", &[Action::Read])]),
        entry("guest", GUEST, Some("2026-11-03T15:02:00Z"), vec![grant("*", &[Action::Read])]),
    ])
    .unwrap()
}

/// The router around an engine, with the log of the whole test process collected.
pub fn router(fake: Arc<Fake>, clock: Arc<TestClock>, settings: ServerSettings) -> axum::Router {
    crate::logs::collect();
    let uploads = fake.uploads.clone();
    colophon_server::router(fake, uploads, callers(), clock, settings)
}

/// A running server; dropping it stops it.
pub struct Server {
    pub address: SocketAddr,
    pub fake: Arc<Fake>,
    pub clock: Arc<TestClock>,
    pub stop: Option<oneshot::Sender<()>>,
    pub ended: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub async fn start(fake: Fake) -> Self {
        Self::with(fake, ServerSettings::default(), ConnectionLimits::default()).await
    }

    pub async fn with(fake: Fake, settings: ServerSettings, limits: ConnectionLimits) -> Self {
        let fake = Arc::new(fake);
        let clock = Arc::new(TestClock::default());
        let router = router(fake.clone(), clock.clone(), settings);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(colophon_server::serve_within(limits, listener, router, async {
            let _ = stopped.await;
        }));
        Self { address, fake, clock, stop: Some(stop), ended }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The methods that the engine was asked, without probes.
    pub fn called(&self) -> Vec<&'static str> {
        self.fake.called.lock().unwrap().clone()
    }

    pub async fn channel(&self) -> Channel {
        Channel::from_shared(self.url("")).unwrap().connect().await.unwrap()
    }

    pub async fn releases(&self, token: &str) -> ReleaseServiceClient<Authorized> {
        ReleaseServiceClient::new(InterceptedService::new(self.channel().await, Bearer::new(token)))
    }

    pub async fn tags(&self, token: &str) -> TagServiceClient<Authorized> {
        TagServiceClient::new(InterceptedService::new(self.channel().await, Bearer::new(token)))
    }

    pub async fn uploads(&self, token: &str) -> UploadServiceClient<Authorized> {
        UploadServiceClient::new(InterceptedService::new(self.channel().await, Bearer::new(token)))
    }

    pub async fn freezes(&self, token: &str) -> FreezeServiceClient<Authorized> {
        FreezeServiceClient::new(InterceptedService::new(self.channel().await, Bearer::new(token)))
    }
}

pub type Authorized = InterceptedService<Channel, Bearer>;

/// Adds a bearer token to gRPC calls.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    pub fn new(token: &str) -> Self {
        Self(format!("Bearer {token}").parse().unwrap())
    }
}

impl Interceptor for Bearer {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}
