//! Whether the process lives (`/healthz`) and whether it can answer (`/readyz`, and
//! `grpc.health.v1` for gRPC clients), without a token. One answer of the engine serves all
//! probes of a second.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use colophon_domain::{Failure, Reason, Result};
use futures_util::{Stream, stream};
use http::{Extensions, header};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_server::Health,
};

use crate::{Releases, refusal::Refusal};

/// No answer of the engine within this time is a no.
const PATIENCE: Duration = Duration::from_secs(5);

/// Cancelled when the process begins to stop. [`crate::serve`] gives it to every request, so that
/// the probes say so from then on and streams do not hold up the end.
#[derive(Clone, Default)]
pub(crate) struct Stopping(pub(crate) CancellationToken);

impl Stopping {
    fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }
}

/// Asks the engine, but not more often than once in `max_age`.
#[derive(Clone)]
pub(crate) struct Readiness {
    service: Arc<dyn Releases>,
    max_age: Duration,
    last: Arc<Mutex<Option<Observed>>>,
}

#[derive(Clone, Copy)]
struct Observed {
    at: Instant,
    missing: Option<Reason>,
}

impl Readiness {
    pub(crate) fn new(service: Arc<dyn Releases>, max_age: Duration) -> Self {
        Self { service, max_age, last: Arc::default() }
    }

    /// What is missing; `None` when calls can be answered. Only the reason is told to strangers.
    async fn missing(&self) -> Option<Reason> {
        // The lock is held over the question on purpose: probes that come meanwhile share it.
        let mut last = self.last.lock().await;
        if let Some(observed) = *last
            && observed.at.elapsed() < self.max_age
        {
            return observed.missing;
        }
        let asked = tokio::time::timeout(PATIENCE, self.service.ready()).await;
        let result = asked.unwrap_or_else(|_| {
            Err(Failure::new(Reason::Timeout, "the engine does not say whether it is ready"))
        });
        let missing = result.as_ref().err().map(Failure::reason);
        if last.map(|before| before.missing) != Some(missing) {
            match &result {
                Ok(()) => tracing::info!("ready"),
                Err(failure) => {
                    tracing::warn!(reason = missing.map(Reason::as_str), %failure, "not ready");
                }
            }
        }
        *last = Some(Observed { at: Instant::now(), missing });
        missing
    }

    async fn status(&self, stopping: &Stopping) -> ServingStatus {
        if !stopping.0.is_cancelled() && self.missing().await.is_none() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }
}

/// `/healthz` and `/readyz`.
pub(crate) fn routes(readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(|| async { fine() }))
        .route("/readyz", get(ready))
        .with_state(readiness)
}

async fn ready(State(readiness): State<Readiness>, extensions: Extensions) -> Response {
    if Stopping::of(&extensions).0.is_cancelled() {
        let failure = Failure::new(Reason::Timeout, "the process is stopping");
        return Refusal::from(failure).into_response();
    }
    match readiness.missing().await {
        None => fine(),
        Some(reason) => Refusal::with_status(
            http::StatusCode::SERVICE_UNAVAILABLE,
            Failure::new(reason, "calls cannot be answered for now"),
        )
        .into_response(),
    }
}

fn fine() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], r#"{"status":"ok"}"#).into_response()
}

/// The services that `grpc.health.v1` knows, besides the whole server (the empty name).
const SERVICES: [&str; 3] =
    ["colophon.v1.FreezeService", "colophon.v1.ReleaseService", "colophon.v1.TagService"];

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
        let begun = (self.clone(), Stopping::of(request.extensions()), None);
        let changes = stream::unfold(begun, move |(readiness, stopping, before)| async move {
            let now = readiness.change(&stopping, known, before).await?;
            Some((Ok(written(now)), (readiness, stopping, Some(now))))
        });
        Ok(tonic::Response::new(Box::pin(changes)))
    }
}

impl Readiness {
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
            let pause = self.max_age.max(Duration::from_millis(100));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stopping.0.cancelled() => {}
            }
        }
    }
}
