//! Keeping what floating tags leave: registries delete manifests that have no tag, and a rollback
//! should not have to look for them.

use std::time::{Duration, Instant};

use colophon_domain::{
    Access, Digest, Failure, Reason, Result, Retry, TagKind, TagOrDigest, Urgency, retention_tag,
};
use colophon_store::{Keeping, Kept, Look, Move, Prune, Role, Settled};
use tokio_util::sync::CancellationToken;

use crate::{Engine, tag_job::Place, tag_move::TagEnd};

/// How often kept digests are looked through.
const PRUNE_INTERVAL: Duration = Duration::from_mins(5);
/// Kept digests that are read at once; more than any floating tag has.
const PAGE: i64 = 5_000;
/// The pause after a tag could not be deleted.
const AGAIN: Duration = Duration::from_hours(1);
/// The same where the registry does not delete tags at all.
const UNSUPPORTED: Duration = Duration::from_hours(24);

impl Engine {
    /// Makes sure that the digest which a floating tag is about to leave has a tag of its own, if
    /// the configuration says so. `Some` if the floating tag has to wait for that.
    pub(crate) async fn keep(
        &self,
        place: &Place<'_>,
        step: &Move,
        leaves: Option<&Digest>,
    ) -> Result<Option<TagEnd>> {
        let Some(digest) = leaves else { return Ok(None) };
        // What is put back leaves what should not have been there.
        if step.restore.is_some() {
            return Ok(None);
        }
        // What belongs to content says all that it said before, and more.
        if step.kind != TagKind::Floating
            || step.role != Role::Asked
            || self.rules.of(&step.repository).retention().is_none()
        {
            return Ok(None);
        }
        // The tags of one job often leave the same digest: one of them keeps it.
        let _one_at_a_time = place.keeper.keeping().lock().await;
        let kept_tag = retention_tag(digest);
        let Keeping::Wanted(keeping) = self.store.keep(step, digest, &kept_tag).await? else {
            return Ok(None);
        };
        match Box::pin(self.settle_tag(place, &keeping)).await? {
            end @ (TagEnd::Wait(_) | TagEnd::Lost(..)) => Ok(Some(end)),
            TagEnd::Settled(_) => match self.store.keep(step, digest, &kept_tag).await? {
                Keeping::Done => Ok(None),
                // Its PUT was refused for a moment.
                Keeping::Wanted(_) => Err(Failure::new(
                    Reason::RegistryUnavailable,
                    format!("{digest} could not be kept under {kept_tag}"),
                )
                .retry(Retry::Backoff)),
            },
        }
    }

    /// Lets go of kept digests that are too many or too old, until it is told to stop.
    pub(crate) async fn prune(&self, shutdown: CancellationToken) {
        loop {
            let jitter = PRUNE_INTERVAL.mul_f64(self.entropy.fraction() / 2.0);
            tokio::select! {
                () = tokio::time::sleep(PRUNE_INTERVAL / 2 + jitter) => {}
                () = shutdown.cancelled() => return,
            }
            if let Err(failure) = self.current().prune_now().await {
                tracing::warn!(%failure, "kept digests could not be looked through");
            }
        }
    }

    /// Looks through all kept digests once; returns how many were let go.
    pub async fn prune_now(&self) -> Result<usize> {
        let (mut after, mut gone): (Option<Kept>, usize) = (None, 0);
        loop {
            let page = self.store.kept(after.as_ref(), PAGE).await?;
            let full = i64::try_from(page.len()).unwrap_or(PAGE) >= PAGE;
            let mut groups: Vec<&[Kept]> =
                page.chunk_by(|a, b| (&a.repository, &a.tag) == (&b.repository, &b.tag)).collect();
            // The page may end within the last group; it is read again, unless it is all there is.
            if full && groups.len() > 1 {
                groups.pop();
            }
            for kept in groups.iter().flat_map(|group| self.excess(group)) {
                match self.let_go(kept).await {
                    Ok(true) => gone += 1,
                    Ok(false) => {}
                    Err(failure) => {
                        let reference = format!("{}:{}", kept.repository, kept.kept_tag);
                        tracing::warn!(%reference, %failure, "a kept digest was not let go");
                        self.store.prune_later(kept, AGAIN).await?;
                    }
                }
            }
            let last = groups.last().and_then(|group| group.last()).cloned();
            if !full || last.is_none() {
                return Ok(gone);
            }
            after = last;
        }
    }

