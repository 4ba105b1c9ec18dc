//! The worker: claims jobs, works on them under their leases, and says how each attempt ended.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use colophon_domain::{Failure, JobKind, Reason, Result, Retry};
use colophon_store::{Claimed, GaveUp, Hint, Waiting};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{Engine, job_span, lease::Keeper, metrics};

/// The pause before the end of an attempt is written once more.
const END_PAUSE: Duration = Duration::from_millis(500);

/// The least time for which a job waits, and the most by which jobs that wait for the same registry
/// go on after each other.
const LEAST_PAUSE: Duration = Duration::from_millis(200);
const SPREAD: Duration = Duration::from_millis(300);

/// So many times the attempts of another job has one that puts tags back: about ten hours by
/// default.
const RESTORE_PATIENCE: i32 = 16;

/// How an attempt ended that did not fail.
#[derive(Debug)]
pub(crate) enum End {
    /// The job is done, and the store knows.
    Done,
    /// The job goes back into the queue; that is no attempt.
    Wait(Waiting),
    /// The same after an attempt: a registry that never says what became of a PUT is not asked for
    /// ever.
    Lost(Waiting, Failure),
}

/// A worker. Any number of them, in any number of processes, share one queue.
pub struct Worker {
    pub(crate) engine: Engine,
    pub(crate) name: String,
}

impl Worker {
    /// `name` stands in the attempts: the host's name and the process id, for example.
    pub fn new(engine: Engine, name: String) -> Self {
        Self { engine, name }
    }

