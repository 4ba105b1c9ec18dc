//! The closed vocabularies of an entry: what happened and why.

use std::fmt;

macro_rules! words {
    ($(#[doc = $head:literal])+ $type:ident { $($(#[doc = $doc:literal])+ $name:ident = $wire:literal,)+ }) => {
        $(#[doc = $head])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $type {
            $($(#[doc = $doc])+ $name,)+
        }

        impl $type {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word that stands in the entry.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $wire,)+ }
            }

            /// Reads the word back; `None` for a word that version 1 does not have.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($wire => Some(Self::$name),)+ _ => None }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What happened.
    Kind {
        /// The first sight of a tag that was there before us.
        Baseline = "baseline",
        /// We are about to ask the registry for a change.
        Intent = "intent",
        /// The change that an intent announced was seen in the registry.
        Confirmed = "confirmed",
        /// The tag was where it should be already; nothing was sent.
        Unchanged = "unchanged",
        /// The change was made, and seen only afterwards by the reconciler.
        Recovered = "recovered",
        /// The change was not made: the tag is where it was.
        NotApplied = "not_applied",
        /// The registry shows neither the state before nor the one intended.
        Conflict = "conflict",
        /// Somebody else moved the tag.
        Drift = "drift",
        /// Somebody else deleted the tag.
        Deleted = "deleted",
        /// A remark on an earlier entry.
        Annotation = "annotation",
        /// The opening of an earlier entry's commitments was erased.
        Redaction = "redaction",
        /// The log is signed with another key from here on.
        KeyRotation = "key_rotation",
    }
}

words! {
    /// Why it happened.
    Purpose {
        /// A release publishes content.
        Publish = "publish",
        /// A tag goes back on a recorded decision.
        Rollback = "rollback",
        /// A tag is put back where somebody else's move took it from.
        Restore = "restore",
        /// A rule about old tags deletes it.
        Retention = "retention",
        /// Nobody asked for a change: we looked, remarked, or looked after the log.
        Observation = "observation",
    }
}

impl Kind {
    /// Whether the entry closes an intent.
    pub fn is_outcome(self) -> bool {
        matches!(self, Self::Confirmed | Self::Recovered | Self::NotApplied | Self::Conflict)
    }

    /// Whether the entry is about an earlier entry and says nothing about the tag itself.
    pub fn is_remark(self) -> bool {
        matches!(self, Self::Annotation | Self::Redaction)
    }

    /// Whether the entry records what was seen without us having changed anything.
    pub fn is_observation(self) -> bool {
        matches!(self, Self::Baseline | Self::Drift | Self::Deleted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.as_str()), Some(*kind));
        }
        for purpose in Purpose::ALL {
            assert_eq!(Purpose::parse(purpose.as_str()), Some(*purpose));
        }
        assert_eq!(Kind::parse("Intent"), None);
        assert_eq!(Purpose::parse(""), None);
    }
}
