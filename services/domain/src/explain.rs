//! Why a tag moves or does not, in words: what decided, and what to do about it.

use std::cmp::Ordering;

use crate::{Ask, Digest, HeadState, IfOlder, Purpose, Reason, TagKind, goes_back};

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
            "{reference} {} a newer build, {}, than this one, {}; to go back, publish with \
             allow_backward and a reason",
            had(head),
            key(head),
            own_key(ask)
        ),
        Reason::OrderKeyMismatch => format!(
            "the builds of {reference} are ordered by {}, and this release gives {}; give a key of \
             that kind, or publish with allow_backward and a reason",
            key(head),
            own_key(ask)
        ),
        Reason::NotHighest => {
            let what_to_do = if holds_highest(ask, head) {
                "nothing is to be done".to_owned()
            } else {
                format!(
                    "it is not at that version itself, so if {} should have it, publish with \
                     allow_backward and a reason",
                    own_key(ask)
                )
            };
            let (highest, own) = (highest(ask, head), own_key(ask));
            format!("{reference} stays: {highest} is higher than {own}; {what_to_do}")
        }
        _ => superseded(reference, ask, head),
    }
}

/// Why a floating tag moves, where something else than the order of acceptance decided; else empty.
pub fn explain_move(ask: &Ask<'_>, head: &HeadState) -> String {
    let (TagKind::Floating, Purpose::Publish, Some(own)) = (ask.kind, ask.purpose, ask.order)
    else {
        return String::new();
    };
    if goes_back(ask, head) {
        let last = head.order.as_ref().map_or_else(|| highest(ask, head), ToString::to_string);
        return format!("goes from {last} to {own}, because allow_backward says so");
    }
    match (ask.if_older, &head.order) {
        (IfOlder::Keep, None) => format!("{own} is the highest of its line"),
        (IfOlder::Keep, Some(last)) => {
            format!("{own} is the highest of its line; before it was {last}")
        }
        (_, None) => format!("{own} is the first that orders its builds"),
        (_, Some(last)) if own.compare(last) == Some(Ordering::Equal) => {
            format!("{own} was accepted again")
        }
        (_, Some(last)) => format!("{own} is newer than {last}"),
    }
}

fn superseded(reference: &str, ask: &Ask<'_>, head: &HeadState) -> String {
    let behind = matches!((ask.ticket, head.barrier), (Some(own), Some(mark)) if own < mark);
    match (behind, head.barrier_release) {
        (true, Some(release)) => format!(
            "{reference} was rolled back by release {release} after this release was accepted; \
             publish again if this build is wanted all the same"
        ),
        _ if ask.if_older == IfOlder::Supersede && newer_key(ask, head) => format!(
            "{reference} {} a newer build, {}, than this one, {}; {}",
            had(head),
            key(head),
            own_key(ask),
            if rolled_back(head) {
                "if this one should have it, publish with allow_backward and a reason"
            } else {
                "nothing is to be done"
            }
        ),
        _ => format!("a newer release has already moved {reference}; nothing is to be done"),
    }
}

/// Whether the last move of the tag was a rollback: its key stays, and its build is not there.
fn rolled_back(head: &HeadState) -> bool {
    head.barrier.is_some() && head.barrier == head.moved_ticket
}

fn had(head: &HeadState) -> &'static str {
    if rolled_back(head) { "was rolled back from" } else { "has" }
}

fn newer_key(ask: &Ask<'_>, head: &HeadState) -> bool {
    let own = ask.order.zip(head.order.as_ref());
    own.and_then(|(own, last)| own.compare(last)) == Some(Ordering::Less)
}

/// Whether the tag is at the higher version for which it stays: one that failed was put back, and
/// one that was bad was rolled back.
fn holds_highest(ask: &Ask<'_>, head: &HeadState) -> bool {
    !rolled_back(head)
        && match (ask.highest, &head.order) {
            (Some(highest), Some(crate::OrderKey::Semver(last))) => {
                last.precedence(highest) != Ordering::Less
            }
            (None, Some(_)) => true,
            _ => false,
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{OrderKey, OrderKind, Version};

    fn semver(text: &str) -> OrderKey {
        OrderKey::parse(OrderKind::Semver, text).unwrap()
    }

    fn ask<'a>(wanted: &'a Digest, order: Option<&'a OrderKey>, if_older: IfOlder) -> Ask<'a> {
        Ask {
            kind: TagKind::Floating,
            purpose: Purpose::Publish,
            wanted,
            expected: None,
            planned: false,
            ticket: Some(9),
            order,
            if_older,
            allow_backward: false,
            highest: None,
        }
    }

    fn head(order: Option<OrderKey>) -> HeadState {
        HeadState { order, moved_ticket: Some(5), mover: Some(Uuid::nil()), ..HeadState::default() }
    }

    #[test]
    fn a_tag_says_why_it_moves() {
        let wanted = Digest::sha256(b"");
        let number = |number| OrderKey::Number(number);
        let said = |own: Option<&OrderKey>, if_older, last| {
            explain_move(&ask(&wanted, own, if_older), &head(last))
        };
        assert_eq!(said(None, IfOlder::Refuse, None), "");
        let (seven, version) = (number(7), semver("1.4.2"));
        let first = said(Some(&seven), IfOlder::Refuse, None);
        assert!(first.ends_with("is the first that orders its builds"), "{first}");
        let newer = said(Some(&seven), IfOlder::Refuse, Some(number(6)));
        assert!(newer.contains('7') && newer.contains('6') && newer.contains("newer"), "{newer}");
        let highest = said(Some(&version), IfOlder::Keep, Some(semver("1.4.1")));
        assert!(highest.contains("1.4.2") && highest.contains("1.4.1"), "{highest}");
        let again = said(Some(&seven), IfOlder::Refuse, Some(number(7)));
        assert!(again.ends_with("was accepted again"), "{again}");
        let back = Ask { allow_backward: true, ..ask(&wanted, Some(&seven), IfOlder::Refuse) };
        let back = explain_move(&back, &head(Some(number(8))));
        assert!(back.contains('8') && back.ends_with("because allow_backward says so"), "{back}");
    }

    #[test]
    fn a_tag_that_is_kept_says_whether_the_higher_version_has_it() {
        let (wanted, own) = (Digest::sha256(b""), semver("1.4.3"));
        let higher = Version::parse("1.5.0").unwrap();
        let ask = Ask { highest: Some(&higher), ..ask(&wanted, Some(&own), IfOlder::Keep) };
        let said = |head: &HeadState| explain(Reason::NotHighest, "a/b:latest", &ask, None, head);
        let held = said(&head(Some(semver("1.5.0"))));
        assert!(held.ends_with("nothing is to be done"), "{held}");
        // 1.5.0 failed and was put back; then: it was rolled back.
        let put_back = said(&head(Some(semver("1.4.2"))));
        let rolled_back = said(&HeadState { barrier: Some(5), ..head(Some(semver("1.5.0"))) });
        for text in [put_back, rolled_back] {
            assert!(text.contains("1.5.0") && text.contains("allow_backward"), "{text}");
        }
    }
}
