//! The way to a collector: OTLP over gRPC.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use opentelemetry_otlp::{
    MetricExporter, SpanExporter, WithExportConfig as _, WithTonicConfig as _,
};
use opentelemetry_sdk::{
    Resource,
    metrics::PeriodicReader,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, ParentBasedSampler, Sampler, SdkTracerProvider,
    },
};
use secrecy::{ExposeSecret as _, SecretString};
use tonic::{
    metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::TelemetrySection;

/// Spans that wait for the collector; what comes on top is dropped.
const QUEUE: usize = 8_192;
/// Spans are sent together, so many at once,
const BATCH: usize = 512;
/// and so often.
const RHYTHM: Duration = Duration::from_secs(1);

/// Where spans go.
pub(crate) fn traces(
    section: &TelemetrySection,
    endpoint: &str,
    resource: Resource,
) -> Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_channel(channel(section, endpoint)?)
        .with_metadata(headers(section)?)
        .with_timeout(section.otlp_timeout)
        .build()?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(RHYTHM)
        .build();
    Ok(SdkTracerProvider::builder()
        .with_span_processor(
            BatchSpanProcessor::builder(exporter).with_batch_config(batches).build(),
        )
        .with_sampler(sampler(section.sample_ratio))
        .with_resource(resource)
        .build())
}

/// The ratio decides by the trace's id, so that every process decides the same for one trace. A caller
/// may say that its trace is not sampled, but not that it is: it does not pay for the collector.
fn sampler(ratio: f64) -> ParentBasedSampler {
    let by_ratio = Sampler::TraceIdRatioBased(ratio);
    ParentBasedSampler::new(by_ratio.clone()).with_remote_parent_sampled(by_ratio)
}

/// Where metrics go, every `metrics_interval`.
pub(crate) fn metrics(
    section: &TelemetrySection,
    endpoint: &str,
) -> Result<PeriodicReader<MetricExporter>> {
    let exporter = MetricExporter::builder()
        .with_tonic()
        .with_channel(channel(section, endpoint)?)
        .with_metadata(headers(section)?)
        .with_timeout(section.otlp_timeout)
        .build()?;
    Ok(PeriodicReader::builder(exporter).with_interval(section.metrics_interval).build())
}

/// The collector of an address, if that is of the form.
pub(super) fn endpoint(address: &str) -> Option<Endpoint> {
    let endpoint = Endpoint::from_shared(address.to_owned()).ok()?;
    let of_the_form = matches!(endpoint.uri().scheme_str(), Some("http" | "https"))
        && endpoint.uri().authority().is_some_and(|place| !place.as_str().contains('@'));
    of_the_form.then_some(endpoint)
}

/// A connection that is opened when it is needed, and again when it broke.
fn channel(section: &TelemetrySection, address: &str) -> Result<Channel> {
    let endpoint = endpoint(address)
        .context("otlp_endpoint: the form is http://host:4317 or https://host:4317")?
        .user_agent(concat!("colophon/", env!("CARGO_PKG_VERSION")))?
        .connect_timeout(section.otlp_timeout)
        .timeout(section.otlp_timeout);
    let endpoint = match (endpoint.uri().scheme_str(), &section.otlp_ca_file) {
        (Some("https"), Some(file)) => {
            let pem = read(file, "otlp_ca_file")?;
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
            endpoint.tls_config(tls).context("otlp_ca_file")?
        }
        (Some("https"), None) => endpoint.tls_config(ClientTlsConfig::new().with_native_roots())?,
        _ => endpoint,
    };
    Ok(endpoint.connect_lazy())
}

/// The headers of the file, each marked so that no log shows it.
fn headers(section: &TelemetrySection) -> Result<MetadataMap> {
    let mut headers = MetadataMap::new();
    let Some(file) = &section.otlp_headers_file else { return Ok(headers) };
    let text = SecretString::from(read(file, "otlp_headers_file")?);
    let lines = text.expose_secret().lines().enumerate();
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        // The line itself is not shown: it is a secret.
        let (name, value) = header(line).ok_or_else(|| {
            anyhow!("otlp_headers_file {}: line {} is no `name: value`", file.display(), number + 1)
        })?;
        headers.insert(name, value);
    }
    Ok(headers)
}

fn header(line: &str) -> Option<(MetadataKey<Ascii>, MetadataValue<Ascii>)> {
    let (name, value) = line.split_once(':')?;
    let name = name.trim().to_ascii_lowercase();
    let mut value: MetadataValue<Ascii> = value.trim().parse().ok()?;
    value.set_sensitive(true);
    Some((MetadataKey::from_bytes(name.as_bytes()).ok()?, value))
}

fn read(file: &Path, field: &str) -> Result<String> {
    std::fs::read_to_string(file)
        .with_context(|| format!("{field} {} cannot be read", file.display()))
}

#[cfg(test)]
mod tests {
    use opentelemetry::{
        Context, SpanId, TraceFlags, TraceId,
        trace::{SpanContext, SpanKind, TraceContextExt as _, TraceState},
    };
    use opentelemetry_sdk::trace::{SamplingDecision, ShouldSample as _};

    use super::*;

    /// How many of a hundred traces are exported whose parent is a caller's span (`true`: remote) or
    /// one of ours, and sampled or not.
    fn exported(ratio: f64, remote: bool, flags: TraceFlags) -> usize {
        let sampled = |number: u64| {
            // The ratio looks at the lower half of the id.
            let id = TraceId::from(u128::from(number * (u64::MAX / 100)) | (1 << 100));
            let parent =
                SpanContext::new(id, SpanId::from(7), flags, remote, TraceState::default());
            let parent = Context::new().with_remote_span_context(parent);
            let kind = SpanKind::Server;
            let sampled =
                sampler(ratio).should_sample(Some(&parent), id, "server.request", &kind, &[], &[]);
            sampled.decision == SamplingDecision::RecordAndSample
        };
        (0..100).filter(|number| sampled(*number)).count()
    }

    #[test]
    fn a_caller_cannot_have_more_exported_than_the_ratio() {
        let (yes, no) = (TraceFlags::SAMPLED, TraceFlags::default());
        assert_eq!([0.0, 1.0].map(|ratio| exported(ratio, true, yes)), [0, 100]);
        assert!((24..=26).contains(&exported(0.25, true, yes)));
        assert_eq!([0.0, 0.25, 1.0].map(|ratio| exported(ratio, true, no)), [0, 0, 0]);
        // What is below a span of ours follows it.
        assert_eq!(exported(0.0, false, yes), 100);
        assert_eq!(exported(1.0, false, no), 0);
    }

    #[test]
    fn a_header_is_a_name_and_a_value_and_is_not_shown() {
        let (name, value) = header("Authorization: Bearer s3cret").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("authorization", "Bearer s3cret"));
        assert!(!format!("{value:?}").contains("s3cret"));
        for line in ["x", "a b: c", ": c", "key-bin: c"] {
            assert!(header(line).is_none(), "{line}");
        }
    }
}
