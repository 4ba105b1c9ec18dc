//! What the headers of an answer say about when, and how often, a registry wants to be asked:
//! `Retry-After`, the fields of the IETF's drafts on rate limits, and those that came before them.
//! A registry may say anything, so what is said is bounded, here and by the budget.

use std::time::{Duration, SystemTime};

use colophon_domain::{Clock, LONGEST_PAUSE, LONGEST_WINDOW, least};
use http::{HeaderMap, HeaderName, header};

/// `Retry-After` (RFC 9110, section 10.2.3) in seconds or as a date. A date is measured against
/// the answer's own `Date`, so that a wrong clock on either side does no harm.
pub(crate) fn retry_after(headers: &HeaderMap, clock: &dyn Clock) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(LONGEST_PAUSE));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let left = until.duration_since(answered_at(headers, clock)).unwrap_or_default();
    Some(left.min(LONGEST_PAUSE))
}

/// The time of the answer, by its own clock if it says so.
fn answered_at(headers: &HeaderMap, clock: &dyn Clock) -> SystemTime {
    let date = headers.get(header::DATE).and_then(|value| value.to_str().ok());
    date.and_then(|text| httpdate::parse_http_date(text).ok())
        .unwrap_or_else(|| SystemTime::from(clock.now()))
}

/// The limit that an answer tells: `RateLimit-Policy: "default";q=100;w=10`, or `RateLimit-Limit:
/// 100;w=10` of the earlier drafts. Of several the lowest; windows above a minute are quotas, which are
/// spent as they come, as Docker Hub's `100;w=21600` is.
pub(crate) fn told_rate(headers: &HeaderMap) -> Option<f64> {
    let policies = texts(headers, "ratelimit-policy").chain(texts(headers, "ratelimit-limit"));
    policies
        .flat_map(|text| text.split(','))
        .filter_map(rate_of)
        .fold(None, |lowest, rate| least(lowest, Some(rate)))
}

fn rate_of(policy: &str) -> Option<f64> {
    let first = policy.split(';').next()?.trim();
    let counts_requests =
        parameter(policy, "qu").is_none_or(|unit| unit.trim_matches('"') == "requests");
    let quota: u32 = parameter(policy, "q").unwrap_or(first).parse().ok()?;
    let window: u64 = parameter(policy, "w")?.parse().ok()?;
    let sound = counts_requests && quota > 0 && window > 0 && window <= LONGEST_WINDOW.as_secs();
    sound.then(|| f64::from(quota) / Duration::from_secs(window).as_secs_f64())
}

/// How long to wait because an answer says that nothing is left: `RateLimit: "default";r=0;t=7`,
/// `RateLimit: remaining=0, reset=7`, or `RateLimit-Remaining: 0` and `RateLimit-Reset: 7`, also with
/// `X-` before them and with the reset as a time since 1970. More than a minute belongs to a quota, which
/// may be of some requests only: whoever really wants nobody to ask for so long sends `Retry-After`.
pub(crate) fn used_up(headers: &HeaderMap, clock: &dyn Clock) -> Option<Duration> {
    let structured = texts(headers, "ratelimit").flat_map(|text| {
        let items = text.split(',').map(|item| (parameter(item, "r"), parameter(item, "t")));
        let whole = (named(text, "remaining"), named(text, "reset"));
        items.chain([whole])
    });
    let apart = ["ratelimit", "x-ratelimit", "x-rate-limit"].into_iter().map(|prefix| {
        let text = |suffix| texts(headers, &format!("{prefix}-{suffix}")).next();
        (text("remaining"), text("reset"))
    });
    structured
        .chain(apart)
        .filter(|(remaining, _)| remaining.is_some_and(|left| left.trim() == "0"))
        .filter_map(|(_, reset)| reset?.trim().parse::<u64>().ok())
        .map(|reset| until(reset, headers, clock))
        .filter(|pause| *pause <= LONGEST_WINDOW)
        .max()
}

/// A reset is in so many seconds, or, as a number that is far too large for that, at a time.
fn until(reset: u64, headers: &HeaderMap, clock: &dyn Clock) -> Duration {
    const AT_A_TIME: u64 = 1_000_000_000;
    if reset < AT_A_TIME {
        return Duration::from_secs(reset);
    }
    let now = answered_at(headers, clock).duration_since(SystemTime::UNIX_EPOCH);
    Duration::from_secs(reset).saturating_sub(now.unwrap_or_default())
}

