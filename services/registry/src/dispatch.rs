//! Handing out the slots of a registry's budget: one task for each registry, while anybody waits,
//! reserves a few slots ahead and gives each, when its time comes, to the most urgent one.

use std::{sync::Arc, time::Duration};

use colophon_domain::{Failure, Reason, Retry, SlotAsk, Slots, spacing};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::budget::{Budget, LEAST_WAIT};

/// How long the budget's keeper may take to answer.
const KEEPER_PATIENCE: Duration = Duration::from_secs(5);
/// Nobody asks it more often than this for what is not free yet, nor more seldom.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(2), Duration::from_secs(1));
/// A slot whose time has passed by more than this, and by more than a slot, is lost: what is made up
/// for later would be too much for the registry then.
const LATE: Duration = Duration::from_millis(20);

/// What is to be done for those who wait.
enum Next {
    /// There is nobody.
    Nothing,
    /// What is in hand suffices.
    Suffices,
    /// More has to be reserved.
    Ask(SlotAsk),
}

impl Budget {
    /// Runs until nobody waits any more. The last slot of a few is kept in hand until the next ones are
    /// reserved, so that none is lost to the way to the budget's keeper and back.
    pub(crate) async fn dispatch(self: Arc<Self>) {
        let mut kept: Option<(Instant, Duration)> = None;
        loop {
            let ask = match self.next(kept.is_some()) {
                Next::Nothing => return,
                Next::Suffices => {
                    self.hand_out(kept.take()).await;
                    continue;
                }
                Next::Ask(ask) => ask,
            };
            let reserved = timeout(KEEPER_PATIENCE, self.shared.reserve(&self.name, ask));
            let reserved = async { (reserved.await, Instant::now()) };
            let ((reserved, now), ()) = tokio::join!(reserved, self.hand_out(kept.take()));
            match reserved {
                Ok(Ok(Slots::Granted { first_in, count })) => {
                    let at = |number| (now + first_in + ask.every * number, ask.every);
                    let last = count.saturating_sub(1);
                    self.hand_out((0..last).map(at)).await;
                    kept = Some(at(last));
                }
                Ok(Ok(Slots::Later(wait))) => {
                    tokio::select! {
                        () = sleep(wait.clamp(ASK_AGAIN.0, ASK_AGAIN.1)) => {}
                        () = self.changed.notified() => {}
                    }
                }
                Ok(Err(failure)) => self.refuse(&failure.to_string()),
                Err(_) => self.refuse("no answer in time"),
            }
        }
    }

    /// What to ask for, for the most urgent of those for whom nothing is in hand. In a pause, and where
    /// no limit is known any more, those who wait find that out for themselves.
    fn next(&self, in_hand: bool) -> Next {
        let mut state = self.state();
        state.waiting.retain(|waiting| !waiting.has_left());
        state.waiting.grow_urgent();
        let limit = state.limit().filter(|_| state.pause_left().is_zero());
        let Some(limit) = limit.filter(|_| !state.waiting.is_empty()) else {
            state.waiting.clear();
            state.dispatching = false;
            return Next::Nothing;
        };
        let mut without = state.waiting.urgencies().skip(usize::from(in_hand));
        let Some(urgency) = without.next() else { return Next::Suffices };
        let alike = 1 + without.take_while(|other| *other == urgency).count();
        let count = u32::try_from(alike).unwrap_or(u32::MAX);
        let urgency = state.pressed_by().map_or(urgency, |pressing| pressing.max(urgency));
        Next::Ask(SlotAsk { every: spacing(limit), count, ahead: urgency.reach() })
    }

    /// Gives slots away when their time comes, each with the time to the next.
    async fn hand_out(&self, slots: impl IntoIterator<Item = (Instant, Duration)>) {
        for (at, every) in slots {
            loop {
                tokio::select! {
                    () = sleep_until(at) => break,
                    () = self.changed.notified() => {}
                }
                if !self.state().pause_left().is_zero() {
                    return;
                }
            }
            let missed = Instant::now() > at + every.max(LATE);
            if !missed && !self.let_one_through() {
                return;
            }
        }
    }

