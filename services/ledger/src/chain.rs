//! The chain of one tag: every entry carries the hash of the one before, so a dropped, changed
//! or inserted entry shows. The offline verifier runs this over what it was given.

use std::collections::HashMap;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Entry, EntryError, Kind, LeafHash, Purpose};

/// The first entry that does not follow from those before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {position} of the chain: {fault}")]
pub struct ChainError {
    /// The entry's place in the chain as it was given, from 1.
    pub position: usize,
    /// What is wrong with it.
    pub fault: ChainFault,
}

/// What is wrong with an entry of a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// The bytes are not an entry.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The numbers have a gap, a repetition, or do not begin at 1.
    #[error("tag_seq is {found}, {wanted} was expected")]
    Gap {
        /// The number that follows.
        wanted: u64,
        /// The number that is there.
        found: u64,
    },
    /// `prev` is not the hash of the entry before.
    #[error("prev is not the hash of the entry before")]
    Broken,
    /// An entry of another tag.
    #[error("it is about another tag")]
    OtherReference,
    /// Two entries have the same id.
    #[error("its id was used before")]
    RepeatedId,
    /// `at` is not later than in the entry before.
    #[error("it is not later than the entry before")]
    NotLater,
    /// `old` is not what the entries before say.
    #[error("old is not the digest that the entries before leave")]
    OtherOld,
    /// An outcome names no intent of this chain, or a remark no entry of it.
    #[error("the entry that it belongs to is not in the chain before it")]
    UnknownIntent,
    /// The intent has an outcome already.
    #[error("its intent has an outcome already")]
    SecondOutcome,
    /// The outcome has another purpose, or a digest that its kind rules out.
    #[error("it is not an outcome that its intent can have")]
    OtherOutcome,
    /// Something other than its outcome, or a remark, while an intent has no outcome.
    #[error("an earlier intent has no outcome yet")]
    IntentOpen,
}

/// What a later entry needs to know of an earlier one.
struct Known {
    kind: Kind,
    purpose: Purpose,
    new: Option<String>,
}

/// What the entries so far say.
#[derive(Default)]
struct Walk {
    reference: Option<(String, String, String)>,
    last: Option<(LeafHash, OffsetDateTime)>,
    length: u64,
    /// The digest that the tag has, as far as the entries tell.
    state: Option<String>,
    known: HashMap<Uuid, Known>,
    open: Option<Uuid>,
}

/// Checks the entries of one tag (or of the log itself), from the first one on and in order. An empty chain holds: it
/// says nothing. An intent without outcome at the end is no fault, the move may be under way.
pub fn verify_chain<B: AsRef<[u8]>>(bodies: &[B]) -> Result<(), ChainError> {
    let mut walk = Walk::default();
    for (index, body) in bodies.iter().enumerate() {
        let body = body.as_ref();
        Entry::parse(body)
            .map_err(ChainFault::from)
            .and_then(|entry| walk.take(entry, body))
            .map_err(|fault| ChainError { position: index + 1, fault })?;
    }
    Ok(())
}

impl Walk {
    fn take(&mut self, entry: Entry, body: &[u8]) -> Result<(), ChainFault> {
        self.place(&entry)?;
        self.follow(&entry)?;
        self.length = entry.tag_seq;
        self.last = Some((LeafHash::of(body), entry.at));
        if entry.kind == Kind::Intent {
            self.open = Some(entry.id);
        } else if entry.kind.is_outcome() {
            self.open = None;
        }
        let known = Known { kind: entry.kind, purpose: entry.purpose, new: entry.new.clone() };
        self.known.insert(entry.id, known);
        if entry.kind != Kind::Intent && !entry.kind.is_remark() {
            self.state = entry.new;
        }
        Ok(())
    }

