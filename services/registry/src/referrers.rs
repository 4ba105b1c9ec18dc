//! Who refers to a manifest, as a registry tells it (distribution-spec, "Listing Referrers"): by its
//! API, or, where it has none, by an index under a tag that is derived from the digest.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use colophon_domain::{Access, Digest, Failure, Reason, Result, Tag, TagOrDigest};
use http::{HeaderValue, Method, header};
use oci_client::manifest::OCI_IMAGE_INDEX_MEDIA_TYPE;
use reqwest::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;
use url::Url;

use crate::{
    answer::{Asked, read_limited},
    exchange::Call,
    gather::{MANIFESTS_LIMIT, MOST_MANIFESTS},
    manifest::{Content, MANIFEST_LIMIT, Manifest, essence},
    pages::REMEDY,
    scope::Scopes,
    session::Session,
};

/// Pages of one list.
const MOST_PAGES: usize = 100;
/// Referrers that are listed at one repository in the course of one copy.
const MOST_LISTED: usize = 10 * MOST_MANIFESTS;
/// What to do about too many referrers, or odd ones.
pub(crate) const FEWER: &str = "name the types of referrers that should go along, or none";

/// A referrer as a list names it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed {
    pub digest: Digest,
    #[serde(default)]
    pub size: u64,
    /// Older lists do not say it.
    pub artifact_type: Option<String>,
}

#[derive(Deserialize)]
struct List {
    /// Some write `null` for none.
    manifests: Option<Vec<Listed>>,
}

/// The referrers of one manifest.
pub(crate) enum Referring {
    /// As the API lists them.
    Api(Vec<Listed>),
    /// As the index under the tag lists them, and what is under the tag.
    Schema(Vec<Listed>, Held),
}

/// What is under the tag for a list of referrers.
pub(crate) enum Held {
    /// There is no such tag.
    Nothing,
    /// A list.
    Index(Manifest),
    /// Anything else.
    Other,
}

impl Referring {
    /// The list, wherever it comes from.
    pub(crate) fn listed(&self) -> &[Listed] {
        match self {
            Self::Api(listed) | Self::Schema(listed, _) => listed,
        }
    }
}

/// The referrers at one repository. Whether its registry has the API is asked, and not concluded
/// from what it says elsewhere: some answer a PUT with `OCI-Subject` and have none.
pub(crate) struct Lists<'a> {
    session: &'a Session,
    api: OnceCell<bool>,
    /// How many were listed until now, and the bytes of the indexes that are held.
    listed: AtomicUsize,
    held: AtomicUsize,
    /// What a reader should know of how they were found.
    notes: Mutex<BTreeSet<String>>,
}

impl<'a> Lists<'a> {
    pub(crate) fn of(session: &'a Session) -> Self {
        Self {
            session,
            api: OnceCell::new(),
            listed: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            notes: Mutex::default(),
        }
    }

    pub(crate) fn into_notes(self) -> BTreeSet<String> {
        self.notes.into_inner().unwrap_or_default()
    }

    /// Who refers to a manifest.
    ///
    /// # Errors
    /// Whatever keeps the registry from answering. Without an answer nobody knows that there are
    /// no signatures, so that is never taken for none.
    pub(crate) async fn referring(&self, subject: &Digest) -> Result<Referring> {
        if self.api.get() != Some(&false) {
            if let Some(listed) = self.by_api(subject).await? {
                return Ok(Referring::Api(listed));
            }
            // Another request may have found out the same meanwhile.
            let _known = self.api.set(false);
        }
        let tag = TagOrDigest::Tag(schema_tag(subject)?);
        let held = match self.session.manifest(&tag).await {
            Ok(None) => Held::Nothing,
            Ok(Some(index)) if matches!(index.content, Content::Index { .. }) => Held::Index(index),
            Ok(Some(_)) => Held::Other,
            Err(failure) if failure.reason() == Reason::UnsupportedManifest => Held::Other,
            Err(failure) => return Err(failure),
        };
        let listed = match &held {
            Held::Index(index) => read(&index.bytes)
                .map_err(|_| self.asked(subject).protocol("the tag's index is no list"))?,
            _ => Vec::new(),
        };
        self.bounded(listed.len(), listed.len())?;
        if let Held::Index(index) = &held {
            let bytes = index.bytes.len();
            if self.held.fetch_add(bytes, Ordering::Relaxed) + bytes > MANIFESTS_LIMIT {
                return Err(self.too_many("the lists of referrers are too large"));
            }
        }
        Ok(Referring::Schema(listed, held))
    }

