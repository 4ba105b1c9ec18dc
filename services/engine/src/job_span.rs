//! The span of an attempt at a job: part of the trace in which its release was accepted, whichever
//! process that was in.

use colophon_domain::Result;
use colophon_store::Claimed;
use colophon_telemetry::KeyValue;
use time::OffsetDateTime;
use tracing::{Span, field};

use crate::{metrics, worker::End};

/// Begins the span, not entered yet. The claim belongs to the trace, too, but that is known only
/// now; it was sent at `asked`.
pub(crate) fn begin(job: &Claimed, asked: OffsetDateTime) -> Span {
    metrics::claimed(job);
    let trace = job.traceparent.as_deref();
    let attributes = vec![KeyValue::new("job", job.lease.job)];
    colophon_telemetry::ended("store.queue.claim", trace, asked.into(), attributes);
    let span = tracing::debug_span!(
        "engine.job.work",
        otel.kind = "consumer",
        release = %job.release,
        job = job.lease.job,
        kind = %job.kind,
        repository = %job.repository,
        failures = job.failures,
        waited_ms = u64::try_from(job.waited.as_millis()).unwrap_or(u64::MAX),
        outcome = field::Empty,
        reason = field::Empty,
    );
    colophon_telemetry::adopt(&span, trace);
    span
}

/// Says on the current span how the attempt ended, and counts it.
pub(crate) fn end(job: &Claimed, result: &Result<End>) {
    let (outcome, reason) = match result {
        Ok(End::Done) => ("done", None),
        Ok(End::Wait(waiting)) => ("waits", waiting.reason),
        Ok(End::Lost(_, failure)) => ("lost", Some(failure.reason())),
        Err(failure) => ("failed", Some(failure.reason())),
    };
    metrics::attempt(job.kind, outcome, reason);
    let span = Span::current();
    span.record("outcome", outcome);
    if let Some(reason) = reason {
        span.record("reason", reason.as_str());
    }
    if result.is_err() {
        colophon_telemetry::failed(reason.map_or("", colophon_domain::Reason::as_str));
    }
}
