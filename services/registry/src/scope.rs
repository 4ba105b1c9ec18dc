//! Token scopes (`repository:NAME:pull,push`): exactly what one request needs. Sets are never
//! added up over a session, because some registries fail on tokens that grew too large.

use std::collections::{BTreeMap, BTreeSet};

use colophon_domain::Access;

/// Scopes of one challenge that are looked at.
const MOST_SCOPES: usize = 16;
/// Actions of one scope, and characters of an action, that are looked at.
const MOST_ACTIONS: usize = 16;
const LONGEST_ACTION: usize = 32;

/// A set of scopes, merged by resource and in a fixed order, so that equal sets are equal keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    /// What reading from, or writing to, a repository takes.
    pub(crate) fn of(name: &str, access: Access) -> Self {
        let mut scopes = Self::default();
        let actions: &[&str] = match access {
            Access::Pull => &["pull"],
            Access::Push => &["pull", "push"],
        };
        scopes.add(&format!("repository:{name}"), actions.iter().copied());
        scopes
    }

    /// The same, and reading from the repository that a blob is mounted from.
    pub(crate) fn and_pull(mut self, name: &str) -> Self {
        self.add(&format!("repository:{name}"), ["pull"]);
        self
    }

    /// The same, and deleting in a repository, which registries count apart from writing.
    pub(crate) fn and_delete(mut self, name: &str) -> Self {
        self.add(&format!("repository:{name}"), ["delete"]);
        self
    }

    fn add<'a>(&mut self, resource: &str, actions: impl IntoIterator<Item = &'a str>) {
        let known = self.0.entry(resource.to_owned()).or_default();
        known.extend(actions.into_iter().filter(|action| !action.is_empty()).map(str::to_owned));
    }

    /// Adds the actions that a challenge asks for on what we ask for already; true if that was
    /// more than we had. A registry does not choose which other resources we ask tokens for.
    pub(crate) fn widen(&mut self, challenge: &str) -> bool {
        let before = self.clone();
        for scope in challenge.split_ascii_whitespace().take(MOST_SCOPES) {
            // The name may hold colons (a host with a port), the kind and the actions may not.
            if let Some((resource, actions)) = scope.rsplit_once(':')
                && self.0.contains_key(resource)
            {
                let short = actions.split(',').filter(|action| action.len() <= LONGEST_ACTION);
                self.add(resource, short.take(MOST_ACTIONS));
            }
        }
        *self != before
    }

    /// The text forms, for the token request.
    pub(crate) fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(resource, actions)| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            format!("{resource}:{}", actions.join(","))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_are_equal_whatever_their_order() {
        let mut scopes = Scopes::of("b/app", Access::Push).and_pull("a/base");
        let texts: Vec<_> = scopes.texts().collect();
        assert_eq!(texts, ["repository:a/base:pull", "repository:b/app:pull,push"]);
        assert!(!scopes.widen("repository:b/app:push,pull repository:a/base:pull nonsense"));
        assert!(scopes.widen("repository:b/app:delete"));
        assert_eq!(scopes.texts().last().unwrap(), "repository:b/app:delete,pull,push");
        let before = scopes.clone();
        let long = format!("repository:b/app:{}", "x".repeat(LONGEST_ACTION + 1));
        assert!(!scopes.widen(&long) && !scopes.widen("registry:catalog:* repository:c:pull"));
        assert_eq!(scopes, before);
        let deleting = Scopes::of("a", Access::Push).and_delete("a");
        assert_eq!(deleting.texts().collect::<Vec<_>>(), ["repository:a:delete,pull,push"]);
        let own = Scopes::of("a", Access::Pull).and_pull("a");
        assert_eq!(own, Scopes::of("a", Access::Pull));
    }
}