    /// Those of one floating tag's kept digests, newest first, that are too many or too old.
    fn excess<'a>(&self, group: &'a [Kept]) -> Vec<&'a Kept> {
        let Some(first) = group.first() else { return Vec::new() };
        let rule = self.rules.of(&first.repository);
        // Without a rule nothing is deleted: somebody may have removed it by mistake.
        let Some(retention) = rule.retention() else { return Vec::new() };
        let keep = usize::try_from(retention.keep).unwrap_or(usize::MAX);
        let oldest = retention.max_age.map(|age| self.clock.now() - age);
        let old = |kept: &Kept| oldest.is_some_and(|oldest| kept.left_at < oldest);
        let numbered = group.iter().enumerate();
        numbered
            .filter(|(index, kept)| kept.due && (*index >= keep || old(kept)))
            .map(|(_, kept)| kept)
            .collect()
    }

    /// Deletes the tag of one kept digest; true if it is gone.
    async fn let_go(&self, kept: &Kept) -> Result<bool> {
        let session = self.registries.session(&kept.repository, Access::Push)?;
        let session = session.urgent(Urgency::Bulk);
        // Some registries delete the manifest with its tag, and every other tag of it.
        for tag in self.store.source_tags(kept).await? {
            if session.observe(&TagOrDigest::Tag(tag)).await?.as_ref() == Some(&kept.digest) {
                self.store.prune_later(kept, AGAIN).await?;
                return Ok(false);
            }
        }
        let what = TagOrDigest::Tag(kept.kept_tag.clone());
        let tag_seq = self.store.tag_seq(&kept.repository, &kept.kept_tag).await?;
        let (seen, asked) = session.look(&what).await?;
        let look = Look::since(seen.as_ref(), asked);
        let window = self.settings.put_timeout;
        let grace = self.settings.grace + self.settings.consistency_window;
        let begun = Instant::now();
        let intent = match self.store.begin_prune(kept, tag_seq, look, window, grace).await? {
            Prune::Forgotten => return Ok(false),
            Prune::Later => {
                self.store.prune_later(kept, AGAIN).await?;
                return Ok(false);
            }
            Prune::Delete(intent) => intent,
        };
        // What has begun is in nobody's way for long.
        let session = session.urgent(Urgency::Urgent);
        let left = (begun + window).saturating_duration_since(Instant::now());
        // Without an answer nobody knows; the reconciler looks, and the next round sees it.
        let answer = tokio::time::timeout(left, session.delete_tag(&kept.kept_tag)).await;
        let answer = answer.map_err(|_| {
            Failure::new(Reason::OutcomeUnknown, "the registry did not answer in time")
        })?;
        let (refusal, pause) = match answer {
            Ok(true) => (None, AGAIN),
            Ok(false) => (Some(unsupported(kept)), UNSUPPORTED),
            Err(failure) if failure.retry_class() == Retry::Never => (Some(failure), UNSUPPORTED),
            Err(failure) => return Err(failure),
        };
        if let Some(refusal) = &refusal {
            tracing::warn!(%refusal, "a kept digest was not let go");
        }
        let accepted = refusal.is_none();
        let (seen, asked) = self.look_after(&session, &what, intent.old.as_ref(), accepted).await?;
        let look = Look::since(seen.as_ref(), asked);
        let settled = self.store.finish_prune(kept, &intent, look, refusal.as_ref(), pause).await?;
        Ok(settled == Settled::Applied)
    }
}

fn unsupported(kept: &Kept) -> Failure {
    Failure::new(
        Reason::RegistryDenied,
        format!("{} does not delete tags; {} stays", kept.repository, kept.kept_tag),
    )
    .remedy("allow deletion at the registry, or remove such tags with its own tools")
}
