//! Requests: those that a scripted order needs, and those that chance makes.

use std::time::Duration;

use colophon_domain::{
    Clock as _, Digest, Expected, IfOlder, OnFailure, OrderKey, Reference, ReleaseRequest,
    Repository, TagKind, TagRequest, TargetRequest, Version, VersionRequest,
};
use rand::{Rng as _, seq::IndexedRandom as _};

use crate::world::{APP, BUILD, COPY, World};

/// Content by its digest.
pub(crate) fn source(digest: &str, repository: &str) -> Reference {
    Reference::digest(Repository::parse(repository).unwrap(), digest.parse().unwrap())
}

/// A tag: `latest`, or `!u1` for a unique one.
pub(crate) fn tag(text: &str) -> TagRequest {
    match text.strip_prefix('!') {
        Some(unique) => TagRequest::new(unique.parse().unwrap(), TagKind::Unique),
        None => TagRequest::new(text.parse().unwrap(), TagKind::Floating),
    }
}

pub(crate) fn target(repository: &str, tags: Vec<TagRequest>) -> TargetRequest {
    TargetRequest { repository: Repository::parse(repository).unwrap(), tags }
}

/// Publishes an image of the builds to some tags of one repository.
pub(crate) fn publish(digest: &str, repository: &str, tags: &[&str]) -> ReleaseRequest {
    let tags = tags.iter().map(|text| tag(text)).collect();
    ReleaseRequest::publish(source(digest, BUILD), vec![target(repository, tags)])
}

/// The same as a version.
pub(crate) fn version(digest: &str, repository: &str, text: &str) -> ReleaseRequest {
    let version = Version::parse(text).unwrap();
    let mut request = publish(digest, repository, &[]);
    request.version = Some(VersionRequest { version, moves_pre_release: false });
    request
}

impl World {
    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    pub(crate) fn place(&mut self) -> &'static str {
        [APP, APP, COPY, BUILD].choose(&mut self.rng).unwrap()
    }

    pub(crate) fn random_request(&mut self) -> ReleaseRequest {
        let digest = self.images.choose(&mut self.rng).unwrap().clone();
        let places: &[&str] = match self.rng.random_range(0..10) {
            0..4 => &[APP],
            4..6 => &[COPY],
            6..9 => &[APP, COPY],
            _ => &[BUILD],
        };
        let mut request = ReleaseRequest::publish(source(&digest, BUILD), Vec::new());
        let as_version = self.chance(25);
        for place in places {
            let mut tags = Vec::new();
            if self.chance(30) {
                tags.push(tag(&format!("!u{}", self.rng.random_range(0..40))));
            }
            if !as_version || self.chance(10) {
                self.add_floating(place, &mut tags);
            }
            request.targets.push(target(place, tags));
        }
        if as_version {
            let (major, minor) = (self.rng.random_range(1..3), self.rng.random_range(0..3));
            let pre = if self.chance(10) { "-rc.1" } else { "" };
            let text = format!("v{major}.{minor}.{}{pre}", self.rng.random_range(0..6));
            let moves_pre_release = self.chance(30);
            let version = Version::parse(&text).unwrap();
            request.version = Some(VersionRequest { version, moves_pre_release });
        }
        self.add_terms(&mut request);
        request
    }

    fn add_floating(&mut self, place: &str, tags: &mut Vec<TagRequest>) {
        if self.chance(50) {
            let mut main = tag("main");
            if self.chance(90) {
                let newest = u64::try_from(self.releases.len()).unwrap();
                let number = newest + self.rng.random_range(0..6);
                main.order = Some(OrderKey::number(number).unwrap());
                let older = [IfOlder::Refuse, IfOlder::Supersede, IfOlder::Keep];
                main.if_older = *older.choose(&mut self.rng).unwrap();
            }
            tags.push(main);
        }
        if self.chance(70) || tags.is_empty() {
            let mut edge = tag(if self.chance(10) { "latest" } else { "edge" });
            if self.chance(15) {
                edge.expected = Some(self.expected(place, edge.tag.as_str()));
            }
            tags.push(edge);
        }
        if self.chance(20) {
            tags.push(tag("prod"));
        }
        if self.chance(20) {
            let mut nightly = tag("nightly");
            nightly.order = self.time_key();
            let older = [IfOlder::Refuse, IfOlder::Supersede, IfOlder::Keep];
            nightly.if_older = *older.choose(&mut self.rng).unwrap();
            tags.push(nightly);
        }
    }

    /// The time of a commit, a while ago; or now and then no time at all.
    fn time_key(&mut self) -> Option<OrderKey> {
        let ago = Duration::from_secs(self.rng.random_range(0..900));
        match self.rng.random_range(0..20) {
            0 => None,
            1 => Some(OrderKey::number(7).unwrap()),
            _ => Some(OrderKey::time(self.base.clock.now() - ago).unwrap()),
        }
    }

    fn expected(&mut self, place: &str, tag: &str) -> Expected {
        let there = self.registry.digest(&(place.to_owned(), tag.to_owned()));
        if self.chance(70) {
            let there: Option<Digest> = there.map(|digest| digest.parse().unwrap());
            return Expected::from(there);
        }
        Expected::At(self.images.choose(&mut self.rng).unwrap().parse().unwrap())
    }

    fn add_terms(&mut self, request: &mut ReleaseRequest) {
        request.reason = "because".into();
        request.allow_backward = self.chance(12);
        request.break_glass = self.chance(15);
        request.priority = self.rng.random_range(-1..=1);
        if self.chance(30) {
            request.on_failure = OnFailure::Keep;
        }
        if self.chance(5) {
            let time = Duration::from_secs(self.rng.random_range(10..2_000));
            request.not_after = Some(self.base.clock.now() + time);
        }
        if self.chance(25) {
            request.idempotency_key = Some(format!("key {}", self.trace.len()));
        }
    }
}
