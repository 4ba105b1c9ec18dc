//! What Colophon talks about: references, digests, tags, releases and the rules that
//! decide whether a tag may move. Nothing in here does input or output, reads the time
//! or draws a random number.

mod blob_places;
mod clock;
mod credential;
mod digest;
mod explain;
mod failure;
mod flights;
mod floats;
mod freeze;
mod order;
mod past;
mod pattern;
mod plan;
mod platform;
mod rate_budget;
mod reference;
mod release;
mod request;
mod retention;
mod rights;
mod rules;
mod selection;
mod summary;
mod tag_rules;
mod upload;
mod version;
mod view;

pub use blob_places::BlobPlaces;
pub use clock::{Clock, Entropy, SystemClock, SystemEntropy};
pub use credential::{Access, Credential, CredentialSource};
pub use digest::{Algorithm, Digest};
pub use explain::{explain, explain_move};
pub use failure::{ErrorKind, Failure, Reason, Result, Retry};
pub use flights::{Boarding, Flight, FlightBook, Lease, Trail};
pub use floats::{FloatTemplate, Highest, Line};
pub use freeze::{FreezeRequest, FreezeView, Lifted};
pub use order::{OrderKey, OrderKind};
pub use past::{Step, StepKind, positions};
pub use pattern::RepositoryPattern;
pub use plan::{Obstacle, PlanView, PlannedPublication, PlannedTag};
pub use platform::Platform;
pub use rate_budget::{
    BudgetEvent, HostBudget, LONGEST_PAUSE, LONGEST_WINDOW, Limit, RateBudget, SlotAsk, Slots,
    Urgency, least, spacing,
};
pub use reference::{Reference, RegistryHost, Repository, Tag, TagOrDigest};
pub use release::{
    BlobState, JobKind, Phase, PublicationState, ReleaseState, TagKind, TagMoveState, conclude,
};
pub use request::{
    Expected, IfOlder, OnFailure, Position, Purpose, ReleaseRequest, RollbackRequest,
    RollbackSubject, Settlement, TagRequest, TargetRequest, VersionRequest,
};
pub use retention::{Retention, is_retention_tag, retention_tag};
pub use rights::{Action, Grant, Principal};
pub use rules::{Ask, Decision, HeadState, decide, decide_restore, goes_back, order_after};
pub use selection::{Referrers, Selection};
pub use summary::summary;
pub use tag_rules::{RepositoryRule, RuleConfig, TagRules};
pub use upload::{BlobProgress, BlobWish, NewUpload, UploadView, Wanted};
pub use version::Version;
pub use view::{
    AttemptView, BlobView, Certainty, CopyTotals, EntryQuery, EntryView, PublicationView,
    ReleaseQuery, ReleaseView, RetryView, TagMoveView, TagView, Visibility,
};
