//! One pause per registry host, shared by everything in the process: when a registry asks to
//! slow down, all wait. Short pauses are slept, long ones become a failure that says how long.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use colophon_domain::{Clock, Failure, Reason, RegistryHost, Result, Retry};
use http::{HeaderMap, HeaderName, header};
use tokio::time::Instant;

/// Longer pauses are not slept here but handed to the caller, who has other work.
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_secs(10);
/// The least that a caller is told to wait.
pub(crate) const LEAST_WAIT: Duration = Duration::from_secs(1);
/// A registry that asks for more than this is asked again after it.
const LONGEST_PAUSE: Duration = Duration::from_hours(6);

/// The pause of one host.
#[derive(Debug, Default)]
pub(crate) struct Pause(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    until: Option<Instant>,
    /// 429s without a `Retry-After` since the last success.
    strikes: u32,
}

impl Pause {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody sends anything for this long; a pause that ends later stays.
    pub(crate) fn hold(&self, pause: Duration) {
        let until = Instant::now() + pause.min(LONGEST_PAUSE);
        let mut state = self.state();
        state.until = state.until.max(Some(until));
    }

    /// A 429 that does not say how long: 1 s, 2 s, 4 s and so on. Answers to requests that were
    /// sent side by side come while the pause already runs, and do not make it longer.
    pub(crate) fn strike(&self) {
        let now = Instant::now();
        let mut state = self.state();
        if state.until.is_some_and(|until| until > now) {
            return;
        }
        let pause = Duration::from_secs(1 << state.strikes.min(10));
        state.strikes += 1;
        state.until = Some(now + pause);
    }

    /// The registry answers again.
    pub(crate) fn succeeded(&self) {
        self.state().strikes = 0;
    }

    /// How long the pause still lasts.
    pub(crate) fn left(&self) -> Duration {
        self.state().until.map_or(Duration::ZERO, |until| until - Instant::now())
    }

    /// Waits until the host may be asked, or says how long it would take.
    pub(crate) async fn ready(&self, host: &RegistryHost) -> Result<()> {
        self.ready_by(host, None).await
    }

    /// The same for what must be sent by a deadline: a pause that lasts longer is not slept.
    pub(crate) async fn ready_by(
        &self,
        host: &RegistryHost,
        deadline: Option<Instant>,
    ) -> Result<()> {
        loop {
            let left = self.left();
            if left.is_zero() {
                return Ok(());
            }
            let late = deadline.is_some_and(|deadline| Instant::now() + left >= deadline);
            if left > LONGEST_SLEEP || late {
                return Err(Failure::new(
                    Reason::RateLimited,
                    format!("{host} asks for a pause of {} s", left.as_secs() + 1),
                )
                .retry(Retry::Wait(left))
                .remedy("nothing; the work goes on when the registry allows it"));
            }
            tokio::time::sleep(left).await;
        }
    }
}

/// `Retry-After` (RFC 9110, section 10.2.3) in seconds or as a date. A date is measured against
/// the answer's own `Date`, so that a wrong clock on either side does no harm.
pub(crate) fn retry_after(headers: &HeaderMap, clock: &dyn Clock) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(LONGEST_PAUSE));
    }
    let date = |name: HeaderName| httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok();
    let until = date(header::RETRY_AFTER)?;
    let now = date(header::DATE).unwrap_or_else(|| SystemTime::from(clock.now()));
    Some(until.duration_since(now).unwrap_or_default().min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use colophon_domain::SystemClock;
    use http::HeaderValue;

    use super::*;

    fn asked(pairs: &[(HeaderName, &'static str)]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(name, HeaderValue::from_static(value));
        }
        retry_after(&headers, &SystemClock)
    }

    #[test]
    fn seconds_and_dates_are_understood() {
        let after = header::RETRY_AFTER;
        assert_eq!(asked(&[(after.clone(), "7")]), Some(Duration::from_secs(7)));
        let pair = [
            (after.clone(), "Sun, 06 Nov 1994 08:49:57 GMT"),
            (header::DATE, "Sun, 06 Nov 1994 08:49:37 GMT"),
        ];
        assert_eq!(asked(&pair), Some(Duration::from_secs(20)));
        let past = asked(&[(after.clone(), "Sun, 06 Nov 1994 08:49:57 GMT")]);
        assert_eq!(past, Some(Duration::ZERO));
        assert_eq!(asked(&[(after.clone(), "soon")]), None);
        assert_eq!(asked(&[(after, "99999999999")]), Some(LONGEST_PAUSE));
    }

    #[tokio::test(start_paused = true)]
    async fn short_pauses_are_slept_and_long_ones_returned() {
        let host = "r.corp.lan".parse().unwrap();
        let pause = Pause::default();
        let begin = Instant::now();
        pause.hold(Duration::from_secs(3));
        pause.hold(Duration::from_secs(1));
        pause.ready(&host).await.unwrap();
        assert_eq!(begin.elapsed().as_secs(), 3);
        pause.hold(Duration::from_mins(2));
        let failure = pause.ready(&host).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::RateLimited);
        assert!(matches!(failure.retry_class(), Retry::Wait(left) if left.as_secs() > 60));
    }

    #[tokio::test(start_paused = true)]
    async fn strikes_double_and_end_with_a_success() {
        let host = "r.corp.lan".parse().unwrap();
        let pause = Pause::default();
        let mut waited = Vec::new();
        for _ in 0..4 {
            pause.strike();
            pause.strike();
            let begin = Instant::now();
            pause.ready(&host).await.unwrap();
            waited.push(begin.elapsed().as_secs());
        }
        assert_eq!(waited, [1, 2, 4, 8]);
        pause.succeeded();
        pause.strike();
        let begin = Instant::now();
        pause.ready(&host).await.unwrap();
        assert_eq!(begin.elapsed().as_secs(), 1);
    }
}
