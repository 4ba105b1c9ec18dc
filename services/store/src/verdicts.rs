//! What becomes of a tag, given what the registry shows: its state, its reason, its text.

use colophon_domain::{Digest, Failure, HeadState, Reason, Retry, TagMoveState, explain};

use crate::Move;

/// What a move came to, as the registry shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The tag is where it should be.
    Applied,
    /// The tag is where it was.
    NotApplied,
    /// The tag is elsewhere, or gone.
    Conflict,
}

impl Settled {
    /// Compares what was observed with what was there and what was wanted.
    pub fn of(observed: Option<&Digest>, old: Option<&Digest>, wanted: Option<&Digest>) -> Self {
        if observed == wanted {
            Self::Applied
        } else if observed == old {
            Self::NotApplied
        } else {
            Self::Conflict
        }
    }
}

/// The state of one tag, with its reason for the reader.
pub(crate) struct Verdict<'a> {
    pub(crate) state: TagMoveState,
    pub(crate) reason: Option<Reason>,
    pub(crate) message: &'a str,
}

impl Verdict<'static> {
    pub(crate) fn bare(state: TagMoveState) -> Self {
        Self { state, reason: None, message: "" }
    }
}

/// Why the entry says what it says.
pub(crate) fn reason_code(settled: Settled, refusal: Option<&Failure>) -> Option<Reason> {
    match settled {
        Settled::Applied => None,
        Settled::NotApplied => refusal.map(Failure::reason),
        Settled::Conflict => Some(Reason::TagMoved),
    }
}

/// The verdict on a tag that was to be moved; `message` is the refusal's text.
pub(crate) fn verdict<'a>(
    settled: Settled,
    refusal: Option<&Failure>,
    message: Option<&'a str>,
) -> Verdict<'a> {
    match (settled, refusal) {
        (Settled::Applied, _) => Verdict::bare(TagMoveState::Moved),
        (Settled::Conflict, _) => Verdict {
            state: TagMoveState::Failed,
            reason: Some(Reason::TagMoved),
            message: "somebody else moved the tag while it was being moved; see its history",
        },
        (Settled::NotApplied, Some(refusal)) if refusal.retry_class() == Retry::Never => Verdict {
            state: TagMoveState::Failed,
            reason: Some(refusal.reason()),
            message: message.unwrap_or_default(),
        },
        // It will be tried again, with a new intent.
        (Settled::NotApplied, _) => Verdict::bare(TagMoveState::Pending),
    }
}

/// The verdict on a tag that was to be put back.
pub(crate) fn put_back<'a>(
    settled: Settled,
    refusal: Option<&Failure>,
    message: Option<&'a str>,
) -> Verdict<'a> {
    match (settled, refusal) {
        (Settled::Applied, _) => Verdict {
            state: TagMoveState::Restored,
            reason: Some(Reason::Restored),
            message: "the tag is back at what it was before, because the release did not succeed",
        },
        (Settled::Conflict, _) => Verdict {
            state: TagMoveState::Moved,
            reason: Some(Reason::TagMoved),
            message: "somebody else moved the tag while it was being put back; see its history",
        },
        (Settled::NotApplied, Some(refusal)) if refusal.retry_class() == Retry::Never => Verdict {
            state: TagMoveState::Moved,
            reason: Some(refusal.reason()),
            message: message.unwrap_or_default(),
        },
        (Settled::NotApplied, _) => Verdict::bare(TagMoveState::Restoring),
    }
}

/// Why a rule leaves a tag where it is, in words.
pub(crate) fn why(
    step: &Move,
    reason: Reason,
    observed: Option<&Digest>,
    head: &HeadState,
) -> String {
    let reference = format!("{}:{}", step.repository, step.tag);
    if step.restore.is_some() && reason == Reason::NotAttempted {
        return format!(
            "{reference} was not put back: the database was restored, and what is recorded of the \
             release may be older than what the registry shows"
        );
    }
    if step.restore.is_some() {
        return format!("{reference} was not put back: somebody else has moved it since");
    }
    explain(reason, &reference, &step.ask(), observed, head)
}
