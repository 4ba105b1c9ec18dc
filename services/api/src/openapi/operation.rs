//! A method as an operation: its parameters, its body, its answer and its errors.

use std::collections::BTreeMap;

use prost_reflect::{FieldDescriptor, MethodDescriptor};
use serde_json::{Map, Value, json};

use super::{
    CallError, OpenApiError, Server,
    described::{Body, Contract, comment},
    schema::{described, reference},
    set,
};

/// An operation and where it stands.
pub(super) struct Operation {
    pub(super) path: String,
    pub(super) verb: &'static str,
    pub(super) value: Value,
}

/// The fields that a path template binds.
pub(super) fn bound_fields(path: &str) -> Vec<String> {
    let parts = path.split('{').skip(1);
    parts.filter_map(|rest| rest.split('}').next()).map(ToOwned::to_owned).collect()
}

/// Writes the operation of a method.
pub(super) fn of(
    contract: &Contract,
    method: &MethodDescriptor,
    server: &Server<'_>,
) -> Result<Operation, OpenApiError> {
    let route = contract.route(method)?;
    let mut call = (server.call)(method.full_name());
    if route.body == Body::Message {
        call.errors.extend(server.body_errors);
    }
    let service = method.parent_service();
    let text = comment(&service.parent_file(), method.path());
    let summary = text.split_once(". ").map_or(text.as_str(), |(first, _)| first);
    let bound = bound_fields(&route.path);
    let mut parameters = Vec::new();
    for field in method.input().fields() {
        let in_path = bound.iter().any(|name| name == field.name());
        let in_body = match &route.body {
            Body::None => false,
            Body::Message => true,
            Body::Content(name) => name == field.name(),
        };
        if in_path || !in_body {
            parameters.push(parameter(contract, &field, in_path)?);
        }
    }
    for name in
        call.keyed.then_some("IdempotencyKey").into_iter().chain(["RequestId", "TraceParent"])
    {
        parameters.push(json!({ "$ref": format!("#/components/parameters/{name}") }));
    }
    let mut value = json!({
        "operationId": method.name(),
        "tags": [service.name()],
        "summary": summary.trim_end_matches('.'),
        "description": text,
        "parameters": parameters,
        "responses": responses(method, &call.errors),
        "x-grpc-method": format!("{}/{}", service.full_name(), method.name()),
    });
    let body = match &route.body {
        Body::None => None,
        Body::Message => {
            Some(json!({ "application/json": { "schema": reference(method.input().name()) } }))
        }
        Body::Content(_) => Some(json!({ "application/octet-stream": {} })),
    };
    if let Some(content) = body {
        set(&mut value, "requestBody", json!({ "required": true, "content": content }));
    }
    Ok(Operation { path: route.path, verb: route.verb, value })
}

/// A field as a parameter; in the query by the contract's name.
fn parameter(
    contract: &Contract,
    field: &FieldDescriptor,
    in_path: bool,
) -> Result<Value, OpenApiError> {
    let mut schema = described(contract, field, true)?;
    let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
    Ok(json!({
        "name": field.name(),
        "in": if in_path { "path" } else { "query" },
        "required": in_path || contract.rules(field).flag("required"),
        "description": description,
        "schema": schema,
    }))
}

fn responses(method: &MethodDescriptor, errors: &[CallError]) -> Value {
    let output = method.output();
    let text = comment(&output.parent_file(), output.path());
    let answer = if method.is_server_streaming() {
        json!({
            "description": format!(
                "Server-sent events, each of which has in `data` one message `{}` as JSON, until \
                 there is nothing more to say. {text}",
                output.name()
            ),
            "headers": { "X-Request-Id": header("RequestId") },
            "content": { "text/event-stream": {
                "x-event-data": reference(output.name()),
            } },
        })
    } else {
        json!({
            "description": text,
            "headers": { "X-Request-Id": header("RequestId") },
            "content": { "application/json": { "schema": reference(output.name()) } },
        })
    };
    let mut responses = Map::from_iter([("200".to_owned(), answer)]);
    if method.is_server_streaming() {
        let nothing = json!({
            "description": "There is nothing more to say, and no reason to connect again: the \
                            caller has seen the last event.",
            "headers": { "X-Request-Id": header("RequestId") },
        });
        responses.insert("204".to_owned(), nothing);
    }
    responses.extend(problems(errors));
    responses.into()
}

fn header(name: &str) -> Value {
    json!({ "$ref": format!("#/components/headers/{name}") })
}

/// The responses of errors, one for each status, with the reasons that it may have.
pub(super) fn problems(errors: &[CallError]) -> Map<String, Value> {
    let mut by_status: BTreeMap<u16, Vec<&CallError>> = BTreeMap::new();
    for error in errors {
        by_status.entry(error.status).or_default().push(error);
    }
    let written = by_status.into_iter().map(|(status, errors)| {
        let mut titles: Vec<&str> = Vec::new();
        let mut reasons: Vec<&str> = Vec::new();
        for error in errors {
            for (list, text) in [(&mut titles, error.title), (&mut reasons, error.reason)] {
                if !list.contains(&text) {
                    list.push(text);
                }
            }
        }
        let mut headers = json!({ "X-Request-Id": header("RequestId") });
        if matches!(status, 429 | 503) {
            set(&mut headers, "Retry-After", header("RetryAfter"));
        }
        if status == 401 {
            set(&mut headers, "WWW-Authenticate", header("Challenge"));
        }
        let schema = json!({ "allOf": [
            reference("Problem"),
            { "properties": { "status": { "const": status }, "reason": { "enum": reasons } } },
        ] });
        let problem = json!({
            "description": format!("{}.", titles.join(", or: ")),
            "headers": headers,
            "content": { "application/problem+json": { "schema": schema } },
        });
        (status.to_string(), problem)
    });
    written.collect()
}

/// Headers of requests, for `components`.
pub(super) fn parameters() -> Value {
    json!({
        "IdempotencyKey": {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "Makes sending the request again safe: the same key and request give \
                the same release. The same as `idempotencyKey` in the body; if both are given \
                they agree.",
            "schema": { "type": "string", "pattern": "^[ -~]{1,128}$" },
        },
        "RequestId": {
            "name": "X-Request-Id",
            "in": "header",
            "description": "What the request is called in the log, in the answer and in errors: 1 to \
                128 letters, digits, `.`, `_` or `-`. In place of anything else the server makes one.",
            "schema": { "type": "string" },
        },
        "TraceParent": {
            "name": "traceparent",
            "in": "header",
            "description": "The trace that the call is a part of (W3C Trace Context); anything else \
                is passed over.",
            "schema": { "type": "string" },
        },
    })
}

/// Headers of answers, for `components`.
pub(super) fn headers() -> Value {
    json!({
        "RequestId": {
            "description": "What the request is called in the log.",
            "required": true,
            "schema": { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$" },
        },
        "RetryAfter": {
            "description": "After how many seconds asking again makes sense, where that is known.",
            "schema": { "type": "integer", "minimum": 1 },
        },
        "Challenge": {
            "description": "How to say who is calling (RFC 6750).",
            "required": true,
            "schema": { "type": "string" },
        },
    })
}
