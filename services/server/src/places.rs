//! How much of something each caller may have going at once: one that asks too much must not keep the
//! others waiting.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Counts what each caller has going, by the caller's name.
#[derive(Clone)]
pub(crate) struct Places {
    most: usize,
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

/// A place of a caller; dropping it gives it back.
pub(crate) struct Place {
    places: Places,
    caller: String,
}

impl Places {
    /// So many for each caller.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// How many each caller has.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Takes a place, if the caller has one left.
    pub(crate) fn take(&self, caller: &str) -> Option<Place> {
        let mut all = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = all.get(caller).copied().unwrap_or_default();
        if taken >= self.most {
            return None;
        }
        all.insert(caller.to_owned(), taken + 1);
        Some(Place { places: self.clone(), caller: caller.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = all.get_mut(&self.caller) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                all.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_so_many_places_and_gets_them_back() {
        let places = Places::new(2);
        let (first, _second) = (places.take("ci").unwrap(), places.take("ci").unwrap());
        assert!(places.take("ci").is_none());
        places.take("other").unwrap();
        drop(first);
        places.take("ci").unwrap();
        assert_eq!(places.taken.lock().unwrap().len(), 1, "who has nothing going takes no room");
    }
}
