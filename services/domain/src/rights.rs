//! Who is calling and what they may do.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Failure, Reason, Repository, RepositoryPattern};

/// What a caller may do with the repositories of a grant.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// See releases, tags and their history; use a repository as a source.
    Read,
    /// Publish content and unique tags.
    Publish,
    /// Move floating tags.
    MoveFloating,
    /// Cancel releases.
    Cancel,
    /// Move floating tags back: roll back, and publish with `allow_backward`.
    Rollback,
    /// Stop all moves for a time, and let them go on.
    Freeze,
    /// Move tags in spite of a freeze.
    BreakGlass,
    /// Say by hand what became of an interrupted move.
    Settle,
}

impl Action {
    /// The word of the configuration and of refusals.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Publish => "publish",
            Self::MoveFloating => "move_floating",
            Self::Cancel => "cancel",
            Self::Rollback => "rollback",
            Self::Freeze => "freeze",
            Self::BreakGlass => "break_glass",
            Self::Settle => "settle",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Actions on the repositories that a pattern covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The repositories, host included.
    #[schemars(with = "Vec<String>")]
    pub repositories: Vec<RepositoryPattern>,
    /// What may be done with them.
    pub actions: Vec<Action>,
}

/// A caller that has shown who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The token's name; it stands in the ledger.
    pub name: String,
    /// What the caller may do.
    pub grants: Vec<Grant>,
}

impl Principal {
    /// Whether the caller may do this with the repository.
    pub fn may(&self, action: Action, repository: &Repository) -> bool {
        self.grants.iter().any(|grant| {
            grant.actions.contains(&action)
                && grant.repositories.iter().any(|pattern| pattern.covers(repository))
        })
    }

    /// Whether the caller may do this with everything that a pattern covers.
    pub fn may_all(&self, action: Action, pattern: &RepositoryPattern) -> bool {
        self.grants.iter().any(|grant| {
            grant.actions.contains(&action)
                && grant.repositories.iter().any(|granted| granted.includes(pattern))
        })
    }

    /// Refuses by naming the missing action and the repository as the caller gave it; whether
    /// anything exists there is not said.
    pub fn require(&self, action: Action, repository: &Repository) -> Result<(), Failure> {
        if self.may(action, repository) {
            return Ok(());
        }
        Err(Failure::new(
            Reason::PermissionDenied,
            format!("{} lacks the action {action} for {repository}", self.name),
        )
        .remedy(format!("ask the operator to grant {action} on {repository} to {}", self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_counts_only_within_its_own_grant() {
        let grant = |pattern: &str, actions: &[Action]| Grant {
            repositories: vec![pattern.parse().unwrap()],
            actions: actions.to_vec(),
        };
        let caller = Principal {
            name: "ci".into(),
            grants: vec![
                grant("ghcr.io/acme/*", &[Action::Read]),
                grant("ghcr.io/acme/app", &[Action::Publish]),
            ],
        };
        let app = Repository::parse("ghcr.io/acme/app").unwrap();
        let other = Repository::parse("ghcr.io/acme/other").unwrap();
        assert!(caller.may(Action::Publish, &app) && !caller.may(Action::Publish, &other));
        let refusal = caller.require(Action::MoveFloating, &app).unwrap_err();
        assert_eq!(refusal.reason(), Reason::PermissionDenied);
        assert!(refusal.message().contains("move_floating"));
    }
}
