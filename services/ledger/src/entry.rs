//! One entry: what happened to one tag, and everything that version 1 of the format can say
//! about it.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Commitment, Kind, LeafHash, Purpose, bytes, rules};

/// No entry is longer than this.
pub const ENTRY_LIMIT_BYTES: usize = 4096;

/// Why an entry cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// More than [`ENTRY_LIMIT_BYTES`].
    #[error("an entry has at most {ENTRY_LIMIT_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// Not a JSON object of the fields of version 1.
    #[error("not an entry: {0}")]
    Malformed(String),
    /// Another version than `1`.
    #[error("entries of version {0:?} are not known here")]
    UnknownVersion(String),
    /// A value that is not of its field's form.
    #[error("the field {0} is not of its form")]
    Field(&'static str),
    /// The fields are each of their form, and together break a rule.
    #[error("{0}")]
    Rule(&'static str),
    /// The bytes mean an entry but are not the canonical form of it.
    #[error("not the canonical form (RFC 8785) of the entry")]
    NotCanonical,
}

/// Where the content came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The registry, host with an optional port.
    pub registry: String,
    /// The name of the repository in it.
    pub repository: String,
    /// The digest that was read there.
    pub digest: String,
}

/// The last checkpoint that was published when the entry was written: the entry is not older.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After {
    /// The number of leaves.
    pub size: u64,
    /// The root hash.
    pub root: [u8; 32],
}

/// One entry of the ledger. Which fields go with which kind is said in `docs/ledger-format.md`
/// and checked by [`Entry::to_bytes`] and [`Entry::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The entry's own id, a UUID of version 7.
    pub id: Uuid,
    /// What happened.
    pub kind: Kind,
    /// Why.
    pub purpose: Purpose,
    /// The registry, host with an optional port; empty in entries about the log itself.
    pub registry: String,
    /// The name of the repository in it; empty in entries about the log itself.
    pub repository: String,
    /// The tag; empty in entries about the log itself.
    pub tag: String,
    /// The number of the entry within its tag's chain, from 1 and without gaps.
    pub tag_seq: u64,
    /// The leaf hash of the tag's entry before; `None` in the first one.
    pub prev: Option<LeafHash>,
    /// The digest before; `None` if there was no such tag.
    pub old: Option<String>,
    /// The digest observed afterwards, or for an intent the one wanted; `None` if there is no
    /// such tag then.
    pub new: Option<String>,
    /// The entry that this one belongs to: an outcome's intent, or what a remark is about.
    pub intent: Option<Uuid>,
    /// When it was recorded by the database's clock, in whole microseconds.
    pub at: OffsetDateTime,
    /// The change that was seen happened after this time, in whole microseconds.
    pub not_before: Option<OffsetDateTime>,
    /// Where the content came from.
    pub source: Option<Source>,
    /// The release that was the cause.
    pub release: Option<Uuid>,
    /// A documented reason, `SCREAMING_SNAKE_CASE`.
    pub reason_code: Option<String>,
    /// Who asked, as a commitment.
    pub actor: Option<Commitment>,
    /// Why, in the caller's words, as a commitment.
    pub reason: Option<Commitment>,
    /// The last published checkpoint.
    pub after: Option<After>,
}

impl Entry {
    /// The entry's bytes, which are stored and hashed and never written a second time.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EntryError> {
        rules::check(self)?;
        bytes::write(self)
    }

    /// Reads an entry strictly: unknown, repeated or null fields, other spellings of the same
    /// value and combinations that no entry can have are refused, so that what is accepted
    /// writes back to exactly these bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        let entry = bytes::read(bytes)?;
        if entry.to_bytes()? == bytes { Ok(entry) } else { Err(EntryError::NotCanonical) }
    }

    /// Whether the entry is about the log itself and not about a tag.
    pub fn is_about_the_log(&self) -> bool {
        self.registry.is_empty() && self.repository.is_empty() && self.tag.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sample::any_entry;

    proptest! {
        #[test]
        fn what_is_written_reads_back(entry in any_entry()) {
            let bytes = entry.to_bytes().unwrap();
            prop_assert!(bytes.len() <= ENTRY_LIMIT_BYTES && bytes.is_ascii());
            prop_assert_eq!(Entry::parse(&bytes).unwrap(), entry);
        }

        /// Whatever is accepted has the one spelling, and nothing panics.
        #[test]
        fn a_changed_byte_is_another_entry_or_none(
            entry in any_entry(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let bytes = entry.to_bytes().unwrap();
            let mut changed = bytes.clone();
            changed[at.index(bytes.len())] = byte;
            if let Ok(other) = Entry::parse(&changed) {
                prop_assert_eq!(other == entry, changed == bytes);
            }
        }

        #[test]
        fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Entry::parse(&bytes).is_err());
        }
    }

    #[test]
    fn the_longest_entry_fits() {
        let long = |length: usize| "a".repeat(length);
        let digest = |digit: &str| format!("sha512:{}", digit.repeat(128));
        let mut entry = crate::sample::entry(Kind::Conflict, u64::MAX, Some(1), Some(2));
        (entry.registry, entry.repository, entry.tag) = (long(255), long(255), long(128));
        (entry.old, entry.new) = (Some(digest("0")), Some(digest("1")));
        entry.source =
            Some(Source { registry: long(255), repository: long(255), digest: digest("2") });
        entry.not_before = Some(entry.at);
        entry.release = Some(entry.id);
        entry.reason_code = Some("A".repeat(64));
        entry.actor = Some(Commitment::from_bytes([0; 32]));
        entry.reason = entry.actor;
        entry.after = Some(After { size: u64::MAX, root: [0; 32] });
        assert!(entry.to_bytes().unwrap().len() < ENTRY_LIMIT_BYTES);
    }
}