    /// Gives a slot to the most urgent one; false if there is nobody, or a pause has begun.
    fn let_one_through(&self) -> bool {
        let mut state = self.state();
        let pass = state.pass();
        if !state.pause_left().is_zero() {
            return false;
        }
        while let Some(waiting) = state.waiting.next() {
            if waiting.give(Ok(pass)) {
                return true;
            }
        }
        false
    }

    /// The budget cannot be reached: its limit cannot be kept together with others.
    fn refuse(&self, cause: &str) {
        tracing::debug!(registry = %self.name, cause, "no slots can be reserved");
        let mut waiting = std::mem::take(&mut self.state().waiting);
        while let Some(waiting) = waiting.next() {
            let text = format!("the rate budget of {} cannot be reached", self.name);
            let failure = Failure::new(Reason::DatabaseUnavailable, text)
                .retry(Retry::Wait(LEAST_WAIT))
                .remedy("try again; the operator sees the cause in the log");
            waiting.give(Err(failure));
        }
    }
}

#[cfg(test)]
mod tests {
    use colophon_domain::{BudgetEvent, HostBudget, RateBudget, RegistryHost, Result, Urgency};
    use futures_util::{FutureExt as _, future::BoxFuture};
    use http::{HeaderMap, HeaderValue, StatusCode};
    use tokio::task::JoinSet;

    use super::*;
    use crate::memory_budget::MemoryBudget;

    const SECOND: Duration = Duration::from_secs(1);

    /// So many processes that share one budget.
    fn processes(number: usize, limit: f64) -> Vec<Arc<Budget>> {
        let shared: Arc<dyn RateBudget> = Arc::new(MemoryBudget::default());
        let host: RegistryHost = "r.corp.lan".parse().unwrap();
        let process = || {
            let budget = Budget::new(host.clone(), Arc::clone(&shared));
            budget.configure(Some(limit));
            budget
        };
        std::iter::repeat_with(process).take(number).collect()
    }

    /// Asks as often as it is let, as `side_by_side` do, and says when each was let through.
    async fn flood(
        process: Arc<Budget>,
        urgency: Urgency,
        side_by_side: usize,
        until: Instant,
    ) -> Vec<Instant> {
        let mut asking = JoinSet::new();
        for _ in 0..side_by_side {
            let process = Arc::clone(&process);
            asking.spawn(async move {
                let mut sent = Vec::new();
                while Instant::now() < until {
                    process.ready(urgency, None).await.unwrap();
                    sent.push(Instant::now());
                }
                sent
            });
        }
        asking.join_all().await.concat()
    }

    fn refusal(retry_after: &'static str) -> (StatusCode, HeaderMap) {
        let headers = [(http::header::RETRY_AFTER, HeaderValue::from_static(retry_after))];
        (StatusCode::TOO_MANY_REQUESTS, headers.into_iter().collect())
    }

    fn most_in_a_second(sent: &[Instant]) -> usize {
        let in_second = |begin: &Instant| {
            sent.iter().filter(|at| *at >= begin && **at < *begin + SECOND).count()
        };
        sent.iter().map(in_second).max().unwrap_or_default()
    }

