//! What is counted of registries. Labels are the configured registries and closed sets, never what a
//! repository, a tag or another host is called.

use std::{sync::LazyLock, time::Duration};

use colophon_domain::{RegistryHost, Urgency};
use colophon_telemetry::{BYTES, Counter, Histogram, KeyValue, SECONDS, meter};
use http::{Method, StatusCode};
use url::Url;

use crate::{copy::BlobOutcome, host::Host, request::Line};

static DURATION: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    meter()
        .f64_histogram("colophon.registry.request.duration")
        .with_unit("s")
        .with_description("Requests to registries, until the head of the answer")
        .with_boundaries(SECONDS.to_vec())
        .build()
});

static THROTTLED: LazyLock<Counter<u64>> = LazyLock::new(|| {
    meter()
        .u64_counter("colophon.registry.throttled")
        .with_description("Answers 429 of registries and their token realms")
        .build()
});

static WAITED: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    meter()
        .f64_histogram("colophon.registry.budget.wait")
        .with_unit("s")
        .with_description("Waiting for a slot of a registry's rate budget")
        .with_boundaries(SECONDS.to_vec())
        .build()
});

static BLOBS: LazyLock<Counter<u64>> = LazyLock::new(|| {
    meter()
        .u64_counter("colophon.copy.blobs")
        .with_description("Blobs that copies brought to their target, or found there")
        .build()
});

static SIZES: LazyLock<Counter<u64>> = LazyLock::new(|| {
    meter()
        .u64_counter("colophon.copy.size")
        .with_unit(BYTES)
        .with_description("The sizes of these blobs")
        .build()
});

/// Counts a request that has its answer, or will have none.
pub(crate) fn requested(line: &Line<'_>, status: Option<StatusCode>, took: Duration) {
    let registry = KeyValue::new("registry", line.host.name.as_str().to_owned());
    if status == Some(StatusCode::TOO_MANY_REQUESTS) {
        THROTTLED.add(1, std::slice::from_ref(&registry));
    }
    let labels = [
        registry,
        KeyValue::new("endpoint", endpoint(line.host, line.url)),
        KeyValue::new("method", method(line.method)),
        KeyValue::new("status", class(status)),
    ];
    DURATION.record(took.as_secs_f64(), &labels);
}

/// Counts a request that had to have a slot of the registry's budget.
pub(crate) fn waited(registry: &RegistryHost, urgency: Urgency, took: Duration) {
    let labels = [
        KeyValue::new("registry", registry.as_str().to_owned()),
        KeyValue::new("urgency", urgency.as_str()),
    ];
    WAITED.record(took.as_secs_f64(), &labels);
}

/// Counts a blob that is at the target.
pub(crate) fn blob(host: &Host, outcome: BlobOutcome, size: i64) {
    let outcome = match outcome {
        BlobOutcome::Copied => "copied",
        BlobOutcome::Present => "present",
        BlobOutcome::Mounted => "mounted",
    };
    let labels = [
        KeyValue::new("registry", host.name.as_str().to_owned()),
        KeyValue::new("outcome", outcome),
    ];
    BLOBS.add(1, &labels);
    SIZES.add(u64::try_from(size).unwrap_or_default(), &labels);
}

/// Which part of the registry's API a request is for (distribution-spec, "Endpoints"); of other
/// hosts only that it is one.
fn endpoint(host: &Host, url: &Url) -> &'static str {
    if !host.is_own(url) {
        return "elsewhere";
    }
    let mut parts = url.path().trim_end_matches('/').rsplit('/');
    match (parts.next(), parts.next()) {
        (Some("uploads"), Some("blobs")) | (_, Some("uploads")) => "uploads",
        (_, Some("manifests")) => "manifests",
        (_, Some("blobs")) => "blobs",
        (_, Some("referrers")) => "referrers",
        (Some("list"), Some("tags")) => "tags",
        _ => "other",
    }
}

fn method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

/// The class of a status: a registry may answer with any number.
fn class(status: Option<StatusCode>) -> &'static str {
    match status.map(|status| status.as_u16()) {
        None => "none",
        Some(429) => "429",
        Some(100..=199) => "1xx",
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(500..=599) => "5xx",
        Some(_) => "other",
    }
}
