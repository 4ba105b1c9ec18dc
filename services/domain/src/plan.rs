//! A plan: what a release would do now, as data. Nothing of it is stored; its id is a hash of the
//! moves that it shows.

use time::OffsetDateTime;

use crate::{Digest, Failure, Reason, Reference, Repository, Tag, TagKind, TagMoveState};

/// What a release would do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanView {
    /// Names exactly these moves; `None` if not every tag could be looked at, for such a plan
    /// cannot be held to.
    pub id: Option<String>,
    /// The source as it was given.
    pub source: Reference,
    /// What would be published: the digest that it has now, or that of what would be made of it.
    pub digest: Digest,
    /// The digest that it has now, where that is not what would be published.
    pub made_from: Option<Digest>,
    /// The targets, in the order of the request.
    pub publications: Vec<PlannedPublication>,
    /// When the plan was made.
    pub created_at: OffsetDateTime,
    /// When it is too old.
    pub expires_at: OffsetDateTime,
}

impl PlanView {
    /// Whether nothing stands against it.
    pub fn feasible(&self) -> bool {
        self.publications.iter().all(|publication| {
            publication.obstacles.is_empty()
                && publication.tags.iter().all(|tag| tag.outcome.good())
        })
    }
}

/// What a release would do in one target repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedPublication {
    /// The repository.
    pub repository: Repository,
    /// The tags, unique ones first.
    pub tags: Vec<PlannedTag>,
    /// Where missing content would come from; `None` if nothing is missing or it is not known.
    pub copy_from: Option<Reference>,
    /// Manifests to be put.
    pub manifests: i64,
    /// Blobs to be sent or mounted.
    pub blobs: i64,
    /// Their bytes.
    pub bytes: i64,
    /// What would be left out of the copy and why.
    pub notes: Vec<String>,
    /// Tags that belong to what would be copied, and would be moved with it.
    pub companions: Vec<Tag>,
    /// What stands against the whole target.
    pub obstacles: Vec<Obstacle>,
}

/// What would become of one tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTag {
    /// The tag.
    pub tag: Tag,
    /// Unique or floating.
    pub kind: TagKind,
    /// What it points to.
    pub old: Option<Digest>,
    /// What it would point to.
    pub new: Digest,
    /// The state in which it would end, if nothing else stood against the release.
    pub outcome: TagMoveState,
    /// Why it would not be moved.
    pub reason: Option<Reason>,
    /// Why it would move or not, in words.
    pub message: String,
}

/// What stands against a part of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Why.
    pub reason: Reason,
    /// The same in words, with what to do about it.
    pub message: String,
}

impl From<&Failure> for Obstacle {
    fn from(failure: &Failure) -> Self {
        Self { reason: failure.reason(), message: failure.explained() }
    }
}