    /// The entry's place: number, link, reference, time.
    fn place(&mut self, entry: &Entry) -> Result<(), ChainFault> {
        let wanted = self.length + 1;
        if entry.tag_seq != wanted {
            return Err(ChainFault::Gap { wanted, found: entry.tag_seq });
        }
        let reference = (entry.registry.clone(), entry.repository.clone(), entry.tag.clone());
        if self.reference.get_or_insert_with(|| reference.clone()) != &reference {
            return Err(ChainFault::OtherReference);
        }
        if entry.prev != self.last.map(|(hash, _)| hash) {
            return Err(ChainFault::Broken);
        }
        if self.last.is_some_and(|(_, at)| entry.at <= at) {
            return Err(ChainFault::NotLater);
        }
        if self.known.contains_key(&entry.id) {
            return Err(ChainFault::RepeatedId);
        }
        Ok(())
    }

    /// The entry's meaning: it begins where the others ended.
    fn follow(&self, entry: &Entry) -> Result<(), ChainFault> {
        if entry.kind.is_remark() {
            let about = entry.intent.is_some_and(|id| self.known.contains_key(&id));
            return if about { Ok(()) } else { Err(ChainFault::UnknownIntent) };
        }
        // The first rotation is the first time that the log speaks of its keys.
        let first_key = entry.kind == Kind::KeyRotation && self.length == 0;
        if !first_key && entry.old != self.state {
            return Err(ChainFault::OtherOld);
        }
        if entry.kind.is_outcome() {
            return self.outcome(entry);
        }
        // What is seen while a move of ours is under way may be that move: only its outcome
        // can say so.
        if self.open.is_some() { Err(ChainFault::IntentOpen) } else { Ok(()) }
    }

