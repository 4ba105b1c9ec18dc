//! What passed through the proxy, and when.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use http::{Method, Request, StatusCode, header};

/// One request and what became of it.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The method.
    pub method: Method,
    /// The path, without the query.
    pub path: String,
    /// The query, if there was one.
    pub query: Option<String>,
    /// Whether it had an `Authorization` header; its value is not kept.
    pub authorized: bool,
    /// Whether it had a `traceparent`, a `tracestate` or a `baggage` header.
    pub traced: bool,
    /// When its head was here.
    pub arrived: Instant,
    /// When it began to go on to the service, if it did.
    pub forwarded: Option<Instant>,
    /// When the answer's head was here, the service's or the rule's.
    pub answered: Option<Instant>,
    /// The answer's status.
    pub status: Option<StatusCode>,
}

impl Exchange {
    pub(super) fn arrived<B>(request: &Request<B>) -> Self {
        Self {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().map(str::to_owned),
            authorized: request.headers().contains_key(header::AUTHORIZATION),
            traced: ["traceparent", "tracestate", "baggage"]
                .iter()
                .any(|name| request.headers().contains_key(*name)),
            arrived: Instant::now(),
            forwarded: None,
            answered: None,
            status: None,
        }
    }

    /// Whether it puts a manifest, by tag or by digest.
    pub fn is_manifest_put(&self) -> bool {
        self.method == Method::PUT && self.path.contains("/manifests/")
    }

    /// The last part of the path: a tag or digest of a manifest, a digest of a blob.
    pub fn reference(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// All exchanges, by their number.
#[derive(Default)]
pub(super) struct Log(Mutex<Vec<Exchange>>);

impl Log {
    pub(super) fn push(&self, exchange: Exchange) -> usize {
        let mut exchanges = self.lock();
        exchanges.push(exchange);
        exchanges.len() - 1
    }

    pub(super) fn forwarded(&self, number: usize) {
        if let Some(exchange) = self.lock().get_mut(number) {
            exchange.forwarded = Some(Instant::now());
        }
    }

    pub(super) fn answered(&self, number: usize, status: StatusCode) {
        if let Some(exchange) = self.lock().get_mut(number) {
            exchange.answered = Some(Instant::now());
            exchange.status = Some(status);
        }
    }

    pub(super) fn all(&self) -> Vec<Exchange> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Exchange>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
