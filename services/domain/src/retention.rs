//! Old digests that a floating tag has left and that stay under a tag of their own, so that the
//! registry does not remove them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{Digest, Failure, Tag};

/// What tags begin with under which old digests are kept. They are ours, and always unique.
pub(crate) const KEPT: &str = "colophon-kept-";

/// How many digests of a floating tag can be kept.
const KEEP_LIMIT: u32 = 1000;

/// The longest `max_age`, 100 years of 365.25 days, so that a time minus it is still a time.
const AGE_LIMIT: Duration = Duration::from_hours(876_600);

/// Which digests that a floating tag has left stay under a tag of their own, so that the registry
/// does not remove them and one can go back to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// So many, the newest, for each floating tag; 1 to 1,000.
    pub keep: u32,
    /// And none that the tag left longer ago than this, written like `30d`.
    #[serde(default, with = "humantime_serde::option")]
    #[schemars(with = "Option<String>")]
    pub max_age: Option<Duration>,
}

impl Retention {
    /// Refuses numbers and times out of bounds; the failure's field is the name in the table.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if !(1..=KEEP_LIMIT).contains(&self.keep) {
            let message = format!("keep is {}, and must be 1 to {KEEP_LIMIT}", self.keep);
            return Err(Failure::invalid("keep", message)
                .remedy("leave the table retention out to keep nothing"));
        }
        if self.max_age.is_some_and(|age| age.is_zero() || age > AGE_LIMIT) {
            return Err(Failure::invalid(
                "max_age",
                "max_age must be more than 0 and at most 100 years",
            )
            .remedy("write it like 30d, or leave it out to keep by number only"));
        }
        Ok(())
    }
}

/// The tag under which a digest is kept: `colophon-kept-sha256-<hex>`. Of a SHA-512 digest it has
/// the first 64 characters, since a tag is too short for 128; 256 bits tell any two apart.
pub fn retention_tag(digest: &Digest) -> Tag {
    let text = format!("{KEPT}{}-{:.64}", digest.algorithm().as_str(), digest.hex());
    always_tag(&text)
}

#[expect(clippy::expect_used, reason = "words and hexadecimal digits, 85 characters: a tag")]
fn always_tag(text: &str) -> Tag {
    text.parse().expect("words and hexadecimal digits make a tag")
}

/// Whether the tag is one of those under which Colophon keeps digests.
pub fn is_retention_tag(tag: &Tag) -> bool {
    tag.as_str().starts_with(KEPT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Algorithm;

    #[test]
    fn kept_digests_have_a_unique_tag_each() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let kept = retention_tag(&Digest::of(algorithm, b"x"));
            assert!(kept.as_str().starts_with(&format!("colophon-kept-{}-", algorithm.as_str())));
            assert!(is_retention_tag(&kept));
            assert_ne!(kept, retention_tag(&Digest::of(algorithm, b"y")));
        }
        let digest = Digest::sha256(b"x");
        assert_eq!(
            retention_tag(&digest).as_str(),
            format!("colophon-kept-sha256-{}", digest.hex())
        );
        assert!(!is_retention_tag(&"colophon".parse().unwrap()));
    }

    #[test]
    fn bounds_are_part_of_what_is_allowed() {
        let check = |keep, hours: Option<u64>| {
            let max_age = hours.map(Duration::from_hours);
            let checked = Retention { keep, max_age }.check();
            checked.err().and_then(|failure| failure.field_name().map(str::to_owned))
        };
        assert_eq!(check(1, None), None);
        assert_eq!(check(1000, Some(876_600)), None);
        assert_eq!(check(0, None).as_deref(), Some("keep"));
        assert_eq!(check(1001, None).as_deref(), Some("keep"));
        assert_eq!(check(1, Some(0)).as_deref(), Some("max_age"));
        assert_eq!(check(1, Some(876_601)).as_deref(), Some("max_age"));
    }
}
