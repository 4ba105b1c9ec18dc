//! Patterns over repositories, for rights and credentials.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Failure, RegistryHost, Repository, digest::shown};

/// A pattern over `host/name`: either a repository, or a prefix that ends in `/*` and covers
/// everything below it at any depth, or `*` alone for everything.
///
/// Within one registry's configuration the pattern is over the name only (`team-a/*`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryPattern(String);

impl RepositoryPattern {
    /// Whether the pattern covers this repository, host included.
    pub fn covers(&self, repository: &Repository) -> bool {
        self.covers_text(&repository.to_string())
    }

    /// Whether the pattern covers this name within a registry.
    pub fn covers_name(&self, name: &str) -> bool {
        self.covers_text(name)
    }

    fn covers_text(&self, text: &str) -> bool {
        match self.0.strip_suffix('*') {
            // The slash stays in the prefix, so that `team-a/*` does not cover `team-ab/x`.
            Some(prefix) => text.len() > prefix.len() && text.starts_with(prefix),
            None => text == self.0,
        }
    }

    /// Whether whatever the other pattern covers is covered by this one.
    pub fn includes(&self, other: &Self) -> bool {
        match (self.0.strip_suffix('*'), other.0.strip_suffix('*')) {
            (Some(prefix), Some(narrower)) => narrower.starts_with(prefix),
            (Some(_), None) => self.covers_text(&other.0),
            (None, Some(_)) => false,
            (None, None) => self == other,
        }
    }

    /// The registry of everything that the pattern covers; `None` for `*`, and where it does not
    /// begin with the host of one.
    pub fn registry(&self) -> Option<RegistryHost> {
        self.0.split_once('/')?.0.parse().ok()
    }

    /// How specific the pattern is: of several that cover a repository the greatest holds.
    pub fn specificity(&self) -> usize {
        if self.0.ends_with('*') { self.0.len() - 1 } else { usize::MAX }
    }
}

impl FromStr for RepositoryPattern {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let body = text.strip_suffix('*').unwrap_or(text);
        let whole_parts = text == "*" || !text.ends_with('*') || body.ends_with('/');
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/:".contains(c);
        if !text.is_empty() && whole_parts && body.chars().all(known) {
            return Ok(Self(text.to_owned()));
        }
        Err(Failure::invalid("pattern", format!("{:?} is not a repository pattern", shown(text)))
            .remedy("give a repository, a prefix that ends in /*, or * alone"))
    }
}

impl TryFrom<String> for RepositoryPattern {
    type Error = Failure;

    fn try_from(text: String) -> Result<Self, Failure> {
        text.parse()
    }
}

impl From<RepositoryPattern> for String {
    fn from(pattern: RepositoryPattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_a_slash() {
        let pattern: RepositoryPattern = "ghcr.io/team-a/*".parse().unwrap();
        let covers = |text| pattern.covers(&Repository::parse(text).unwrap());
        assert!(covers("ghcr.io/team-a/app") && covers("ghcr.io/team-a/app/deep"));
        assert!(!covers("ghcr.io/team-ab/app") && !covers("ghcr.io/team-a2/app"));
        for text in ["", "ghcr.io/team*", "a*b", "UPPER/x", "*/x"] {
            assert!(text.parse::<RepositoryPattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_pattern_includes_what_is_narrower() {
        let parse = |text: &str| text.parse::<RepositoryPattern>().unwrap();
        let includes = |wide: &str, narrow: &str| parse(wide).includes(&parse(narrow));
        assert!(includes("*", "*") && includes("*", "a.io/b/*") && includes("*", "a.io/b"));
        assert!(includes("a.io/*", "a.io/b/*") && includes("a.io/b/*", "a.io/b/c"));
        assert!(includes("a.io/b", "a.io/b"));
        assert!(!includes("a.io/*", "*") && !includes("a.io/b/*", "a.io/*"));
        assert!(!includes("a.io/b/*", "a.io/bc/*") && !includes("a.io/b", "a.io/b/*"));
    }

    #[test]
    fn the_more_specific_pattern_is_greater() {
        let parse = |text: &str| text.parse::<RepositoryPattern>().unwrap().specificity();
        assert!(parse("a/b") > parse("a/*") && parse("a/*") > parse("*"));
    }
}
