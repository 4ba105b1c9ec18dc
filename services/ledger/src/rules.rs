//! Which fields go together: an entry that says too much or too little for its kind is neither
//! written nor read. The table is in `docs/ledger-format.md`.

use crate::{
    Kind, Purpose,
    entry::{Entry, EntryError},
    text::{is_digest, is_entry_id, is_reason_code, is_registry, is_repository, is_tag},
};

/// Checks the form of every value and the rules of the entry's kind.
pub(crate) fn check(entry: &Entry) -> Result<(), EntryError> {
    forms(entry)?;
    reference(entry)?;
    position(entry)?;
    purpose(entry)?;
    states(entry)?;
    links(entry)?;
    details(entry)
}

fn rule(holds: bool, text: &'static str) -> Result<(), EntryError> {
    if holds { Ok(()) } else { Err(EntryError::Rule(text)) }
}

fn forms(entry: &Entry) -> Result<(), EntryError> {
    let field = |holds: bool, name| if holds { Ok(()) } else { Err(EntryError::Field(name)) };
    field(is_entry_id(entry.id), "id")?;
    field(entry.old.as_deref().is_none_or(is_digest), "old")?;
    field(entry.new.as_deref().is_none_or(is_digest), "new")?;
    field(entry.intent.is_none_or(is_entry_id), "intent")?;
    field(entry.reason_code.as_deref().is_none_or(is_reason_code), "reason_code")?;
    field(entry.after.is_none_or(|after| after.size > 0), "after.size")?;
    if let Some(source) = &entry.source {
        field(is_registry(&source.registry), "source.registry")?;
        field(is_repository(&source.repository), "source.repository")?;
        field(is_digest(&source.digest), "source.digest")?;
    }
    if !entry.is_about_the_log() {
        field(is_registry(&entry.registry), "registry")?;
        field(is_repository(&entry.repository), "repository")?;
        field(is_tag(&entry.tag), "tag")?;
    }
    Ok(())
}

fn reference(entry: &Entry) -> Result<(), EntryError> {
    match entry.kind {
        Kind::KeyRotation => {
            rule(entry.is_about_the_log(), "a key rotation is about the log and names no tag")
        }
        kind if kind.is_remark() => Ok(()),
        _ => rule(!entry.is_about_the_log(), "an entry of this kind names a tag"),
    }
}

fn position(entry: &Entry) -> Result<(), EntryError> {
    rule(entry.tag_seq > 0, "tag_seq counts from 1")?;
    rule(
        (entry.tag_seq == 1) == entry.prev.is_none(),
        "the first entry of a tag has no prev, and every later one has",
    )?;
    rule(
        entry.kind != Kind::Baseline || entry.tag_seq == 1,
        "a baseline is the first entry of its tag",
    )
}

fn purpose(entry: &Entry) -> Result<(), EntryError> {
    let acts =
        entry.kind == Kind::Intent || entry.kind == Kind::Unchanged || entry.kind.is_outcome();
    rule(
        acts == (entry.purpose != Purpose::Observation),
        "intents, their outcomes and `unchanged` have the purpose of the request; the purpose of \
         every other kind is observation",
    )
}

