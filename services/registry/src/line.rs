//! Those who wait for something of a registry, in the order in which they get it: who is more urgent
//! first, among equals who came first. Who has waited long counts as more urgent, one step for each
//! [`GROWS_URGENT`], so that nobody waits for ever for those who are.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use colophon_domain::Urgency;
use tokio::time::Instant;

/// How long one waits for a step.
const GROWS_URGENT: Duration = Duration::from_secs(20);

type Key = (Reverse<Urgency>, u64);

/// Some who wait.
pub(crate) struct Line<T> {
    waiting: BTreeMap<Key, Waiting<T>>,
    came: u64,
}

struct Waiting<T> {
    who: T,
    /// As it came.
    urgency: Urgency,
    since: Instant,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), came: 0 }
    }
}

impl<T> Line<T> {
    /// Takes one in who has waited since then, perhaps in this line before; true for the first of all.
    pub(crate) fn join(&mut self, urgency: Urgency, since: Instant, who: T) -> bool {
        let waiting = Waiting { who, urgency, since };
        let key = self.insert(grown(urgency, since), waiting);
        self.waiting.first_key_value().is_some_and(|(first, _)| *first == key)
    }

    fn insert(&mut self, urgency: Urgency, waiting: Waiting<T>) -> Key {
        self.came += 1;
        let key = (Reverse(urgency), self.came);
        self.waiting.insert(key, waiting);
        key
    }

    /// Lets those count as more urgent who have waited long: they come after those who are so already.
    pub(crate) fn grow_urgent(&mut self) {
        let grown = self.waiting.iter().filter_map(|(key, waiting)| {
            let urgency = grown(waiting.urgency, waiting.since);
            (Reverse(urgency) != key.0).then_some((*key, urgency))
        });
        for (key, urgency) in grown.collect::<Vec<_>>() {
            if let Some(waiting) = self.waiting.remove(&key) {
                self.insert(urgency, waiting);
            }
        }
    }

    /// The one whose turn it is.
    pub(crate) fn next(&mut self) -> Option<T> {
        self.waiting.pop_first().map(|(_, waiting)| waiting.who)
    }

    /// Lets those go for whom this is false.
    pub(crate) fn retain(&mut self, stays: impl Fn(&T) -> bool) {
        self.waiting.retain(|_, waiting| stays(&waiting.who));
    }

    /// How urgent they are by now, in their order.
    pub(crate) fn urgencies(&self) -> impl Iterator<Item = Urgency> {
        self.waiting.keys().map(|(Reverse(urgency), _)| *urgency)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }
}

fn grown(urgency: Urgency, since: Instant) -> Urgency {
    let waited = since.elapsed();
    match urgency {
        Urgency::Bulk if waited >= 2 * GROWS_URGENT => Urgency::Urgent,
        Urgency::Bulk if waited >= GROWS_URGENT => Urgency::Normal,
        Urgency::Normal if waited >= GROWS_URGENT => Urgency::Urgent,
        urgency => urgency,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(line: &mut Line<&'static str>) -> Vec<&'static str> {
        line.grow_urgent();
        std::iter::from_fn(|| line.next()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_long_comes_after_those_who_are_as_urgent_by_now() {
        let begun = Instant::now();
        let mut line = Line::default();
        assert!(line.join(Urgency::Bulk, begun, "bulk"));
        assert!(line.join(Urgency::Normal, begun, "normal"));
        let instant = Duration::from_millis(1);
        tokio::time::advance(GROWS_URGENT.saturating_sub(instant)).await;
        assert!(line.join(Urgency::Urgent, Instant::now(), "urgent"));
        assert!(!line.join(Urgency::Normal, Instant::now(), "later"));
        line.grow_urgent();
        assert_eq!(line.urgencies().last(), Some(Urgency::Bulk));
        tokio::time::advance(instant).await;
        assert_eq!(all(&mut line), ["urgent", "normal", "later", "bulk"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_again_has_waited_before() {
        let begun = Instant::now();
        let mut line = Line::default();
        tokio::time::advance(2 * GROWS_URGENT).await;
        line.join(Urgency::Normal, Instant::now(), "new");
        assert!(line.join(Urgency::Bulk, begun, "old"));
        line.retain(|who| *who != "new");
        assert_eq!(all(&mut line), ["old"]);
        assert!(line.is_empty());
    }
}
