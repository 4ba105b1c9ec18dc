//! Where traces and metrics go: to a collector by OTLP, to whoever scrapes `/metrics`, or, as long
//! as nothing is configured, nowhere.
//!
//! Nobody waits for a collector: spans go through a bounded queue and are dropped when it is full,
//! and what is left at the end has a few seconds.

mod config;
mod filter;
mod lines;
mod otlp;
mod scrape;
mod standing;

use std::{net::SocketAddr, sync::Arc, thread, time::Duration};

use anyhow::{Context as _, Result};
use axum::Router;
use opentelemetry::{KeyValue, global, trace::TracerProvider as _};
use opentelemetry_sdk::{
    Resource, metrics::SdkMeterProvider, propagation::TraceContextPropagator,
    trace::SdkTracerProvider,
};
use tracing::Subscriber;
use tracing_subscriber::{Layer, registry::LookupSpan};

pub(crate) use config::TelemetrySection;
pub(crate) use filter::{Anew, is_own};
pub(crate) use lines::Traced;
use scrape::Scrape;
pub(crate) use standing::Gauges;

/// How long what is left may take at the end.
const FLUSH: Duration = Duration::from_secs(5);

/// What was started, to be ended in order.
pub(crate) struct Telemetry {
    traces: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
    /// For whoever scrapes, and where.
    scraped: Option<(prometheus::Registry, SocketAddr)>,
    /// How often gauges are read for the collector.
    rhythm: Option<Duration>,
}

impl Telemetry {
    /// Starts what is configured. Runs in the runtime, whose connections lead to the collector.
    pub(crate) fn start(section: &TelemetrySection, instance: &str) -> Result<Self> {
        section.check()?;
        let resource = resource(section, instance);
        let endpoint = section.otlp_endpoint.as_deref();
        let traces = endpoint
            .map(|endpoint| otlp::traces(section, endpoint, resource.clone()))
            .transpose()
            .context("telemetry")?;
        if let Some(traces) = &traces {
            global::set_text_map_propagator(TraceContextPropagator::new());
            global::set_tracer_provider(traces.clone());
        }
        let scraped = section.prometheus_listen.map(|at| (prometheus::Registry::new(), at));
        let registry = scraped.as_ref().map(|(registry, _)| registry);
        let metrics = meters(section, registry, resource).context("telemetry")?;
        if let Some(metrics) = &metrics {
            global::set_meter_provider(metrics.clone());
            let version = KeyValue::new("version", env!("CARGO_PKG_VERSION"));
            let about = "Which version this process is";
            let meter = colophon_telemetry::meter();
            let build = meter.u64_gauge("colophon.build.info");
            build.with_description(about).build().record(1, &[version]);
        }
        let rhythm = endpoint.map(|_| section.metrics_interval);
        Ok(Self { traces, metrics, scraped, rhythm })
    }

    /// Whether anybody looks at metrics.
    pub(crate) fn measures(&self) -> bool {
        self.metrics.is_some()
    }

    /// What is shown to whoever scrapes, and where.
    pub(crate) fn page(&self, gauges: Option<Arc<Gauges>>) -> Option<(SocketAddr, Router)> {
        let (registry, at) = self.scraped.as_ref()?;
        Some((*at, Scrape { registry: registry.clone(), gauges }.router()))
    }

    /// How often metrics go to the collector.
    pub(crate) fn rhythm(&self) -> Option<Duration> {
        self.rhythm
    }

    /// Where our own spans go, and nobody else's: libraries write requests, and with them tokens,
    /// into theirs. Events are the log's.
    pub(crate) fn layer<S>(&self) -> Option<impl Layer<S> + Send + Sync + use<S>>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let tracer = self.traces.as_ref()?.tracer("colophon");
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false);
        Some(layer.with_filter(Anew(filter::OwnSpans)))
    }

    /// Sends what is left, for a few seconds at most. Whatever does not end by then ends with the
    /// process.
    pub(crate) async fn stop(self) {
        let (done, ended) = tokio::sync::oneshot::channel();
        // A thread of its own, which nobody waits for longer than that.
        let flush = thread::Builder::new().name("telemetry".to_owned()).spawn(move || {
            if let Some(Err(error)) = self.traces.map(|traces| traces.shutdown_with_timeout(FLUSH))
            {
                tracing::warn!(%error, "the last spans did not reach the collector");
            }
            if let Some(Err(error)) = self.metrics.map(|metrics| metrics.shutdown()) {
                tracing::warn!(%error, "the last metrics did not reach the collector");
            }
            done.send(())
        });
        if flush.is_ok() {
            let _late = tokio::time::timeout(FLUSH, ended).await;
        }
    }
}

/// Where metrics go: to a collector, to a scraper, or to both.
fn meters(
    section: &TelemetrySection,
    registry: Option<&prometheus::Registry>,
    resource: Resource,
) -> Result<Option<SdkMeterProvider>> {
    if section.otlp_endpoint.is_none() && registry.is_none() {
        return Ok(None);
    }
    let mut meters = SdkMeterProvider::builder().with_resource(resource);
    if let Some(endpoint) = &section.otlp_endpoint {
        meters = meters.with_reader(otlp::metrics(section, endpoint)?);
    }
    if let Some(registry) = registry {
        let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone());
        meters = meters.with_reader(exporter.scope_info_enabled(false).build()?);
    }
    Ok(Some(meters.build()))
}

/// Who speaks. Attributes of the environment (`OTEL_RESOURCE_ATTRIBUTES`) are there, too; the
/// configuration goes before them.
fn resource(section: &TelemetrySection, instance: &str) -> Resource {
    let named = [("service.version", env!("CARGO_PKG_VERSION")), ("service.instance.id", instance)];
    let named = named.map(|(key, value)| KeyValue::new(key, value.to_owned()));
    let more = section.attributes.iter();
    let more = more.map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder()
        .with_attributes(named)
        .with_service_name(section.service_name.clone())
        .with_attributes(more)
        .build()
}
