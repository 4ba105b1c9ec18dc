//! What the engine shows, as messages of the contract.

use colophon_api::{Timestamp, v1};
use colophon_domain::{
    AttemptView, BlobProgress, BlobState, BlobView, Certainty, Digest, EntryView, FreezeView,
    Obstacle, OnFailure, OrderKey, PlanView, PlannedPublication, PlannedTag, PublicationState,
    PublicationView, Reason, Reference, ReleaseState, ReleaseView, RetryView, Selection, TagKind,
    TagMoveState, TagMoveView, TagView, UploadView, Wanted, summary,
};
use time::OffsetDateTime;

/// A release with everything that is known of it.
pub(crate) fn release(view: ReleaseView) -> v1::Release {
    let summary = summary(&view);
    v1::Release {
        id: view.id.to_string(),
        source: view.source.to_string(),
        digest: view.digest.to_string(),
        state: release_state(view.state).into(),
        state_reason: reason(view.state_reason),
        message: view.message,
        phase: view.phase.to_string(),
        waiting_for: view.waiting_for.unwrap_or_default(),
        publications: view.publications.into_iter().map(publication).collect(),
        actor: view.actor,
        on_behalf_of: view.on_behalf_of,
        reason: view.reason,
        labels: view.labels,
        not_after: time(view.not_after),
        priority: view.priority.into(),
        create_time: Some(view.created_at.into()),
        start_time: time(view.started_at),
        end_time: time(view.ended_at),
        attempts: view.attempts.into_iter().map(attempt).collect(),
        cancel_requested: view.cancel_requested,
        purpose: view.purpose.to_string(),
        waiting_reason: reason(view.waiting_reason),
        on_failure: on_failure(view.on_failure).into(),
        plan: view.plan.unwrap_or_default(),
        semver: view.version.unwrap_or_default(),
        break_glass: view.break_glass,
        summary,
        revision: view.revision,
        waiting_time: time(view.waiting_until),
        retries: view.retries.into_iter().map(retry).collect(),
        selection: Some(selection(&view.selection)),
        source_digest: digest(view.made_from.as_ref()),
        origin: view.origin,
    }
}

fn selection(view: &Selection) -> v1::Selection {
    v1::Selection {
        platforms: view.platforms.iter().map(ToString::to_string).collect(),
        referrers: view.referrers.words(),
        without_cosign: !view.cosign,
        include_foreign: view.foreign,
    }
}

/// What stands in place of the id of a plan that cannot be held to. Not an empty text: whoever hands it
/// on without looking must be refused, and not published without a plan.
const INCOMPLETE: &str = "incomplete";

/// What a release would do.
pub(crate) fn plan(view: PlanView) -> v1::Plan {
    let feasible = view.feasible();
    v1::Plan {
        id: view.id.unwrap_or_else(|| INCOMPLETE.to_owned()),
        source: view.source.to_string(),
        digest: view.digest.to_string(),
        publications: view.publications.into_iter().map(planned_publication).collect(),
        create_time: Some(view.created_at.into()),
        expire_time: Some(view.expires_at.into()),
        feasible,
        source_digest: digest(view.made_from.as_ref()),
    }
}

/// A time in which no tags move.
pub(crate) fn freeze(view: FreezeView) -> v1::Freeze {
    let (lift_time, lifted_by, lift_reason) = match view.lifted {
        Some(lifted) => (Some(lifted.at), lifted.by, lifted.reason),
        None => (None, String::new(), String::new()),
    };
    v1::Freeze {
        id: view.id.to_string(),
        pattern: view.pattern.to_string(),
        reason: view.reason,
        actor: view.actor,
        create_time: Some(view.created_at.into()),
        end_time: Some(view.ends_at.into()),
        lift_time: time(lift_time),
        lifted_by,
        active: view.active,
        lift_reason,
    }
}

/// Content on its way from a client.
pub(crate) fn upload(view: UploadView) -> v1::Upload {
    v1::Upload {
        id: view.id.to_string(),
        repository: view.repository.to_string(),
        origin: view.origin,
        actor: view.principal,
        create_time: Some(view.created_at.into()),
        expire_time: Some(view.expires_at.into()),
        bytes_received: i64::try_from(view.bytes_received).unwrap_or(i64::MAX),
    }
}

/// How far a blob is.
pub(crate) fn blob_progress(progress: &BlobProgress) -> v1::UploadBlobState {
    let (present, offset, busy) = match progress.wanted {
        Wanted::Present => (true, 0, false),
        Wanted::From(offset) => (false, offset, false),
        Wanted::Busy => (false, 0, true),
    };
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    v1::UploadBlobState { digest: progress.digest.to_string(), present, offset, busy }
}

