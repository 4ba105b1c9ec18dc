//! What is counted of jobs. Labels are the kinds of jobs, outcomes and reasons: closed sets.

use std::sync::LazyLock;

use colophon_domain::{JobKind, Reason};
use colophon_store::Claimed;
use colophon_telemetry::{Counter, Histogram, KeyValue, SECONDS, meter};

static ATTEMPTS: LazyLock<Counter<u64>> = LazyLock::new(|| {
    meter()
        .u64_counter("colophon.job.attempts")
        .with_description("Attempts at jobs, by how they ended")
        .build()
});

static WAITED: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    meter()
        .f64_histogram("colophon.queue.wait")
        .with_unit("s")
        .with_description("How long jobs could have been claimed before they were")
        .with_boundaries(SECONDS.to_vec())
        .build()
});

static LEASES_LOST: LazyLock<Counter<u64>> = LazyLock::new(|| {
    meter()
        .u64_counter("colophon.lease.lost")
        .with_description(
            "Leases that ran out: here while a job was worked on, or of a dead worker",
        )
        .build()
});

/// Counts an attempt that ended.
pub(crate) fn attempt(kind: JobKind, outcome: &'static str, reason: Option<Reason>) {
    ATTEMPTS.add(
        1,
        &[
            KeyValue::new("kind", kind.as_str()),
            KeyValue::new("outcome", outcome),
            KeyValue::new("reason", reason.map_or("", Reason::as_str)),
        ],
    );
}

/// Counts how long a job was left in the queue.
pub(crate) fn claimed(job: &Claimed) {
    WAITED.record(job.waited.as_secs_f64(), &[KeyValue::new("kind", job.kind.as_str())]);
}

/// Counts a lease that this process lost while it worked.
pub(crate) fn lease_lost() {
    LEASES_LOST.add(1, &[KeyValue::new("how", "stalled")]);
}

/// Counts leases that this process found to have run out.
pub(crate) fn leases_ran_out(count: u64) {
    LEASES_LOST.add(count, &[KeyValue::new("how", "reaped")]);
}
