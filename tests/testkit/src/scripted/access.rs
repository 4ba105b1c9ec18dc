//! Who is asking, and what they may do.

use http::Method;

use crate::scripted::{
    Shared,
    personality::Auth,
    request::{Response, Seen, error, with},
};

/// The action that a request needs, as scopes call it.
pub(super) fn action(seen: &Seen) -> &'static str {
    if seen.reads() && !seen.path.contains("/blobs/uploads/") {
        "pull"
    } else if seen.method == Method::DELETE && seen.path.contains("/manifests/") {
        "delete"
    } else {
        "push"
    }
}

impl Shared {
    /// The refusal for a stranger, or for one who may not do this.
    pub(super) fn turns_away(&self, seen: &Seen, name: &str) -> Option<Response> {
        let action = action(seen);
        match self.allows(seen, name, action) {
            Some(true) => None,
            Some(false) => Some(self.denied(name, action)),
            None => Some(self.stranger(Some((name, action)))),
        }
    }

    /// Whether whoever sent this may do that; `None` for a stranger.
    pub(super) fn allows(&self, seen: &Seen, name: &str, action: &str) -> Option<bool> {
        let shown = seen.authorization();
        match self.personality.auth {
            Auth::None => Some(true),
            Auth::Basic => self.desk.login_allows(shown, name, action),
            Auth::OwnRealm | Auth::OtherRealm => {
                self.desk.token_allows(shown.strip_prefix("Bearer ")?, name, action)
            }
        }
    }

    /// `/v2/` alone, by which clients find out what a registry wants to see.
    pub(super) fn root(&self, seen: &Seen) -> Response {
        match self.allows(seen, "", "") {
            Some(_) => with(200, &[("content-type", "application/json")], "{}"),
            None => self.stranger(None),
        }
    }

    /// 401 with a challenge.
    pub(super) fn stranger(&self, wanted: Option<(&str, &str)>) -> Response {
        let challenge = self.challenge(wanted, "");
        let mut response = error(401, "UNAUTHORIZED", "authentication required");
        if let Ok(value) = challenge.parse() {
            response.headers_mut().insert("www-authenticate", value);
        }
        response
    }

    fn denied(&self, name: &str, action: &str) -> Response {
        if let Some((status, code, message)) = self.personality.denial {
            return error(status, code, message);
        }
        let message = "requested access to the resource is denied";
        if self.personality.auth == Auth::Basic {
            return error(403, "DENIED", message);
        }
        let mut response = error(401, "UNAUTHORIZED", message);
        let challenge = self.challenge(Some((name, action)), ",error=\"insufficient_scope\"");
        if let Ok(value) = challenge.parse() {
            response.headers_mut().insert("www-authenticate", value);
        }
        response
    }

    fn challenge(&self, wanted: Option<(&str, &str)>, error: &str) -> String {
        if self.personality.auth == Auth::Basic {
            return "Basic realm=\"registry\"".to_owned();
        }
        let scope = wanted.map(|(name, action)| {
            let actions = if action == "push" { "pull,push" } else { action };
            format!(",scope=\"repository:{name}:{actions}\"")
        });
        let realm = self.realm_url();
        format!("Bearer realm=\"{realm}\",service=\"scripted\"{}{error}", scope.unwrap_or_default())
    }
}
