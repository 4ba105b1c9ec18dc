//! An OpenBao server (the open successor of Vault, same API) with its raft storage on disk,
//! initialised with one key share: unlike the `-dev` server it can be sealed, killed and brought
//! back with all that it held.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Certificate, Client, Identity, Method};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use crate::{
    Error, Kept, Result, Tls,
    home::{Home, write_private},
    port::Port,
    process::{Process, Signal, bound},
    tool,
};

const PART: &str = "bao";
const PATIENCE: Duration = Duration::from_mins(1);

/// How an OpenBao server is set up.
#[derive(Clone, Default)]
pub struct BaoOptions {
    /// The certificate to serve with; plain HTTP without.
    pub tls: Option<Tls>,
    /// Let in only clients with a certificate by this one's authority; this one is the launcher's
    /// own. Needs `tls`.
    pub client: Option<Tls>,
    /// Where it stays, with the port and the one after it for itself, and with its keys beside
    /// what they open; in a temporary folder, on any ports, without.
    pub kept: Option<Kept>,
}

/// A role of the `AppRole` login method, with a policy of its own.
#[derive(Debug, Clone)]
pub struct Role {
    /// The role's name, and its policy's.
    pub name: String,
    /// The policy's rules in HCL (`path "secret/data/x" { capabilities = ["read"] }`).
    pub policy: String,
    /// How long a token lives unless it is renewed.
    pub token_ttl: Duration,
    /// How long it lives at most.
    pub token_max_ttl: Duration,
}

/// What a client of the `AppRole` login method needs.
#[derive(Clone)]
pub struct AppRole {
    /// The role's id; not a secret.
    pub role_id: String,
    /// The secret that belongs to it.
    pub secret_id: SecretString,
}

/// A running, unsealed server with KV version 2 at `secret/`. Dropping it kills it and removes
/// all that it held, unless its folder is kept.
pub struct Bao {
    port: Port,
    _cluster_port: Port,
    scheme: &'static str,
    client: Client,
    unseal_key: SecretString,
    root_token: SecretString,
    server: Option<Process>,
    folder: Home,
}

impl Bao {
    /// Starts and unseals a server; initialises it unless it is a kept one that was.
    pub async fn start(options: BaoOptions) -> Result<Self> {
        let kept = options.kept.as_ref();
        let folder = Home::of(kept, "colophon-bao-")?;
        let port = Port::of(PART, kept)?;
        // Nobody but the server itself uses it, yet it remembers it: so it stays the same, too.
        let beside = kept.map(|kept| Kept { port: kept.port.saturating_add(1), ..kept.clone() });
        let cluster_port = Port::of(PART, beside.as_ref())?;
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        write_config(folder.path(), [&port, &cluster_port], &options)?;
        let nothing = SecretString::default();
        let mut bao = Self {
            port,
            _cluster_port: cluster_port,
            scheme,
            client: client(&options)?,
            unseal_key: nothing.clone(),
            root_token: nothing,
            server: None,
            folder,
        };
        bao.resume().await?;
        bao.open(kept.is_some()).await?;
        Ok(bao)
    }

    /// The URL, without a slash at its end.
    pub fn address(&self) -> String {
        format!("{}://{}", self.scheme, self.port.address())
    }

