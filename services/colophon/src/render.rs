//! Tables on stdout. Their layout is for people and may change; scripts take `--output json`.

use colophon_api::{
    Timestamp,
    v1::{
        Attempt, ListReleasesResponse, ListTagMovesResponse, Publication, Release, ReleaseState,
        Tag, TagEntry,
    },
};

use crate::text::{append, bytes, clean, columns, or_dash, short_digest};

/// One release: its head, every tag of every publication, and what was tried in vain.
pub fn release(release: &Release) -> String {
    let open = !release.state().ended();
    let waiting = if open { clean(&release.waiting_for) } else { String::new() };
    let cancel = if open && release.cancel_requested { "requested" } else { "" };
    let mut text = pairs(&[
        ("release", format!("{}  {}", clean(&release.id), release.state().short_name())),
        ("source", clean(&release.source)),
        ("digest", clean(&release.digest)),
        ("waiting", waiting),
        ("cancel", cancel.to_owned()),
        ("reason", clean(&release.state_reason)),
        ("message", clean(&release.message)),
    ]);
    for publication in &release.publications {
        text.push_str(&publication_table(publication));
    }
    if release.state() != ReleaseState::Succeeded && !release.attempts.is_empty() {
        text.push_str(&attempts(&release.attempts));
    }
    text
}

fn publication_table(publication: &Publication) -> String {
    let p = publication;
    let state = p.state().short_name();
    let mut text = format!("\n{}  {state}", clean(&p.repository));
    if p.blobs_copied + p.blobs_mounted + p.blobs_present > 0 {
        append(
            &mut text,
            format_args!(
                "  {} sent, blobs: {} sent, {} mounted, {} present",
                bytes(p.bytes_copied),
                p.blobs_copied,
                p.blobs_mounted,
                p.blobs_present
            ),
        );
    }
    text.push('\n');
    let rows: Vec<[String; 6]> = p
        .tags
        .iter()
        .map(|tag| {
            [
                tag.kind().short_name().to_ascii_lowercase(),
                clean(&tag.tag),
                tag.state().short_name().to_owned(),
                short_digest(&tag.old_digest),
                short_digest(&tag.new_digest),
                clean(&tag.reason),
            ]
        })
        .collect();
    text.push_str(&columns(["KIND", "TAG", "STATE", "OLD", "NEW", "REASON"], &rows, "  "));
    for tag in p.tags.iter().filter(|tag| !tag.message.is_empty()) {
        append(&mut text, format_args!("  {}: {}\n", clean(&tag.tag), clean(&tag.message)));
    }
    for note in &p.notes {
        append(&mut text, format_args!("  note: {}\n", clean(note)));
    }
    text
}

fn attempts(attempts: &[Attempt]) -> String {
    let rows: Vec<[String; 6]> = attempts
        .iter()
        .map(|attempt| {
            [
                time(attempt.end_time.as_ref()),
                clean(&attempt.job),
                clean(&attempt.repository),
                attempt.number.to_string(),
                clean(&attempt.reason),
                clean(&attempt.message),
            ]
        })
        .collect();
    let head = ["ENDED", "JOB", "REPOSITORY", "ATTEMPT", "REASON", "MESSAGE"];
    format!("\n{}", columns(head, &rows, ""))
}

/// A line for each release.
pub fn releases(list: &ListReleasesResponse) -> String {
    let rows: Vec<[String; 6]> = list
        .releases
        .iter()
        .map(|release| {
            let targets: Vec<&str> = release
                .publications
                .iter()
                .map(|publication| publication.repository.as_str())
                .collect();
            [
                clean(&release.id),
                time(release.create_time.as_ref()),
                release.state().short_name().to_owned(),
                or_dash(&release.actor),
                clean(&release.source),
                clean(&targets.join(", ")),
            ]
        })
        .collect();
    let text = columns(["RELEASE", "CREATED", "STATE", "ACTOR", "SOURCE", "TARGETS"], &rows, "");
    text + more(&list.next_page_token)
}

/// A line for each move.
pub fn moves(list: &ListTagMovesResponse) -> String {
    let rows: Vec<[String; 8]> = list.moves.iter().map(entry_row).collect();
    let head = ["AT", "KIND", "REFERENCE", "OLD", "NEW", "ACTOR", "RELEASE", "REASON"];
    columns(head, &rows, "") + more(&list.next_page_token)
}

fn entry_row(entry: &TagEntry) -> [String; 8] {
    let reason = match (entry.reason_code.as_str(), entry.reason.as_str()) {
        (code, "") => code.to_owned(),
        ("", words) => words.to_owned(),
        (code, words) => format!("{code}: {words}"),
    };
    [
        time(entry.at.as_ref()),
        clean(&entry.kind),
        clean(&entry.reference),
        short_digest(&entry.old_digest),
        short_digest(&entry.new_digest),
        actor(&entry.actor, &entry.on_behalf_of),
        or_dash(&entry.release),
        clean(&reason),
    ]
}