    /// Works until it is told to stop; running jobs then have a while to end, and what is left
    /// of them goes on elsewhere at once.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut background = self.background(&shutdown);
        let mut running = JoinSet::new();
        let drain = CancellationToken::new();
        let slots = Arc::new(Semaphore::new(self.engine.settings.concurrency));
        while !shutdown.is_cancelled() {
            while running.try_join_next().is_some() {}
            let permits = tokio::select! {
                permits = free(&slots) => permits,
                () = shutdown.cancelled() => break,
                Some(_) = background.join_next() => {
                    tracing::error!("a part of the worker broke down; the worker ends");
                    break;
                }
            };
            // Not to be broken off: a claim that was sent is answered, or its jobs wait for nobody.
            let idle = self.claim(permits, &mut running, &drain).await;
            tokio::select! {
                () = self.rest(), if idle => {}
                () = shutdown.cancelled() => {}
                () = std::future::ready(()), if !idle => {}
            }
        }
        self.drain(running, &drain).await;
        background.shutdown().await;
    }

    /// Lets running jobs end; those that take longer than `stop_grace` go back into the queue, and
    /// other workers are told so at once.
    async fn drain(&self, mut running: JoinSet<()>, drain: &CancellationToken) {
        let grace = self.engine.settings.stop_grace;
        let drained = async { while running.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, drained).await.is_ok() {
            return;
        }
        tracing::info!(jobs = running.len(), "jobs are handed over to other workers");
        drain.cancel();
        while running.join_next().await.is_some() {}
        if let Err(failure) = self.engine.store.announce_jobs().await {
            // They poll as well, so this costs time and nothing else.
            tracing::warn!(%failure, "other workers were not told of the jobs that are left");
        }
    }

    /// What goes on beside the jobs.
    fn background(&self, shutdown: &CancellationToken) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let (engine, token) = (self.engine.clone(), shutdown.clone());
        tasks.spawn(async move { engine.reconcile(token).await });
        let (engine, token) = (self.engine.clone(), shutdown.clone());
        tasks.spawn(async move { engine.listen(token).await });
        let (engine, token) = (self.engine.clone(), shutdown.clone());
        tasks.spawn(async move { engine.reap(token).await });
        let (engine, token) = (self.engine.clone(), shutdown.clone());
        tasks.spawn(async move { engine.prune(token).await });
        let (engine, token) = (self.engine.clone(), shutdown.clone());
        tasks.spawn(async move { engine.forget(token).await });
        let (engine, token) = (self.engine.clone(), shutdown.clone());
        tasks.spawn(async move { engine.run_upload_janitor(token).await });
        tasks
    }

    /// Claims as many jobs as there are permits and begins them; true if there were none.
    async fn claim(
        &self,
        permits: Vec<OwnedSemaphorePermit>,
        running: &mut JoinSet<()>,
        drain: &CancellationToken,
    ) -> bool {
        let (asked, asked_at) = (Instant::now(), self.engine.clock.now());
        let settings = &self.engine.settings;
        let limit = i64::try_from(permits.len()).unwrap_or(i64::MAX);
        let claimed = match self.engine.store.claim(&self.name, limit, settings.lease).await {
            Ok(claimed) => claimed,
            Err(failure) => {
                tracing::warn!(%failure, "no jobs can be claimed");
                tokio::time::sleep(settings.poll_interval).await;
                return true;
            }
        };
        let idle = claimed.is_empty();
        for (job, permit) in claimed.into_iter().zip(permits) {
            let (engine, drain) = (self.engine.current(), drain.clone());
            let span = job_span::begin(&job, asked_at);
            let work = async move {
                engine.work(job, asked, &drain).await;
                drop(permit);
            };
            running.spawn(work.instrument(span));
        }
        idle
    }

    async fn rest(&self) {
        let poll = self.engine.settings.poll_interval;
        let due = self.engine.store.next_due().await.ok().flatten().unwrap_or(poll);
        // Never spin on a job whose time has come but that somebody else is claiming.
        let pause = due.clamp(Duration::from_millis(5), poll);
        tokio::select! {
            () = self.engine.jobs.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Engine {
    /// Hears of work, and of what registries ask for, from other processes.
    pub async fn listen(&self, shutdown: CancellationToken) {
        let hear = async {
            loop {
                match self.store.wakeups().await {
                    Ok(mut wakeups) => {
                        // Some hints may have been missed until now.
                        self.registries().look_at_budget(None).await;
                        while let Ok(hint) = wakeups.next().await {
                            match hint {
                                Hint::Jobs => {
                                    self.jobs.notify_one();
                                    self.watches.hint.notify_one();
                                }
                                Hint::Budget(host) => {
                                    self.registries().look_at_budget(Some(&host)).await;
                                }
                            }
                        }
                    }
                    Err(failure) => tracing::debug!(%failure, "no hints of new jobs; polling"),
                }
                tokio::time::sleep(self.settings.poll_interval).await;
            }
        };
        tokio::select! {
            () = hear => {}
            () = shutdown.cancelled() => {}
        }
    }

    /// Takes back what dead workers left.
    async fn reap(&self, shutdown: CancellationToken) {
        loop {
            match self.store.reap().await {
                Ok(0) => {}
                Ok(jobs) => {
                    metrics::leases_ran_out(jobs);
                    tracing::warn!(jobs, "leases ran out; their jobs are in the queue again");
                    self.wake();
                }
                Err(failure) => tracing::debug!(%failure, "leases could not be looked at"),
            }
            tokio::select! {
                () = tokio::time::sleep(self.settings.poll_interval) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// One attempt of one job.
    pub(crate) async fn work(&self, job: Claimed, asked: Instant, drain: &CancellationToken) {
        let length = self.settings.lease;
        let copies = job.kind == JobKind::Copy;
        let until = asked + length;
        let keeper = Keeper::start(self.store.clone(), job.lease, length, until, copies);
        // Dropping the attempt closes its connections: nothing of it goes on.
        let result = tokio::select! {
            result = self.attempt(&job, &keeper) => result,
            () = keeper.lost() => {
                tracing::warn!(job = job.lease.job, release = %job.release, "the lease was lost");
                metrics::lease_lost();
                return;
            }
            () = drain.cancelled() => Ok(End::Wait(Waiting::on(
                "another worker: this one was stopped",
                None,
                Duration::ZERO,
            ))),
        };
        job_span::end(&job, &result);
        self.write_end(&job, &result, &keeper).await;
        self.wake();
    }

    /// Writes how the attempt ended; while the database is away, again and again until the lease
    /// runs out: then another worker goes on, at the price of an attempt.
    async fn write_end(&self, job: &Claimed, result: &Result<End>, keeper: &Keeper) {
        loop {
            let Err(failure) = self.end(job, result).await else { return };
            let away = failure.reason() == Reason::DatabaseUnavailable;
            if failure.reason() == Reason::LeaseLost {
                return;
            }
            if !away || Instant::now() >= keeper.until() {
                tracing::warn!(job = job.lease.job, %failure, "the end of an attempt was not written");
                return;
            }
            tokio::time::sleep(END_PAUSE).await;
        }
    }

    /// Refuses to begin an attempt beyond the last one.
    pub(crate) fn attempts_left(&self, job: &Claimed) -> Result<()> {
        if job.failures < self.most_attempts(job) {
            return Ok(());
        }
        Err(exhausted(None))
    }

    /// A tag that should not be where it is deserves more patience: what made the release fail may
    /// well keep it from being put back for a while.
    fn most_attempts(&self, job: &Claimed) -> i32 {
        let patience = if job.restores() { RESTORE_PATIENCE } else { 1 };
        i32::from(self.settings.max_attempts).saturating_mul(patience)
    }

    async fn attempt(&self, job: &Claimed, keeper: &Keeper) -> Result<End> {
        if job.stop {
            return Err(Failure::new(Reason::Cancelled, "the release is stopping"));
        }
        match job.kind {
            JobKind::Copy => self.copy_job(job, keeper).await,
            JobKind::Unique | JobKind::Floating | JobKind::Restore => {
                self.tag_job(job, keeper).await
            }
        }
    }

    async fn end(&self, job: &Claimed, result: &Result<End>) -> Result<()> {
        let failure = match result {
            Ok(End::Done) => return Ok(()),
            Ok(End::Wait(waiting)) => return self.store.wait(job.lease, waiting).await,
            Ok(End::Lost(waiting, failure)) => {
                return self.store.wait_after(job.lease, waiting, failure).await;
            }
            Err(failure) => failure,
        };
        tracing::info!(
            job = job.lease.job, kind = %job.kind, release = %job.release, %failure,
            cause = ?std::error::Error::source(failure), "an attempt did not work"
        );
        let attempt = u32::try_from(job.failures).unwrap_or_default();
        match (failure.reason(), failure.retry_class()) {
            (Reason::LeaseLost, _) => Ok(()),
            (Reason::Cancelled, _) => self.or_wait(job, self.store.stop(job).await?).await,
            (reason, Retry::Wait(pause)) => {
                let pause = pause.max(LEAST_PAUSE);
                // A registry's pause is over when it said so: its budget spreads what follows.
                let spread = match reason {
                    Reason::RateLimited => SPREAD.min(pause / 5),
                    _ => pause / 5,
                };
                let pause = pause + spread.mul_f64(self.entropy.fraction());
                let waiting = Waiting::on(failure.message(), Some(failure.reason()), pause);
                self.store.wait(job.lease, &waiting).await
            }
            (_, Retry::Backoff) if job.failures + 1 < self.most_attempts(job) => {
                let pause = self.settings.backoff(attempt, self.entropy.fraction());
                self.store.retry(job.lease, failure, pause).await
            }
            (_, Retry::Backoff) => {
                let verdict = exhausted(Some(failure));
                self.or_wait(job, self.store.give_up(job, failure, &verdict).await?).await
            }
            (_, Retry::Never) => {
                self.or_wait(job, self.store.give_up(job, failure, failure).await?).await
            }
        }
    }

    /// A job with a move whose outcome is not known yet cannot end.
    async fn or_wait(&self, job: &Claimed, gave_up: GaveUp) -> Result<()> {
        match gave_up {
            GaveUp::Yes => Ok(()),
            GaveUp::NotYet => {
                let text = "the outcome of an interrupted move";
                let reason = Some(Reason::OutcomeUnknown);
                let waiting = Waiting::on(text, reason, self.settings.poll_interval);
                self.store.wait(job.lease, &waiting).await
            }
        }
    }
}

/// Waits for a free slot, and takes every other one that is free with it.
async fn free(slots: &Arc<Semaphore>) -> Vec<OwnedSemaphorePermit> {
    // The semaphore is never closed.
    let mut permits: Vec<_> = slots.clone().acquire_owned().await.into_iter().collect();
    while let Ok(permit) = slots.clone().try_acquire_owned() {
        permits.push(permit);
    }
    permits
}

fn exhausted(last: Option<&Failure>) -> Failure {
    let message = match last {
        Some(last) => format!("every attempt failed; the last one: {last}"),
        None => "every attempt failed; the last worker died or stalled, or never heard an answer"
            .to_owned(),
    };
    Failure::new(Reason::AttemptsExhausted, message)
        .remedy("see the attempts for the causes, and publish again when they are gone")
}
