//! The small parsers that requests are read with. Each takes the field's name in the contract's
//! spelling and refuses by it; nothing half-checked goes further in.

use std::{collections::BTreeMap, str::FromStr};

use colophon_api::Timestamp;
use colophon_domain::{Failure, Reason, Result};
use time::OffsetDateTime;
use uuid::Uuid;

/// A page has so many rows if the caller does not say.
const PAGE_DEFAULT: u16 = 50;
/// A page has at most so many.
const PAGE_MOST: u16 = 200;
/// A release has at most so many labels.
const LABELS_MOST: usize = 32;
/// Keys and ids that callers give us have at most so many characters.
const PRINTABLE_MOST: usize = 128;

/// Parses a text that must be there.
pub(crate) fn required<T: FromStr<Err = Failure>>(field: &str, text: &str) -> Result<T> {
    if text.is_empty() {
        return Err(Failure::invalid(field.to_owned(), format!("{field} is required")));
    }
    text.parse().map_err(|failure: Failure| failure.field(field.to_owned()))
}

/// Parses a text that may be left out, with the parser given.
pub(crate) fn optional<T>(
    field: &str,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T>,
) -> Result<Option<T>> {
    if text.is_empty() {
        return Ok(None);
    }
    parse(text).map(Some).map_err(|failure| failure.field(field.to_owned()))
}

/// Reads the id of a release, a freeze or an upload.
pub(crate) fn id(field: &str, text: &str) -> Result<Uuid> {
    // Only the usual form: the braced and the urn forms are other texts for the same release.
    let hyphenated = text.len() == 36;
    match Uuid::try_parse(text) {
        Ok(id) if hyphenated => Ok(id),
        _ if text.is_empty() => {
            Err(Failure::invalid(field.to_owned(), format!("{field} is required")))
        }
        _ => Err(Failure::invalid(field.to_owned(), format!("{field} is not an id"))
            .remedy("an id is a UUID, for example 019a4d1c-0000-7000-8000-000000000001")),
    }
}

/// Reads a number of bytes.
pub(crate) fn bytes(field: &'static str, number: i64) -> Result<u64> {
    u64::try_from(number)
        .map_err(|_| Failure::invalid(field, format!("{field} is {number}, and cannot be below 0")))
}

/// Reads a time that may be left out.
pub(crate) fn time(field: &str, timestamp: Option<Timestamp>) -> Result<Option<OffsetDateTime>> {
    let time = timestamp.map(OffsetDateTime::try_from).transpose();
    time.map_err(|error| Failure::invalid(field.to_owned(), error.to_string()))
}

/// Reads a text for people: at most `limit` characters, and none that would change how the
/// text around it is shown.
pub(crate) fn prose(field: &str, text: String, limit: usize) -> Result<String> {
    if text.chars().count() > limit {
        return Err(Failure::invalid(
            field.to_owned(),
            format!("{field} is longer than {limit} characters"),
        ));
    }
    if text.chars().any(disruptive) {
        return Err(Failure::invalid(
            field.to_owned(),
            format!("{field} holds a control character"),
        )
        .remedy("write one line of plain text, without line breaks and terminal codes"));
    }
    Ok(text)
}

/// Reads the reason of a call that needs one.
pub(crate) fn reason(text: String) -> Result<String> {
    let text = prose("reason", text, 1_000)?;
    if text.trim().is_empty() {
        return Err(Failure::invalid("reason", "reason is required")
            .remedy("say why; others will read it when they ask what happened"));
    }
    Ok(text)
}

/// Control characters, line separators, and those that turn the direction of writing.
fn disruptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}' | '\u{2029}'
                       | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Reads the number of rows of a page.
pub(crate) fn page_size(number: i32) -> Result<u16> {
    match u16::try_from(number) {
        Ok(0) => Ok(PAGE_DEFAULT),
        Ok(size) if size <= PAGE_MOST => Ok(size),
        _ => Err(Failure::invalid(
            "page_size",
            format!("page_size is {number}; it must be 1 to {PAGE_MOST}"),
        )),
    }
}

/// Reads the name of a caller in a list's condition.
pub(crate) fn actor(text: String) -> Result<Option<String>> {
    let text = prose("actor", text, 200)?;
    Ok((!text.is_empty()).then_some(text))
}

