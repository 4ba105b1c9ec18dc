//! A server of the contract that answers what a test tells it to, over a real socket.

use std::{
    collections::{HashMap, VecDeque},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use colophon_api::v1::{
    CancelReleaseRequest, Certainty, CreateFreezeRequest, CreateReleaseRequest, Freeze,
    GetReleaseRequest, GetTagRequest, LiftFreezeRequest, ListFreezesRequest, ListFreezesResponse,
    ListReleasesRequest, ListReleasesResponse, ListTagMovesRequest, ListTagMovesResponse, Plan,
    PlannedPublication, PlannedTag, Release, RetryReleaseRequest, RollbackRequest,
    SettleTagRequest, Tag, WatchReleaseRequest,
    freeze_service_server::{FreezeService, FreezeServiceServer},
    release_service_server::{ReleaseService, ReleaseServiceServer},
    tag_service_server::{TagService, TagServiceServer},
    upload_service_server::UploadServiceServer,
};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    transport::{Identity, Server, ServerTlsConfig},
};

use crate::uploads::Uploads;

/// One answer of the server.
pub enum Step<T> {
    /// It answers.
    Answer(T),
    /// It refuses.
    Refuse(Status),
    /// It takes the request and never answers.
    Hang,
}

/// What to answer, and what was asked.
#[derive(Default)]
pub struct Script {
    /// Answers to `CreateRelease`, in order.
    pub create: VecDeque<Step<Release>>,
    /// Answers to `GetRelease`; the last one stays.
    pub get: VecDeque<Step<Release>>,
    /// The streams of `WatchRelease`, in order; without one the server does not know the method.
    pub watch: VecDeque<Vec<Result<Release, Status>>>,
    /// Every `WatchRelease` that arrived.
    pub watched: Vec<WatchReleaseRequest>,
    /// Answers to `RetryRelease`, in order.
    pub retry: VecDeque<Step<Release>>,
    /// Every `RetryRelease` that arrived.
    pub retried: Vec<RetryReleaseRequest>,
    /// Answers to `Rollback`, in order.
    pub rollback: VecDeque<Step<Release>>,
    /// Answers to `PlanRelease`, in order.
    pub plan: VecDeque<Step<Plan>>,
    /// Answers to `SettleTag`, in order.
    pub settle: VecDeque<Step<Tag>>,
    /// Answers to `CreateFreeze`, in order.
    pub freeze: VecDeque<Step<Freeze>>,
    /// The answer to `LiftFreeze`.
    pub lift: Option<Freeze>,
    /// The answer to `ListFreezes`.
    pub freezes: ListFreezesResponse,
    /// The answer to `CancelRelease`.
    pub cancel: Option<Release>,
    /// All releases; the list is paged.
    pub releases: Vec<Release>,
    /// The answer to `ListTagMoves`.
    pub moves: ListTagMovesResponse,
    /// The answer to `GetTag`.
    pub tag: Option<Tag>,
    /// What uploads have brought, and what stands in their way.
    pub uploads: Uploads,
    /// The digest that `GetTag` answers with, for each reference; else `tag`.
    pub tags: HashMap<String, String>,
    /// The digest at which a plan finds a reference, if not the ledger's.
    pub served: HashMap<String, String>,
    /// Every `CreateRelease` that arrived.
    pub created: Vec<CreateReleaseRequest>,
    /// Every `Rollback` that arrived.
    pub rolled_back: Vec<RollbackRequest>,
    /// Every `PlanRelease` that arrived.
    pub planned: Vec<CreateReleaseRequest>,
    /// Every `SettleTag` that arrived.
    pub settled: Vec<SettleTagRequest>,
    /// Every `CreateFreeze` that arrived.
    pub frozen: Vec<CreateFreezeRequest>,
    /// Every `LiftFreeze` that arrived.
    pub lifted: Vec<LiftFreezeRequest>,
    /// Every `ListFreezes` that arrived.
    pub listed_freezes: Vec<ListFreezesRequest>,
    /// Every `CancelRelease` that arrived.
    pub cancelled: Vec<CancelReleaseRequest>,
    /// Every `ListReleases` that arrived.
    pub listed: Vec<ListReleasesRequest>,
    /// Every `ListTagMoves` that arrived.
    pub asked_moves: Vec<ListTagMovesRequest>,
    /// Every `GetTag` that arrived.
    pub asked_tags: Vec<GetTagRequest>,
    /// The `authorization` header of every call, as it came.
    pub authorization: Vec<Option<String>>,
}

