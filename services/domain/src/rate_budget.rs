//! One rate budget for each registry, whatever number of processes ask it: who comes first, when the
//! next requests may be sent, and what is learnt of a registry's limit from its answers. Pure
//! arithmetic; who keeps the budget is a [`RateBudget`].

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::{RegistryHost, Result};

/// A registry that asks for a longer pause than this is asked again after it.
pub const LONGEST_PAUSE: Duration = Duration::from_hours(6);
/// Limits below this are not believed, whoever says so: they would stop all work.
pub const LEAST_PER_SECOND: f64 = 1.0;
/// Limits above this are none.
pub const MOST_PER_SECOND: f64 = 10_000.0;
/// A window, or a pause, above this belongs to a quota: it is spent as it comes, and says nothing of
/// the rate.
pub const LONGEST_WINDOW: Duration = Duration::from_mins(1);

/// Requests are spaced for this part of the limit, so that those that were a little late do not make
/// too many of one second.
const USED: f64 = 0.95;
/// What a limit is multiplied by, at most and at least, when the registry refuses although it was kept.
const LOWERED: f64 = 0.9;
const HALVED: f64 = 0.5;
/// And not below this part of what was let through at first: some registries refuse now and then
/// whatever the rate is, and what follows would come to a standstill.
const LEAST_SHARE: f64 = 0.25;
/// What a limit that was learnt from refusals grows by in this long without one: it may have been
/// higher, or be so now. One that nobody was refused under is a guess.
const GROWTH: f64 = 1.1;
const GROWS_IN: Duration = Duration::from_mins(1);
const GUESS_GROWS_IN: Duration = Duration::from_secs(5);
/// What a guess grows to so fast, at most: then it is as old as any other.
const FAST_GROWTH: f64 = 2.2;
/// For this long a limit that the registry has told is believed.
const ADVICE_HOLDS: Duration = Duration::from_mins(10);
/// Refusals of several processes so soon after each other are one.
const TOGETHER: Duration = Duration::from_secs(2);
/// So many requests of a process have to be let through in a second before a refusal says something of
/// the rate.
const LEAST_ACCEPTED: f64 = 5.0;

/// Who comes first where a registry's budget is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Urgency {
    /// Content of releases without priority, and all that can wait: takes what is left over.
    Bulk,
    /// Tags, and what a caller waits for.
    #[default]
    Normal,
    /// Everything of a release with a priority above 0.
    Urgent,
}

impl Urgency {
    /// That of a release's tags, by the release's priority.
    pub fn of_tags(priority: i16) -> Self {
        match priority {
            1.. => Self::Urgent,
            0 => Self::Normal,
            ..0 => Self::Bulk,
        }
    }

    /// That of a release's content.
    pub fn of_content(priority: i16) -> Self {
        if priority > 0 { Self::Urgent } else { Self::Bulk }
    }

    /// How far ahead requests may be reserved. What is more urgent reaches over what is less, so it
    /// never waits for more of it than that one's reach.
    pub fn reach(self) -> Duration {
        Duration::from_millis(match self {
            Self::Bulk => 150,
            Self::Normal => 600,
            Self::Urgent => 2_000,
        })
    }

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Normal => "normal",
            Self::Urgent => "urgent",
        }
    }
}

/// A limit, and how long it has been known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// Requests in a second.
    pub per_second: f64,
    /// Refusals do not lower it below this.
    pub least: f64,
    /// It was kept, and was still too much: what was learnt from that is near the truth.
    pub proven: bool,
    /// Since when.
    pub age: Duration,
}

impl Limit {
    fn new(per_second: f64) -> Option<Self> {
        let believed = per_second.clamp(LEAST_PER_SECOND, MOST_PER_SECOND);
        (!believed.is_nan()).then_some(Self::known(believed, Duration::ZERO))
    }

    /// A limit that has been known for so long.
    pub fn known(per_second: f64, age: Duration) -> Self {
        Self { per_second, least: per_second * LEAST_SHARE, proven: false, age }
    }

    /// What a limit from refusals has grown to; `None` once it is none any more.
    fn grown(&self) -> Option<f64> {
        let slow = GROWTH.powf(self.age.div_duration_f64(GROWS_IN));
        let fast = if self.proven {
            1.0
        } else {
            GROWTH.powf(self.age.div_duration_f64(GUESS_GROWS_IN)).min(FAST_GROWTH)
        };
        let grown = self.per_second * slow.max(fast);
        (grown < MOST_PER_SECOND).then_some(grown)
    }
}