    /// The root token, made when the server was initialised.
    pub fn root_token(&self) -> &SecretString {
        &self.root_token
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        self.server.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Seals it: every request is answered with 503 until [`unseal`](Self::unseal).
    pub async fn seal(&self) -> Result<()> {
        self.request(Method::PUT, "sys/seal", None).await.map(drop)
    }

    /// Unseals it, and waits until it serves.
    pub async fn unseal(&mut self) -> Result<()> {
        let body = json!({ "key": self.unseal_key.expose_secret() });
        self.request(Method::PUT, "sys/unseal", Some(body)).await?;
        let health = format!("{}/v1/sys/health", self.address());
        let client = self.client.clone();
        let active = async || {
            let answer = client.get(&health).send().await.ok()?;
            (answer.status() == 200).then_some(())
        };
        self.process()?.until("unsealed", PATIENCE, active).await
    }

    /// Writes a new version of a secret of KV version 2 at `secret/`.
    pub async fn put_secret(&self, path: &str, data: Value) -> Result<()> {
        let path = format!("secret/data/{path}");
        self.request(Method::POST, &path, Some(json!({ "data": data }))).await.map(drop)
    }

    /// Deletes the newest version of a secret, so that reading it answers 404.
    pub async fn delete_secret(&self, path: &str) -> Result<()> {
        self.request(Method::DELETE, &format!("secret/data/{path}"), None).await.map(drop)
    }

    /// Mounts a secrets engine (`kv`, `transit`) at `path` with the given options
    /// (`{"version": "1"}`).
    pub async fn mount(&self, path: &str, engine: &str, options: Value) -> Result<()> {
        let body = json!({ "type": engine, "options": options });
        self.request(Method::POST, &format!("sys/mounts/{path}"), Some(body)).await.map(drop)
    }

    /// Creates or changes a role of the `AppRole` login method and makes a new secret id for it.
    pub async fn enable_approle(&self, role: &Role) -> Result<AppRole> {
        let enabled = self.request(Method::GET, "sys/auth", None).await?;
        if enabled.pointer("/data/approle~1").is_none() {
            self.request(Method::POST, "sys/auth/approle", Some(json!({ "type": "approle" })))
                .await?;
        }
        let policy = format!("sys/policies/acl/{}", role.name);
        self.request(Method::POST, &policy, Some(json!({ "policy": role.policy }))).await?;
        let path = format!("auth/approle/role/{}", role.name);
        let body = json!({
            "token_policies": [role.name],
            "token_ttl": role.token_ttl.as_secs(),
            "token_max_ttl": role.token_max_ttl.as_secs(),
        });
        self.request(Method::POST, &path, Some(body)).await?;
        let id = self.request(Method::GET, &format!("{path}/role-id"), None).await?;
        let secret = self.request(Method::POST, &format!("{path}/secret-id"), None).await?;
        Ok(AppRole {
            role_id: text(&id, "/data/role_id")?,
            secret_id: text(&secret, "/data/secret_id")?.into(),
        })
    }

    /// Any call of its API as root: `path` without `/v1/`. The answer is `null` where there is
    /// none.
    pub async fn request(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        self.request_in(None, method, path, body).await
    }

    /// The same in a namespace.
    pub async fn request_in(
        &self,
        namespace: Option<&str>,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value> {
        let failed = |message: String| Error::refused(PART, format!("{method} {path}: {message}"));
        let url = format!("{}/v1/{path}", self.address());
        let mut request = self.client.request(method.clone(), url);
        let token = self.root_token.expose_secret();
        if !token.is_empty() {
            request = request.header("X-Vault-Token", token);
        }
        if let Some(namespace) = namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.map_err(|error| failed(error.to_string()))?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(|error| failed(error.to_string()))?;
        if !status.is_success() {
            return Err(failed(format!("{status}: {}", String::from_utf8_lossy(&bytes).trim())));
        }
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill();
        }
    }

    /// Ends it in order.
    pub async fn stop(&mut self) -> Result<()> {
        match self.server.take() {
            Some(mut server) => server.stop(Signal::TERM, PATIENCE).await.map(drop),
            None => Ok(()),
        }
    }

    /// Starts it again, with the same port and content. It comes back sealed, as after a power
    /// cut; [`unseal`](Self::unseal) opens it.
    pub async fn resume(&mut self) -> Result<()> {
        if self.server.as_mut().is_some_and(|server| server.ended().is_none()) {
            return Ok(());
        }
        let mut command = bound(tool::bao()?)?;
        command.arg("server").arg("-config").arg(self.config_path());
        let mut server = Process::spawn(PART, command, &self.folder.path().join("log")).await?;
        let status = format!("{}/v1/sys/seal-status", self.address());
        let answers = async || {
            let answer = self.client.get(&status).send().await.ok()?;
            answer.status().is_success().then_some(())
        };
        server.until("answering", PATIENCE, answers).await?;
        self.server = Some(server);
        Ok(())
    }

    /// Kills it, starts it again and unseals it.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        self.resume().await?;
        self.unseal().await
    }

