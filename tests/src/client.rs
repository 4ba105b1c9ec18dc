//! A small client of the REST face that shares nothing with Colophon's own.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use colophon_testkit::wait::wait_until;
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use crate::PATIENCE;

/// A target: its repository, its unique tags, its floating tags.
pub type Target<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);

/// One answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body, `null` where it was no JSON.
    pub body: Value,
}

impl Answer {
    /// A text of the body by JSON pointer; empty where there is none.
    pub fn text(&self, pointer: &str) -> &str {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// The body, if the call was a success.
    pub fn good(self) -> Result<Value> {
        ensure!(self.status.is_success(), "{}: {}", self.status, self.body);
        Ok(self.body)
    }
}

/// A caller of one server.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: SecretString,
}

impl Client {
    pub(crate) fn new(address: &str, token: SecretString) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        Ok(Self { http, url: format!("http://{address}"), token })
    }

    /// The server's URL, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The caller's token.
    pub fn token(&self) -> &SecretString {
        &self.token
    }

    /// Any call; `path` begins with a slash.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(self.token.expose_secret())
            .query(query);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.with_context(|| format!("calling {path}"))?;
        let status = answer.status();
        let bytes = answer.bytes().await.with_context(|| format!("calling {path}"))?;
        Ok(Answer { status, body: serde_json::from_slice(&bytes).unwrap_or_default() })
    }

    /// Any GET that should succeed.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        let answer = self.call(Method::GET, path, query, None).await?;
        answer.good().with_context(|| format!("GET {path}"))
    }

    /// Asks for a release; the answer may be a refusal.
    pub async fn create(&self, request: &Value) -> Result<Answer> {
        self.call(Method::POST, "/v1/releases", &[], Some(request)).await
    }

    /// Publishes, and returns the accepted release's id.
    pub async fn publish(&self, source: &str, targets: &[Target<'_>]) -> Result<String> {
        let release = self.create(&request(source, targets)).await?.good()?;
        let id = release.get("id").and_then(Value::as_str);
        id.map(str::to_owned).context("a release without id")
    }

    /// Asks for a cancel; the answer may be a refusal.
    pub async fn cancel(&self, id: &str) -> Result<Answer> {
        let path = format!("/v1/releases/{id}/cancel");
        self.call(Method::POST, &path, &[], Some(&json!({ "reason": "a test" }))).await
    }

    /// A release as it stands.
    pub async fn release(&self, id: &str) -> Result<Value> {
        self.get(&format!("/v1/releases/{id}"), &[]).await
    }

    /// Waits until a release has ended, and returns it.
    pub async fn wait_end(&self, id: &str) -> Result<Value> {
        self.wait_end_for(id, PATIENCE).await
    }

    /// The same with another patience.
    pub async fn wait_end_for(&self, id: &str, patience: Duration) -> Result<Value> {
        let ended = |release: &Value| release.get("endTime").is_some_and(Value::is_string);
        match self.wait_release(id, patience, ended).await {
            Ok(release) => Ok(release),
            Err(error) => match self.release(id).await {
                Ok(release) => bail!("{error}; the release: {release:#}"),
                Err(_) => Err(error),
            },
        }
    }

    /// Waits until a release is as `look` wants it. A server that does not answer is asked again.
    pub async fn wait_release(
        &self,
        id: &str,
        patience: Duration,
        look: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let what = format!("the release {id} is as it should be");
        let seen = async || self.release(id).await.ok().filter(|release| look(release));
        Ok(wait_until(&what, patience, seen).await?)
    }

    /// What the ledger says of a tag now.
    pub async fn tag(&self, reference: &str) -> Result<Value> {
        self.get("/v1/tag", &[("reference", reference)]).await
    }

    /// All entries of a tag, newest first, intents included.
    pub async fn moves(&self, reference: &str) -> Result<Vec<Value>> {
        let query = [("reference", reference), ("include_intents", "true"), ("page_size", "200")];
        let mut page = self.get("/v1/tag-moves", &query).await?;
        match page.get_mut("moves").map(Value::take) {
            Some(Value::Array(moves)) => Ok(moves),
            _ => bail!("no list of moves: {page}"),
        }
    }
}

/// The request of a release.
pub fn request(source: &str, targets: &[Target<'_>]) -> Value {
    let targets: Vec<Value> = targets
        .iter()
        .map(|(repository, unique, floating)| {
            json!({ "repository": repository, "uniqueTags": unique, "floatingTags": floating })
        })
        .collect();
    json!({ "source": source, "targets": targets })
}
