//! The REST routes, held against the `google.api.http` annotations of the contract.

use colophon_domain::Digest;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MethodDescriptor};
use reqwest::Method;
use serde_json::Value;

use crate::{
    fake::{CI, Fake, Server, uuid},
    http::client,
};

struct Route {
    method: Method,
    path: String,
    body: String,
    rpc: MethodDescriptor,
}

/// Every method with its annotation.
fn routes() -> Vec<Route> {
    let pool = DescriptorPool::decode(colophon_api::FILE_DESCRIPTOR_SET).unwrap();
    let http = pool.get_extension_by_name("google.api.http").unwrap();
    let services = pool.services().filter(|service| service.package_name() == "colophon.v1");
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    methods
        .map(|rpc| {
            let options = rpc.options();
            let rule = options.get_extension(&http);
            let rule: &DynamicMessage = rule.as_message().unwrap();
            let text = |name: &str| {
                rule.get_field_by_name(name).unwrap().as_str().unwrap_or_default().to_owned()
            };
            let verbs = ["get", "put", "post", "delete", "patch"];
            let (verb, path) = verbs
                .into_iter()
                .map(|verb| (verb, text(verb)))
                .find(|(_, path)| !path.is_empty())
                .unwrap_or_else(|| panic!("{} has no route", rpc.full_name()));
            let method = Method::from_bytes(verb.to_uppercase().as_bytes()).unwrap();
            Route { method, path, body: text("body"), rpc: rpc.clone() }
        })
        .collect()
}

/// A value that a field takes, as a query parameter.
fn sample(field: &FieldDescriptor) -> String {
    match (field.kind(), field.name()) {
        (Kind::String, "reference") => "docker.io/acme/app:v1".into(),
        (Kind::String, "repository") => "docker.io/acme/app".into(),
        (Kind::String, "release") => uuid(1).to_string(),
        (Kind::String, "label") => "team=web".into(),
        (Kind::String, "page_token") => String::new(),
        (Kind::String, _) => "a".into(),
        (Kind::Int32 | Kind::Int64 | Kind::Uint64, _) => "1".into(),
        (Kind::Bool, _) => "true".into(),
        (Kind::Enum(values), _) => values.get_value(1).unwrap().name().into(),
        (Kind::Message(message), _) if message.full_name() == "google.protobuf.Timestamp" => {
            "2026-11-01T00:00:00Z".into()
        }
        (Kind::Message(message), _) if message.full_name() == "google.protobuf.Duration" => {
            "25s".into()
        }
        (kind, name) => panic!("{name} is {kind:?}, which no query parameter carries"),
    }
}

/// A value that stands in a path.
fn bound_sample(name: &str) -> String {
    match name {
        "digest" => Digest::sha256(b"blob").to_string(),
        _ => uuid(1).to_string(),
    }
}

#[tokio::test]
async fn every_annotation_is_a_route_and_every_field_a_parameter() {
    let server = Server::start(Fake::default()).await;
    let routes = routes();
    assert_eq!(routes.len(), 20);
    for route in routes {
        let input = route.rpc.input();
        let mut path = route.path.clone();
        let mut bound = Vec::new();
        for field in input.fields() {
            let place = format!("{{{}}}", field.name());
            if path.contains(&place) {
                path = path.replace(&place, &bound_sample(field.name()));
                bound.push(field.name().to_owned());
            }
        }
        assert!(!path.contains('{'), "{path}");
        let call = client().request(route.method.clone(), server.url(&path)).bearer_auth(CI);
        if route.body == "*" {
            // The handler is reached, and complains about the message, not about the path.
            let answer = call.json(&Value::Object(serde_json::Map::new())).send().await.unwrap();
            let status = answer.status().as_u16();
            assert!(matches!(status, 200 | 400), "{} {path}: {status}", route.method);
            continue;
        }
        // A body that is a field is that field's bytes, and no parameter.
        if !route.body.is_empty() {
            assert_eq!(input.get_field_by_name(&route.body).unwrap().kind(), Kind::Bytes);
            bound.push(route.body.clone());
        }
        for spelling in [FieldDescriptor::name, FieldDescriptor::json_name] {
            let fields = input.fields().filter(|field| !bound.iter().any(|b| b == field.name()));
            let query: Vec<_> =
                fields.map(|field| (spelling(&field).to_owned(), sample(&field))).collect();
            let call = call.try_clone().unwrap().query(&query);
            let answer = call.send().await.unwrap();
            let status = answer.status();
            assert_eq!(status.as_u16(), 200, "{path} {query:?}: {:?}", answer.text().await);
        }
    }
}
