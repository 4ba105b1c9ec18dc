//! How many calls of one caller wait for a release at once: streams and long polls hold a
//! connection, and nobody takes all of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use colophon_domain::{Failure, Reason, Result, Retry};

/// When to come again; somebody's wait may be over by then.
const LATER: Duration = Duration::from_secs(5);

/// Counts those who wait, by the caller's name.
#[derive(Clone)]
pub(crate) struct Watchers {
    most: usize,
    waiting: Arc<Mutex<HashMap<String, usize>>>,
}

/// A place among those who wait, until it is dropped.
pub(crate) struct Place {
    caller: String,
    watchers: Watchers,
}

impl Watchers {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, waiting: Arc::default() }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// `TOO_MANY_WATCHERS` if the caller has none left.
    pub(crate) fn place(&self, caller: &str) -> Result<Place> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.entry(caller.to_owned()).or_default();
        if *count >= self.most {
            let text = format!("{caller} waits for releases in {} calls already", self.most);
            return Err(Failure::new(Reason::TooManyWatchers, text)
                .remedy("end some of them, or ask for the release without waiting")
                .retry(Retry::Wait(LATER)));
        }
        *count += 1;
        Ok(Place { caller: caller.to_owned(), watchers: self.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.watchers.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = waiting.get_mut(&self.caller) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                waiting.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_so_many_places_and_gets_them_back() {
        let watchers = Watchers::new(2);
        let held = [watchers.place("a").unwrap(), watchers.place("a").unwrap()];
        let refused = watchers.place("a").err().unwrap();
        assert_eq!(refused.reason(), Reason::TooManyWatchers);
        assert!(matches!(refused.retry_class(), Retry::Wait(_)));
        let _other = watchers.place("b").unwrap();
        drop(held);
        assert!(watchers.place("a").is_ok());
        assert_eq!(watchers.waiting.lock().unwrap().len(), 1);
    }
}
