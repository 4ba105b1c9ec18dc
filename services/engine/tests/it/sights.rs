//! What one worker was shown while it worked on one job: the answers to its requests about tags.
//! What it decides, it decides by these.

use std::collections::{BTreeMap, BTreeSet};

use colophon_domain::{Line, Reason, Version};
use http::Method;
use uuid::Uuid;

use crate::{
    model::Model,
    registry::{Asked, Key, Registry},
};

/// Where a tag was seen: at a digest, or nowhere.
pub(crate) type Seen = Option<String>;

/// The answers that one worker got.
#[derive(Debug, Default)]
pub(crate) struct Sights {
    /// Where each tag was, as far as the newest answer about it says.
    tags: BTreeMap<Key, Seen>,
    /// The tags of its repository's list.
    listed: BTreeSet<String>,
    /// Versions that were there with the list, and that the list or the ledger knew.
    known: BTreeSet<String>,
    /// Why the registry did not let a tag move.
    refused: BTreeMap<Key, Reason>,
    /// Who was at work and held a tag when it began to look at it.
    holders: BTreeMap<Key, Vec<Uuid>>,
    /// The tag that it looks at, until it has an answer.
    looks_at: Option<Key>,
}

impl Sights {
    /// The registry answers as it should, or with what it had before.
    pub(crate) fn note(&mut self, asked: &Asked, answered: Answered<'_>) {
        let (registry, model, stale) = answered;
        self.looks_at = None;
        if asked.rest == "tags/list" {
            self.listed = registry.within(&asked.repository, |content| {
                let shown = |tag: &&String| !content.unlisted.contains(*tag);
                content.tags.keys().filter(shown).cloned().collect()
            });
            self.known = model.versions(registry, &asked.repository);
        }
        let reads = asked.method == Method::HEAD || asked.method == Method::GET;
        if let Some(key) = asked.key().filter(|_| reads) {
            let digest = stale.map(str::to_owned).or_else(|| registry.digest(&key));
            self.tags.insert(key, digest);
        }
    }

    /// It begins to look at a tag that these hold. A request that is only sent again is no new
    /// look: what was decided by then is not thought over.
    pub(crate) fn begin(&mut self, key: Key, holders: Vec<Uuid>) {
        if self.looks_at.as_ref() != Some(&key) {
            self.holders.insert(key.clone(), holders);
            self.looks_at = Some(key);
        }
    }

    /// Who held a tag when it began to look at it.
    pub(crate) fn holders(&self, key: &Key) -> &[Uuid] {
        self.holders.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// The registry does not let the tag move.
    pub(crate) fn refuse(&mut self, key: Key, reason: Reason) {
        self.refused.insert(key, reason);
    }

    /// Why the registry did not let a tag move, if it did not.
    pub(crate) fn refused(&self, key: &Key) -> Option<Reason> {
        self.refused.get(key).copied()
    }

    /// Where a tag was when it was looked at last, if it was.
    pub(crate) fn of(&self, key: &Key) -> Option<&Seen> {
        self.tags.get(key)
    }

    /// The highest version of a line that the worker was shown, beside one of its own.
    pub(crate) fn highest(&self, place: &str, line: Line, own: &Version) -> Option<Version> {
        let there = |(key, digest): (&Key, &Seen)| {
            (key.0 == place && digest.is_some()).then(|| key.1.clone())
        };
        let looked_at = self.tags.iter().filter_map(there);
        highest_of(self.listed.iter().cloned().chain(looked_at), line, own)
    }

    /// A version above its own that a worker should know of: it was there with the list, and when
    /// the worker looked at it, if it did.
    pub(crate) fn overlooked(&self, place: &str, line: Line, own: &Version) -> Option<Version> {
        let gone = |tag: &str| self.of(&(place.to_owned(), tag.to_owned())) == Some(&None);
        let there = self.known.iter().filter(|tag| !gone(tag)).cloned();
        highest_of(there, line, own).filter(|best| own.precedence(best).is_lt())
    }
}

/// The registry and the model as they are, and the digest that is served in place of the true one.
pub(crate) type Answered<'a> = (&'a Registry, &'a Model, Option<&'a str>);

/// The highest version of a line among some tags. Pre-releases count only beside one of their kind.
pub(crate) fn highest_of(
    tags: impl Iterator<Item = String>,
    line: Line,
    own: &Version,
) -> Option<Version> {
    tags.filter_map(|tag| Version::from_tag(&tag))
        .filter(|version| version.is_plain() || !own.is_plain())
        .filter(|version| line.major.is_none_or(|major| major == version.major()))
        .filter(|version| line.minor.is_none_or(|minor| minor == version.minor()))
        .max_by(Version::precedence)
}

/// The line of a version that a floating tag of this name follows, by the rules' defaults.
pub(crate) fn line_of(version: &Version, tag: &str) -> Option<Line> {
    let v = if version.has_v() { "v" } else { "" };
    let (major, minor) = (version.major(), version.minor());
    if tag == "latest" {
        return Some(Line { major: None, minor: None });
    }
    if tag == format!("{v}{major}") {
        return Some(Line { major: Some(major), minor: None });
    }
    (tag == format!("{v}{major}.{minor}"))
        .then_some(Line { major: Some(major), minor: Some(minor) })
}

impl Model {
    /// The versions that a repository has, and that its list or the ledger knows of.
    pub(crate) fn versions(&self, registry: &Registry, place: &str) -> BTreeSet<String> {
        let in_ledger = |tag: &String| {
            let known = self.tags.get(&(place.to_owned(), tag.clone()));
            known.is_some_and(|known| known.digest.is_some())
        };
        registry.within(place, |content| {
            let shown = |tag: &&String| !content.unlisted.contains(*tag) || in_ledger(tag);
            content.tags.keys().filter(shown).cloned().collect()
        })
    }
}
