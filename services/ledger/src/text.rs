//! The text forms of values inside an entry: each value has exactly one, so that the same
//! entry can never have two spellings and two hashes.

use time::{
    OffsetDateTime, PrimitiveDateTime, UtcOffset, format_description::BorrowedFormatItem,
    macros::format_description,
};
use uuid::{Uuid, Variant};

/// RFC 3339 in UTC with exactly six digits of the second and a `Z`.
const TIME_FORM: &[BorrowedFormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// Writes a time; `None` where it has no text form (finer than a microsecond, or not between
/// the years 1970 and 9999).
pub(crate) fn write_time(time: OffsetDateTime) -> Option<String> {
    let time = time.to_offset(UtcOffset::UTC);
    if !time.nanosecond().is_multiple_of(1_000) || !(1970..=9999).contains(&time.year()) {
        return None;
    }
    time.format(TIME_FORM).ok()
}

/// Reads a time in its one form.
pub(crate) fn read_time(text: &str) -> Option<OffsetDateTime> {
    let time = PrimitiveDateTime::parse(text, TIME_FORM).ok()?.assume_utc();
    (write_time(time)? == text).then_some(time)
}

/// Reads a UUID in lower case with hyphens.
pub(crate) fn read_uuid(text: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(text).ok()?;
    (id.hyphenated().to_string() == text).then_some(id)
}

/// Whether the id is a UUID of version 7 (RFC 9562).
pub(crate) fn is_entry_id(id: Uuid) -> bool {
    id.get_version_num() == 7 && id.get_variant() == Variant::RFC4122
}

/// Reads a decimal number without sign or leading zeros.
pub(crate) fn read_number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Whether the text is a registry: a host with an optional port, lower case.
pub(crate) fn is_registry(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=255).contains(&text.len()) && text.bytes().all(|b| known(b) || b".:-[]".contains(&b))
}

/// Whether the text is a repository's name within its registry.
pub(crate) fn is_repository(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=255).contains(&text.len())
        && text.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        && text.bytes().all(|b| known(b) || b"._-/".contains(&b))
}

/// Whether the text is a tag (OCI distribution-spec, "Pulling manifests").
pub(crate) fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Whether the text is a digest in its canonical form (OCI image-spec, "Digests").
pub(crate) fn is_digest(text: &str) -> bool {
    let length = match text.split_once(':') {
        Some(("sha256", hex)) => (hex, 64),
        Some(("sha512", hex)) => (hex, 128),
        _ => return false,
    };
    length.0.len() == length.1
        && length.0.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether the text is a reason code: `SCREAMING_SNAKE_CASE`.
pub(crate) fn is_reason_code(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().next().is_some_and(|b| b.is_ascii_uppercase())
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_time_has_one_form() {
        let time = datetime!(2026-11-23 15:04:05.000_120 UTC);
        assert_eq!(write_time(time).as_deref(), Some("2026-11-23T15:04:05.000120Z"));
        assert_eq!(read_time("2026-11-23T15:04:05.000120Z"), Some(time));
        let elsewhere = datetime!(2026-11-23 17:04:05.000_120 +2);
        assert_eq!(write_time(elsewhere), write_time(time));
        for text in [
            "2026-11-23T15:04:05Z",
            "2026-11-23T15:04:05.00012Z",
            "2026-11-23T15:04:05.000120+00:00",
            "2026-11-23 15:04:05.000120Z",
            "2026-11-23T15:04:60.000120Z",
            "+2026-11-23T15:04:05.000120Z",
            "2026-02-30T15:04:05.000120Z",
        ] {
            assert_eq!(read_time(text), None, "{text}");
        }
        assert_eq!(write_time(datetime!(2026-11-23 15:04:05.000_000_001 UTC)), None);
        assert_eq!(write_time(datetime!(1969-12-31 23:59:59 UTC)), None);
    }

    #[test]
    fn numbers_and_ids_have_one_form() {
        assert_eq!(read_number("18446744073709551615"), Some(u64::MAX));
        for text in ["", "+1", "01", "-1", "1.0", "18446744073709551616"] {
            assert_eq!(read_number(text), None, "{text}");
        }
        let id = "0193581e-6a6f-7c2d-9f5f-0123456789ab";
        assert!(read_uuid(id).is_some_and(is_entry_id));
        assert!(read_uuid(&id.to_uppercase()).is_none());
        assert!(read_uuid(&id.replace('-', "")).is_none());
        assert!(!is_entry_id(Uuid::nil()));
    }

    #[test]
    fn names_keep_to_plain_characters() {
        assert!(is_registry("registry.corp.lan:5000") && is_registry("[::1]:5000"));
        assert!(!is_registry("") && !is_registry("Docker.io") && !is_registry("a/b"));
        assert!(is_repository("acme/app_1.x-y") && is_repository("app"));
        for text in ["", "/a", "a/", "a//b", "a/../b", "A", "a\u{e9}", "a\"b", "a:b"] {
            assert!(!is_repository(text), "{text}");
        }
        assert!(is_tag("v1.2.3_X-y") && is_tag("_") && !is_tag(".a") && !is_tag("a/b"));
        assert!(!is_tag("") && !is_tag(&"x".repeat(129)));
        assert!(is_reason_code("TAG_MOVED") && !is_reason_code("tag_moved"));
        assert!(!is_reason_code("_X") && !is_reason_code(""));
        assert!(is_digest(&format!("sha256:{}", "a".repeat(64))));
        assert!(is_digest(&format!("sha512:{}", "0".repeat(128))));
        assert!(!is_digest(&format!("sha256:{}", "A".repeat(64))));
        assert!(!is_digest("md5:00") && !is_digest("sha256"));
    }
}
