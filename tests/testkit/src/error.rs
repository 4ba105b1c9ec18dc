//! The one error of the testkit: what was being done, and what came in the way. Tests unwrap it,
//! so it says all of it in its `Debug` form.

use std::{error::Error as StdError, fmt};

type Source = Box<dyn StdError + Send + Sync>;

/// Something that a test needed did not work.
pub struct Error {
    doing: String,
    source: Option<Source>,
}

/// Short for the results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error without a cause.
    pub fn new(what: impl Into<String>) -> Self {
        Self { doing: what.into(), source: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)?;
        let mut source = self.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<colophon_launcher::Error> for Error {
    fn from(error: colophon_launcher::Error) -> Self {
        Self { doing: "a part".to_owned(), source: Some(error.into()) }
    }
}

/// Says what was being done when something failed or was not there.
pub(crate) trait While<T> {
    /// `what` reads after "while", for example "reading the index".
    fn doing(self, what: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<Source>> While<T> for std::result::Result<T, E> {
    fn doing(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|error| Error { doing: what.into(), source: Some(error.into()) })
    }
}

impl<T> While<T> for Option<T> {
    fn doing(self, what: impl Into<String>) -> Result<T> {
        self.ok_or_else(|| Error::new(what))
    }
}
