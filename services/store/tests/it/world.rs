//! A small world around the store: a registry that is a map, workers that may stall or die
//! between any two steps, PUTs that are delivered late or not at all, and a clock that jumps.

use std::{collections::HashMap, time::Duration};

use colophon_domain::{
    CopyTotals, Decision, Digest, Failure, JobKind, Reason, Repository, Result, Retry, Tag, decide,
};
use colophon_store::{Begun, Claimed, Intent, Look, Move, Outcome};
use rand::{Rng, rngs::SmallRng, seq::IndexedRandom};
use uuid::Uuid;

use crate::base::{Base, digest, request};

const WINDOW: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(5);

type Key = (Repository, Tag);

enum Stage {
    Begin,
    Sending(Move, Intent, Duration),
    Answered(Move, Intent, Option<Failure>),
}

struct Worker {
    job: Claimed,
    stage: Stage,
}

/// A PUT that is somewhere in the network.
struct Flying {
    key: Key,
    digest: Digest,
    until: Duration,
}

pub(crate) struct World {
    pub(crate) base: Base,
    pub(crate) registry: HashMap<Key, Digest>,
    /// The intents whose PUT reached the registry.
    pub(crate) delivered: Vec<Uuid>,
    /// Tags that somebody else has moved at least once.
    pub(crate) touched: Vec<Key>,
    now: Duration,
    workers: Vec<Worker>,
    flying: Vec<Flying>,
    releases: Vec<Uuid>,
    rng: SmallRng,
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
            rng,
            faults: true,
        }
    }

    /// One thing happens.
    pub(crate) async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..8 => self.publish().await,
            8..22 => self.claim().await,
            22..28 => self.pass().await,
            28..31 => self.foreign_move(),
            31..33 => self.cancel().await,
            33..38 => self.deliver(),
            38..42 => drop(self.base.store.reap().await.unwrap()),
            42..47 => self.reconcile().await,
            _ => self.work().await,
        }
    }

    /// Nothing goes wrong any more until every release has ended.
    pub(crate) async fn settle(&mut self) {
        self.faults = false;
        let left = "SELECT count(*) FROM release WHERE ended_at IS NULL";
        for _ in 0..2_000 {
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

    fn chance(&mut self, percent: u32) -> bool {
        self.faults && self.rng.random_ratio(percent, 100)
    }

    async fn publish(&mut self) {
        let content = digest(self.rng.random());
        let unique = format!("u{}", self.rng.random_range(0..6));
        // A retag half of the time, else copies to two targets.
        let wanted = match self.rng.random_range(0..4) {
            0 => request(&[("source", &[], &["latest"])]),
            1 => request(&[("source", &[&unique], &["latest", "v1"])]),
            2 => request(&[("a", &[&unique], &["latest"]), ("b", &[], &["latest", "v1"])]),
            _ => request(&[("a", &[], &["latest"])]),
        };
        self.releases.push(self.base.accept(&wanted, &content).await);
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

    fn foreign_move(&mut self) {
        let place = (self.place(), self.rng.random());
        let (repository, number): (&str, u8) = place;
        let key = (crate::base::repository(repository), "latest".parse().unwrap());
        self.registry.insert(key.clone(), digest(number));
        self.touched.push(key);
    }

    fn place(&mut self) -> &'static str {
        ["source", "a", "b"].choose(&mut self.rng).unwrap()
    }

    async fn cancel(&mut self) {
        if let Some(id) = self.releases.choose(&mut self.rng)
            && let Err(failure) = self.base.store.cancel_release(*id, "bot", "").await
        {
            assert_eq!(failure.reason(), Reason::NotCancellable);
        }
    }

    /// Some PUT in the network arrives; those that are too late never do.
    fn deliver(&mut self) {
        self.flying.retain(|put| put.until > self.now);
        if let Some(put) = self.flying.pop() {
            self.registry.insert(put.key, put.digest);
        }
    }

    async fn reconcile(&mut self) {
        for due in self.base.store.take_due_intents(3, Duration::from_secs(15)).await.unwrap() {
            if self.chance(20) {
                continue;
            }
            let seen = self.registry.get(&(due.repository.clone(), due.tag.clone()));
            self.base.store.resolve(&due, Look::now(seen)).await.unwrap();
        }
    }

    /// One worker takes one step, or dies instead.
    async fn work(&mut self) {
        if self.workers.is_empty() {
            return;
        }
        let index = self.rng.random_range(0..self.workers.len());
        let worker = self.workers.swap_remove(index);
        if self.chance(6) {
            return;
        }
        match self.advance(worker).await {
            Ok(Some(worker)) => self.workers.push(worker),
            Ok(None) => {}
            Err(failure) => {
                let known = [Reason::LeaseLost, Reason::Cancelled, Reason::ReferenceBlocked];
                assert!(known.contains(&failure.reason()), "{failure}");
            }
        }
    }

    async fn advance(&mut self, worker: Worker) -> Result<Option<Worker>> {
        let Worker { job, stage } = worker;
        match stage {
            Stage::Begin if job.stop => {
                self.base.store.stop(&job).await?;
                Ok(None)
            }
            Stage::Begin if job.kind == JobKind::Copy => self.copy(job).await,
            Stage::Begin => self.begin(job).await,
            Stage::Sending(step, intent, deadline) => self.send(job, step, intent, deadline).await,
            Stage::Answered(step, intent, refusal) => {
                let seen = self.registry.get(&(step.repository.clone(), step.tag.clone()));
                let outcome = self
                    .base
                    .store
                    .finish_move(&step, &intent, Look::now(seen), refusal.as_ref())
                    .await?;
                let left = outcome != Outcome::JobDone;
                Ok(left.then_some(Worker { job, stage: Stage::Begin }))
            }
        }
    }

    async fn copy(&mut self, job: Claimed) -> Result<Option<Worker>> {
        let away = Failure::new(Reason::RegistryUnavailable, "away").retry(Retry::Backoff);
        let (broken, refused) = (self.chance(5), self.chance(5));
        if broken {
            self.base.store.retry(job.lease, &away, Duration::from_secs(1)).await?;
        } else if refused {
            let no = Failure::new(Reason::RegistryDenied, "no");
            self.base.store.give_up(&job, &no, &no).await?;
        } else {
            self.base.store.finish_copy(&job, &CopyTotals::default()).await?;
        }
        Ok(None)
    }

    async fn begin(&mut self, job: Claimed) -> Result<Option<Worker>> {
        let steps = self.base.store.unsettled_tags(&job).await?;
        let Some(step) = steps.choose(&mut self.rng).cloned() else {
            self.base.store.complete(&job).await?;
            return Ok(None);
        };
        let head = self.base.store.head(&step).await?;
        if head.blocker.is_some() {
            let key = Some((&step.repository, &step.tag));
            self.base.store.wait(job.lease, "blocked", key, Duration::from_secs(1)).await?;
            return Ok(None);
        }
        let seen = self.registry.get(&(step.repository.clone(), step.tag.clone())).cloned();
        let (ticket, state) = (step.ticket, head.state);
        if decide(step.kind, &step.wanted, seen.as_ref(), ticket, state) != Decision::Move {
            let outcome = self
                .base
                .store
                .settle_without_move(&step, head.tag_seq, Look::now(seen.as_ref()))
                .await;
            return match self.stopped(&job, outcome).await? {
                Some(Outcome::JobGoesOn | Outcome::Stale) => {
                    Ok(Some(Worker { job, stage: Stage::Begin }))
                }
                _ => Ok(None),
            };
        }
        let begun = self
            .base
            .store
            .begin_move(&step, head.tag_seq, Look::now(seen.as_ref()), WINDOW, GRACE)
            .await;
        let deadline = self.now + WINDOW;
        Ok(self.stopped(&job, begun).await?.map(|begun| match begun {
            Begun::Stale => Worker { job, stage: Stage::Begin },
            Begun::Intent(intent) => Worker { job, stage: Stage::Sending(step, intent, deadline) },
        }))
    }

    /// What the engine does when a cancel was faster: the job ends.
    async fn stopped<T>(&mut self, job: &Claimed, result: Result<T>) -> Result<Option<T>> {
        match result {
            Err(failure) if failure.reason() == Reason::Cancelled => {
                self.base.store.stop(job).await?;
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    async fn send(
        &mut self,
        job: Claimed,
        step: Move,
        intent: Intent,
        deadline: Duration,
    ) -> Result<Option<Worker>> {
        let key = (step.repository.clone(), step.tag.clone());
        if self.now >= deadline {
            let late = Failure::new(Reason::LeaseLost, "too late").retry(Retry::Backoff);
            return Ok(Some(Worker { job, stage: Stage::Answered(step, intent, Some(late)) }));
        }
        if self.chance(10) {
            // The answer never comes; the PUT arrives later, if at all.
            self.delivered.push(intent.id);
            let (digest, until) = (step.wanted.clone(), deadline + GRACE);
            self.flying.push(Flying { key, digest, until });
            self.base.store.mark_unknown(&step).await?;
            let key = Some((&step.repository, &step.tag));
            self.base.store.wait(job.lease, "unknown", key, WINDOW + GRACE).await?;
            return Ok(None);
        }
        let (refused, slowed) = (self.chance(5), self.chance(5));
        let refusal = if refused {
            Some(Failure::new(Reason::RegistryDenied, "no"))
        } else if slowed {
            Some(Failure::new(Reason::RateLimited, "slow").retry(Retry::Backoff))
        } else {
            self.delivered.push(intent.id);
            self.registry.insert(key, step.wanted.clone());
            None
        };
        Ok(Some(Worker { job, stage: Stage::Answered(step, intent, refusal) }))
    }
}
