//! What the store shows and the server tells: releases, tags and ledger entries as plain data,
//! free of SQL and of protobuf.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    BlobState, Digest, JobKind, OnFailure, OrderKey, Phase, PublicationState, Purpose, Reason,
    Reference, ReleaseState, Repository, RepositoryPattern, Selection, Tag, TagKind, TagMoveState,
};

/// A release and everything that became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseView {
    /// The id, a UUID of version 7.
    pub id: Uuid,
    /// The source as it was given.
    pub source: Reference,
    /// What is published: what the source was resolved to, once, or what was made of that.
    pub digest: Digest,
    /// What the source was resolved to, where that is not what is published.
    pub made_from: Option<Digest>,
    /// What of the image goes along.
    pub selection: Selection,
    /// Where the release stands.
    pub state: ReleaseState,
    /// Why it did not succeed.
    pub state_reason: Option<Reason>,
    /// The same in words.
    pub message: String,
    /// What is going on.
    pub phase: Phase,
    /// What it waits for, if it does.
    pub waiting_for: Option<String>,
    /// The targets, in the order of the request.
    pub publications: Vec<PublicationView>,
    /// Who asked.
    pub actor: String,
    /// On whose behalf, as claimed.
    pub on_behalf_of: String,
    /// Why, in the caller's words.
    pub reason: String,
    /// The labels given.
    pub labels: BTreeMap<String, String>,
    /// Do not begin after this.
    pub not_after: Option<OffsetDateTime>,
    /// Greater goes first.
    pub priority: i16,
    /// When the release was accepted.
    pub created_at: OffsetDateTime,
    /// When the first job was claimed.
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    pub ended_at: Option<OffsetDateTime>,
    /// What was tried and did not work, oldest first; empty in lists.
    pub attempts: Vec<AttemptView>,
    /// A cancel was accepted and a worker has still to stop.
    pub cancel_requested: bool,
    /// Why it was asked for.
    pub purpose: Purpose,
    /// Why it waits, where a documented reason says so.
    pub waiting_reason: Option<Reason>,
    /// What becomes of moved floating tags when the rest fails.
    pub on_failure: OnFailure,
    /// The plan that it follows.
    pub plan: Option<String>,
    /// The version that it is published as.
    pub version: Option<String>,
    /// Tags move in spite of a freeze.
    pub break_glass: bool,
    /// Until when it waits, if that is known.
    pub waiting_until: Option<OffsetDateTime>,
    /// Grows with every change.
    pub revision: u64,
    /// Floating tags may go back behind a newer build.
    pub allow_backward: bool,
    /// When it was put to work again, oldest first; empty in lists.
    pub retries: Vec<RetryView>,
    /// Where the content came from, if a client sent it; as claimed.
    pub origin: String,
}

/// One time that a release was put to work again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryView {
    /// Who asked.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: OffsetDateTime,
    /// Why the release had ended before.
    pub ended_reason: Option<Reason>,
}

/// One target of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicationView {
    /// The repository.
    pub repository: Repository,
    /// Where it stands.
    pub state: PublicationState,
    /// The tags, unique ones first.
    pub tags: Vec<TagMoveView>,
    /// What the copy moved.
    pub copied: CopyTotals,
    /// Tags that belong to what was copied, and were moved with it.
    pub companions: Vec<TagMoveView>,
}

/// What a copy moved, or did not have to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyTotals {
    /// Blobs that were sent over the network.
    pub blobs_copied: i64,
    /// Blobs that were at the target already.
    pub blobs_present: i64,
    /// Blobs that the target registry took from another repository of its own.
    pub blobs_mounted: i64,
    /// Bytes sent to the target.
    pub bytes_copied: i64,
    /// Bytes of all blobs; 0 until the copy is planned.
    pub bytes_total: i64,
    /// What was left out and why.
    pub notes: Vec<String>,
    /// How far single blobs are: those that are on their way, and the largest others.
    pub blobs: Vec<BlobView>,
    /// All blobs of the copy.
    pub blobs_total: i64,
}

/// How far one blob of a copy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobView {
    /// The blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: i64,
    /// Bytes of it that were sent, or that are at the target.
    pub done: i64,
    /// How it comes there.
    pub state: BlobState,
    /// Attempts at sending it.
    pub attempts: i32,
}

