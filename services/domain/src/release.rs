//! The states of a release and of its parts, and the words for them.

use crate::Reason;

macro_rules! words {
    ($(#[doc = $head:literal])+ $type:ident { $($(#[doc = $doc:literal])+ $name:ident = $wire:literal,)+ }) => {
        $(#[doc = $head])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $type {
            $($(#[doc = $doc])+ $name,)+
        }

        impl $type {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word of the database and the logs.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $wire,)+ }
            }

            /// Reads the word back.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($wire => Some(Self::$name),)+ _ => None }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use words;

words! {
    /// The state of a release.
    ReleaseState {
        /// Accepted; no worker has begun.
        Queued = "QUEUED",
        /// At least one job was claimed.
        Running = "RUNNING",
        /// Every tag is where it should be.
        Succeeded = "SUCCEEDED",
        /// It cannot be done as asked, or only a part of it was.
        Failed = "FAILED",
        /// The attempts are used up on something technical.
        Errored = "ERRORED",
        /// Stopped on request.
        Cancelled = "CANCELLED",
    }
}

impl ReleaseState {
    /// Whether the release has ended; an ended release changes only if it is put to work again.
    pub fn ended(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

words! {
    /// The state of one target repository of a release.
    PublicationState {
        /// Nothing has been done.
        Queued = "QUEUED",
        /// Content is being copied.
        Copying = "COPYING",
        /// All content is there; the tags are not all moved.
        Copied = "COPIED",
        /// Every tag is where it should be.
        Succeeded = "SUCCEEDED",
        /// At least one part of it failed.
        Failed = "FAILED",
        /// Stopped on request.
        Cancelled = "CANCELLED",
    }
}

words! {
    /// The state of one tag of a release.
    TagMoveState {
        /// Its turn has not come.
        Pending = "PENDING",
        /// An intent is committed; the PUT may be on its way.
        Moving = "MOVING",
        /// The tag was moved to the digest.
        Moved = "MOVED",
        /// The tag was there already; no PUT was sent.
        Unchanged = "UNCHANGED",
        /// A later release had moved it already; no PUT was sent.
        Superseded = "SUPERSEDED",
        /// A rule forbids the move.
        Refused = "REFUSED",
        /// It was tried and did not work.
        Failed = "FAILED",
        /// The PUT's answer never arrived; the reconciler will look.
        Unknown = "UNKNOWN",
        /// Its turn never came because the release ended first.
        NotAttempted = "NOT_ATTEMPTED",
        /// It stays, as the request has it: a higher version holds it, or there is nothing to go
        /// back to.
        Kept = "KEPT",
        /// The release failed after the tag was moved; it is being put back.
        Restoring = "RESTORING",
        /// The tag is back at what it was before the release.
        Restored = "RESTORED",
    }
}

impl TagMoveState {
    /// Whether the tag's story is over.
    pub fn ended(self) -> bool {
        !matches!(self, Self::Pending | Self::Moving | Self::Unknown | Self::Restoring)
    }

    /// Whether the tag is where the release wanted it.
    pub fn good(self) -> bool {
        matches!(self, Self::Moved | Self::Unchanged | Self::Kept)
    }
}

words! {
    /// How a blob comes to its target.
    BlobState {
        /// It is on its way.
        Sending = "sending",
        /// It was sent.
        Copied = "copied",
        /// The target's registry took it from another repository of its own.
        Mounted = "mounted",
        /// The target had it.
        Present = "present",
    }
}

words! {
    /// How a tag behaves.
    TagKind {
        /// Never re-pointed.
        Unique = "unique",
        /// Moves forward.
        Floating = "floating",
    }
}

words! {
    /// What a job of the queue does.
    JobKind {
        /// Copies all content of one target.
        Copy = "copy",
        /// Writes the unique tags of one target.
        Unique = "unique",
        /// Moves the floating tags of one target.
        Floating = "floating",
        /// Puts the floating tags of one target back.
        Restore = "restore",
    }
}

words! {
    /// The phases of a release: content everywhere, unique tags everywhere, floating tags; and,
    /// if that fails, putting floating tags back.
    Phase {
        /// Content is being copied.
        Copy = "copy",
        /// Unique tags are being written.
        Unique = "unique",
        /// Floating tags are being moved.
        Floating = "floating",
        /// Floating tags are being put back.
        Restore = "restore",
        /// Nothing is left to do.
        Done = "done",
    }
}

impl Phase {
    /// The phase behind this one, if all goes well.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::Copy => Self::Unique,
            Self::Unique => Self::Floating,
            Self::Floating | Self::Restore | Self::Done => Self::Done,
        }
    }

    /// The kind of job that does this phase's work; `None` when nothing is left.
    pub fn job(self) -> Option<JobKind> {
        match self {
            Self::Copy => Some(JobKind::Copy),
            Self::Unique => Some(JobKind::Unique),
            Self::Floating => Some(JobKind::Floating),
            Self::Restore => Some(JobKind::Restore),
            Self::Done => None,
        }
    }
}

impl JobKind {
    /// The kind of tags that the job handles; `None` for a copy.
    pub fn tags(self) -> Option<TagKind> {
        match self {
            Self::Copy => None,
            Self::Unique => Some(TagKind::Unique),
            Self::Floating | Self::Restore => Some(TagKind::Floating),
        }
    }
}

/// How a release ends, seen from the states of its tags: success only if every tag is where it
/// should be. `SUPERSEDED` alone is not success and not a defect either: it is `FAILED` with
/// that reason.
pub fn conclude(tags: &[(TagMoveState, Option<Reason>)]) -> (ReleaseState, Option<Reason>) {
    if tags.iter().all(|(state, _)| state.good()) {
        return (ReleaseState::Succeeded, None);
    }
    let causes = || tags.iter().filter(|(state, _)| !state.good()).filter_map(|(_, cause)| *cause);
    // The first real cause, not the tags that were left alone or put back because of it; and one that
    // needs doing before one that does not.
    let follows = |cause: &Reason| matches!(cause, Reason::NotAttempted | Reason::Restored);
    let real = || causes().filter(|cause| !follows(cause));
    let reason = real().find(|cause| *cause != Reason::Superseded);
    let reason = reason.or_else(|| real().next()).or_else(|| causes().next());
    let technical = matches!(reason, Some(Reason::AttemptsExhausted));
    (if technical { ReleaseState::Errored } else { ReleaseState::Failed }, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        for state in ReleaseState::ALL {
            assert_eq!(ReleaseState::parse(state.as_str()), Some(*state));
        }
        for state in TagMoveState::ALL {
            assert_eq!(TagMoveState::parse(state.as_str()), Some(*state));
        }
    }

    #[test]
    fn phases_end() {
        assert_eq!(Phase::Copy.next().next().next(), Phase::Done);
        assert_eq!(Phase::Done.job(), None);
    }

    #[test]
    fn one_tag_that_is_not_there_is_no_success() {
        use TagMoveState::{Moved, NotAttempted, Refused, Superseded, Unchanged};
        assert_eq!(conclude(&[(Moved, None), (Unchanged, None)]).0, ReleaseState::Succeeded);
        assert_eq!(
            conclude(&[(Moved, None), (Superseded, Some(Reason::Superseded))]),
            (ReleaseState::Failed, Some(Reason::Superseded))
        );
        let refused = (Refused, Some(Reason::TagImmutable));
        assert_eq!(
            conclude(&[(Superseded, Some(Reason::Superseded)), refused]),
            (ReleaseState::Failed, Some(Reason::TagImmutable)),
            "nobody looks at a release that says that nothing needs doing"
        );
        assert_eq!(
            conclude(&[
                (NotAttempted, Some(Reason::NotAttempted)),
                (Refused, Some(Reason::TagImmutable))
            ]),
            (ReleaseState::Failed, Some(Reason::TagImmutable))
        );
    }
}
