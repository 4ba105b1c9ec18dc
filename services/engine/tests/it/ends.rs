//! What must hold when everything has ended.

use colophon_domain::{
    OnFailure, Reason, ReleaseState, ReleaseView, TagKind, TagMoveState, Visibility,
    is_retention_tag,
};
use colophon_ledger::verify_chain;
use uuid::Uuid;

use crate::{walk::is_unique, world::World};

/// Attempts of a job before its release ends errored, by the settings.
const ATTEMPTS: i32 = 8;

impl World {
    /// Everything has ended, each tag's chain holds, and each release ended as its tags did.
    pub(crate) async fn check_ends(&mut self) {
        self.sync().await;
        self.none_left().await;
        self.chains_hold().await;
        for id in self.releases.clone() {
            let view = self.view(id).await;
            self.check_release(&view);
        }
    }

    /// After [`World::observe_all`]: nobody's hand is unknown. A unique tag that is elsewhere keeps
    /// its release from beginning, and is not written about.
    pub(crate) fn check_observed(&self) {
        for (key, tag) in self.model.tags.iter().filter(|(key, _)| !is_unique(key)) {
            // Nor is one that cannot leave its digest, because somebody took the tag for keeping it.
            if self.model.cannot_leave(key, &self.registry) {
                continue;
            }
            assert_eq!(self.registry.digest(key), tag.digest, "{key:?}: not seen");
            assert!(!tag.touched, "{key:?}: not looked at");
        }
    }

    pub(crate) async fn view(&self, id: Uuid) -> ReleaseView {
        let visibility =
            Visibility { principal: "test".into(), readable: vec!["*".parse().unwrap()] };
        self.engine.release(&visibility, id).await.unwrap().unwrap()
    }

