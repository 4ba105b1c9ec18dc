//! The name of a plan: a hash over the moves that it shows, and when it is too old. Whoever holds
//! it can be held to exactly these moves, and nothing about it has to be stored.

use colophon_domain::{Digest, Failure, PlannedTag, Reason, ReleaseRequest, Repository, Result};
use time::{Duration, OffsetDateTime};

use crate::fingerprint::{Texts, moves};

/// How long a plan holds.
pub(crate) const PLAN_HOLDS: Duration = Duration::hours(24);

/// What a plan's id is made of.
pub(crate) struct Planned<'a> {
    pub(crate) request: &'a ReleaseRequest,
    pub(crate) digest: &'a Digest,
    pub(crate) tags: &'a [(&'a Repository, &'a [PlannedTag])],
}

impl Planned<'_> {
    /// `p1-`, the end in seconds since 1970 in hexadecimal, and half of the SHA-256 over both the
    /// end and the moves. What a caller says about a release (reason, labels, priority) is no part
    /// of it, and neither is what must be copied: content has the same digest wherever it is.
    pub(crate) fn id(&self, expires_at: OffsetDateTime) -> String {
        let mut texts = Texts::default();
        let end = expires_at.unix_timestamp();
        texts.add(&end.to_string());
        moves(self.request, &mut texts);
        texts.add(self.digest.as_str());
        for (repository, tags) in self.tags {
            texts.add(&repository.to_string());
            for tag in *tags {
                texts.add(tag.tag.as_str());
                texts.add(tag.kind.as_str());
                texts.add(tag.old.as_ref().map_or("none", Digest::as_str));
                texts.add(tag.new.as_str());
                texts.add(tag.outcome.as_str());
                texts.add(tag.reason.map_or("", Reason::as_str));
            }
        }
        let hash = texts.finish();
        format!("p1-{end:x}-{}", hex::encode(hash.get(..16).unwrap_or_default()))
    }
}

/// When a plan is too old, by its id.
///
/// # Errors
/// `INVALID_ARGUMENT` for what is no plan's id, `PLAN_EXPIRED` for one that is too old.
pub(crate) fn expiry(id: &str, now: OffsetDateTime) -> Result<OffsetDateTime> {
    let parsed = || {
        let (end, hash) = id.strip_prefix("p1-")?.split_once('-')?;
        let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hash.len() != 32 || !hash.bytes().all(plain) || !end.bytes().all(plain) {
            return None;
        }
        OffsetDateTime::from_unix_timestamp(i64::from_str_radix(end, 16).ok()?).ok()
    };
    let Some(end) = parsed() else {
        return Err(Failure::invalid("plan", "this is not the id of a plan")
            .remedy("take it from the answer to PlanRelease, or from colophon plan"));
    };
    // One that ends later than any plan of ours is not one of ours.
    if end > now + PLAN_HOLDS + Duration::hours(1) {
        return Err(Failure::invalid("plan", "this is not the id of a plan that was made here")
            .remedy("take it from the answer to PlanRelease, or from colophon plan"));
    }
    if now >= end {
        return Err(Failure::new(Reason::PlanExpired, format!("the plan {id} is too old"))
            .field("plan")
            .remedy("make a new plan, and look at it"));
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn an_id_says_when_it_is_too_old() {
        let now = datetime!(2026-11-23 12:00 UTC);
        let hash = "0123456789abcdef0123456789abcdef";
        let id = |end: OffsetDateTime| format!("p1-{:x}-{hash}", end.unix_timestamp());
        let end = now + Duration::hours(1);
        assert_eq!(expiry(&id(end), now).unwrap(), end);
        let reason = |id: &str| expiry(id, now).unwrap_err().reason();
        assert_eq!(reason(&id(now)), Reason::PlanExpired);
        assert_eq!(reason(&id(now + Duration::days(9))), Reason::InvalidArgument);
        for wrong in ["", "incomplete", "p1", "p1--", "p2-1-2", "p1-zz-00", &format!("p1--{hash}")]
        {
            assert_eq!(reason(wrong), Reason::InvalidArgument, "{wrong}");
        }
    }
}
