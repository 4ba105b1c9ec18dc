//! Accepting a release.

use colophon_domain::{
    Failure, Reason, RegistryHost, ReleaseRequest, ReleaseView, Repository, Result,
};
use colophon_store::NewRelease;

use crate::{Engine, fingerprint::fingerprint};

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
        let published = self.select(&request.source, &request.selection.platforms).await?;
        if let Some(plan) = &request.plan {
            self.follow(plan, request, &mut whole, &published.digest).await?;
        }
        let traceparent = colophon_telemetry::current();
        self.accept(&NewRelease {
            principal,
            request: &whole,
            digest: &published.digest,
            made: published.made.as_ref(),
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
}

pub(crate) fn unknown(host: &RegistryHost) -> Failure {
    Failure::new(Reason::UnknownRegistry, format!("the registry {host} is not configured"))
        .remedy(format!("ask the operator to add a [[registry]] with host = \"{host}\""))
}
