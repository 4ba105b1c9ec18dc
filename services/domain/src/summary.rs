//! One line about a release, fit for a chat message: what goes where, how it stands, and why.

use crate::{
    Digest, Phase, PublicationView, Reason, ReleaseState, ReleaseView, TagMoveState, TagMoveView,
    TagOrDigest,
};

/// A summary has at most so many characters.
const LONGEST: usize = 300;
/// What is published where has at most so many of them.
const LONGEST_HEAD: usize = 150;
/// So many tags are named.
const NAMED: usize = 6;
/// So many characters of a digest tell it from others.
const SHORT_DIGEST: usize = 12;

/// Sums a release up. The same view gives the same text; what others have written (a registry's
/// words, a reason) loses everything that a chat would read as markup or as a mention.
pub fn summary(view: &ReleaseView) -> String {
    let head = cut(&format!("{} -> {}", what(view), targets(&view.publications)), LONGEST_HEAD);
    let tags = || view.publications.iter().flat_map(|publication| &publication.tags);
    let good = tags().filter(|tag| tag.state.good()).count();
    let count = format!("; {good} of {} tags", tags().count());
    let middle = match view.state {
        ReleaseState::Succeeded => moved(view),
        ReleaseState::Queued | ReleaseState::Running => working(view),
        ReleaseState::Failed | ReleaseState::Errored | ReleaseState::Cancelled => ended(view),
    };
    let used = head.chars().count() + ": ".len() + count.chars().count();
    format!("{head}: {}{count}", cut(&plain(&middle), LONGEST.saturating_sub(used)))
}

/// The image and its version; without a version the tag or the digest that it was published from.
fn what(view: &ReleaseView) -> String {
    let name = view.source.repository.name();
    let name = name.rsplit('/').next().unwrap_or(name);
    match (&view.version, &view.source.target) {
        (Some(version), _) => format!("{name} {version}"),
        (None, TagOrDigest::Tag(tag)) => format!("{name} {tag}"),
        (None, TagOrDigest::Digest(digest)) => format!("{name} {}", short(digest)),
    }
}

fn targets(publications: &[PublicationView]) -> String {
    match publications {
        [] => "nowhere".to_owned(),
        [only] => only.repository.to_string(),
        [first, more @ ..] => format!("{} and {} more", first.repository, more.len()),
    }
}

/// The tags that are where they should be, each once, and their digest if they share one.
fn moved(view: &ReleaseView) -> String {
    let there =
        |tag: &&TagMoveView| matches!(tag.state, TagMoveState::Moved | TagMoveState::Unchanged);
    let tags: Vec<&TagMoveView> =
        view.publications.iter().flat_map(|target| &target.tags).filter(there).collect();
    let mut names: Vec<&str> = Vec::new();
    for tag in &tags {
        if !names.contains(&tag.tag.as_str()) {
            names.push(tag.tag.as_str());
        }
    }
    let mut text = match names.len().checked_sub(NAMED) {
        _ if names.is_empty() => return "no tag moved".to_owned(),
        Some(more @ 1..) => {
            format!("{} and {more} more", names.get(..NAMED).unwrap_or_default().join(", "))
        }
        _ => names.join(", "),
    };
    let mut digests = tags.iter().map(|tag| tag.new_digest.as_ref().unwrap_or(&view.digest));
    if let Some(first) = digests.next()
        && digests.all(|digest| digest == first)
    {
        text.push_str(" at ");
        text.push_str(&short(first));
    }
    text
}

fn working(view: &ReleaseView) -> String {
    let state = view.state.as_str().to_ascii_lowercase();
    if let Some(what) = view.waiting_for.as_deref().or(view.waiting_reason.map(Reason::as_str)) {
        let mut text = format!("waits for {what}");
        if let Some(until) = view.waiting_until.filter(|_| !what.contains("until")) {
            let until = until.to_offset(time::UtcOffset::UTC);
            let minute = format!(" until {:02}:{:02} UTC", until.hour(), until.minute());
            text.push_str(&minute);
        }
        return text;
    }
    match view.phase {
        Phase::Copy => {
            let sum = |of: fn(&PublicationView) -> i64| {
                view.publications.iter().map(of).fold(0_i64, i64::saturating_add)
            };
            let total = sum(|target| target.copied.bytes_total);
            let sent = sum(|target| target.copied.bytes_copied).min(total);
            if total > 0 {
                format!("{state}, copy, {sent} of {total} bytes sent")
            } else {
                format!("{state}, copy")
            }
        }
        phase => format!("{state}, {phase}"),
    }
}

