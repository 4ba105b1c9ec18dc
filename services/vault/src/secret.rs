//! Secrets as they come out of files, environment variables and Vault: checked once, because a
//! stray newline in a token makes a refused login at best. Errors never show what they are about.

use std::{fs, io, path::Path};

use secrecy::{SecretString, zeroize::Zeroize as _};

/// A token's file is a line; whatever is larger is not one.
const FILE_LIMIT_BYTES: u64 = 64 * 1024;

/// Why a text is no secret; reads on after "the file /x".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    Empty,
    ControlCharacter,
    NotAscii,
    TooLarge,
    Unreadable(io::ErrorKind),
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::ControlCharacter => f.write_str("holds a line break or a control character"),
            Self::NotAscii => f.write_str("holds spaces or characters that are not ASCII"),
            Self::TooLarge => f.write_str("is too large to be a token"),
            Self::Unreadable(kind) => write!(f, "cannot be read: {kind}"),
        }
    }
}

/// A text without the one newline that editors and `echo` put at the end, and without any other
/// control character.
pub(crate) fn line(mut text: String) -> Result<String, Unusable> {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    let fault = if text.is_empty() {
        Unusable::Empty
    } else if text.chars().any(char::is_control) {
        Unusable::ControlCharacter
    } else {
        return Ok(text);
    };
    text.zeroize();
    Err(fault)
}

/// A secret of one line.
pub(crate) fn secret(text: String) -> Result<SecretString, Unusable> {
    line(text).map(SecretString::from)
}

/// A token that can stand in an HTTP header: visible ASCII only.
pub(crate) fn header_token(text: String) -> Result<SecretString, Unusable> {
    let mut text = line(text)?;
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(SecretString::from(text));
    }
    text.zeroize();
    Err(Unusable::NotAscii)
}

/// The content of a file that holds one secret.
pub(crate) fn from_file(path: &Path) -> Result<String, Unusable> {
    let unreadable = |error: io::Error| Unusable::Unreadable(error.kind());
    if fs::metadata(path).map_err(unreadable)?.len() > FILE_LIMIT_BYTES {
        return Err(Unusable::TooLarge);
    }
    fs::read_to_string(path).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn one_newline_at_the_end_is_forgiven() {
        for text in ["abc", "abc\n", "abc\r\n"] {
            assert_eq!(secret(text.into()).unwrap().expose_secret(), "abc");
            assert_eq!(header_token(text.into()).unwrap().expose_secret(), "abc");
        }
    }

    #[test]
    fn what_cannot_be_a_token_is_refused_without_being_shown() {
        for (text, wanted) in [
            ("", Unusable::Empty),
            ("\n", Unusable::Empty),
            ("abc\n\n", Unusable::ControlCharacter),
            ("a\tb", Unusable::ControlCharacter),
            ("a\0b", Unusable::ControlCharacter),
        ] {
            assert_eq!(secret(text.into()).unwrap_err(), wanted, "{text:?}");
        }
        assert_eq!(header_token("a b".into()).unwrap_err(), Unusable::NotAscii);
        assert_eq!(header_token("\u{e9}".into()).unwrap_err(), Unusable::NotAscii);
    }

    #[test]
    fn a_file_is_read_or_says_why_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert_eq!(from_file(&path), Err(Unusable::Unreadable(io::ErrorKind::NotFound)));
        fs::write(&path, "abc\n").unwrap();
        assert_eq!(from_file(&path).unwrap(), "abc\n");
        fs::write(&path, vec![b'a'; 70_000]).unwrap();
        assert_eq!(from_file(&path), Err(Unusable::TooLarge));
    }
}
