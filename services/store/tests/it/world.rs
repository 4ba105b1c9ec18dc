//! A small world around the store: a registry that is a map, workers that may stall or die
//! between any two steps, PUTs that are delivered late or not at all, and a clock that jumps.
//! What callers and strangers do is in `callers.rs`, what workers do in `workers.rs`.

use std::{collections::HashMap, time::Duration};

use colophon_domain::{Digest, Failure, Reason, Repository, Tag};
use colophon_store::{Claimed, DueIntent, Intent, Look, Move};
use rand::{Rng, rngs::SmallRng};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use crate::base::Base;

pub(crate) type Key = (Repository, Tag);

/// For how long a reconciler has an intent.
const HOLD: Duration = Duration::from_secs(15);

pub(crate) enum Stage {
    Begin,
    Sending(Move, Intent, Duration),
    Answered(Move, Intent, Option<Failure>),
}

pub(crate) struct Worker {
    pub(crate) job: Claimed,
    pub(crate) stage: Stage,
}

/// A PUT that is somewhere in the network.
pub(crate) struct Flying {
    pub(crate) key: Key,
    pub(crate) digest: Digest,
    pub(crate) until: Duration,
}

pub(crate) struct World {
    pub(crate) base: Base,
    pub(crate) registry: HashMap<Key, Digest>,
    /// The intents whose PUT reached the registry.
    pub(crate) delivered: Vec<Uuid>,
    /// Tags that somebody else has moved at least once, or of which a person said what is not.
    pub(crate) touched: Vec<Key>,
    pub(crate) now: Duration,
    pub(crate) workers: Vec<Worker>,
    pub(crate) flying: Vec<Flying>,
    pub(crate) releases: Vec<Uuid>,
    /// Freezes that were made, lifted or not.
    pub(crate) freezes: Vec<Uuid>,
    /// What happened how often.
    pub(crate) tally: HashMap<&'static str, u32>,
    /// Intents that a reconciler has taken and not written about yet.
    held: Vec<DueIntent>,
    pub(crate) rng: SmallRng,
    /// Whether things still go wrong.
    faults: bool,
}

impl World {
    pub(crate) fn new(base: Base, rng: SmallRng) -> Self {
        Self {
            base,
            registry: HashMap::new(),
            delivered: Vec::new(),
            touched: Vec::new(),
            now: Duration::ZERO,
            workers: Vec::new(),
            flying: Vec::new(),
            releases: Vec::new(),
            freezes: Vec::new(),
            tally: HashMap::new(),
            held: Vec::new(),
            rng,
            faults: true,
        }
    }

    /// One thing happens.
    pub(crate) async fn step(&mut self) {
        match self.rng.random_range(0..200) {
            0..8 => self.publish().await,
            8..9 => self.roll_back().await,
            9..36 => self.claim().await,
            36..46 => self.pass().await,
            46..48 => self.foreign_move(),
            48..50 => self.cancel().await,
            50..58 => self.deliver(),
            58..65 => drop(self.base.store.reap().await.unwrap()),
            65..73 => self.reconcile().await,
            73..75 => self.settle_by_hand().await,
            75..76 => self.freeze().await,
            76..78 => self.lift().await,
            _ => self.work().await,
        }
    }

    /// Nothing goes wrong any more until every release has ended.
    pub(crate) async fn settle(&mut self) {
        self.faults = false;
        let left = "SELECT count(*) FROM release WHERE ended_at IS NULL";
        for _ in 0..4_000 {
            if self.base.count(left).await == 0 {
                return;
            }
            self.deliver();
            self.claim().await;
            for _ in 0..self.workers.len() * 4 {
                self.work().await;
            }
            self.reconcile().await;
            self.base.store.reap().await.unwrap();
            self.pass().await;
        }
        panic!("releases never ended");
    }

    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.faults && self.rng.random_ratio(percent, 100)
    }

    pub(crate) fn happened(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// The time of the database's clock.
    pub(crate) fn time(&self) -> OffsetDateTime {
        datetime!(2026-01-01 00:00:00 UTC) + self.now
    }

    pub(crate) fn served(&self, repository: &Repository, tag: &Tag) -> Option<Digest> {
        self.registry.get(&(repository.clone(), tag.clone())).cloned()
    }

    async fn claim(&mut self) {
        for job in self.base.claim(2).await {
            self.workers.push(Worker { job, stage: Stage::Begin });
        }
    }

    async fn pass(&mut self) {
        let time = Duration::from_millis(self.rng.random_range(0..9_000));
        self.now += time;
        self.base.pass(time).await;
    }

    /// Some PUT in the network arrives; those that are too late never do.
    fn deliver(&mut self) {
        self.flying.retain(|put| put.until > self.now);
        if let Some(put) = self.flying.pop() {
            self.registry.insert(put.key, put.digest);
        }
    }

    /// A reconciler writes what it sees, at once, much later, or never.
    async fn reconcile(&mut self) {
        if !self.held.is_empty() {
            let due = self.held.swap_remove(self.rng.random_range(0..self.held.len()));
            self.happened("outcomes written late");
            self.resolve(&due).await;
        }
        let mut taken = self.base.store.take_due_intents(30, HOLD).await.unwrap();
        // In one order, so that a seed means the same walk again.
        taken.sort_by_key(|due| (due.repository.to_string(), due.tag.to_string()));
        for due in taken {
            if self.chance(15) {
                self.held.push(due);
            } else if !self.chance(15) {
                self.happened("outcomes found out");
                self.resolve(&due).await;
            }
        }
    }

    async fn resolve(&mut self, due: &DueIntent) {
        let seen = self.served(&due.repository, &due.tag);
        if let Err(failure) = self.base.store.resolve(due, Look::now(seen.as_ref())).await {
            // Another reconciler, or a person, has taken it since.
            assert_eq!(failure.reason(), Reason::ReferenceBlocked, "{failure}");
        }
    }
}
