//! Settling by hand what became of an interrupted move. The registry is asked once more before: a
//! person's word counts only where it cannot answer.

use colophon_domain::{Digest, Failure, Reason, Repository, Result, Settlement, Tag, TagView};
use colophon_store::{Author, DueIntent};

use crate::{Engine, reconcile::LOOK_TIMEOUT};

impl Engine {
    /// Writes what became of an interrupted move as a person says it. If the registry answers
    /// after all, what it shows is written.
    ///
    /// # Errors
    /// `NOT_UNKNOWN` if there is nothing to settle, or the registry shows something else than what
    /// was said.
    #[tracing::instrument(level = "debug", name = "engine.tag.settle_by_hand", skip_all)]
    pub async fn settle(
        &self,
        repository: &Repository,
        tag: &Tag,
        settlement: Settlement,
        author: &Author,
    ) -> Result<TagView> {
        let due = self.store.take_unknown(repository, tag).await?;
        let looked = tokio::time::timeout(LOOK_TIMEOUT, self.look(&due)).await;
        if matches!(looked, Ok(Ok(()))) {
            self.wake();
            return self.seen(&due, settlement).await;
        }
        self.store.settle_by_hand(&due, settlement, author).await?;
        self.wake();
        tracing::warn!(
            reference = %format_args!("{repository}:{tag}"), by = author.principal, %settlement,
            "an interrupted move was settled by hand"
        );
        self.store.tag_at(repository, tag, None).await
    }

    /// The answer where the registry has said it: fine if it says the same.
    async fn seen(&self, due: &DueIntent, settlement: Settlement) -> Result<TagView> {
        let view = self.store.tag_at(&due.repository, &due.tag, None).await?;
        let said = match settlement {
            Settlement::Moved => &due.wanted,
            Settlement::NotMoved => &due.old,
        };
        if view.digest == *said {
            return Ok(view);
        }
        let place = view.digest.as_ref().map_or("not there", Digest::as_str);
        Err(Failure::new(
            Reason::NotUnknown,
            format!(
                "the registry answers again, and {}:{} is {place}; that was recorded, and not what \
                 you say",
                due.repository, due.tag
            ),
        )
        .field("settled_as")
        .remedy("nothing is left to settle; look at the tag's history"))
    }
}