    /// Unseals it with the keys that it has been given, which are made the first time.
    async fn open(&mut self, kept: bool) -> Result<()> {
        let file = self.folder.path().join("keys.json");
        let mut initialised = self.initialised().await?;
        if initialised && file.try_exists().is_ok_and(|there| !there) {
            // A first start was broken off before its keys were written. Nobody can ever open what
            // they would, so it begins anew.
            self.stop().await?;
            let storage = self.folder.path().join("storage");
            std::fs::remove_dir_all(&storage)
                .and_then(|()| std::fs::create_dir(&storage))
                .map_err(Error::prepare(&storage))?;
            self.resume().await?;
            initialised = self.initialised().await?;
        }
        let keys = if initialised {
            let text = std::fs::read_to_string(&file).map_err(Error::prepare(&file))?;
            serde_json::from_str(&text)
                .map_err(|_| Error::refused(PART, format!("{} is no JSON", file.display())))?
        } else {
            let shares = json!({ "secret_shares": 1, "secret_threshold": 1 });
            let made = self.request(Method::PUT, "sys/init", Some(shares)).await?;
            if kept {
                // Beside what they open: this is a server for development, not a safe.
                write_private(&file, &made.to_string()).map_err(Error::prepare(&file))?;
            }
            made
        };
        self.unseal_key = text(&keys, "/keys_base64/0")?.into();
        let root_token = text(&keys, "/root_token")?;
        self.unseal().await?;
        self.root_token = root_token.into();
        let mounts = self.request(Method::GET, "sys/mounts", None).await?;
        if mounts.pointer("/data/secret~1").is_none() {
            self.mount("secret", "kv", json!({ "version": "2" })).await?;
        }
        self.until_ready_for_secrets().await
    }

    async fn initialised(&self) -> Result<bool> {
        let state = self.request(Method::GET, "sys/init", None).await?;
        Ok(state.pointer("/initialized") == Some(&Value::Bool(true)))
    }

    /// KV version 2 upgrades itself after it was mounted, and refuses writes until it has.
    async fn until_ready_for_secrets(&mut self) -> Result<()> {
        let address = format!("{}/v1/secret/config", self.address());
        let (client, token) = (self.client.clone(), self.root_token.clone());
        let ready = async || {
            let request = client.get(&address).header("X-Vault-Token", token.expose_secret());
            let answer = request.send().await.ok()?;
            answer.status().is_success().then_some(())
        };
        self.process()?.until("ready for secrets", PATIENCE, ready).await
    }

    fn process(&mut self) -> Result<&mut Process> {
        self.server.as_mut().ok_or_else(|| Error::refused(PART, "is not running"))
    }

    fn config_path(&self) -> PathBuf {
        self.folder.path().join("config.json")
    }
}

fn write_config(folder: &Path, [port, cluster]: [&Port; 2], options: &BaoOptions) -> Result<()> {
    let storage = folder.join("storage");
    std::fs::create_dir_all(&storage).map_err(Error::prepare(&storage))?;
    let mut listener = json!({ "address": port.address(), "cluster_address": cluster.address() });
    let mut add = |own: Value| {
        if let (Value::Object(listener), Value::Object(own)) = (&mut listener, own) {
            listener.extend(own);
        }
    };
    if let Some(tls) = &options.tls {
        let (cert, key) = tls.write(folder)?;
        add(json!({ "tls_cert_file": cert, "tls_key_file": key }));
    } else {
        add(json!({ "tls_disable": true }));
    }
    if let Some(own) = &options.client {
        let authority = folder.join("clients.pem");
        std::fs::write(&authority, &own.ca_pem).map_err(Error::prepare(&authority))?;
        add(json!({
            "tls_require_and_verify_client_cert": true, "tls_client_ca_file": authority,
        }));
    }
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let config = json!({
        "storage": { "raft": {
            "path": storage, "node_id": "only", "performance_multiplier": "1",
        } },
        "listener": [{ "tcp": listener }],
        "api_addr": format!("{scheme}://{}", port.address()),
        "cluster_addr": format!("https://{}", cluster.address()),
    });
    let path = folder.join("config.json");
    std::fs::write(&path, config.to_string()).map_err(Error::prepare(&path))
}

fn client(options: &BaoOptions) -> Result<Client> {
    let failed = |error: reqwest::Error| Error::refused(PART, format!("no client: {error}"));
    let mut trusted = Vec::new();
    if let Some(tls) = &options.tls {
        trusted.push(Certificate::from_pem(tls.ca_pem.as_bytes()).map_err(failed)?);
    }
    let mut builder =
        Client::builder().tls_certs_only(trusted).no_proxy().timeout(Duration::from_secs(30));
    if let Some(own) = &options.client {
        let pem = format!("{}\n{}", own.cert_pem, own.key_pem.expose_secret());
        builder = builder.identity(Identity::from_pem(pem.as_bytes()).map_err(failed)?);
    }
    builder.build().map_err(failed)
}

