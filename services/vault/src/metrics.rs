//! What is counted of Vault: readings of secrets, by what came of them. Neither mounts nor paths are
//! labels.

use std::{sync::LazyLock, time::Duration};

use colophon_telemetry::{Histogram, KeyValue, SECONDS, meter};

static READS: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    meter()
        .f64_histogram("colophon.vault.read.duration")
        .with_unit("s")
        .with_description("Readings of secrets, with the login that one may need")
        .with_boundaries(SECONDS.to_vec())
        .build()
});

/// Counts a reading; `outcome` is `OK` or the reason.
pub(crate) fn read(outcome: &'static str, took: Duration) {
    READS.record(took.as_secs_f64(), &[KeyValue::new("outcome", outcome)]);
}
