//! How much an upload may bring, and how long it may take.

use std::time::Duration;

use colophon_domain::{Failure, Result};
use colophon_store::UploadTerms;
use schemars::JsonSchema;
use serde::Deserialize;

/// Less is most likely a mistake of units.
const LEAST_IDLE: Duration = Duration::from_mins(1);
/// What takes longer will not come.
const MOST_AGE: Duration = Duration::from_hours(24 * 30);

/// `[upload]`: what clients may send. Times are written like `30m` or `24h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UploadLimits {
    /// Bytes of one upload.
    pub max_bytes: u64,
    /// Blobs of one upload.
    pub max_blobs: u32,
    /// Uploads of one caller that have not ended.
    pub max_per_caller: u32,
    /// Blobs that one caller sends at the same time, at each process.
    pub max_streams_per_caller: u32,
    /// An upload ends when nothing has come for so long; at least a minute.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub idle_timeout: Duration,
    /// An upload ends after so long, whatever comes; at most 30 days.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub max_age: Duration,
}

impl Default for UploadLimits {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 30,
            max_blobs: 2_000,
            max_per_caller: 256,
            max_streams_per_caller: 32,
            idle_timeout: Duration::from_hours(1),
            max_age: Duration::from_hours(24),
        }
    }
}

impl UploadLimits {
    /// Refuses limits that let nothing through and times that are out of bounds, by name.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with the field's name.
    pub fn check(&self) -> Result<()> {
        let wrong = |field: &str, text: &str| {
            let field = format!("upload.{field}");
            let text = format!("{field} must be {text}");
            Err(Failure::invalid(field, text))
        };
        for (field, number) in [
            ("max_bytes", self.max_bytes),
            ("max_blobs", self.max_blobs.into()),
            ("max_per_caller", self.max_per_caller.into()),
            ("max_streams_per_caller", self.max_streams_per_caller.into()),
        ] {
            if number == 0 {
                return wrong(field, "at least 1");
            }
        }
        if self.idle_timeout < LEAST_IDLE {
            return wrong("idle_timeout", "at least 1m");
        }
        if self.max_age < self.idle_timeout || self.max_age > MOST_AGE {
            return wrong("max_age", "at least upload.idle_timeout and at most 30d");
        }
        Ok(())
    }

    pub(super) fn terms(&self) -> UploadTerms {
        UploadTerms { idle: self.idle_timeout, max_age: self.max_age }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_let_nothing_through_are_refused_by_name() {
        let usual = UploadLimits::default();
        usual.check().unwrap();
        for (limits, field) in [
            (UploadLimits { max_bytes: 0, ..usual }, "upload.max_bytes"),
            (UploadLimits { max_streams_per_caller: 0, ..usual }, "upload.max_streams_per_caller"),
            (UploadLimits { idle_timeout: Duration::from_secs(5), ..usual }, "upload.idle_timeout"),
            (UploadLimits { max_age: Duration::from_mins(5), ..usual }, "upload.max_age"),
            (UploadLimits { max_age: MOST_AGE * 2, ..usual }, "upload.max_age"),
        ] {
            assert_eq!(limits.check().unwrap_err().field_name(), Some(field));
        }
    }
}
