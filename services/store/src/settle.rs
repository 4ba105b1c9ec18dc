//! Settling by hand: a person says what became of an interrupted move, where the registry cannot
//! be asked any more. The ledger says who said so.

use std::time::Duration;

use colophon_domain::{Failure, Reason, Repository, Result, Settlement, Tag};

use crate::{Author, DueIntent, Store, reconcile::Finding, tx};

/// Reconcilers keep away for so long; the outcome is written at once.
const HOLD: Duration = Duration::from_secs(30);

impl Store {
    /// Takes a reference's interrupted move to settle it by hand; no reconciler looks meanwhile.
    ///
    /// # Errors
    /// `NOT_UNKNOWN` if no move of the tag is open, or its PUT may still be under way.
    pub async fn take_unknown(&self, repository: &Repository, tag: &Tag) -> Result<DueIntent> {
        self.take_intent(repository, tag, HOLD).await?.ok_or_else(|| {
            Failure::new(
                Reason::NotUnknown,
                format!("no move of {repository}:{tag} waits for its outcome to be found out"),
            )
            .field("reference")
            .remedy("a move that is under way has an outcome soon; look again in a minute")
        })
    }

    /// Writes the outcome of a taken move as a person knows it.
    ///
    /// # Errors
    /// `REFERENCE_BLOCKED` if another process has written it meanwhile.
    pub async fn settle_by_hand(
        &self,
        due: &DueIntent,
        settlement: Settlement,
        author: &Author,
    ) -> Result<()> {
        let digest = match settlement {
            Settlement::Moved => due.wanted.as_ref(),
            Settlement::NotMoved => due.old.as_ref(),
        };
        let finding = Finding::Told(digest, author);
        tx::run("tag.settle_by_hand", || self.try_resolve(due, finding)).await?;
        Ok(())
    }
}
