//! A scripted engine, a clock that stands still, and a server around them on a port of its own.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use colophon_api::v1::{
    release_service_client::ReleaseServiceClient, tag_service_client::TagServiceClient,
};
use colophon_domain::{
    Action, Certainty, Clock, CopyTotals, Digest, EntryQuery, EntryView, Grant, Phase, Principal,
    PublicationState, PublicationView, ReleaseQuery, ReleaseRequest, ReleaseState, ReleaseView,
    Repository, Result, Tag, TagKind, TagMoveState, TagMoveView, TagView, Visibility,
};
use colophon_server::{CallerConfig, Callers, ConnectionLimits, Releases, ServerSettings};
use futures_util::future::BoxFuture;
use sha2::{Digest as _, Sha256};
use time::{OffsetDateTime, macros::datetime};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::{
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use uuid::Uuid;

pub const NOW: OffsetDateTime = datetime!(2026-11-03 14:02:00 UTC);

/// The caller that may do everything below `docker.io/acme` and `ghcr.io/acme`.
pub const CI: &str = "token-of-ci";
/// The caller that may read `ghcr.io/acme` only.
pub const READER: &str = "token-of-reader";
/// The caller whose token expires at [`NOW`] plus one hour.
pub const GUEST: &str = "token-of-guest";

type Script<Q, A> = Mutex<Box<dyn FnMut(Q) -> BoxFuture<'static, Result<A>> + Send>>;

fn script<Q: 'static, A: Send + 'static>(
    mut answer: impl FnMut(Q) -> Result<A> + Send + 'static,
) -> Script<Q, A> {
    Mutex::new(Box::new(move |question| {
        let answer = answer(question);
        Box::pin(async move { answer })
    }))
}

/// An engine that answers what the test says, and remembers what it was asked.
pub struct Fake {
    create: Script<(Principal, ReleaseRequest), ReleaseView>,
    get: Script<(Visibility, Uuid), Option<ReleaseView>>,
    list: Script<ReleaseQuery, Vec<ReleaseView>>,
    cancel: Script<(Principal, Uuid, String), ReleaseView>,
    tag: Script<(Repository, Tag, Option<OffsetDateTime>), TagView>,
    entries: Script<EntryQuery, Vec<EntryView>>,
    ready: Script<(), ()>,
    /// The methods called, in order.
    pub called: Mutex<Vec<&'static str>>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            create: script(|_| Ok(release(1))),
            get: script(|(_, id)| Ok(Some(ReleaseView { id, ..release(1) }))),
            list: script(|_| Ok(vec![])),
            cancel: script(|(_, id, _)| Ok(ReleaseView { id, ..release(1) })),
            tag: script(|_| Ok(tag())),
            entries: script(|_| Ok(vec![])),
            ready: script(|()| Ok(())),
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
        entries(EntryQuery) -> Vec<EntryView>;
        ready(()) -> ();
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

    fn ready(&self) -> BoxFuture<'_, Result<()>> {
        self.ask("ready", &self.ready, ())
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
    let all = [Action::Read, Action::Publish, Action::MoveFloating, Action::Cancel];
    Callers::new(vec![
        entry("ci", CI, None, vec![grant("docker.io/acme/*", &all), grant("ghcr.io/acme/*", &all)]),
        entry("reader", READER, None, vec![grant("ghcr.io/acme/*", &[Action::Read])]),
        entry("guest", GUEST, Some("2026-11-03T15:02:00Z"), vec![grant("*", &[Action::Read])]),
    ])
    .unwrap()
}

/// The router around an engine, with the log of the whole test process collected.
pub fn router(fake: Arc<Fake>, clock: Arc<TestClock>, settings: ServerSettings) -> axum::Router {
    crate::logs::collect();
    colophon_server::router(fake, callers(), clock, settings)
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

pub fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(0x019a_4d1c_0000_7000_8000_0000_0000_0000 | number)
}

/// A release of `ghcr.io/acme/app:sha-1` to `docker.io/acme/app`.
pub fn release(number: u128) -> ReleaseView {
    let repository = Repository::parse("docker.io/acme/app").unwrap();
    ReleaseView {
        id: uuid(number),
        source: "ghcr.io/acme/app:sha-1".parse().unwrap(),
        digest: Digest::sha256(b"manifest"),
        state: ReleaseState::Running,
        state_reason: None,
        message: String::new(),
        phase: Phase::Copy,
        waiting_for: None,
        publications: vec![PublicationView {
            repository,
            state: PublicationState::Copying,
            tags: vec![TagMoveView {
                tag: "v1".parse().unwrap(),
                kind: TagKind::Floating,
                state: TagMoveState::Pending,
                reason: None,
                message: String::new(),
                old_digest: None,
                new_digest: None,
                ticket: Some(7),
                ended_at: None,
            }],
            copied: CopyTotals { blobs_copied: 2, ..CopyTotals::default() },
        }],
        actor: "ci".into(),
        on_behalf_of: String::new(),
        reason: "weekly".into(),
        labels: [("team".to_owned(), "web".to_owned())].into(),
        not_after: None,
        priority: 0,
        created_at: NOW,
        started_at: Some(NOW),
        ended_at: None,
        attempts: vec![],
        cancel_requested: false,
    }
}

pub fn tag() -> TagView {
    TagView {
        digest: Some(Digest::sha256(b"manifest")),
        certainty: Certainty::Confirmed,
        explanation: "seen before and after".into(),
        at: NOW,
        last_observed_at: Some(NOW - Duration::from_mins(1)),
        entry: Some(entry(1)),
    }
}

pub fn entry(number: u128) -> EntryView {
    EntryView {
        id: uuid(number),
        kind: "confirmed".into(),
        purpose: "publish".into(),
        repository: Repository::parse("docker.io/acme/app").unwrap(),
        tag: "v1".parse().unwrap(),
        tag_seq: i64::try_from(number).unwrap(),
        old_digest: None,
        new_digest: Some(Digest::sha256(b"manifest")),
        at: NOW,
        not_before: None,
        release: Some(uuid(1)),
        source: None,
        actor: Some("ci".into()),
        on_behalf_of: None,
        reason: None,
        reason_code: None,
        intent: None,
        body: b"{}".to_vec(),
        leaf_hash: vec![0; 32],
    }
}
