//! How the program ends: the exit codes, and the error that leads to one of them. Pipelines
//! branch on these codes, so they are part of the interface (`docs/cli.md`).

use std::process::ExitCode;

use crate::text::{append, clean, paint_error};

/// The exit codes, as they stand in `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Every tag is where it should be, or the question was answered.
    Done,
    /// The release ended `FAILED`, `ERRORED` or `CANCELLED`.
    NotPublished,
    /// The command line is wrong, or a file that it names.
    Usage,
    /// The server refused the request.
    Refused,
    /// The release was still running when `--timeout` passed.
    StillRunning,
    /// The server could not be reached, or was not ready, for as long as it was tried.
    Unreachable,
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
            Self::Interrupted => 130,
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

    /// The text for stderr; `color` paints the first word.
    pub fn render(&self, color: bool) -> String {
        let mut text = paint_error(color).to_owned();
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

    #[test]
    fn the_guide_lists_every_code() {
        let guide = include_str!("../../../docs/cli.md");
        for exit in [
            Exit::Done,
            Exit::NotPublished,
            Exit::Usage,
            Exit::Refused,
            Exit::StillRunning,
            Exit::Unreachable,
            Exit::Interrupted,
        ] {
            assert!(guide.contains(&format!("\n| {} | ", exit.code())), "{exit:?}");
        }
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
