//! Logging in: each method reads what it shows to Vault anew, so that a token that was replaced in
//! its file, as the kubelet does it every hour, is the one that counts.

use std::{env, path::Path};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use vaultrs::api::AuthInfo;

use crate::{
    AuthConfig, SecretPath,
    secret::{Unusable, from_file, header_token, secret},
    session::Session,
    trouble::Trouble,
    wire::{Refusal, Wire},
};

/// A login with a token that somebody else has signed.
struct SignedLogin<'a> {
    /// How the method calls itself.
    method: &'static str,
    mount: &'a SecretPath,
    role: &'a str,
    token_file: &'a Path,
    audience: Option<&'a str>,
    /// What to look at if Vault says no.
    bound: &'static str,
    /// What to look at if Vault fails.
    failing: &'static str,
}

/// Logs in by the configured method.
pub(crate) async fn log_in(wire: &Wire) -> Result<Session, Trouble> {
    match &wire.config().auth {
        AuthConfig::Token { token_file: Some(path), .. } => {
            let token = from_file(path).and_then(header_token);
            adopt(wire, token, &format!("file {}", path.display())).await
        }
        AuthConfig::Token { token_env, .. } => {
            let name = token_env.as_deref().unwrap_or_default();
            let token = env::var(name).map_err(|_| Unusable::Empty).and_then(header_token);
            adopt(wire, token, &format!("environment variable {name}")).await
        }
        AuthConfig::AppRole { mount, role_id, secret_id_file } => {
            approle(wire, mount, role_id, secret_id_file).await
        }
        AuthConfig::Kubernetes { mount, role, token_file, audience } => {
            let login = SignedLogin {
                method: "Kubernetes",
                mount,
                role,
                token_file,
                audience: audience.as_deref(),
                // Vault does not say whether the cluster refused the token or did not answer.
                bound: "this service account, its namespace and the token's audience, whether \
                        Vault reaches the API of the cluster and may review tokens there",
                failing: "look at Vault's own log, and whether the method is configured",
            };
            signed(wire, &login).await
        }
        AuthConfig::Jwt { mount, role, token_file, audience } => {
            let login = SignedLogin {
                method: "JWT",
                mount,
                role,
                token_file,
                audience: audience.as_deref(),
                bound: "the token's subject, audience and claims",
                failing: "look at Vault's own log, whether the method is configured, and whether \
                          Vault reaches the issuer's keys",
            };
            signed(wire, &login).await
        }
    }
}

/// Takes a token that something else provides, and asks Vault how long it lives.
async fn adopt(
    wire: &Wire,
    token: Result<SecretString, Unusable>,
    from: &str,
) -> Result<Session, Trouble> {
    let token = token.map_err(|fault| {
        Trouble::denied(
            format!("there is no token for Vault: the {from} {fault}"),
            "put a token for Vault there, in one line",
        )
    })?;
    match wire.look_up(&token).await {
        Ok(found) => Ok(Session::new(token, found.ttl, found.renewable.unwrap_or(false))),
        // A token may lack the right to look at itself; the reading will tell what it is good
        // for, and its end then shows as a refusal.
        Err(refusal) if refusal.is_forbidden() => Ok(Session::new(token, 0, false)),
        Err(refusal) => Err(refusal.outage(wire.address()).unwrap_or_else(|| {
            Trouble::denied(
                format!("Vault does not know the token of the {from}"),
                "put a valid token for Vault there",
            )
        })),
    }
}

async fn approle(
    wire: &Wire,
    mount: &SecretPath,
    role_id: &str,
    secret_id_file: &Path,
) -> Result<Session, Trouble> {
    let secret_id = from_file(secret_id_file).and_then(secret).map_err(|fault| {
        Trouble::denied(
            format!(
                "there is no secret id for Vault: the file {} {fault}",
                secret_id_file.display()
            ),
            "put the AppRole's secret id there, in one line",
        )
    })?;
    let auth = wire.approle(mount, role_id, &secret_id).await.map_err(|refusal| {
        refusal.outage(wire.address()).unwrap_or_else(|| {
            Trouble::denied(
                format!("Vault refuses the AppRole login at auth/{mount}"),
                format!(
                    "look whether vault.auth.role_id is right and the secret id in {} is \
                     still valid",
                    secret_id_file.display()
                ),
            )
        })
    })?;
    accepted(wire, auth)
}