/// What all processes know of one registry, at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostBudget {
    /// Grows with every pause and every limit.
    pub version: i64,
    /// Nobody sends anything for this long.
    pub paused_for: Duration,
    /// 429s without a `Retry-After` since the last success.
    pub strikes: u32,
    /// The limit that was learnt from refusals.
    pub refused: Option<Limit>,
    /// The limit that the registry has told.
    pub advised: Option<Limit>,
}

/// What an answer says of a registry's budget.
#[derive(Debug, Clone, PartialEq)]
pub enum BudgetEvent {
    /// A 429.
    Refused {
        /// Its `Retry-After`.
        pause: Option<Duration>,
        /// Requests that this process got through in the second before; 0 if that is not to be
        /// learnt from.
        accepted: f64,
        /// The limit that the request was sent under, if any.
        under: Option<f64>,
        /// The version that was known when it was sent.
        seen: i64,
    },
    /// Another answer that asks for a pause.
    Paused(Duration),
    /// The registry tells its limit.
    Advised(f64),
    /// The registry answers again.
    Answered,
}

impl HostBudget {
    /// The limit, if one is known: the lower one of what was told and what was learnt.
    pub fn per_second(&self) -> Option<f64> {
        let advised = self.advised.filter(|limit| limit.age < ADVICE_HOLDS);
        least(advised.map(|limit| limit.per_second), self.refused.and_then(|it| it.grown()))
    }

    /// The same budget a while later.
    #[must_use]
    pub fn aged(&self, by: Duration) -> Self {
        let aged = |limit: Limit| Limit { age: limit.age.saturating_add(by), ..limit };
        Self {
            paused_for: self.paused_for.saturating_sub(by),
            refused: self.refused.map(aged),
            advised: self.advised.map(aged),
            ..self.clone()
        }
    }

    /// The budget after an answer.
    #[must_use]
    pub fn after(&self, event: &BudgetEvent) -> Self {
        let mut next = self.clone();
        match *event {
            BudgetEvent::Refused { pause, accepted, under, seen } => {
                next.pause_or_strike(pause);
                // Neither does one that may be tried again at once.
                let quota = pause.is_some_and(|pause| pause.is_zero() || pause > LONGEST_WINDOW);
                if !quota && accepted >= LEAST_ACCEPTED {
                    next.refused = self.learnt(accepted, under, seen, next.paused_for);
                }
            }
            BudgetEvent::Paused(pause) => next.pause_or_strike(Some(pause)),
            BudgetEvent::Advised(per_second) => next.advised = Limit::new(per_second),
            BudgetEvent::Answered => next.strikes = 0,
        }
        if next != *self {
            next.version = self.version + 1;
        }
        next
    }

    /// A refusal without a time means 1 s, 2 s, 4 s and so on. Answers to requests that were sent side
    /// by side come while the pause already runs, and do not make it longer.
    fn pause_or_strike(&mut self, pause: Option<Duration>) {
        let pause = match pause {
            Some(pause) => pause,
            None if !self.paused_for.is_zero() => return,
            None => {
                self.strikes = self.strikes.saturating_add(1);
                Duration::from_secs(1 << (self.strikes - 1).min(10))
            }
        };
        self.paused_for = self.paused_for.max(pause.min(LONGEST_PAUSE));
    }

    /// The first refusal teaches what was let through until then, by all processes together; another
    /// one although the limit was kept, that it was too high.
    fn learnt(
        &self,
        accepted: f64,
        under: Option<f64>,
        seen: i64,
        pause: Duration,
    ) -> Option<Limit> {
        match (self.refused, under) {
            // Sent before what is known now was known: the same refusal, seen by another process.
            (Some(limit), None) if limit.age < TOGETHER => {
                Limit::new(limit.per_second + accepted).map(|sum| Limit { age: limit.age, ..sum })
            }
            (known, _) if seen < self.version => known,
            (_, None) => Limit::new(accepted),
            (known, Some(under)) => {
                let least = known.map_or(under * LEAST_SHARE, |limit| limit.least);
                let part = known.map_or(LOWERED, |limit| part_that_was_let_through(limit, pause));
                let lowered = Limit::new((under * part).max(least));
                lowered.map(|limit| Limit {
                    least: least.min(limit.per_second),
                    proven: true,
                    ..limit
                })
            }
        }
    }
}

/// A registry that counts by a bucket of tokens refuses when it is empty. What it got since it was
/// empty before, also in the pause, is what was sent after the pause: so much less than the limit the
/// rate is.
fn part_that_was_let_through(limit: Limit, pause: Duration) -> f64 {
    let since = limit.age.as_secs_f64();
    let sending = since - pause.as_secs_f64();
    // In the pause nobody sends: that one was on its way before.
    if sending <= 0.0 { LOWERED } else { (sending / since).clamp(HALVED, LOWERED) }
}

