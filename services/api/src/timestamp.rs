//! `google.protobuf.Timestamp` with the JSON form that the protobuf mapping asks for: RFC 3339
//! in UTC, ending in `Z`, with 0, 3, 6 or 9 digits of a second. The ready-made types write
//! `+00:00`, which is why this one is ours.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

const NANOS_PER_SECOND: i128 = 1_000_000_000;
/// 0001-01-01T00:00:00Z, the first second that the protobuf mapping allows.
const MIN_SECONDS: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z, the last one.
const MAX_SECONDS: i64 = 253_402_300_799;

/// A point in time, in seconds and nanoseconds since 1970-01-01T00:00:00Z.
///
/// What arrives over gRPC may lie outside the range of `google.protobuf.Timestamp`; converting
/// it to an [`OffsetDateTime`] is what checks it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Message)]
pub struct Timestamp {
    /// Seconds since the epoch, negative before it.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds that are added to the seconds, 0 to 999,999,999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// A time that is not of the form, or outside the years 1 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampError {
    /// The seconds or nanoseconds are out of range.
    Range,
    /// The text is not RFC 3339.
    Form,
}

impl fmt::Display for TimestampError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Range => {
                "the time is outside 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z"
            }
            Self::Form => "the time is not RFC 3339, for example 2026-11-03T14:02:00Z",
        })
    }
}

impl std::error::Error for TimestampError {}

impl From<OffsetDateTime> for Timestamp {
    fn from(time: OffsetDateTime) -> Self {
        // `unix_timestamp` rounds down and `nanosecond` counts up from there, as protobuf asks,
        // also before the epoch. Below a thousand million, the nanoseconds always fit.
        let nanos = i32::try_from(time.nanosecond()).unwrap_or_default();
        Self { seconds: time.unix_timestamp(), nanos }
    }
}

impl TryFrom<Timestamp> for OffsetDateTime {
    type Error = TimestampError;

    fn try_from(timestamp: Timestamp) -> Result<Self, TimestampError> {
        let in_range = (MIN_SECONDS..=MAX_SECONDS).contains(&timestamp.seconds)
            && (0..1_000_000_000).contains(&timestamp.nanos);
        if !in_range {
            return Err(TimestampError::Range);
        }
        let nanos = i128::from(timestamp.seconds) * NANOS_PER_SECOND + i128::from(timestamp.nanos);
        Self::from_unix_timestamp_nanos(nanos).map_err(|_| TimestampError::Range)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| TimestampError::Form)?;
        let timestamp = Self::from(time);
        // A time near either end may leave the range when its offset is taken off.
        OffsetDateTime::try_from(timestamp).map(|_| timestamp)
    }
}

/// RFC 3339 in UTC; a time out of range is written as its two numbers.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(time) = OffsetDateTime::try_from(*self) else {
            return write!(f, "{}s{}ns", self.seconds, self.nanos);
        };
        let time = time.to_offset(UtcOffset::UTC);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            time.year(),
            u8::from(time.month()),
            time.day(),
            time.hour(),
            time.minute(),
            time.second()
        )?;
        let nanos = self.nanos;
        if nanos == 0 {
            f.write_str("Z")
        } else if nanos % 1_000_000 == 0 {
            write!(f, ".{:03}Z", nanos / 1_000_000)
        } else if nanos % 1_000 == 0 {
            write!(f, ".{:06}Z", nanos / 1_000)
        } else {
            write!(f, ".{nanos:09}Z")
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        OffsetDateTime::try_from(*self).map_err(serde::ser::Error::custom)?;
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time of RFC 3339, for example \"2026-11-03T14:02:00Z\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn written(seconds: i64, nanos: i32) -> String {
        Timestamp { seconds, nanos }.to_string()
    }

    #[test]
    fn it_is_written_in_utc_with_groups_of_three_digits() {
        assert_eq!(written(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(written(1_793_714_520, 120_000_000), "2026-11-03T14:02:00.120Z");
        assert_eq!(written(1_793_714_520, 120_500_000), "2026-11-03T14:02:00.120500Z");
        assert_eq!(written(1_793_714_520, 1), "2026-11-03T14:02:00.000000001Z");
        assert_eq!(written(-1, 500_000_000), "1969-12-31T23:59:59.500Z");
        assert_eq!(written(MIN_SECONDS, 0), "0001-01-01T00:00:00Z");
        assert_eq!(written(MAX_SECONDS, 999_999_999), "9999-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn it_reads_back_what_it_wrote_and_any_offset() {
        for (seconds, nanos) in
            [(0, 0), (-1, 500_000_000), (MIN_SECONDS, 0), (MAX_SECONDS, 999_999_999)]
        {
            let time = Timestamp { seconds, nanos };
            assert_eq!(time.to_string().parse(), Ok(time));
            let json = serde_json::to_string(&time).unwrap();
            assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), time);
            assert_eq!(Timestamp::from(OffsetDateTime::try_from(time).unwrap()), time);
        }
        let east: Timestamp = "2026-11-03T16:02:00+02:00".parse().unwrap();
        assert_eq!(east.to_string(), "2026-11-03T14:02:00Z");
    }

    #[test]
    fn what_is_out_of_range_or_no_time_is_refused() {
        for (seconds, nanos) in
            [(MIN_SECONDS - 1, 0), (MAX_SECONDS + 1, 0), (0, -1), (0, 1_000_000_000)]
        {
            let time = Timestamp { seconds, nanos };
            assert_eq!(OffsetDateTime::try_from(time), Err(TimestampError::Range));
            assert!(serde_json::to_string(&time).is_err());
        }
        for text in ["", "2026-11-03", "2026-11-03T14:02", "2026-13-03T14:02:00Z", "now"] {
            assert_eq!(text.parse::<Timestamp>(), Err(TimestampError::Form), "{text}");
        }
        let early = "0001-01-01T00:00:00+01:00".parse::<Timestamp>();
        assert!(early.is_err());
        assert!(serde_json::from_str::<Timestamp>("12").is_err());
    }

    #[test]
    fn its_bytes_are_those_of_the_well_known_type() {
        let bytes = Timestamp { seconds: 300, nanos: 7 }.encode_to_vec();
        assert_eq!(bytes, [0x08, 0xac, 0x02, 0x10, 0x07]);
    }
}
