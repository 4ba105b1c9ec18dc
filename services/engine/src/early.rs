//! The look before anything is done: a release that must fail for one of its tags should fail
//! before it copies a byte or writes a unique tag.

use colophon_domain::{
    Access, Decision, Digest, Failure, Result, TagKind, TagMoveState, TagOrDigest, Urgency, explain,
};
use colophon_store::{Claimed, Move};
use futures_util::future::try_join_all;

use crate::Engine;

impl Engine {
    /// Looks at every tag of every target that may fail the release; true if one does, and the
    /// release with it. Of several targets one job's look counts for all. When a tag's turn comes
    /// it is looked at again.
    #[tracing::instrument(level = "debug", name = "engine.tags.check", skip_all)]
    pub(crate) async fn refuse_early(&self, job: &Claimed) -> Result<bool> {
        let mut tags = self.store.all_tags(job).await?;
        tags.retain(|step| {
            let terms = &step.terms;
            step.kind == TagKind::Unique || terms.expected.is_some() || terms.order.is_some()
        });
        for group in tags.chunks(self.settings.tags_at_once.max(1)) {
            let looks = try_join_all(group.iter().map(|step| self.find_tag(job, step))).await?;
            for (step, found) in group.iter().zip(looks) {
                if let Some(refusal) = self.foreseen(step, found.as_ref()).await? {
                    self.store.refuse(job, step, &refusal, found.as_ref()).await?;
                    return Ok(true);
                }
            }
        }
        if job.several_targets || job.guarded {
            self.store.mark_checked(job.release).await?;
        }
        Ok(false)
    }

    /// Why a tag would be refused now, if nothing that is under way can change that.
    async fn foreseen(&self, step: &Move, found: Option<&Digest>) -> Result<Option<Failure>> {
        let head = self.store.head(step).await?;
        if head.blocker.is_some() || head.holder.is_some() {
            return Ok(None);
        }
        let Decision::Leave(TagMoveState::Refused, reason) = step.decide(found, &head.state) else {
            return Ok(None);
        };
        let reference = format!("{}:{}", step.repository, step.tag);
        let text = explain(reason, &reference, &step.ask(), found, &head.state);
        Ok(Some(Failure::new(reason, text)))
    }

    async fn find_tag(&self, job: &Claimed, step: &Move) -> Result<Option<Digest>> {
        let session = self.registries.session(&step.repository, Access::Push)?;
        let session = session.urgent(Urgency::of_tags(job.priority));
        session.observe(&TagOrDigest::Tag(step.tag.clone())).await
    }
}
