//! Which secret is for which repository: the rules of the configuration over the secrets of
//! Vault, as the source of credentials for everything above.

use std::{collections::HashMap, sync::Arc};

use colophon_domain::{
    Access, Credential, CredentialSource, Failure, Reason, RegistryHost, Repository,
    RepositoryPattern, Result,
};
use futures_util::future::BoxFuture;

use crate::{
    CredentialRule, SecretPath, VaultConfig, VaultHealth, auth::is_word, place::Place,
    session::Sessions, slot::Slot, wire::Wire,
};

/// A rule with its secrets; rules that name the same secret share it.
struct Rule {
    repositories: RepositoryPattern,
    pull: Option<Arc<Slot>>,
    push: Option<Arc<Slot>>,
}

/// The credentials in one Vault.
pub struct Vault {
    sessions: Arc<Sessions>,
    rules: HashMap<RegistryHost, Vec<Rule>>,
}

impl Vault {
    /// Checks the configuration and the rules of each registry. Nothing is asked of Vault before
    /// the first credential is needed, so that a sealed Vault keeps nobody from starting; from
    /// then on a background task of the Tokio runtime keeps the login alive.
    pub fn new(
        config: VaultConfig,
        rules: HashMap<RegistryHost, Vec<CredentialRule>>,
    ) -> Result<Arc<Self>> {
        let mut slots = Vec::new();
        let rules = rules
            .into_iter()
            .map(|(host, rules)| {
                prepared(&host, &rules, &config, &mut slots).map(|rules| (host, rules))
            })
            .collect::<Result<_>>()?;
        Ok(Arc::new(Self { sessions: Sessions::new(Wire::new(config)?), rules }))
    }

    /// How Vault is, without logging in.
    pub async fn health(&self) -> VaultHealth {
        self.sessions.wire().health().await
    }

    /// The secret for a repository; `None` where it is anonymous.
    fn slot(&self, repository: &Repository, access: Access) -> Result<Option<&Arc<Slot>>> {
        let rules = self.rules.get(repository.registry()).map(Vec::as_slice).unwrap_or_default();
        let rule = rules
            .iter()
            .filter(|rule| rule.repositories.covers_name(repository.name()))
            .max_by_key(|rule| rule.repositories.specificity());
        let Some(rule) = rule else { return Ok(None) };
        match (access, &rule.pull, &rule.push) {
            (Access::Pull, Some(slot), _) | (_, _, Some(slot)) => Ok(Some(slot)),
            (_, None, None) => Ok(None),
            (Access::Push, Some(_), None) => Err(Failure::new(
                Reason::CredentialMissing,
                format!(
                    "the credentials of {} for {} are for pulling only, and {repository} is to \
                     be pushed to",
                    repository.registry(),
                    rule.repositories
                ),
            )
            .remedy("name a secret in the field push of that entry of registry.credentials")),
        }
    }
}

impl CredentialSource for Vault {
    fn credential<'a>(
        &'a self,
        repository: &'a Repository,
        access: Access,
        refused: Option<u64>,
    ) -> BoxFuture<'a, Result<Option<Credential>>> {
        Box::pin(async move {
            let Some(slot) = self.slot(repository, access)? else { return Ok(None) };
            Ok(Some(slot.get(&self.sessions, refused).await?))
        })
    }

    fn shared(&self, target: &Repository, other: &Repository) -> bool {
        let Ok(own) = self.slot(target, Access::Push) else { return false };
        let named = |access| match (own, self.slot(other, access)) {
            (Some(own), Ok(Some(named))) => Arc::ptr_eq(own, named),
            (own, Ok(named)) => own.is_none() && named.is_none(),
            (_, Err(_)) => false,
        };
        target.registry() == other.registry() && (named(Access::Push) || named(Access::Pull))
    }
}