    /// All pages of the API's list; `None` if there is no such API.
    async fn by_api(&self, subject: &Digest) -> Result<Option<Vec<Listed>>> {
        let session = self.session;
        let asked = self.asked(subject);
        let mut url = session.url(&format!("referrers/{subject}"));
        let (mut all, mut seen) = (Vec::new(), HashSet::new());
        for number in 0..MOST_PAGES {
            if !seen.insert(url.clone()) {
                return Err(asked.protocol("a page of the list leads back to itself"));
            }
            let Some((page, next)) = self.page(url, number == 0, &asked).await? else {
                return Ok(None);
            };
            let page =
                read(&page).map_err(|_| asked.protocol("the answer is no list").remedy(REMEDY))?;
            self.bounded(all.len() + page.len(), page.len())?;
            all.extend(page);
            match next {
                Some(next) => url = next,
                None => return Ok(Some(all)),
            }
        }
        Err(asked.failure(Reason::TooLarge, &format!("the list has more than {MOST_PAGES} pages")))
    }

    /// One page and where the next one is; `None` if the first shows that there is no such API.
    async fn page(
        &self,
        url: Url,
        first: bool,
        asked: &Asked<'_>,
    ) -> Result<Option<(Bytes, Option<Url>)>> {
        let session = self.session;
        let _place = session.place(&session.host.limits.requests).await;
        let mut call = Call::reading(session, Method::GET, url, asked.what.as_ref());
        call.scopes = Scopes::of(session.repository.name(), Access::Pull);
        let index = HeaderValue::from_static(OCI_IMAGE_INDEX_MEDIA_TYPE);
        call.headers.insert(header::ACCEPT, index);
        // Redirects are not followed: where there is no API, some lead to a page for people.
        let response = match session.call(&call).await.map_err(Failure::from) {
            Ok(response) => response,
            Err(failure) if first && refuses(&failure) => {
                self.note(&failure);
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        };
        if !response.status().is_success() || !is_list(&response) {
            if first {
                return Ok(None);
            }
            return Err(session.refusal(response, asked).await.into_failure(asked));
        }
        let next = session.next_page(&response, asked)?;
        let timeout = session.host.config.request_timeout;
        Ok(Some((read_limited(response, MANIFEST_LIMIT, timeout, asked).await?, next)))
    }

    fn note(&self, failure: &Failure) {
        let registry = self.session.repository.registry();
        let text = format!(
            "{registry} refuses its referrers API ({}); its tags for referrers were looked at",
            failure.reason()
        );
        if let Ok(mut notes) = self.notes.lock() {
            notes.insert(text);
        }
    }

    /// Whether so many of one manifest, and these new ones beside those of others, are not too many.
    fn bounded(&self, of_one: usize, new: usize) -> Result<()> {
        if of_one > MOST_MANIFESTS {
            return Err(self.too_many("a manifest has too many referrers"));
        }
        if self.listed.fetch_add(new, Ordering::Relaxed) + new > MOST_LISTED {
            return Err(self.too_many("the manifests of the image have too many referrers"));
        }
        Ok(())
    }

    fn too_many(&self, what: &str) -> Failure {
        let text = format!("{}: {what}", self.session.repository);
        Failure::new(Reason::TooLarge, text).remedy(FEWER)
    }

    fn asked(&self, subject: &Digest) -> Asked<'a> {
        self.session.asked(format!("listing the referrers of {subject}"), false)
    }
}

/// Whether a registry turns everybody away from what it does not have, as Harbor did before 2.8.
fn refuses(failure: &Failure) -> bool {
    matches!(failure.reason(), Reason::RegistryUnauthorized | Reason::RegistryDenied)
}

fn is_list(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.map(essence).as_deref() == Some(OCI_IMAGE_INDEX_MEDIA_TYPE)
}

fn read(bytes: &[u8]) -> serde_json::Result<Vec<Listed>> {
    Ok(serde_json::from_slice::<List>(bytes)?.manifests.unwrap_or_default())
}

/// The tag under which referrers are listed where there is no API (distribution-spec, "Referrers
/// Tag Schema").
pub(crate) fn schema_tag(subject: &Digest) -> Result<Tag> {
    let hex: String = subject.hex().chars().take(64).collect();
    format!("{}-{hex}", subject.algorithm().as_str()).parse()
}

/// The index of a referrers' tag with these manifests added. What it has already stays as it is, but
/// for what is lost.
pub(crate) fn with_referrers(
    there: Option<&Manifest>,
    new: &[&Manifest],
    lost: &BTreeSet<Digest>,
) -> Result<Manifest> {
    let odd = |text: &str| Failure::new(Reason::UnsupportedManifest, text.to_owned());
    let mut body: Map<String, Value> = match there {
        Some(index) => serde_json::from_slice(&index.bytes)
            .map_err(|_| odd("the index of referrers cannot be read"))?,
        None => Map::new(),
    };
    body.insert("schemaVersion".into(), json!(2));
    body.insert("mediaType".into(), json!(OCI_IMAGE_INDEX_MEDIA_TYPE));
    let listed = body.entry("manifests").or_insert_with(|| json!([]));
    if listed.is_null() {
        *listed = json!([]);
    }
    let listed = listed.as_array_mut().ok_or_else(|| odd("the index of referrers has no list"))?;
    let named = |entry: &Value| entry.get("digest").and_then(Value::as_str).map(str::to_owned);
    listed.retain(|entry| {
        named(entry).is_none_or(|digest| lost.iter().all(|lost| lost.as_str() != digest))
    });
    let new: BTreeMap<&Digest, &&Manifest> = new.iter().map(|it| (&it.digest, it)).collect();
    listed.extend(new.into_values().map(|manifest| entry(manifest)));
    let bytes = serde_json::to_vec(&body).map_err(|_| odd("the index of referrers is odd"))?;
    if bytes.len() > MANIFEST_LIMIT {
        return Err(Failure::new(Reason::TooLarge, "the index of referrers would be too large"));
    }
    Manifest::new(Bytes::from(bytes), None)
}

