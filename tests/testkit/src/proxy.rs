//! A proxy in front of a registry (or any plain HTTP service) that makes faults on purpose: it
//! drops the request before the service saw it or the answer after the service obeyed, holds
//! either, slows or cuts bodies, and answers by itself. It streams, so that a gigabyte passes
//! through little memory, and keeps a log of what arrived and what went on.
//!
//! A request is carried out by a task of its own: a held PUT can still be let go to the service
//! after its sender died, which is the case that leases cannot prevent.

mod body;
mod chaos;
mod log;
mod rule;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::body::Body;
use bytes::Bytes;
use colophon_launcher::Tls;
use http::{HeaderName, HeaderValue, Request, Response, Uri, header, response::Parts};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{sync::oneshot, time::sleep};

pub(crate) use body::cut;
pub use chaos::Chaos;
pub use log::Exchange;
pub use rule::{Action, Fault, Rule};

use crate::{
    error::Result,
    proxy::{
        log::Log,
        rule::{Planned, Release},
    },
    serve::{NoAnswer, Server},
};

/// What a request that is held may have as its body: manifests are at most 4 MiB.
const HELD_BODY_BYTES: usize = 64 << 20;

/// A running proxy. Dropping it closes its port.
pub struct FaultProxy {
    server: Server,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    client: Client<HttpConnector, Body>,
    rules: Mutex<Vec<Arc<Planned>>>,
    chaos: Mutex<Option<Chaos>>,
    log: Log,
}

