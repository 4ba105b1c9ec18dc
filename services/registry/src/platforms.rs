//! A part of an index: what is for some platforms. It is another index with a digest of its own, made
//! from the source's in one way only, so that the same wish gives the same digest.

use std::collections::BTreeSet;

use bytes::Bytes;
use colophon_domain::{Digest, Failure, Platform, Reason, Result, TagOrDigest};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    answer::read_limited,
    exchange::Call,
    manifest::{Content, Descriptor, Manifest, is_manifest},
    session::Session,
};

/// Where buildkit says which manifest an attestation is about (its "Attestation storage").
const ATTESTS: &str = "vnd.docker.reference.digest";
/// A configuration is read up to this size; real ones have some KiB.
const CONFIG_LIMIT: usize = 1 << 20;
/// Entries whose platform only their configuration knows.
const MOST_LOOKS: usize = 64;
/// Of these so many at once.
const LOOKS_AT_ONCE: usize = 6;

/// An entry of an index, as far as platforms are concerned.
#[derive(Deserialize)]
struct Entry {
    digest: Digest,
    #[serde(default, rename = "mediaType")]
    media_type: String,
    platform: Option<Said>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

/// A platform as an index or a configuration says it.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

impl Said {
    fn platform(&self) -> Option<Platform> {
        Platform::of(&self.os, &self.architecture, self.variant.as_deref())
    }
}

/// What is left of the manifest with this digest if only these platforms are kept; `None` if that is
/// all of it. Attestations go with the platform that they are about.
///
/// # Errors
/// `INVALID_ARGUMENT` that names what is there, if a platform is not; `SOURCE_NOT_FOUND` if the source
/// does not have the manifest.
pub async fn part(
    session: &Session,
    digest: &Digest,
    platforms: &[Platform],
) -> Result<Option<Manifest>> {
    let manifest = expect(session, digest).await?;
    let Content::Index { .. } = manifest.content else {
        let here = session.platform_of(&manifest).await?;
        fits(session, platforms, here.iter())?;
        return Ok(None);
    };
    let odd = || Failure::new(Reason::UnsupportedManifest, format!("{digest} cannot be read"));
    let mut body: Value = serde_json::from_slice(&manifest.bytes).map_err(|_| odd())?;
    let listed = body.get_mut("manifests").and_then(Value::as_array_mut).ok_or_else(odd)?;
    let entries: Vec<Entry> = listed
        .iter()
        .map(|entry| Entry::deserialize(entry).map_err(|_| odd()))
        .collect::<Result<_>>()?;
    let here = session.platforms_of(&entries).await?;
    fits(session, platforms, here.iter().flatten())?;
    let wanted = |here: &Option<Platform>| {
        here.as_ref().is_some_and(|here| platforms.iter().any(|asked| asked.takes(here)))
    };
    let kept: BTreeSet<&str> = entries
        .iter()
        .zip(&here)
        .filter(|(_, here)| wanted(here))
        .map(|(entry, _)| entry.digest.as_str())
        .collect();
    let stays = |entry: &Entry| {
        let about = entry.annotations.get(ATTESTS).map(String::as_str);
        kept.contains(about.unwrap_or(entry.digest.as_str()))
    };
    let stay: Vec<bool> = entries.iter().map(stays).collect();
    if stay.iter().all(|stays| *stays) {
        return Ok(None);
    }
    let mut stay = stay.into_iter();
    listed.retain(|_| stay.next().unwrap_or_default());
    let bytes = serde_json::to_vec(&body).map_err(|_| odd())?;
    Manifest::new(Bytes::from(bytes), Some(&manifest.media_type)).map(Some)
}

async fn expect(session: &Session, digest: &Digest) -> Result<Manifest> {
    session.manifest(&TagOrDigest::Digest(digest.clone())).await?.ok_or_else(|| {
        let text = format!("{}@{digest} does not exist", session.repository);
        Failure::new(Reason::SourceNotFound, text)
    })
}

/// Refuses platforms that are not there.
fn fits<'a>(
    session: &Session,
    platforms: &[Platform],
    here: impl Iterator<Item = &'a Platform>,
) -> Result<()> {
    let here: BTreeSet<&Platform> = here.collect();
    let missing = |asked: &&Platform| !here.iter().any(|here| asked.takes(here));
    let Some(missing) = platforms.iter().find(missing) else { return Ok(()) };
    let there: Vec<String> = here.iter().take(MOST_LOOKS).map(ToString::to_string).collect();
    let there = if there.is_empty() { "no platform".to_owned() } else { there.join(", ") };
    let text = format!("{missing} is not in the image of {}: it has {there}", session.repository);
    Err(Failure::invalid("platforms", text)
        .remedy("name platforms that the image has, or leave platforms out for all"))
}

impl Session {
    /// The platform of each entry: as it says, or, where it says nothing, as its configuration does.
    async fn platforms_of(&self, entries: &[Entry]) -> Result<Vec<Option<Platform>>> {
        let silent = |entry: &&Entry| entry.platform.is_none() && is_manifest(&entry.media_type);
        if entries.iter().filter(silent).count() > MOST_LOOKS {
            let text = format!("the index of {} names too few platforms", self.repository);
            return Err(Failure::new(Reason::TooLarge, text));
        }
        let looks: Vec<_> = entries
            .iter()
            .map(|entry| async move {
                match &entry.platform {
                    Some(said) => Ok(said.platform()),
                    None if is_manifest(&entry.media_type) => {
                        self.platform_of(&expect(self, &entry.digest).await?).await
                    }
                    None => Ok(None),
                }
            })
            .collect();
        stream::iter(looks).buffered(LOOKS_AT_ONCE).try_collect().await
    }

    /// The platform that an image's configuration names (OCI image-spec, "Image Configuration").
    async fn platform_of(&self, manifest: &Manifest) -> Result<Option<Platform>> {
        let Content::Image { config, .. } = &manifest.content else { return Ok(None) };
        let bytes = self.small_blob(config).await?;
        // What is no configuration of an image names no platform.
        Ok(serde_json::from_slice::<Said>(&bytes).ok().and_then(|said| said.platform()))
    }

    /// A blob that is read whole.
    async fn small_blob(&self, blob: &Descriptor) -> Result<Bytes> {
        let _place = self.place(&self.host.limits.requests).await;
        let digest = &blob.digest;
        let url = self.url(&format!("blobs/{digest}"));
        let call = Call::reading(self, Method::GET, url, format!("reading the blob {digest}"));
        let asked = call.asked.clone();
        let response = self.follow(call).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response, &asked).await.into_failure(&asked));
        }
        let timeout = self.host.config.request_timeout;
        let bytes = read_limited(response, CONFIG_LIMIT, timeout, &asked).await?;
        if !digest.matches(&bytes) {
            return Err(asked.failure(Reason::DigestMismatch, "the blob is another one"));
        }
        Ok(bytes)
    }
}