/// What a tag pointed to.
pub(crate) fn tag(reference: &Reference, view: TagView) -> v1::Tag {
    v1::Tag {
        reference: reference.to_string(),
        digest: digest(view.digest.as_ref()),
        certainty: certainty(view.certainty).into(),
        explanation: view.explanation,
        at: Some(view.at.into()),
        last_observed_time: time(view.last_observed_at),
        entry: view.entry.map(entry),
    }
}

/// One entry of the ledger.
pub(crate) fn entry(view: EntryView) -> v1::TagEntry {
    v1::TagEntry {
        id: view.id.to_string(),
        kind: view.kind,
        purpose: view.purpose,
        reference: Reference::tag(view.repository, view.tag).to_string(),
        tag_seq: view.tag_seq,
        old_digest: digest(view.old_digest.as_ref()),
        new_digest: digest(view.new_digest.as_ref()),
        at: Some(view.at.into()),
        not_before: time(view.not_before),
        release: text(view.release),
        source: text(view.source),
        actor: view.actor.unwrap_or_default(),
        on_behalf_of: view.on_behalf_of.unwrap_or_default(),
        reason: view.reason.unwrap_or_default(),
        reason_code: reason(view.reason_code),
        intent: text(view.intent),
        body: view.body,
        leaf_hash: view.leaf_hash,
    }
}

fn publication(view: PublicationView) -> v1::Publication {
    let planned = view.copied.blobs_total > 0 || !view.copied.blobs.is_empty();
    v1::Publication {
        repository: view.repository.to_string(),
        state: publication_state(view.state).into(),
        tags: view.tags.into_iter().map(tag_move).collect(),
        blobs_copied: view.copied.blobs_copied,
        blobs_present: view.copied.blobs_present,
        blobs_mounted: view.copied.blobs_mounted,
        bytes_copied: view.copied.bytes_copied,
        bytes_total: view.copied.bytes_total,
        notes: view.copied.notes,
        progress: planned.then(|| v1::CopyProgress {
            blobs: view.copied.blobs.iter().map(blob).collect(),
            blobs_total: view.copied.blobs_total,
        }),
        companions: view.companions.into_iter().map(tag_move).collect(),
    }
}

fn blob(view: &BlobView) -> v1::BlobProgress {
    v1::BlobProgress {
        digest: view.digest.to_string(),
        size_bytes: view.size,
        done_bytes: view.done,
        state: blob_state(view.state).into(),
        attempts: view.attempts,
    }
}

fn tag_move(view: TagMoveView) -> v1::TagMove {
    v1::TagMove {
        tag: view.tag.to_string(),
        kind: tag_kind(view.kind).into(),
        state: tag_move_state(view.state).into(),
        reason: reason(view.reason),
        message: view.message,
        old_digest: digest(view.old_digest.as_ref()),
        new_digest: digest(view.new_digest.as_ref()),
        ticket: view.ticket.unwrap_or_default(),
        end_time: time(view.ended_at),
        wanted_digest: digest(view.wanted.as_ref()),
        expected_digest: view.expected.unwrap_or_default(),
        order_key: view.order.as_ref().map(order_key).unwrap_or_default(),
    }
}

fn planned_publication(view: PlannedPublication) -> v1::PlannedPublication {
    v1::PlannedPublication {
        repository: view.repository.to_string(),
        tags: view.tags.into_iter().map(planned_tag).collect(),
        copy_from: text(view.copy_from),
        manifests: view.manifests,
        blobs: view.blobs,
        bytes: view.bytes,
        notes: view.notes,
        obstacles: view.obstacles.into_iter().map(obstacle).collect(),
        companion_tags: view.companions.iter().map(ToString::to_string).collect(),
    }
}

fn planned_tag(view: PlannedTag) -> v1::PlannedTag {
    v1::PlannedTag {
        tag: view.tag.to_string(),
        kind: tag_kind(view.kind).into(),
        old_digest: digest(view.old.as_ref()),
        new_digest: view.new.to_string(),
        outcome: tag_move_state(view.outcome).into(),
        reason: reason(view.reason),
        message: view.message,
    }
}

fn obstacle(view: Obstacle) -> v1::Obstacle {
    v1::Obstacle { reason: view.reason.to_string(), message: view.message }
}

fn attempt(view: AttemptView) -> v1::Attempt {
    v1::Attempt {
        job: view.job.to_string(),
        repository: view.repository.to_string(),
        number: view.number,
        reason: view.reason.to_string(),
        message: view.message,
        start_time: Some(view.started_at.into()),
        end_time: Some(view.ended_at.into()),
        worker: view.worker,
    }
}

