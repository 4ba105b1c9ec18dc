//! A freeze: a time in which no tag of the repositories that it covers is moved.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::RepositoryPattern;

/// A freeze as it was asked, parsed and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreezeRequest {
    /// What is stopped.
    pub pattern: RepositoryPattern,
    /// Why; never empty.
    pub reason: String,
    /// Until when.
    pub ends_at: OffsetDateTime,
}

/// The end of a freeze before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifted {
    /// When.
    pub at: OffsetDateTime,
    /// By whom.
    pub by: String,
    /// Why; may be empty.
    pub reason: String,
}

/// A freeze and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreezeView {
    /// The id.
    pub id: Uuid,
    /// What is stopped.
    pub pattern: RepositoryPattern,
    /// Why.
    pub reason: String,
    /// Who asked.
    pub actor: String,
    /// Since when.
    pub created_at: OffsetDateTime,
    /// Until when, unless it is lifted before.
    pub ends_at: OffsetDateTime,
    /// What ended it before its time.
    pub lifted: Option<Lifted>,
    /// Whether it holds now.
    pub active: bool,
}
