//! Releases: one in full, and lists.

use colophon_api::v1::{
    Attempt, ListReleasesResponse, Publication, Release, ReleaseState, Selection, TagKind, TagMove,
    TagMoveState,
};

use super::{more, pairs, short_time, time};
use crate::text::{append, bytes, clean, columns, or_dash, short_digest};

/// One release: its head, every tag of every publication, and what was tried in vain.
pub fn release(release: &Release) -> String {
    let open = !release.state().ended();
    let waits = match (release.waiting_reason.as_str(), release.waiting_for.as_str()) {
        _ if !open => String::new(),
        (what, "") | ("", what) => clean(what),
        (reason, what) => format!("{}, {}", clean(reason), clean(what)),
    };
    let cancel = if open && release.cancel_requested { "requested" } else { "" };
    let mut text = pairs(&[
        ("release", format!("{}  {}", clean(&release.id), release.state().short_name())),
        ("purpose", clean(&release.purpose)),
        ("source", clean(&release.source)),
        ("origin", clean(&release.origin)),
        ("digest", clean(&release.digest)),
        ("part of", clean(&release.source_digest)),
        ("along", release.selection.as_ref().map(along).unwrap_or_default()),
        ("version", clean(&release.semver)),
        ("plan", clean(&release.plan)),
        ("freezes", if release.break_glass { "passed by" } else { "" }.to_owned()),
        ("waits", waits),
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

/// What goes along with the image, where that is not what usually does.
fn along(selection: &Selection) -> String {
    let mut words = Vec::new();
    if !selection.platforms.is_empty() {
        words.push(format!("only {}", selection.platforms.join(", ")));
    }
    if !["", "all"].contains(&selection.referrers.concat().as_str()) {
        words.push(format!("referrers: {}", selection.referrers.join(", ")));
    }
    if selection.without_cosign {
        words.push("no tags of cosign".to_owned());
    }
    if selection.include_foreign {
        words.push("foreign layers".to_owned());
    }
    clean(&words.join("; "))
}

/// One tag in a table of tags: what it is, where it stands or would end, from which digest to which.
pub(super) fn tag_row(
    kind: TagKind,
    tag: &str,
    state: TagMoveState,
    (old, new): (&str, &str),
    reason: &str,
) -> [String; 6] {
    [
        kind.short_name().to_ascii_lowercase(),
        clean(tag),
        state.short_name().to_owned(),
        short_digest(old),
        short_digest(new),
        clean(reason),
    ]
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
            let digests = (&*tag.old_digest, &*tag.new_digest);
            tag_row(tag.kind(), &tag.tag, tag.state(), digests, &tag.reason)
        })
        .collect();
    text.push_str(&columns(["KIND", "TAG", "STATE", "OLD", "NEW", "REASON"], &rows, "  "));
    for tag in &p.tags {
        for remark in remarks(tag) {
            append(&mut text, format_args!("  {}: {remark}\n", clean(&tag.tag)));
        }
    }
    for tag in &p.companions {
        let state = tag.state().short_name();
        append(&mut text, format_args!("  with it: {}  {state}\n", clean(&tag.tag)));
    }
    for note in &p.notes {
        append(&mut text, format_args!("  note: {}\n", clean(note)));
    }
    text
}

/// What a reader has to know of a tag besides its row.
fn remarks(tag: &TagMove) -> Vec<String> {
    let mut remarks = Vec::new();
    let old = || short_digest(&tag.old_digest);
    match tag.state() {
        TagMoveState::Restored => remarks.push(format!("put back to {}", old())),
        TagMoveState::Restoring => remarks.push(format!("is being put back to {}", old())),
        _ => {}
    }
    remarks.extend(in_words(tag.state(), &tag.reason, &tag.message));
    if !tag.wanted_digest.is_empty() && tag.wanted_digest != tag.new_digest {
        remarks.push(format!("should be at {}", short_digest(&tag.wanted_digest)));
    }
    match tag.expected_digest.as_str() {
        "" => {}
        "none" => remarks.push("moves only if there was no such tag".to_owned()),
        digest => remarks.push(format!("moves only from {}", short_digest(digest))),
    }
    if !tag.order_key.is_empty() {
        remarks.push(format!("ordered by {}", clean(&tag.order_key)));
    }
    remarks
}

/// The server's words about a tag; where it has none, and nothing is wrong with a tag that stays,
/// ours.
pub fn in_words(state: TagMoveState, reason: &str, message: &str) -> Option<String> {
    if !message.is_empty() {
        return Some(clean(message));
    }
    let calm = match (state, reason) {
        (TagMoveState::Superseded, _) => "something newer has it, so it stays; nothing needs doing",
        (TagMoveState::Kept, "NOT_HIGHEST") => {
            "stays, as asked: it belongs to a higher version; nothing needs doing"
        }
        (TagMoveState::Kept, _) => "stays, as asked; nothing needs doing",
        _ => return None,
    };
    Some(calm.to_owned())
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
    let rows: Vec<[String; 7]> = list
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
                short_time(release.create_time.as_ref()),
                release.state().short_name().to_owned(),
                or_dash(&release.purpose),
                or_dash(&release.actor),
                clean(&release.source),
                clean(&targets.join(", ")),
            ]
        })
        .collect();
    let head = ["RELEASE", "CREATED", "STATE", "PURPOSE", "ACTOR", "SOURCE", "TARGETS"];
    columns(head, &rows, "") + more(&list.next_page_token)
}

