//! Faults at random. What meets which request follows from the seed, the request's method and path, and
//! how often it has come: not from the order in which requests of several clients happen to arrive.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::StatusCode;

use super::{Action, Exchange};

/// An answer that says that something else was stored.
const OTHER: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// Which share of the requests meets a fault, and where they may be led astray.
pub struct Chaos {
    seed: u64,
    percent: u64,
    elsewhere: String,
    seen: Mutex<HashMap<String, u64>>,
}

impl Chaos {
    /// Faults for so many of a hundred requests. `elsewhere` is the URL, without a path, of a
    /// service that has nothing to do with it; requests are redirected there, too.
    pub fn new(seed: u64, percent: u64, elsewhere: impl Into<String>) -> Self {
        Self { seed, percent, elsewhere: elsewhere.into(), seen: Mutex::default() }
    }

    pub(super) fn fault(&self, exchange: &Exchange) -> Option<Action> {
        let key = format!("{} {}", exchange.method, exchange.path);
        let time = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let times = seen.entry(key.clone()).or_default();
            *times += 1;
            *times
        };
        let mut hasher = DefaultHasher::new();
        (self.seed, &key, time).hash(&mut hasher);
        let mut drawn = hasher.finish();
        let mut draw = |most: u64| {
            let value = drawn % most;
            drawn /= most;
            value
        };
        if draw(100) >= self.percent {
            return None;
        }
        let kind = draw(12);
        Some(self.action(kind, draw(4_000), exchange))
    }

    fn action(&self, kind: u64, bytes: u64, exchange: &Exchange) -> Action {
        let answer = |status, headers: &[(&str, &str)], text: &str| {
            let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into()));
            Action::Status(status, headers.collect(), text.to_owned())
        };
        match kind {
            0 => Action::DropBefore,
            1 => Action::DropAfter,
            2 => Action::CutRequest(bytes),
            3 => Action::CutResponse(bytes),
            4 => Action::Delay(Duration::from_millis(bytes / 40)),
            5 => Action::SlowResponse(20_000 + bytes * 10),
            // As Docker Hub answers: no JSON.
            6 => answer(StatusCode::TOO_MANY_REQUESTS, &[("retry-after", "0")], "slow down"),
            7 => answer(StatusCode::INTERNAL_SERVER_ERROR, &[], "<html>oops</html>"),
            8 => answer(StatusCode::SERVICE_UNAVAILABLE, &[], ""),
            9 => Action::Flip(bytes),
            10 => Action::Truncate(bytes),
            _ if bytes.is_multiple_of(2) => Action::Digest(OTHER.to_owned()),
            _ => {
                let query = exchange.query.as_deref().map(|query| format!("?{query}"));
                let path = format!("{}{}", exchange.path, query.unwrap_or_default());
                let location = format!("{}{path}", self.elsewhere);
                answer(StatusCode::TEMPORARY_REDIRECT, &[("location", &location)], "")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn faults(seed: u64, percent: u64) -> Vec<String> {
        let chaos = Chaos::new(seed, percent, "http://127.0.0.1:1");
        let request = |path: u64| Request::get(format!("/v2/{path}")).body(()).unwrap();
        let draw = |number: u64| chaos.fault(&Exchange::arrived(&request(number % 100)));
        (0..2_000).map(|number| format!("{:?}", draw(number))).collect()
    }

    #[test]
    fn the_seed_says_everything_and_the_share_is_kept() {
        assert_eq!(faults(1, 10), faults(1, 10));
        assert_ne!(faults(1, 10), faults(2, 10));
        let met = faults(1, 10).iter().filter(|fault| *fault != "None").count();
        assert!((150..250).contains(&met), "{met}");
        let all = faults(3, 100).join("\n");
        for kind in [
            "DropBefore",
            "DropAfter",
            "CutRequest",
            "CutResponse",
            "Delay",
            "SlowResponse",
            "429",
            "500",
            "503",
            "Flip",
            "Truncate",
            "Digest",
            "307",
        ] {
            assert!(all.contains(kind), "{kind} never comes");
        }
    }
}
