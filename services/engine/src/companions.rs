//! Tags that belong to what a job has copied, moved before any tag of the release: each by an intent,
//! as all are. What they point to depends on what was there when it was looked at, so whoever finds
//! something else when its turn comes looks anew; of two that add to one list the later one adds to what
//! the earlier one wrote.

use colophon_domain::{Access, Expected, Failure, Reason, Reference, Result, Retry, Tag, Urgency};
use colophon_registry::Companion;
use colophon_store::{Claimed, Companion as Wanted};
use futures_util::future::{join_all, try_join_all};

use crate::{
    Engine,
    lease::Keeper,
    tag_job::{Place, combine},
    versions::Versions,
    worker::End,
};

/// How often a job looks anew within one attempt.
const ROUNDS: usize = 8;

/// What became of the tags.
pub(crate) enum Settled {
    /// All of them are where they should be; this was said of the last looks.
    Done(Vec<String>),
    /// The job goes on later.
    Not(End),
}

impl Engine {
    /// Moves the tags that belong to what was copied.
    pub(crate) async fn settle_companions(
        &self,
        job: &Claimed,
        content: &Reference,
        keeper: &Keeper,
        mut companions: Vec<Companion>,
    ) -> Result<Settled> {
        let mut notes = Vec::new();
        for _ in 0..ROUNDS {
            if companions.is_empty() {
                return Ok(Settled::Done(notes));
            }
            if let Some(end) = self.move_companions(job, content, keeper, &companions).await? {
                return Ok(Settled::Not(end));
            }
            let tags: Vec<Tag> = companions.into_iter().map(|it| it.tag).collect();
            match self.store.companion_failure(job, &tags).await? {
                None => return Ok(Settled::Done(notes)),
                // Somebody else was quicker. Content is there, so that another look is all there is.
                Some(failure) if failure.reason() == Reason::TagMoved => {
                    let copied = self.copy_content(job, content, keeper, false).await?;
                    notes = copied.totals.notes;
                    companions = copied.companions;
                }
                Some(failure) => return Err(explained(failure)),
            }
        }
        let text = format!("tags beside {content} are being written all the time");
        Err(Failure::new(Reason::ReferenceBlocked, text).retry(Retry::Backoff))
    }

    async fn move_companions(
        &self,
        job: &Claimed,
        content: &Reference,
        keeper: &Keeper,
        companions: &[Companion],
    ) -> Result<Option<End>> {
        let urgency = Urgency::of_tags(job.priority);
        let session = self.registries.session(&job.repository, Access::Push)?.urgent(urgency);
        let place = Place { job, session, keeper, versions: Versions::of(&[]) };
        for group in companions.chunks(self.settings.tags_at_once.max(1)) {
            let wanted: Vec<Wanted> =
                group.iter().map(|companion| wanted(job, content, companion)).collect();
            let steps = wanted.iter().map(|wanted| self.store.companion(job, wanted));
            let steps: Vec<_> = try_join_all(steps).await?.into_iter().flatten().collect();
            let moves = steps.iter().map(|step| self.settle_tag(&place, step));
            if let Some(end) = combine(join_all(moves).await)? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }
}

fn wanted(job: &Claimed, content: &Reference, companion: &Companion) -> Wanted {
    let from = if companion.made { &job.repository } else { &content.repository };
    Wanted {
        tag: companion.tag.clone(),
        from: from.clone(),
        digest: companion.digest.clone(),
        expected: Expected::from(companion.old.clone()),
    }
}

/// Signatures that cannot come along are no small thing, so the release ends with it.
fn explained(failure: Failure) -> Failure {
    failure.remedy(
        "let the registry take these tags, or publish without cosign's tags or without referrers",
    )
}
