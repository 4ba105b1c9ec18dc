//! What must become of a tag when its turn comes, written down a second time and without looking
//! at the product's rules: a tag that is wrongly left is as wrong as one that is wrongly moved.

use std::cmp::Ordering;

use colophon_domain::{IfOlder, OrderKey, Purpose, Reason, TagKind, TagMoveState, Version};

use crate::rules::{Accepted, TagModel, Wish};

/// What becomes of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Moves,
    Unchanged,
    Left(TagMoveState, Reason),
}

const SUPERSEDED: (TagMoveState, Reason) = (TagMoveState::Superseded, Reason::Superseded);

impl Accepted {
    /// Why a floating tag comes too late for what holds it, if it does. `highest` is the highest
    /// version of its line.
    pub(crate) fn late(
        &self,
        wish: &Wish,
        tag: &TagModel,
        highest: Option<&Version>,
    ) -> Option<(TagMoveState, Reason)> {
        if wish.kind == TagKind::Unique {
            return None;
        }
        if tag.barriers.values().any(|barrier| wish.ticket < *barrier) {
            return Some(SUPERSEDED);
        }
        let overtaken = (wish.ticket < tag.holder.ticket).then_some(SUPERSEDED);
        if self.purpose == Purpose::Rollback {
            return overtaken;
        }
        if let (Some(OrderKey::Semver(own)), Some(highest)) = (&wish.order, highest)
            && wish.line.is_some()
            && own.precedence(highest).is_lt()
            && !self.allow_backward
        {
            return Some((TagMoveState::Kept, Reason::NotHighest));
        }
        let Some(last) = &tag.holder.order else { return overtaken };
        let compared = wish.order.as_ref().and_then(|own| own.compare(last));
        match compared {
            Some(Ordering::Greater) => None,
            Some(Ordering::Equal) => overtaken,
            _ if self.allow_backward => overtaken,
            Some(Ordering::Less) => Some(match wish.if_older {
                IfOlder::Refuse => (TagMoveState::Refused, Reason::OrderRegression),
                IfOlder::Supersede => SUPERSEDED,
                IfOlder::Keep => (TagMoveState::Kept, Reason::NotHighest),
            }),
            None => overtaken.or(Some((TagMoveState::Refused, Reason::OrderKeyMismatch))),
        }
    }

    /// What becomes of a tag that was seen there.
    pub(crate) fn verdict(
        &self,
        wish: &Wish,
        tag: &TagModel,
        seen: Option<&String>,
        highest: Option<&Version>,
    ) -> Verdict {
        let changed = Verdict::Left(TagMoveState::Refused, Reason::PlanChanged);
        if let Some((state, reason)) = self.late(wish, tag, highest) {
            return if self.planned { changed } else { Verdict::Left(state, reason) };
        }
        if seen == Some(&wish.wanted) {
            return Verdict::Unchanged;
        }
        let here = seen.map_or("none", String::as_str);
        if wish.expected.as_ref().is_some_and(|expected| expected != here) {
            let moved = Verdict::Left(TagMoveState::Refused, Reason::TagMoved);
            return if self.planned { changed } else { moved };
        }
        if wish.kind == TagKind::Unique && seen.is_some() {
            return Verdict::Left(TagMoveState::Refused, Reason::TagImmutable);
        }
        Verdict::Moves
    }
}
