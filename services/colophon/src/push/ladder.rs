//! When to send a blob again, and when to give up: pauses that double, with jitter, until so many
//! attempts in a row have brought nothing. Whatever came of an attempt begins the count anew.

use std::time::Duration;

use colophon_domain::{Entropy as _, SystemEntropy};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The attempts at one blob.
#[derive(Debug)]
pub struct Ladder {
    most: u32,
    fruitless: u32,
    best: Option<u64>,
    waits: u32,
}

impl Ladder {
    /// Gives up after so many attempts in a row that bring nothing.
    pub fn new(most: u32) -> Self {
        Self { most, fruitless: 0, best: None, waits: 0 }
    }

    /// The blob stands at this offset now. Where it has grown, what failed before is forgotten.
    pub fn stands_at(&mut self, offset: u64) {
        self.waits = 0;
        if self.best.is_some_and(|best| offset > best) {
            self.fruitless = 0;
        }
        self.best = self.best.max(Some(offset));
    }

    /// How far the blob was at best, in bytes.
    pub fn best(&self) -> u64 {
        self.best.unwrap_or(0)
    }

    /// An attempt did not work: the pause before the next one, or `None` to give up.
    pub fn missed(&mut self) -> Option<Duration> {
        self.fruitless = self.fruitless.saturating_add(1);
        if self.fruitless >= self.most {
            return None;
        }
        Some(jittered(doubled(FIRST_PAUSE, self.fruitless - 1, LONGEST_PAUSE)))
    }

    /// Somebody else sends it: how long to wait before asking again. This has no end of its own,
    /// because the other one gets on.
    pub fn busy(&mut self) -> Duration {
        let wait = doubled(FIRST_WAIT, self.waits, LONGEST_WAIT);
        self.waits = self.waits.saturating_add(1);
        wait
    }
}

fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(times)).min(longest)
}

/// Between half of it and all of it, so that clients which failed together do not come back
/// together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(SystemEntropy.fraction().mul_add(0.5, 0.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_with_jitter_up_to_a_bound() {
        let mut ladder = Ladder::new(100);
        for times in 0..20 {
            let pause = ladder.missed().unwrap();
            let whole = doubled(FIRST_PAUSE, times, LONGEST_PAUSE);
            assert!(pause >= whole / 2 && pause <= whole, "{times}: {pause:?}");
        }
        assert_eq!(doubled(FIRST_PAUSE, 2, LONGEST_PAUSE), Duration::from_secs(1));
        assert_eq!(doubled(FIRST_PAUSE, u32::MAX, LONGEST_PAUSE), LONGEST_PAUSE);
    }

    #[test]
    fn ten_attempts_in_a_row_without_a_byte_are_enough() {
        let mut ladder = Ladder::new(10);
        for _ in 0..9 {
            ladder.stands_at(7);
            assert!(ladder.missed().is_some());
        }
        assert!(ladder.missed().is_none());
    }

    #[test]
    fn whatever_comes_begins_the_count_anew() {
        let mut ladder = Ladder::new(2);
        for offset in 1..50 {
            ladder.stands_at(offset);
            assert!(ladder.missed().is_some(), "{offset}");
        }
        // A registry that forgot what it had is no progress, and neither is getting there again.
        for offset in [3, 49] {
            ladder.stands_at(offset);
            assert!(ladder.missed().is_none(), "{offset}");
        }
        assert_eq!(ladder.best(), 49);
    }

    #[test]
    fn whoever_waits_for_another_asks_every_five_seconds_at_last() {
        let mut ladder = Ladder::new(1);
        let waits: Vec<u64> = (0..5).map(|_| ladder.busy().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        ladder.stands_at(0);
        assert_eq!(ladder.busy(), FIRST_WAIT);
    }
}
