//! A registry that is as careless as one can be: it refuses everything and repeats what the
//! request carried, in bodies and headers of every kind.

use std::sync::{Arc, Mutex};

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use http::header;
use tokio::{net::TcpListener, task::JoinHandle};

/// The careless registry, and what it was shown.
pub(crate) struct Echo {
    host: String,
    shown: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Careless {
    challenge: String,
    shown: Arc<Mutex<Vec<String>>>,
}

impl Echo {
    /// Starts one with this challenge. The first part of a repository's name, `e403` for
    /// example, is the status of its answers to requests with credentials.
    pub(crate) async fn start(challenge: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let state = Careless { challenge: challenge.to_owned(), shown: Arc::clone(&shown) };
        let router = axum::Router::new().fallback(answer).with_state(state);
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
        Self { host, shown, task }
    }

    /// `127.0.0.1:port`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Every `Authorization` that it was shown, without the scheme, each once.
    pub(crate) fn shown(&self) -> Vec<String> {
        self.shown.lock().unwrap().clone()
    }
}

async fn answer(State(careless): State<Careless>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let Some(authorization) = request.headers().get(header::AUTHORIZATION) else {
        let refused = Response::builder().status(401);
        let refused = refused.header(header::WWW_AUTHENTICATE, &careless.challenge);
        return refused.body(Body::empty()).unwrap();
    };
    let authorization = authorization.to_str().unwrap().to_owned();
    let (scheme, secret) = authorization.split_once(' ').unwrap();
    let mut shown = careless.shown.lock().unwrap();
    if !shown.iter().any(|known| known == secret) {
        shown.push(secret.to_owned());
    }
    drop(shown);
    let name = path.trim_start_matches("/v2/").split('/').next().unwrap();
    let status = name.trim_start_matches('e').trim_end_matches("-text").parse().unwrap();
    let words = format!("{path}: you sent {authorization}, and {secret} is no good ({scheme})");
    let body = if name.ends_with("-text") {
        words.clone()
    } else {
        let error = serde_json::json!({ "code": "DENIED", "message": words, "detail": words });
        serde_json::json!({ "errors": [error] }).to_string()
    };
    // Where an answer leads elsewhere, the secret is in the address too.
    let elsewhere = format!("http://{secret}.invalid/{secret}?token={secret}");
    Response::builder()
        .status::<u16>(status)
        .header(header::LOCATION, elsewhere)
        .header(header::WARNING, words)
        .body(Body::from(body))
        .unwrap()
}