    async fn none_left(&self) {
        let left: Vec<(Uuid, String, String, bool)> = sqlx::query_as(
            "SELECT release_id, tag, state, retention FROM tag_move WHERE ended_at IS NULL",
        )
        .fetch_all(&self.base.pool)
        .await
        .unwrap();
        assert!(left.is_empty(), "tags left: {left:?}");
        for (what, statement) in [
            ("releases without an end", "SELECT count(*) FROM release WHERE ended_at IS NULL"),
            ("open intents", "SELECT count(*) FROM open_intent"),
            ("jobs left", "SELECT count(*) FROM job WHERE state IN ('queued', 'running')"),
            (
                "intents without exactly one outcome",
                "SELECT count(*) FROM audit_entry i WHERE kind = 'intent' AND 1 <> (
                    SELECT count(*) FROM audit_entry o WHERE o.intent_id = i.id
                      AND o.kind IN ('confirmed', 'recovered', 'not_applied', 'conflict'))",
            ),
            (
                "tags that moved without an entry that says so",
                "SELECT count(*) FROM tag_move m JOIN publication p ON p.id = m.publication_id
                 JOIN release r ON r.id = m.release_id
                 WHERE m.state = 'MOVED' AND NOT EXISTS (
                    SELECT FROM audit_entry e WHERE e.release_id = m.release_id
                      AND (e.registry, e.repository, e.tag) = (p.registry, p.repository, m.tag)
                      AND e.new_digest = COALESCE(m.content_digest, r.digest)
                      AND e.purpose <> 'restore' AND e.kind IN ('confirmed', 'recovered'))",
            ),
        ] {
            assert_eq!(self.base.count(statement).await, 0, "{what}");
        }
    }

    /// Every tag's chain holds by its stored bytes alone.
    async fn chains_hold(&self) {
        for (key, tag) in &self.model.tags {
            let bodies: Vec<Vec<u8>> = sqlx::query_scalar(
                "SELECT body FROM audit_entry WHERE registry || '/' || repository = $1 AND tag = $2
                 ORDER BY tag_seq",
            )
            .bind(&key.0)
            .bind(&key.1)
            .fetch_all(&self.base.pool)
            .await
            .unwrap();
            verify_chain(&bodies).unwrap_or_else(|error| panic!("{key:?}: {error}"));
            assert_eq!(i64::try_from(bodies.len()).unwrap(), tag.seq, "{key:?}");
        }
    }

    /// A release that does not succeed has a reason, and each of its attempts had one.
    fn check_reason(&self, view: &ReleaseView, name: &str) {
        let own = |attempt: &&colophon_domain::AttemptView| {
            !matches!(attempt.reason, Reason::LeaseLost | Reason::Expired)
        };
        let attempts = view.attempts.iter().filter(own).count();
        let faults = self.model.ended.faults.get(&view.id).copied().unwrap_or_default();
        assert!(attempts <= faults, "{name}: {attempts} attempts, {faults} faults: {view:?}");
        let Some(reason) = view.state_reason else {
            return assert_eq!(view.state, ReleaseState::Succeeded, "{name}");
        };
        let accepted = &self.model.releases[&view.id];
        let tags = view.publications.iter().flat_map(|target| &target.tags);
        let by_tag = tags.filter(|tag| !tag.state.good()).any(|tag| tag.reason == Some(reason));
        let right = match (view.state, reason) {
            (ReleaseState::Cancelled, Reason::Cancelled) => accepted.cancelled,
            (ReleaseState::Errored, Reason::AttemptsExhausted) => {
                view.attempts.iter().any(|attempt| attempt.number >= ATTEMPTS)
            }
            (ReleaseState::Failed, Reason::Expired) => {
                accepted.not_after.is_some_and(|time| Some(time) < view.ended_at)
            }
            (ReleaseState::Failed, _) => by_tag,
            _ => false,
        };
        assert!(right, "{name}: {} {reason} without a reason: {view:?}", view.state);
    }

    fn check_release(&self, view: &ReleaseView) {
        let accepted = &self.model.releases[&view.id];
        let name = self.releases.iter().position(|id| *id == view.id).unwrap();
        assert!(view.state.ended(), "r{name}");
        let all = || view.publications.iter().flat_map(|target| &target.tags);
        // Those that keep what its tags left are no business of whoever asked for it.
        let tags = || all().filter(|tag| !is_retention_tag(&tag.tag));
        self.check_reason(view, &format!("r{name}"));
        if view.state == ReleaseState::Succeeded {
            assert!(tags().all(|tag| tag.state.good()), "r{name} succeeded: {view:?}");
            return;
        }
        if view.state == ReleaseState::Cancelled {
            assert!(accepted.cancelled, "r{name} was cancelled by nobody");
        }
        let late = |tag: &&colophon_domain::TagMoveView| {
            matches!(tag.state, TagMoveState::Refused | TagMoveState::Failed)
        };
        // What a newer release keeps from being whole stays: it is what would be there anyway.
        let broken = tags().any(|tag| late(&tag))
            || accepted.cancelled
            || view.state == ReleaseState::Errored
            || !matches!(view.state_reason, Some(Reason::Superseded));
        for target in &view.publications {
            for tag in &target.tags {
                let key = (target.repository.to_string(), tag.tag.to_string());
                let Some(made) = accepted.made.get(&key) else { continue };
                if tag.kind == TagKind::Unique {
                    continue;
                }
                let restores = broken && accepted.on_failure == OnFailure::Restore;
                if restores && tag.message.is_empty() {
                    let mover = self.model.tags[&key].holder.mover;
                    assert_ne!(mover, Some(view.id), "r{name} {key:?} is held by what failed");
                }
                match (accepted.on_failure, tag.state) {
                    (_, TagMoveState::Restored) => {
                        assert_eq!(accepted.on_failure, OnFailure::Restore, "r{name} {key:?}");
                    }
                    (OnFailure::Restore, TagMoveState::Moved) if broken && !made.found => {
                        assert!(!tag.message.is_empty(), "r{name} {key:?} stays, and is not said");
                    }
                    (_, TagMoveState::Moved) if !made.found => {}
                    (_, TagMoveState::Unchanged) if made.found => {}
                    (_, state) => panic!("r{name} {key:?} was moved and is {state}"),
                }
            }
        }
    }
}