fn text(answer: &Value, pointer: &str) -> Result<String> {
    let value = answer.pointer(pointer).and_then(Value::as_str);
    value.map(str::to_owned).ok_or_else(|| Error::refused(PART, format!("no {pointer} in answer")))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering};

    use super::*;

    async fn read(bao: &Bao, token: &str, path: &str) -> (u16, Value) {
        let request = bao.client.get(format!("{}/v1/{path}", bao.address()));
        let answer = request.header("X-Vault-Token", token).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    #[tokio::test]
    async fn it_is_sealed_unsealed_and_restarted_with_its_secrets() {
        let mut bao = Bao::start(BaoOptions::default()).await.unwrap();
        bao.put_secret("registries/one", json!({ "username": "u", "token": "t" })).await.unwrap();
        let root = bao.root_token().expose_secret().to_owned();
        let path = "secret/data/registries/one";
        assert_eq!(read(&bao, &root, path).await.0, 200);
        bao.seal().await.unwrap();
        assert_eq!(read(&bao, &root, path).await.0, 503);
        bao.unseal().await.unwrap();
        bao.restart().await.unwrap();
        let (status, answer) = read(&bao, &root, path).await;
        assert_eq!((status, answer["data"]["data"]["username"].as_str()), (200, Some("u")));
    }

    /// One that stays, on two ports below those that parallel tests reserve.
    fn kept(folder: &Path) -> BaoOptions {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let begin = u16::try_from(std::process::id() % 500).unwrap();
        let free =
            |port: &u16| [*port, port + 1].iter().all(|port| Port::claim(PART, *port).is_ok());
        // Each is looked at once, so that no two tests of this process have the same.
        let port = std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed))
            .take_while(|step| *step < 500)
            .map(|step| 19_000 + (begin + step) % 500 * 2)
            .find(free)
            .unwrap();
        let kept = Kept { folder: folder.join("bao"), port };
        BaoOptions { kept: Some(kept), ..BaoOptions::default() }
    }

    #[tokio::test]
    async fn a_kept_one_whose_keys_were_never_written_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let options = kept(folder.path());
        let bao = Bao::start(options.clone()).await.unwrap();
        bao.put_secret("one", json!({ "username": "u" })).await.unwrap();
        drop(bao);
        std::fs::remove_file(folder.path().join("bao/keys.json")).unwrap();
        let bao = Bao::start(options.clone()).await.unwrap();
        let root = bao.root_token().expose_secret().to_owned();
        assert_eq!(read(&bao, &root, "secret/data/one").await.0, 404);
        bao.put_secret("two", json!({ "username": "u" })).await.unwrap();
        drop(bao);
        let bao = Bao::start(options).await.unwrap();
        assert_eq!(read(&bao, &root, "secret/data/two").await.0, 200);
    }

    #[tokio::test]
    async fn a_kept_one_comes_back_with_its_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let options = kept(folder.path());
        let bao = Bao::start(options.clone()).await.unwrap();
        bao.put_secret("one", json!({ "username": "u" })).await.unwrap();
        drop(bao);
        let bao = Bao::start(options).await.unwrap();
        let root = bao.root_token().expose_secret().to_owned();
        assert_eq!(read(&bao, &root, "secret/data/one").await.0, 200);
        let keys = std::fs::metadata(folder.path().join("bao/keys.json")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&keys) & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_role_reads_what_its_policy_names() {
        let bao = Bao::start(BaoOptions::default()).await.unwrap();
        bao.put_secret("a", json!({ "k": "v" })).await.unwrap();
        bao.put_secret("b", json!({ "k": "v" })).await.unwrap();
        let role = Role {
            name: "reader".to_owned(),
            policy: "path \"secret/data/a\" { capabilities = [\"read\"] }".to_owned(),
            token_ttl: Duration::from_mins(5),
            token_max_ttl: Duration::from_mins(10),
        };
        let AppRole { role_id, secret_id } = bao.enable_approle(&role).await.unwrap();
        let body = json!({ "role_id": role_id, "secret_id": secret_id.expose_secret() });
        let login = bao.request(Method::POST, "auth/approle/login", Some(body)).await.unwrap();
        let token = login["auth"]["client_token"].as_str().unwrap();
        assert_eq!(login["auth"]["lease_duration"], 300);
        assert_eq!(read(&bao, token, "secret/data/a").await.0, 200);
        assert_eq!(read(&bao, token, "secret/data/b").await.0, 403);
        bao.enable_approle(&role).await.unwrap();
    }
}
