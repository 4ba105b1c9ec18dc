//! Who may call: a list of names, hashes of tokens and grants, read from the configuration and
//! checked once. Looking a token up takes the same time whether it is known or not.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use colophon_domain::{Failure, Grant, Principal, Reason, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use toml::value::Datetime;

use crate::token::token_hash;

/// A caller's name may have this many bytes; it stands in the ledger.
const NAME_LIMIT: usize = 100;

/// One `[[caller]]` table.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallerConfig {
    /// The caller's name: it stands in releases and in the ledger.
    pub name: String,
    /// SHA-256 of the token, 64 hexadecimal digits.
    pub token_sha256: String,
    /// The token is no longer accepted from this time on: RFC 3339, with an offset from UTC, as
    /// a text or as a date-time of TOML.
    #[serde(default, deserialize_with = "time_as_text")]
    #[schemars(with = "Option<String>")]
    pub expires_at: Option<String>,
    /// What the caller may do.
    pub grants: Vec<Grant>,
}

/// A time as its text; it is checked with the rest of the entry, so that the refusal names it.
fn time_as_text<'de, D>(deserializer: D) -> Result<Option<String>, D::Error>
where
    D: Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a time of RFC 3339, as a text or a date-time")]
    enum Time {
        Text(String),
        Native(Datetime),
    }
    Ok(Some(match Time::deserialize(deserializer)? {
        Time::Text(text) => text,
        Time::Native(time) => time.to_string(),
    }))
}

/// The callers, checked and ready to be looked up. Cloning is cheap, and every clone sees the same
/// ones.
#[derive(Clone)]
pub struct Callers(Arc<RwLock<Arc<[Caller]>>>);

struct Caller {
    token_sha256: [u8; 32],
    expires_at: Option<OffsetDateTime>,
    principal: Arc<Principal>,
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all().iter().map(|caller| &caller.principal.name)).finish()
    }
}

impl Callers {
    /// Checks the callers of the configuration.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with the field, for example `caller[1].token_sha256`: what is not of
    /// its form, and a name or a token that two callers have.
    pub fn new(entries: Vec<CallerConfig>) -> Result<Self> {
        let (mut names, mut hashes) = (BTreeSet::new(), BTreeSet::new());
        let mut callers = Vec::with_capacity(entries.len());
        for (index, entry) in entries.into_iter().enumerate() {
            let caller =
                checked(entry).map_err(|failure| failure.within(&format!("caller[{index}]")))?;
            let name = caller.principal.name.clone();
            if !hashes.insert(caller.token_sha256) {
                return Err(Failure::invalid(
                    format!("caller[{index}].token_sha256"),
                    format!("{name} has the token of another caller"),
                )
                .remedy("give every caller a token of its own"));
            }
            if !names.insert(name.clone()) {
                return Err(Failure::invalid(
                    format!("caller[{index}].name"),
                    format!("there is a caller {name} already"),
                )
                .remedy("two tokens for one team are two names, for example ci-2025 and ci-2026"));
            }
            callers.push(caller);
        }
        Ok(Self(Arc::new(RwLock::new(callers.into()))))
    }

    /// Puts other callers into the place of these, in every clone. A call that was let in goes on.
    pub fn replace(&self, others: &Self) {
        let others = others.all();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = others;
    }

    fn all(&self) -> Arc<[Caller]> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finds the caller that holds this token. The refusal never says whether the token was
    /// unknown or has expired.
    pub(crate) fn find(&self, token: &str, now: OffsetDateTime) -> Option<Arc<Principal>> {
        let presented = token_hash(token);
        // Every entry is compared, and in constant time, so that the time taken says nothing
        // about how much of which hash was right.
        let callers = self.all();
        let (mut found, mut position) = (Choice::from(0), 0_u64);
        for (index, caller) in (0_u64..).zip(callers.iter()) {
            let equal = presented.ct_eq(&caller.token_sha256);
            position.conditional_assign(&index, equal);
            found |= equal;
        }
        let caller = callers.get(usize::try_from(position).ok()?)?;
        let valid = bool::from(found) && caller.expires_at.is_none_or(|end| now < end);
        valid.then(|| caller.principal.clone())
    }
}

