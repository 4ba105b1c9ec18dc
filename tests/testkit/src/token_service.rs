//! A token service for registries with Bearer authentication (distribution's "Token
//! Authentication Specification"): Basic credentials in, a signed token for exactly the granted
//! scopes out. Debian's docker-registry checks its tokens.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use colophon_domain::{Clock as _, Entropy as _, SystemClock, SystemEntropy};
use colophon_launcher::{RegistryAuth, Tls};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{CertificateParams, KeyPair};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::{
    error::{Result, While as _},
    pki,
    serve::{NoAnswer, Server},
};

const SERVICE: &str = "colophon-test-registry";
const ISSUER: &str = "colophon-test-token-service";

/// How a token service behaves.
#[derive(Clone)]
pub struct TokenOptions {
    /// The certificate to serve with; plain HTTP without.
    pub tls: Option<Tls>,
    /// How long a token is good for. The registry allows a minute more.
    pub expires_in: Duration,
    /// Whether those without credentials may pull.
    pub anonymous_pull: bool,
    /// Tokens say nothing to whoever reads them, as GHCR's.
    pub opaque: bool,
}

impl Default for TokenOptions {
    fn default() -> Self {
        Self { tls: None, expires_in: Duration::from_mins(5), anonymous_pull: false, opaque: false }
    }
}

/// What a login may do.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// A repository's name, or a prefix of names that ends in `*`.
    pub repositories: String,
    /// `pull`, `push`, `delete`.
    pub actions: Vec<String>,
}

impl Allowed {
    /// The named actions (`pull,push`) on the repositories.
    pub fn new(repositories: &str, actions: &str) -> Self {
        let actions = actions.split(',').map(str::to_owned).collect();
        Self { repositories: repositories.to_owned(), actions }
    }

    fn covers(&self, repository: &str) -> bool {
        match self.repositories.strip_suffix('*') {
            Some(prefix) => repository.starts_with(prefix),
            None => repository == self.repositories,
        }
    }
}

/// One request as it was answered; passwords and tokens are not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// GET, or POST for the `OAuth2` flow.
    pub method: Method,
    /// Who asked, if the request had credentials, right or wrong.
    pub username: Option<String>,
    /// The service that was named.
    pub service: Option<String>,
    /// The scopes that were asked for, one string each.
    pub scopes: Vec<String>,
    /// The scopes that were granted, in the same form; a scope with nothing granted is left out.
    pub granted: Vec<String>,
    /// The status of the answer.
    pub status: u16,
}

struct Account {
    password: SecretString,
    allowed: Vec<Allowed>,
}

impl Account {
    fn has(&self, password: &SecretString) -> bool {
        self.password.expose_secret() == password.expose_secret()
    }
}

/// What a token service knows and decides, wherever it is served from.
pub(crate) struct Desk {
    options: TokenOptions,
    key: EncodingKey,
    cert_pem: String,
    cert: Vec<u8>,
    accounts: Mutex<BTreeMap<String, Account>>,
    requests: Mutex<Vec<TokenRequest>>,
    issued: Mutex<BTreeMap<String, Issued>>,
}

/// A token that was given out.
struct Issued {
    access: Vec<Access>,
    until: Instant,
}

/// A running token service.
pub struct TokenService {
    server: Server,
    desk: Arc<Desk>,
}

impl TokenService {
    /// Starts a service that knows nobody yet.
    pub async fn start(options: TokenOptions) -> Result<Self> {
        let desk = Arc::new(Desk::new(options)?);
        let shared = Arc::clone(&desk);
        let handle = move |request| answer(Arc::clone(&shared), request);
        let server = Server::start(desk.options.tls.as_ref(), handle).await?;
        Ok(Self { server, desk })
    }

    /// What a registry needs so that it sends clients here and believes its tokens.
    pub fn registry_auth(&self) -> RegistryAuth {
        RegistryAuth::Token {
            realm: self.realm(),
            service: SERVICE.to_owned(),
            issuer: ISSUER.to_owned(),
            root_cert_pem: self.desk.cert_pem.clone(),
        }
    }