impl FaultProxy {
    /// A proxy over plain HTTP that lets everything through until there are rules.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        Self::start_with(upstream, None).await
    }

    /// The same, speaking TLS to its clients and plain HTTP to the service.
    pub async fn start_with(upstream: SocketAddr, tls: Option<&Tls>) -> Result<Self> {
        // A connection per request: one that the service closed while idle would look like a
        // fault that nobody asked for.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        let (rules, chaos) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { upstream, client, rules, chaos, log: Log::default() });
        let handler = Arc::clone(&shared);
        let handle = move |request| Arc::clone(&handler).handle(request);
        Ok(Self { server: Server::start(tls, handle).await?, shared })
    }

    /// `127.0.0.1:port`, as it stands in references.
    pub fn host(&self) -> String {
        self.server.host()
    }

    /// The URL, without a slash at its end.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Adds a rule behind the others. A request meets the first rule that matches it and whose
    /// turn it is; what it returns watches the rule and lets go what it holds.
    pub fn add(&self, rule: Rule) -> Fault {
        let planned = Arc::new(Planned::new(rule));
        self.rules().push(Arc::clone(&planned));
        Fault::new(planned)
    }

    /// Lets faults meet requests at random for which there is no rule; `None` ends that.
    pub fn chaos(&self, chaos: Option<Chaos>) {
        *self.shared.chaos.lock().unwrap_or_else(PoisonError::into_inner) = chaos;
    }

    /// Forgets all rules. What is held stays held.
    pub fn clear(&self) {
        self.rules().clear();
    }

    /// Everything that arrived so far, in order.
    pub fn log(&self) -> Vec<Exchange> {
        self.shared.log.all()
    }

    /// The manifest PUTs that went on to the service, in order of arrival.
    pub fn manifest_puts(&self) -> Vec<Exchange> {
        let mut exchanges = self.log();
        exchanges.retain(|exchange| exchange.is_manifest_put() && exchange.forwarded.is_some());
        exchanges
    }

    fn rules(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Planned>>> {
        self.shared.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Answer = std::result::Result<Response<Body>, NoAnswer>;

impl Shared {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let exchange = Exchange::arrived(&request);
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let planned = rules.into_iter().find(|planned| planned.takes(&exchange));
        let planned = planned.or_else(|| self.at_random(&exchange));
        let number = self.log.push(exchange);
        let (answer, wait) = oneshot::channel();
        let work = Arc::clone(&self).carry_out(number, planned.clone(), request);
        tokio::spawn(async move {
            let _client_left = answer.send(work.await);
        });
        match planned {
            None => wait.await?,
            Some(planned) => tokio::select! {
                answer = wait => answer?,
                () = planned.hung_up() => Err("hung up by a rule".into()),
            },
        }
    }

    fn at_random(&self, exchange: &Exchange) -> Option<Arc<Planned>> {
        let chaos = self.chaos.lock().unwrap_or_else(PoisonError::into_inner);
        let action = chaos.as_ref()?.fault(exchange)?;
        Some(Arc::new(Planned::new(Rule::new(action))))
    }

    async fn carry_out(
        self: Arc<Self>,
        number: usize,
        planned: Option<Arc<Planned>>,
        request: Request<Incoming>,
    ) -> Answer {
        let Some(planned) = planned else {
            return self.forward(number, request.map(Body::new)).await;
        };
        match planned.action() {
            Action::HoldBefore => {
                let (parts, body) = request.into_parts();
                // The body is read first: afterwards the sender may die.
                let body = Limited::new(body, HELD_BODY_BYTES).collect().await?.to_bytes();
                match planned.hold().await {
                    Release::Forward => {
                        self.forward(number, Request::from_parts(parts, Body::from(body))).await
                    }
                    Release::Drop => Err("dropped by a rule".into()),
                }
            }
            Action::HoldAfter => {
                let answer = self.forward(number, request.map(Body::new)).await;
                match planned.hold().await {
                    Release::Forward => answer,
                    Release::Drop => Err("dropped by a rule".into()),
                }
            }
            Action::Delay(delay) => {
                planned.hit();
                sleep(*delay).await;
                self.forward(number, request.map(Body::new)).await
            }
            Action::DropBefore => {
                planned.hit();
                Err("dropped by a rule".into())
            }
            Action::DropAfter => {
                let answer = self.forward(number, request.map(Body::new)).await?;
                // The service has done its work when its answer is complete.
                let _incomplete = answer.into_body().collect().await;
                planned.hit();
                Err("dropped by a rule".into())
            }
            Action::Status(status, headers, text) => {
                // A client that is still sending would see a broken connection instead.
                body::drain(request.into_body()).await;
                planned.hit();
                let mut answer = Response::new(Body::from(text.clone()));
                *answer.status_mut() = *status;
                for (name, value) in headers {
                    let name = HeaderName::try_from(name.as_str())?;
                    answer.headers_mut().append(name, HeaderValue::from_str(value)?);
                }
                self.log.answered(number, *status);
                Ok(answer)
            }
            Action::CutRequest(bytes) => {
                planned.hit();
                let request = request.map(|request| body::cut(Body::new(request), *bytes));
                // Whatever the service makes of half a request, the client hears nothing.
                let _half = self.forward(number, request).await;
                Err("cut by a rule".into())
            }
            Action::CutResponse(bytes) => {
                planned.hit();
                let answer = self.forward(number, request.map(Body::new)).await?;
                Ok(answer.map(|answer| body::cut(answer, *bytes)))
            }
            Action::SlowRequest(rate) => {
                planned.hit();
                let request = request.map(|request| body::slow(Body::new(request), *rate));
                self.forward(number, request).await
            }
            Action::SlowResponse(rate) => {
                planned.hit();
                let answer = self.forward(number, request.map(Body::new)).await?;
                Ok(answer.map(|answer| body::slow(answer, *rate)))
            }
            Action::Flip(at) => {
                planned.hit();
                let answer = self.forward(number, request.map(Body::new)).await?;
                let (head, body) = whole(answer).await?;
                Ok(Response::from_parts(head, Body::from(body::flipped(&body, *at))))
            }
            Action::Truncate(bytes) => {
                planned.hit();
                let answer = self.forward(number, request.map(Body::new)).await?;
                let (mut head, body) = whole(answer).await?;
                let end = body.len().min(usize::try_from(*bytes).unwrap_or(usize::MAX));
                head.headers.remove(header::CONTENT_LENGTH);
                Ok(Response::from_parts(head, Body::from(body.slice(..end))))
            }
            Action::Digest(digest) => {
                planned.hit();
                let mut answer = self.forward(number, request.map(Body::new)).await?;
                let value = HeaderValue::from_str(digest)?;
                answer.headers_mut().insert("docker-content-digest", value);
                Ok(answer)
            }
        }
    }

    /// Sends a request on. The `Host` stays the client's, so that the service's absolute
    /// `Location` leads through the proxy again.
    async fn forward(&self, number: usize, mut request: Request<Body>) -> Answer {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = Uri::try_from(format!("http://{}{path}", self.upstream))?;
        for name in [header::CONNECTION, header::EXPECT] {
            request.headers_mut().remove(name);
        }
        self.log.forwarded(number);
        let mut answer = self.client.request(request).await?;
        self.log.answered(number, answer.status());
        answer.headers_mut().remove(header::CONNECTION);
        Ok(answer.map(Body::new))
    }
}

/// An answer with its body in memory.
async fn whole(answer: Response<Body>) -> std::result::Result<(Parts, Bytes), NoAnswer> {
    let (head, body) = answer.into_parts();
    Ok((head, Limited::new(body, HELD_BODY_BYTES).collect().await?.to_bytes()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use colophon_launcher::{Registry, RegistryOptions};
    use http::{Method, StatusCode};

    use super::*;
    use crate::{
        image::{Destination, Image, ImageSpec},
        peer::{Peer, sha256},
        wait::wait_until,
    };

    const SOON: Duration = Duration::from_secs(30);
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

    struct Scene {
        registry: Registry,
        proxy: FaultProxy,
        direct: Peer,
        image: Image,
    }

    /// A registry with a proxy before it, and one tag `v1` in `app`.
    async fn scene() -> Scene {
        let registry = Registry::start(RegistryOptions::default()).await.unwrap();
        let proxy = FaultProxy::start(registry.address()).await.unwrap();
        let direct = Peer::of(&registry).unwrap();
        let image = ImageSpec::tiny("proxy").build().await.unwrap();
        let host = proxy.host();
        let to = Destination { host: &host, repository: "app", tag: "v1", login: None };
        image.push(&to).await.unwrap();
        Scene { registry, proxy, direct, image }
    }

    impl Scene {
        async fn manifest(&self) -> Vec<u8> {
            self.direct.manifest("app", "v1").await.unwrap().unwrap().0
        }

        fn put(&self, tag: &str, bytes: Vec<u8>) -> tokio::task::JoinHandle<bool> {
            let (peer, tag) = (Peer::new(self.proxy.url()).unwrap(), tag.to_owned());
            tokio::spawn(
                async move { peer.put_manifest("app", &tag, MANIFEST, &bytes).await.is_ok() },
            )
        }

        async fn has(&self, tag: &str) -> bool {
            self.direct.digest_of("app", tag).await.unwrap().is_some()
        }
    }

    fn puts(action: Action) -> Rule {
        Rule::new(action).method(Method::PUT).path("/manifests/")
    }

    #[tokio::test]
    async fn a_push_passes_through_and_is_in_the_log() {
        let scene = scene().await;
        let walk = scene.direct.walk("app", "v1").await.unwrap();
        assert_eq!(walk.root, scene.image.digest());
        let put = scene.proxy.manifest_puts().pop().unwrap();
        assert_eq!((put.reference(), put.status), ("v1", Some(StatusCode::CREATED)));
        assert!(!put.authorized && put.arrived <= put.forwarded.unwrap());
        assert!(scene.registry.host() != scene.proxy.host());
    }

    #[tokio::test]
    async fn a_held_put_lands_after_its_sender_died() {
        let scene = scene().await;
        let bytes = scene.manifest().await;
        let fault = scene.proxy.add(puts(Action::HoldBefore));
        let sender = scene.put("late", bytes);
        fault.reached(SOON).await.unwrap();
        sender.abort();
        assert!(sender.await.unwrap_err().is_cancelled());
        assert!(!scene.has("late").await);
        fault.forward();
        let landed = async || scene.has("late").await.then_some(());
        wait_until("the put lands", SOON, landed).await.unwrap();
    }

    #[tokio::test]
    async fn hanging_up_ends_the_sender_and_keeps_the_request() {
        let scene = scene().await;
        let fault = scene.proxy.add(puts(Action::HoldBefore));
        let sender = scene.put("late", scene.manifest().await);
        fault.reached(SOON).await.unwrap();
        fault.hang_up();
        assert!(!sender.await.unwrap());
        assert!(!scene.has("late").await);
        fault.forward();
        let landed = async || scene.has("late").await.then_some(());
        wait_until("the put lands", SOON, landed).await.unwrap();
    }

    #[tokio::test]
    async fn drops_before_and_after_differ_in_what_the_service_did() {
        let scene = scene().await;
        let bytes = scene.manifest().await;
        scene.proxy.add(puts(Action::DropBefore));
        scene.proxy.add(puts(Action::DropAfter));
        assert!(!scene.put("before", bytes.clone()).await.unwrap());
        assert!(!scene.put("after", bytes.clone()).await.unwrap());
        assert!(!scene.has("before").await && scene.has("after").await);
        assert!(scene.put("third", bytes).await.unwrap(), "the rules are used up");
        let forwarded = scene.proxy.manifest_puts();
        let names: Vec<&str> = forwarded.iter().map(Exchange::reference).collect();
        assert_eq!(names, ["v1", "after", "third"]);
    }

    #[tokio::test]
    async fn an_answer_is_held_and_then_given_or_dropped() {
        let scene = scene().await;
        let bytes = scene.manifest().await;
        for (tag, give) in [("given", true), ("dropped", false)] {
            let fault = scene.proxy.add(puts(Action::HoldAfter));
            let sender = scene.put(tag, bytes.clone());
            fault.reached(SOON).await.unwrap();
            assert!(scene.has(tag).await && !sender.is_finished());
            if give {
                fault.forward();
            } else {
                fault.drop_connections();
            }
            assert_eq!(sender.await.unwrap(), give);
        }
    }

    #[tokio::test]
    async fn the_nth_request_gets_an_answer_of_the_rule() {
        let scene = scene().await;
        let headers = vec![("Retry-After".to_owned(), "7".to_owned())];
        let action = Action::Status(StatusCode::TOO_MANY_REQUESTS, headers, "slow".to_owned());
        let fault = scene.proxy.add(Rule::new(action).path("/v2/app/").nth(2));
        let url = format!("{}/v2/app/tags/list", scene.proxy.url());
        let client = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
        let mut answers = Vec::new();
        for _ in 0..3 {
            let answer = client.get(&url).send().await.unwrap();
            let wait = answer.headers().get("Retry-After").map(|value| value.to_str().unwrap());
            answers.push((answer.status().as_u16(), wait.map(str::to_owned)));
        }
        let refused = (429, Some("7".to_owned()));
        assert_eq!(answers, [(200, None), refused, (200, None)]);
        assert_eq!(fault.hits(), 1);
    }

    #[tokio::test]
    async fn bodies_are_cut_and_slowed() {
        let scene = scene().await;
        let blob = vec![7_u8; 300_000];
        let through = Peer::new(scene.proxy.url()).unwrap();
        let uploads = |action| Rule::new(action).method(Method::PUT).path("/blobs/uploads/");
        scene.proxy.add(uploads(Action::CutRequest(1000)));
        assert!(through.put_blob("app", &blob).await.is_err());
        let path = format!("{}/v2/app/blobs/{}", scene.registry.url(), sha256(&blob));
        let client = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
        assert_eq!(client.get(&path).send().await.unwrap().status(), 404);
        scene.proxy.add(uploads(Action::SlowRequest(1_000_000)));
        let since = Instant::now();
        through.put_blob("app", &blob).await.unwrap();
        assert!(since.elapsed() >= Duration::from_millis(250), "{:?}", since.elapsed());

        let blobs = |action| Rule::new(action).method(Method::GET).path("/blobs/sha256:");
        let path = path.replace(&scene.registry.host(), &scene.proxy.host());
        scene.proxy.add(blobs(Action::CutResponse(100_000)));
        let answer = client.get(&path).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.bytes().await.is_err());
        scene.proxy.add(blobs(Action::SlowResponse(1_000_000)));
        let since = Instant::now();
        let answer = client.get(&path).send().await.unwrap();
        assert_eq!(answer.bytes().await.unwrap(), blob);
        assert!(since.elapsed() >= Duration::from_millis(250), "{:?}", since.elapsed());
    }
}
