//! How the program ends: the exit codes, and the error that leads to one of them. Pipelines
//! branch on these codes, so they are part of the interface (`docs/cli.md`).

use std::process::ExitCode;

use colophon_api::v1::ReleaseState;
use colophon_domain::Reason;

use crate::text::{append, clean, paint_error};

/// What `--help` says about the exit codes.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    every tag is where it should be; with --no-wait: the release was accepted
  1    the release FAILED for a reason that has no code of its own
  2    the command line is wrong
  3    the server refused the request for a reason that has no code of its own
  4    the release was still running when --timeout passed
  5    the server could not be reached, or was not ready
  6    a unique tag has other content, or the registry does not let it move: TAG_IMMUTABLE
  7    SUPERSEDED: a newer build has the tag, and nothing needs doing
  8    the release was CANCELLED
  9    the release ERRORED: its attempts are used up (ATTEMPTS_EXHAUSTED)
  10   not permitted, or no credential: PERMISSION_DENIED, UNAUTHENTICATED, REGISTRY_DENIED,
       REGISTRY_UNAUTHORIZED, VAULT_DENIED, CREDENTIAL_MISSING
  11   the source: SOURCE_NOT_FOUND, SOURCE_GONE, UNSUPPORTED_MANIFEST; of push and prune-local:
       the image of this machine, or its Docker engine
  12   too late: EXPIRED
  13   the tag is not where it was expected: TAG_MOVED
  14   a newer build has the tag, or nobody can tell: ORDER_REGRESSION, ORDER_KEY_MISMATCH
  15   make a new plan: PLAN_CHANGED, PLAN_EXPIRED
  16   there is nothing to go back to: NOT_IN_HISTORY, NOT_ENDED
  17   a freeze holds: FROZEN; the release waits for its end
  18   asked too often, come back later: RATE_LIMITED, QUEUE_FULL, TOO_MANY_CALLS,
       TOO_MANY_WATCHERS, UPLOAD_LIMIT
  130  interrupted; an accepted release goes on
The same reason gives the same code, whether the server refuses the request, the release ends
with it, or a plan shows it.

The token is read from COLOPHON_TOKEN or from a file (--token-file), never from an argument.";

