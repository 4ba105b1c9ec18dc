//! One tag: look, commit the intent, PUT, look again, record the outcome.
//!
//! No PUT is sent without a committed intent, none after its deadline, and an answer that never
//! came is nobody's guess: the reference stays blocked until the reconciler has looked.

use std::time::{Duration, Instant};

use colophon_domain::{
    Decision, Digest, Failure, Purpose, Reason, Reference, Result, Retry, TagMoveState,
    TagOrDigest, Urgency,
};
use colophon_registry::{Manifest, Pass, PutError, Session};
use colophon_store::{Begun, Blocker, Claimed, Head, Intent, Look, Move, Outcome, Role, Waiting};

use crate::{Engine, lease::Keeper, tag_job::Place};

/// How often a tag is looked at again because somebody wrote about it in between.
const LOOKS: usize = 50;
/// The pause between two looks at a registry that still serves the old digest.
const STALE_PAUSE: Duration = Duration::from_millis(50);
/// How often a job looks whether the reference that blocks it is free, without a hint.
const BLOCKED_POLL: Duration = Duration::from_secs(1);
/// How often a job looks whether a freeze still holds, without a hint.
const FREEZE_POLL: Duration = Duration::from_secs(15);

/// What became of one tag in this attempt.
#[derive(Debug)]
pub(crate) enum TagEnd {
    /// It is settled.
    Settled(Outcome),
    /// Its turn has not come, or its outcome is not known yet.
    Wait(Waiting),
    /// The answer to its PUT never came: that was an attempt, and its outcome is awaited.
    Lost(Waiting, Failure),
}

impl Engine {
    /// Settles one tag. A failure that stays settles the tag too; one that may pass is returned.
    #[tracing::instrument(level = "debug", name = "engine.tag.move", skip_all, fields(repository = %step.repository, tag = %step.tag, kind = %step.kind))]
    pub(crate) async fn settle_tag(&self, place: &Place<'_>, step: &Move) -> Result<TagEnd> {
        let result = self.try_tag(place, step).await;
        match result {
            Err(failure) if stays(&failure) => {
                Ok(TagEnd::Settled(self.store.fail_tag(step, &failure).await?))
            }
            other => other,
        }
    }

    async fn try_tag(&self, place: &Place<'_>, step: &Move) -> Result<TagEnd> {
        let Place { job, session, keeper, versions } = place;
        let mut recopied = false;
        for _ in 0..LOOKS {
            let head = self.store.head(step).await?;
            if head.settled {
                return Ok(TagEnd::Settled(Outcome::JobGoesOn));
            }
            if let Some(blocker) = &head.blocker {
                return Ok(TagEnd::Wait(self.blocked(step, blocker)));
            }
            let frozen = head.frozen.as_ref().filter(|_| !step.terms.break_glass);
            if let Some(frozen) = frozen.filter(|_| !overtaken(step, &head)) {
                let delay = frozen.ends_in.min(FREEZE_POLL);
                return Ok(TagEnd::Wait(Waiting::on_freeze(frozen.what.clone(), delay)));
            }
            if self.look_for_versions(step, session, versions).await? {
                continue;
            }
            let step = &*versions.told(step);
            let (observed, asked) = observe(session, step).await?;
            let decision = step.decide(observed.as_ref(), &head.state);
            if let (Decision::Leave(_, reason), Some(holder)) = (decision, head.holder)
                && yields(step, reason)
            {
                let text = format!("release {holder}, which holds the tag and has not ended");
                let of = (&step.repository, &step.tag);
                // Two that wait for each other must not look at the same moments: one has to see
                // that the other one waits.
                let delay = BLOCKED_POLL.mul_f64(0.5 + self.entropy.fraction());
                return Ok(TagEnd::Wait(Waiting::on_reference(text, of, delay)));
            }
            if decision != Decision::Move {
                let look = Look::since(observed.as_ref(), asked);
                let outcome = self.store.settle_without_move(step, head.tag_seq, look).await?;
                if outcome == Outcome::Stale {
                    continue;
                }
                return Ok(TagEnd::Settled(outcome));
            }
            if let Some(end) = self.keep(place, step, observed.as_ref()).await? {
                return Ok(end);
            }
            // Read before the intent: what cannot be read must not leave an intent behind.
            let manifest = self.manifest_of(job, step, session, keeper).await?;
            // So is what the registry's budget has to say. Who has looked goes first: a look ages.
            let urgent = session.urgent(Urgency::Urgent);
            let pass = urgent.ready().await?;
            let begun = Instant::now();
            let window = keeper.put_window(self.settings.put_timeout)?;
            // The reconciler, too, gives the registry its time to show what it has accepted.
            let grace = self.settings.grace + self.settings.consistency_window;
            let look = Look::since(observed.as_ref(), asked);
            match self.store.begin_move(step, head.tag_seq, look, window, grace).await? {
                Begun::Stale => {}
                Begun::Intent(intent) => {
                    match self
                        .send(step, (&intent, asked), (&urgent, pass), &manifest, begun + window)
                        .await?
                    {
                        Sent::Ended(end) => return Ok(end),
                        Sent::ContentMissing if !recopied => {
                            // The registry has collected what was copied; once is an accident.
                            recopied = true;
                            let from = self.source_of(step).await?;
                            self.copy_content(job, &from, keeper, true).await?;
                        }
                        Sent::ContentMissing => {
                            return Err(content_missing(step));
                        }
                    }
                }
            }
        }
        Err(Failure::new(
            Reason::ReferenceBlocked,
            format!("{}:{} is being written all the time", step.repository, step.tag),
        )
        .retry(Retry::Wait(BLOCKED_POLL)))
    }

