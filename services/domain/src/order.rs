//! What orders the builds of one floating tag, as the caller says: a build number, a time such
//! as the commit's, or a version. It replaces the order in which releases were accepted.

use std::{cmp::Ordering, fmt, str::FromStr};

use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use crate::{Failure, Version, digest::shown};

/// The field of requests that holds a key.
const FIELD: &str = "order_key";

/// The greatest number, 2^63 - 1: every store and every language can hold it.
const NUMBER_LIMIT: u64 = i64::MAX.cast_unsigned();

/// A time has at most this many characters; RFC 3339 with nanoseconds and an offset has 35.
const TIME_LIMIT: usize = 40;

/// The kinds of order keys. All keys of one tag are of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OrderKind {
    /// A build number.
    Number,
    /// A time.
    Time,
    /// A version (SemVer 2.0.0).
    Semver,
}

impl OrderKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Number, Self::Time, Self::Semver];

    /// The word before the colon, in the contract and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Time => "time",
            Self::Semver => "semver",
        }
    }

    /// Reads the word back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for OrderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An order key, within the bounds that [`OrderKey::number`] and [`OrderKey::time`] state.
///
/// `==` compares what was given; which of two builds is newer says [`OrderKey::compare`], for
/// which `1.4.2+a` and `v1.4.2` are the same. That is why the type has no `<`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OrderKey {
    /// A build number, 0 to `i64::MAX`.
    Number(u64),
    /// A time in UTC, in microseconds, of the years 1970 to 9999.
    Time(OffsetDateTime),
    /// A version.
    Semver(Version),
}

impl OrderKey {
    /// A build number; refused above `i64::MAX`, so that every store can hold it.
    pub fn number(number: u64) -> Result<Self, Failure> {
        if number <= NUMBER_LIMIT {
            return Ok(Self::Number(number));
        }
        Err(no_number(&number.to_string()))
    }

    /// A time of any offset. What is finer than a microsecond is cut off, because stores do so
    /// and a key must be the same when it comes back. Refused outside the years 1970 to 9999 of
    /// UTC.
    pub fn time(time: OffsetDateTime) -> Result<Self, Failure> {
        let cut = time.microsecond() * 1000;
        time.checked_to_offset(UtcOffset::UTC)
            .filter(|utc| (1970..=9999).contains(&utc.year()))
            .and_then(|utc| utc.replace_nanosecond(cut).ok())
            .map(Self::Time)
            .ok_or_else(|| no_time("the time lies outside the years 1970 to 9999".to_owned()))
    }

    /// Reads the value of a key whose kind is known. The failure's field is that of the
    /// contract: `order_key.number`, `order_key.time`, `order_key.semver`.
    pub fn parse(kind: OrderKind, text: &str) -> Result<Self, Failure> {
        match kind {
            OrderKind::Number => {
                // `u64` would also read a plus sign; only digits are a number here.
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                let number = text.parse().ok().filter(|_| digits && text.len() <= 19);
                Self::number(number.ok_or_else(|| no_number(text))?)
            }
            OrderKind::Time => {
                let short = Some(text).filter(|text| text.len() <= TIME_LIMIT);
                let time = short.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
                Self::time(time.ok_or_else(|| no_time(format!("{:?} is not a time", shown(text))))?)
            }
            OrderKind::Semver => {
                Version::parse(text).map(Self::Semver).map_err(|failure| failure.within(FIELD))
            }
        }
    }

    /// The kind.
    pub fn kind(&self) -> OrderKind {
        match self {
            Self::Number(_) => OrderKind::Number,
            Self::Time(_) => OrderKind::Time,
            Self::Semver(_) => OrderKind::Semver,
        }
    }

    /// The value without the kind, which [`OrderKey::parse`] reads back to an equal key: digits,
    /// RFC 3339 in UTC, or the version as it was written.
    pub fn value(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Time(time) => utc_text(*time),
            Self::Semver(version) => version.to_string(),
        }
    }

    /// Which of two builds is newer; `None` if the keys are of different kinds and nobody can
    /// say. Versions are compared by SemVer 2.0.0, section 11, so build metadata is ignored.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Number(one), Self::Number(two)) => Some(one.cmp(two)),
            (Self::Time(one), Self::Time(two)) => Some(one.cmp(two)),
            (Self::Semver(one), Self::Semver(two)) => Some(one.precedence(two)),
            (Self::Number(_) | Self::Time(_) | Self::Semver(_), _) => None,
        }
    }
}

