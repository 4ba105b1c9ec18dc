//! The part of a Kubernetes cluster's API that Vault asks: `TokenReview`. It issues tokens of
//! service accounts as the kubelet projects them into pods, and reviews them as the API server does:
//! by signature, end, audience, and whether the service account is still there.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::body::Body;
use colophon_domain::{Entropy as _, SystemEntropy};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use crate::{
    error::Result,
    issuer::Issuer,
    pki::Authority,
    serve::{NoAnswer, Server},
};

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// A service account.
#[derive(Debug, Clone, Copy)]
pub struct ServiceAccount<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl ServiceAccount<'_> {
    fn username(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

struct State {
    issuer: Issuer,
    reviewer: SecretString,
    deleted: Mutex<BTreeSet<String>>,
    reviewed: Mutex<usize>,
}

/// A running API.
pub struct ClusterApi {
    server: Server,
    state: Arc<State>,
    ca_pem: String,
}

impl ClusterApi {
    /// Starts it, with TLS by a CA of its own as a cluster has it.
    pub async fn start() -> Result<Self> {
        let tls = Authority::new("cluster CA")?.issue()?;
        let state = Arc::new(State {
            issuer: Issuer::new("https://kubernetes.default.svc.cluster.local")?,
            reviewer: SecretString::from(SystemEntropy.uuid().to_string()),
            deleted: Mutex::default(),
            reviewed: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        let handle = move |request| answer(Arc::clone(&shared), request);
        let server = Server::start(Some(&tls), handle).await?;
        Ok(Self { server, state, ca_pem: tls.ca_pem })
    }

    /// The URL, without a slash at its end.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The authority of its certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The token of whoever may have tokens reviewed (`system:auth-delegator`).
    pub fn reviewer(&self) -> &SecretString {
        &self.state.reviewer
    }

    /// A token of a service account, as a projected volume holds it.
    pub fn token(
        &self,
        account: ServiceAccount<'_>,
        audience: &str,
        lifetime: Duration,
    ) -> Result<SecretString> {
        self.state.issuer.token(lifetime, claims(account, audience))
    }

    /// One that ended a minute ago: the kubelet stopped replacing it.
    pub fn ended_token(&self, account: ServiceAccount<'_>, audience: &str) -> Result<SecretString> {
        self.state.issuer.ended_token(Duration::from_mins(1), claims(account, audience))
    }

    /// Deletes a service account: its tokens are good for nothing any more.
    pub fn delete(&self, account: ServiceAccount<'_>) {
        lock(&self.state.deleted).insert(account.username());
    }

    /// How many tokens it was asked about.
    pub fn reviews(&self) -> usize {
        *lock(&self.state.reviewed)
    }
}

fn claims(account: ServiceAccount<'_>, audience: &str) -> Value {
    let ServiceAccount { namespace, name } = account;
    json!({
        "sub": account.username(), "aud": [audience],
        "kubernetes.io": {
            "namespace": namespace,
            "serviceaccount": { "name": name, "uid": uid(account) },
        },
    })
}

/// An id that a service account keeps.
fn uid(account: ServiceAccount<'_>) -> String {
    format!("uid-of-{}-{}", account.namespace, account.name)
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> std::result::Result<Response<Body>, NoAnswer> {
    let (parts, body) = request.into_parts();
    let sent = Limited::new(body, 64 * 1024).collect().await?.to_bytes();
    let reviewer = format!("Bearer {}", state.reviewer.expose_secret());
    let shown = parts.headers.get(header::AUTHORIZATION);
    let (status, body) = if shown.is_none_or(|value| value.as_bytes() != reviewer.as_bytes()) {
        (StatusCode::UNAUTHORIZED, failure(401, "Unauthorized"))
    } else if parts.method == "POST" && parts.uri.path() == REVIEWS {
        (StatusCode::CREATED, state.review(serde_json::from_slice(&sent)?))
    } else {
        (StatusCode::NOT_FOUND, failure(404, "NotFound"))
    };
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

fn failure(code: u16, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code,
    })
}

impl State {
    /// The review with its status filled in, as the API server answers it.
    fn review(&self, mut review: Value) -> Value {
        *lock(&self.reviewed) += 1;
        let status = match self.look(&review) {
            Ok(status) => status,
            Err(error) => json!({ "authenticated": false, "user": {}, "error": error }),
        };
        if let Value::Object(review) = &mut review {
            review.insert("status".to_owned(), status);
        }
        review
    }

    fn look(&self, review: &Value) -> std::result::Result<Value, &'static str> {
        let token = review.pointer("/spec/token").and_then(Value::as_str).unwrap_or_default();
        let claims = self.issuer.read(&SecretString::from(token)).ok_or("invalid bearer token")?;
        let claim = |pointer: &str| claims.pointer(pointer).cloned().unwrap_or_default();
        let username = claim("/sub");
        if username.as_str().is_none_or(|name| lock(&self.deleted).contains(name)) {
            return Err("service account has been deleted");
        }
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let own = list(&claim("/aud"));
        let asked = review.pointer("/spec/audiences").map(list).unwrap_or_default();
        let common: Vec<&Value> =
            own.iter().filter(|audience| asked.is_empty() || asked.contains(audience)).collect();
        if common.is_empty() {
            return Err("token audiences do not match");
        }
        Ok(json!({
            "authenticated": true,
            "user": {
                "username": username,
                "uid": claim("/kubernetes.io/serviceaccount/uid"),
                "groups": ["system:serviceaccounts", "system:authenticated"],
            },
            "audiences": common,
        }))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
