//! A release as it is asked for: parsed and checked by the server, made whole by the engine, which
//! adds what follows from the configuration and from a version.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Digest, Line, OrderKey, Reason, Reference, Repository, Selection, Tag, TagKind, Version,
    release::words,
};

words! {
    /// Why tags are moved.
    Purpose {
        /// New content is published.
        Publish = "publish",
        /// Tags go back to what they were.
        Rollback = "rollback",
    }
}

words! {
    /// What becomes of floating tags that were moved when the rest of the release fails.
    OnFailure {
        /// They go back to what they were, unless somebody else has moved them since.
        Restore = "restore",
        /// They stay.
        Keep = "keep",
    }
}

words! {
    /// What becomes of a floating tag that has a newer order key already.
    IfOlder {
        /// It is refused, and with it the release.
        Refuse = "refuse",
        /// It ends superseded: the newer build is right.
        Supersede = "supersede",
        /// It stays, and that is what was asked for: a version moves only what it is highest of.
        Keep = "keep",
    }
}

/// What a tag must point to for it to be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// There must be no such tag.
    Absent,
    /// It must be at this digest.
    At(Digest),
}

impl Expected {
    /// Whether what was observed is what was expected.
    pub fn holds(&self, observed: Option<&Digest>) -> bool {
        match self {
            Self::Absent => observed.is_none(),
            Self::At(digest) => observed == Some(digest),
        }
    }

    /// The digest, or the word `none`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Absent => "none",
            Self::At(digest) => digest.as_str(),
        }
    }
}

impl std::str::FromStr for Expected {
    type Err = crate::Failure;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Self::Absent);
        }
        text.parse().map(Self::At).map_err(|failure: crate::Failure| {
            failure.remedy("give a digest, or the word none if there must be no such tag")
        })
    }
}

impl From<Option<Digest>> for Expected {
    fn from(observed: Option<Digest>) -> Self {
        observed.map_or(Self::Absent, Self::At)
    }
}

/// One tag of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRequest {
    /// The tag.
    pub tag: Tag,
    /// Unique or floating.
    pub kind: TagKind,
    /// Where the tag must be for it to be moved.
    pub expected: Option<Expected>,
    /// What orders the builds of this floating tag, in place of the order of acceptance.
    pub order: Option<OrderKey>,
    /// What becomes of it where a newer build has it.
    pub if_older: IfOlder,
    /// What it goes to, by digest; the release's source if left out.
    pub content: Option<Reference>,
    /// The versions of which the release's must be the highest; for tags that follow from one.
    pub line: Option<Line>,
    /// The tag is listed and stays, for this reason and with this text.
    pub kept: Option<(Reason, String)>,
}

impl TagRequest {
    /// A tag without any condition.
    pub fn new(tag: Tag, kind: TagKind) -> Self {
        Self {
            tag,
            kind,
            expected: None,
            order: None,
            if_older: IfOlder::Refuse,
            content: None,
            line: None,
            kept: None,
        }
    }
}

/// One target repository of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRequest {
    /// The repository.
    pub repository: Repository,
    /// The tags, unique ones first.
    pub tags: Vec<TagRequest>,
}

impl TargetRequest {
    /// The tags of one kind.
    pub fn of(&self, kind: TagKind) -> impl Iterator<Item = &TagRequest> {
        self.tags.iter().filter(move |tag| tag.kind == kind)
    }
}

/// A version that a release is published as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRequest {
    /// The version.
    pub version: Version,
    /// A pre-release, or a version with build metadata, moves floating tags too.
    pub moves_pre_release: bool,
}

/// A release as it was asked, parsed and checked. The server is the one place that makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseRequest {
    /// Why tags are moved.
    pub purpose: Purpose,
    /// What to publish.
    pub source: Reference,
    /// Where, and as what.
    pub targets: Vec<TargetRequest>,
    /// The version that it is published as.
    pub version: Option<VersionRequest>,
    /// Why, in the caller's words; at most 1,000 characters.
    pub reason: String,
    /// On whose behalf the caller says that it acts; claimed, not proven.
    pub on_behalf_of: String,
    /// Labels for finding the release again.
    pub labels: BTreeMap<String, String>,
    /// Do not begin after this.
    pub not_after: Option<OffsetDateTime>,
    /// -100 to 100; greater goes first.
    pub priority: i16,
    /// The caller's key for sending the same request twice.
    pub idempotency_key: Option<String>,
    /// Floating tags may go back to an older order key, or to one of another kind.
    pub allow_backward: bool,
    /// What becomes of moved floating tags when the rest fails.
    pub on_failure: OnFailure,
    /// The plan that this must be.
    pub plan: Option<String>,
    /// Tags move in spite of a freeze.
    pub break_glass: bool,
    /// What of the image goes along.
    pub selection: Selection,
    /// The upload that brought the content, and ends with the release.
    pub upload: Option<Uuid>,
}

impl ReleaseRequest {
    /// A request to publish, with nothing but what and where.
    pub fn publish(source: Reference, targets: Vec<TargetRequest>) -> Self {
        Self {
            purpose: Purpose::Publish,
            source,
            targets,
            version: None,
            reason: String::new(),
            on_behalf_of: String::new(),
            labels: BTreeMap::new(),
            not_after: None,
            priority: 0,
            idempotency_key: None,
            allow_backward: false,
            on_failure: OnFailure::Restore,
            plan: None,
            break_glass: false,
            selection: Selection::default(),
            upload: None,
        }
    }
}

words! {
    /// What a person says of an interrupted move.
    Settlement {
        /// The tag is at the new digest.
        Moved = "moved",
        /// The tag is where it was.
        NotMoved = "not_moved",
    }
}

/// How far back a tag goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// So many positions, at least 1.
    Steps(u32),
    /// Where it was at this time.
    At(OffsetDateTime),
    /// A digest that it had once.
    To(Digest),
}

/// What goes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RollbackSubject {
    /// One floating tag.
    Tag {
        /// Its repository.
        repository: Repository,
        /// The tag.
        tag: Tag,
        /// How far.
        position: Position,
        /// Where it must be now.
        expected: Option<Expected>,
    },
    /// All floating tags that this release has moved.
    Release(Uuid),
}

/// A rollback as it was asked, parsed and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollbackRequest {
    /// What goes back.
    pub subject: RollbackSubject,
    /// Why; never empty.
    pub reason: String,
    /// On whose behalf the caller says that it acts.
    pub on_behalf_of: String,
    /// Labels for finding the release again.
    pub labels: BTreeMap<String, String>,
    /// The caller's key for sending the same request twice.
    pub idempotency_key: Option<String>,
    /// Tags move in spite of a freeze.
    pub break_glass: bool,
}
