//! What can be wrong with an image of this machine, as one error: of which kind, in which file,
//! what, and what to do about it. Names out of archives are hostile, so they stand quoted and
//! shortened in it.

use std::{error::Error as StdError, fmt, io};

/// The coarse kind of a [`LocalError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LocalErrorKind {
    /// The source, or a name that was given, is not of its form.
    Invalid,
    /// The file, the folder, the engine or the image in it is not there.
    NotFound,
    /// It is there, and no image: neither an OCI layout nor what `docker save` writes.
    NotAnImage,
    /// There are several images or platforms, and none was chosen.
    Ambiguous,
    /// It is an image of a kind that is not published.
    Unsupported,
    /// Something is missing, cut off, or not what its digest or size says.
    Damaged,
    /// No tool writes this; it may be meant to do harm.
    Refused,
    /// A bound was reached.
    TooLarge,
    /// The temporary file cannot be written.
    Spool,
    /// Something could not be read.
    Io,
    /// The Docker engine cannot be reached, or refused for a reason of its own.
    Engine,
    /// The Docker engine does not remove what is in use.
    InUse,
    /// Whoever opened the image did not wait for it.
    Stopped,
}

/// Why an image of this machine cannot be read, or removed.
#[derive(Debug)]
pub struct LocalError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: LocalErrorKind,
    file: Option<String>,
    what: String,
    remedy: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl LocalError {
    pub(crate) fn new(kind: LocalErrorKind, what: impl Into<String>) -> Self {
        let what = what.into();
        Self(Box::new(Inner { kind, file: None, what, remedy: None, source: None }))
    }

    /// Something that could not be read; what is cut off is damaged.
    pub(crate) fn io(what: impl fmt::Display, error: io::Error) -> Self {
        // Errors of ours come through readers and writers of others unharmed.
        let error = match error.downcast::<Self>() {
            Ok(ours) => return ours,
            Err(error) => error,
        };
        let kind = match error.kind() {
            io::ErrorKind::NotFound => LocalErrorKind::NotFound,
            // What is no error of the system's was found in the bytes.
            _ if error.raw_os_error().is_none() => LocalErrorKind::Damaged,
            _ => LocalErrorKind::Io,
        };
        Self::new(kind, format!("{what}: {error}")).caused_by(error)
    }

    /// Names the file, unless a narrower one is named already.
    #[must_use]
    pub(crate) fn in_file(mut self, file: impl fmt::Display) -> Self {
        self.0.file.get_or_insert_with(|| file.to_string());
        self
    }

    #[must_use]
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    #[must_use]
    pub(crate) fn caused_by(mut self, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(error.into());
        self
    }

    /// Of which kind it is.
    pub fn kind(&self) -> LocalErrorKind {
        self.0.kind
    }

    /// The file, folder or engine that it is about.
    pub fn file(&self) -> Option<&str> {
        self.0.file.as_deref()
    }

    /// What is wrong.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// What to do about it.
    pub fn remedy_text(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }
}

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = self.file() {
            write!(f, "{file}: ")?;
        }
        f.write_str(self.what())?;
        self.remedy_text().map_or(Ok(()), |remedy| write!(f, " ({remedy})"))
    }
}

impl StdError for LocalError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// So that it can pass through readers and writers; [`LocalError::io`] takes it out again.
impl From<LocalError> for io::Error {
    fn from(error: LocalError) -> Self {
        Self::other(error)
    }
}

/// At most 80 characters of hostile input, quoted and without control characters.
pub(crate) fn shown(text: &str) -> String {
    let mut start: String = text.chars().take(80).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    format!("{start:?}")
}

/// Short cuts for the kinds that many places refuse with.
macro_rules! refusals {
    ($($name:ident => $kind:ident,)+) => {
        $(pub(crate) fn $name(what: impl Into<String>) -> LocalError {
            LocalError::new(LocalErrorKind::$kind, what)
        })+
    };
}

refusals! {
    damaged => Damaged,
    refused => Refused,
    too_large => TooLarge,
    unsupported => Unsupported,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_ours_passes_through_a_reader() {
        let through = io::Error::from(too_large("the spool").in_file("a.tar"));
        let back = LocalError::io("reading", through);
        assert_eq!(back.kind(), LocalErrorKind::TooLarge);
        assert_eq!(back.to_string(), "a.tar: the spool");
        let cut = LocalError::io("reading", io::ErrorKind::UnexpectedEof.into());
        assert_eq!(cut.kind(), LocalErrorKind::Damaged);
    }

    #[test]
    fn hostile_text_is_quoted_and_short() {
        assert_eq!(shown("a\u{1b}[2J"), "\"a\\u{1b}[2J\"");
        assert_eq!(shown(&"x".repeat(200)).chars().count(), 83);
    }
}
