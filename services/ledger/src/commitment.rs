//! Salted commitments: the entry says that an actor and a reason were recorded without showing
//! them, so that they can be shown later, or erased for good, and the proofs stay valid.

use std::{fmt, str::FromStr};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::hash::{InvalidHash, bytes_from_hex};

/// Stands before what is committed, so that an actor can never be opened as a reason.
const ACTOR_DOMAIN: &[u8] = b"colophon/ledger/v1/actor\0";
const REASON_DOMAIN: &[u8] = b"colophon/ledger/v1/reason\0";

/// How it is known that the caller may speak for somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// The caller says so.
    Claimed,
    /// A token of that other party was verified.
    Proven,
}

impl Proof {
    /// The word that is committed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Proven => "proven",
        }
    }

    /// Reads the word back.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "claimed" => Some(Self::Claimed),
            "proven" => Some(Self::Proven),
            _ => None,
        }
    }
}

/// Who asked for what an entry records.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// The name of the authenticated caller.
    pub principal: String,
    /// On whose behalf the caller acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// Whether `on_behalf_of` was proven or only claimed; `Claimed` where there is none.
    pub proof: Proof,
}

#[derive(Serialize)]
struct CommittedReason<'a> {
    reason: &'a str,
}

/// HMAC-SHA256, keyed by the entry's own 32 random bytes, over a domain and the canonical JSON
/// (RFC 8785) of what is committed. It hides as long as the salt is secret and binds for ever.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Commitment([u8; 32]);

impl Commitment {
    /// Commits to an actor.
    pub fn actor(salt: &[u8; 32], actor: &Actor) -> Self {
        Self::of(salt, ACTOR_DOMAIN, actor)
    }

    /// Commits to a reason, exactly as the caller gave it: no trimming, no normalisation.
    pub fn reason(salt: &[u8; 32], reason: &str) -> Self {
        Self::of(salt, REASON_DOMAIN, &CommittedReason { reason })
    }

    fn of(salt: &[u8; 32], domain: &[u8], value: &impl Serialize) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(salt).expect("32 bytes are a key");
        #[expect(clippy::expect_used, reason = "an object of strings always serialises")]
        let canonical = serde_json_canonicalizer::to_vec(value).expect("strings are JSON");
        mac.update(domain);
        mac.update(&canonical);
        Self(mac.finalize().into_bytes().into())
    }

    /// Whether this is the commitment to this actor under this salt.
    pub fn verify_actor(&self, salt: &[u8; 32], actor: &Actor) -> bool {
        Self::actor(salt, actor) == *self
    }

    /// Whether this is the commitment to this reason under this salt.
    pub fn verify_reason(&self, salt: &[u8; 32], reason: &str) -> bool {
        Self::reason(salt, reason) == *self
    }

    /// A commitment that was stored as 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Commitment {
    type Err = InvalidHash;

    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        bytes_from_hex(text).map(Self)
    }
}

impl fmt::Display for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What opens the two commitments of one entry. It is kept apart from the entry, where it can
/// be erased; it has no derived `Debug`, so that it is not copied into a log by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Opening {
    /// 32 random bytes of this entry's own.
    pub salt: [u8; 32],
    /// Who asked.
    pub actor: Actor,
    /// Why, in the caller's words; empty if none were given.
    pub reason: String,
}

impl Opening {
    /// The commitment to the actor.
    pub fn commit_actor(&self) -> Commitment {
        Commitment::actor(&self.salt, &self.actor)
    }

    /// The commitment to the reason.
    pub fn commit_reason(&self) -> Commitment {
        Commitment::reason(&self.salt, &self.reason)
    }

    /// Whether this opening belongs to an entry with these commitments. A commitment that the
    /// entry does not have is not checked.
    pub fn opens(&self, actor: Option<Commitment>, reason: Option<Commitment>) -> bool {
        actor.is_none_or(|actor| actor == self.commit_actor())
            && reason.is_none_or(|reason| reason == self.commit_reason())
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening() -> Opening {
        Opening {
            salt: [7; 32],
            actor: Actor {
                principal: "ci".into(),
                on_behalf_of: Some("ada".into()),
                proof: Proof::Claimed,
            },
            reason: "release 1.2.3".into(),
        }
    }

    #[test]
    fn an_opening_opens_its_own_commitments_only() {
        let own = opening();
        let (actor, reason) = (own.commit_actor(), own.commit_reason());
        assert!(own.opens(Some(actor), Some(reason)) && own.opens(None, None));
        let changes: [fn(&mut Opening); 5] = [
            |it| it.salt[31] ^= 1,
            |it| it.actor.principal.push('2'),
            |it| it.actor.on_behalf_of = None,
            |it| it.actor.proof = Proof::Proven,
            |it| it.reason.push(' '),
        ];
        for change in changes {
            let mut other = opening();
            change(&mut other);
            assert!(!other.opens(Some(actor), Some(reason)));
        }
        assert!(actor.verify_actor(&own.salt, &own.actor));
        assert!(reason.verify_reason(&own.salt, &own.reason));
        assert!(!reason.verify_reason(&own.salt, ""));
    }

    #[test]
    fn the_two_commitments_live_in_separate_domains() {
        // The same JSON under both domains.
        let same = CommittedReason { reason: "x" };
        let salt = [0; 32];
        assert_ne!(
            Commitment::of(&salt, ACTOR_DOMAIN, &same),
            Commitment::of(&salt, REASON_DOMAIN, &same)
        );
    }

    #[test]
    fn debug_shows_nobody() {
        assert_eq!(format!("{:?}", opening()), "Opening { .. }");
    }
}
