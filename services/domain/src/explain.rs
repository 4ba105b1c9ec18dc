//! Why a tag does not move, in words: what stands against it, and what to do about it.

use crate::{Ask, Digest, HeadState, Reason};

/// The text for a tag (`reference`) that is left where it is for a reason of the rules.
pub fn explain(
    reason: Reason,
    reference: &str,
    ask: &Ask<'_>,
    observed: Option<&Digest>,
    head: &HeadState,
) -> String {
    let place = observed.map_or_else(|| "not there".to_owned(), |digest| format!("at {digest}"));
    match reason {
        Reason::TagImmutable => format!(
            "the unique tag {reference} is {place} already and never moves; take a new tag, or \
             publish that digest"
        ),
        Reason::TagMoved => format!(
            "{reference} is {place}, and {} was expected; look at its history before you publish \
             again",
            expected(ask)
        ),
        Reason::PlanChanged if ask.expected.is_none_or(|expected| expected.holds(observed)) => {
            format!("a newer release holds {reference} since the plan was made; make a new plan")
        }
        Reason::PlanChanged => format!(
            "{reference} is {place}, and the plan showed {}; make a new plan",
            expected(ask)
        ),
        Reason::OrderRegression => format!(
            "{reference} has a newer build, {}, than this one, {}; to go back, publish with \
             allow_backward and a reason",
            key(head),
            own_key(ask)
        ),
        Reason::OrderKeyMismatch => format!(
            "the builds of {reference} are ordered by {}, and this release gives {}; give a key of \
             that kind, or publish with allow_backward and a reason",
            key(head),
            own_key(ask)
        ),
        Reason::NotHighest => format!(
            "{reference} stays: {} is higher than {}; nothing is to be done",
            highest(ask, head),
            own_key(ask)
        ),
        _ => superseded(reference, ask, head),
    }
}

fn superseded(reference: &str, ask: &Ask<'_>, head: &HeadState) -> String {
    let behind = matches!((ask.ticket, head.barrier), (Some(own), Some(mark)) if own < mark);
    match (behind, head.barrier_release) {
        (true, Some(release)) => format!(
            "{reference} was rolled back by release {release} after this release was accepted; \
             publish again if this build is wanted all the same"
        ),
        _ => format!("a newer release has already moved {reference}; nothing is to be done"),
    }
}

fn expected(ask: &Ask<'_>) -> String {
    match ask.expected {
        Some(crate::Expected::At(digest)) => digest.to_string(),
        _ => "no such tag".to_owned(),
    }
}

fn key(head: &HeadState) -> String {
    head.order.as_ref().map_or_else(|| "no key".to_owned(), ToString::to_string)
}

fn own_key(ask: &Ask<'_>) -> String {
    ask.order.map_or_else(|| "no key".to_owned(), ToString::to_string)
}

/// The version that keeps the tag: of what the registry shows and what moved the tag before.
fn highest(ask: &Ask<'_>, head: &HeadState) -> String {
    let Some(crate::OrderKey::Semver(own)) = ask.order else { return key(head) };
    match ask.highest {
        Some(shown) if own.precedence(shown).is_lt() => format!("version {shown}"),
        _ => key(head),
    }
}
