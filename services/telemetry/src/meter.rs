//! The meter that every floor's instruments are made by.

use opentelemetry::{global, metrics::Meter};

/// Bounds of histograms of times, in seconds: from a statement to a large upload.
pub const SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// The unit of bytes, as OTLP writes it.
pub const BYTES: &str = "By";

/// The meter. An instrument that is made before the process has decided where metrics go counts
/// for nobody, so floors make theirs when they are first used.
pub fn meter() -> Meter {
    global::meter("colophon")
}
