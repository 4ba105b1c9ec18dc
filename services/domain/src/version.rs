//! Versions (SemVer 2.0.0) and the tags that they are published under.

use std::{cmp::Ordering, fmt, str::FromStr};

use crate::{Failure, Tag, digest::shown};

/// A version has at most this many characters, so that its tag is always a tag (128 characters).
const VERSION_LIMIT: usize = 100;

/// A version by SemVer 2.0.0, and whether it was written with a leading `v`.
///
/// `==` compares what was written; which of two versions is newer says [`Version::precedence`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    semver: semver::Version,
    v: bool,
    tag: Tag,
}

impl Version {
    /// Reads a version from a request: `1.4.2`, `v1.4.2-rc.1`, `1.4.2+build.5`. The failure's
    /// field is `semver`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let refuse = |what: String| {
            Failure::invalid("semver", format!("{:?} is not a version: {what}", shown(text)))
                .remedy(
                    "write MAJOR.MINOR.PATCH without leading zeros, if need be with a pre-release \
                     or build metadata and with a small v before it, for example 1.4.2 or \
                     v1.4.2-rc.1 (SemVer 2.0.0, sections 2, 9 and 10)",
                )
        };
        if text.len() > VERSION_LIMIT {
            return Err(refuse(format!("it has more than {VERSION_LIMIT} characters")));
        }
        let (v, number) = match text.strip_prefix('v') {
            Some(number) => (true, number),
            None => (false, text),
        };
        let semver = semver::Version::parse(number).map_err(|error| refuse(error.to_string()))?;
        let tag = text.replace('+', "_").parse()?;
        Ok(Self { semver, v, tag })
    }

    /// Reads a registry's tag; `None` if it is no version. `+` cannot stand in a tag, so `_`
    /// stands for it: `v1.4.2_build.5`.
    pub fn from_tag(tag: &str) -> Option<Self> {
        // SemVer knows no underscore: the first can only be the plus, and a second is refused.
        if tag.contains('+') { None } else { Self::parse(&tag.replacen('_', "+", 1)).ok() }
    }

    /// The unique tag of the version: as it was written, with `_` for `+`.
    pub fn tag(&self) -> Tag {
        self.tag.clone()
    }

    /// Whether it has neither a pre-release nor build metadata.
    pub fn is_plain(&self) -> bool {
        self.semver.pre.is_empty() && self.semver.build.is_empty()
    }

    /// Which of the two is newer (SemVer 2.0.0, section 11). Build metadata and the leading `v`
    /// do not count, so two that are written differently can be equal here.
    pub fn precedence(&self, other: &Self) -> Ordering {
        self.semver.cmp_precedence(&other.semver)
    }

    /// The first number.
    pub fn major(&self) -> u64 {
        self.semver.major
    }

    /// The second number.
    pub fn minor(&self) -> u64 {
        self.semver.minor
    }

    /// Whether it was written with a leading `v`.
    pub fn has_v(&self) -> bool {
        self.v
    }

    /// Precedence, made total: where it says equal, metadata and `v` decide somehow, so that a
    /// choice between the two does not depend on the order in which they were seen.
    pub(crate) fn above(&self, other: &Self) -> bool {
        self.semver.cmp(&other.semver).then(self.v.cmp(&other.v)).is_gt()
    }
}

impl FromStr for Version {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        Self::parse(text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.v { "v" } else { "" })?;
        self.semver.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn a_version_is_written_back_and_has_a_tag() {
        for (text, tag, plain) in [
            ("1.4.2", "1.4.2", true),
            ("v1.4.2", "v1.4.2", true),
            ("1.4.2-rc.1", "1.4.2-rc.1", false),
            ("v1.4.2-rc.1+build.5", "v1.4.2-rc.1_build.5", false),
            ("1.4.2+build.5", "1.4.2_build.5", false),
        ] {
            let version = version(text);
            assert_eq!((version.to_string(), version.is_plain()), (text.to_owned(), plain));
            assert_eq!(version.tag().as_str(), tag);
            assert_eq!(Version::from_tag(tag), Some(version));
        }
        for tag in ["1.4.2+build.5", "1.4.2_a_b", "_1.4.2", "latest", "1.4", "", "1.4.2_"] {
            assert_eq!(Version::from_tag(tag), None, "{tag}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused_by_naming_what_is_wrong() {
        let long = format!("1.4.2-{}", "a".repeat(95));
        for (text, what) in [
            ("", "empty"),
            ("1.4", "minor"),
            ("v1", "major"),
            ("V1.4.2", "'V'"),
            ("vv1.4.2", "'v'"),
            (" 1.4.2", "' '"),
            ("1.04.2", "leading zero"),
            ("1.4.2-01", "leading zero"),
            ("1.4.2-", "pre-release"),
            ("1.4.18446744073709551616", "exceeds"),
            (&long, "100 characters"),
        ] {
            let failure = Version::parse(text).unwrap_err();
            assert_eq!(failure.field_name(), Some("semver"));
            assert!(failure.message().contains(what), "{failure}");
            assert!(failure.remedy_text().is_some_and(|remedy| remedy.contains("SemVer 2.0.0")));
        }
    }

    #[test]
    fn precedence_is_that_of_the_specification() {
        // The examples of SemVer 2.0.0, section 11.
        let order = "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 \
                     1.0.0-beta.11 v1.0.0-rc.1 1.0.0 2.0.0 v2.1.0 2.1.1";
        let order: Vec<Version> = order.split_whitespace().map(version).collect();
        for pair in order.windows(2) {
            assert_eq!(pair[0].precedence(&pair[1]), Ordering::Less, "{pair:?}");
        }
        let (one, other) = (version("v1.4.2+a"), version("1.4.2"));
        assert_eq!(one.precedence(&other), Ordering::Equal);
        assert_ne!(one, other);
    }

    proptest! {
        #[test]
        fn no_input_panics_and_what_parses_reads_back(text in "\\PC{0,130}|v?[0-9.+a-z_-]{0,20}") {
            if let Ok(version) = Version::parse(&text) {
                prop_assert_eq!(version.to_string(), text.clone());
                prop_assert_eq!(Version::from_tag(version.tag().as_str()), Some(version));
            }
            if let Some(version) = Version::from_tag(&text) {
                prop_assert_eq!(version.tag().to_string(), text);
            }
        }
    }
}