/// The lower one of two limits, where there are any.
pub fn least(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The time between two requests at a limit.
pub fn spacing(per_second: f64) -> Duration {
    let sound = if per_second.is_nan() { LEAST_PER_SECOND } else { per_second };
    Duration::from_secs_f64(1.0 / (sound.clamp(0.01, MOST_PER_SECOND) * USED))
}

/// Asks for times at which requests may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotAsk {
    /// The time between two of them.
    pub every: Duration,
    /// How many are wanted.
    pub count: u32,
    /// How far ahead the last one may be.
    pub ahead: Duration,
}

/// Times at which requests may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slots {
    /// The first one in this long, the others after it at the distance that was asked for.
    Granted {
        /// Until the first.
        first_in: Duration,
        /// How many, at least one.
        count: u32,
    },
    /// Others have reserved what is within reach; worth asking again in this long.
    Later(Duration),
}

impl SlotAsk {
    /// What is granted where the next free time is in so long; and in how long it is afterwards.
    pub fn grant(&self, free_in: Duration) -> (Slots, Duration) {
        let Some(room) = self.ahead.checked_sub(free_in) else {
            return (Slots::Later(free_in.saturating_sub(self.ahead)), free_in);
        };
        let more = room.as_nanos() / self.every.as_nanos().max(1);
        let count =
            u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1).min(self.count.max(1));
        (Slots::Granted { first_in: free_in, count }, free_in + self.every * count)
    }
}

