//! The `OpenAPI` document: it is what the contract says now, it is served, its page is, and what
//! the server answers is in it.

use colophon_api::openapi::{Call, CallError, Server as Described, document};
use colophon_domain::Reason;
use colophon_server::{OPENAPI, call_reasons, row};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::{
    fake::{Fake, Server},
    http::{client, send},
};

const TOO_LARGE: &str = "The body is larger than 1 MiB, or with a manifest than 6 MiB";

fn error(reason: Reason) -> CallError {
    let row = row(reason.kind());
    CallError { status: row.status.as_u16(), title: row.title, reason: reason.as_str() }
}

/// A path of the server's own, which needs no token.
fn other(id: &str, text: &str, media: &str, schema: &Value) -> Value {
    json!({ "get": {
        "operationId": id,
        "summary": text,
        "description": format!("{text}."),
        "security": [],
        "responses": { "200": {
            "description": format!("{text}."),
            "content": { media: { "schema": schema } },
        } },
    } })
}

/// The paths that are no methods of the contract.
fn others() -> Map<String, Value> {
    let status = json!({
        "type": "object",
        "required": ["status"],
        "properties": { "status": { "type": "string", "description": "How it is, in a word." } },
    });
    let any = json!({ "type": "object" });
    let page = json!({ "type": "string" });
    let mut ready = other(
        "Ready",
        "Whether calls can be answered, and which part is away since when",
        "application/json",
        &status,
    );
    ready["get"]["responses"]["503"] = json!({
        "description": "They cannot.",
        "content": { "application/problem+json": {
            "schema": { "$ref": "#/components/schemas/Problem" },
        } },
    });
    let live = |id| other(id, "Whether the process lives", "application/json", &status);
    Map::from_iter([
        ("/livez".to_owned(), live("Live")),
        ("/healthz".to_owned(), live("Health")),
        ("/readyz".to_owned(), ready),
        (
            "/v1/openapi.json".to_owned(),
            other("OpenApi", "This document", "application/json", &any),
        ),
        ("/v1/docs".to_owned(), other("Docs", "This document as a page", "text/html", &page)),
    ])
}

fn errors(method: &str) -> Vec<CallError> {
    let mut errors: Vec<_> = call_reasons(method).unwrap().into_iter().map(error).collect();
    if method.ends_with(".PutBlob") {
        let title = "The body is not application/octet-stream, or is encoded";
        let reason = Reason::InvalidArgument.as_str();
        errors.push(CallError { status: 415, title, reason });
    }
    errors
}

fn made() -> Value {
    let call = |method: &str| Call {
        // One that the table forgets would look documented.
        errors: errors(method),
        keyed: ["CreateRelease", "Rollback"]
            .iter()
            .any(|name| method.ends_with(&format!(".{name}"))),
    };
    let invalid = Reason::InvalidArgument.as_str();
    let body_errors = [
        CallError { status: 413, title: TOO_LARGE, reason: invalid },
        CallError { status: 415, title: "The body is not application/json", reason: invalid },
    ];
    let server = Described {
        version: env!("CARGO_PKG_VERSION"),
        call: &call,
        body_errors: &body_errors,
        paths: others(),
    };
    document(&server).unwrap()
}

/// With `COLOPHON_WRITE_OPENAPI` it is written, which is what `make openapi` does.
#[test]
fn the_committed_document_is_what_the_contract_says() {
    let made = made();
    if std::env::var_os("COLOPHON_WRITE_OPENAPI").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        let text = serde_json::to_string_pretty(&made).unwrap();
        std::fs::write(path, text + "\n").unwrap();
        return;
    }
    let committed: Value = serde_json::from_str(OPENAPI).unwrap();
    let parts = |document: &Value| {
        let parts = ["/paths", "/components/schemas"].map(|at| document.pointer(at).cloned());
        let parts = parts.into_iter().flatten().filter_map(|part| part.as_object().cloned());
        parts.flatten().collect::<Map<_, _>>()
    };
    let (now, then) = (parts(&made), parts(&committed));
    let names = now.keys().chain(then.keys());
    let changed: Vec<_> = names.filter(|name| now.get(*name) != then.get(*name)).collect();
    assert!(made == committed, "run `make openapi` and commit docs/openapi.json: {changed:?}");
}

#[tokio::test]
async fn the_document_and_its_page_are_served_to_everybody() {
    let server = Server::start(Fake::default()).await;
    let response = send(&server, Method::GET, "/v1/openapi.json").await;
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.text().await.unwrap(), OPENAPI);

    let response = send(&server, Method::GET, "/v1/docs").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    let page = response.text().await.unwrap();
    assert!(page.contains("/v1/releases/{id}/cancel"));
    for loads in ["<script", "<img", "<link", "src=", "style=\"", "@import", "url("] {
        assert!(!page.contains(loads), "{loads}");
    }
}

#[tokio::test]
async fn every_path_of_the_document_is_one_of_the_server_and_says_who_may_come() {
    let server = Server::start(Fake::default()).await;
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut calls = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (verb, operation) in item.as_object().unwrap() {
            let method = Method::from_bytes(verb.to_uppercase().as_bytes()).unwrap();
            let call = client().request(method, server.url(&path.replace("{id}", "1")));
            let status = call.send().await.unwrap().status().as_u16();
            let open = operation.get("security") == Some(&json!([]));
            assert_eq!(status, if open { 200 } else { 401 }, "{verb} {path}");
            assert_eq!(open, operation["responses"].get("401").is_none(), "{verb} {path}");
            calls += 1;
        }
    }
    assert!(calls > 12, "only {calls} calls");
}

/// Whether an answer is in the document; `None` for a path, or a method of it, that the document
/// does not have.
pub fn documented(
    method: &str,
    path: &str,
    status: u16,
    reason: Option<&str>,
) -> Option<Result<(), String>> {
    // Which methods a path has is said by the document as a whole.
    if status == 405 {
        return None;
    }
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let path = path.split('?').next().unwrap();
    let fits = |template: &str| {
        let (wanted, given): (Vec<_>, Vec<_>) =
            (template.split('/').collect(), path.split('/').collect());
        let same = |(wanted, given): (&&str, &&str)| {
            wanted.starts_with('{') && !given.is_empty() || wanted == given
        };
        wanted.len() == given.len() && wanted.iter().zip(&given).all(same)
    };
    let item = document["paths"].as_object().unwrap().iter().find(|(template, _)| fits(template));
    let operation = item.and_then(|(_, item)| item.get(method.to_lowercase()))?;
    let Some(response) = operation["responses"].get(status.to_string()) else {
        return Some(Err(format!("{method} {path}: {status} is not in the document")));
    };
    let reasons = response
        .pointer("/content/application~1problem+json/schema/allOf/1/properties/reason/enum");
    Some(match (reasons, reason) {
        (Some(reasons), Some(reason)) if !reasons.as_array().unwrap().contains(&reason.into()) => {
            Err(format!("{method} {path}: {status} {reason} is not in the document"))
        }
        _ => Ok(()),
    })
}
