//! Blobs that other repositories of the target's registry are known to hold: taken from there by
//! a mount, so that no byte moves. What is known was true once. A mount is tried at once, because
//! it is the request with which an upload would begin, too; only where it fails is the repository
//! asked whether it has the blob, and what is wrong is forgotten.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use colophon_domain::{Access, BlobPlaces, Digest, RegistryHost, Repository, Result};
use tokio::time::{Instant, timeout};

use crate::{copy::Copy, manifest::Descriptor, plan::Plan, session::Session, upload::Begun};

/// Repositories that one blob is tried to be mounted from.
const MOST_TRIES: usize = 3;
/// Copies in a row that found a registry not to mount what a repository of its holds.
const MOST_REFUSALS: u8 = 3;
/// How long such a registry is not asked again.
const REST: Duration = Duration::from_mins(10);
/// How long a copy waits for what is known, or for it to be written down.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the process knows about places: who remembers them, and which registries do not mount.
#[derive(Default)]
pub(crate) struct Holders {
    known: Option<Arc<dyn BlobPlaces>>,
    registries: Mutex<HashMap<RegistryHost, Refusals>>,
}

#[derive(Default)]
struct Refusals {
    /// Without a mount in between.
    in_a_row: u8,
    rests_until: Option<Instant>,
}

impl Holders {
    pub(crate) fn of(known: Arc<dyn BlobPlaces>) -> Self {
        Self { known: Some(known), registries: Mutex::default() }
    }

    /// Who remembers, unless the registry is known not to mount.
    fn asked(&self, registry: &RegistryHost) -> Option<&dyn BlobPlaces> {
        self.known.as_deref().filter(|_| !self.rests(registry))
    }

    fn rests(&self, registry: &RegistryHost) -> bool {
        let until = self.registries().get(registry).and_then(|known| known.rests_until);
        until.is_some_and(|until| until > Instant::now())
    }

    fn mounted(&self, registry: &RegistryHost) {
        self.registries().remove(registry);
    }

    fn refused(&self, registry: &RegistryHost) {
        let mut registries = self.registries();
        let known = registries.entry(registry.clone()).or_default();
        known.in_a_row += 1;
        if known.in_a_row >= MOST_REFUSALS {
            *known = Refusals { in_a_row: 0, rests_until: Some(Instant::now() + REST) };
            tracing::info!(%registry, "blobs are not mounted there, and sent for a while");
        }
    }

    fn registries(&self) -> MutexGuard<'_, HashMap<RegistryHost, Refusals>> {
        self.registries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the missing blobs of one copy may be mounted from.
#[derive(Default)]
pub(crate) struct Known(Mutex<Candidates>);

#[derive(Default)]
struct Candidates {
    places: HashMap<Digest, Vec<Repository>>,
    /// Those from which the registry did not mount what they hold.
    refused: HashSet<Repository>,
}

impl Known {
    fn candidates(&self) -> MutexGuard<'_, Candidates> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A further repository to try; each is tried once.
    fn next(&self, blob: &Digest) -> Option<Repository> {
        let Candidates { places, refused } = &mut *self.candidates();
        let places = places.get_mut(blob)?;
        places.retain(|place| !refused.contains(place));
        places.pop()
    }

