//! Tags: what one pointed to, and the moves of many.

use colophon_api::v1::{Certainty, ListTagMovesResponse, Tag, TagEntry};

use super::{actor, more, pairs, short_time, time};
use crate::text::{append, clean, first_part, last_part, narrow_columns, or_dash, short_digest};

/// How wide the table of moves is meant to be, in characters.
const WIDTH: usize = 120;

/// A line for each move. Where all are of one repository it stands above the table, once; where
/// they are not, the references need the room that the releases have else.
pub fn moves(list: &ListTagMovesResponse) -> String {
    let common = common_repository(&list.moves);
    let rows = list.moves.iter().map(|entry| entry_row(entry, common));
    let text = if let Some(repository) = common {
        let head = ["AT", "KIND", "TAG", "OLD", "NEW", "ACTOR", "RELEASE", "REASON"];
        let table = narrow_columns(head, rows.collect(), WIDTH);
        format!("{}\n{table}", clean(repository))
    } else {
        let without = |[at, kind, name, old, new, actor, _, reason]: [String; 8]| {
            [at, kind, name, old, new, actor, reason]
        };
        let head = ["AT", "KIND", "REFERENCE", "OLD", "NEW", "ACTOR", "REASON"];
        narrow_columns(head, rows.map(without).collect(), WIDTH)
    };
    text + more(&list.next_page_token)
}

/// The repository of all moves, if it is one.
fn common_repository(moves: &[TagEntry]) -> Option<&str> {
    let mut repositories = moves.iter().map(|entry| split(&entry.reference).map(|(name, _)| name));
    let first = repositories.next()??;
    repositories.all(|other| other == Some(first)).then_some(first)
}

/// Repository and tag of a reference.
fn split(reference: &str) -> Option<(&str, &str)> {
    let (repository, tag) = reference.rsplit_once(':')?;
    // A colon before a slash belongs to a port.
    (!tag.contains('/')).then_some((repository, tag))
}

fn entry_row(entry: &TagEntry, common: Option<&str>) -> [String; 8] {
    // What is no publishing is said first: the words are the release's, and sound the same.
    let purpose = match entry.purpose.as_str() {
        "publish" | "observation" => "",
        other => other,
    };
    let parts = [purpose, &entry.reason_code, &entry.reason];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let reason = parts.join(": ");
    let name = match (common, split(&entry.reference)) {
        (Some(_), Some((_, tag))) => first_part(&clean(tag), 24),
        _ => last_part(&clean(&entry.reference), 30),
    };
    [
        short_time(entry.at.as_ref()),
        clean(&entry.kind),
        name,
        short_digest(&entry.old_digest),
        short_digest(&entry.new_digest),
        first_part(&actor(&entry.actor, &entry.on_behalf_of), 16),
        // The first half of a UUID of version 7 is its time: enough to tell releases apart.
        or_dash(&entry.release.chars().take(13).collect::<String>()),
        clean(&reason),
    ]
}