async fn signed(wire: &Wire, login: &SignedLogin<'_>) -> Result<Session, Trouble> {
    let SignedLogin { method, mount, role, token_file, .. } = login;
    let file = token_file.display();
    let token = from_file(token_file).and_then(header_token).map_err(|fault| {
        Trouble::denied(
            format!("there is no token for the {method} login to Vault: the file {file} {fault}"),
            "let something put the token there, in one line: a projected volume, for example",
        )
    })?;
    if let Some(audience) = login.audience
        && !is_for(&token, audience)
    {
        return Err(Trouble::denied(
            format!("the token in {file} is not for the audience {audience}; it was not sent"),
            "ask for a token of this audience, or correct vault.auth.audience",
        ));
    }
    let answer = if matches!(wire.config().auth, AuthConfig::Kubernetes { .. }) {
        wire.kubernetes(mount, role, &token).await
    } else {
        wire.jwt(mount, role, &token).await
    };
    let auth = answer.map_err(|refusal| {
        let refused = match refusal {
            Refusal::Status { code, .. } => format!(" ({code})"),
            Refusal::Unreachable(..) | Refusal::Garbled => String::new(),
        };
        let denied = || {
            Trouble::denied(
                format!("Vault refuses{refused} the {method} login at auth/{mount} as {role}"),
                format!(
                    "look whether the role {role} is there and takes {}, and whether the token \
                     in {file} is still valid",
                    login.bound
                ),
            )
        };
        match refusal.outage(wire.address()) {
            // The method asks others, and answers so when they do not answer.
            Some(outage) if matches!(refusal, Refusal::Status { code: 500, .. }) => {
                Trouble { remedy: login.failing.into(), ..outage }
            }
            Some(outage) => outage,
            None => denied(),
        }
    })?;
    accepted(wire, auth)
}

/// The session that a login brought.
fn accepted(wire: &Wire, auth: AuthInfo) -> Result<Session, Trouble> {
    let token = header_token(auth.client_token).map_err(|fault| {
        let what = format!("gave a token that {fault}");
        Trouble::away(wire.address(), &what, "look whether vault.address names Vault")
    })?;
    Ok(Session::new(token, auth.lease_duration, auth.renewable))
}

/// Whether a token says that it is for this audience. Its signature is for Vault to check; what
/// matters here is that a token for somebody else is not given to Vault, which could use it.
fn is_for(token: &SecretString, audience: &str) -> bool {
    let payload = token.expose_secret().split('.').nth(1);
    let payload = payload.and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok());
    let claims = payload.and_then(|payload| serde_json::from_slice::<Value>(&payload).ok());
    // One text, or a list of them (RFC 7519, section 4.1.3).
    match claims.as_ref().and_then(|claims| claims.get("aud")) {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(several)) => several.iter().any(|one| one == audience),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_the_audiences_that_it_names() {
        let says = |payload: &str| {
            let payload = URL_SAFE_NO_PAD.encode(payload);
            is_for(&SecretString::from(format!("e30.{payload}.c2ln")), "vault")
        };
        assert!(says(r#"{"aud":"vault"}"#) && says(r#"{"aud":["api","vault"],"sub":"x"}"#));
        for payload in
            ["", "{}", r#"{"aud":[]}"#, r#"{"aud":"vaults"}"#, r#"{"aud":7}"#, r#"["vault"]"#]
        {
            assert!(!says(payload), "{payload}");
        }
        for token in ["", "vault", "a.b", "a.%.c", "hvs.CAESIJ"] {
            assert!(!is_for(&SecretString::from(token), "vault"), "{token}");
        }
    }
}