    fn has_any(&self, blob: &Digest) -> bool {
        self.candidates().places.get(blob).is_some_and(|places| !places.is_empty())
    }
}

impl Copy<'_> {
    /// Looks up where the missing blobs are, all of them at once.
    pub(crate) async fn look_up(&self, missing: &[&Descriptor]) {
        let target = &self.target.repository;
        let Some(places) = self.target.shared.holders.asked(target.registry()) else { return };
        if missing.is_empty() {
            return;
        }
        let blobs: Vec<Digest> = missing.iter().map(|blob| blob.digest.clone()).collect();
        let Some(found) = best_effort("looking up blobs", places.holders(target, &blobs)).await
        else {
            return;
        };
        let (stale, found): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|(_, place)| place == target);
        for (blob, _) in stale {
            // It may have come since it was found missing; whoever boards it looks once more then.
            if let Ok(false) = self.target.has_blob(&blob).await {
                self.gone(target, &blob).await;
            }
        }
        let mut candidates = self.known.candidates();
        for (blob, place) in found {
            let tried = candidates.places.entry(blob).or_default();
            if tried.len() < MOST_TRIES && self.may_mount(&place) {
                // The best one is the last, which is taken first.
                tried.insert(0, place);
            }
        }
    }

    /// Whether the target may take blobs from there: only with a credential that the configuration
    /// names for both, because another one is somebody else's, whatever it could read.
    fn may_mount(&self, place: &Repository) -> bool {
        let target = &self.target.repository;
        place.registry() == target.registry()
            && *place != self.source.repository
            && self.target.credentials.shared(target, place)
    }

    /// Lets the registry take the blob from a repository that is known to hold it. `None` if it
    /// did not, and an upload that can go on where it offered one.
    pub(crate) async fn mount_known(&self, blob: &Descriptor) -> Option<Begun> {
        // Nobody is given what the source cannot show, however it is called in a manifest.
        if !self.known.has_any(&blob.digest) || !self.source_shows(blob).await {
            return None;
        }
        let mut begun = None;
        while let Some(place) = self.known.next(&blob.digest) {
            match self.target.mount(blob, &place).await {
                Some(Begun::Mounted) => {
                    self.target.shared.holders.mounted(place.registry());
                    return Some(Begun::Mounted);
                }
                // One is enough to go on with; another is cancelled.
                started => begun = begun.or(started),
            }
            self.correct(&place, blob).await;
        }
        begun
    }

    async fn source_shows(&self, blob: &Descriptor) -> bool {
        match self.source.has_blob(&blob.digest).await {
            Ok(true) => true,
            Ok(false) => {
                self.gone(&self.source.repository, &blob.digest).await;
                false
            }
            Err(_) => false,
        }
    }

    /// After a mount that did not work: does the repository hold the blob at all?
    async fn correct(&self, place: &Repository, blob: &Descriptor) {
        let session =
            Session { repository: place.clone(), access: Access::Pull, ..self.target.clone() };
        let held = session.has_blob(&blob.digest).await;
        if let Ok(false) = held {
            return self.gone(place, &blob.digest).await;
        }
        let mut candidates = self.known.candidates();
        let first = candidates.refused.is_empty();
        candidates.refused.insert(place.clone());
        drop(candidates);
        if first && held.is_ok() {
            self.target.shared.holders.refused(place.registry());
        }
    }

    async fn gone(&self, place: &Repository, blob: &Digest) {
        if let Some(places) = &self.target.shared.holders.known {
            best_effort("forgetting a blob", places.gone(place, blob)).await;
        }
    }

    /// Writes down that both repositories hold the blobs, once the copy has come to its end.
    pub(crate) async fn remember(&self, plan: &Plan) {
        let Some(places) = &self.target.shared.holders.known else { return };
        if plan.blobs.is_empty() {
            return;
        }
        let blobs: Vec<Digest> = plan.blobs.iter().map(|blob| blob.digest.clone()).collect();
        let both = [&self.source.repository, &self.target.repository];
        best_effort("remembering blobs", places.seen(&both, &blobs)).await;
    }
}

/// What is known about places saves work, and a copy does without.
async fn best_effort<T>(what: &str, asked: impl Future<Output = Result<T>>) -> Option<T> {
    match timeout(PATIENCE, asked).await {
        Ok(Ok(known)) => return Some(known),
        Ok(Err(failure)) => tracing::warn!(%failure, "{what} failed; copies go on without"),
        Err(_) => tracing::warn!("{what} took too long; copies go on without"),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_does_not_mount_has_a_rest_and_one_mount_ends_the_count() {
        let places = Holders::default();
        let [one, other] = ["a.corp.lan", "b.corp.lan"].map(|host| host.parse().unwrap());
        for _ in 0..2 {
            places.refused(&one);
            places.refused(&one);
            assert!(!places.rests(&one));
            places.mounted(&one);
        }
        for _ in 0..MOST_REFUSALS {
            places.refused(&one);
        }
        assert!(places.rests(&one) && !places.rests(&other));
        tokio::time::advance(REST).await;
        assert!(!places.rests(&one));
    }
}
