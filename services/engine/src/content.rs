//! Where content is: registries delete what has no tag, and the ledger knows where it was seen.

use std::time::Duration;

use colophon_domain::{
    Access, Digest, Failure, Reason, Reference, Repository, Result, Retry, TagOrDigest,
};

use futures_util::{StreamExt as _, stream};

use crate::Engine;

/// How long one registry may take to say whether it has a digest.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// Places that are asked together.
const PLACES_AT_ONCE: usize = 8;

impl Engine {
    /// Where a digest can be had from: the repository itself, else any place that the ledger
    /// knows and that has it still.
    pub(crate) async fn find_content(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Reference> {
        match self.has(repository, digest).await {
            Ok(true) => Ok(Reference::digest(repository.clone(), digest.clone())),
            Ok(false) => self.find_elsewhere(repository, digest).await,
            // What is there may be there still: that is not the same as gone.
            Err(failure) => self.find_elsewhere(repository, digest).await.map_err(|_| failure),
        }
    }

    /// The same without the repository itself, which has lost it.
    pub(crate) async fn find_elsewhere(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Reference> {
        let mut places = self.store.places(digest).await?;
        places.retain(|place| place != repository && self.registries.knows(place.registry()));
        let mut looks = Vec::with_capacity(places.len());
        for place in &places {
            looks.push(self.has(place, digest));
        }
        let found: Vec<Result<bool>> = stream::iter(looks).buffered(PLACES_AT_ONCE).collect().await;
        let mut silent = None;
        for (place, has) in places.iter().zip(found) {
            match has {
                Ok(true) => return Ok(Reference::digest(place.clone(), digest.clone())),
                Ok(false) => {}
                Err(failure) => {
                    tracing::warn!(%place, %digest, %failure, "content could not be looked for");
                    silent = Some(failure);
                }
            }
        }
        // The places are not named: whoever asks may not be allowed to know of them.
        Err(if let Some(silent) = silent {
            let (reason, retry) = match (silent.reason(), silent.retry_class()) {
                (Reason::RateLimited, retry) => (Reason::RateLimited, retry),
                _ => (Reason::RegistryUnavailable, Retry::Backoff),
            };
            let text = format!(
                "{digest} is gone from {repository}, and not every other place where it was seen \
                 could be asked"
            );
            Failure::new(reason, text).retry(retry)
        } else {
            Failure::new(
                Reason::SourceGone,
                format!(
                    "{digest} is gone from {repository}, and from every other place where it was \
                     seen ({} asked)",
                    places.len()
                ),
            )
            .remedy("publish it again from where it was built, or go back to another digest")
        })
    }

    async fn has(&self, repository: &Repository, digest: &Digest) -> Result<bool> {
        let session = self.registries.session(repository, Access::Pull)?;
        let what = TagOrDigest::Digest(digest.clone());
        let head = tokio::time::timeout(LOOK_TIMEOUT, session.head(&what)).await;
        let found = head.unwrap_or_else(|_| {
            Err(Failure::new(
                Reason::RegistryUnavailable,
                format!("{} did not answer in time", repository.registry()),
            ))
        })?;
        Ok(found.is_some())
    }
}
