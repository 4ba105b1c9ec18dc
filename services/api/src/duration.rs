//! `google.protobuf.Duration` with the JSON form that the protobuf mapping asks for: seconds with
//! an `s` behind them, `25s` or `1.500s`. It is ours because [`crate::Timestamp`] is, and the two
//! come from one package.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const NANOS_PER_SECOND: u32 = 1_000_000_000;
/// About ten thousand years, the most that the protobuf mapping allows.
const MAX_SECONDS: u64 = 315_576_000_000;

/// A length of time.
///
/// What arrives over gRPC may be negative or out of range; converting it to a
/// [`std::time::Duration`] is what checks it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Duration {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds that are added to the seconds, of the same sign.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// A length of time that is not of the form, or negative or longer than ten thousand years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DurationError {
    /// The seconds or nanoseconds are out of range.
    Range,
    /// The text is no number of seconds with an `s`, or of minutes with an `m`.
    Form,
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Range => "the duration is negative, or longer than ten thousand years",
            Self::Form => "the duration is not of the form 25s, 1.5s or 1m",
        })
    }
}

impl std::error::Error for DurationError {}

impl TryFrom<Duration> for std::time::Duration {
    type Error = DurationError;

    fn try_from(duration: Duration) -> Result<Self, DurationError> {
        let seconds = u64::try_from(duration.seconds).map_err(|_| DurationError::Range)?;
        let nanos = u32::try_from(duration.nanos).map_err(|_| DurationError::Range)?;
        if seconds > MAX_SECONDS || nanos >= NANOS_PER_SECOND {
            return Err(DurationError::Range);
        }
        Ok(Self::new(seconds, nanos))
    }
}

impl From<std::time::Duration> for Duration {
    fn from(duration: std::time::Duration) -> Self {
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        // Below a thousand million, the nanoseconds always fit.
        Self { seconds, nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default() }
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    /// Reads the form of the mapping; and minutes, which a person writes into a URL.
    fn from_str(text: &str) -> Result<Self, DurationError> {
        let (number, scale) = match (text.strip_suffix('s'), text.strip_suffix('m')) {
            (Some(number), _) => (number, 1),
            (None, Some(number)) => (number, 60),
            (None, None) => return Err(DurationError::Form),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > 9 {
            return Err(DurationError::Form);
        }
        if number.contains('.') && (part.is_empty() || scale != 1) {
            return Err(DurationError::Form);
        }
        let seconds = whole.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
        let seconds = seconds.filter(|seconds| *seconds <= MAX_SECONDS);
        let nanos = format!("{part:0<9}").parse().map_err(|_| DurationError::Form)?;
        let seconds = seconds.ok_or(DurationError::Range)?;
        Ok(std::time::Duration::new(seconds, nanos).into())
    }
}

/// Seconds with 0, 3, 6 or 9 digits behind the point.
impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.seconds, self.nanos);
        if nanos == 0 {
            write!(f, "{seconds}s")
        } else if nanos % 1_000_000 == 0 {
            write!(f, "{seconds}.{:03}s", nanos / 1_000_000)
        } else if nanos % 1_000 == 0 {
            write!(f, "{seconds}.{:06}s", nanos / 1_000)
        } else {
            write!(f, "{seconds}.{nanos:09}s")
        }
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        std::time::Duration::try_from(*self).map_err(serde::ser::Error::custom)?;
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration, for example \"25s\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
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

    #[test]
    fn it_reads_back_what_it_wrote() {
        for text in ["0s", "25s", "1.500s", "0.000001s", "0.000000001s", "315576000000s"] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(duration.to_string(), text);
            let json = serde_json::to_string(&duration).unwrap();
            assert_eq!(serde_json::from_str::<Duration>(&json).unwrap(), duration);
        }
        assert_eq!("1.5s".parse::<Duration>().unwrap().to_string(), "1.500s");
        assert_eq!("1m".parse::<Duration>().unwrap().to_string(), "60s");
        let std = std::time::Duration::from_millis(1_500);
        assert_eq!(std::time::Duration::try_from(Duration::from(std)), Ok(std));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "25", "-1s", "+1s", "1.s", ".5s", "1,5s", "1.5m", "1h", "1 s"] {
            assert_eq!(text.parse::<Duration>(), Err(DurationError::Form), "{text}");
        }
        let long = ["315576000001s", "99999999999999999999s", "307445734561825861m"];
        for text in long {
            assert_eq!(text.parse::<Duration>(), Err(DurationError::Range), "{text}");
        }
        assert!("0.1234567890s".parse::<Duration>().is_err());
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0)] {
            let duration = Duration { seconds, nanos };
            assert_eq!(std::time::Duration::try_from(duration), Err(DurationError::Range));
            assert!(serde_json::to_string(&duration).is_err());
        }
        assert!(serde_json::from_str::<Duration>("12").is_err());
    }

    #[test]
    fn its_bytes_are_those_of_the_well_known_type() {
        let bytes = Duration { seconds: 300, nanos: 7 }.encode_to_vec();
        assert_eq!(bytes, [0x08, 0xac, 0x02, 0x10, 0x07]);
    }
}
