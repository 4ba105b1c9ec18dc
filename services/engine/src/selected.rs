//! What is published, given what the source is now: all of it, or an index of some of its platforms.

use std::time::Duration;

use colophon_domain::{
    Access, Digest, Failure, Platform, Reason, Reference, Result, Retry, TagOrDigest,
};
use colophon_registry::{Manifest, part};
use colophon_store::Made;

use crate::Engine;

/// How long the caller waits for the source's registry.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(20);

/// What is published.
pub(crate) struct Published {
    pub(crate) digest: Digest,
    /// The index, if it is not one that the source has.
    pub(crate) made: Option<Made>,
}

impl Published {
    /// The index as the registry's client takes it.
    pub(crate) fn manifest(&self) -> Result<Option<Manifest>> {
        self.made.as_ref().map(manifest).transpose()
    }

    /// What the source was resolved to, where that is not what is published.
    pub(crate) fn made_from(&self) -> Option<&Digest> {
        self.made.as_ref().map(|made| &made.from)
    }
}

/// An index that was made, as the registry's client takes it.
pub(crate) fn manifest(made: &Made) -> Result<Manifest> {
    Manifest::new(made.manifest.clone().into(), Some(&made.media_type))
}

impl Engine {
    /// Resolves the source, and leaves out what is not for these platforms.
    pub(crate) async fn select(
        &self,
        source: &Reference,
        platforms: &[Platform],
    ) -> Result<Published> {
        let digest = self.resolve(source).await?;
        if platforms.is_empty() {
            return Ok(Published { digest, made: None });
        }
        let session = self.registries.session(&source.repository, Access::Pull)?;
        let made = tokio::time::timeout(RESOLVE_TIMEOUT, part(&session, &digest, platforms));
        let made = made.await.unwrap_or_else(|_| Err(late(source))).map_err(|failure| {
            let about = failure.field_name().is_some();
            failure.field(if about { "selection.platforms" } else { "source" })
        })?;
        Ok(match made {
            None => Published { digest, made: None },
            Some(made) => Published {
                digest: made.digest,
                made: Some(Made {
                    from: digest,
                    manifest: made.bytes.to_vec(),
                    media_type: made.media_type,
                }),
            },
        })
    }

    /// The digest of the source. A digest needs no network.
    async fn resolve(&self, source: &Reference) -> Result<Digest> {
        if let TagOrDigest::Digest(digest) = &source.target {
            return Ok(digest.clone());
        }
        let session = self.registries.session(&source.repository, Access::Pull)?;
        let head = tokio::time::timeout(RESOLVE_TIMEOUT, session.head(&source.target))
            .await
            .unwrap_or_else(|_| Err(late(source)))
            .map_err(|failure| failure.field("source"))?;
        head.map(|descriptor| descriptor.digest).ok_or_else(|| {
            Failure::new(Reason::SourceNotFound, format!("{source} does not exist"))
                .field("source")
                .remedy("check the name and the tag; nothing was stored")
        })
    }
}

fn late(source: &Reference) -> Failure {
    let text = format!("{} did not answer in time", source.repository.registry());
    Failure::new(Reason::RegistryUnavailable, text).retry(Retry::Backoff)
}