fn retry(view: RetryView) -> v1::Retry {
    v1::Retry {
        actor: view.actor,
        reason: view.reason,
        create_time: Some(view.at.into()),
        ended_reason: reason(view.ended_reason),
    }
}

/// The form that the command line takes, too: `number:1234`.
fn order_key(key: &OrderKey) -> String {
    format!("{}:{}", key.kind(), key.value())
}

fn digest(digest: Option<&Digest>) -> String {
    digest.map(ToString::to_string).unwrap_or_default()
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn reason(reason: Option<Reason>) -> String {
    text(reason)
}

fn time(time: Option<OffsetDateTime>) -> Option<Timestamp> {
    time.map(Into::into)
}

fn tag_kind(kind: TagKind) -> v1::TagKind {
    match kind {
        TagKind::Unique => v1::TagKind::Unique,
        TagKind::Floating => v1::TagKind::Floating,
    }
}

fn on_failure(policy: OnFailure) -> v1::OnFailure {
    match policy {
        OnFailure::Restore => v1::OnFailure::Restore,
        OnFailure::Keep => v1::OnFailure::Keep,
    }
}

fn blob_state(state: BlobState) -> v1::BlobState {
    match state {
        BlobState::Sending => v1::BlobState::Sending,
        BlobState::Copied => v1::BlobState::Copied,
        BlobState::Mounted => v1::BlobState::Mounted,
        BlobState::Present => v1::BlobState::Present,
    }
}

fn release_state(state: ReleaseState) -> v1::ReleaseState {
    match state {
        ReleaseState::Queued => v1::ReleaseState::Queued,
        ReleaseState::Running => v1::ReleaseState::Running,
        ReleaseState::Succeeded => v1::ReleaseState::Succeeded,
        ReleaseState::Failed => v1::ReleaseState::Failed,
        ReleaseState::Errored => v1::ReleaseState::Errored,
        ReleaseState::Cancelled => v1::ReleaseState::Cancelled,
    }
}

fn publication_state(state: PublicationState) -> v1::PublicationState {
    match state {
        PublicationState::Queued => v1::PublicationState::Queued,
        PublicationState::Copying => v1::PublicationState::Copying,
        PublicationState::Copied => v1::PublicationState::Copied,
        PublicationState::Succeeded => v1::PublicationState::Succeeded,
        PublicationState::Failed => v1::PublicationState::Failed,
        PublicationState::Cancelled => v1::PublicationState::Cancelled,
    }
}

fn tag_move_state(state: TagMoveState) -> v1::TagMoveState {
    match state {
        TagMoveState::Pending => v1::TagMoveState::Pending,
        TagMoveState::Moving => v1::TagMoveState::Moving,
        TagMoveState::Moved => v1::TagMoveState::Moved,
        TagMoveState::Unchanged => v1::TagMoveState::Unchanged,
        TagMoveState::Superseded => v1::TagMoveState::Superseded,
        TagMoveState::Refused => v1::TagMoveState::Refused,
        TagMoveState::Failed => v1::TagMoveState::Failed,
        TagMoveState::Unknown => v1::TagMoveState::Unknown,
        TagMoveState::NotAttempted => v1::TagMoveState::NotAttempted,
        TagMoveState::Kept => v1::TagMoveState::Kept,
        TagMoveState::Restoring => v1::TagMoveState::Restoring,
        TagMoveState::Restored => v1::TagMoveState::Restored,
    }
}

fn certainty(certainty: Certainty) -> v1::Certainty {
    match certainty {
        Certainty::Confirmed => v1::Certainty::Confirmed,
        Certainty::LastObserved => v1::Certainty::LastObserved,
        Certainty::Uncertain => v1::Certainty::Uncertain,
        Certainty::Unknown => v1::Certainty::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of the domain and the names of the contract are one vocabulary; the client
    /// shows the contract's short names.
    #[test]
    fn the_states_keep_their_words() {
        for state in ReleaseState::ALL {
            assert_eq!(release_state(*state).short_name(), state.as_str());
        }
        for state in PublicationState::ALL {
            assert_eq!(publication_state(*state).short_name(), state.as_str());
        }
        for state in TagMoveState::ALL {
            assert_eq!(tag_move_state(*state).short_name(), state.as_str());
        }
        for state in BlobState::ALL {
            assert_eq!(blob_state(*state).short_name().to_lowercase(), state.as_str());
        }
        for policy in OnFailure::ALL {
            let name = on_failure(*policy).short_name();
            assert_eq!(name, policy.as_str().to_uppercase());
        }
    }

    #[test]
    fn an_order_key_is_written_as_it_is_given() {
        for text in ["number:1234", "time:2026-11-03T14:02:00Z", "semver:1.4.2"] {
            assert_eq!(order_key(&text.parse().unwrap()), text);
        }
    }
}
