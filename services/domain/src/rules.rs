//! The rules of one tag: given what the registry shows and what the ledger knows, does the tag
//! move, stay, or is the move refused? Pure functions, so that every case can be tried.

use std::cmp::Ordering;

use uuid::Uuid;

use crate::{Digest, Expected, IfOlder, OrderKey, Purpose, Reason, TagKind, TagMoveState, Version};

/// What the ledger knows of a reference when its turn comes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeadState {
    /// The ticket of the last release that moved the tag or found it where it wanted it.
    pub moved_ticket: Option<i64>,
    /// The greatest order key that moved the tag, unless a recorded decision went back behind it.
    pub order: Option<OrderKey>,
    /// The ticket of the last rollback that was accepted: whatever is older comes too late.
    pub barrier: Option<i64>,
    /// The release of that rollback.
    pub barrier_release: Option<Uuid>,
    /// The tag of the release that moved it last.
    pub mover: Option<Uuid>,
}

/// What is asked for one tag.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Unique or floating.
    pub kind: TagKind,
    /// Why.
    pub purpose: Purpose,
    /// Where the tag should point.
    pub wanted: &'a Digest,
    /// Where it must be for it to be moved.
    pub expected: Option<&'a Expected>,
    /// What was expected is what a plan showed.
    pub planned: bool,
    /// The order of acceptance; floating tags only.
    pub ticket: Option<i64>,
    /// What orders its builds in place of the ticket.
    pub order: Option<&'a OrderKey>,
    /// What becomes of it where a newer build has it.
    pub if_older: IfOlder,
    /// It may go back behind a newer build.
    pub allow_backward: bool,
    /// The highest version of the tag's line that is there; for tags that follow from a version.
    pub highest: Option<&'a Version>,
}

/// What happens to the tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Write an intent and send the PUT.
    Move,
    /// The tag is at the digest: success without a PUT.
    Unchanged,
    /// No PUT; the tag ends in this state for this reason.
    Leave(TagMoveState, Reason),
}

/// Decides about one tag.
///
/// A floating tag that a newer release has moved stays: whatever made this one slow (a big copy,
/// a retry, a night without Vault) must not slide the tag back. Newer is what was accepted later,
/// or what has the greater order key where there are keys. That holds also if the tag happens to
/// be at the digest, so that the answer does not depend on a coincidence of content: `UNCHANGED`
/// is said only to the newest.
pub fn decide(ask: &Ask<'_>, observed: Option<&Digest>, head: &HeadState) -> Decision {
    let there = observed == Some(ask.wanted);
    if ask.kind == TagKind::Floating
        && let Some((state, reason)) = behind(ask, head)
    {
        // The plan showed that it moves, or that it is there.
        return if ask.planned {
            Decision::Leave(TagMoveState::Refused, Reason::PlanChanged)
        } else {
            Decision::Leave(state, reason)
        };
    }
    if there {
        return Decision::Unchanged;
    }
    if ask.expected.is_some_and(|expected| !expected.holds(observed)) {
        let reason = if ask.planned { Reason::PlanChanged } else { Reason::TagMoved };
        return Decision::Leave(TagMoveState::Refused, reason);
    }
    match (ask.kind, observed) {
        (TagKind::Unique, Some(_)) => Decision::Leave(TagMoveState::Refused, Reason::TagImmutable),
        _ => Decision::Move,
    }
}

