//! Single flight for blobs: two jobs that need the same blob in the same repository do not both
//! send it; the second waits and then finds it there. Those of one process wait for each other in
//! memory, those of several by the book that all processes share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use colophon_domain::{
    Boarding, Digest, Flight, FlightBook, Lease, Reason, Repository, Result, Trail,
};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::{session::Session, trails::Trails};

/// How often whoever waits for another process looks again. Nothing else is held meanwhile.
const POLL: Duration = Duration::from_millis(500);
/// After so many of these the registry is asked, too: the end of a flight may not have been written.
const POLLS: u32 = 20;
/// How often the end of a flight is tried to be written.
const LANDINGS: u32 = 3;

type Key = (Repository, Digest);

/// Who is moving which blob.
#[derive(Default)]
pub(crate) struct Flights {
    here: Mutex<HashMap<Key, Weak<AsyncMutex<()>>>>,
    book: Option<Arc<dyn FlightBook>>,
}

/// The right to bring a blob, until it is dropped.
pub(crate) struct Boarded {
    _guard: OwnedMutexGuard<()>,
    repository: Repository,
    digest: Digest,
    written: Option<(Arc<dyn FlightBook>, Lease)>,
    /// Somebody else brought it, or tried to: it may be there.
    pub(crate) after: bool,
    /// How far that one's upload was.
    trail: Option<Trail>,
}

impl Flights {
    /// Flights that are written down where other processes see them.
    pub(crate) fn with(book: Arc<dyn FlightBook>) -> Self {
        Self { here: Mutex::default(), book: Some(book) }
    }

    /// Waits until nobody else moves this blob into this repository. Without a lease, and while the
    /// book cannot be read, only this process knows.
    pub(crate) async fn board(
        &self,
        lease: Option<Lease>,
        target: &Session,
        digest: &Digest,
    ) -> Result<Boarded> {
        let mut boarded = self.here(lease, &target.repository, digest).await;
        boarded.wait_for_others(target).await?;
        Ok(boarded)
    }

    /// Waits for those of this process.
    async fn here(
        &self,
        lease: Option<Lease>,
        repository: &Repository,
        digest: &Digest,
    ) -> Boarded {
        let flight = self.flight((repository.clone(), digest.clone()));
        let (guard, waited) = match Arc::clone(&flight).try_lock_owned() {
            Ok(guard) => (guard, false),
            Err(_) => (flight.lock_owned().await, true),
        };
        Boarded {
            _guard: guard,
            repository: repository.clone(),
            digest: digest.clone(),
            written: self.book.clone().zip(lease),
            after: waited,
            trail: None,
        }
    }

    fn flight(&self, key: Key) -> Arc<AsyncMutex<()>> {
        let mut flights = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key).and_then(Weak::upgrade) {
            return flight;
        }
        flights.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::new(AsyncMutex::new(()));
        flights.insert(key, Arc::downgrade(&flight));
        flight
    }
}

impl Boarded {
    async fn wait_for_others(&mut self, target: &Session) -> Result<()> {
        for poll in 1_u32.. {
            let Some((book, flight)) = self.entry() else { return Ok(()) };
            match book.board(flight).await {
                Ok(Boarding::First) => return Ok(()),
                Ok(Boarding::After(trail)) => {
                    (self.after, self.trail) = (true, trail);
                    return Ok(());
                }
                Ok(Boarding::Taken) => self.after = true,
                Err(failure) if failure.reason() == Reason::LeaseLost => return Err(failure),
                // It would cost a blob that moves twice, and not to move it would cost the release.
                Err(failure) => {
                    tracing::debug!(%failure, digest = %self.digest, "a flight is not written down");
                    self.written = None;
                    return Ok(());
                }
            }
            if poll.is_multiple_of(POLLS) && target.has_blob(&self.digest).await? {
                // Nothing is brought, so nothing is to be written down.
                self.written = None;
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn entry(&self) -> Option<(Arc<dyn FlightBook>, Flight<'_>)> {
        let (book, lease) = self.written.as_ref()?;
        let flight = Flight { lease: *lease, repository: &self.repository, digest: &self.digest };
        Some((Arc::clone(book), flight))
    }

    /// The blob is there, or nobody is to go on with it.
    pub(crate) async fn land(&self) {
        let Some((book, flight)) = self.entry() else { return };
        for landing in 1..=LANDINGS {
            let Err(failure) = book.land(flight).await else { return };
            // The row goes with the job; whoever waits for it asks the registry after a while.
            tracing::debug!(%failure, digest = %self.digest, "the end of a flight is not written down");
            if failure.reason() == Reason::LeaseLost || landing == LANDINGS {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Trails for Boarded {
    fn is_written(&self) -> bool {
        self.written.is_some()
    }

    fn trail(&self) -> Option<&Trail> {
        self.trail.as_ref()
    }

    async fn keep(&self, trail: &Trail) -> Result<bool> {
        let Some((book, flight)) = self.entry() else { return Ok(false) };
        match book.mark(flight, trail).await {
            Ok(()) => Ok(true),
            Err(failure) if failure.reason() == Reason::LeaseLost => Err(failure),
            Err(failure) => {
                tracing::debug!(%failure, digest = %self.digest, "an upload is not written down");
                Ok(false)
            }
        }
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
        let first = flights.here(None, &repository, &digest).await;
        assert!(!first.after && !first.is_written());
        let flight = flights.flight((repository.clone(), digest.clone()));
        let second = tokio::spawn({
            let (flights, repository, digest) =
                (Arc::clone(&flights), repository.clone(), digest.clone());
            async move { flights.here(None, &repository, &digest).await.after }
        });
        let other = flights.here(None, &repository, &Digest::sha256(b"y")).await;
        assert!(!other.after);
        // The second has boarded, and holds the flight, before the first lets go.
        while Arc::strong_count(&flight) < 3 {
            tokio::task::yield_now().await;
        }
        drop(first);
        assert!(second.await.unwrap());
    }
}
