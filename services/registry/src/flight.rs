//! Single flight for blobs: two jobs of this process that need the same blob in the same
//! repository do not both send it; the second waits and then finds it there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use colophon_domain::{Digest, Repository};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

type Key = (Repository, Digest);

/// Who is moving which blob.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<Key, Weak<AsyncMutex<()>>>>);

impl Flights {
    /// Waits until nobody else moves this blob into this repository; true beside the guard
    /// means that somebody did.
    pub(crate) async fn board(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> (OwnedMutexGuard<()>, bool) {
        let flight = self.flight((repository.clone(), digest.clone()));
        match Arc::clone(&flight).try_lock_owned() {
            Ok(guard) => (guard, false),
            Err(_) => (flight.lock_owned().await, true),
        }
    }

    fn flight(&self, key: Key) -> Arc<AsyncMutex<()>> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key).and_then(Weak::upgrade) {
            return flight;
        }
        flights.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::new(AsyncMutex::new(()));
        flights.insert(key, Arc::downgrade(&flight));
        flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_waits_and_is_told_so() {
        let flights = Arc::new(Flights::default());
        let repository = Repository::parse("r.corp.lan/a/b").unwrap();
        let digest = Digest::sha256(b"x");
        let (first, waited) = flights.board(&repository, &digest).await;
        assert!(!waited);
        let flight = flights.flight((repository.clone(), digest.clone()));
        let second = tokio::spawn({
            let (flights, repository, digest) =
                (Arc::clone(&flights), repository.clone(), digest.clone());
            async move { flights.board(&repository, &digest).await.1 }
        });
        let (_other, waited) = flights.board(&repository, &Digest::sha256(b"y")).await;
        assert!(!waited);
        // The second has boarded, and holds the flight, before the first lets go.
        while Arc::strong_count(&flight) < 3 {
            tokio::task::yield_now().await;
        }
        drop(first);
        assert!(second.await.unwrap());
    }
}
