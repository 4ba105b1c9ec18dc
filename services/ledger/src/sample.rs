//! Entries for the tests of this crate.

use proptest::prelude::*;
use time::{Duration, OffsetDateTime, macros::datetime};
use uuid::Uuid;

use crate::{Actor, After, Commitment, Entry, Kind, LeafHash, Proof, Purpose, Source};

/// The digest number `number`.
pub(crate) fn digest(number: u8) -> String {
    format!("sha256:{}", hex::encode([number; 32]))
}

/// The entry id number `number`.
pub(crate) fn id(number: u64) -> Uuid {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis(1_795_000_000_000, &random).into_uuid()
}

/// The time of a tag's entry number `number`.
pub(crate) fn time(number: u64) -> OffsetDateTime {
    datetime!(2026-11-23 15:00 UTC) + Duration::microseconds((number % 1_000_000).cast_signed())
}

/// An entry of this kind with what the kind needs; number `tag_seq` of its chain.
pub(crate) fn entry(kind: Kind, tag_seq: u64, old: Option<u8>, new: Option<u8>) -> Entry {
    let acts = kind == Kind::Intent || kind == Kind::Unchanged || kind.is_outcome();
    let actor = Actor { principal: "ci".into(), on_behalf_of: None, proof: Proof::Claimed };
    let belongs = kind.is_outcome() || kind.is_remark();
    let reference = |text: &str| {
        if kind == Kind::KeyRotation { String::new() } else { text.to_owned() }
    };
    Entry {
        id: id(tag_seq),
        kind,
        purpose: if acts { Purpose::Publish } else { Purpose::Observation },
        registry: reference("ghcr.io"),
        repository: reference("acme/app"),
        tag: reference("latest"),
        tag_seq,
        prev: (tag_seq > 1).then(|| LeafHash::of(b"before")),
        old: old.map(digest),
        new: new.map(digest),
        intent: belongs.then(|| id(tag_seq - 1)),
        at: time(tag_seq),
        not_before: None,
        source: None,
        release: None,
        reason_code: None,
        actor: (kind == Kind::Intent).then(|| Commitment::actor(&[1; 32], &actor)),
        reason: (kind == Kind::Annotation).then(|| Commitment::reason(&[1; 32], "why")),
        after: None,
    }
}

/// Links the entries into a chain: `prev` is set, everything else stays.
pub(crate) fn chained(entries: Vec<Entry>) -> Vec<Vec<u8>> {
    let mut prev = None;
    let mut bodies = Vec::new();
    for mut entry in entries {
        entry.prev = prev;
        let body = entry.to_bytes().unwrap();
        prev = Some(LeafHash::of(&body));
        bodies.push(body);
    }
    bodies
}

/// Any entry that keeps the rules.
pub(crate) fn any_entry() -> impl Strategy<Value = Entry> {
    let shape = (prop::sample::select(Kind::ALL), 2_u64..=u64::MAX, 1_u8..4, 4_u8..9);
    let names =
        ("[a-z0-9]{1,20}(:[1-9][0-9]{1,4})?", "[a-z0-9]{1,9}(/[a-z0-9._-]{1}[a-z]{1,9}){0,3}");
    let more = ("[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", any::<[u8; 32]>(), any::<[bool; 6]>());
    let times = (0_i64..200_000_000_000_000_000, any::<u64>(), any::<u128>());
    (shape, names, more, times).prop_map(|((kind, seq, old, new), names, more, times)| {
        let seq = if kind == Kind::Baseline { 1 } else { seq };
        let (old, new) = match kind {
            Kind::Baseline => (None, Some(new)),
            Kind::Deleted => (Some(old), None),
            Kind::Unchanged | Kind::NotApplied => (Some(old), Some(old)),
            Kind::Annotation | Kind::Redaction => (None, None),
            _ => (Some(old), Some(new)),
        };
        let mut entry = entry(kind, seq, old, new);
        if kind != Kind::KeyRotation {
            (entry.registry, entry.repository, entry.tag) = (names.0, names.1, more.0);
        }
        let [source, release, code, actor, after, window] = more.2;
        entry.at = OffsetDateTime::UNIX_EPOCH + Duration::microseconds(times.0);
        let acts = entry.purpose == Purpose::Publish;
        if source && acts {
            entry.source = Some(Source {
                registry: entry.registry.clone(),
                repository: entry.repository.clone(),
                digest: format!("sha512:{}", "0a".repeat(64)),
            });
        }
        if release && kind != Kind::KeyRotation {
            entry.release = Some(Uuid::from_u128(times.2));
        }
        entry.reason_code = code.then(|| "TAG_MOVED".to_owned());
        if actor && !kind.is_observation() {
            entry.actor = Some(Commitment::from_bytes(more.1));
            entry.reason = Some(Commitment::reason(&more.1, "why"));
        }
        entry.after = after.then_some(After { size: times.1.max(1), root: more.1 });
        if window && matches!(kind, Kind::Drift | Kind::Deleted | Kind::Recovered | Kind::Conflict)
        {
            entry.not_before = Some(OffsetDateTime::UNIX_EPOCH);
        }
        entry
    })
}
