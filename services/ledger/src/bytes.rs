//! An entry as canonical JSON (RFC 8785). Every value is a string, so that no reader has to
//! agree with us about numbers; what is not there is left out, never null.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Commitment, Kind, LeafHash, Purpose,
    entry::{After, ENTRY_LIMIT_BYTES, Entry, EntryError, Source},
    hash::bytes_from_hex,
    text::{read_number, read_time, read_uuid, write_time},
};

const VERSION: &str = "1";

/// The wire form. Its order does not matter: the canonical form sorts by key.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wire {
    v: String,
    id: String,
    kind: String,
    purpose: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    registry: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    tag_seq: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    intent: Option<String>,
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<WireSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<WireAfter>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSource {
    registry: String,
    repository: String,
    digest: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireAfter {
    size: String,
    root: String,
}

/// Only the version, whatever else is there: an entry of a later version is named as such.
#[derive(Deserialize)]
struct WireVersion {
    v: String,
}

/// Writes an entry whose rules were checked.
pub(crate) fn write(entry: &Entry) -> Result<Vec<u8>, EntryError> {
    let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let wire = Wire {
        v: VERSION.to_owned(),
        id: entry.id.hyphenated().to_string(),
        kind: entry.kind.as_str().to_owned(),
        purpose: entry.purpose.as_str().to_owned(),
        registry: named(&entry.registry),
        repository: named(&entry.repository),
        tag: named(&entry.tag),
        tag_seq: entry.tag_seq.to_string(),
        prev: entry.prev.map(|hash| hash.to_string()),
        old: entry.old.clone(),
        new: entry.new.clone(),
        intent: entry.intent.map(|id| id.hyphenated().to_string()),
        at: write_time(entry.at).ok_or(EntryError::Field("at"))?,
        not_before: entry
            .not_before
            .map(|time| write_time(time).ok_or(EntryError::Field("not_before")))
            .transpose()?,
        source: entry.source.as_ref().map(|source| WireSource {
            registry: source.registry.clone(),
            repository: source.repository.clone(),
            digest: source.digest.clone(),
        }),
        release: entry.release.map(|id| id.hyphenated().to_string()),
        reason_code: entry.reason_code.clone(),
        actor: entry.actor.map(|commitment| commitment.to_string()),
        reason: entry.reason.map(|commitment| commitment.to_string()),
        after: entry
            .after
            .map(|after| WireAfter { size: after.size.to_string(), root: hex::encode(after.root) }),
    };
    let bytes = serde_json_canonicalizer::to_vec(&wire)
        .map_err(|error| EntryError::Malformed(error.to_string()))?;
    if bytes.len() > ENTRY_LIMIT_BYTES { Err(EntryError::TooLong(bytes.len())) } else { Ok(bytes) }
}

/// Reads the fields, each by its form; neither the rules nor the spelling are checked here.
pub(crate) fn read(bytes: &[u8]) -> Result<Entry, EntryError> {
    if bytes.len() > ENTRY_LIMIT_BYTES {
        return Err(EntryError::TooLong(bytes.len()));
    }
    let malformed = |error: serde_json::Error| EntryError::Malformed(error.to_string());
    let WireVersion { v } = serde_json::from_slice(bytes).map_err(malformed)?;
    if v != VERSION {
        return Err(EntryError::UnknownVersion(v));
    }
    let wire: Wire = serde_json::from_slice(bytes).map_err(malformed)?;
    Ok(Entry {
        id: uuid("id", &wire.id)?,
        kind: Kind::parse(&wire.kind).ok_or(EntryError::Field("kind"))?,
        purpose: Purpose::parse(&wire.purpose).ok_or(EntryError::Field("purpose"))?,
        registry: wire.registry.unwrap_or_default(),
        repository: wire.repository.unwrap_or_default(),
        tag: wire.tag.unwrap_or_default(),
        tag_seq: number("tag_seq", &wire.tag_seq)?,
        prev: optional("prev", wire.prev.as_deref(), parsed::<LeafHash>)?,
        old: wire.old,
        new: wire.new,
        intent: optional("intent", wire.intent.as_deref(), uuid)?,
        at: moment("at", &wire.at)?,
        not_before: optional("not_before", wire.not_before.as_deref(), moment)?,
        source: wire.source.map(|source| Source {
            registry: source.registry,
            repository: source.repository,
            digest: source.digest,
        }),
        release: optional("release", wire.release.as_deref(), uuid)?,
        reason_code: wire.reason_code,
        actor: optional("actor", wire.actor.as_deref(), parsed::<Commitment>)?,
        reason: optional("reason", wire.reason.as_deref(), parsed::<Commitment>)?,
        after: wire.after.as_ref().map(checkpoint).transpose()?,
    })
}

fn optional<T>(
    field: &'static str,
    text: Option<&str>,
    read: impl FnOnce(&'static str, &str) -> Result<T, EntryError>,
) -> Result<Option<T>, EntryError> {
    text.map(|text| read(field, text)).transpose()
}

fn parsed<T: FromStr>(field: &'static str, text: &str) -> Result<T, EntryError> {
    text.parse().map_err(|_| EntryError::Field(field))
}

fn uuid(field: &'static str, text: &str) -> Result<Uuid, EntryError> {
    read_uuid(text).ok_or(EntryError::Field(field))
}

fn number(field: &'static str, text: &str) -> Result<u64, EntryError> {
    read_number(text).ok_or(EntryError::Field(field))
}

fn moment(field: &'static str, text: &str) -> Result<OffsetDateTime, EntryError> {
    read_time(text).ok_or(EntryError::Field(field))
}

fn checkpoint(wire: &WireAfter) -> Result<After, EntryError> {
    Ok(After {
        size: number("after.size", &wire.size)?,
        root: bytes_from_hex(&wire.root).map_err(|_| EntryError::Field("after.root"))?,
    })
}