fn prepared(
    host: &RegistryHost,
    rules: &[CredentialRule],
    config: &VaultConfig,
    slots: &mut Vec<Arc<Slot>>,
) -> Result<Vec<Rule>> {
    let mut prepared: Vec<Rule> = Vec::with_capacity(rules.len());
    for rule in rules {
        if prepared.iter().any(|other| other.repositories == rule.repositories) {
            return Err(Failure::invalid(
                "registry.credentials",
                format!("{host} has two entries for {}", rule.repositories),
            )
            .remedy("keep one of them: the most specific pattern holds, and these are the same"));
        }
        if rule.username_field.is_empty() || rule.token_field.is_empty() {
            return Err(Failure::invalid(
                "registry.credentials",
                format!("an entry of {host} for {} has an empty field name", rule.repositories),
            ));
        }
        if rule.namespace.as_deref().is_some_and(|namespace| !is_word(namespace)) {
            return Err(Failure::invalid(
                "registry.credentials.namespace",
                format!(
                    "the namespace of the entry of {host} for {} is empty or not ASCII",
                    rule.repositories
                ),
            ));
        }
        let mut slot = |path: &Option<SecretPath>| match path {
            Some(path) => shared(Place::new(path, rule, config), rule, slots).map(Some),
            None => Ok(None),
        };
        let (pull, push) = (slot(&rule.pull)?, slot(&rule.push)?);
        prepared.push(Rule { repositories: rule.repositories.clone(), pull, push });
    }
    Ok(prepared)
}

