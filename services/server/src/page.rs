//! Page tokens: where the page before ended, bound to the conditions of its query.
//!
//! A token grants nothing (every page applies the caller's rights anew), so it needs no key
//! and works on every replica; the digest of the conditions in it catches a token that is used
//! with another query by mistake. `page_size` is no condition and may change between pages.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use colophon_domain::{Failure, Reason, Result};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

/// The first byte of a token; another one would mean another form.
const VERSION: u8 = 1;

/// The conditions of a query, collected field by field.
pub(crate) struct Conditions(Sha256);

impl Conditions {
    /// Begins with the method's name and the caller's.
    pub(crate) fn of(method: &str, principal: &str) -> Self {
        Self(Sha256::new()).and(method).and(principal)
    }

    /// Adds one field. The length goes first, so that no two lists of fields look the same.
    #[must_use]
    pub(crate) fn and(mut self, field: &str) -> Self {
        self.0.update(u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
        self.0.update(field.as_bytes());
        self
    }

    /// Adds a field that may be left out.
    #[must_use]
    pub(crate) fn and_maybe<T: ToString>(self, field: Option<&T>) -> Self {
        match field {
            Some(value) => self.and("given").and(&value.to_string()),
            None => self.and("left out"),
        }
    }

    fn digest(self) -> [u8; 16] {
        let whole: [u8; 32] = self.0.finalize().into();
        let mut half = [0; 16];
        half.copy_from_slice(whole.first_chunk::<16>().unwrap_or(&[0; 16]));
        half
    }

    /// Writes a token that goes on behind this position.
    pub(crate) fn token<P: Position>(self, last: &P) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.digest());
        last.write(&mut bytes);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token back; `None` for the empty one of the first page.
    pub(crate) fn position<P: Position>(self, token: &str) -> Result<Option<P>> {
        if token.is_empty() {
            return Ok(None);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok();
        let position = bytes.as_deref().and_then(|bytes| {
            let (version, rest) = bytes.split_first()?;
            let (digest, rest) = rest.split_first_chunk::<16>()?;
            let ours = *version == VERSION && *digest == self.digest();
            if ours { P::read(rest) } else { None }
        });
        position.map(Some).ok_or_else(|| {
            Failure::new(
                Reason::InvalidPageToken,
                "the page token is not one of ours, or belongs to another query",
            )
            .field("page_token")
            .remedy("repeat the query's other fields unchanged, or begin without a token")
        })
    }
}

/// The last row of a page, as a token keeps it.
pub(crate) trait Position: Sized {
    fn write(&self, bytes: &mut Vec<u8>);
    fn read(bytes: &[u8]) -> Option<Self>;
}

impl Position for Uuid {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.as_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_bytes)
    }
}

impl Position for (OffsetDateTime, Uuid) {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.0.unix_timestamp_nanos().to_be_bytes());
        self.1.write(bytes);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (nanos, id) = bytes.split_first_chunk::<16>()?;
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from_be_bytes(*nanos)).ok()?;
        Some((time, Uuid::read(id)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    fn conditions(actor: &str) -> Conditions {
        Conditions::of("ListReleases", "ci").and(actor).and_maybe(None::<&String>)
    }

    #[test]
    fn a_position_reads_back() {
        let id = Uuid::from_u128(7);
        let token = conditions("a").token(&id);
        assert_eq!(conditions("a").position::<Uuid>(&token).unwrap(), Some(id));
        let entry = (datetime!(2026-11-03 14:02:00.123456 UTC), id);
        let token = conditions("a").token(&entry);
        let read = conditions("a").position::<(OffsetDateTime, Uuid)>(&token).unwrap();
        assert_eq!(read, Some(entry));
        assert_eq!(conditions("a").position::<Uuid>("").unwrap(), None);
    }

    #[test]
    fn another_query_does_not_take_the_token() {
        let token = conditions("a").token(&Uuid::nil());
        for other in [
            conditions("b"),
            Conditions::of("ListTagMoves", "ci").and("a").and_maybe(None::<&String>),
            Conditions::of("ListReleases", "cd").and("a").and_maybe(None::<&String>),
            Conditions::of("ListReleases", "ci").and("a").and_maybe(Some(&"")),
        ] {
            let failure = other.position::<Uuid>(&token).unwrap_err();
            assert_eq!(failure.reason(), Reason::InvalidPageToken);
            assert_eq!(failure.field_name(), Some("page_token"));
        }
        let entries = conditions("a").position::<(OffsetDateTime, Uuid)>(&token);
        assert!(entries.is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_refused(token in "[A-Za-z0-9_=+/-]{1,120}|\\PC{1,20}") {
            prop_assert!(conditions("a").position::<Uuid>(&token).is_err());
        }
    }
}
