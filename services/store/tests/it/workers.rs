//! What workers do in the walk's world: what the engine does, with everything that can go wrong
//! in between.

use std::time::Duration;

use colophon_domain::{
    CopyTotals, Decision, Failure, JobKind, Purpose, Reason, Result, Retry, TagKind,
};
use colophon_store::{Begun, Claimed, GaveUp, Intent, Look, Move, Outcome, Waiting};
use rand::{Rng, seq::IndexedRandom};

use crate::{
    hand::{GRACE, WINDOW, denied},
    world::{Flying, Stage, Worker, World},
};

const SECOND: Duration = Duration::from_secs(1);

impl World {
    /// One worker takes one step, or dies instead.
    pub(crate) async fn work(&mut self) {
        if self.workers.is_empty() {
            return;
        }
        let index = self.rng.random_range(0..self.workers.len());
        let worker = self.workers.swap_remove(index);
        if self.chance(3) {
            return;
        }
        match self.advance(worker).await {
            Ok(Some(worker)) => self.workers.push(worker),
            Ok(None) => {}
            Err(failure) => {
                let known = [Reason::LeaseLost, Reason::ReferenceBlocked];
                assert!(known.contains(&failure.reason()), "{failure}");
            }
        }
    }

    async fn advance(&mut self, worker: Worker) -> Result<Option<Worker>> {
        let Worker { job, stage } = worker;
        match stage {
            Stage::Begin if job.stop => {
                let stopped = self.base.store.stop(&job).await?;
                self.or_wait(&job, stopped).await
            }
            Stage::Begin if job.kind == JobKind::Copy => self.copy(job).await,
            Stage::Begin => self.begin(job).await,
            Stage::Sending(step, intent, deadline) => self.send(job, step, intent, deadline).await,
            Stage::Answered(step, intent, refusal) => {
                let seen = self.served(&step.repository, &step.tag);
                let look = Look::now(seen.as_ref());
                let outcome =
                    self.base.store.finish_move(&step, &intent, look, refusal.as_ref()).await?;
                let left = outcome != Outcome::JobDone;
                Ok(left.then_some(Worker { job, stage: Stage::Begin }))
            }
        }
    }

    async fn copy(&mut self, job: Claimed) -> Result<Option<Worker>> {
        let away = Failure::new(Reason::RegistryUnavailable, "away").retry(Retry::Backoff);
        let (broken, refused) = (self.chance(5), self.chance(5));
        if broken {
            self.base.store.retry(job.lease, &away, SECOND).await?;
        } else if refused {
            self.give_up(&job, &denied()).await?;
        } else {
            self.base.store.finish_copy(&job, &CopyTotals::default()).await?;
        }
        Ok(None)
    }

    async fn give_up(&mut self, job: &Claimed, failure: &Failure) -> Result<Option<Worker>> {
        let gave_up = self.base.store.give_up(job, failure, failure).await?;
        self.or_wait(job, gave_up).await
    }

    /// A job with a move whose outcome is not known yet cannot end.
    async fn or_wait(&mut self, job: &Claimed, gave_up: GaveUp) -> Result<Option<Worker>> {
        if gave_up == GaveUp::NotYet {
            self.happened("ends that wait for an outcome");
            let waiting = Waiting::on("an outcome", Some(Reason::OutcomeUnknown), SECOND);
            self.base.store.wait(job.lease, &waiting).await?;
        }
        Ok(None)
    }

    async fn begin(&mut self, job: Claimed) -> Result<Option<Worker>> {
        let steps = self.base.store.unsettled_tags(&job).await?;
        let Some(step) = steps.choose(&mut self.rng).cloned() else {
            self.base.store.complete(&job).await?;
            return Ok(None);
        };
        if self.chance(2) {
            let used_up = Failure::new(Reason::AttemptsExhausted, "the attempts are used up");
            return self.give_up(&job, &used_up).await;
        }
        let head = self.base.store.head(&step).await?;
        if head.settled {
            return Ok(Some(Worker { job, stage: Stage::Begin }));
        }
        if head.blocker.is_some() {
            let of = (&step.repository, &step.tag);
            let blocked = Waiting::on_reference("blocked".into(), of, SECOND);
            self.base.store.wait(job.lease, &blocked).await?;
            return Ok(None);
        }
        // Whoever does not look is stopped all the same.
        if let Some(frozen) = &head.frozen
            && !step.terms.break_glass
            && !self.chance(25)
        {
            let thaw = Waiting::on_freeze(frozen.what.clone(), frozen.ends_in.min(WINDOW));
            self.base.store.wait(job.lease, &thaw).await?;
            self.happened("waits for a freeze");
            return Ok(None);
        }
        // `v1` often cannot be moved, so that what was moved beside it is put back.
        let denies = if step.tag.as_str() == "v1" { 25 } else { 3 };
        if self.chance(denies) {
            let outcome = self.base.store.fail_tag(&step, &denied()).await?;
            let left = outcome != Outcome::JobDone;
            return Ok(left.then_some(Worker { job, stage: Stage::Begin }));
        }
        self.decide(job, step, &head).await
    }