impl FromStr for OrderKey {
    type Err = Failure;

    /// Parses `KIND:VALUE`: `number:1234`, `time:2026-11-03T14:02:00Z`, `semver:1.4.2`.
    fn from_str(text: &str) -> Result<Self, Failure> {
        let parts = text.split_once(':');
        match parts.and_then(|(kind, value)| Some((OrderKind::parse(kind)?, value))) {
            Some((kind, value)) => Self::parse(kind, value),
            None => Err(Failure::invalid(FIELD, format!("{:?} is not an order key", shown(text)))
                .remedy("write number:1234, time:2026-11-03T14:02:00Z or semver:1.4.2")),
        }
    }
}

impl fmt::Display for OrderKey {
    /// For readers: `number 1234`, `time 2026-11-03T14:02:00Z`, `version 1.4.2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::Number(_) => "number",
            Self::Time(_) => "time",
            Self::Semver(_) => "version",
        };
        write!(f, "{word} {}", self.value())
    }
}

fn no_number(text: &str) -> Failure {
    Failure::invalid("order_key.number", format!("{:?} is not a build number", shown(text)))
        .remedy(format!("write it with digits only, 0 to {NUMBER_LIMIT}"))
}

fn no_time(message: String) -> Failure {
    Failure::invalid("order_key.time", message).remedy(
        "write it as in RFC 3339, in the years 1970 to 9999 of UTC, for example \
         2026-11-03T14:02:00Z",
    )
}

