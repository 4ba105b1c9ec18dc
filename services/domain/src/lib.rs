//! What Colophon talks about: references, digests, tags, releases and the rules that
//! decide whether a tag may move. Nothing in here does input or output, reads the time
//! or draws a random number.

mod clock;
mod credential;
mod digest;
mod failure;
mod pattern;
mod reference;
mod release;
mod rights;
mod rules;
mod view;

pub use clock::{Clock, Entropy, SystemClock, SystemEntropy};
pub use credential::{Access, Credential, CredentialSource};
pub use digest::{Algorithm, Digest};
pub use failure::{ErrorKind, Failure, Reason, Result, Retry};
pub use pattern::RepositoryPattern;
pub use reference::{Reference, RegistryHost, Repository, Tag, TagOrDigest};
pub use release::{
    JobKind, Phase, PublicationState, ReleaseRequest, ReleaseState, TagKind, TagMoveState,
    TargetRequest, conclude,
};
pub use rights::{Action, Grant, Principal};
pub use rules::{Decision, HeadState, decide};
pub use view::{
    AttemptView, Certainty, CopyTotals, EntryQuery, EntryView, PublicationView, ReleaseQuery,
    ReleaseView, TagMoveView, TagView, Visibility,
};
