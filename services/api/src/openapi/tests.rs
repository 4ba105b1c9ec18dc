//! What the document says of things of which the contract has one of each kind.

use serde_json::{Value, json};

use super::{Call, CallError, Server, document};

fn made() -> Value {
    let call = |_: &str| Call {
        errors: vec![
            CallError { status: 429, title: "A limit is reached", reason: "RATE_LIMITED" },
            CallError { status: 429, title: "A limit is reached", reason: "QUEUE" },
        ],
        keyed: true,
    };
    let paths = json!({ "/elsewhere": { "get": {} } }).as_object().unwrap().clone();
    document(&Server { version: "7.8.9", call: &call, body_errors: &[], paths }).unwrap()
}

#[test]
fn routes_comments_and_errors_are_there() {
    let document = made();
    assert_eq!(document["info"]["version"], "7.8.9");
    assert!(document["paths"]["/elsewhere"]["get"].is_object());
    let get = &document["paths"]["/v1/releases/{id}"]["get"];
    assert_eq!(get["operationId"], "GetRelease");
    assert_eq!(get["x-grpc-method"], "colophon.v1.ReleaseService/GetRelease");
    let id = json!({
        "name": "id", "in": "path", "required": true, "description": "The release's id.",
        "schema": { "type": "string", "format": "uuid" },
    });
    assert_eq!(get["parameters"][0], id);
    // What the server refuses is not promised.
    assert_eq!(get["parameters"][1]["name"], "wait");
    assert_eq!(get["parameters"][1]["schema"]["pattern"], "^[0-9]{1,12}([.][0-9]{1,9})?s$");
    assert!(get.get("requestBody").is_none());
    let limit = &get["responses"]["429"];
    assert_eq!(limit["description"], "A limit is reached.");
    assert!(limit["headers"]["Retry-After"].is_object());
    let schema = &limit["content"]["application/problem+json"]["schema"]["allOf"][1];
    assert_eq!(schema["properties"]["reason"]["enum"], json!(["RATE_LIMITED", "QUEUE"]));
}

#[test]
fn a_request_says_what_it_needs_and_what_is_too_much() {
    let document = made();
    let schemas = &document["components"]["schemas"];
    let create = &schemas["CreateReleaseRequest"];
    assert_eq!(create["required"], json!(["source", "targets"]));
    assert_eq!(create["additionalProperties"], false);
    let properties = &create["properties"];
    assert_eq!(properties["source"]["minLength"], 1);
    assert_eq!(
        (&properties["targets"]["minItems"], &properties["targets"]["maxItems"]),
        (&json!(1), &json!(32))
    );
    assert_eq!(properties["priority"]["minimum"], -100);
    assert_eq!(properties["labels"]["maxProperties"], 32);
    assert_eq!(properties["labels"]["additionalProperties"]["maxLength"], 256);
    assert_eq!(properties["notAfter"]["format"], "date-time");
    assert_eq!(properties["ifOlder"]["$ref"], "#/components/schemas/OlderPolicy");
    let policy = &schemas["OlderPolicy"];
    assert_eq!(policy["enum"], json!(["OLDER_POLICY_REFUSE", "OLDER_POLICY_SUPERSEDE"]));
    let source = properties["source"]["description"].as_str().unwrap();
    assert!(source.ends_with("\"latest\"."), "{source}");

    let rollback = &schemas["RollbackRequest"]["allOf"];
    assert_eq!(
        rollback[0]["oneOf"],
        json!([{ "required": ["reference"] }, { "required": ["release"] }])
    );
    assert_eq!(rollback[1]["oneOf"].as_array().unwrap().len(), 4, "none of them may be there");
    // The id stands in the path.
    assert!(schemas["LiftFreezeRequest"]["properties"].get("id").is_none());
    assert!(schemas.get("GetReleaseRequest").is_none(), "its fields are parameters");
}

#[test]
fn an_answer_says_what_is_always_there() {
    let document = made();
    let release = &document["components"]["schemas"]["Release"];
    let required = release["required"].as_array().unwrap();
    assert!(required.contains(&json!("publications")) && required.contains(&json!("state")));
    assert!(!required.contains(&json!("endTime")));
    let tag_move = &document["components"]["schemas"]["TagMove"]["properties"];
    assert_eq!(tag_move["ticket"]["type"], "string");
    let entry = &document["components"]["schemas"]["TagEntry"]["properties"];
    assert_eq!(entry["body"]["contentEncoding"], "base64");
}

#[test]
fn content_is_the_body_as_it_is_and_the_rest_stands_in_the_url() {
    let document = made();
    let put = &document["paths"]["/v1/uploads/{id}/blobs/{digest}"]["put"];
    assert_eq!(put["requestBody"]["content"], json!({ "application/octet-stream": {} }));
    let places = put["parameters"].as_array().unwrap().iter();
    let places: Vec<_> = places.filter_map(|at| Some((at["name"].as_str()?, &at["in"]))).collect();
    let (path, query) = (json!("path"), json!("query"));
    let wanted = [("id", &path), ("digest", &path), ("size", &query), ("offset", &query)];
    assert_eq!(places, wanted);
    let schemas = &document["components"]["schemas"];
    assert!(schemas.get("PutBlobRequest").is_none(), "nobody sends it as JSON");
    assert_eq!(schemas["UploadBlob"]["properties"]["size"]["minimum"], 0);
    let manifest = &schemas["PutManifestRequest"]["properties"]["content"];
    assert_eq!((&manifest["minLength"], &manifest["maxLength"]), (&json!(1), &json!(5_592_408)));
}

#[test]
fn nothing_is_left_without_words() {
    fn look(value: &Value, place: &str, wrong: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    if name == "description" && value.as_str().is_none_or(str::is_empty) {
                        wrong.push(place.to_owned());
                    }
                    look(value, &format!("{place}/{name}"), wrong);
                }
            }
            Value::Array(list) => list.iter().for_each(|value| look(value, place, wrong)),
            _ => {}
        }
    }
    let mut wrong = Vec::new();
    look(&made(), "", &mut wrong);
    assert!(wrong.is_empty(), "{wrong:#?}");
}