/// A referrer's entry: with the type and the annotations that it has itself.
fn entry(manifest: &Manifest) -> Value {
    let said: Said = serde_json::from_slice(&manifest.bytes).unwrap_or_default();
    let size = manifest.bytes.len();
    let mut entry = Map::from_iter([
        ("mediaType".to_owned(), json!(manifest.media_type)),
        ("digest".to_owned(), json!(manifest.digest)),
        ("size".to_owned(), json!(size)),
    ]);
    entry.extend(said.kind().map(|kind| ("artifactType".to_owned(), json!(kind))));
    entry.extend(said.annotations.map(|said| ("annotations".to_owned(), said)));
    Value::Object(entry)
}

/// The type of an artifact: what it says, or that of its configuration.
pub(crate) fn artifact_type(manifest: &Manifest) -> String {
    let said: Said = serde_json::from_slice(&manifest.bytes).unwrap_or_default();
    said.kind().unwrap_or_default().to_ascii_lowercase()
}

/// What an artifact says of itself.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    artifact_type: Option<String>,
    annotations: Option<Value>,
    config: Option<Config>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    media_type: Option<String>,
}

impl Said {
    fn kind(&self) -> Option<&str> {
        let own = self.artifact_type.as_deref().filter(|kind| !kind.is_empty());
        own.or(self.config.as_ref()?.media_type.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(body: &Value) -> Manifest {
        Manifest::new(Bytes::from(body.to_string()), None).unwrap()
    }

    fn referrer(kind: Option<&str>, note: &str) -> Manifest {
        let digest = Digest::sha256(b"{}");
        let config = json!({"mediaType": "application/vnd.x", "digest": digest, "size": 2});
        let mut body = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": [], "annotations": {"note": note},
        });
        if let Some(kind) = kind {
            body["artifactType"] = kind.into();
        }
        manifest(&body)
    }

    #[test]
    fn the_tag_of_referrers_is_derived_from_the_digest() {
        let tag = schema_tag(&Digest::sha256(b"x")).unwrap();
        assert_eq!(tag.as_str(), format!("sha256-{}", Digest::sha256(b"x").hex()));
        let long = schema_tag(&Digest::of(colophon_domain::Algorithm::Sha512, b"x")).unwrap();
        assert_eq!((&long.as_str()[..7], long.as_str().len()), ("sha512-", 71));
    }

    #[test]
    fn what_is_listed_already_stays_as_it_is_and_new_ones_say_what_they_are() {
        let first = referrer(Some("application/sig"), "a");
        let one = with_referrers(None, &[&first], &BTreeSet::new()).unwrap();
        let mut theirs: Value = serde_json::from_slice(&one.bytes).unwrap();
        theirs["annotations"] = json!({"kept": "yes"});
        theirs["manifests"][0]["x-unknown"] = json!(1);
        let theirs = manifest(&theirs);
        let second = referrer(None, "b");
        let both = with_referrers(Some(&theirs), &[&second], &BTreeSet::new()).unwrap();
        let body: Value = serde_json::from_slice(&both.bytes).unwrap();
        assert_eq!(body["annotations"]["kept"], "yes");
        let listed = body["manifests"].as_array().unwrap();
        assert_eq!((listed.len(), &listed[0]["x-unknown"]), (2, &json!(1)));
        assert_eq!(listed[0]["artifactType"], "application/sig");
        assert_eq!(listed[1]["artifactType"], "application/vnd.x", "that of the configuration");
        assert_eq!(listed[1]["annotations"]["note"], "b");
        assert_eq!(listed[1]["digest"], second.digest.as_str());
    }

    #[test]
    fn a_list_may_be_null_but_not_something_else() {
        assert!(read(br#"{"manifests":null}"#).unwrap().is_empty());
        assert!(read(b"{}").unwrap().is_empty());
        assert!(read(br#"{"manifests":{}}"#).is_err());
        assert!(read(br#"{"manifests":[{"digest":"sha256:no","size":1}]}"#).is_err());
        assert!(read(br#"{"manifests":[{"size":1}]}"#).is_err());
    }
}
