//! Platforms of images: which a caller wants, and which an index or a configuration names.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::{Failure, digest::shown};

/// Platforms that one release may name.
const MOST: usize = 32;

/// A platform as an index names it (OCI image-spec, "Image Index": `os`, `architecture`,
/// `variant`), written `linux/amd64` or `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// What an index or a configuration says of itself. `None` if that names no platform, as the
    /// attestations of buildkit (`unknown/unknown`) do not.
    pub fn of(os: &str, architecture: &str, variant: Option<&str>) -> Option<Self> {
        let known = |word: &&str| is_word(word) && *word != "unknown";
        let (os, architecture) = (Some(os).filter(known)?, Some(architecture).filter(known)?);
        // Every 64-bit ARM is a v8, so that most do not say it.
        let said = variant.filter(|word| !(*word == "v8" && architecture == "arm64"));
        let variant = said.filter(|word| is_word(word)).map(str::to_owned);
        Some(Self { os: os.to_owned(), architecture: architecture.to_owned(), variant })
    }

    /// Whether what is here is what was asked for: one that names no variant takes them all.
    pub fn takes(&self, here: &Self) -> bool {
        self.os == here.os
            && self.architecture == here.architecture
            && (self.variant.is_none() || self.variant == here.variant)
    }

    /// Checks a list of them; the same one twice is once.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for what is no platform, and for too many of them.
    pub fn parse_all(texts: &[String]) -> Result<Vec<Self>, Failure> {
        if texts.len() > MOST {
            let text = format!("{} platforms; at most {MOST}", texts.len());
            return Err(Failure::invalid("platforms", text).remedy("leave platforms out for all"));
        }
        let parsed: BTreeSet<Self> =
            texts.iter().map(|text| text.parse()).collect::<Result<_, Failure>>()?;
        Ok(parsed.into_iter().collect())
    }
}

fn is_word(word: &str) -> bool {
    !word.is_empty()
        && word.len() <= 64
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

impl FromStr for Platform {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let lower = text.to_ascii_lowercase();
        let parsed = match lower.split('/').collect::<Vec<_>>().as_slice() {
            [os, architecture] => Self::of(os, architecture, None),
            [os, architecture, variant] if is_word(variant) => {
                Self::of(os, architecture, Some(variant))
            }
            _ => None,
        };
        parsed.ok_or_else(|| {
            Failure::invalid("platforms", format!("{:?} is no platform", shown(text)))
                .remedy("the form is os/architecture[/variant], for example linux/arm64")
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn platforms_are_read_as_docker_writes_them() {
        for text in ["linux/amd64", "linux/arm/v7", "windows/amd64"] {
            assert_eq!(platform(text).to_string(), text);
        }
        assert_eq!(platform("Linux/ARM64/v8"), platform("linux/arm64"));
        for wrong in ["", "linux", "linux/", "/amd64", "linux/a b", "linux/arm/v7/x", "linux/arm/"]
        {
            let failure = wrong.parse::<Platform>().unwrap_err();
            assert_eq!(failure.field_name(), Some("platforms"), "{wrong}");
            assert!(failure.remedy_text().is_some());
        }
        assert!("unknown/unknown".parse::<Platform>().is_err());
    }

    #[test]
    fn one_without_a_variant_takes_all_variants() {
        let here = |variant| Platform::of("linux", "arm", variant).unwrap();
        assert!(platform("linux/arm").takes(&here(Some("v7"))));
        assert!(platform("linux/arm").takes(&here(None)));
        assert!(platform("linux/arm/v7").takes(&here(Some("v7"))));
        assert!(!platform("linux/arm/v7").takes(&here(Some("v6"))));
        assert!(!platform("linux/arm/v7").takes(&here(None)));
        assert!(!platform("linux/amd64").takes(&here(None)));
        assert_eq!(Platform::of("unknown", "unknown", None), None);
    }

    #[test]
    fn the_same_platform_twice_is_once() {
        let texts = ["linux/arm64", "linux/amd64", "linux/arm64/v8"].map(str::to_owned);
        let parsed = Platform::parse_all(&texts).unwrap();
        assert_eq!(parsed, [platform("linux/amd64"), platform("linux/arm64")]);
        let many: Vec<_> = (0..33).map(|number| format!("linux/a{number}")).collect();
        assert!(Platform::parse_all(&many).is_err());
    }
}
