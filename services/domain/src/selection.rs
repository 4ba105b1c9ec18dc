//! What of an image goes along: which platforms of an index, which referrers, cosign's tags, and
//! layers that are found elsewhere.

use std::collections::BTreeSet;

use crate::{Failure, Platform, digest::shown};

/// Types of referrers that one release may name.
const MOST: usize = 32;

/// What goes along with an image. The default is all that makes it verify as before: every
/// platform, every referrer and cosign's tags, but no layers that may not be distributed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Only these platforms of an index; all if there are none.
    pub platforms: Vec<Platform>,
    /// Manifests that refer to the image, for example signatures and SBOMs.
    pub referrers: Referrers,
    /// Tags that cosign derives from digests (`sha256-<hex>.sig`, `.att`, `.sbom`).
    pub cosign: bool,
    /// Foreign layers (`urls`), which are left out otherwise.
    pub foreign: bool,
}

impl Default for Selection {
    fn default() -> Self {
        Self { platforms: Vec::new(), referrers: Referrers::All, cosign: true, foreign: false }
    }
}

impl Selection {
    /// The image, and nothing that goes along with it.
    pub fn bare() -> Self {
        Self { referrers: Referrers::None, cosign: false, ..Self::default() }
    }
}

/// Which manifests that refer to an image go along with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Referrers {
    /// All of them, and what refers to them.
    All,
    /// None.
    None,
    /// Those of one of these artifact types.
    Types(BTreeSet<String>),
}

impl Referrers {
    /// Whether an artifact of this type goes along.
    pub fn takes(&self, artifact_type: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Types(types) => types.contains(artifact_type),
        }
    }

    /// The words of a request: `all`, `none`, or the types.
    pub fn words(&self) -> Vec<String> {
        match self {
            Self::All => vec!["all".to_owned()],
            Self::None => vec!["none".to_owned()],
            Self::Types(types) => types.iter().cloned().collect(),
        }
    }

    /// Reads the words back; none at all mean all referrers.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for what is no media type (RFC 6838, section 4.2), for `all` or `none`
    /// beside something else, and for too many types.
    pub fn parse(words: &[String]) -> Result<Self, Failure> {
        let refused = |text: String| {
            Failure::invalid("referrers", text)
                .remedy("give all, none, or artifact types, for example application/spdx+json")
        };
        match words {
            [] => return Ok(Self::All),
            [word] if word == "all" => return Ok(Self::All),
            [word] if word == "none" => return Ok(Self::None),
            _ => {}
        }
        if words.len() > MOST {
            return Err(refused(format!("{} artifact types; at most {MOST}", words.len())));
        }
        for word in words {
            if word == "all" || word == "none" {
                return Err(refused(format!("{word} stands alone, or not at all")));
            }
            if !is_media_type(word) {
                return Err(refused(format!("{:?} is no media type", shown(word))));
            }
        }
        Ok(Self::Types(words.iter().map(|word| word.to_ascii_lowercase()).collect()))
    }
}

fn is_media_type(text: &str) -> bool {
    let name = |part: &str| {
        let mut bytes = part.bytes();
        part.len() <= 127
            && bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    text.split_once('/').is_some_and(|(kind, rest)| name(kind) && name(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn referrers_are_all_or_none_or_types() {
        let words =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let parse = |given: &[&str]| Referrers::parse(&words(given));
        assert_eq!(parse(&[]).unwrap(), Referrers::All);
        assert_eq!(parse(&["all"]).unwrap(), Referrers::All);
        assert_eq!(parse(&["none"]).unwrap(), Referrers::None);
        let types = parse(&["application/spdx+json", "application/vnd.x.y"]).unwrap();
        assert!(types.takes("application/spdx+json") && !types.takes("application/json"));
        assert_eq!(Referrers::parse(&types.words()).unwrap(), types);
        for wrong in [&["sbom"][..], &["all", "none"], &["all", "a/b"], &["a/b c"], &[""], &["a/"]]
        {
            assert_eq!(parse(wrong).unwrap_err().field_name(), Some("referrers"), "{wrong:?}");
        }
    }
}