impl Script {
    /// What a plan finds at the registry.
    fn looked_at(&self, request: &CreateReleaseRequest) -> Plan {
        let publications = request.targets.iter().map(|target| {
            let tags = target.unique_tags.iter().map(|tag| {
                let reference = format!("{}:{tag}", target.repository);
                let ledger = self.tags.get(&reference).or(self.tag.as_ref().map(|tag| &tag.digest));
                let old_digest = self.served.get(&reference).or(ledger).cloned();
                PlannedTag {
                    tag: tag.clone(),
                    old_digest: old_digest.unwrap_or_default(),
                    ..PlannedTag::default()
                }
            });
            PlannedPublication {
                repository: target.repository.clone(),
                tags: tags.collect(),
                ..PlannedPublication::default()
            }
        });
        Plan { publications: publications.collect(), ..Plan::default() }
    }
}

/// The services, which share what the test says.
#[derive(Clone, Default)]
pub struct Service(Arc<Mutex<Script>>);

/// The running server. It keeps its port while it is stopped.
pub struct Fake {
    service: Service,
    listener: TcpListener,
    identity: Option<Identity>,
    runtime: Option<Runtime>,
}

impl Fake {
    /// A server on a port of its own.
    pub fn start() -> Self {
        Self::with(None)
    }

    /// The same with TLS.
    pub fn start_tls(certificate_pem: &str, key_pem: &str) -> Self {
        Self::with(Some(Identity::from_pem(certificate_pem, key_pem)))
    }

    fn with(identity: Option<Identity>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut fake = Self { service: Service::default(), listener, identity, runtime: None };
        fake.resume();
        fake
    }

    /// Serves again after [`Fake::kill`].
    pub fn resume(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = self.listener.try_clone().unwrap();
        let mut server = Server::builder();
        if let Some(identity) = &self.identity {
            server = server.tls_config(ServerTlsConfig::new().identity(identity.clone())).unwrap();
        }
        let router = server
            .add_service(ReleaseServiceServer::new(self.service.clone()))
            .add_service(TagServiceServer::new(self.service.clone()))
            .add_service(FreezeServiceServer::new(self.service.clone()))
            .add_service(UploadServiceServer::new(self.service.clone()));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        self.runtime = Some(runtime);
    }

    /// Breaks every connection at once, as a crash does.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// What it answers and was asked.
    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.service.0.lock().unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Service {
    /// What the test says, without a call.
    pub fn held(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    /// The same for a call, which is counted.
    pub fn script<T>(&self, request: &Request<T>) -> MutexGuard<'_, Script> {
        let mut script = self.0.lock().unwrap();
        let header = request.metadata().get("authorization");
        script.authorization.push(header.map(|value| value.to_str().unwrap().to_owned()));
        script
    }
}

/// Plays one step; without one the call was not expected.
async fn play<T>(step: Option<Step<T>>) -> Result<Response<T>, Status> {
    match step {
        Some(Step::Answer(answer)) => Ok(Response::new(answer)),
        Some(Step::Refuse(status)) => Err(status),
        Some(Step::Hang) => std::future::pending().await,
        None => Err(unexpected()),
    }
}

fn unexpected() -> Status {
    Status::internal("the test expected no such call")
}

#[tonic::async_trait]
impl ReleaseService for Service {
    async fn create_release(
        &self,
        request: Request<CreateReleaseRequest>,
    ) -> Result<Response<Release>, Status> {
        let step = {
            let mut script = self.script(&request);
            script.created.push(request.into_inner());
            script.create.pop_front()
        };
        play(step).await
    }

    async fn get_release(
        &self,
        request: Request<GetReleaseRequest>,
    ) -> Result<Response<Release>, Status> {
        let step = {
            let mut script = self.script(&request);
            match script.get.front() {
                Some(Step::Answer(release)) if script.get.len() == 1 => {
                    Some(Step::Answer(release.clone()))
                }
                _ => script.get.pop_front(),
            }
        };
        play(step).await
    }

    type WatchReleaseStream = tokio_stream::Iter<std::vec::IntoIter<Result<Release, Status>>>;