fn checked(entry: CallerConfig) -> Result<Caller> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    if entry.name.is_empty() || entry.name.len() > NAME_LIMIT || !entry.name.bytes().all(plain) {
        return Err(Failure::invalid("name", "the name is not of its form")
            .remedy("a name has 1 to 100 letters, digits, '.', '_', '-', '/', ':' or '@'"));
    }
    let name = entry.name;
    // The value is not repeated in the refusal: it may be the token itself, put there by mistake.
    let mut token_sha256 = [0_u8; 32];
    hex::decode_to_slice(&entry.token_sha256, &mut token_sha256).map_err(|_| {
        Failure::invalid("token_sha256", format!("{name}: not 64 hexadecimal digits"))
            .remedy("give the SHA-256 of the token, never the token itself")
    })?;
    let expires_at =
        entry.expires_at.map(|text| OffsetDateTime::parse(&text, &Rfc3339)).transpose().map_err(
            |_| {
                Failure::invalid("expires_at", format!("{name}: not a time of RFC 3339"))
                    .remedy("give it with its offset from UTC, for example 2027-01-31T00:00:00Z")
            },
        )?;
    for (index, grant) in entry.grants.iter().enumerate() {
        let empty = match (grant.repositories.is_empty(), grant.actions.is_empty()) {
            (true, _) => "repositories",
            (_, true) => "actions",
            _ => continue,
        };
        return Err(Failure::new(
            Reason::InvalidArgument,
            format!("{name}: a grant without {empty} grants nothing"),
        )
        .field(format!("grants[{index}].{empty}"))
        .remedy("fill it in or remove the grant"));
    }
    Ok(Caller {
        token_sha256,
        expires_at,
        principal: Arc::new(Principal { name, grants: entry.grants }),
    })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn hash(token: &str) -> String {
        hex::encode(token_hash(token))
    }

    fn entry(name: &str, token: &str, more: &str) -> String {
        format!("[[caller]]\nname = \"{name}\"\ntoken_sha256 = \"{}\"\n{more}\n", hash(token))
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[serde(default)]
        caller: Vec<CallerConfig>,
    }

    fn read(text: &str) -> Result<Callers> {
        Callers::new(toml::from_str::<File>(text).unwrap().caller)
    }

    const GRANTS: &str = r#"grants = [{ repositories = ["*"], actions = ["read", "publish"] }]"#;

    #[test]
    fn a_token_finds_its_caller_until_it_expires() {
        let text = entry("ci", "one", GRANTS)
            + &entry("bot", "two", &format!("expires_at = \"2026-11-04T00:00:00Z\"\n{GRANTS}"));
        let callers = read(&text).unwrap();
        let before = datetime!(2026-11-03 23:59:59 UTC);
        let name = |token, now| callers.find(token, now).map(|principal| principal.name.clone());
        assert_eq!(name("one", before).as_deref(), Some("ci"));
        assert_eq!(name("two", before).as_deref(), Some("bot"));
        assert_eq!(name("two", datetime!(2026-11-04 0:00 UTC)), None);
        assert_eq!(name("three", before), None);
        assert_eq!(name("", before), None);
        assert!(read("").unwrap().find("one", before).is_none());
    }

    #[test]
    fn a_time_may_stand_with_or_without_quotes() {
        let (before, end) = (datetime!(2026-11-03 23:59:59 UTC), datetime!(2026-11-04 0:00 UTC));
        for time in [
            "\"2026-11-04T00:00:00Z\"",
            "2026-11-04T00:00:00Z",
            "2026-11-04 00:00:00Z",
            "2026-11-04T02:00:00.000+02:00",
        ] {
            let callers = read(&entry("ci", "one", &format!("expires_at = {time}\n{GRANTS}")));
            let callers = callers.unwrap();
            assert!(callers.find("one", before).is_some(), "{time}");
            assert!(callers.find("one", end).is_none(), "{time}");
        }
        // Nobody can tell when that is.
        for time in ["2026-11-04T00:00:00", "2026-11-04", "00:00:00"] {
            let failure = read(&entry("ci", "one", &format!("expires_at = {time}\n{GRANTS}")));
            assert_eq!(failure.unwrap_err().field_name(), Some("caller[0].expires_at"), "{time}");
        }
        let number = entry("ci", "one", &format!("expires_at = 1793750400\n{GRANTS}"));
        let error = toml::from_str::<File>(&number).err().unwrap().to_string();
        assert!(error.contains("RFC 3339"), "{error}");
    }

    #[test]
    fn mistakes_are_named_and_secrets_are_not_repeated() {
        let cases = [
            (entry("ci", "a", GRANTS) + &entry("ci", "b", GRANTS), "caller[1].name"),
            (entry("ci", "a", GRANTS) + &entry("cd", "a", GRANTS), "caller[1].token_sha256"),
            (entry("a b", "a", GRANTS), "caller[0].name"),
            (entry("", "a", GRANTS), "caller[0].name"),
            (entry("ci", "a", &format!("expires_at = \"soon\"\n{GRANTS}")), "caller[0].expires_at"),
            (
                entry("ci", "a", "grants = [{ repositories = [], actions = [\"read\"] }]"),
                "caller[0].grants[0].repositories",
            ),
            (
                entry("ci", "a", "grants = [{ repositories = [\"*\"], actions = [] }]"),
                "caller[0].grants[0].actions",
            ),
            (
                format!("[[caller]]\nname=\"ci\"\ntoken_sha256=\"clp_oops\"\n{GRANTS}"),
                "caller[0].token_sha256",
            ),
        ];
        for (text, field) in cases {
            let failure = read(&text).unwrap_err();
            assert_eq!(failure.field_name(), Some(field), "{text}");
            assert!(failure.remedy_text().is_some(), "{text}");
            assert!(!format!("{failure} {failure:?}").contains("oops"), "{failure}");
        }
    }

    #[test]
    fn what_the_configuration_does_not_know_is_refused() {
        for text in [
            "[callers]",
            &format!("[[caller]]\nname = \"ci\"\ntoken = \"a\"\n{GRANTS}"),
            &entry("ci", "a", "grants = [{ repositories = [\"a*b\"], actions = [\"read\"] }]"),
            &entry("ci", "a", "grants = [{ repositories = [\"*\"], actions = [\"write\"] }]"),
            &entry("ci", "a", "grants = [{ repository = [\"*\"], actions = [\"read\"] }]"),
            &entry("ci", "a", ""),
        ] {
            assert!(toml::from_str::<File>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_printed_are_names() {
        let callers = read(&entry("ci", "one", GRANTS)).unwrap();
        assert_eq!(format!("{callers:?}"), "[\"ci\"]");
    }
}