/// Why a floating tag comes too late, if it does.
fn behind(ask: &Ask<'_>, head: &HeadState) -> Option<(TagMoveState, Reason)> {
    let superseded = Some((TagMoveState::Superseded, Reason::Superseded));
    let older =
        |mark: Option<i64>| matches!((ask.ticket, mark), (Some(own), Some(mark)) if own < mark);
    if older(head.barrier) {
        return superseded;
    }
    let late = || if older(head.moved_ticket) { superseded } else { None };
    if ask.purpose == Purpose::Rollback {
        return late();
    }
    if let Some(OrderKey::Semver(own)) = ask.order
        && ask.if_older == IfOlder::Keep
        && ask.highest.is_some_and(|highest| own.precedence(highest) == Ordering::Less)
        && !ask.allow_backward
    {
        return Some((TagMoveState::Kept, Reason::NotHighest));
    }
    let Some(last) = &head.order else { return late() };
    match ask.order.and_then(|own| own.compare(last)) {
        Some(Ordering::Greater) => None,
        Some(Ordering::Equal) => late(),
        _ if ask.allow_backward => late(),
        Some(Ordering::Less) => Some(match ask.if_older {
            IfOlder::Refuse => (TagMoveState::Refused, Reason::OrderRegression),
            IfOlder::Supersede => (TagMoveState::Superseded, Reason::Superseded),
            IfOlder::Keep => (TagMoveState::Kept, Reason::NotHighest),
        }),
        // Without a key of the same kind nobody can tell which build is newer.
        None => late().or(Some((TagMoveState::Refused, Reason::OrderKeyMismatch))),
    }
}

/// Whether a move of a tag goes behind a newer build, which only a decision allows.
pub fn goes_back(ask: &Ask<'_>, head: &HeadState) -> bool {
    if ask.purpose != Purpose::Publish || ask.kind != TagKind::Floating {
        return false;
    }
    let above = matches!((ask.order, ask.highest), (Some(OrderKey::Semver(own)), Some(highest))
        if own.precedence(highest) == Ordering::Less);
    let Some(last) = &head.order else { return above };
    let newer = ask.order.and_then(|own| own.compare(last));
    above || !matches!(newer, Some(Ordering::Equal | Ordering::Greater))
}

/// The order key that a tag has after a release moved it or found it where it wanted it.
///
/// A key only grows, unless a decision said otherwise; a rollback leaves it, so that what was
/// rolled back cannot come again by an older build that finishes late.
pub fn order_after(ask: &Ask<'_>, head: &HeadState) -> Option<OrderKey> {
    if ask.purpose == Purpose::Rollback {
        return head.order.clone();
    }
    if ask.allow_backward {
        return ask.order.cloned();
    }
    ask.order.or(head.order.as_ref()).cloned()
}