    async fn watch_release(
        &self,
        request: Request<WatchReleaseRequest>,
    ) -> Result<Response<Self::WatchReleaseStream>, Status> {
        let mut script = self.script(&request);
        script.watched.push(request.into_inner());
        let states = script.watch.pop_front();
        let states = states.ok_or_else(|| Status::unimplemented("an older server"))?;
        Ok(Response::new(tokio_stream::iter(states)))
    }

    async fn retry_release(
        &self,
        request: Request<RetryReleaseRequest>,
    ) -> Result<Response<Release>, Status> {
        let step = {
            let mut script = self.script(&request);
            script.retried.push(request.into_inner());
            script.retry.pop_front()
        };
        play(step).await
    }

    async fn list_releases(
        &self,
        request: Request<ListReleasesRequest>,
    ) -> Result<Response<ListReleasesResponse>, Status> {
        let mut script = self.script(&request);
        let request = request.into_inner();
        let start: usize = request.page_token.parse().unwrap_or(0);
        let end = script.releases.len().min(start + usize::try_from(request.page_size).unwrap());
        let next_page_token =
            if end < script.releases.len() { end.to_string() } else { String::new() };
        let releases = script.releases[start..end].to_vec();
        script.listed.push(request);
        Ok(Response::new(ListReleasesResponse { releases, next_page_token }))
    }

    async fn cancel_release(
        &self,
        request: Request<CancelReleaseRequest>,
    ) -> Result<Response<Release>, Status> {
        let mut script = self.script(&request);
        script.cancelled.push(request.into_inner());
        script.cancel.clone().map(Response::new).ok_or_else(unexpected)
    }

    async fn plan_release(
        &self,
        request: Request<CreateReleaseRequest>,
    ) -> Result<Response<Plan>, Status> {
        let step = {
            let mut script = self.script(&request);
            let request = request.into_inner();
            let found = script.looked_at(&request);
            script.planned.push(request);
            script.plan.pop_front().unwrap_or(Step::Answer(found))
        };
        play(Some(step)).await
    }

    async fn rollback(
        &self,
        request: Request<RollbackRequest>,
    ) -> Result<Response<Release>, Status> {
        let step = {
            let mut script = self.script(&request);
            script.rolled_back.push(request.into_inner());
            script.rollback.pop_front()
        };
        play(step).await
    }
}

#[tonic::async_trait]
impl TagService for Service {
    async fn get_tag(&self, request: Request<GetTagRequest>) -> Result<Response<Tag>, Status> {
        let mut script = self.script(&request);
        let reference = request.get_ref().reference.clone();
        script.asked_tags.push(request.into_inner());
        if let Some(digest) = script.tags.get(&reference).cloned() {
            let certainty = Certainty::Confirmed.into();
            return Ok(Response::new(Tag { reference, digest, certainty, ..Tag::default() }));
        }
        script.tag.clone().map(Response::new).ok_or_else(unexpected)
    }

    async fn list_tag_moves(
        &self,
        request: Request<ListTagMovesRequest>,
    ) -> Result<Response<ListTagMovesResponse>, Status> {
        let mut script = self.script(&request);
        script.asked_moves.push(request.into_inner());
        Ok(Response::new(script.moves.clone()))
    }

    async fn settle_tag(
        &self,
        request: Request<SettleTagRequest>,
    ) -> Result<Response<Tag>, Status> {
        let step = {
            let mut script = self.script(&request);
            script.settled.push(request.into_inner());
            script.settle.pop_front()
        };
        play(step).await
    }
}

#[tonic::async_trait]
impl FreezeService for Service {
    async fn create_freeze(
        &self,
        request: Request<CreateFreezeRequest>,
    ) -> Result<Response<Freeze>, Status> {
        let step = {
            let mut script = self.script(&request);
            script.frozen.push(request.into_inner());
            script.freeze.pop_front()
        };
        play(step).await
    }

    async fn list_freezes(
        &self,
        request: Request<ListFreezesRequest>,
    ) -> Result<Response<ListFreezesResponse>, Status> {
        let mut script = self.script(&request);
        script.listed_freezes.push(request.into_inner());
        Ok(Response::new(script.freezes.clone()))
    }

    async fn lift_freeze(
        &self,
        request: Request<LiftFreezeRequest>,
    ) -> Result<Response<Freeze>, Status> {
        let mut script = self.script(&request);
        script.lifted.push(request.into_inner());
        script.lift.clone().map(Response::new).ok_or_else(unexpected)
    }
}

/// Waits, at most ten seconds, until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what} did not come about");
}
