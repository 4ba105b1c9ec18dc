//! How one process sees the budget of a registry: whether it may be asked now, in which order those
//! who wait are let through, and what its answers say. The budget itself is everybody's
//! ([`RateBudget`]): while no limit is known nobody asks it before a request, and it is looked at in
//! the background once in a second; with a limit every request has a slot of it (`dispatch.rs`).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use colophon_domain::{
    BudgetEvent, Clock, Failure, HostBudget, RateBudget, Reason, RegistryHost, Result, Retry,
    Urgency, least,
};
use http::{HeaderMap, StatusCode};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    accepted::Accepted,
    limits::{retry_after, told_rate, used_up},
    line::Line,
    metrics,
};

/// Longer pauses are not slept here but handed to the caller, who has other work.
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_secs(10);
/// The least that a caller is told to wait.
pub(crate) const LEAST_WAIT: Duration = Duration::from_secs(1);
/// A request that found no slot for this long goes back to the queue.
const PATIENCE: Duration = Duration::from_mins(5);
/// How old what is known of the budget may be while there are requests.
const FRESH: Duration = Duration::from_secs(1);
/// How long the very first request waits for what is known.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// Advice that is repeated is written down again after this long, or if it is lower by this part: of
/// several limits that a registry tells in turn the lowest counts.
const ADVICE_AGE: Duration = Duration::from_mins(1);
const ADVICE_CHANGE: f64 = 0.05;

/// The right to send one request, and what was known of the registry's limit when it was given.
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    version: i64,
    under: Option<f64>,
}

/// Who waits for a slot.
pub(crate) struct Waiting(oneshot::Sender<Result<Pass>>);

impl Waiting {
    pub(crate) fn has_left(&self) -> bool {
        self.0.is_closed()
    }

    /// False if nobody waits any more.
    pub(crate) fn give(self, slot: Result<Pass>) -> bool {
        self.0.send(slot).is_ok()
    }
}

/// The budget of one registry.
pub(crate) struct Budget {
    pub(crate) name: RegistryHost,
    pub(crate) shared: Arc<dyn RateBudget>,
    pub(crate) state: Mutex<State>,
    /// Somebody waits, or there is a pause.
    pub(crate) changed: Notify,
}

pub(crate) struct State {
    /// The limit of the configuration.
    configured: Option<f64>,
    known: HostBudget,
    /// The version that the keeper had last.
    recorded: i64,
    as_of: Instant,
    looked_at: Option<Instant>,
    looking: bool,
    /// What is being written down: until then the others know less than we do.
    noting: u32,
    accepted: Accepted,
    /// Until when further refusals say nothing new of the rate.
    counted_until: Option<Instant>,
    pub(crate) waiting: Line<Waiting>,
    pub(crate) dispatching: bool,
    /// Those who wait for a place that one who waits for a slot has.
    pressing: BTreeMap<Urgency, usize>,
}

/// See [`Budget::press`].
pub(crate) struct Pressing(Arc<Budget>, Urgency);

impl Drop for Pressing {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if let Some(number) = state.pressing.get_mut(&self.1) {
            *number -= 1;
        }
        state.pressing.retain(|_, number| *number > 0);
    }
}

impl State {
    fn now(&self) -> HostBudget {
        self.known.aged(self.as_of.elapsed())
    }

    /// The limit that requests are sent under.
    pub(crate) fn limit(&self) -> Option<f64> {
        if self.known.refused.is_none() && self.known.advised.is_none() {
            return self.configured;
        }
        least(self.configured, self.now().per_second())
    }

    pub(crate) fn pause_left(&self) -> Duration {
        self.known.paused_for.saturating_sub(self.as_of.elapsed())
    }

    /// The urgency of the most urgent one who waits for a place.
    pub(crate) fn pressed_by(&self) -> Option<Urgency> {
        self.pressing.last_key_value().map(|(urgency, _)| *urgency)
    }

    pub(crate) fn pass(&self) -> Pass {
        Pass { version: self.known.version, under: self.limit() }
    }

    /// Takes over what the budget's keeper knows. A pause that was heard of here stays, unless the
    /// keeper knows less than it did `before` it was asked: then somebody has taken it back.
    pub(crate) fn learn(&mut self, mut known: HostBudget, before: i64) {
        let taken_back = self.noting == 0 && known.version < before;
        self.recorded = known.version;
        if taken_back {
            self.known = known;
            self.as_of = Instant::now();
            return;
        }
        known.paused_for = known.paused_for.max(self.pause_left());
        if self.noting > 0 {
            known = HostBudget { paused_for: known.paused_for, ..self.now() };
        }
        self.known = known;
        self.as_of = Instant::now();
    }
}

