//! The least rate of a blob on its way. A side that gives or takes a byte now and then would
//! hold its place among the process's transfers for days.

use std::time::Duration;

/// Bytes that have to come within the time that a side may stand still.
const LEAST_BYTES: u64 = 64 << 10;

/// How fast one side is, over the time that is spent waiting for it.
#[derive(Debug)]
pub(crate) struct Rate {
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl Rate {
    pub(crate) fn new(window: Duration) -> Self {
        Self { window, waited: Duration::ZERO, bytes: 0 }
    }

    /// Counts bytes and the time that they were waited for; true at the end of a window that
    /// brought too few.
    pub(crate) fn too_slow(&mut self, waited: Duration, bytes: u64) -> bool {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < self.window {
            return false;
        }
        let slow = self.bytes < LEAST_BYTES;
        self.restart();
        slow
    }

    /// Begins a window; the other side was waited for.
    pub(crate) fn restart(&mut self) {
        self.waited = Duration::ZERO;
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_spent_waiting_counts_and_each_window_by_itself() {
        let second = Duration::from_secs(1);
        let mut rate = Rate::new(3 * second);
        let mut count = |bytes| rate.too_slow(second, bytes);
        assert_eq!([count(1), count(1), count(1)], [false, false, true]);
        assert_eq!([count(LEAST_BYTES), count(0), count(0)], [false; 3]);
        assert_eq!([count(0), count(0), count(LEAST_BYTES - 1)], [false, false, true]);
        assert!(!rate.too_slow(2 * second, 0));
        rate.restart();
        assert!(!rate.too_slow(2 * second, 0));
        assert!(!rate.too_slow(Duration::ZERO, 0));
    }
}
