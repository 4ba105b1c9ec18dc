//! Tells whether two requests are the same: under one idempotency key, or under one plan.

use colophon_domain::{
    Digest, OrderKey, Position, ReleaseRequest, RollbackRequest, RollbackSubject, Selection,
    TagRequest,
};
use sha2::{Digest as _, Sha256};

/// SHA-256 over texts, each with its length in front, so that no two different lists are the same.
#[derive(Default)]
pub(crate) struct Texts(Sha256);

impl Texts {
    pub(crate) fn add(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
    }

    fn perhaps(&mut self, text: Option<&str>) {
        self.add(if text.is_some() { "+" } else { "-" });
        self.add(text.unwrap_or_default());
    }

    fn labels(&mut self, labels: &std::collections::BTreeMap<String, String>) {
        self.add(&labels.len().to_string());
        for (key, value) in labels {
            self.add(key);
            self.add(value);
        }
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// Every field of a release's request but the key itself.
pub(crate) fn fingerprint(request: &ReleaseRequest) -> [u8; 32] {
    let ReleaseRequest {
        reason,
        on_behalf_of,
        labels,
        not_after,
        priority,
        plan,
        idempotency_key: _,
        // The content is what the source names; sent again, it comes by another upload.
        upload: _,
        purpose: _,
        source: _,
        targets: _,
        version: _,
        allow_backward: _,
        on_failure: _,
        break_glass: _,
        selection: _,
    } = request;
    let mut texts = Texts::default();
    moves(request, &mut texts);
    texts.add(reason);
    texts.add(on_behalf_of);
    texts.labels(labels);
    texts.add(&not_after.map(|time| time.unix_timestamp_nanos().to_string()).unwrap_or_default());
    texts.add(&priority.to_string());
    texts.perhaps(plan.as_deref());
    texts.finish()
}

/// What of a request decides which tags move where, and how.
pub(crate) fn moves(request: &ReleaseRequest, texts: &mut Texts) {
    texts.add(request.purpose.as_str());
    texts.add(&request.source.to_string());
    texts.add(&request.targets.len().to_string());
    for target in &request.targets {
        texts.add(&target.repository.to_string());
        texts.add(&target.tags.len().to_string());
        for tag in &target.tags {
            tag_texts(tag, texts);
        }
    }
    texts.perhaps(request.version.as_ref().map(|asked| asked.version.to_string()).as_deref());
    texts.add(&request.version.as_ref().is_some_and(|asked| asked.moves_pre_release).to_string());
    texts.add(&request.allow_backward.to_string());
    texts.add(request.on_failure.as_str());
    texts.add(&request.break_glass.to_string());
    selection_texts(&request.selection, texts);
}

/// Nothing for the usual one, so that keys and plans from before there was a choice stay good.
fn selection_texts(selection: &Selection, texts: &mut Texts) {
    if *selection == Selection::default() {
        return;
    }
    let Selection { platforms, referrers, cosign, foreign } = selection;
    texts.add("selection");
    texts.add(&platforms.len().to_string());
    for platform in platforms {
        texts.add(&platform.to_string());
    }
    let words = referrers.words();
    texts.add(&words.len().to_string());
    for word in &words {
        texts.add(word);
    }
    texts.add(&cosign.to_string());
    texts.add(&foreign.to_string());
}

fn tag_texts(tag: &TagRequest, texts: &mut Texts) {
    texts.add(tag.tag.as_str());
    texts.add(tag.kind.as_str());
    texts.perhaps(tag.expected.as_ref().map(colophon_domain::Expected::as_str));
    texts.perhaps(tag.order.as_ref().map(|key| key.kind().as_str()));
    texts.perhaps(tag.order.as_ref().map(OrderKey::value).as_deref());
    texts.add(tag.if_older.as_str());
    texts.perhaps(tag.content.as_ref().map(ToString::to_string).as_deref());
}

/// Every field of a rollback's request but the key itself.
pub(crate) fn rollback_fingerprint(request: &RollbackRequest) -> [u8; 32] {
    let RollbackRequest { subject, reason, on_behalf_of, labels, break_glass, idempotency_key: _ } =
        request;
    let mut texts = Texts::default();
    texts.add("rollback");
    match subject {
        RollbackSubject::Release(id) => texts.add(&id.to_string()),
        RollbackSubject::Tag { repository, tag, position, expected } => {
            texts.add(&format!("{repository}:{tag}"));
            texts.add(&match position {
                Position::Steps(steps) => format!("steps {steps}"),
                Position::At(time) => format!("at {}", time.unix_timestamp_nanos()),
                Position::To(digest) => format!("to {}", Digest::as_str(digest)),
            });
            texts.perhaps(expected.as_ref().map(colophon_domain::Expected::as_str));
        }
    }
    texts.add(reason);
    texts.add(on_behalf_of);
    texts.labels(labels);
    texts.add(&break_glass.to_string());
    texts.finish()
}

#[cfg(test)]
mod tests {
    use colophon_domain::{
        Expected, OnFailure, Referrers, TagKind, TargetRequest, Version, VersionRequest,
    };

    use super::*;

    fn request() -> ReleaseRequest {
        let tag = |text: &str, kind| TagRequest::new(text.parse().unwrap(), kind);
        let target = TargetRequest {
            repository: "ghcr.io/acme/mirror".to_owned().try_into().unwrap(),
            tags: vec![tag("v1", TagKind::Unique), tag("latest", TagKind::Floating)],
        };
        ReleaseRequest::publish("ghcr.io/acme/app:v1".parse().unwrap(), vec![target])
    }

    #[test]
    fn every_field_but_the_key_counts() {
        let base = fingerprint(&request());
        let changed = |change: fn(&mut ReleaseRequest)| {
            let mut request = request();
            change(&mut request);
            fingerprint(&request) != base
        };
        assert!(!changed(|request| request.idempotency_key = Some("k".into())));
        assert!(changed(|request| request.reason = "why".into()));
        assert!(changed(|request| request.on_behalf_of = "why".into()));
        assert!(changed(|request| request.priority = 1));
        assert!(changed(|request| request.plan = Some("p".into())));
        assert!(changed(|request| request.allow_backward = true));
        assert!(changed(|request| request.break_glass = true));
        assert!(changed(|request| request.on_failure = OnFailure::Keep));
        assert!(changed(|request| request.not_after = Some(time::OffsetDateTime::UNIX_EPOCH)));
        assert!(changed(|request| drop(request.labels.insert("a".into(), "b".into()))));
        assert!(changed(|request| request.targets[0].tags[0].kind = TagKind::Floating));
        assert!(changed(|request| request.targets[0].tags[0].expected = Some(Expected::Absent)));
        assert!(changed(|request| {
            request.targets[0].tags[1].order = Some("number:1".parse().unwrap());
        }));
        assert!(changed(|request| request.selection.cosign = false));
        assert!(changed(|request| request.selection.foreign = true));
        assert!(changed(|request| request.selection.referrers = Referrers::None));
        assert!(changed(|request| {
            request.selection.platforms.push("linux/arm64".parse().unwrap());
        }));
        assert!(changed(|request| {
            let version = Version::parse("1.0.0").unwrap();
            request.version = Some(VersionRequest { version, moves_pre_release: false });
        }));
    }

    #[test]
    fn a_rollback_is_told_from_another() {
        let with = |position| RollbackRequest {
            subject: RollbackSubject::Tag {
                repository: "ghcr.io/acme/app".to_owned().try_into().unwrap(),
                tag: "latest".parse().unwrap(),
                position,
                expected: None,
            },
            reason: "bad".into(),
            on_behalf_of: String::new(),
            labels: std::collections::BTreeMap::new(),
            idempotency_key: Some("k".into()),
            break_glass: false,
        };
        let one = rollback_fingerprint(&with(Position::Steps(1)));
        assert_eq!(one, rollback_fingerprint(&with(Position::Steps(1))));
        assert_ne!(one, rollback_fingerprint(&with(Position::Steps(2))));
    }
}