    async fn decide(
        &mut self,
        job: Claimed,
        step: Move,
        head: &colophon_store::Head,
    ) -> Result<Option<Worker>> {
        let seen = self.served(&step.repository, &step.tag);
        let look = Look::now(seen.as_ref());
        if step.decide(seen.as_ref(), &head.state) != Decision::Move {
            let store = &self.base.store;
            let outcome = store.settle_without_move(&step, head.tag_seq, look).await;
            return match self.stopped(&job, outcome).await? {
                Some(Outcome::JobGoesOn | Outcome::Stale) => {
                    Ok(Some(Worker { job, stage: Stage::Begin }))
                }
                _ => Ok(None),
            };
        }
        let begun = self.base.store.begin_move(&step, head.tag_seq, look, WINDOW, GRACE).await;
        let deadline = self.now + WINDOW;
        match self.stopped(&job, begun).await? {
            None => Ok(None),
            Some(Begun::Stale) => Ok(Some(Worker { job, stage: Stage::Begin })),
            Some(Begun::Intent(intent)) => {
                self.check_intent(&step).await;
                Ok(Some(Worker { job, stage: Stage::Sending(step, intent, deadline) }))
            }
        }
    }

    /// What must hold at the moment at which an intent is committed.
    async fn check_intent(&mut self, step: &Move) {
        let name = step.repository.to_string();
        let freezes = self.base.store.freezes(false).await.unwrap();
        let covers = |pattern: String| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        };
        let now = self.time();
        let frozen = freezes
            .iter()
            .any(|it| it.lifted.is_none() && it.ends_at > now && covers(it.pattern.to_string()));
        assert!(!frozen || step.terms.break_glass, "{name} is frozen and {} moves", step.tag);
        if frozen {
            self.happened("moves in spite of a freeze");
        }
        if step.restore.is_some() {
            self.happened("put-backs begun");
        } else if step.kind == TagKind::Floating && step.terms.purpose == Purpose::Publish {
            let later: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM tag_move m JOIN publication p ON p.id = m.publication_id
                 JOIN release r ON r.id = m.release_id
                 WHERE p.repository = $1 AND m.tag = $2 AND r.purpose = 'rollback'
                   AND m.ticket > $3
                   AND (m.state IN ('MOVED', 'UNCHANGED') OR r.ended_at IS NULL
                        AND m.state IN ('PENDING', 'MOVING', 'UNKNOWN', 'RESTORING'))",
            )
            .bind(step.repository.name())
            .bind(step.tag.as_str())
            .bind(step.ticket)
            .fetch_one(&self.base.pool)
            .await
            .unwrap();
            assert_eq!(later, 0, "{name}:{} moves behind a rollback", step.tag);
        }
    }

    /// What the engine does when the release is to stop: the job ends.
    async fn stopped<T>(&mut self, job: &Claimed, result: Result<T>) -> Result<Option<T>> {
        match result {
            Err(failure) if failure.reason() == Reason::Cancelled => {
                let stopped = self.base.store.stop(job).await?;
                self.or_wait(job, stopped).await.map(|_| None)
            }
            Err(failure) if failure.reason() == Reason::Expired => {
                self.happened("moves that expired");
                self.give_up(job, &failure).await.map(|_| None)
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
            let of = (&step.repository, &step.tag);
            let unknown = Waiting::on_reference("unknown".into(), of, WINDOW + GRACE);
            self.base.store.wait(job.lease, &unknown).await?;
            return Ok(None);
        }
        let (refused, slowed) = (self.chance(5), self.chance(5));
        let refusal = if refused {
            Some(denied())
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