/// The slot of a secret, which all rules share that name it.
fn shared(place: Place, rule: &CredentialRule, slots: &mut Vec<Arc<Slot>>) -> Result<Arc<Slot>> {
    let beside = slots.iter().map(|slot| slot.place()).find(|other| other.is_beside(&place));
    if beside.is_some_and(|other| other.kv_version != place.kv_version) {
        return Err(Failure::invalid(
            "registry.credentials.kv_version",
            format!("two entries give the mount {} different versions", place.mount),
        )
        .remedy("`vault secrets list -detailed` shows which one it is, as options"));
    }
    let wanted = Slot::new(place, rule);
    if let Some(known) = slots.iter().find(|known| known.is_same(&wanted)) {
        return Ok(known.clone());
    }
    let wanted = Arc::new(wanted);
    slots.push(wanted.clone());
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(rules: &str) -> Result<Arc<Vault>> {
        #[derive(serde::Deserialize)]
        struct Rules {
            credentials: Vec<CredentialRule>,
        }
        let config = "address = 'http://127.0.0.1:1'\n[auth]\nmethod = 'token'\ntoken_env = 'X'";
        let rules: Rules = toml::from_str(rules).unwrap();
        Vault::new(
            toml::from_str(config).unwrap(),
            HashMap::from([("ghcr.io".parse().unwrap(), rules.credentials)]),
        )
    }

    #[test]
    fn the_most_specific_rule_holds() {
        let vault = vault(
            "[[credentials]]\npull = 'all'\npush = 'all'\n\
             [[credentials]]\nrepositories = 'team-a/*'\npush = 'a'\n\
             [[credentials]]\nrepositories = 'team-a/app'\npull = 'app'\n\
             [[credentials]]\nrepositories = 'open/*'",
        )
        .unwrap();
        let path = |repository: &str, access| {
            let repository = Repository::parse(repository).unwrap();
            vault
                .slot(&repository, access)
                .map(|slot| slot.map(|slot| slot.place().path.to_string()))
        };
        for (repository, pull, push) in [
            ("ghcr.io/team-b/x", Some("all"), Some("all")),
            ("ghcr.io/team-a/x/y", Some("a"), Some("a")),
            ("ghcr.io/team-ab/x", Some("all"), Some("all")),
            ("ghcr.io/open/x", None, None),
            ("docker.io/acme/x", None, None),
        ] {
            assert_eq!(path(repository, Access::Pull).unwrap().as_deref(), pull, "{repository}");
            assert_eq!(path(repository, Access::Push).unwrap().as_deref(), push, "{repository}");
        }
        assert_eq!(path("ghcr.io/team-a/app", Access::Pull).unwrap().as_deref(), Some("app"));
        let failure = path("ghcr.io/team-a/app", Access::Push).unwrap_err();
        assert_eq!(failure.reason(), Reason::CredentialMissing);
    }

    #[test]
    fn a_credential_is_shared_where_the_configuration_names_it_for_both() {
        let vault = vault(
            "[[credentials]]\npull = 'read'\npush = 'write'\n\
             [[credentials]]\nrepositories = 'team-a/*'\npull = 'write'\npush = 'a'\n\
             [[credentials]]\nrepositories = 'team-b/*'\npush = 'b'\n\
             [[credentials]]\nrepositories = 'seen/*'\npull = 'read'\n\
             [[credentials]]\nrepositories = 'open/*'\n\
             [[credentials]]\nrepositories = 'free/*'",
        )
        .unwrap();
        let repository = |name: &str| Repository::parse(name).unwrap();
        for (target, other, shared) in [
            ("ghcr.io/x/a", "ghcr.io/y/b", true),
            // The other is read with what the target is written with, and not the other way round.
            ("ghcr.io/x/a", "ghcr.io/team-a/b", true),
            ("ghcr.io/team-a/a", "ghcr.io/x/b", false),
            ("ghcr.io/team-a/a", "ghcr.io/team-a/b", true),
            ("ghcr.io/team-a/a", "ghcr.io/team-b/b", false),
            ("ghcr.io/x/a", "ghcr.io/seen/b", false),
            ("ghcr.io/seen/a", "ghcr.io/seen/b", false),
            ("ghcr.io/open/a", "ghcr.io/free/b", true),
            ("ghcr.io/open/a", "ghcr.io/x/b", false),
            ("ghcr.io/x/a", "ghcr.io/open/b", false),
            ("ghcr.io/open/a", "docker.io/open/b", false),
        ] {
            let (target, other) = (repository(target), repository(other));
            assert_eq!(vault.shared(&target, &other), shared, "{target} {other}");
        }
    }

    #[test]
    fn the_same_secret_is_kept_once() {
        let vault = vault(
            "[[credentials]]\npull = 'one'\npush = 'one'\n\
             [[credentials]]\nrepositories = 'a/*'\npull = 'one'\npush = 'two'\n\
             [[credentials]]\nrepositories = 'b/*'\npush = 'one'\ntoken_field = 'other'",
        )
        .unwrap();
        let slot = |name: &str, access| {
            let repository = Repository::parse(&format!("ghcr.io/{name}")).unwrap();
            vault.slot(&repository, access).unwrap().unwrap().clone()
        };
        let one = slot("x/x", Access::Pull);
        assert!(Arc::ptr_eq(&one, &slot("x/x", Access::Push)));
        assert!(Arc::ptr_eq(&one, &slot("a/x", Access::Pull)));
        assert!(!Arc::ptr_eq(&one, &slot("a/x", Access::Push)));
        assert!(!Arc::ptr_eq(&one, &slot("b/x", Access::Pull)));
    }

    #[test]
    fn two_entries_for_the_same_repositories_are_refused() {
        let twice = "[[credentials]]\npush = 'a'\n[[credentials]]\npush = 'b'";
        assert!(vault(twice).err().unwrap().message().contains("ghcr.io"));
        assert!(vault("[[credentials]]\ntoken_field = ''\npush = 'a'").is_err());
    }

    #[test]
    fn secrets_in_other_mounts_are_others_and_a_mount_has_one_version() {
        let vault_of = |more: &str| {
            vault(&format!(
                "[[credentials]]\npush = 'one'\n[[credentials]]\nrepositories = 'a/*'\npush = 'one'\n{more}"
            ))
        };
        let same = |more: &str| {
            let vault = vault_of(more).unwrap();
            let slot = |name: &str| {
                let repository = Repository::parse(&format!("ghcr.io/{name}")).unwrap();
                vault.slot(&repository, Access::Push).unwrap().unwrap().clone()
            };
            Arc::ptr_eq(&slot("a/x"), &slot("b/x"))
        };
        assert!(same("") && same("mount = 'secret'") && same("kv_version = 2"));
        assert!(!same("mount = 'kv'") && !same("namespace = 'team'"));
        assert!(!same("mount = 'kv'\nkv_version = 1"));
        for (more, key) in [("kv_version = 1", "kv_version"), ("namespace = ''", "namespace")] {
            let failure = vault_of(more).err().unwrap();
            assert!(failure.field_name().unwrap().ends_with(key), "{failure}");
        }
    }
}