/// The exit codes, as they stand in `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Every tag is where it should be, or the question was answered.
    Done,
    /// The release ended `FAILED`, and its reason has no code of its own.
    NotPublished,
    /// The command line is wrong, or a file that it names.
    Usage,
    /// The server refused the request, and its reason has no code of its own.
    Refused,
    /// The release was still running when `--timeout` passed.
    StillRunning,
    /// The server could not be reached, or was not ready, for as long as it was tried.
    Unreachable,
    /// A unique tag has other content, or the registry does not let the tag move.
    Immutable,
    /// A newer release or build has the tag; nothing needs doing.
    Superseded,
    /// The release was stopped on request.
    Cancelled,
    /// The release ended `ERRORED`: its attempts are used up.
    Errored,
    /// Somebody lacks a permission or a credential: the caller, or the service.
    NotPermitted,
    /// The source is not there, or of no kind that is copied; an image of this machine, or the
    /// engine that has it, cannot be read.
    Source,
    /// The time in which the release may move tags is over.
    Expired,
    /// The tag is not where it was expected.
    TagMoved,
    /// A newer build has the tag, or nobody can tell which build is newer.
    Older,
    /// The plan does not hold any more.
    PlanOver,
    /// There is nothing to go back to.
    NoWayBack,
    /// A freeze holds.
    Frozen,
    /// Somebody was asked too often.
    RateLimited,
    /// Stopped by a signal.
    Interrupted,
}

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::NotPublished => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::StillRunning => 4,
            Self::Unreachable => 5,
            Self::Immutable => 6,
            Self::Superseded => 7,
            Self::Cancelled => 8,
            Self::Errored => 9,
            Self::NotPermitted => 10,
            Self::Source => 11,
            Self::Expired => 12,
            Self::TagMoved => 13,
            Self::Older => 14,
            Self::PlanOver => 15,
            Self::NoWayBack => 16,
            Self::Frozen => 17,
            Self::RateLimited => 18,
            Self::Interrupted => 130,
        }
    }

    /// The code of a reason that has one of its own, however the reason was learned.
    pub fn of_reason(reason: &str) -> Option<Self> {
        match Reason::parse(reason)? {
            Reason::TagImmutable => Some(Self::Immutable),
            Reason::TagMoved => Some(Self::TagMoved),
            Reason::OrderRegression | Reason::OrderKeyMismatch => Some(Self::Older),
            Reason::PlanChanged | Reason::PlanExpired => Some(Self::PlanOver),
            Reason::NotEnded | Reason::NotInHistory => Some(Self::NoWayBack),
            Reason::Frozen => Some(Self::Frozen),
            Reason::RateLimited
            | Reason::QueueFull
            | Reason::TooManyCalls
            | Reason::TooManyWatchers
            | Reason::UploadLimit => Some(Self::RateLimited),
            Reason::Superseded => Some(Self::Superseded),
            Reason::Cancelled => Some(Self::Cancelled),
            Reason::AttemptsExhausted => Some(Self::Errored),
            Reason::PermissionDenied
            | Reason::Unauthenticated
            | Reason::RegistryDenied
            | Reason::RegistryUnauthorized
            | Reason::VaultDenied
            | Reason::CredentialMissing => Some(Self::NotPermitted),
            Reason::SourceNotFound | Reason::SourceGone | Reason::UnsupportedManifest => {
                Some(Self::Source)
            }
            Reason::Expired => Some(Self::Expired),
            _ => None,
        }
    }

    /// The code of a release that has ended without success. Somebody who cancelled it knows
    /// why it ended, whatever else was wrong with it.
    pub fn of_release(state: ReleaseState, reason: &str) -> Self {
        match (state, Self::of_reason(reason)) {
            (ReleaseState::Cancelled, _) => Self::Cancelled,
            (_, Some(exit)) => exit,
            (ReleaseState::Errored, None) => Self::Errored,
            _ => Self::NotPublished,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// What went wrong, ready to be shown. The texts may come from the server and are cleaned when
/// they are printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The code to end with.
    pub exit: Exit,
    /// One of the documented reasons, where the server gave one.
    pub reason: Option<String>,
    /// What happened.
    pub message: String,
    /// The request's field that is wrong.
    pub field: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Problem {
    /// A problem without reason and field.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, reason: None, message: message.into(), field: None, remedy: None }
    }

    /// A command line, or a file named on it, that cannot be used.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Says what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The text for stderr; `color` paints the first word. What needs no doing is no error.
    pub fn render(&self, color: bool) -> String {
        let calm = self.exit == Exit::Superseded;
        let mut text = if calm { "note: " } else { paint_error(color) }.to_owned();
        if let Some(reason) = self.reason.as_deref().filter(|reason| !reason.is_empty()) {
            text.push_str(&clean(reason));
            text.push_str(": ");
        }
        text.push_str(&clean(&self.message));
        text.push('\n');
        for (name, value) in [("field", &self.field), ("remedy", &self.remedy)] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                append(&mut text, format_args!("  {name}: {}\n", clean(value)));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Exit; 20] = [
        Exit::Done,
        Exit::NotPublished,
        Exit::Usage,
        Exit::Refused,
        Exit::StillRunning,
        Exit::Unreachable,
        Exit::Immutable,
        Exit::Superseded,
        Exit::Cancelled,
        Exit::Errored,
        Exit::NotPermitted,
        Exit::Source,
        Exit::Expired,
        Exit::TagMoved,
        Exit::Older,
        Exit::PlanOver,
        Exit::NoWayBack,
        Exit::Frozen,
        Exit::RateLimited,
        Exit::Interrupted,
    ];

    /// The words of a text that stand for reasons.
    fn reasons(text: &str) -> Vec<Reason> {
        let letter = |character: char| character.is_ascii_uppercase() || character == '_';
        text.split(|character| !letter(character)).filter_map(Reason::parse).collect()
    }

    #[test]
    fn the_guide_and_the_help_list_every_code_with_its_reasons() {
        let guide = include_str!("../../../docs/cli.md");
        for exit in ALL {
            let row = format!("\n| {} | ", exit.code());
            let (_, row) = guide.split_once(&row).unwrap_or_else(|| panic!("{exit:?}"));
            let (_, help) = EXIT_CODES.split_once(&format!("\n  {:<5}", exit.code())).unwrap();
            let help: Vec<&str> =
                help.split_inclusive('\n').take_while(|line| !line.starts_with("The")).collect();
            // The lines of this code: the first one, and those that are indented below it.
            let more = help.iter().skip(1).take_while(|line| line.starts_with("       "));
            let help: String = help.iter().take(1).chain(more).copied().collect();
            for text in [row.lines().next().unwrap(), &help] {
                for reason in Reason::ALL {
                    let listed = reasons(text).contains(reason);
                    let wanted = Exit::of_reason(reason.as_str()) == Some(exit);
                    assert_eq!(listed, wanted, "{exit:?} {reason}: {text}");
                }
            }
        }
    }

    #[test]
    fn the_state_decides_where_the_reason_has_no_code() {
        use ReleaseState::{Cancelled, Errored, Failed};
        for (state, reason, exit) in [
            (Failed, "REGISTRY_PROTOCOL", Exit::NotPublished),
            (Failed, "SOMETHING_NEW", Exit::NotPublished),
            (Failed, "", Exit::NotPublished),
            (Failed, "TAG_IMMUTABLE", Exit::Immutable),
            (Errored, "ATTEMPTS_EXHAUSTED", Exit::Errored),
            (Errored, "", Exit::Errored),
            (Errored, "VAULT_DENIED", Exit::NotPermitted),
            (Cancelled, "", Exit::Cancelled),
            (Cancelled, "FROZEN", Exit::Cancelled),
        ] {
            assert_eq!(Exit::of_release(state, reason), exit, "{state:?} {reason}");
        }
    }

    #[test]
    fn what_needs_no_doing_is_a_note() {
        let problem = Problem::new(Exit::Superseded, "a newer build has it");
        assert_eq!(problem.render(true), "note: a newer build has it\n");
    }

    #[test]
    fn a_problem_shows_all_it_knows_and_no_control_characters() {
        let problem = Problem {
            exit: Exit::Refused,
            reason: Some("TAG_IMMUTABLE".into()),
            message: "1.4 is at\u{1b}[2J another digest".into(),
            field: Some("targets[0].unique_tags[0]".into()),
            remedy: Some("choose another tag".into()),
        };
        assert_eq!(
            problem.render(false),
            "error: TAG_IMMUTABLE: 1.4 is at\u{fffd}[2J another digest\n  \
             field: targets[0].unique_tags[0]\n  remedy: choose another tag\n"
        );
        assert!(problem.render(true).starts_with("\u{1b}[31merror:\u{1b}[0m TAG"));
    }
}