/// Decides about a tag that is to be put back: `own` is the tag of the release that moved it,
/// `moved_to` where it moved it, `back_to` where it was.
///
/// `None` means that somebody else has moved it since: then it stays.
pub fn decide_restore(
    own: Uuid,
    moved_to: &Digest,
    back_to: &Digest,
    observed: Option<&Digest>,
    head: &HeadState,
) -> Option<Decision> {
    if head.mover != Some(own) {
        return None;
    }
    if observed == Some(back_to) {
        return Some(Decision::Unchanged);
    }
    (observed == Some(moved_to)).then_some(Decision::Move)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::sha256(&[number])
    }

    fn number(key: u64) -> OrderKey {
        OrderKey::Number(key)
    }

    fn ask(kind: TagKind, wanted: &Digest, ticket: Option<i64>) -> Ask<'_> {
        Ask {
            kind,
            purpose: Purpose::Publish,
            wanted,
            expected: None,
            planned: false,
            ticket,
            order: None,
            if_older: IfOlder::Refuse,
            allow_backward: false,
            highest: None,
        }
    }

    #[test]
    fn a_unique_tag_never_moves() {
        let wanted = digest(1);
        let unique = |observed: Option<u8>| {
            let observed = observed.map(digest);
            let ask = ask(TagKind::Unique, &wanted, None);
            decide(&ask, observed.as_ref(), &HeadState::default())
        };
        assert_eq!(unique(None), Decision::Move);
        assert_eq!(unique(Some(1)), Decision::Unchanged);
        assert_eq!(unique(Some(2)), Decision::Leave(TagMoveState::Refused, Reason::TagImmutable));
    }

    #[test]
    fn what_is_expected_must_be_there() {
        let (wanted, other) = (digest(1), digest(2));
        let (at, absent) = (Expected::At(other.clone()), Expected::Absent);
        let with = |expected, planned, observed| {
            let ask = Ask {
                expected: Some(expected),
                planned,
                ..ask(TagKind::Floating, &wanted, Some(1))
            };
            decide(&ask, observed, &HeadState::default())
        };
        let refused = |reason| Decision::Leave(TagMoveState::Refused, reason);
        assert_eq!(with(&at, false, Some(&other)), Decision::Move);
        assert_eq!(with(&at, false, None), refused(Reason::TagMoved));
        let third = digest(3);
        assert_eq!(with(&at, true, Some(&third)), refused(Reason::PlanChanged));
        assert_eq!(with(&absent, false, None), Decision::Move);
        assert_eq!(with(&absent, false, Some(&other)), refused(Reason::TagMoved));
        let newer = HeadState { moved_ticket: Some(9), ..HeadState::default() };
        let late =
            Ask { expected: Some(&at), planned: true, ..ask(TagKind::Floating, &wanted, Some(1)) };
        assert_eq!(decide(&late, Some(&other), &newer), refused(Reason::PlanChanged));
        // Sent again after it was done: nothing is wrong.
        assert_eq!(with(&at, false, Some(&wanted)), Decision::Unchanged);
    }

    #[test]
    fn an_order_key_replaces_the_order_of_acceptance() {
        use IfOlder::{Keep, Refuse, Supersede};
        use TagMoveState::{Kept, Refused, Superseded};
        let wanted = digest(1);
        let head = |order, ticket| HeadState {
            order: Some(number(order)),
            moved_ticket: Some(ticket),
            ..HeadState::default()
        };
        let with = |key: u64, ticket, if_older, allow_backward, head: &HeadState| {
            let key = number(key);
            let ask = Ask {
                order: Some(&key),
                if_older,
                allow_backward,
                ..ask(TagKind::Floating, &wanted, Some(ticket))
            };
            decide(&ask, None, head)
        };
        let leave = Decision::Leave;
        assert_eq!(with(6, 1, Refuse, false, &head(5, 9)), Decision::Move);
        assert_eq!(
            with(4, 10, Refuse, false, &head(5, 9)),
            leave(Refused, Reason::OrderRegression)
        );
        assert_eq!(
            with(4, 10, Supersede, false, &head(5, 9)),
            leave(Superseded, Reason::Superseded)
        );
        assert_eq!(with(4, 10, Keep, false, &head(5, 9)), leave(Kept, Reason::NotHighest));
        assert_eq!(with(4, 10, Refuse, true, &head(5, 9)), Decision::Move);
        // The decision to go back is not one to overtake what was accepted later.
        assert_eq!(with(4, 8, Refuse, true, &head(5, 9)), leave(Superseded, Reason::Superseded));
        assert_eq!(with(5, 10, Refuse, false, &head(5, 9)), Decision::Move);
        assert_eq!(with(5, 8, Refuse, false, &head(5, 9)), leave(Superseded, Reason::Superseded));
    }

    #[test]
    fn without_a_key_of_the_same_kind_nobody_can_tell() {
        let wanted = digest(1);
        let head = HeadState { order: Some(number(5)), ..HeadState::default() };
        let version = OrderKey::parse(crate::OrderKind::Semver, "1.0.0").unwrap();
        for order in [None, Some(&version)] {
            let ask = Ask { order, ..ask(TagKind::Floating, &wanted, Some(3)) };
            assert_eq!(
                decide(&ask, None, &head),
                Decision::Leave(TagMoveState::Refused, Reason::OrderKeyMismatch)
            );
            let back = Ask { allow_backward: true, ..ask };
            assert_eq!(decide(&back, None, &head), Decision::Move);
            assert_eq!(order_after(&back, &head), order.cloned());
            assert!(goes_back(&back, &head) && !goes_back(&back, &HeadState::default()));
            let rollback = Ask { purpose: Purpose::Rollback, ..ask };
            assert_eq!(decide(&rollback, None, &head), Decision::Move);
            assert_eq!(order_after(&rollback, &head), Some(number(5)));
        }
    }

    #[test]
    fn a_rollback_overtakes_what_was_accepted_before_it() {
        let wanted = digest(1);
        let head = HeadState { barrier: Some(7), moved_ticket: Some(3), ..HeadState::default() };
        let key = number(99);
        let with = |ticket| {
            let ask = Ask { order: Some(&key), ..ask(TagKind::Floating, &wanted, Some(ticket)) };
            decide(&ask, Some(&wanted), &head)
        };
        assert_eq!(with(6), Decision::Leave(TagMoveState::Superseded, Reason::Superseded));
        assert_eq!(with(7), Decision::Unchanged);
    }

    #[test]
    fn a_version_moves_only_what_it_is_highest_of() {
        let wanted = digest(1);
        let own = OrderKey::parse(crate::OrderKind::Semver, "1.3.9").unwrap();
        let higher = Version::parse("v1.4.2").unwrap();
        let lower = Version::parse("1.3.8").unwrap();
        let with = |highest, allow_backward| {
            let ask = Ask {
                order: Some(&own),
                if_older: IfOlder::Keep,
                highest,
                allow_backward,
                ..ask(TagKind::Floating, &wanted, Some(1))
            };
            decide(&ask, None, &HeadState::default())
        };
        let kept = Decision::Leave(TagMoveState::Kept, Reason::NotHighest);
        assert_eq!(with(Some(&higher), false), kept);
        assert_eq!(with(Some(&higher), true), Decision::Move);
        assert_eq!(with(Some(&lower), false), Decision::Move);
        assert_eq!(with(None, false), Decision::Move);
    }

    #[test]
    fn only_what_is_still_ours_is_put_back() {
        let (own, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (new, old) = (digest(2), digest(1));
        let with = |mover, observed: Option<&Digest>| {
            let head = HeadState { mover: Some(mover), ..HeadState::default() };
            decide_restore(own, &new, &old, observed, &head)
        };
        assert_eq!(with(own, Some(&new)), Some(Decision::Move));
        assert_eq!(with(own, Some(&old)), Some(Decision::Unchanged));
        assert_eq!(with(own, Some(&digest(3))), None);
        assert_eq!(with(own, None), None);
        // Another release found the tag where it wanted it: it is that release's now.
        assert_eq!(with(other, Some(&new)), None);
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
                let ask = ask(TagKind::Floating, &wanted, Some(*ticket));
                match decide(&ask, observed.as_ref(), &head) {
                    Decision::Move | Decision::Unchanged => {
                        prop_assert!(before.is_none_or(|last| last <= *ticket));
                        observed = Some(wanted);
                        head.moved_ticket = Some(*ticket);
                    }
                    Decision::Leave(state, reason) => {
                        prop_assert_eq!(state, TagMoveState::Superseded);
                        prop_assert_eq!(reason, Reason::Superseded);
                    }
                }
            }
            let newest = order.iter().max().copied().unwrap();
            prop_assert_eq!(observed, Some(digest(u8::try_from(newest).unwrap())));
        }

        /// The same with order keys that have nothing to do with the order of acceptance: the
        /// greatest key that came holds the tag, whoever was accepted when.
        #[test]
        fn the_greatest_key_holds_the_tag(
            builds in prop::collection::vec(0_u64..20, 1..40),
        ) {
            let mut head = HeadState::default();
            let mut greatest: Option<u64> = None;
            for (ticket, key) in (1_i64..).zip(&builds) {
                let (order, wanted) = (number(*key), digest(u8::try_from(*key).unwrap()));
                let ask = Ask { order: Some(&order), ..ask(TagKind::Floating, &wanted, Some(ticket)) };
                if let Decision::Leave(..) = decide(&ask, None, &head) {
                    prop_assert!(greatest.is_some_and(|last| *key < last));
                    continue;
                }
                prop_assert!(greatest.is_none_or(|last| *key >= last));
                greatest = Some(*key);
                head = HeadState {
                    order: order_after(&ask, &head),
                    moved_ticket: Some(ticket),
                    ..head
                };
            }
            prop_assert_eq!(greatest, builds.iter().copied().max());
        }
    }
}
