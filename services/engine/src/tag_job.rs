//! A tag job: one target's tags of one phase. Each tag is settled on its own, so that one that
//! cannot be moved does not hide what became of the others.

use colophon_domain::{Access, Failure, JobKind, Reason, Result, Retry, Urgency};
use colophon_registry::Session;
use colophon_store::{Claimed, Outcome, Waiting};
use futures_util::future::join_all;

use crate::{
    Engine, copy_job::expired, lease::Keeper, tag_move::TagEnd, versions::Versions, worker::End,
};

/// What all tags of one job have in common.
pub(crate) struct Place<'a> {
    pub(crate) job: &'a Claimed,
    /// The way to the target's repository.
    pub(crate) session: Session,
    pub(crate) keeper: &'a Keeper,
    pub(crate) versions: Versions,
}

impl Engine {
    pub(crate) async fn tag_job(&self, job: &Claimed, keeper: &Keeper) -> Result<End> {
        let steps = self.store.unsettled_tags(job).await?;
        if steps.is_empty() {
            self.store.complete(job).await?;
            return Ok(End::Done);
        }
        self.attempts_left(job)?;
        // Looked at here too, and not only with each intent: a job that waits for Vault or for a
        // registry never comes that far. What was moved is put back, however late it is.
        if job.late && !job.restores() {
            return Err(expired());
        }
        // A release within one repository begins here, without a copy.
        let first = job.kind == JobKind::Unique && job.guarded && !job.checked;
        if first && self.refuse_early(job).await? {
            return Ok(End::Done);
        }
        // What should not be where it is goes back before anything else.
        let restores = job.restores().then_some(Urgency::Urgent);
        let urgency = restores.unwrap_or_else(|| Urgency::of_tags(job.priority));
        let session = self.registries.session(&job.repository, Access::Push)?.urgent(urgency);
        let place = Place { job, session, keeper, versions: Versions::of(&steps) };
        let mut ends = Vec::with_capacity(steps.len());
        for group in steps.chunks(self.settings.tags_at_once.max(1)) {
            let moves = group.iter().map(|step| self.settle_tag(&place, step));
            ends.extend(join_all(moves).await);
        }
        if let Some(end) = combine(ends)? {
            return Ok(end);
        }
        // Nothing is left, and no transaction that settled a tag could see that it was the last.
        self.store.complete(job).await?;
        Ok(End::Done)
    }
}

/// What the job does next, given what became of its tags: done if the last one was settled,
/// else the failure that weighs most, else the longest wait; `None` if each was settled and none
/// was the last.
pub(crate) fn combine(ends: Vec<Result<TagEnd>>) -> Result<Option<End>> {
    let mut wait: Option<Waiting> = None;
    let mut lost: Option<Failure> = None;
    let mut failure: Option<Failure> = None;
    for end in ends {
        match end {
            Ok(TagEnd::Settled(Outcome::JobDone)) => return Ok(Some(End::Done)),
            Ok(TagEnd::Settled(_)) => {}
            Ok(TagEnd::Wait(next)) => wait = Some(longer(wait, next)),
            Ok(TagEnd::Lost(next, failure)) => {
                wait = Some(longer(wait, next));
                lost = Some(failure);
            }
            Err(next) => {
                if failure.as_ref().is_none_or(|held| weight(held) < weight(&next)) {
                    failure = Some(next);
                }
            }
        }
    }
    match (failure, wait) {
        // Somebody else works on the job; nothing of ours counts any more.
        (Some(failure), _) if failure.reason() == Reason::LeaseLost => Err(failure),
        (Some(failure), None) => Err(failure),
        // An outcome that is awaited must be known before the job can fail.
        (_, wait) => Ok(wait.map(|wait| match lost {
            Some(failure) => End::Lost(wait, failure),
            None => End::Wait(wait),
        })),
    }
}

fn longer(held: Option<Waiting>, next: Waiting) -> Waiting {
    match held {
        Some(held) if held.delay >= next.delay => held,
        _ => next,
    }
}

fn weight(failure: &Failure) -> u8 {
    match (failure.reason(), failure.retry_class()) {
        (Reason::LeaseLost, _) => 3,
        (_, Retry::Never) => 2,
        (_, Retry::Backoff) => 1,
        (_, Retry::Wait(_)) => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn wait(seconds: u64) -> TagEnd {
        TagEnd::Wait(Waiting::on("", None, Duration::from_secs(seconds)))
    }

    #[test]
    fn an_awaited_outcome_comes_before_a_failure() {
        let failed = || Err::<TagEnd, _>(Failure::new(Reason::RegistryDenied, "no"));
        assert!(
            matches!(combine(vec![failed(), Ok(wait(1)), Ok(wait(3))]), Ok(Some(End::Wait(held))) if held.delay.as_secs() == 3)
        );
        assert!(
            matches!(combine(vec![failed(), Ok(TagEnd::Settled(Outcome::JobGoesOn))]), Err(f) if f.reason() == Reason::RegistryDenied)
        );
        assert!(matches!(
            combine(vec![Ok(TagEnd::Settled(Outcome::JobDone)), Ok(wait(1))]),
            Ok(Some(End::Done))
        ));
        let lost =
            || Ok(TagEnd::Lost(Waiting::on("", None, Duration::ZERO), failed().unwrap_err()));
        assert!(
            matches!(combine(vec![lost(), Ok(wait(3))]), Ok(Some(End::Lost(held, _))) if held.delay.as_secs() == 3),
            "an answer that never came counts, however long the others wait"
        );
        let both = || Ok(TagEnd::Settled(Outcome::JobGoesOn));
        assert!(matches!(combine(vec![both(), both()]), Ok(None)));
    }
}