    fn outcome(&self, entry: &Entry) -> Result<(), ChainFault> {
        let intent = entry
            .intent
            .and_then(|id| self.known.get(&id))
            .filter(|known| known.kind == Kind::Intent)
            .ok_or(ChainFault::UnknownIntent)?;
        if self.open != entry.intent {
            return Err(ChainFault::SecondOutcome);
        }
        let digest_fits = match entry.kind {
            Kind::Confirmed | Kind::Recovered => entry.new == intent.new,
            Kind::Conflict => entry.new != intent.new,
            _ => true,
        };
        if intent.purpose == entry.purpose && digest_fits {
            Ok(())
        } else {
            Err(ChainFault::OtherOutcome)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{chained, digest, entry, id};

    /// A tag that was there, is moved, drifts, is not moved, is deleted and is published anew.
    fn story() -> Vec<Entry> {
        let mut redaction = entry(Kind::Redaction, 8, None, None);
        redaction.intent = Some(id(2));
        vec![
            entry(Kind::Baseline, 1, None, Some(1)),
            entry(Kind::Intent, 2, Some(1), Some(2)),
            entry(Kind::Confirmed, 3, Some(1), Some(2)),
            entry(Kind::Unchanged, 4, Some(2), Some(2)),
            entry(Kind::Drift, 5, Some(2), Some(3)),
            entry(Kind::Intent, 6, Some(3), Some(4)),
            entry(Kind::NotApplied, 7, Some(3), Some(3)),
            redaction,
            entry(Kind::Deleted, 9, Some(3), None),
            entry(Kind::Intent, 10, None, Some(5)),
            entry(Kind::Recovered, 11, None, Some(5)),
            entry(Kind::Intent, 12, Some(5), Some(6)),
            entry(Kind::Conflict, 13, Some(5), Some(7)),
            entry(Kind::Intent, 14, Some(7), Some(8)),
        ]
    }

    fn fault(entries: Vec<Entry>) -> (usize, ChainFault) {
        let error = verify_chain(&chained(entries)).unwrap_err();
        (error.position, error.fault)
    }

    #[test]
    fn a_whole_story_holds_and_so_does_each_beginning_of_it() {
        let bodies = chained(story());
        for length in 0..=bodies.len() {
            verify_chain(&bodies[..length]).unwrap();
        }
    }

    #[test]
    fn no_entry_can_be_dropped_swapped_repeated_or_changed() {
        let bodies = chained(story());
        for index in 0..bodies.len() - 1 {
            let mut dropped = bodies.clone();
            dropped.remove(index);
            assert!(verify_chain(&dropped).is_err(), "dropped {index}");
            let mut swapped = bodies.clone();
            swapped.swap(index, index + 1);
            assert!(verify_chain(&swapped).is_err(), "swapped {index}");
            let mut repeated = bodies.clone();
            repeated.insert(index, bodies[index].clone());
            assert!(verify_chain(&repeated).is_err(), "repeated {index}");
            let mut changed = bodies.clone();
            let mut entry = Entry::parse(&bodies[index]).unwrap();
            entry.reason_code = Some("CHANGED".into());
            changed[index] = entry.to_bytes().unwrap();
            let error = verify_chain(&changed).unwrap_err();
            assert_eq!((error.position, error.fault), (index + 2, ChainFault::Broken));
        }
        assert!(matches!(
            verify_chain(&[b"{}"]).unwrap_err().fault,
            ChainFault::Entry(EntryError::Malformed(_))
        ));
    }

    #[test]
    fn a_story_that_does_not_follow_is_refused_where_it_breaks() {
        type Case = (&'static str, fn(&mut Vec<Entry>), usize, ChainFault);
        let cases: [Case; 9] = [
            ("gap", |it| it[2].tag_seq = 4, 3, ChainFault::Gap { wanted: 3, found: 4 }),
            ("other tag", |it| it[3].tag = "v2".into(), 4, ChainFault::OtherReference),
            ("same time", |it| it[4].at = it[3].at, 5, ChainFault::NotLater),
            ("same id", |it| it[4].id = id(1), 5, ChainFault::RepeatedId),
            ("other old", |it| it[4].old = Some(digest(9)), 5, ChainFault::OtherOld),
            ("unknown intent", |it| it[2].intent = Some(id(99)), 3, ChainFault::UnknownIntent),
            ("no intent", |it| it[6].intent = Some(id(1)), 7, ChainFault::UnknownIntent),
            ("closed intent", |it| it[6].intent = Some(id(2)), 7, ChainFault::SecondOutcome),
            ("remark on nothing", |it| it[7].intent = Some(id(99)), 8, ChainFault::UnknownIntent),
        ];
        for (name, change, position, wanted) in cases {
            let mut entries = story();
            change(&mut entries);
            assert_eq!(fault(entries), (position, wanted), "{name}");
        }
    }

    #[test]
    fn an_outcome_is_one_that_its_intent_can_have() {
        let ends = |change: fn(&mut Entry)| {
            let mut entries = story();
            entries.truncate(3);
            change(&mut entries[2]);
            fault(entries)
        };
        assert_eq!(ends(|it| it.new = Some(digest(9))), (3, ChainFault::OtherOutcome));
        assert_eq!(ends(|it| it.kind = Kind::Conflict), (3, ChainFault::OtherOutcome));
        assert_eq!(ends(|it| it.purpose = Purpose::Rollback), (3, ChainFault::OtherOutcome));
        let twice = |kind, old, new| {
            let mut second = entry(kind, 4, old, new);
            second.intent = Some(id(2));
            let mut entries = story();
            entries.truncate(3);
            entries.push(second);
            fault(entries)
        };
        assert_eq!(twice(Kind::NotApplied, Some(2), Some(2)), (4, ChainFault::SecondOutcome));
    }

    #[test]
    fn nothing_is_observed_while_a_move_is_under_way() {
        for next in [
            entry(Kind::Intent, 3, Some(1), Some(3)),
            entry(Kind::Drift, 3, Some(1), Some(3)),
            entry(Kind::Unchanged, 3, Some(1), Some(1)),
        ] {
            let mut entries = story();
            entries.truncate(2);
            entries.push(next);
            assert_eq!(fault(entries), (3, ChainFault::IntentOpen));
        }
    }

    #[test]
    fn the_log_has_a_chain_of_its_keys() {
        let rotations = vec![
            entry(Kind::KeyRotation, 1, Some(1), Some(2)),
            entry(Kind::KeyRotation, 2, Some(2), Some(3)),
        ];
        verify_chain(&chained(rotations.clone())).unwrap();
        let mut other = rotations;
        other[1].old = Some(digest(9));
        assert_eq!(fault(other), (2, ChainFault::OtherOld));
    }
}
