//! The contract as an `OpenAPI` 3.1 document, made from its descriptors: routes from the
//! `google.api.http` annotations, texts from the comments, `required` and bounds from the rules
//! of `buf.validate`. A method that is added to the contract is in the document without a line
//! here. What no descriptor knows, the server says: which errors a call has, and its other paths.

mod described;
mod operation;
mod schema;

#[cfg(test)]
mod tests;

use std::fmt;

use prost_reflect::{DescriptorError, DescriptorPool, MethodDescriptor};
use serde_json::{Map, Value, json};

use described::{Contract, comment};

/// An error that a call may be answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallError {
    /// The HTTP status.
    pub status: u16,
    /// What the status means.
    pub title: &'static str,
    /// The word that says which error it is.
    pub reason: &'static str,
}

/// What is to be said of one method besides what its descriptor says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// The errors, in the order in which they are to be told.
    pub errors: Vec<CallError>,
    /// Whether it takes the header `Idempotency-Key`.
    pub keyed: bool,
}

/// What the server adds to the contract.
pub struct Server<'a> {
    /// The version of the service.
    pub version: &'a str,
    /// What is to be said of a method, by its full name (`colophon.v1.TagService.GetTag`).
    pub call: &'a dyn Fn(&str) -> Call,
    /// The errors of every call that has a body.
    pub body_errors: &'a [CallError],
    /// Paths that are no methods of the contract, as the document has them.
    pub paths: Map<String, Value>,
}

/// Why there is no document: a defect of the contract, which a test finds.
#[derive(Debug)]
pub enum OpenApiError {
    /// The descriptors cannot be read.
    Descriptors(DescriptorError),
    /// This cannot be said in the document.
    Unsupported(String),
}

impl fmt::Display for OpenApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptors(_) => f.write_str("the descriptors of the contract cannot be read"),
            Self::Unsupported(what) => write!(f, "{what} has no form in OpenAPI yet"),
        }
    }
}

impl std::error::Error for OpenApiError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Descriptors(error) => Some(error),
            Self::Unsupported(_) => None,
        }
    }
}

impl From<DescriptorError> for OpenApiError {
    fn from(error: DescriptorError) -> Self {
        Self::Descriptors(error)
    }
}

const DESCRIPTION: &str = "Publishes container images: copies what is missing, moves tags in \
    order, and records which digest each tag pointed to. The same methods and messages are there \
    on gRPC.\n\nNames in JSON are lowerCamelCase; a request may have the contract's snake_case, \
    too. Fields of answers are always there, except messages and times that are not set. 64-bit \
    numbers are strings. What the contract does not have is refused.";

/// Makes the document.
///
/// # Errors
/// When the contract has something that this has no form for.
pub fn document(server: &Server<'_>) -> Result<Value, OpenApiError> {
    let pool = DescriptorPool::decode(crate::DESCRIBED_FILE_DESCRIPTOR_SET)?;
    let contract = Contract::of(&pool)?;
    let mut paths = server.paths.clone();
    let mut tags = Vec::new();
    for service in pool.services().filter(|service| service.package_name() == "colophon.v1") {
        let text = comment(&service.parent_file(), service.path());
        tags.push(json!({ "name": service.name(), "description": text }));
        for method in service.methods() {
            let operation = operation::of(&contract, &method, server)?;
            let item = paths.entry(operation.path).or_insert_with(|| json!({}));
            set(item, operation.verb, operation.value);
        }
    }
    let methods: Vec<MethodDescriptor> =
        pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
    let mut schemas = schema::all(&contract, &methods)?;
    schemas.insert("Problem".into(), problem());
    Ok(json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Colophon",
            "version": server.version,
            "description": DESCRIPTION,
            "license": { "name": "Apache License 2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "The server that this document comes from." }],
        "security": [{ "token": [] }],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": operation::parameters(),
            "headers": operation::headers(),
            "securitySchemes": { "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "A caller's token; the operator makes it with `colophond new-token`.",
            } },
        },
    }))
}

/// Sets a member of an object.
fn set(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value.into());
    }
}

/// The form of every error (RFC 9457).
fn problem() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "type": "object",
        "description": "Why a call was not answered as asked (RFC 9457).",
        "required": ["type", "title", "status", "detail", "reason", "instance"],
        "properties": {
            "type": {
                "type": "string",
                "format": "uri",
                "description": "`urn:colophon:reason:` and the reason.",
            },
            "title": text("The same for every error of the kind."),
            "status": { "type": "integer", "description": "The HTTP status." },
            "detail": text("What happened, and to what; for a reader."),
            "reason": {
                "type": "string",
                "pattern": "^[A-Z][A-Z0-9_]*$",
                "description": "Which error it is; the word never changes its meaning.",
            },
            "field": text("The field of the request that is wrong, in the contract's spelling."),
            "remedy": text("What to do about it."),
            "instance": text("The request's id, as the header `X-Request-Id` has it."),
        },
    })
}
