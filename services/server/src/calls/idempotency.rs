//! Idempotency keys: what makes sending a request again safe. REST clients may give theirs in the
//! `Idempotency-Key` header, which means the same as the message's field.

use colophon_domain::{Failure, Result};

use crate::fields;

const FIELD: &str = "idempotency_key";

/// Puts the key of the REST header into the message's field; the two may both be there if they
/// agree.
pub(crate) fn with_header_key(field: &mut String, header: Option<String>) -> Result<()> {
    match header {
        Some(key) if field.is_empty() => {
            // An empty header would otherwise be the same as none, and sending again not safe.
            checked(&key)?;
            *field = key;
            Ok(())
        }
        Some(key) if key != *field => Err(Failure::invalid(
            FIELD,
            "the header Idempotency-Key and the field idempotency_key differ",
        )
        .remedy("give one of them, or the same in both")),
        _ => Ok(()),
    }
}

/// Reads the field; `None` where it is left out.
pub(super) fn key(text: String) -> Result<Option<String>> {
    if text.is_empty() {
        return Ok(None);
    }
    checked(&text)?;
    Ok(Some(text))
}

fn checked(key: &str) -> Result<()> {
    fields::printable(FIELD, key).map_err(|failure| failure.remedy("a UUID will do"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_field_agree_or_one_is_left_out() {
        let with = |field: &str, header: Option<&str>| {
            let mut field = field.to_owned();
            with_header_key(&mut field, header.map(Into::into)).map(|()| field)
        };
        assert_eq!(with("", Some("k")).unwrap(), "k");
        assert_eq!(with("k", Some("k")).unwrap(), "k");
        assert_eq!(with("k", None).unwrap(), "k");
        for (field, header) in [("k", "other"), ("", ""), ("k", "")] {
            let failure = with(field, Some(header)).unwrap_err();
            assert_eq!(failure.field_name(), Some("idempotency_key"));
        }
    }

    #[test]
    fn a_key_is_printable_and_short() {
        assert_eq!(key(String::new()).unwrap(), None);
        assert_eq!(key("run 17~".into()).unwrap().as_deref(), Some("run 17~"));
        assert!(key("x".repeat(128)).is_ok());
        for wrong in ["é".to_owned(), "a\nb".to_owned(), "x".repeat(129)] {
            assert_eq!(key(wrong).unwrap_err().field_name(), Some("idempotency_key"));
        }
    }
}