/// A text of 1 to 128 printable ASCII characters.
pub(crate) fn printable(field: &'static str, text: &str) -> Result<()> {
    let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if (1..=PRINTABLE_MOST).contains(&text.len()) && printable {
        return Ok(());
    }
    Err(Failure::invalid(
        field,
        format!("{field} is not 1 to {PRINTABLE_MOST} printable ASCII characters"),
    ))
}

/// Reads the labels.
pub(crate) fn labels(labels: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    if labels.len() > LABELS_MOST {
        return Err(Failure::invalid("labels", format!("more than {LABELS_MOST} labels")));
    }
    for (key, value) in &labels {
        label(key, value).map_err(|failure| failure.field("labels"))?;
    }
    Ok(labels)
}

/// A key and a value that follow the rules for labels.
pub(crate) fn label(key: &str, value: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    if !(1..=63).contains(&key.len()) || !key.bytes().all(plain) {
        return Err(Failure::new(Reason::InvalidArgument, "a label's key is not of its form")
            .remedy("a key has 1 to 63 letters, digits, '.', '_', '-' or '/'"));
    }
    if value.chars().count() > 256 || value.chars().any(disruptive) {
        return Err(Failure::new(
            Reason::InvalidArgument,
            format!("the value of the label {key} is not of its form"),
        )
        .remedy("a value has at most 256 characters, none of them a control character"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use colophon_domain::{Reference, Repository};

    use super::*;

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let failure = required::<Reference>("source", "").unwrap_err();
        assert_eq!(failure.field_name(), Some("source"));
        let failure = required::<Reference>("source", "a b").unwrap_err();
        assert_eq!(
            (failure.reason(), failure.field_name()),
            (Reason::InvalidReference, Some("source"))
        );
        assert_eq!(optional("repository", "", Repository::parse).unwrap(), None);
    }

    #[test]
    fn an_id_has_one_form() {
        let text = "019a4d1c-0000-7000-8000-000000000001";
        assert_eq!(id("id", text).unwrap().to_string(), text);
        for wrong in ["", "1", &format!("{{{text}}}"), &text.replace('-', "")] {
            assert_eq!(id("id", wrong).unwrap_err().field_name(), Some("id"), "{wrong}");
        }
    }

    #[test]
    fn prose_is_one_line_of_plain_text() {
        assert!(prose("reason", "für Montag – wie besprochen".into(), 1_000).is_ok());
        for text in
            ["a\nb", "\u{1b}[31m", "a\u{202E}b", "a\u{200F}b", "a\u{061C}b", "\u{0}", "a\u{2028}b"]
        {
            assert!(prose("reason", text.into(), 1_000).is_err(), "{text:?}");
        }
        assert!(prose("reason", "é".repeat(1_000), 1_000).is_ok());
        assert!(prose("reason", "é".repeat(1_001), 1_000).is_err());
    }

    #[test]
    fn a_reason_says_something() {
        assert_eq!(reason("bad build".into()).unwrap(), "bad build");
        for text in ["", "  ", "a\nb", &"x".repeat(1_001)] {
            assert_eq!(reason(text.into()).unwrap_err().field_name(), Some("reason"), "{text:?}");
        }
    }

    #[test]
    fn there_may_be_32_labels() {
        let some = |count: usize| (0..count).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(labels(some(32)).unwrap().len(), 32);
        assert_eq!(labels(some(33)).unwrap_err().field_name(), Some("labels"));
        let wrong = [("a b".to_owned(), String::new())].into();
        assert_eq!(labels(wrong).unwrap_err().field_name(), Some("labels"));
    }

    #[test]
    fn a_page_has_1_to_200_rows() {
        assert_eq!(page_size(0).unwrap(), 50);
        assert_eq!(page_size(200).unwrap(), 200);
        for number in [-1, 201, i32::MIN, i32::MAX] {
            assert_eq!(page_size(number).unwrap_err().field_name(), Some("page_size"));
        }
    }

    #[test]
    fn labels_have_narrow_keys_and_wide_values() {
        assert!(label("team/web.1_a-b", "").is_ok() && label("a", &"é".repeat(256)).is_ok());
        for (key, value) in [("", ""), ("a b", ""), ("é", ""), ("a", "b\n")] {
            assert!(label(key, value).is_err(), "{key:?} {value:?}");
        }
        assert!(label(&"k".repeat(64), "").is_err() && label("k", &"v".repeat(257)).is_err());
    }
}