fn states(entry: &Entry) -> Result<(), EntryError> {
    let (old, new) = (entry.old.as_deref(), entry.new.as_deref());
    rule(
        entry.tag_seq != 1 || old.is_none() || matches!(entry.kind, Kind::KeyRotation),
        "nothing is known before the first entry of a tag: if it is there, write a baseline first",
    )?;
    match entry.kind {
        Kind::Baseline => {
            rule(old.is_none() && new.is_some(), "a baseline has no old digest and a new one")
        }
        Kind::Intent => {
            rule(old != new, "an intent whose new digest is the old one is `unchanged`")?;
            rule(
                new.is_some() || entry.purpose == Purpose::Retention,
                "only retention may intend that a tag ends",
            )
        }
        Kind::Unchanged | Kind::NotApplied => {
            rule(old == new, "what did not move has the same digest before and after")?;
            rule(
                entry.kind == Kind::NotApplied || new.is_some(),
                "`unchanged` says which digest the tag has",
            )
        }
        Kind::Confirmed | Kind::Recovered | Kind::Conflict => {
            rule(old != new, "what moved has another digest afterwards")
        }
        Kind::Drift => rule(
            new.is_some() && old != new,
            "a drift has another new digest; if there is none, the kind is `deleted`",
        ),
        Kind::Deleted => {
            rule(old.is_some() && new.is_none(), "a deletion has an old digest and no new one")
        }
        Kind::Annotation | Kind::Redaction => {
            rule(old.is_none() && new.is_none(), "a remark says nothing about digests")
        }
        Kind::KeyRotation => rule(
            old.is_some() && new.is_some() && old != new,
            "a key rotation names the digests of both keys",
        ),
    }
}

fn links(entry: &Entry) -> Result<(), EntryError> {
    let needed = entry.kind.is_outcome() || entry.kind.is_remark();
    rule(
        entry.intent.is_some() == needed,
        "outcomes name their intent and remarks the entry they are about; no other kind does",
    )?;
    rule(entry.intent != Some(entry.id), "an entry does not belong to itself")?;
    rule(!needed || entry.tag_seq > 1, "what belongs to an earlier entry is not the first one")
}

