//! What can go wrong when a part is started: every message names the part and, where one
//! exists, the command that mends it.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

/// A part could not be found, started, reached or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program is not on this machine.
    #[error("`{tool}` is not installed; install it with `{install}`")]
    MissingTool {
        /// The program's name.
        tool: &'static str,
        /// The command that installs it.
        install: &'static str,
    },
    /// The operating system refused to start a program.
    #[error("cannot start {part}")]
    Spawn {
        /// The part.
        part: String,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// A file or folder of a part could not be made, read or handed over.
    #[error("cannot prepare {}", path.display())]
    Prepare {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// A process ended although it was needed.
    #[error("{part} ended with {status}; the end of its log:\n{log}")]
    Ended {
        /// The part.
        part: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it wrote.
        log: String,
    },
    /// A part did not get where it should in time.
    #[error("{part} was not {what} within {waited:?}; the end of its log:\n{log}")]
    TooSlow {
        /// The part.
        part: String,
        /// What was waited for.
        what: &'static str,
        /// How long.
        waited: Duration,
        /// The last lines that it wrote.
        log: String,
    },
    /// A part answered, but not as it should.
    #[error("{part}: {message}")]
    Refused {
        /// The part.
        part: String,
        /// What it answered; never a secret.
        message: String,
    },
    /// Somebody else has the port that a part had before.
    #[error("{part} needs port {port} of 127.0.0.1, and another program has it; stop that program")]
    PortTaken {
        /// The part.
        part: String,
        /// The port.
        port: u16,
    },
    /// No port was free.
    #[error("no free port on 127.0.0.1 between {first} and {last}")]
    NoPort {
        /// The first port that was tried.
        first: u16,
        /// The last one.
        last: u16,
    },
}

/// Short for the results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Wraps an input or output error about `path`.
    pub(crate) fn prepare(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Prepare { path, source }
    }

    /// A part's own refusal.
    pub(crate) fn refused(part: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Refused { part: part.into(), message: message.into() }
    }
}
