//! Whether the process lives (`/livez`, `/healthz`) and whether it can do its work (`/readyz`, and
//! `grpc.health.v1` for gRPC clients), without a token. Whether it lives depends on nothing else:
//! a process that is restarted does not bring a database back.

use std::{pin::Pin, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::State,
    middleware,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use colophon_domain::{Clock, Entropy, Failure, Reason, Result, Retry, SystemEntropy};
use futures_util::{Stream, stream};
use http::{Extensions, StatusCode};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_server::Health,
};

use crate::{Probe, observe, readiness::Readiness, refusal::Refusal};

/// Cancelled when the process begins to stop. [`crate::serve`] gives it to every request, so that
/// the probes say so from then on and streams do not hold up the end.
#[derive(Clone, Default)]
pub(crate) struct Stopping(pub(crate) CancellationToken);

impl Stopping {
    /// That of the process that serves a request.
    pub(crate) fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }
}

/// The probes alone, for a process that serves nothing else. Its condition is looked at once in
/// `max_age`; from `stopping` on it is not ready.
pub fn probes(
    probe: Arc<dyn Probe>,
    clock: Arc<dyn Clock>,
    max_age: Duration,
    stopping: CancellationToken,
) -> Router {
    let routes = routes(Readiness::new(probe, clock, max_age)).fallback(observe::nowhere);
    finished(routes, stopping)
}

/// The probes in the place of the whole API, as long as the service is not ready to answer calls.
pub fn starting(
    probe: Arc<dyn Probe>,
    clock: Arc<dyn Clock>,
    max_age: Duration,
    stopping: CancellationToken,
) -> Router {
    let not_yet = || async {
        let text = "the service is starting: its database is not ready yet";
        let pause = Retry::Wait(Duration::from_secs(1));
        Refusal::from(Failure::new(Reason::DatabaseUnavailable, text).retry(pause))
    };
    // A schema that is not up to date yet is nothing that the parts know of.
    let ready = move |readiness: State<Readiness>, extensions: Extensions| async move {
        let answer = ready(readiness, extensions).await;
        if answer.status().is_success() { not_yet().await.into_response() } else { answer }
    };
    let routes = routes_with(get(ready), Readiness::new(probe, clock, max_age));
    finished(routes.fallback(not_yet), stopping)
}

fn finished(routes: Router, stopping: CancellationToken) -> Router {
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    routes
        // Inside of what the server says of itself: this port stays open until the work has ended.
        .layer(Extension(Stopping(stopping)))
        .layer(middleware::from_fn_with_state(entropy, observe::observe))
}

/// `/livez`, `/healthz` and `/readyz`.
pub(crate) fn routes(readiness: Readiness) -> Router {
    routes_with(get(ready), readiness)
}

fn routes_with(ready: MethodRouter<Readiness>, readiness: Readiness) -> Router {
    let alive = || get(|| async { Json(json!({ "status": "ok" })) });
    Router::new()
        .route("/livez", alive())
        .route("/healthz", alive())
        .route("/readyz", ready)
        .with_state(readiness)
}

async fn ready(State(readiness): State<Readiness>, extensions: Extensions) -> Response {
    if Stopping::of(&extensions).0.is_cancelled() {
        let failure = Failure::new(Reason::Timeout, "the process is stopping");
        return Refusal::from(failure).into_response();
    }
    let condition = readiness.condition().await;
    let Some(missing) = condition.missing() else {
        let body = json!({ "status": condition.status(), "parts": condition.parts() });
        return Json(body).into_response();
    };
    let text = format!("the {} is away since {}", missing.part, missing.since);
    Refusal::with_status(StatusCode::SERVICE_UNAVAILABLE, Failure::new(missing.reason, text))
        .parts(condition.parts())
        .into_response()
}

/// The services that `grpc.health.v1` knows, besides the whole server (the empty name).
const SERVICES: [&str; 4] = [
    "colophon.v1.FreezeService",
    "colophon.v1.ReleaseService",
    "colophon.v1.TagService",
    "colophon.v1.UploadService",
];

fn known(request: &HealthCheckRequest) -> bool {
    request.service.is_empty() || SERVICES.contains(&request.service.as_str())
}

fn written(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Readiness {
    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        if !known(request.get_ref()) {
            return Err(Status::not_found("there is no such service"));
        }
        let stopping = Stopping::of(request.extensions());
        Ok(tonic::Response::new(written(self.status(&stopping).await)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        let known = known(request.get_ref());
        let place = self.watchers.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("too many watch this process already; check in its place")
        })?;
        let begun = (self.clone(), Stopping::of(request.extensions()), None, place);
        let changes =
            stream::unfold(begun, move |(readiness, stopping, before, place)| async move {
                let now = readiness.change(&stopping, known, before).await?;
                Some((Ok(written(now)), (readiness, stopping, Some(now), place)))
            });
        Ok(tonic::Response::new(Box::pin(changes)))
    }
}

impl Readiness {
    async fn status(&self, stopping: &Stopping) -> ServingStatus {
        if !stopping.0.is_cancelled() && self.condition().await.missing().is_none() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }

    /// Waits until the status is another than `before`; `None` ends the stream, after the last
    /// word was that nothing is served any more.
    async fn change(
        &self,
        stopping: &Stopping,
        known: bool,
        before: Option<ServingStatus>,
    ) -> Option<ServingStatus> {
        loop {
            let now =
                if known { self.status(stopping).await } else { ServingStatus::ServiceUnknown };
            if before != Some(now) {
                return Some(now);
            }
            if stopping.0.is_cancelled() {
                return None;
            }
            let pause = self.max_age().max(Duration::from_millis(100));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stopping.0.cancelled() => {}
            }
        }
    }
}
