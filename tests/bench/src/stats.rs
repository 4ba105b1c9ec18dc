//! The few statistics that are printed.

use std::time::Duration;

/// Durations, sorted.
pub(crate) struct Sample(Vec<Duration>);

impl Sample {
    pub(crate) fn new(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        Self(durations)
    }

    /// The duration that so many percent do not exceed (nearest rank).
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// Median and 95th percentile in milliseconds.
    pub(crate) fn in_ms(&self) -> String {
        format!("{:.1} / {:.1} ms", ms(self.median()), ms(self.percentile(95)))
    }
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let sample = Sample::new((1..=10).rev().map(Duration::from_millis).collect());
        assert_eq!(sample.median(), Duration::from_millis(5));
        assert_eq!(sample.percentile(95), Duration::from_millis(10));
        assert_eq!(sample.in_ms(), "5.0 / 10.0 ms");
        assert_eq!(Sample::new(Vec::new()).median(), Duration::ZERO);
    }
}
