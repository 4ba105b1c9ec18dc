//! `/metrics` for Prometheus, on a listener of its own: what it shows is for operators, and needs no
//! token.

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use http::{StatusCode, header};
use prometheus::{Encoder as _, Registry, TEXT_FORMAT, TextEncoder};

use super::standing::Gauges;

/// What a scrape is answered from.
#[derive(Clone)]
pub(crate) struct Scrape {
    pub(crate) registry: Registry,
    pub(crate) gauges: Option<Arc<Gauges>>,
}

impl Scrape {
    pub(crate) fn router(self) -> Router {
        Router::new().route("/metrics", get(metrics)).with_state(self)
    }
}

type Page = ([(header::HeaderName, &'static str); 1], Vec<u8>);

async fn metrics(State(scrape): State<Scrape>) -> Result<Page, StatusCode> {
    if let Some(gauges) = &scrape.gauges {
        gauges.refresh().await;
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&scrape.registry.gather(), &mut text).map_err(|error| {
        tracing::warn!(%error, "metrics cannot be written");
        StatusCode::INTERNAL_SERVER_ERROR
    })?;
    Ok(([(header::CONTENT_TYPE, TEXT_FORMAT)], text))
}