    /// The URL that stands in challenges.
    pub fn realm(&self) -> String {
        format!("{}/token", self.server.url())
    }

    /// `127.0.0.1:port` of the realm.
    pub fn host(&self) -> String {
        self.server.host()
    }

    /// Adds a login or replaces its password and what it may do; the old password is refused
    /// from now on, tokens that it got stay good until they expire.
    pub fn set_login(&self, username: &str, password: &str, allowed: Vec<Allowed>) {
        self.desk.set_login(username, password, allowed);
    }

    /// Removes a login.
    pub fn remove_login(&self, username: &str) {
        lock(&self.desk.accounts).remove(username);
    }

    /// All requests so far, oldest first.
    pub fn requests(&self) -> Vec<TokenRequest> {
        self.desk.requests()
    }
}

/// A request's fields, from its query or its form.
#[derive(Default)]
struct Asked {
    credentials: Option<(String, SecretString)>,
    service: Option<String>,
    scopes: Vec<String>,
}

/// Answers a request for a token.
pub(crate) async fn answer(
    desk: Arc<Desk>,
    request: Request<Incoming>,
) -> std::result::Result<Response<Body>, NoAnswer> {
    let method = request.method().clone();
    let path_known = request.uri().path() == "/token";
    let asked = read(request).await?;
    let (status, granted, body) = if path_known && (method == "GET" || method == "POST") {
        desk.decide(&method, &asked)?
    } else {
        (StatusCode::NOT_FOUND, Vec::new(), json!({}))
    };
    lock(&desk.requests).push(TokenRequest {
        method,
        username: asked.credentials.map(|(username, _)| username),
        service: asked.service,
        scopes: asked.scopes,
        granted,
        status: status.as_u16(),
    });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

impl Desk {
    /// A desk that knows nobody yet.
    pub(crate) fn new(options: TokenOptions) -> Result<Self> {
        let key = KeyPair::generate().doing("making a key")?;
        let params = CertificateParams::new(Vec::new()).doing("naming a certificate")?;
        let cert_pem = params.self_signed(&key).doing("signing a certificate")?.pem();
        Ok(Self {
            key: EncodingKey::from_ec_der(key.serialized_der()),
            cert: pki::der(&cert_pem)?.to_vec(),
            cert_pem,
            accounts: Mutex::default(),
            requests: Mutex::default(),
            issued: Mutex::default(),
            options,
        })
    }

    pub(crate) fn set_login(&self, username: &str, password: &str, allowed: Vec<Allowed>) {
        let account = Account { password: password.to_owned().into(), allowed };
        lock(&self.accounts).insert(username.to_owned(), account);
    }

    pub(crate) fn requests(&self) -> Vec<TokenRequest> {
        lock(&self.requests).clone()
    }

    /// Whether a token that was given out here allows an action on a repository; `None` for one
    /// that is not known or has expired.
    pub(crate) fn token_allows(&self, token: &str, name: &str, action: &str) -> Option<bool> {
        let issued = lock(&self.issued);
        let known = issued.get(token).filter(|known| known.until > Instant::now())?;
        let covers = |access: &&Access| access.name == name;
        let mut actions = known.access.iter().filter(covers).flat_map(|access| &access.actions);
        Some(actions.any(|granted| granted == action))
    }

    /// The same for the value of a `Basic` header.
    pub(crate) fn login_allows(&self, value: &str, name: &str, action: &str) -> Option<bool> {
        let (username, password) = basic(value)?;
        let accounts = lock(&self.accounts);
        let account = accounts.get(&username).filter(|account| account.has(&password))?;
        let covering = account.allowed.iter().filter(|allowed| allowed.covers(name));
        Some(covering.flat_map(|allowed| &allowed.actions).any(|granted| granted == action))
    }

    fn decide(&self, method: &Method, asked: &Asked) -> Result<(StatusCode, Vec<String>, Value)> {
        let anonymous = [Allowed::new("*", "pull")];
        let accounts = lock(&self.accounts);
        let allowed: &[Allowed] = match &asked.credentials {
            Some((username, password)) => {
                let known = accounts.get(username);
                match known.filter(|account| account.has(password)) {
                    Some(account) => &account.allowed,
                    None => return Ok(refusal()),
                }
            }
            None if self.options.anonymous_pull => &anonymous,
            None => return Ok(refusal()),
        };
        let access: Vec<Access> =
            asked.scopes.iter().filter_map(|scope| Access::granted(scope, allowed)).collect();
        let subject = asked.credentials.as_ref().map_or("", |(username, _)| username);
        let token = if self.options.opaque {
            STANDARD.encode(SystemEntropy.uuid().as_bytes())
        } else {
            self.token(subject, &access)?
        };
        let scopes = access.iter().map(Access::scope).collect();
        let until = Instant::now() + self.options.expires_in;
        lock(&self.issued).insert(token.clone(), Issued { access, until });
        // The two flows call it by different names.
        let field = if method == Method::POST { "access_token" } else { "token" };
        let body = json!({ field: token, "expires_in": self.options.expires_in.as_secs() });
        Ok((StatusCode::OK, scopes, body))
    }

    fn token(&self, subject: &str, access: &[Access]) -> Result<String> {
        let now = SystemClock.now().unix_timestamp();
        let lifetime = i64::try_from(self.options.expires_in.as_secs()).unwrap_or(i64::MAX);
        let access: Vec<Value> = access.iter().map(Access::claim).collect();
        let claims = json!({
            "iss": ISSUER, "sub": subject, "aud": SERVICE, "iat": now, "nbf": now - 10,
            "exp": now.saturating_add(lifetime), "jti": SystemEntropy.uuid().to_string(),
            "access": access,
        });
        let mut header = Header::new(Algorithm::ES256);
        // The certificate itself; the registry wants it to lead to one of its root bundle.
        header.x5c = Some(vec![STANDARD.encode(&self.cert)]);
        jsonwebtoken::encode(&header, &claims, &self.key).doing("signing a token")
    }
}

/// One granted scope: `repository:name:actions`.
struct Access {
    kind: String,
    name: String,
    actions: Vec<String>,
}

impl Access {
    fn granted(scope: &str, allowed: &[Allowed]) -> Option<Self> {
        let (kind, rest) = scope.split_once(':')?;
        let (name, wanted) = rest.rsplit_once(':')?;
        let may = |action: &str| {
            let covering = allowed.iter().filter(|allowed| allowed.covers(name));
            covering.flat_map(|allowed| &allowed.actions).any(|granted| granted == action)
        };
        let actions: Vec<String> =
            wanted.split(',').filter(|action| may(action)).map(str::to_owned).collect();
        (kind == "repository" && !actions.is_empty()).then(|| Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
            actions,
        })
    }

    fn scope(&self) -> String {
        format!("{}:{}:{}", self.kind, self.name, self.actions.join(","))
    }

    fn claim(&self) -> Value {
        json!({ "type": self.kind, "name": self.name, "actions": self.actions })
    }
}

