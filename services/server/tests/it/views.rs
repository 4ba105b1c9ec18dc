//! What the scripted engine shows: one of each thing.

use std::time::Duration;

use colophon_domain::{
    Certainty, CopyTotals, Digest, EntryView, FreezeView, Obstacle, OnFailure, OrderKey, Phase,
    PlanView, PlannedPublication, PlannedTag, PublicationState, PublicationView, Purpose, Reason,
    ReleaseState, ReleaseView, Repository, Selection, TagKind, TagMoveState, TagMoveView, TagView,
};
use uuid::Uuid;

use crate::fake::NOW;

pub fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(0x019a_4d1c_0000_7000_8000_0000_0000_0000 | number)
}

/// A release of `ghcr.io/acme/app:sha-1` to `docker.io/acme/app`.
pub fn release(number: u128) -> ReleaseView {
    let repository = Repository::parse("docker.io/acme/app").unwrap();
    ReleaseView {
        id: uuid(number),
        source: "ghcr.io/acme/app:sha-1".parse().unwrap(),
        digest: Digest::sha256(b"manifest"),
        made_from: Some(Digest::sha256(b"whole")),
        selection: Selection {
            platforms: vec!["linux/arm64".parse().unwrap()],
            ..Selection::default()
        },
        state: ReleaseState::Running,
        state_reason: None,
        message: String::new(),
        phase: Phase::Copy,
        waiting_for: None,
        publications: vec![PublicationView {
            repository,
            state: PublicationState::Copying,
            tags: vec![TagMoveView {
                tag: "v1".parse().unwrap(),
                kind: TagKind::Floating,
                state: TagMoveState::Pending,
                reason: None,
                message: String::new(),
                old_digest: None,
                new_digest: None,
                ticket: Some(7),
                ended_at: None,
                wanted: None,
                expected: Some("none".into()),
                order: Some(OrderKey::Number(1_234)),
            }],
            copied: CopyTotals { blobs_copied: 2, ..CopyTotals::default() },
            companions: vec![],
        }],
        actor: "ci".into(),
        on_behalf_of: String::new(),
        reason: "weekly".into(),
        labels: [("team".to_owned(), "web".to_owned())].into(),
        not_after: None,
        priority: 0,
        created_at: NOW,
        started_at: Some(NOW),
        ended_at: None,
        attempts: vec![],
        cancel_requested: false,
        purpose: Purpose::Publish,
        waiting_reason: None,
        on_failure: OnFailure::Restore,
        plan: None,
        version: None,
        break_glass: false,
        waiting_until: None,
        revision: 1,
        allow_backward: false,
        retries: vec![],
        origin: String::new(),
    }
}

pub fn tag() -> TagView {
    TagView {
        digest: Some(Digest::sha256(b"manifest")),
        certainty: Certainty::Confirmed,
        explanation: "seen before and after".into(),
        at: NOW,
        last_observed_at: Some(NOW - Duration::from_mins(1)),
        entry: Some(entry(1)),
    }
}

pub fn entry(number: u128) -> EntryView {
    EntryView {
        id: uuid(number),
        kind: "confirmed".into(),
        purpose: "publish".into(),
        repository: Repository::parse("docker.io/acme/app").unwrap(),
        tag: "v1".parse().unwrap(),
        tag_seq: i64::try_from(number).unwrap(),
        old_digest: None,
        new_digest: Some(Digest::sha256(b"manifest")),
        at: NOW,
        not_before: None,
        release: Some(uuid(1)),
        source: None,
        actor: Some("ci".into()),
        on_behalf_of: None,
        reason: None,
        reason_code: None,
        intent: None,
        body: b"{}".to_vec(),
        leaf_hash: vec![0; 32],
    }
}

/// A plan in which `latest` would move and `v1` stands against it.
pub fn plan() -> PlanView {
    let tag = |name: &str, outcome, reason| PlannedTag {
        tag: name.parse().unwrap(),
        kind: TagKind::Floating,
        old: Some(Digest::sha256(b"old")),
        new: Digest::sha256(b"manifest"),
        outcome,
        reason,
        message: String::new(),
    };
    PlanView {
        id: Some("plan-1".into()),
        source: "ghcr.io/acme/app:sha-1".parse().unwrap(),
        digest: Digest::sha256(b"manifest"),
        made_from: None,
        publications: vec![PlannedPublication {
            repository: Repository::parse("docker.io/acme/app").unwrap(),
            tags: vec![
                tag("latest", TagMoveState::Moved, None),
                tag("v1", TagMoveState::Refused, Some(Reason::OrderRegression)),
            ],
            copy_from: Some("ghcr.io/acme/app:sha-1".parse().unwrap()),
            manifests: 1,
            blobs: 2,
            bytes: 3,
            notes: vec!["one layer is foreign".into()],
            companions: vec!["sha256-1.sig".parse().unwrap()],
            obstacles: vec![Obstacle { reason: Reason::Frozen, message: "holidays".into() }],
        }],
        created_at: NOW,
        expires_at: NOW + Duration::from_hours(1),
    }
}

/// A freeze of `docker.io/acme/*` that holds.
pub fn freeze(number: u128) -> FreezeView {
    FreezeView {
        id: uuid(number),
        pattern: "docker.io/acme/*".parse().unwrap(),
        reason: "holidays".into(),
        actor: "ci".into(),
        created_at: NOW,
        ends_at: NOW + Duration::from_hours(24),
        lifted: None,
        active: true,
    }
}
