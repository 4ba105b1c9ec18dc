//! Plans.

use colophon_api::v1::{Plan, PlannedPublication};

use super::{
    pairs,
    release::{in_words, tag_row},
    short_time, time,
};
use crate::text::{append, bytes, clean, columns};

/// What a release would do, and the command line that does exactly that.
pub fn plan(plan: &Plan, publish: Option<&str>) -> String {
    let verdict = if plan.feasible { "feasible" } else { "something stands against it" };
    let mut text = pairs(&[
        ("plan", format!("{}  {verdict}", clean(&plan.id))),
        ("source", clean(&plan.source)),
        ("digest", clean(&plan.digest)),
        ("part of", clean(&plan.source_digest)),
        ("made", short_time(plan.create_time.as_ref())),
        ("holds until", time(plan.expire_time.as_ref())),
    ]);
    for publication in &plan.publications {
        text.push_str(&publication_table(publication));
    }
    text.push_str("\nNothing was moved. ");
    let id = clean(&plan.id);
    match publish {
        _ if !plan.feasible => {
            text.push_str("See to what stands against it, and plan again.\n");
        }
        Some(line) => append(&mut text, format_args!("To do exactly this:\n  {line}\n")),
        None => append(
            &mut text,
            format_args!("To do exactly this: `publish` with the same options and --plan {id}\n"),
        ),
    }
    text
}

fn publication_table(publication: &PlannedPublication) -> String {
    let p = publication;
    let mut text = format!("\n{}\n", clean(&p.repository));
    let rows: Vec<[String; 6]> = p
        .tags
        .iter()
        .map(|tag| {
            let digests = (&*tag.old_digest, &*tag.new_digest);
            tag_row(tag.kind(), &tag.tag, tag.outcome(), digests, &tag.reason)
        })
        .collect();
    text.push_str(&columns(["KIND", "TAG", "OUTCOME", "OLD", "NEW", "REASON"], &rows, "  "));
    for tag in &p.tags {
        if let Some(words) = in_words(tag.outcome(), &tag.reason, &tag.message) {
            append(&mut text, format_args!("  {}: {words}\n", clean(&tag.tag)));
        }
    }
    append(&mut text, format_args!("  copy: {}\n", copy(p)));
    for tag in &p.companion_tags {
        append(&mut text, format_args!("  with it: {}\n", clean(tag)));
    }
    for note in &p.notes {
        append(&mut text, format_args!("  note: {}\n", clean(note)));
    }
    for obstacle in &p.obstacles {
        let (reason, message) = (clean(&obstacle.reason), clean(&obstacle.message));
        append(&mut text, format_args!("  obstacle: {reason}: {message}\n"));
    }
    text
}

/// What must be copied, and from where.
fn copy(p: &PlannedPublication) -> String {
    if p.copy_from.is_empty() && p.manifests == 0 && p.blobs == 0 {
        // A target of which not even the tags could be looked at.
        return if p.tags.is_empty() { "not known" } else { "nothing" }.to_owned();
    }
    let from = match p.copy_from.as_str() {
        "" => String::new(),
        source => format!(", from {}", clean(source)),
    };
    let some = |number: i64, what: &str| match number {
        1 => format!("1 {what}"),
        many => format!("{many} {what}s"),
    };
    let (blobs, manifests) = (some(p.blobs, "blob"), some(p.manifests, "manifest"));
    format!("{} in {blobs} and {manifests}{from}", bytes(p.bytes))
}

#[cfg(test)]
mod tests {
    use colophon_api::v1::{Obstacle, PlannedTag, TagKind, TagMoveState};

    use super::*;

    fn planned() -> Plan {
        let tag = |name: &str, outcome: TagMoveState, reason: &str, message: &str| PlannedTag {
            tag: name.into(),
            kind: TagKind::Floating.into(),
            old_digest: format!("sha256:{}", "a".repeat(64)),
            new_digest: format!("sha256:{}", "b".repeat(64)),
            outcome: outcome.into(),
            reason: reason.into(),
            message: message.into(),
        };
        Plan {
            id: "p1".into(),
            source: "a/x:1".into(),
            digest: "sha256:bb".into(),
            publications: vec![
                PlannedPublication {
                    repository: "b/x".into(),
                    tags: vec![
                        tag("1.4", TagMoveState::Moved, "", ""),
                        tag("latest", TagMoveState::Kept, "NOT_HIGHEST", "2.0.1 holds it\u{7}"),
                    ],
                    copy_from: "a/x@sha256:bb".into(),
                    manifests: 1,
                    blobs: 3,
                    bytes: 1_572_864,
                    ..PlannedPublication::default()
                },
                PlannedPublication {
                    repository: "c/x".into(),
                    obstacles: vec![Obstacle {
                        reason: "FROZEN".into(),
                        message: "until 14:02".into(),
                    }],
                    ..PlannedPublication::default()
                },
            ],
            create_time: Some("2026-11-03T14:02:00.5Z".parse().unwrap()),
            expire_time: Some("2026-11-03T15:02:00Z".parse().unwrap()),
            ..Plan::default()
        }
    }

    #[test]
    fn a_plan_shows_every_tag_what_is_copied_and_what_stands_against_it() {
        assert_eq!(
            plan(&planned(), Some("colophon publish a/x:1 --plan p1")),
            "plan         p1  something stands against it\n\
             source       a/x:1\n\
             digest       sha256:bb\n\
             made         2026-11-03T14:02:00Z\n\
             holds until  2026-11-03T15:02:00Z\n\
             \n\
             b/x\n  \
               KIND      TAG     OUTCOME  OLD           NEW           REASON\n  \
               floating  1.4     MOVED    aaaaaaaaaaaa  bbbbbbbbbbbb\n  \
               floating  latest  KEPT     aaaaaaaaaaaa  bbbbbbbbbbbb  NOT_HIGHEST\n  \
               latest: 2.0.1 holds it\u{fffd}\n  \
               copy: 1.50 MiB in 3 blobs and 1 manifest, from a/x@sha256:bb\n\
             \n\
             c/x\n  \
               KIND  TAG  OUTCOME  OLD  NEW  REASON\n  \
               copy: not known\n  \
               obstacle: FROZEN: until 14:02\n\
             \n\
             Nothing was moved. See to what stands against it, and plan again.\n"
        );
    }

    #[test]
    fn only_a_plan_that_can_be_followed_says_how() {
        let said = |id: &str, feasible| {
            let plan = Plan { id: id.into(), feasible, ..planned() };
            super::plan(&plan, Some("colophon publish a/x:1 --plan p1"))
        };
        assert!(said("p1", true).ends_with("exactly this:\n  colophon publish a/x:1 --plan p1\n"));
        assert!(!said("p1", false).contains("colophon publish"));
    }

    #[test]
    fn a_line_that_cannot_be_shown_is_told_in_words() {
        let text = plan(&Plan { feasible: true, ..planned() }, None);
        assert!(text.starts_with("plan         p1  feasible\n"), "{text}");
        assert!(text.ends_with("`publish` with the same options and --plan p1\n"), "{text}");
    }
}
