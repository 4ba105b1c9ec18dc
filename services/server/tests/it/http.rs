//! REST calls of the tests, and the one check that every refusal must pass.

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;

use crate::{fake::Server, openapi::documented};

/// A client without a proxy and without trust in anybody: the tests speak plain HTTP.
pub fn client() -> Client {
    Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

/// The same over HTTP/2 from the first byte.
pub fn h2_client() -> Client {
    Client::builder().no_proxy().tls_certs_only([]).http2_prior_knowledge().build().unwrap()
}

pub async fn get(server: &Server, token: &str, path: &str) -> Response {
    client().get(server.url(path)).bearer_auth(token).send().await.unwrap()
}

pub async fn post(server: &Server, token: &str, path: &str, body: &Value) -> Response {
    client().post(server.url(path)).bearer_auth(token).json(body).send().await.unwrap()
}

pub async fn send(server: &Server, method: Method, path: &str) -> Response {
    client().request(method, server.url(path)).send().await.unwrap()
}

/// Checks the form of a problem document (RFC 9457) and that the call is documented to have it, and
/// gives it back.
pub async fn problem(response: Response, status: StatusCode, reason: &str) -> Value {
    let path = response.url().path().to_owned();
    let problem = form(response, status, reason).await;
    // An answer does not tell how it was asked for: it is one of those that the path has.
    let ways = ["GET", "POST", "PUT"].into_iter();
    let said = ways.filter_map(|way| documented(way, &path, status.as_u16(), Some(reason)));
    let said: Vec<_> = said.collect();
    assert!(said.is_empty() || said.iter().any(Result::is_ok), "{said:?}");
    problem
}

/// Checks the form alone, of a reason that the call does not have.
pub async fn form(response: Response, status: StatusCode, reason: &str) -> Value {
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "application/problem+json");
    let got = response.status();
    let problem: Value = response.json().await.unwrap();
    assert_eq!((got, &problem["reason"]), (status, &reason.into()), "{problem}");
    assert_eq!(problem["type"], format!("urn:colophon:reason:{reason}"));
    assert_eq!(problem["status"], status.as_u16());
    assert_eq!(problem["instance"], headers["x-request-id"].to_str().unwrap());
    for text in ["title", "detail"] {
        assert!(problem[text].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
    }
    problem
}

/// An answer that is no refusal.
pub async fn answer(response: Response) -> Value {
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert!(response.headers().contains_key("x-request-id"));
    response.json().await.unwrap()
}