#[cfg(test)]
mod tests {
    use colophon_api::v1::{PublicationState, TagKind};

    use super::*;

    fn digest(letter: &str) -> String {
        format!("sha256:{}", letter.repeat(64))
    }

    #[test]
    fn a_release_shows_every_tag_with_both_digests() {
        let moved = TagMove {
            tag: "1.4".into(),
            kind: TagKind::Floating.into(),
            state: TagMoveState::Moved.into(),
            old_digest: digest("a"),
            new_digest: digest("b"),
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
    fn a_rollback_says_what_it_is_and_what_it_waits_for() {
        let text = release(&Release {
            id: "1".into(),
            state: ReleaseState::Running.into(),
            purpose: "rollback".into(),
            waiting_for: "docker.io/acme/* until 14:02".into(),
            waiting_reason: "FROZEN".into(),
            break_glass: true,
            ..Release::default()
        });
        assert_eq!(
            text,
            "release  1  RUNNING\n\
             purpose  rollback\n\
             freezes  passed by\n\
             waits    FROZEN, docker.io/acme/* until 14:02\n"
        );
    }

    #[test]
    fn what_was_put_back_and_what_stays_is_said_in_words() {
        let tag = |name: &str, state: TagMoveState, reason: &str| TagMove {
            tag: name.into(),
            state: state.into(),
            reason: reason.into(),
            old_digest: digest("a"),
            ..TagMove::default()
        };
        let guarded = TagMove {
            wanted_digest: digest("c"),
            expected_digest: digest("a"),
            order_key: "number:7".into(),
            ..tag("4", TagMoveState::Pending, "")
        };
        let text = publication_table(&Publication {
            tags: vec![
                tag("1", TagMoveState::Restored, "RESTORED"),
                tag("2", TagMoveState::Superseded, "SUPERSEDED"),
                tag("3", TagMoveState::Kept, "NOT_HIGHEST"),
                guarded,
                tag("5", TagMoveState::Restoring, ""),
                TagMove {
                    message: "it was rolled back; publish again if it is wanted".into(),
                    ..tag("6", TagMoveState::Superseded, "SUPERSEDED")
                },
            ],
            ..Publication::default()
        });
        let (_, said) = text.split_once("  1: ").unwrap();
        assert_eq!(
            said,
            "put back to aaaaaaaaaaaa\n  \
               2: something newer has it, so it stays; nothing needs doing\n  \
               3: stays, as asked: it belongs to a higher version; nothing needs doing\n  \
               4: should be at cccccccccccc\n  \
               4: moves only from aaaaaaaaaaaa\n  \
               4: ordered by number:7\n  \
               5: is being put back to aaaaaaaaaaaa\n  \
               6: it was rolled back; publish again if it is wanted\n"
        );
    }

    #[test]
    fn a_list_has_its_head_when_it_is_empty() {
        assert!(releases(&ListReleasesResponse::default()).starts_with("RELEASE  CREATED"));
    }
}
