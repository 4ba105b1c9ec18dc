//! Times as people write them on a command line, read against a given now.

use std::time::Duration;

use time::{
    Date, OffsetDateTime, PrimitiveDateTime, Time, format_description::BorrowedFormatItem,
    format_description::well_known::Rfc3339, macros::format_description,
};

/// What `--help` says about times.
pub const FORMS: &str = "RFC 3339, \"YYYY-MM-DD HH:MM\" or \"HH:MM\" of today (both UTC), \
                         \"2h ago\" or \"in 2h\"";

const MINUTE: &[BorrowedFormatItem<'_>] = format_description!("[hour]:[minute]");
const SECOND: &[BorrowedFormatItem<'_>] = format_description!("[hour]:[minute]:[second]");
const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

/// Reads one of the [`FORMS`].
pub fn parse(text: &str, now: OffsetDateTime) -> Result<OffsetDateTime, String> {
    let text = text.trim();
    if let Some(past) = text.strip_suffix("ago") {
        return shift(past, |by| now.checked_sub(by));
    }
    if let Some(future) = text.strip_prefix("in ") {
        return shift(future, |by| now.checked_add(by));
    }
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time);
    }
    if let Some(time) = clock(text) {
        return Ok(now.to_offset(time::UtcOffset::UTC).replace_time(time));
    }
    if let Some((day, hours)) = text.split_once([' ', 'T'])
        && let Ok(day) = Date::parse(day, DAY)
        && let Some(time) = clock(hours)
    {
        return Ok(PrimitiveDateTime::new(day, time).assume_utc());
    }
    Err(format!("give {FORMS}"))
}

fn clock(text: &str) -> Option<Time> {
    Time::parse(text, MINUTE).or_else(|_| Time::parse(text, SECOND)).ok()
}

fn shift(
    text: &str,
    by: impl FnOnce(time::Duration) -> Option<OffsetDateTime>,
) -> Result<OffsetDateTime, String> {
    let duration = duration(text)?;
    let too_far = || "the time is out of range".to_owned();
    by(time::Duration::try_from(duration).map_err(|_| too_far())?).ok_or_else(too_far)
}

/// Reads a duration: `90s`, `30m`, `1h 30m`, `2days`.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim())
        .map_err(|error| format!("{error}; give a duration, for example 90s, 30m or 2h"))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn every_documented_form_is_read() {
        let now = datetime!(2026-11-03 20:30 UTC);
        for (text, time) in [
            ("2026-11-03T16:02:00+02:00", datetime!(2026-11-03 14:02 UTC)),
            ("2026-11-01 14:02", datetime!(2026-11-01 14:02 UTC)),
            ("2026-11-01 14:02:30", datetime!(2026-11-01 14:02:30 UTC)),
            ("2026-11-01T14:02", datetime!(2026-11-01 14:02 UTC)),
            ("14:02", datetime!(2026-11-03 14:02 UTC)),
            ("2h ago", datetime!(2026-11-03 18:30 UTC)),
            ("1day 2h ago", datetime!(2026-11-02 18:30 UTC)),
            ("in 30m", datetime!(2026-11-03 21:00 UTC)),
        ] {
            assert_eq!(parse(text, now), Ok(time), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_the_forms() {
        let now = datetime!(2026-11-03 20:30 UTC);
        for text in ["", "now", "25:00", "2026-02-30 10:00", "14", "ago", "in", "2h"] {
            assert!(parse(text, now).is_err(), "{text}");
        }
        assert!(parse("90000000years ago", now).is_err());
        assert!(parse("tomorrow", now).unwrap_err().contains("HH:MM"));
    }
}
