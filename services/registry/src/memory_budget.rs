//! Rate budgets that one process keeps for itself, where no database shares them.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use colophon_domain::{BudgetEvent, HostBudget, RateBudget, RegistryHost, Result, SlotAsk, Slots};
use futures_util::future::BoxFuture;
use tokio::time::Instant;

/// The budgets of all registries of a process.
#[derive(Default)]
pub(crate) struct MemoryBudget(Mutex<HashMap<RegistryHost, Kept>>);

struct Kept {
    budget: HostBudget,
    as_of: Instant,
    next_at: Instant,
}

impl Kept {
    fn new() -> Self {
        let now = Instant::now();
        Self { budget: HostBudget::default(), as_of: now, next_at: now }
    }

    fn now(&self) -> HostBudget {
        self.budget.aged(self.as_of.elapsed())
    }
}

impl MemoryBudget {
    fn kept(&self) -> MutexGuard<'_, HashMap<RegistryHost, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RateBudget for MemoryBudget {
    fn look<'a>(&'a self, host: &'a RegistryHost) -> BoxFuture<'a, Result<HostBudget>> {
        Box::pin(async move { Ok(self.kept().get(host).map(Kept::now).unwrap_or_default()) })
    }

    fn reserve<'a>(&'a self, host: &'a RegistryHost, ask: SlotAsk) -> BoxFuture<'a, Result<Slots>> {
        Box::pin(async move {
            let mut kept = self.kept();
            let kept = kept.entry(host.clone()).or_insert_with(Kept::new);
            let now = Instant::now();
            let free_in = kept.next_at.duration_since(now).max(kept.now().paused_for);
            let (slots, next_in) = ask.grant(free_in);
            if matches!(slots, Slots::Granted { .. }) {
                kept.next_at = now + next_in;
            }
            Ok(slots)
        })
    }

    fn note<'a>(
        &'a self,
        host: &'a RegistryHost,
        event: &'a BudgetEvent,
    ) -> BoxFuture<'a, Result<HostBudget>> {
        Box::pin(async move {
            let mut kept = self.kept();
            let kept = kept.entry(host.clone()).or_insert_with(Kept::new);
            let budget = kept.now().after(event);
            kept.budget = budget.clone();
            kept.as_of = Instant::now();
            Ok(budget)
        })
    }
}