    /// Sends the PUT of a committed intent and records what the registry shows afterwards. The tag was
    /// looked at last at `before`.
    async fn send(
        &self,
        step: &Move,
        (intent, before): (&Intent, Instant),
        (session, pass): (&Session, Pass),
        manifest: &Manifest,
        deadline: Instant,
    ) -> Result<Sent> {
        let what = TagOrDigest::Tag(step.tag.clone());
        let refusal = match session.put_manifest_with(pass, &what, manifest, deadline).await {
            Ok(()) => None,
            // Missing content is copied once more, so the tag is not settled by it.
            Err(PutError::NotApplied(failure)) if failure.reason() == Reason::ContentMissing => {
                Some(failure.retry(Retry::Backoff))
            }
            Err(PutError::NotApplied(failure)) => Some(failure),
            Err(PutError::Unknown(failure)) => return self.unknown(step, failure).await,
        };
        let (observed, asked) = match &refusal {
            // It has done nothing, and wants to be asked nothing for a while.
            Some(refusal) if throttled(refusal) => (intent.old.clone(), before),
            _ => {
                let old = intent.old.as_ref();
                match self.look_after(session, &what, old, refusal.is_none()).await {
                    Ok(looked) => looked,
                    Err(failure) => return self.unknown(step, failure).await,
                }
            }
        };
        let seen = (observed.as_ref(), asked);
        let outcome = self.record(step, intent, seen, refusal.as_ref()).await?;
        match refusal {
            Some(failure) if observed.as_ref() != Some(&step.wanted) => {
                if failure.reason() == Reason::ContentMissing {
                    return Ok(Sent::ContentMissing);
                }
                if outcome == Outcome::JobDone || failure.retry_class() == Retry::Never {
                    return Ok(Sent::Ended(TagEnd::Settled(outcome)));
                }
                Err(failure)
            }
            None if observed == intent.old => Err(Failure::new(
                Reason::RegistryProtocol,
                format!(
                    "{} accepted the tag {} and still serves what it had before",
                    step.repository, step.tag
                ),
            )
            .retry(Retry::Backoff)),
            _ => Ok(Sent::Ended(TagEnd::Settled(outcome))),
        }
    }

    /// What the registry serves after a PUT or a DELETE. One that has `accepted` it and still serves
    /// the old digest is asked again for the consistency window: it may read from a replica. So is one
    /// that cannot say: some answer 5xx for a moment while the manifest is put under another tag.
    pub(crate) async fn look_after(
        &self,
        session: &Session,
        what: &TagOrDigest,
        old: Option<&Digest>,
        accepted: bool,
    ) -> Result<(Option<Digest>, Instant)> {
        let end = Instant::now() + self.settings.consistency_window;
        loop {
            let (observed, asked) = match session.look(what).await {
                Err(failure) if passes(&failure) && Instant::now() < end => {
                    tokio::time::sleep(STALE_PAUSE).await;
                    continue;
                }
                seen => seen?,
            };
            if !accepted || observed.as_ref() != old || Instant::now() >= end {
                return Ok((observed, asked));
            }
            tokio::time::sleep(STALE_PAUSE).await;
        }
    }

    /// The second transaction, tried for a while if the database is away: what was observed is
    /// worth more than a second look by the reconciler.
    async fn record(
        &self,
        step: &Move,
        intent: &Intent,
        (observed, asked): (Option<&Digest>, Instant),
        refusal: Option<&Failure>,
    ) -> Result<Outcome> {
        let mut tries = 0;
        loop {
            let look = Look::since(observed, asked);
            match self.store.finish_move(step, intent, look, refusal).await {
                Err(failure) if failure.reason() == Reason::DatabaseUnavailable && tries < 20 => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                other => return other,
            }
        }
    }

    async fn unknown(&self, step: &Move, failure: Failure) -> Result<Sent> {
        tracing::warn!(
            release = %step.release, reference = %format_args!("{}:{}", step.repository, step.tag),
            %failure, "the outcome of a move is not known; the reconciler will look"
        );
        self.store.mark_unknown(step).await?;
        let head = self.store.head(step).await?;
        let end = match &head.blocker {
            Some(blocker) => self.blocked(step, blocker),
            // Somebody has looked already.
            None => Waiting::on("the next attempt", None, Duration::ZERO),
        };
        // A pause that keeps us from looking is no attempt; an answer that never came is one.
        Ok(Sent::Ended(match failure.reason() {
            Reason::RateLimited => TagEnd::Wait(end),
            _ => TagEnd::Lost(end, failure),
        }))
    }

