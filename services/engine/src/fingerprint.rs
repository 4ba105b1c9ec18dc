//! Tells whether two requests under one idempotency key are the same.

use colophon_domain::ReleaseRequest;
use sha2::{Digest as _, Sha256};

/// SHA-256 over every field but the key itself, each with its length in front, so that no two
/// different requests have the same text.
pub(crate) fn fingerprint(request: &ReleaseRequest) -> [u8; 32] {
    let ReleaseRequest {
        source,
        targets,
        reason,
        on_behalf_of,
        labels,
        not_after,
        priority,
        idempotency_key: _,
    } = request;
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    add(&source.to_string());
    add(&targets.len().to_string());
    for target in targets {
        add(&target.repository.to_string());
        for tags in [&target.unique_tags, &target.floating_tags] {
            add(&tags.len().to_string());
            for tag in tags {
                add(tag.as_str());
            }
        }
    }
    add(reason);
    add(on_behalf_of);
    for (key, value) in labels {
        add(key);
        add(value);
    }
    add(&not_after.map(|time| time.unix_timestamp_nanos().to_string()).unwrap_or_default());
    add(&priority.to_string());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use colophon_domain::TargetRequest;

    use super::*;

    fn request() -> ReleaseRequest {
        ReleaseRequest {
            source: "ghcr.io/acme/app:v1".parse().unwrap(),
            targets: vec![TargetRequest {
                repository: "ghcr.io/acme/mirror".to_owned().try_into().unwrap(),
                unique_tags: vec!["v1".parse().unwrap()],
                floating_tags: vec!["latest".parse().unwrap()],
            }],
            reason: String::new(),
            on_behalf_of: String::new(),
            labels: std::collections::BTreeMap::new(),
            not_after: None,
            priority: 0,
            idempotency_key: None,
        }
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
        assert!(changed(|request| request.not_after = Some(time::OffsetDateTime::UNIX_EPOCH)));
        assert!(changed(|request| drop(request.labels.insert("a".into(), "b".into()))));
        assert!(changed(|request| {
            let target = &mut request.targets[0];
            std::mem::swap(&mut target.unique_tags, &mut target.floating_tags);
        }));
    }
}
