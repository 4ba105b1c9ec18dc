//! OpenBao behind a proxy that counts: how often was a secret read, how often did Colophon log in?

use std::time::Duration;

use colophon_testkit::{
    launcher::{AppRole, Bao, BaoOptions, Login, Role},
    proxy::FaultProxy,
    wait::wait_until,
};
use colophon_tests::{Client, PATIENCE, World};
use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::release_scene::text;

/// What Colophon may read.
pub(crate) const POLICY: &str = r#"path "secret/data/registries/*" { capabilities = ["read"] }"#;

/// A running OpenBao and the proxy that Colophon knows as Vault.
pub(crate) struct CountedVault {
    pub(crate) bao: Bao,
    pub(crate) proxy: FaultProxy,
    pub(crate) role: AppRole,
}

impl CountedVault {
    /// Starts both; processes of the world that are started afterwards use them. `settings` are
    /// further lines of `[vault]`.
    pub(crate) async fn start(world: &mut World, settings: &str, token_ttl: Duration) -> Self {
        let bao = Bao::start(BaoOptions::default()).await.unwrap();
        let address = bao.address().strip_prefix("http://").unwrap().parse().unwrap();
        let proxy = FaultProxy::start(address).await.unwrap();
        let role = Role {
            name: "colophon".to_owned(),
            policy: POLICY.to_owned(),
            token_ttl,
            token_max_ttl: token_ttl * 4,
        };
        let role = bao.enable_approle(&role).await.unwrap();
        let file = world.folder().join("secret-id");
        std::fs::write(&file, role.secret_id.expose_secret()).unwrap();
        world.registry_table(&format!(
            "[vault]\naddress = {:?}\n{settings}\n[vault.auth]\nmethod = \"approle\"\n\
             role_id = {:?}\nsecret_id_file = {:?}\n",
            proxy.url(),
            role.role_id,
            file.display().to_string(),
        ));
        Self { bao, proxy, role }
    }

    /// Writes a login where the credentials of a registry look for it.
    pub(crate) async fn put_login(&self, name: &str, login: &Login) {
        let secret = json!({ "username": login.username, "token": login.password.expose_secret() });
        self.bao.put_secret(&format!("registries/{name}"), secret).await.unwrap();
    }

    /// How often a secret was asked for.
    pub(crate) fn reads(&self, name: &str) -> usize {
        self.count(&format!("/v1/secret/data/registries/{name}"))
    }

    /// How often Colophon logged in, or tried to.
    pub(crate) fn logins(&self) -> usize {
        self.count("/v1/auth/approle/login")
    }

    fn count(&self, path: &str) -> usize {
        self.proxy.log().iter().filter(|exchange| exchange.path == path).count()
    }

    /// Changes what Colophon may read.
    pub(crate) async fn set_policy(&self, policy: &str) {
        let body = Some(json!({ "policy": policy }));
        self.bao.request(Method::POST, "sys/policies/acl/colophon", body).await.unwrap();
    }

    /// Ends every token that Colophon got so far.
    pub(crate) async fn revoke_tokens(&self) {
        let path = "sys/leases/revoke-prefix/auth/approle/login";
        self.bao.request(Method::PUT, path, None).await.unwrap();
    }
}

/// The line of a registry's table that names the secret `registries/NAME` for everything.
pub(crate) fn credentials(name: &str) -> String {
    format!("[[registry.credentials]]\npush = \"registries/{name}\"")
}

/// Waits until a release says that it waits for something with this text, and returns it as it
/// then is.
pub(crate) async fn waiting(client: &Client, id: &str, for_what: &str) -> Value {
    let says = |release: &Value| text(release, "/waitingFor").contains(for_what);
    match client.wait_release(id, PATIENCE, says).await {
        Ok(release) => release,
        Err(error) => panic!("{error}: {:#}", client.release(id).await.unwrap()),
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, so: impl Fn() -> bool) {
    wait_until(what, PATIENCE, async || so().then_some(())).await.unwrap();
}