fn details(entry: &Entry) -> Result<(), EntryError> {
    let kind = entry.kind;
    let window = matches!(kind, Kind::Drift | Kind::Deleted | Kind::Recovered | Kind::Conflict);
    rule(entry.not_before.is_none() || window, "an entry of this kind has no not_before")?;
    rule(entry.not_before.is_none_or(|time| time <= entry.at), "not_before is not later than at")?;
    let asked = !kind.is_observation();
    rule(
        asked || (entry.actor.is_none() && entry.reason.is_none()),
        "who moved a tag that was only observed is not known: no actor and no reason",
    )?;
    rule(kind != Kind::Intent || entry.actor.is_some(), "an intent has an actor")?;
    rule(kind != Kind::Annotation || entry.reason.is_some(), "an annotation has a reason")?;
    let content = kind == Kind::Intent || kind == Kind::Unchanged || kind.is_outcome();
    rule(content || entry.source.is_none(), "an entry of this kind has no source")?;
    rule(
        kind != Kind::KeyRotation || entry.release.is_none(),
        "a key rotation belongs to no release",
    )
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;
    use crate::{Commitment, sample};

    fn sound() -> Vec<Entry> {
        let make = sample::entry;
        vec![
            make(Kind::Baseline, 1, None, Some(1)),
            make(Kind::Intent, 1, None, Some(1)),
            make(Kind::Intent, 2, Some(1), Some(2)),
            make(Kind::Confirmed, 3, Some(1), Some(2)),
            make(Kind::Unchanged, 2, Some(1), Some(1)),
            make(Kind::Recovered, 3, None, Some(2)),
            make(Kind::NotApplied, 3, Some(1), Some(1)),
            make(Kind::NotApplied, 3, None, None),
            make(Kind::Conflict, 3, Some(1), None),
            make(Kind::Drift, 2, Some(1), Some(2)),
            make(Kind::Drift, 2, None, Some(2)),
            make(Kind::Deleted, 2, Some(1), None),
            make(Kind::Annotation, 2, None, None),
            make(Kind::Redaction, 2, None, None),
            make(Kind::KeyRotation, 1, Some(1), Some(2)),
        ]
    }

    #[test]
    fn sound_entries_pass_and_no_digest_may_be_swapped() {
        for entry in sound() {
            check(&entry).unwrap();
        }
        let wrong = [
            (Kind::Baseline, 1, Some(1), Some(2)),
            (Kind::Baseline, 1, None, None),
            (Kind::Baseline, 2, None, Some(1)),
            (Kind::Intent, 1, Some(1), Some(2)),
            (Kind::Intent, 2, Some(1), Some(1)),
            (Kind::Intent, 2, Some(1), None),
            (Kind::Confirmed, 3, Some(1), Some(1)),
            (Kind::Confirmed, 1, None, Some(1)),
            (Kind::Unchanged, 2, Some(1), Some(2)),
            (Kind::Unchanged, 2, None, None),
            (Kind::NotApplied, 3, Some(1), Some(2)),
            (Kind::Conflict, 3, Some(1), Some(1)),
            (Kind::Drift, 2, Some(1), Some(1)),
            (Kind::Drift, 2, Some(1), None),
            (Kind::Deleted, 2, Some(1), Some(2)),
            (Kind::Deleted, 2, None, None),
            (Kind::Annotation, 2, Some(1), Some(1)),
            (Kind::Redaction, 1, None, None),
            (Kind::KeyRotation, 1, None, Some(1)),
        ];
        for (kind, tag_seq, old, new) in wrong {
            let entry = sample::entry(kind, tag_seq.max(1), old, new);
            assert!(matches!(check(&entry), Err(EntryError::Rule(_))), "{kind} {old:?} {new:?}");
        }
    }

    #[test]
    fn a_field_where_it_does_not_belong_is_refused() {
        type Change = (&'static str, fn(&mut Entry), &'static [Kind]);
        let changes: [Change; 9] = [
            ("no intent", |it| it.intent = None, &[Kind::Confirmed, Kind::Redaction]),
            ("own intent", |it| it.intent = Some(it.id), &[Kind::Confirmed, Kind::Drift]),
            ("intent", |it| it.intent = Some(sample::id(99)), &[Kind::Drift, Kind::Unchanged]),
            ("no prev", |it| it.prev = None, &[Kind::Drift, Kind::Confirmed]),
            ("seq 0", |it| it.tag_seq = 0, &[Kind::Drift]),
            (
                "actor",
                |it| it.actor = Some(Commitment::from_bytes([0; 32])),
                &[Kind::Drift, Kind::Deleted, Kind::Baseline],
            ),
            ("no actor", |it| it.actor = None, &[Kind::Intent]),
            ("no reason", |it| it.reason = None, &[Kind::Annotation]),
            (
                "window",
                |it| it.not_before = Some(it.at - Duration::SECOND),
                &[Kind::Intent, Kind::Baseline, Kind::Confirmed],
            ),
        ];
        for (name, change, kinds) in changes {
            for entry in sound().iter().filter(|it| kinds.contains(&it.kind) && it.tag_seq > 1) {
                let mut entry = entry.clone();
                change(&mut entry);
                assert!(check(&entry).is_err(), "{name} {}", entry.kind);
            }
        }
        let mut drift = sample::entry(Kind::Drift, 2, Some(1), Some(2));
        drift.not_before = Some(drift.at + Duration::MICROSECOND);
        assert!(check(&drift).is_err());
        drift.not_before = Some(drift.at);
        assert!(check(&drift).is_ok());
        drift.purpose = Purpose::Publish;
        assert!(check(&drift).is_err());
    }

    #[test]
    fn the_reference_is_whole_or_left_out() {
        let mut entry = sample::entry(Kind::Drift, 2, Some(1), Some(2));
        entry.tag = String::new();
        assert_eq!(check(&entry), Err(EntryError::Field("tag")));
        (entry.registry, entry.repository) = (String::new(), String::new());
        assert!(matches!(check(&entry), Err(EntryError::Rule(_))));
        let mut rotation = sample::entry(Kind::KeyRotation, 1, Some(1), Some(2));
        rotation.registry = "ghcr.io".into();
        assert!(check(&rotation).is_err());
        // The opening of a rotation can be erased too, in the log's own chain.
        let mut redaction = sample::entry(Kind::Redaction, 2, None, None);
        for text in [&mut redaction.registry, &mut redaction.repository, &mut redaction.tag] {
            text.clear();
        }
        assert!(check(&redaction).is_ok());
    }
}
