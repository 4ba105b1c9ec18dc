//! How many requests a registry let through in the last second.

use std::time::Duration;

use tokio::time::Instant;

const PARTS: usize = 10;
const PART: Duration = Duration::from_millis(100);

/// A count for each tenth of a second, and which tenth it is of.
pub(crate) struct Accepted {
    begin: Instant,
    parts: [(u128, u32); PARTS],
}

impl Accepted {
    pub(crate) fn new() -> Self {
        Self { begin: Instant::now(), parts: [(0, 0); PARTS] }
    }

    fn part(&self, now: Instant) -> u128 {
        now.duration_since(self.begin).as_millis() / PART.as_millis()
    }

    pub(crate) fn count(&mut self, now: Instant) {
        let part = self.part(now);
        let place = usize::try_from(part % PARTS as u128).unwrap_or_default();
        if let Some(kept) = self.parts.get_mut(place) {
            if kept.0 != part {
                *kept = (part, 0);
            }
            kept.1 = kept.1.saturating_add(1);
        }
    }

    pub(crate) fn last_second(&self, now: Instant) -> u32 {
        let part = self.part(now);
        let recent = self.parts.iter().filter(|(of, _)| of + PARTS as u128 > part);
        recent.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_older_than_a_second_does_not_count() {
        let mut accepted = Accepted::new();
        for _ in 0..30 {
            accepted.count(Instant::now());
            tokio::time::advance(Duration::from_millis(50)).await;
        }
        let counted = accepted.last_second(Instant::now());
        assert!((18..=20).contains(&counted), "{counted}");
        tokio::time::advance(Duration::from_millis(1100)).await;
        assert_eq!(accepted.last_second(Instant::now()), 0);
    }
}
