//! One request on the wire: its span and its measurement. What is said of it is the method, the
//! place, the repository and the status; a query or a header may hold a secret and is never shown.

use std::{future::Future, time::Instant};

use http::{Method, StatusCode};
use reqwest::Response;
use tracing::{Instrument as _, field};
use url::Url;

use crate::{
    host::{Host, place},
    metrics,
};

/// What is asked for, and how often it was asked for before.
pub(crate) struct Line<'a> {
    pub host: &'a Host,
    pub method: &'a Method,
    pub url: &'a Url,
    pub repository: &'a str,
    pub attempt: u32,
}

/// Something that holds the answer to a request, or not.
pub(crate) trait Answered {
    /// The answer's status.
    fn status(&self) -> Option<StatusCode>;
}

impl Answered for Response {
    fn status(&self) -> Option<StatusCode> {
        Some(Response::status(self))
    }
}

impl<T: Answered, E> Answered for Result<T, E> {
    fn status(&self) -> Option<StatusCode> {
        self.as_ref().ok().and_then(Answered::status)
    }
}

impl Line<'_> {
    /// Sends it.
    pub(crate) async fn send<T: Answered>(self, sent: impl Future<Output = T>) -> T {
        let span = tracing::debug_span!(
            "registry.request",
            otel.kind = "client",
            registry = %self.host.name,
            host = %place(self.url),
            method = %self.method,
            repository = self.repository,
            attempt = self.attempt,
            status = field::Empty,
        );
        async {
            let begun = Instant::now();
            let answer = sent.await;
            metrics::requested(&self, answer.status(), begun.elapsed());
            match answer.status() {
                Some(status) => {
                    tracing::Span::current().record("status", status.as_u16());
                    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
                        colophon_telemetry::failed("refused");
                    }
                }
                None => colophon_telemetry::failed("unanswered"),
            }
            answer
        }
        .instrument(span)
        .await
    }
}