    #[tokio::test(start_paused = true)]
    async fn processes_together_keep_to_the_limit_and_use_it() {
        let until = Instant::now() + 30 * SECOND;
        let floods: Vec<_> = processes(3, 20.0)
            .into_iter()
            .zip([Urgency::Bulk, Urgency::Bulk, Urgency::Normal])
            .map(|(process, urgency)| tokio::spawn(flood(process, urgency, 5, until)))
            .collect();
        let mut sent = Vec::new();
        for flood in floods {
            sent.extend(flood.await.unwrap());
        }
        sent.sort_unstable();
        assert!(most_in_a_second(&sent) <= 20);
        assert!(sent.len() >= 30 * 20 * 9 / 10, "{} of 600", sent.len());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_urgent_waits_for_no_more_than_the_reach_of_what_is_not() {
        let all = processes(3, 20.0);
        let until = Instant::now() + 10 * SECOND;
        let bulk: Vec<_> = all
            .iter()
            .map(|it| tokio::spawn(flood(Arc::clone(it), Urgency::Bulk, 50, until)))
            .collect();
        for process in &all {
            tokio::time::sleep(SECOND + SECOND / 7).await;
            let begun = Instant::now();
            process.ready(Urgency::Urgent, None).await.unwrap();
            let most = Urgency::Bulk.reach() + 2 * spacing(20.0);
            assert!(begun.elapsed() <= most, "{:?}", begun.elapsed());
        }
        // And what is not urgent goes on afterwards.
        for flood in bulk {
            assert!(flood.await.unwrap().len() > 20);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_gets_a_turn_however_many_are_more_urgent() {
        let all = processes(2, 20.0);
        let until = Instant::now() + 240 * SECOND;
        let urgent: Vec<_> = all
            .iter()
            .map(|it| tokio::spawn(flood(Arc::clone(it), Urgency::Urgent, 50, until)))
            .collect();
        tokio::time::sleep(3 * SECOND).await;
        for process in &all {
            let begun = Instant::now();
            process.ready(Urgency::Bulk, None).await.unwrap();
            let waited = begun.elapsed();
            assert!(waited >= 10 * SECOND, "what is urgent comes first: {waited:?}");
            assert!(waited <= 100 * SECOND, "{waited:?}");
        }
        for flood in urgent {
            flood.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_limits_that_are_told_in_turn_the_lowest_counts_and_is_written_once() {
        let [process] = processes(1, 1000.0).try_into().ok().unwrap();
        process.configure(None);
        let told = |limit: &str| -> HeaderMap {
            let value = HeaderValue::from_str(&format!("\"all\";q={limit};w=1")).unwrap();
            [(http::HeaderName::from_static("ratelimit-policy"), value)].into_iter().collect()
        };
        for number in 0..40 {
            let pass = process.ready(Urgency::Urgent, None).await.unwrap();
            let headers = told(if number % 2 == 0 { "100" } else { "20" });
            process.answered(pass, StatusCode::OK, &headers, &colophon_domain::SystemClock);
            tokio::task::yield_now().await;
        }
        assert_eq!(process.state().limit(), Some(20.0));
        let known = process.shared.look(&process.name).await.unwrap();
        assert_eq!(known.version, 2, "each was written once");
        tokio::time::sleep(70 * SECOND).await;
        let pass = process.ready(Urgency::Urgent, None).await.unwrap();
        process.answered(pass, StatusCode::OK, &told("100"), &colophon_domain::SystemClock);
        assert_eq!(process.state().limit(), Some(100.0), "what is told no more is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_has_taken_back_holds_no_more() {
        let [process] = processes(1, 1000.0).try_into().ok().unwrap();
        process.configure(None);
        let pass = process.ready(Urgency::Normal, None).await.unwrap();
        let (status, headers) = refusal("3600");
        process.answered(pass, status, &headers, &colophon_domain::SystemClock);
        tokio::task::yield_now().await;
        let refused = process.ready(Urgency::Normal, None).await.unwrap_err();
        assert_eq!(refused.reason(), Reason::RateLimited);
        // An answer from before the refusal was known takes nothing back.
        process.state().learn(HostBudget::default(), 0);
        assert!(process.ready(Urgency::Normal, None).await.is_err());
        process.state().learn(HostBudget::default(), 1);
        process.ready(Urgency::Normal, None).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_sends_in_a_pause_and_all_go_on_within_a_second_after_it() {
        let [first, other] = processes(2, 50.0).try_into().ok().unwrap();
        let begun = Instant::now();
        let until = begun + 10 * SECOND;
        let floods = [&first, &other]
            .map(|it| tokio::spawn(flood(Arc::clone(it), Urgency::Normal, 20, until)));
        tokio::time::sleep(2 * SECOND).await;
        let pass = first.ready(Urgency::Urgent, None).await.unwrap();
        let (status, headers) = refusal("3");
        first.answered(pass, status, &headers, &colophon_domain::SystemClock);
        let paused = Instant::now();
        // What another process hears of.
        tokio::task::yield_now().await;
        other.look().await;
        for flood in floods {
            let sent = flood.await.unwrap();
            let within = |at: &&Instant| **at > paused && **at < paused + 3 * SECOND;
            assert_eq!(sent.iter().filter(within).count(), 0);
            let after = sent.iter().filter(|at| **at >= paused + 3 * SECOND).min().unwrap();
            assert!(*after <= paused + 4 * SECOND, "{:?}", *after - paused);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_without_a_known_limit_teaches_one() {
        let [process] = processes(1, 20.0).try_into().ok().unwrap();
        process.configure(None);
        let begun = Instant::now();
        let (status, headers) = refusal("1");
        for number in 0..31 {
            let pass = process.ready(Urgency::Bulk, None).await.unwrap();
            let good = number < 30;
            let (status, headers) =
                if good { (StatusCode::OK, HeaderMap::new()) } else { (status, headers.clone()) };
            process.answered(pass, status, &headers, &colophon_domain::SystemClock);
        }
        assert!(begun.elapsed() < SECOND / 10, "until then nobody waits");
        let sent = flood(Arc::clone(&process), Urgency::Bulk, 10, begun + 6 * SECOND).await;
        assert!(sent.iter().all(|at| *at >= begun + SECOND));
        // It is a guess, and grows by a tenth in five seconds.
        assert!(most_in_a_second(&sent) <= 34);
        assert!(sent.len() > 130, "{}", sent.len());
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_takes_no_slot_along() {
        let [process] = processes(1, 10.0).try_into().ok().unwrap();
        for _ in 0..100 {
            let left = process.ready(Urgency::Urgent, None).now_or_never();
            assert!(left.is_none());
        }
        let begun = Instant::now();
        for _ in 0..5 {
            process.ready(Urgency::Bulk, None).await.unwrap();
        }
        assert!(begun.elapsed() <= SECOND, "{:?}", begun.elapsed());
    }

    /// A keeper that cannot be reached, or stands still.
    struct Away(bool);

    impl RateBudget for Away {
        fn look<'a>(&'a self, _: &'a RegistryHost) -> BoxFuture<'a, Result<HostBudget>> {
            Box::pin(self.answer())
        }

        fn reserve<'a>(&'a self, _: &'a RegistryHost, _: SlotAsk) -> BoxFuture<'a, Result<Slots>> {
            Box::pin(self.answer())
        }

        fn note<'a>(
            &'a self,
            _: &'a RegistryHost,
            _: &'a BudgetEvent,
        ) -> BoxFuture<'a, Result<HostBudget>> {
            Box::pin(self.answer())
        }
    }

    impl Away {
        async fn answer<T>(&self) -> Result<T> {
            if self.0 {
                std::future::pending::<()>().await;
            }
            Err(Failure::new(Reason::DatabaseUnavailable, "gone"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_its_keeper_a_limit_fails_for_a_while_and_a_pause_holds() {
        for silent in [false, true] {
            let host: RegistryHost = "r.corp.lan".parse().unwrap();
            let process = Budget::new(host, Arc::new(Away(silent)));
            let begun = Instant::now();
            let pass = process.ready(Urgency::Bulk, None).await.unwrap();
            assert!(begun.elapsed() <= 2 * SECOND, "{:?}", begun.elapsed());
            let (status, headers) = refusal("4");
            process.answered(pass, status, &headers, &colophon_domain::SystemClock);
            let begun = Instant::now();
            process.ready(Urgency::Bulk, None).await.unwrap();
            assert!(begun.elapsed() >= 4 * SECOND);
            process.configure(Some(5.0));
            let begun = Instant::now();
            let failure = process.ready(Urgency::Bulk, None).await.unwrap_err();
            assert_eq!(failure.reason(), Reason::DatabaseUnavailable);
            assert!(matches!(failure.retry_class(), Retry::Wait(_)));
            assert!(begun.elapsed() <= KEEPER_PATIENCE);
        }
    }
}