/// Keeps the budgets of registries, for one process or for all that share a database.
pub trait RateBudget: Send + Sync + 'static {
    /// What is known of a registry.
    fn look<'a>(&'a self, host: &'a RegistryHost) -> BoxFuture<'a, Result<HostBudget>>;

    /// Reserves times for requests. What is reserved and not used is lost.
    fn reserve<'a>(&'a self, host: &'a RegistryHost, ask: SlotAsk) -> BoxFuture<'a, Result<Slots>>;

    /// Writes down what an answer said, and tells the others; what is known then.
    fn note<'a>(
        &'a self,
        host: &'a RegistryHost,
        event: &'a BudgetEvent,
    ) -> BoxFuture<'a, Result<HostBudget>>;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn refused(accepted: f64, under: Option<f64>, seen: i64) -> BudgetEvent {
        BudgetEvent::Refused { pause: Some(SECOND), accepted, under, seen }
    }

    #[test]
    fn processes_that_are_refused_together_learn_what_all_of_them_got_through() {
        let first = HostBudget::default().after(&refused(12.0, None, 0));
        let both = first.aged(SECOND / 10).after(&refused(8.0, None, 0));
        assert_eq!(both.per_second().map(f64::round), Some(20.0));
        let late = both.aged(3 * SECOND).after(&refused(8.0, None, 0));
        assert_eq!(late.refused, both.aged(3 * SECOND).refused);
        assert_eq!(late.paused_for, SECOND);
    }

    #[test]
    fn a_limit_that_was_kept_and_refused_is_lowered_once_and_grows_again() {
        let known = HostBudget::default().after(&refused(100.0, None, 0));
        let lowered = known.after(&refused(50.0, Some(100.0), known.version));
        assert_eq!(lowered.per_second(), Some(90.0));
        let again = lowered.after(&refused(50.0, Some(100.0), known.version));
        assert_eq!(again.per_second(), Some(90.0), "it was sent before the other's answer");
        let grown = lowered.aged(60 * SECOND).per_second().unwrap();
        assert!(grown > 98.9 && grown < 99.1, "{grown}");
        assert_eq!(lowered.aged(Duration::from_hours(12)).per_second(), None);
        let mut random = known;
        for _ in 0..100 {
            random = random.after(&refused(50.0, random.per_second(), random.version));
        }
        assert_eq!(random.per_second(), Some(25.0), "some refuse whatever the rate is");
    }

    #[test]
    fn a_bucket_that_was_full_at_first_misleads_only_once() {
        // It holds 20 and gets 20 in a second: 40 went through before the first refusal.
        let first = HostBudget::default().after(&refused(40.0, None, 0));
        let again = first.aged(2 * SECOND).after(&refused(40.0, Some(40.0), first.version));
        assert_eq!(again.per_second(), Some(20.0));
        let late = again.aged(60 * SECOND);
        let late = late.after(&refused(20.0, Some(20.0), late.version));
        assert_eq!(late.per_second(), Some(18.0));
    }

    #[test]
    fn a_first_guess_that_was_too_low_grows_soon_and_what_was_found_out_slowly() {
        let guess = HostBudget::default().after(&refused(10.0, None, 0));
        let later = guess.aged(40 * SECOND);
        let grown = later.per_second().unwrap();
        assert!(grown > 20.0 && grown < 22.0, "{grown}");
        let found = later.after(&refused(20.0, Some(grown), later.version));
        let (at_once, later) = (found.per_second().unwrap(), found.aged(40 * SECOND));
        assert!(at_once > 18.0 && at_once < 20.0, "{at_once}");
        assert!(later.per_second().unwrap() < 1.1 * at_once);
    }

    #[test]
    fn quotas_and_refusals_out_of_nothing_teach_no_rate() {
        for pause in [Duration::ZERO, Duration::from_hours(1)] {
            let quota =
                BudgetEvent::Refused { pause: Some(pause), accepted: 50.0, under: None, seen: 0 };
            assert_eq!(HostBudget::default().after(&quota).per_second(), None);
        }
        assert_eq!(HostBudget::default().after(&refused(1.0, None, 0)).per_second(), None);
    }

    #[test]
    fn strikes_double_end_with_an_answer_and_count_once_for_requests_side_by_side() {
        let strike = BudgetEvent::Refused { pause: None, accepted: 0.0, under: None, seen: 0 };
        let mut budget = HostBudget::default();
        let mut pauses = Vec::new();
        for _ in 0..4 {
            budget = budget.after(&strike).after(&strike);
            pauses.push(budget.paused_for.as_secs());
            budget = budget.aged(budget.paused_for);
        }
        assert_eq!(pauses, [1, 2, 4, 8]);
        budget = budget.after(&BudgetEvent::Answered).after(&strike);
        assert_eq!(budget.paused_for, SECOND);
    }

    #[test]
    fn advice_is_forgotten_and_the_lower_limit_counts() {
        let told = HostBudget::default().after(&BudgetEvent::Advised(50.0));
        assert_eq!(told.per_second(), Some(50.0));
        let both = told.after(&refused(20.0, None, told.version));
        assert_eq!(both.per_second(), Some(20.0));
        assert_eq!(told.aged(Duration::from_mins(11)).per_second(), None);
    }

    proptest! {
        #[test]
        fn whatever_a_registry_says_neither_stops_nor_floods(
            said in prop_oneof![
                any::<f64>(), Just(f64::NAN), Just(0.0), Just(-1.0), Just(f64::INFINITY)
            ],
            pause in any::<u64>(),
        ) {
            let budget = HostBudget::default()
                .after(&BudgetEvent::Advised(said))
                .after(&BudgetEvent::Paused(Duration::from_secs(pause)))
                .after(&refused(said, Some(said), i64::MAX));
            prop_assert!(budget.paused_for <= LONGEST_PAUSE);
            if let Some(limit) = budget.per_second() {
                prop_assert!((LEAST_PER_SECOND..=MOST_PER_SECOND).contains(&limit), "{limit}");
                prop_assert!(spacing(limit) <= 2 * SECOND);
            }
            prop_assert!(!spacing(said).is_zero() && spacing(said) <= 200 * SECOND);
        }

        /// Whoever asks in whatever order: never more than the limit in any second, nobody less
        /// urgent ahead of its reach, and no time is left free while somebody asks.
        #[test]
        fn no_second_has_more_than_the_limit(
            limit in 1_u32..500,
            asks in prop::collection::vec((0_u8..3, 1_u32..50, 0_u64..300), 1..200),
        ) {
            let every = spacing(limit.into());
            let mut now = Duration::ZERO;
            let mut next_at = Duration::ZERO;
            let mut sent: Vec<Duration> = Vec::new();
            for (urgency, count, pause) in asks {
                now += Duration::from_millis(pause);
                let urgency = [Urgency::Bulk, Urgency::Normal, Urgency::Urgent][usize::from(urgency)];
                let ask = SlotAsk { every, count, ahead: urgency.reach() };
                let free_in = next_at.saturating_sub(now);
                let (slots, next_in) = ask.grant(free_in);
                match slots {
                    Slots::Granted { first_in, count: granted } => {
                        prop_assert!(granted >= 1 && granted <= count);
                        let last = first_in + every * (granted - 1);
                        prop_assert!(last <= urgency.reach());
                        sent.extend((0..granted).map(|number| now + first_in + every * number));
                        prop_assert!(granted == count || last + every > urgency.reach());
                        next_at = now + next_in;
                    }
                    Slots::Later(wait) => prop_assert_eq!(free_in, urgency.reach() + wait),
                }
            }
            for (index, begin) in sent.iter().enumerate() {
                let second = sent[index..].iter().take_while(|at| **at < *begin + SECOND).count();
                prop_assert!(second <= usize::try_from(limit).unwrap(), "{second}");
            }
        }
    }
}