impl Budget {
    pub(crate) fn new(name: RegistryHost, shared: Arc<dyn RateBudget>) -> Arc<Self> {
        let state = State {
            configured: None,
            known: HostBudget::default(),
            recorded: 0,
            as_of: Instant::now(),
            looked_at: None,
            looking: false,
            noting: 0,
            accepted: Accepted::new(),
            counted_until: None,
            waiting: Line::default(),
            dispatching: false,
            pressing: BTreeMap::new(),
        };
        Arc::new(Self { name, shared, state: Mutex::new(state), changed: Notify::new() })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the limit of the configuration.
    pub(crate) fn configure(&self, per_second: Option<f64>) {
        self.state().configured = per_second;
        self.changed.notify_one();
    }

    /// How long the pause still lasts.
    pub(crate) fn pause_left(&self) -> Duration {
        self.state().pause_left()
    }

    /// While this is held, those who wait for slots wait as if they were at least so urgent: they have
    /// the places that somebody waits for who is.
    pub(crate) fn press(self: &Arc<Self>, urgency: Urgency) -> Pressing {
        *self.state().pressing.entry(urgency).or_default() += 1;
        self.changed.notify_one();
        Pressing(Arc::clone(self), urgency)
    }

    /// Waits until one request may be sent, or says how long it would take. A pause that lasts beyond
    /// the deadline is not slept.
    pub(crate) async fn ready(
        self: &Arc<Self>,
        urgency: Urgency,
        deadline: Option<Instant>,
    ) -> Result<Pass> {
        self.look_at_first().await;
        let begun = Instant::now();
        loop {
            self.unpaused(deadline).await?;
            let slot = {
                let mut state = self.state();
                self.look_again(&mut state);
                if !state.pause_left().is_zero() {
                    continue;
                }
                if state.limit().is_none() {
                    return Ok(state.pass());
                }
                self.queue(&mut state, urgency, begun)
            };
            let limit = begun + PATIENCE;
            let limit = deadline.map_or(limit, |deadline| deadline.min(limit));
            match timeout_at(limit, slot).await {
                Ok(Ok(pass)) => {
                    metrics::waited(&self.name, urgency, begun.elapsed());
                    return pass;
                }
                // There is a pause, or no limit any more.
                Ok(Err(_)) if Instant::now() < limit => {}
                _ => return Err(self.short_of_time()),
            }
        }
    }

    fn short_of_time(&self) -> Failure {
        let limit = self.state().limit().unwrap_or_default();
        let text = format!("others use up the {limit:.1} requests/s that {} allows", self.name);
        Failure::new(Reason::RateLimited, text)
            .retry(Retry::Wait(LEAST_WAIT))
            .remedy("nothing; the work goes on when its turn comes")
    }

    /// Waits for the end of a short pause, or says how long it lasts.
    pub(crate) async fn unpaused(self: &Arc<Self>, deadline: Option<Instant>) -> Result<()> {
        loop {
            let left = self.pause_left();
            if left.is_zero() {
                return Ok(());
            }
            // It may have been taken back.
            self.look_again(&mut self.state());
            let late = deadline.is_some_and(|deadline| Instant::now() + left >= deadline);
            if left > LONGEST_SLEEP || late {
                let (host, seconds) = (&self.name, left.as_secs() + 1);
                let text = format!("{host} asks for a pause of {seconds} s");
                return Err(Failure::new(Reason::RateLimited, text)
                    .retry(Retry::Wait(left))
                    .remedy("nothing; the work goes on when the registry allows it"));
            }
            tokio::time::sleep(left).await;
        }
    }

    /// Stands in line for a slot, with all the time that it has waited already.
    fn queue(
        self: &Arc<Self>,
        state: &mut State,
        urgency: Urgency,
        since: Instant,
    ) -> oneshot::Receiver<Result<Pass>> {
        let (sender, slot) = oneshot::channel();
        let first = state.waiting.join(urgency, since, Waiting(sender));
        if state.dispatching && first {
            self.changed.notify_one();
        } else if !state.dispatching {
            state.dispatching = true;
            tokio::spawn(Arc::clone(self).dispatch());
        }
        slot
    }

    /// What the answer to a request says of the budget.
    pub(crate) fn answered(
        self: &Arc<Self>,
        pass: Pass,
        status: StatusCode,
        headers: &HeaderMap,
        clock: &dyn Clock,
    ) {
        let told = told_rate(headers);
        if let Some(told) = told.filter(|told| self.is_news(*told)) {
            self.note(BudgetEvent::Advised(told));
        }
        let pause = retry_after(headers, clock);
        if status == StatusCode::TOO_MANY_REQUESTS {
            let pause = pause.or_else(|| used_up(headers, clock));
            let accepted = if told.is_some() { 0.0 } else { self.count_refusal() };
            let Pass { version, under } = pass;
            return self.note(BudgetEvent::Refused { pause, accepted, under, seen: version });
        }
        let pause = if status.is_server_error() { pause } else { used_up(headers, clock) };
        if let Some(pause) = pause.filter(|pause| *pause > self.pause_left()) {
            self.note(BudgetEvent::Paused(pause));
        }
        if !status.is_server_error() {
            let mut state = self.state();
            state.accepted.count(Instant::now());
            let struck = state.known.strikes > 0;
            drop(state);
            if struck {
                self.note(BudgetEvent::Answered);
            }
        }
    }

    fn is_news(&self, told: f64) -> bool {
        self.state().now().advised.is_none_or(|known| {
            known.per_second - told > known.per_second * ADVICE_CHANGE || known.age > ADVICE_AGE
        })
    }

    /// What this process got through in the last second; nothing if that was counted just now.
    fn count_refusal(&self) -> f64 {
        let (mut state, now) = (self.state(), Instant::now());
        if state.counted_until.is_some_and(|until| now < until) {
            return 0.0;
        }
        let accepted = state.accepted.last_second(now);
        state.counted_until = Some(now + 2 * FRESH);
        accepted.into()
    }

    /// The token realm, which is another host, asks for a pause.
    pub(crate) fn refused_elsewhere(self: &Arc<Self>, headers: &HeaderMap, clock: &dyn Clock) {
        let pause = retry_after(headers, clock);
        self.note(BudgetEvent::Refused { pause, accepted: 0.0, under: None, seen: 0 });
    }

    /// Keeps to it at once, and lets everybody know in the background.
    fn note(self: &Arc<Self>, event: BudgetEvent) {
        let mut state = self.state();
        let before = state.now();
        let next = before.after(&event);
        if next == before {
            return;
        }
        tracing::debug!(registry = %self.name, ?event, "the registry's budget has changed");
        state.known = next;
        state.as_of = Instant::now();
        state.noting += 1;
        let before = state.recorded;
        drop(state);
        self.changed.notify_one();
        let budget = Arc::clone(self);
        tokio::spawn(async move {
            let noted = budget.shared.note(&budget.name, &event).await;
            let mut state = budget.state();
            state.noting -= 1;
            match noted {
                Ok(known) => state.learn(known, before),
                Err(failure) => {
                    tracing::debug!(registry = %budget.name, %failure, "other processes do not know of it");
                }
            }
        });
    }

    /// The first request of a process waits for what the others know; not for long, should the
    /// database be away.
    async fn look_at_first(self: &Arc<Self>) {
        if self.state().looked_at.is_none() {
            let _ = timeout(FIRST_LOOK, self.look()).await;
            self.state().looked_at.get_or_insert_with(Instant::now);
        }
    }

    /// Looks in the background if what is known is no longer fresh.
    fn look_again(self: &Arc<Self>, state: &mut State) {
        let fresh = state.looked_at.is_some_and(|at| at.elapsed() < FRESH);
        if !fresh && !state.looking {
            state.looking = true;
            let budget = Arc::clone(self);
            tokio::spawn(async move { budget.look().await });
        }
    }

    /// Takes over what the others know.
    pub(crate) async fn look(&self) {
        let before = self.state().recorded;
        let looked = self.shared.look(&self.name).await;
        let mut state = self.state();
        state.looking = false;
        state.looked_at = Some(Instant::now());
        match looked {
            Ok(known) => state.learn(known, before),
            Err(failure) => {
                tracing::debug!(registry = %self.name, %failure, "the budget cannot be read");
            }
        }
        drop(state);
        self.changed.notify_one();
    }
}
