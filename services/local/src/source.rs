//! Where an image of this machine is, as it stands on a command line.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::error::{LocalError, LocalErrorKind, shown};

/// Where an image of this machine is.
///
/// ```
/// use colophon_local::Source;
///
/// let source: Source = "docker://myapp:latest".parse()?;
/// assert_eq!(source, Source::Docker("myapp:latest".to_owned()));
/// assert_eq!("-".parse::<Source>()?, Source::Stdin);
/// assert!("myapp:latest".parse::<Source>().is_err());
/// # Ok::<(), colophon_local::LocalError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `docker://NAME`: an image of the local Docker engine.
    Docker(String),
    /// `docker-archive:FILE`: what `docker save` or `skopeo` wrote, compressed or not.
    DockerArchive(PathBuf),
    /// `oci-archive:FILE`: an OCI layout in a tar, compressed or not.
    OciArchive(PathBuf),
    /// `oci:FOLDER`: an OCI layout.
    OciFolder(PathBuf),
    /// `-`: an archive on standard input.
    Stdin,
}

const FORMS: &str = "give docker://NAME, docker-archive:FILE, oci-archive:FILE, oci:FOLDER, or - for standard input";

impl FromStr for Source {
    type Err = LocalError;

    fn from_str(text: &str) -> Result<Self, LocalError> {
        let invalid = |what: String| LocalError::new(LocalErrorKind::Invalid, what).remedy(FORMS);
        if text == "-" {
            return Ok(Self::Stdin);
        }
        let (make, rest): (fn(&str) -> Self, _) = if let Some(rest) = text.strip_prefix("docker://")
        {
            (|name| Self::Docker(name.to_owned()), rest)
        } else if let Some(rest) = text.strip_prefix("docker-archive:") {
            (|path| Self::DockerArchive(path.into()), rest)
        } else if let Some(rest) = text.strip_prefix("oci-archive:") {
            (|path| Self::OciArchive(path.into()), rest)
        } else if let Some(rest) = text.strip_prefix("oci:") {
            (|path| Self::OciFolder(path.into()), rest)
        } else {
            return Err(invalid(format!("{} is no image of this machine", shown(text))));
        };
        if rest.is_empty() {
            return Err(invalid(format!("{} names nothing", shown(text))));
        }
        Ok(make(rest))
    }
}

/// As it stands on a command line, without what could confuse a terminal.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = match self {
            Self::Docker(name) => ("docker://", name.as_str().into()),
            Self::DockerArchive(path) => ("docker-archive:", path.to_string_lossy()),
            Self::OciArchive(path) => ("oci-archive:", path.to_string_lossy()),
            Self::OciFolder(path) => ("oci:", path.to_string_lossy()),
            Self::Stdin => ("-", "".into()),
        };
        write!(f, "{scheme}{}", rest.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_shown_as_it_was_given() {
        for text in
            ["docker://a/b:c", "docker-archive:x.tar.gz", "oci-archive:/a b/x", "oci:./dir", "-"]
        {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        for wrong in ["", "docker:x", "oci:", "docker://", "ghcr.io/a/b:c", "docker-daemon:x:y"] {
            let error = wrong.parse::<Source>().unwrap_err();
            assert_eq!(error.kind(), LocalErrorKind::Invalid, "{wrong}");
            assert!(error.remedy_text().unwrap().contains("docker-archive:FILE"));
        }
    }
}