/// One tag of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagMoveView {
    /// The tag.
    pub tag: Tag,
    /// Unique or floating.
    pub kind: TagKind,
    /// Where it stands.
    pub state: TagMoveState,
    /// Why it was not moved.
    pub reason: Option<Reason>,
    /// The same in words.
    pub message: String,
    /// What it pointed to before.
    pub old_digest: Option<Digest>,
    /// What the registry served afterwards.
    pub new_digest: Option<Digest>,
    /// Where it should point, if that is not the release's digest.
    pub wanted: Option<Digest>,
    /// Where it must be for it to be moved: a digest, or `none`.
    pub expected: Option<String>,
    /// What orders its builds.
    pub order: Option<OrderKey>,
    /// The order of acceptance; floating tags only.
    pub ticket: Option<i64>,
    /// When its state became final.
    pub ended_at: Option<OffsetDateTime>,
}

/// An attempt of a job that did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptView {
    /// What the job does.
    pub job: JobKind,
    /// The target.
    pub repository: Repository,
    /// 1 for the first.
    pub number: i32,
    /// Why it did not work.
    pub reason: Reason,
    /// The same in words.
    pub message: String,
    /// When it began.
    pub started_at: OffsetDateTime,
    /// When it ended.
    pub ended_at: OffsetDateTime,
    /// Which worker tried.
    pub worker: String,
}

/// One entry of the ledger about one tag, with its openings where they still exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryView {
    /// The entry's id.
    pub id: Uuid,
    /// What happened, the ledger's word.
    pub kind: String,
    /// Why, the ledger's word.
    pub purpose: String,
    /// The repository.
    pub repository: Repository,
    /// The tag.
    pub tag: Tag,
    /// The number within the tag's chain.
    pub tag_seq: i64,
    /// The digest before.
    pub old_digest: Option<Digest>,
    /// The digest after.
    pub new_digest: Option<Digest>,
    /// When it was recorded.
    pub at: OffsetDateTime,
    /// For an observation: the change happened after this time.
    pub not_before: Option<OffsetDateTime>,
    /// The release that was the cause.
    pub release: Option<Uuid>,
    /// The release's source, by digest.
    pub source: Option<Reference>,
    /// Who asked.
    pub actor: Option<String>,
    /// On whose behalf, as claimed.
    pub on_behalf_of: Option<String>,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// A documented reason, where one applies.
    pub reason_code: Option<Reason>,
    /// The intent that this is the outcome of.
    pub intent: Option<Uuid>,
    /// The exact bytes.
    pub body: Vec<u8>,
    /// SHA-256 of a zero byte and the body.
    pub leaf_hash: Vec<u8>,
}

/// How certain an answer about a tag is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// Observed before, and found there still by the next observation or move.
    Confirmed,
    /// Observed before, and not looked at since.
    LastObserved,
    /// A move of ours was under way, or its outcome is not known yet.
    Uncertain,
    /// Before the first entry, or in a gap in which somebody else moved the tag.
    Unknown,
}

/// What a tag pointed to at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagView {
    /// The digest; `None` if the tag did not exist.
    pub digest: Option<Digest>,
    /// How certain that is.
    pub certainty: Certainty,
    /// The same in words.
    pub explanation: String,
    /// The time that the answer is about.
    pub at: OffsetDateTime,
    /// When the registry was last seen to serve this digest, up to `at`.
    pub last_observed_at: Option<OffsetDateTime>,
    /// The entry that says so.
    pub entry: Option<EntryView>,
}

/// Who may see what: the caller's own releases, and those whose targets are all covered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visibility {
    /// The caller's name.
    pub principal: String,
    /// What the caller may read.
    pub readable: Vec<RepositoryPattern>,
}

/// Conditions on a list of releases; all hold together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseQuery {
    /// Who is looking.
    pub visibility: Visibility,
    /// Publishes to this repository.
    pub repository: Option<Repository>,
    /// In one of these states; empty for any.
    pub states: Vec<ReleaseState>,
    /// Asked for by this caller.
    pub actor: Option<String>,
    /// Carries this label.
    pub label: Option<(String, String)>,
    /// Only releases older than this one (the page before ended with it).
    pub before: Option<Uuid>,
    /// At most this many.
    pub limit: u16,
}

/// Conditions on a list of ledger entries; all hold together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryQuery {
    /// Who is looking: only entries of readable repositories are shown.
    pub visibility: Visibility,
    /// Of this repository.
    pub repository: Option<Repository>,
    /// Of this tag.
    pub tag: Option<Tag>,
    /// Of this release.
    pub release: Option<Uuid>,
    /// Asked for by this caller.
    pub actor: Option<String>,
    /// At or after.
    pub from: Option<OffsetDateTime>,
    /// Before.
    pub until: Option<OffsetDateTime>,
    /// Intents too.
    pub include_intents: bool,
    /// Only entries older than this: time of recording, then id.
    pub before: Option<(OffsetDateTime, Uuid)>,
    /// At most this many.
    pub limit: u16,
}