/// What a tag pointed to, how certain that is, and who moved it there.
pub fn tag(tag: &Tag) -> String {
    let digest = if tag.digest.is_empty() { "no such tag".to_owned() } else { clean(&tag.digest) };
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

/// Names and values below each other; what is empty is left out.
fn pairs(pairs: &[(&str, String)]) -> String {
    let shown = || pairs.iter().filter(|(_, value)| !value.is_empty());
    let width = shown().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in shown() {
        append(&mut text, format_args!("{name:width$}  {value}\n"));
    }
    text
}

fn actor(actor: &str, on_behalf_of: &str) -> String {
    match on_behalf_of {
        "" => or_dash(actor),
        claimed => format!("{} for {}", or_dash(actor), clean(claimed)),
    }
}

fn time(time: Option<&Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), ToString::to_string)
}

fn more(token: &str) -> &'static str {
    if token.is_empty() { "" } else { "(there are more: raise --limit)\n" }
}

#[cfg(test)]
mod tests {
    use colophon_api::v1::{PublicationState, TagKind, TagMove, TagMoveState};

    use super::*;

    #[test]
    fn a_release_shows_every_tag_with_both_digests() {
        let moved = TagMove {
            tag: "1.4".into(),
            kind: TagKind::Floating.into(),
            state: TagMoveState::Moved.into(),
            old_digest: format!("sha256:{}", "a".repeat(64)),
            new_digest: format!("sha256:{}", "b".repeat(64)),
            ..TagMove::default()
        };
        let refused = TagMove {
            tag: "1.4.2".into(),
            kind: TagKind::Unique.into(),
            state: TagMoveState::Refused.into(),
            reason: "TAG_IMMUTABLE".into(),
            message: "it is at\u{1b}[31m another digest".into(),
            ..TagMove::default()
        };
        let text = release(&Release {
            id: "1".into(),
            source: "a/x:1".into(),
            digest: "sha256:bb".into(),
            state: ReleaseState::Failed.into(),
            state_reason: "TAG_IMMUTABLE".into(),
            waiting_for: "stale".into(),
            publications: vec![Publication {
                repository: "b/x".into(),
                state: PublicationState::Failed.into(),
                tags: vec![refused, moved],
                blobs_copied: 2,
                bytes_copied: 2048,
                notes: vec!["one foreign layer was left out".into()],
                ..Publication::default()
            }],
            ..Release::default()
        });
        assert_eq!(
            text,
            "release  1  FAILED\n\
             source   a/x:1\n\
             digest   sha256:bb\n\
             reason   TAG_IMMUTABLE\n\
             \n\
             b/x  FAILED  2.00 KiB sent, blobs: 2 sent, 0 mounted, 0 present\n  \
               KIND      TAG    STATE    OLD           NEW           REASON\n  \
               unique    1.4.2  REFUSED  -             -             TAG_IMMUTABLE\n  \
               floating  1.4    MOVED    aaaaaaaaaaaa  bbbbbbbbbbbb\n  \
               1.4.2: it is at\u{fffd}[31m another digest\n  \
               note: one foreign layer was left out\n"
        );
    }

    #[test]
    fn an_errored_release_shows_its_attempts() {
        let attempt = Attempt {
            job: "copy".into(),
            repository: "b/x".into(),
            number: 8,
            reason: "REGISTRY_UNAVAILABLE".into(),
            message: "503".into(),
            ..Attempt::default()
        };
        let state = ReleaseState::Errored.into();
        let text = release(&Release { state, attempts: vec![attempt], ..Release::default() });
        assert!(text.contains("copy  b/x         8        REGISTRY_UNAVAILABLE  503"), "{text}");
    }

    #[test]
    fn an_answer_about_a_tag_says_how_certain_it_is() {
        let text = tag(&Tag {
            reference: "b/x:1".into(),
            certainty: colophon_api::v1::Certainty::Unknown.into(),
            explanation: "the time lies before the first entry".into(),
            at: Some("2026-11-03T14:02:00Z".parse().unwrap()),
            ..Tag::default()
        });
        assert_eq!(
            text,
            "reference  b/x:1\n\
             at         2026-11-03T14:02:00Z\n\
             digest     no such tag\n\
             certainty  UNKNOWN\n           \
             the time lies before the first entry\n"
        );
    }

    #[test]
    fn lists_have_a_head_and_say_when_there_is_more() {
        let mut list = ListTagMovesResponse::default();
        assert!(moves(&list).starts_with("AT  KIND"));
        list.next_page_token = "x".into();
        list.moves.push(TagEntry {
            actor: "ci".into(),
            on_behalf_of: "ada".into(),
            reason_code: "SUPERSEDED".into(),
            reason: "weekly".into(),
            ..TagEntry::default()
        });
        let text = moves(&list);
        assert!(text.contains("ci for ada  -        SUPERSEDED: weekly"), "{text}");
        assert!(text.ends_with("raise --limit)\n"));
        assert!(releases(&ListReleasesResponse::default()).starts_with("RELEASE  CREATED"));
    }
}