async fn read(request: Request<Incoming>) -> std::result::Result<Asked, NoAnswer> {
    let (parts, body) = request.into_parts();
    let mut asked = Asked::default();
    if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
        asked.credentials = basic(value.to_str()?);
    }
    let fields = match parts.method {
        Method::POST => Limited::new(body, 64 * 1024).collect().await?.to_bytes().to_vec(),
        _ => parts.uri.query().unwrap_or_default().as_bytes().to_vec(),
    };
    let (mut username, mut password) = (None, None);
    for (name, value) in form_urlencoded::parse(&fields) {
        let value = value.into_owned();
        match name.as_ref() {
            "service" => asked.service = Some(value),
            // Several may stand in one parameter, with spaces between.
            "scope" => asked.scopes.extend(value.split(' ').map(str::to_owned)),
            "username" => username = Some(value),
            "password" => password = Some(SecretString::from(value)),
            _ => {}
        }
    }
    if parts.method == Method::POST {
        asked.credentials = username.zip(password).or(asked.credentials);
    }
    Ok(asked)
}

fn basic(value: &str) -> Option<(String, SecretString)> {
    let encoded = value.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some((username.to_owned(), password.to_owned().into()))
}

fn refusal() -> (StatusCode, Vec<String>, Value) {
    let error = json!({ "code": "UNAUTHORIZED", "message": "authentication required" });
    (StatusCode::UNAUTHORIZED, Vec::new(), json!({ "errors": [error] }))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use colophon_launcher::{Login, Registry, RegistryOptions};

    use super::*;
    use crate::{
        image::{Destination, ImageSpec},
        peer::Peer,
        pki::Authority,
    };

    #[tokio::test]
    async fn a_real_registry_believes_its_tokens_and_only_for_what_was_granted() {
        let service = TokenService::start(TokenOptions::default()).await.unwrap();
        service.set_login("writer", "first", vec![Allowed::new("team/*", "pull,push")]);
        service.set_login("reader", "read", vec![Allowed::new("team/app", "pull")]);
        let auth = service.registry_auth();
        let registry =
            Registry::start(RegistryOptions { auth, ..RegistryOptions::default() }).await.unwrap();
        let image = ImageSpec::tiny("token").build().await.unwrap();
        let (writer, host) = (Login::new("writer", "first"), registry.host());
        let to = |repository, login| Destination { host: &host, repository, tag: "v1", login };
        image.push(&to("team/app", Some(&writer))).await.unwrap();
        assert!(image.push(&to("other/app", Some(&writer))).await.is_err());
        assert!(image.push(&to("team/app", None)).await.is_err());

        let reader = Peer::of(&registry).unwrap().login(Login::new("reader", "read"));
        let digest = reader.digest_of("team/app", "v1").await.unwrap();
        assert_eq!(digest.as_deref(), Some(image.digest()));
        assert!(reader.put_blob("team/app", b"x").await.is_err());

        service.set_login("writer", "second", vec![Allowed::new("team/*", "pull,push")]);
        assert!(image.push(&to("team/b", Some(&writer))).await.is_err(), "the old password");
        let requests = service.requests();
        let last = requests.last().unwrap();
        assert_eq!((last.username.as_deref(), last.status), (Some("writer"), 401));
        let granted = |request: &TokenRequest| request.granted == ["repository:team/app:pull,push"];
        assert!(requests.iter().any(granted), "{requests:?}");
    }

    #[tokio::test]
    async fn it_speaks_tls_and_the_second_flow() {
        let tls = Authority::new("test").unwrap().issue().unwrap();
        let options = TokenOptions { tls: Some(tls.clone()), ..TokenOptions::default() };
        let service = TokenService::start(options).await.unwrap();
        service.set_login("a", "b", vec![Allowed::new("x", "pull")]);
        let ca = reqwest::Certificate::from_pem(tls.ca_pem.as_bytes()).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([ca]).build().unwrap();
        let form = [
            ("grant_type", "password"),
            ("username", "a"),
            ("password", "b"),
            ("scope", "repository:x:pull,push repository:y:pull"),
        ];
        let answer = client.post(service.realm()).form(&form).send().await.unwrap();
        let body: Value = answer.json().await.unwrap();
        assert!(body["access_token"].is_string() && body["token"].is_null());
        let request = service.requests().pop().unwrap();
        assert_eq!(request.scopes, ["repository:x:pull,push", "repository:y:pull"]);
        assert_eq!(request.granted, ["repository:x:pull"]);
    }
}
