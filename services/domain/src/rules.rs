//! The rule of one tag: given what the registry shows and what the ledger knows, does the tag
//! move, stay, or is the move refused? A pure function, so that every case can be tried.

use crate::{Digest, Reason, TagKind};

/// What the ledger knows of a reference when its turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeadState {
    /// The ticket of the last release that moved the tag or found it where it wanted it.
    pub moved_ticket: Option<i64>,
}

/// What happens to the tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Write an intent and send the PUT.
    Move,
    /// The tag is at the digest: success without a PUT.
    Unchanged,
    /// A rule forbids it, or a later release was faster: no PUT.
    Leave(Reason),
}

/// Decides about one tag.
///
/// A floating tag whose ticket is older than the last one that moved it stays: whatever made
/// this release slow (a big copy, a retry, a night without Vault) must not slide the tag back.
/// That holds also if the tag happens to be at the digest, so that the answer does not depend
/// on a coincidence of content: `UNCHANGED` is said only to the newest.
pub fn decide(
    kind: TagKind,
    wanted: &Digest,
    observed: Option<&Digest>,
    ticket: Option<i64>,
    head: HeadState,
) -> Decision {
    match kind {
        TagKind::Unique => match observed {
            None => Decision::Move,
            Some(digest) if digest == wanted => Decision::Unchanged,
            Some(_) => Decision::Leave(Reason::TagImmutable),
        },
        TagKind::Floating => {
            let older =
                matches!((ticket, head.moved_ticket), (Some(own), Some(last)) if own < last);
            if older {
                Decision::Leave(Reason::Superseded)
            } else if observed == Some(wanted) {
                Decision::Unchanged
            } else {
                Decision::Move
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::sha256(&[number])
    }

    #[test]
    fn a_unique_tag_never_moves() {
        let unique = |observed: Option<u8>| {
            decide(
                TagKind::Unique,
                &digest(1),
                observed.map(digest).as_ref(),
                None,
                HeadState::default(),
            )
        };
        assert_eq!(unique(None), Decision::Move);
        assert_eq!(unique(Some(1)), Decision::Unchanged);
        assert_eq!(unique(Some(2)), Decision::Leave(Reason::TagImmutable));
    }

    proptest! {
        /// Whatever the order in which releases reach a floating tag, it ends at the newest
        /// ticket that reached it, and never goes back on the way.
        #[test]
        fn a_floating_tag_never_slides_back(order in prop::collection::vec(1_i64..50, 1..40)) {
            let (mut head, mut observed) = (HeadState::default(), None);
            for ticket in &order {
                let wanted = digest(u8::try_from(*ticket).unwrap());
                let before = head.moved_ticket;
                match decide(TagKind::Floating, &wanted, observed.as_ref(), Some(*ticket), head) {
                    Decision::Move | Decision::Unchanged => {
                        prop_assert!(before.is_none_or(|last| last <= *ticket));
                        observed = Some(wanted);
                        head.moved_ticket = Some(*ticket);
                    }
                    Decision::Leave(reason) => prop_assert_eq!(reason, Reason::Superseded),
                }
            }
            let newest = order.iter().max().copied().unwrap();
            prop_assert_eq!(observed, Some(digest(u8::try_from(newest).unwrap())));
        }
    }
}