/// RFC 3339 in UTC, with six digits of fraction where there is one.
fn utc_text(time: OffsetDateTime) -> String {
    let utc = time.checked_to_offset(UtcOffset::UTC).unwrap_or(time);
    let (date, month) = (utc.date(), u8::from(utc.month()));
    let (hour, minute, second, micros) = utc.time().as_hms_micro();
    let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    format!(
        "{:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z",
        date.year(),
        date.day(),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    fn key(text: &str) -> OrderKey {
        text.parse().unwrap()
    }

    #[test]
    fn keys_have_one_text() {
        for (text, value, shown) in [
            ("number:1234", "1234", "number 1234"),
            ("number:0", "0", "number 0"),
            ("number:007", "7", "number 7"),
            ("number:9223372036854775807", "9223372036854775807", "number 9223372036854775807"),
            ("time:2026-11-03T14:02:00Z", "2026-11-03T14:02:00Z", "time 2026-11-03T14:02:00Z"),
            ("time:2026-11-03T15:02:00.5+01:00", "2026-11-03T14:02:00.500000Z", ""),
            ("time:2026-11-03T14:02:00.1234567Z", "2026-11-03T14:02:00.123456Z", ""),
            ("time:1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", ""),
            ("time:9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999Z", ""),
            ("semver:1.4.2", "1.4.2", "version 1.4.2"),
            ("semver:v1.4.2-rc.1+b.5", "v1.4.2-rc.1+b.5", "version v1.4.2-rc.1+b.5"),
        ] {
            let key = key(text);
            assert_eq!(key.value(), value);
            assert!(shown.is_empty() || key.to_string() == shown, "{key}");
            assert_eq!(OrderKey::parse(key.kind(), &key.value()).unwrap(), key);
        }
        for kind in OrderKind::ALL {
            assert_eq!(OrderKind::parse(&kind.to_string()), Some(*kind));
        }
    }

    #[test]
    fn what_is_no_key_is_refused_with_its_field() {
        for (text, field) in [
            ("", "order_key"),
            ("1234", "order_key"),
            ("Number:1", "order_key"),
            ("version:1.4.2", "order_key"),
            ("number:", "order_key.number"),
            ("number:+1", "order_key.number"),
            ("number:-1", "order_key.number"),
            ("number: 1", "order_key.number"),
            ("number:9223372036854775808", "order_key.number"),
            ("number:00000000000000000001", "order_key.number"),
            ("time:yesterday", "order_key.time"),
            ("time:2026-11-03", "order_key.time"),
            ("time:2026-11-03T14:02:00", "order_key.time"),
            ("time:1969-12-31T23:59:59Z", "order_key.time"),
            ("time:1970-01-01T00:59:59+01:00", "order_key.time"),
            ("time:9999-12-31T23:59:59-00:01", "order_key.time"),
            ("time:2026-11-03T14:02:00.000000000000000000000Z", "order_key.time"),
            ("semver:1.4", "order_key.semver"),
        ] {
            let failure = text.parse::<OrderKey>().unwrap_err();
            assert_eq!(failure.field_name(), Some(field), "{text}");
            assert!(failure.remedy_text().is_some(), "{text}");
        }
        assert!(OrderKey::number(u64::MAX).is_err());
    }

    #[test]
    fn newer_is_not_the_same_as_different() {
        let compare = |one, two| key(one).compare(&key(two));
        assert_eq!(compare("number:9", "number:10"), Some(Ordering::Less));
        let (one, two) = ("time:2026-11-03T14:02:00+02:00", "time:2026-11-03T13:02:00Z");
        assert_eq!(compare(one, two), Some(Ordering::Less));
        assert_eq!(compare("semver:1.4.2-rc.1", "semver:v1.4.2"), Some(Ordering::Less));
        assert_eq!(compare("semver:1.4.2+b.1", "semver:v1.4.2"), Some(Ordering::Equal));
        assert_ne!(key("semver:1.4.2+b.1"), key("semver:v1.4.2"));
        assert_eq!(compare("number:1", "semver:1.0.0"), None);
        let time = OrderKey::time(datetime!(2026-11-03 14:02:00.000_000_9 +5)).unwrap();
        assert_eq!(time, key("time:2026-11-03T09:02:00Z"));
    }

    fn keys() -> impl Strategy<Value = OrderKey> {
        prop_oneof![
            (0..=NUMBER_LIMIT).prop_map(|number| OrderKey::number(number).unwrap()),
            // Seconds up to the end of the year 9999, at any offset.
            (0..253_402_300_800_i64, 0..1_000_000_000_i64, -64_800..64_800_i32).prop_map(
                |(seconds, nanos, offset)| {
                    let utc = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
                    let utc = utc + time::Duration::nanoseconds(nanos);
                    let offset = UtcOffset::from_whole_seconds(offset).unwrap();
                    OrderKey::time(utc.checked_to_offset(offset).unwrap_or(utc)).unwrap()
                }
            ),
            "v?[0-9]\\.[1-9]{1,2}\\.[0-9](-[a-z]{1,3}(\\.[1-9]{1,2})?)?(\\+[a-z]{1,3})?"
                .prop_map(|text| OrderKey::parse(OrderKind::Semver, &text).unwrap()),
        ]
    }

    proptest! {
        #[test]
        fn no_input_panics(text in "\\PC{0,40}|(number|time|semver):[0-9TZv.:+-]{0,30}") {
            if let Ok(key) = text.parse::<OrderKey>() {
                let canonical = format!("{}:{}", key.kind(), key.value());
                prop_assert_eq!(canonical.parse::<OrderKey>().unwrap(), key);
            }
        }

        #[test]
        fn a_key_reads_back_from_its_value(key in keys()) {
            prop_assert_eq!(OrderKey::parse(key.kind(), &key.value()).unwrap(), key);
        }

        /// Within one kind the comparison is an order; between kinds there is none.
        #[test]
        fn comparing_is_an_order(one in keys(), two in keys(), three in keys()) {
            prop_assert_eq!(one.compare(&one), Some(Ordering::Equal));
            prop_assert_eq!(one.compare(&two), two.compare(&one).map(Ordering::reverse));
            prop_assert_eq!(one.compare(&two).is_some(), one.kind() == two.kind());
            let less = |left: &OrderKey, right| left.compare(right) == Some(Ordering::Less);
            if less(&one, &two) && less(&two, &three) {
                prop_assert_eq!(one.compare(&three), Some(Ordering::Less));
            }
        }
    }
}
