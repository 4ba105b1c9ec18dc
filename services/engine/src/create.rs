//! Accepting a release.

use std::time::Duration;

use colophon_domain::{
    Access, Digest, Failure, Reason, Reference, RegistryHost, ReleaseRequest, ReleaseView,
    Repository, Result, Retry, TagOrDigest,
};
use colophon_store::NewRelease;

use crate::{Engine, fingerprint::fingerprint};

/// How long the caller waits for the source's registry.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(20);

impl Engine {
    /// Accepts a release for a caller whose rights were checked. The source is resolved to a
    /// digest once, here; if it cannot be resolved now, nothing is stored.
    #[tracing::instrument(level = "debug", name = "engine.release.create", skip_all)]
    pub async fn create_release(
        &self,
        principal: &str,
        request: &ReleaseRequest,
    ) -> Result<ReleaseView> {
        let fingerprint = fingerprint(request);
        if let Some(key) = &request.idempotency_key
            && let Some(id) = self.store.find_by_key(principal, key, &fingerprint).await?
        {
            return self.store.accepted(id).await;
        }
        self.check(request)?;
        self.make_room(principal).await?;
        let mut whole = self.fill_in(request)?;
        let digest = self.resolve(&request.source).await?;
        if let Some(plan) = &request.plan {
            self.follow(plan, request, &mut whole, &digest).await?;
        }
        let traceparent = colophon_telemetry::current();
        self.accept(&NewRelease {
            principal,
            request: &whole,
            digest: &digest,
            fingerprint,
            traceparent: traceparent.as_deref(),
        })
        .await
    }

    /// Stores a release that is whole, and tells the workers.
    pub(crate) async fn accept(&self, new: &NewRelease<'_>) -> Result<ReleaseView> {
        let created = self.store.create_release(new).await?;
        self.wake();
        tracing::info!(
            release = %created.id(), principal = new.principal, purpose = %new.request.purpose,
            source = %new.request.source, digest = %new.digest, "release accepted"
        );
        self.store.accepted(created.id()).await
    }

    /// What a release needs to be worked on at all: registries that are configured, and time.
    pub(crate) fn check(&self, request: &ReleaseRequest) -> Result<()> {
        self.known(&request.source.repository).map_err(|failure| failure.field("source"))?;
        for (index, target) in request.targets.iter().enumerate() {
            self.known(&target.repository)
                .map_err(|failure| failure.field(format!("targets[{index}].repository")))?;
        }
        if request.not_after.is_some_and(|time| time <= self.clock.now()) {
            return Err(Failure::invalid("not_after", "not_after has passed already")
                .remedy("give a later time, or none"));
        }
        Ok(())
    }

    pub(crate) fn known(&self, repository: &Repository) -> Result<()> {
        let host = repository.registry();
        if self.registries.knows(host) {
            return Ok(());
        }
        Err(unknown(host))
    }

    /// The digest of the source. A digest needs no network.
    pub(crate) async fn resolve(&self, source: &Reference) -> Result<Digest> {
        if let TagOrDigest::Digest(digest) = &source.target {
            return Ok(digest.clone());
        }
        let session = self.registries.session(&source.repository, Access::Pull)?;
        let head = tokio::time::timeout(RESOLVE_TIMEOUT, session.head(&source.target))
            .await
            .unwrap_or_else(|_| {
                Err(Failure::new(
                    Reason::RegistryUnavailable,
                    format!("{} did not answer in time", source.repository.registry()),
                )
                .retry(Retry::Backoff))
            })
            .map_err(|failure| failure.field("source"))?;
        head.map(|descriptor| descriptor.digest).ok_or_else(|| {
            Failure::new(Reason::SourceNotFound, format!("{source} does not exist"))
                .field("source")
                .remedy("check the name and the tag; nothing was stored")
        })
    }
}

pub(crate) fn unknown(host: &RegistryHost) -> Failure {
    Failure::new(Reason::UnknownRegistry, format!("the registry {host} is not configured"))
        .remedy(format!("ask the operator to add a [[registry]] with host = \"{host}\""))
}