fn texts<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let name = HeaderName::try_from(name).ok();
    let values = name.map(|name| headers.get_all(name).into_iter());
    values.into_iter().flatten().filter_map(|value| value.to_str().ok())
}

/// `;name=value` of a structured field's item (RFC 9651, section 3.1.2).
fn parameter<'a>(item: &'a str, name: &str) -> Option<&'a str> {
    item.split(';').skip(1).find_map(|parameter| pair(parameter, name))
}

/// `name=value` among others.
fn named<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split([',', ';']).find_map(|part| pair(part, name))
}

fn pair<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (key, value) = text.split_once('=')?;
    (key.trim() == name).then(|| value.trim())
}

#[cfg(test)]
mod tests {
    use colophon_domain::SystemClock;
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn asked(pairs: &[(&'static str, &'static str)]) -> Option<Duration> {
        retry_after(&headers(pairs), &SystemClock)
    }

    #[test]
    fn seconds_and_dates_are_understood() {
        let date = ("retry-after", "Sun, 06 Nov 1994 08:49:57 GMT");
        assert_eq!(asked(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        let pair = [date, ("date", "Sun, 06 Nov 1994 08:49:37 GMT")];
        assert_eq!(asked(&pair), Some(Duration::from_secs(20)));
        assert_eq!(asked(&[date]), Some(Duration::ZERO));
        assert_eq!(asked(&[("retry-after", "soon")]), None);
        assert_eq!(asked(&[("retry-after", "99999999999")]), Some(LONGEST_PAUSE));
    }

    #[test]
    fn limits_are_told_in_the_words_of_every_draft_and_quotas_are_none() {
        let told = |name, value| told_rate(&headers(&[(name, value)]));
        assert_eq!(told("ratelimit-policy", "\"default\";q=100;w=10"), Some(10.0));
        assert_eq!(told("ratelimit-policy", "\"day\";q=9000;w=86400, \"s\";q=20;w=1"), Some(20.0));
        assert_eq!(told("ratelimit-limit", "10, 10;w=1;burst=1000, 1000;w=60"), Some(10.0));
        assert_eq!(told("ratelimit-policy", "\"r\";q=9;qu=\"requests\";w=1"), Some(9.0));
        for (name, value) in [
            ("ratelimit-limit", "100;w=21600"),
            ("ratelimit-limit", "600"),
            ("ratelimit-policy", "\"x\";q=0;w=1"),
            ("ratelimit-policy", "\"x\";q=-5;w=1"),
            ("ratelimit-policy", "\"x\";q=5;w=0"),
            ("ratelimit-policy", "\"x\";q=NaN;w=1"),
            ("ratelimit-policy", "\"bytes\";q=5000000;qu=\"content-bytes\";w=1"),
            ("ratelimit-policy", ";;;=,,q=;w"),
            ("x-ratelimit-limit", "5000"),
        ] {
            assert_eq!(told(name, value), None, "{name}: {value}");
        }
    }

    #[test]
    fn nothing_left_means_a_pause_if_it_is_short() {
        let left = |pairs: &[(&'static str, &'static str)]| {
            used_up(&headers(pairs), &SystemClock).map(|pause| pause.as_secs())
        };
        assert_eq!(left(&[("ratelimit", "\"default\";r=0;t=7")]), Some(7));
        assert_eq!(left(&[("ratelimit", "limit=100, remaining=0, reset=9")]), Some(9));
        assert_eq!(left(&[("ratelimit", "\"default\";r=5;t=7")]), None);
        assert_eq!(left(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "4000")]), None);
        let date = ("date", "Fri, 13 Feb 2009 23:31:30 GMT");
        let at =
            |reset| left(&[date, ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", reset)]);
        assert_eq!(
            [at("1234567897"), at("1234567000"), at("1234569999")],
            [Some(7), Some(0), None]
        );
        assert_eq!(left(&[("ratelimit-remaining", "0;w=21600")]), None, "Docker Hub's");
        assert_eq!(left(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "soon")]), None);
    }
}