    fn blocked(&self, step: &Move, blocker: &Blocker) -> Waiting {
        let reference = format!("{}:{}", step.repository, step.tag);
        let (waiting_for, delay) = if blocker.tag_move == step.tag_move {
            // The reconciler wakes the job; the pause is for when it cannot.
            let text = format!("the outcome of an interrupted move of {reference}");
            (text, blocker.resolved_in + self.settings.poll_interval)
        } else {
            (format!("release {}, which is moving {reference}", blocker.release), BLOCKED_POLL)
        };
        Waiting::on_reference(waiting_for, (&step.repository, &step.tag), delay)
    }

    /// Where a tag's content is copied from when the target has lost it.
    async fn source_of(&self, step: &Move) -> Result<Reference> {
        if is_return(step) {
            return self.find_elsewhere(&step.repository, &step.wanted).await;
        }
        // By what it goes to: that may have been made of what the source has.
        Ok(Reference::digest(step.source.repository.clone(), step.wanted.clone()))
    }

    /// The manifest to put under a tag. It may be gone: registries delete what has no tag, also what
    /// was copied a moment ago. Then it is copied again from the source, or, where the tag goes back to
    /// it, from wherever the ledger has seen it.
    async fn manifest_of(
        &self,
        job: &Claimed,
        step: &Move,
        session: &Session,
        keeper: &Keeper,
    ) -> Result<Manifest> {
        match self.manifest(session, &step.wanted).await {
            Err(failure) if failure.reason() == Reason::SourceGone => {
                let place = self.source_of(step).await?;
                // What was made for the release is put again, wherever it is.
                let made = job.made.is_some() && step.wanted == job.digest;
                if place.repository == step.repository && !made {
                    return Err(failure);
                }
                self.copy_content(job, &place, keeper, true).await?;
                self.manifest(session, &step.wanted).await
            }
            found => found,
        }
    }

    /// The manifest to put under a tag, from the target itself: its content is there by now.
    async fn manifest(&self, session: &Session, digest: &Digest) -> Result<Manifest> {
        let key = (session.repository().clone(), digest.clone());
        if let Some(manifest) = self.manifests.get(&key).await {
            return Ok(manifest);
        }
        let what = TagOrDigest::Digest(digest.clone());
        let manifest = session.manifest(&what).await?.ok_or_else(|| {
            Failure::new(
                Reason::SourceGone,
                format!("{}@{digest} does not exist", session.repository()),
            )
            .remedy("publish from a source that exists")
        })?;
        self.manifests.insert(key, manifest.clone()).await;
        Ok(manifest)
    }
}

enum Sent {
    Ended(TagEnd),
    ContentMissing,
}

async fn observe(session: &Session, step: &Move) -> Result<(Option<Digest>, Instant)> {
    session.look(&TagOrDigest::Tag(step.tag.clone())).await
}

/// Whether a tag goes to what it was, or stays at it: then its content is not the release's.
fn is_return(step: &Move) -> bool {
    step.restore.is_some()
        || step.role == Role::Retention
        || step.terms.purpose == Purpose::Rollback
}

/// Whether the tag has something newer for good, wherever the registry has it now: then its release
/// has no freeze to wait for.
fn overtaken(step: &Move, head: &Head) -> bool {
    let left = Decision::Leave(TagMoveState::Superseded, Reason::Superseded);
    step.restore.is_none() && head.holder.is_none() && step.decide(None, &head.state) == left
}

/// Whether a tag is left for a reason that is gone if the release that holds it is put back.
fn yields(step: &Move, reason: Reason) -> bool {
    // What belongs to content is never put back.
    if step.role == Role::Companion {
        return false;
    }
    match reason {
        Reason::Superseded
        | Reason::OrderRegression
        | Reason::OrderKeyMismatch
        | Reason::NotHighest
        | Reason::PlanChanged => true,
        // What is put back waits for nobody.
        Reason::TagMoved => step.restore.is_none(),
        _ => false,
    }
}

/// Whether the registry asks for a pause.
fn throttled(failure: &Failure) -> bool {
    failure.reason() == Reason::RateLimited
}

/// Whether the same question may have an answer a moment later.
fn passes(failure: &Failure) -> bool {
    failure.retry_class() == Retry::Backoff
}

/// Whether a failure is final for the tag, and not about the job or the release as a whole.
fn stays(failure: &Failure) -> bool {
    failure.retry_class() == Retry::Never
        && !matches!(failure.reason(), Reason::LeaseLost | Reason::Cancelled | Reason::Expired)
}

fn content_missing(step: &Move) -> Failure {
    Failure::new(
        Reason::ContentMissing,
        format!(
            "{} lost the content of {} twice while it was tagged",
            step.repository, step.wanted
        ),
    )
    .remedy("look at the registry's garbage collection, then publish again")
}