/// What a tag pointed to, how certain that is, and who moved it there.
pub fn tag(tag: &Tag) -> String {
    let digest = match (tag.digest.as_str(), tag.certainty()) {
        // "No such tag" would be an answer, and there is none.
        ("", Certainty::Unknown) => "not known".to_owned(),
        ("", _) => "no such tag".to_owned(),
        (digest, _) => clean(digest),
    };
    let entry = tag.entry.as_ref();
    let moved = |entry: &TagEntry| {
        let mut text = format!("{} {}", time(entry.at.as_ref()), clean(&entry.kind));
        if !entry.actor.is_empty() {
            append(&mut text, format_args!(" by {}", actor(&entry.actor, &entry.on_behalf_of)));
        }
        text
    };
    pairs(&[
        ("reference", clean(&tag.reference)),
        ("at", time(tag.at.as_ref())),
        ("digest", digest),
        ("certainty", tag.certainty().short_name().to_owned()),
        ("", clean(&tag.explanation)),
        ("observed", tag.last_observed_time.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("recorded", entry.map(moved).unwrap_or_default()),
        ("release", entry.map(|entry| clean(&entry.release)).unwrap_or_default()),
        ("source", entry.map(|entry| clean(&entry.source)).unwrap_or_default()),
        ("reason", entry.map(|entry| clean(&entry.reason)).unwrap_or_default()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_about_a_tag_says_how_certain_it_is() {
        let text = tag(&Tag {
            reference: "b/x:1".into(),
            certainty: Certainty::Unknown.into(),
            explanation: "the time lies before the first entry".into(),
            at: Some("2026-11-03T14:02:00Z".parse().unwrap()),
            ..Tag::default()
        });
        assert_eq!(
            text,
            "reference  b/x:1\n\
             at         2026-11-03T14:02:00Z\n\
             digest     not known\n\
             certainty  UNKNOWN\n           \
             the time lies before the first entry\n"
        );
    }

    #[test]
    fn a_tag_that_is_not_there_is_told_from_one_that_nobody_knows() {
        let said = |certainty: Certainty| {
            tag(&Tag { reference: "b/x:1".into(), certainty: certainty.into(), ..Tag::default() })
        };
        assert!(said(Certainty::Unknown).contains("not known"));
        assert!(said(Certainty::Confirmed).contains("no such tag"));
        assert!(said(Certainty::LastObserved).contains("no such tag"));
    }

    fn entry(reference: &str) -> TagEntry {
        TagEntry {
            kind: "not_applied".into(),
            reference: reference.into(),
            old_digest: format!("sha256:{}", "a".repeat(64)),
            new_digest: format!("sha256:{}", "b".repeat(64)),
            at: Some("2026-11-03T14:02:00.120500Z".parse().unwrap()),
            release: "019a4d1c-0000-7000-8000-000000000001".into(),
            actor: "release-pipeline".into(),
            on_behalf_of: "ada.lovelace@example.com".into(),
            reason_code: "SUPERSEDED".into(),
            reason: "the weekly release of everything, ".repeat(20),
            ..TagEntry::default()
        }
    }

    #[test]
    fn the_table_of_moves_fits_a_terminal() {
        let mut list = ListTagMovesResponse {
            moves: vec![entry("docker.io/acme/app:1.4"), entry("docker.io/acme/app:latest")],
            ..ListTagMovesResponse::default()
        };
        let widest = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        let text = moves(&list);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("docker.io/acme/app"));
        assert!(lines.next().unwrap().contains("  TAG     OLD"), "{text}");
        assert!(lines.next().unwrap().starts_with("2026-11-03T14:02:00Z  not_applied  1.4 "));
        assert!(text.contains("  019a4d1c-0000  SUPERSEDED:"), "{text}");
        assert!(widest(&text) <= 125, "{text}");
        list.moves.push(entry("registry.corp.lan:5000/platform/tools/builder:2026.11"));
        let text = moves(&list);
        assert!(
            text.contains("REFERENCE") && text.contains("…latform/tools/builder:2026.11"),
            "{text}"
        );
        assert!(widest(&text) <= 135, "{text}");
    }

    #[test]
    fn a_move_that_is_no_publishing_says_so() {
        let said = |purpose: &str| {
            let entry = TagEntry { purpose: purpose.into(), ..entry("b/x:1") };
            moves(&ListTagMovesResponse { moves: vec![entry], ..Default::default() })
        };
        assert!(said("rollback").contains("  rollback: SUPERSED"));
        assert!(said("restore").contains("  restore: SUPERSED"));
        assert!(said("publish").contains("  SUPERSEDED: "));
        assert!(said("observation").contains("  SUPERSEDED"));
    }

    #[test]
    fn a_list_has_a_head_and_says_when_there_is_more() {
        let mut list = ListTagMovesResponse::default();
        assert!(moves(&list).starts_with("AT  KIND"));
        list.next_page_token = "x".into();
        let (actor, on_behalf_of) = ("ci".into(), "ada".into());
        let release = String::new();
        let reason = "weekly".into();
        list.moves.push(TagEntry { actor, on_behalf_of, release, reason, ..entry("b/x:1") });
        let text = moves(&list);
        assert!(text.contains("ci for ada  -        SUPERSEDED: weekly"), "{text}");
        assert!(text.ends_with("raise --limit)\n"));
    }
}