fn ended(view: &ReleaseView) -> String {
    let mut text = view.state.to_string();
    if let Some(reason) = view.state_reason.filter(|reason| reason.as_str() != text) {
        text.push(' ');
        text.push_str(reason.as_str());
    }
    if !view.message.is_empty() {
        text.push_str(": ");
        text.push_str(&view.message);
    }
    text
}

/// The algorithm and the first characters.
fn short(digest: &Digest) -> String {
    let (algorithm, hex) = digest.as_str().split_once(':').unwrap_or(("", digest.as_str()));
    format!("{algorithm}:{}", hex.get(..SHORT_DIGEST).unwrap_or(hex))
}

/// Leaves letters, digits and quiet punctuation; one space for everything else. An `@` stays only
/// before a digest, and an address is no link, since no slash stays behind a colon.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let digest = || ["sha256:", "sha512:"].iter().any(|sha| rest.as_str().starts_with(sha));
        if c == '/' && plain.ends_with(':') {
            continue;
        }
        if c.is_alphanumeric() || ".,:;/-_+()='\"%".contains(c) || c == '@' && digest() {
            plain.push(c);
        } else if !plain.ends_with(' ') {
            plain.push(' ');
        }
    }
    plain.truncate(plain.trim_end().len());
    plain
}

/// At most `limit` characters; one that was cut ends in an ellipsis.
fn cut(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(limit.saturating_sub(1)).collect();
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::{CopyTotals, OnFailure, PublicationState, Purpose, Repository, TagKind};

    fn tag(name: &str, state: TagMoveState) -> TagMoveView {
        TagMoveView {
            tag: name.parse().unwrap(),
            kind: TagKind::Floating,
            state,
            reason: None,
            message: String::new(),
            old_digest: None,
            new_digest: state.good().then(|| Digest::sha256(b"")),
            wanted: None,
            expected: None,
            order: None,
            ticket: None,
            ended_at: None,
        }
    }

    fn target(repository: &str, tags: Vec<TagMoveView>) -> PublicationView {
        PublicationView {
            repository: Repository::parse(repository).unwrap(),
            state: PublicationState::Queued,
            tags,
            copied: CopyTotals::default(),
            companions: vec![],
        }
    }

    fn release(state: ReleaseState, publications: Vec<PublicationView>) -> ReleaseView {
        ReleaseView {
            id: Uuid::nil(),
            source: "stage.lan/acme/myapp:build-7".parse().unwrap(),
            digest: Digest::sha256(b""),
            made_from: None,
            selection: crate::Selection::default(),
            state,
            state_reason: None,
            message: String::new(),
            phase: Phase::Copy,
            waiting_for: None,
            publications,
            actor: String::new(),
            on_behalf_of: String::new(),
            reason: String::new(),
            labels: std::collections::BTreeMap::new(),
            not_after: None,
            priority: 0,
            created_at: datetime!(2026-11-03 14:02:00 UTC),
            started_at: None,
            ended_at: None,
            attempts: vec![],
            cancel_requested: false,
            purpose: Purpose::Publish,
            waiting_reason: None,
            on_failure: OnFailure::Restore,
            plan: None,
            version: Some("1.4.2".into()),
            break_glass: false,
            waiting_until: None,
            revision: 1,
            allow_backward: false,
            retries: vec![],
            origin: String::new(),
        }
    }

    #[test]
    fn a_success_names_its_tags_and_their_digest() {
        use TagMoveState::{Kept, Moved, Unchanged};
        let tags = || vec![tag("v1.4.2", Moved), tag("v1", Unchanged), tag("latest", Kept)];
        let one = vec![target("ghcr.io/acme/myapp", tags())];
        assert_eq!(
            summary(&release(ReleaseState::Succeeded, one)),
            "myapp 1.4.2 -> ghcr.io/acme/myapp: v1.4.2, v1 at sha256:e3b0c44298fc; 3 of 3 tags"
        );
        let two = vec![target("ghcr.io/acme/myapp", tags()), target("docker.io/acme/x", tags())];
        let mut view = ReleaseView { version: None, ..release(ReleaseState::Succeeded, two) };
        view.publications[1].tags[0].new_digest = Some(Digest::sha256(b"other"));
        let text = summary(&view);
        assert_eq!(text, "myapp build-7 -> ghcr.io/acme/myapp and 1 more: v1.4.2, v1; 6 of 6 tags");
    }

    #[test]
    fn what_failed_and_what_is_waited_for_is_said() {
        use TagMoveState::{NotAttempted, Pending, Refused};
        let tags = vec![tag("1", Refused), tag("latest", NotAttempted)];
        let mut failed = release(ReleaseState::Failed, vec![target("ghcr.io/a/b", tags)]);
        failed.state_reason = Some(Reason::TagImmutable);
        failed.message = "ghcr.io/a/b:1 is at sha256:ab already".into();
        assert_eq!(
            summary(&failed),
            "myapp 1.4.2 -> ghcr.io/a/b: FAILED TAG_IMMUTABLE: ghcr.io/a/b:1 is at sha256:ab \
             already; 0 of 2 tags"
        );
        let mut waiting =
            release(ReleaseState::Running, vec![target("ghcr.io/a/b", vec![tag("1", Pending)])]);
        assert!(summary(&waiting).ends_with(": running, copy; 0 of 1 tags"));
        waiting.publications[0].copied.bytes_total = 10;
        assert!(summary(&waiting).contains(": running, copy, 0 of 10 bytes sent;"));
        waiting.waiting_for = Some("docker.io".into());
        waiting.waiting_until = Some(datetime!(2026-11-03 12:04:31 UTC));
        assert!(summary(&waiting).ends_with(": waits for docker.io until 12:04 UTC; 0 of 1 tags"));
        let mut cancelled = release(ReleaseState::Cancelled, vec![]);
        cancelled.state_reason = Some(Reason::Cancelled);
        assert_eq!(summary(&cancelled), "myapp 1.4.2 -> nowhere: CANCELLED; 0 of 0 tags");
    }

    #[test]
    fn what_others_wrote_is_no_markup_and_has_an_end() {
        let mut view = release(ReleaseState::Failed, vec![]);
        view.message =
            "<!channel> **bold** [x](https://evil.example) @all\n`code` a@sha256:1".into();
        let text = summary(&view);
        assert!(
            text.contains(": channel bold x (https:evil.example) all code a@sha256:1;"),
            "{text}"
        );
        view.message = "https:////evil.example http:/</evil.example @shaun @shared @sha256".into();
        let text = summary(&view);
        assert!(
            text.contains(": https:evil.example http: /evil.example shaun shared sha256;"),
            "{text}"
        );
        view.message = "é".repeat(10_000);
        let long = format!("r.lan/{}", "a/".repeat(120) + "b");
        view.publications = vec![target(&long, vec![tag(&"t".repeat(128), TagMoveState::Failed)])];
        let text = summary(&view);
        assert_eq!(text.chars().count(), LONGEST, "{text}");
        assert!(text.ends_with("…; 0 of 1 tags"), "{text}");
    }

    #[test]
    fn many_tags_are_counted() {
        let tags = (0..20).map(|n| tag(&format!("v{n}"), TagMoveState::Moved)).collect();
        let text = summary(&release(ReleaseState::Succeeded, vec![target("a.io/b", tags)]));
        assert!(text.contains("v0, v1, v2, v3, v4, v5 and 14 more at sha256:"), "{text}");
    }
}
