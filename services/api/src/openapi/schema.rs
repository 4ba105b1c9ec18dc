//! Messages and enums as JSON Schema, by the proto3 JSON mapping.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{
    EnumDescriptor, EnumValueDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, OneofDescriptor,
};
use serde_json::{Map, Value, json};

use super::{
    OpenApiError,
    described::{Body, Contract, Rules, comment, field_comment},
    operation::bound_fields,
    set,
};

const TIMESTAMP: &str = "google.protobuf.Timestamp";
const DURATION: &str = "google.protobuf.Duration";

/// Which way a message goes. Requests are closed, because what nobody knows is refused; answers
/// have all their fields, and may get more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    In,
    Out,
}

/// Where a schema stands in the document.
pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// The schemas of everything that bodies and answers hold.
pub(super) fn all(
    contract: &Contract,
    methods: &[MethodDescriptor],
) -> Result<Map<String, Value>, OpenApiError> {
    let mut found = BTreeMap::new();
    let mut left_out: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for method in methods.iter().filter(|method| method.full_name().starts_with("colophon.v1.")) {
        let route = contract.route(method)?;
        collect(&method.output(), Way::Out, &mut found);
        if route.body == Body::Message {
            collect(&method.input(), Way::In, &mut found);
            let input = method.input().full_name().to_owned();
            left_out.entry(input).or_default().extend(bound_fields(&route.path));
        }
    }
    let mut schemas = Map::new();
    for (message, ways) in found.into_values() {
        let without = left_out.remove(message.full_name()).unwrap_or_default();
        let schema = object(contract, &message, &ways, &without)?;
        schemas.insert(message.name().to_owned(), schema);
        for field in message.fields() {
            if let Some(values) = element(&field).as_enum() {
                schemas.insert(values.name().to_owned(), words(values));
            }
        }
    }
    Ok(schemas)
}

fn collect(
    message: &MessageDescriptor,
    way: Way,
    found: &mut BTreeMap<String, (MessageDescriptor, BTreeSet<Way>)>,
) {
    if message.package_name() != "colophon.v1" {
        return;
    }
    let entry = found.entry(message.full_name().to_owned());
    if !entry.or_insert_with(|| (message.clone(), BTreeSet::new())).1.insert(way) {
        return;
    }
    for field in message.fields() {
        if let Kind::Message(inner) = element(&field) {
            collect(&inner, way, found);
        }
    }
}

/// The kind of a field, of a list's items or of a map's values.
fn element(field: &FieldDescriptor) -> Kind {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
        kind => kind,
    }
}

/// A message. It is required of a request what the contract says, and of an answer everything
/// that has no presence of its own.
fn object(
    contract: &Contract,
    message: &MessageDescriptor,
    ways: &BTreeSet<Way>,
    without: &BTreeSet<String>,
) -> Result<Value, OpenApiError> {
    let incoming = ways.contains(&Way::In);
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for field in message.fields().filter(|field| !without.contains(field.name())) {
        let needed = if incoming {
            contract.rules(&field).flag("required")
        } else {
            !field.supports_presence()
        };
        if needed {
            required.push(field.json_name().to_owned());
        }
        properties.insert(field.json_name().to_owned(), described(contract, &field, incoming)?);
    }
    let mut schema = json!({
        "type": "object",
        "description": comment(&message.parent_file(), message.path()),
        "properties": properties,
    });
    if !required.is_empty() {
        set(&mut schema, "required", required);
    }
    if incoming {
        set(&mut schema, "additionalProperties", false);
    }
    // A field that may be left out on its own is a choice of one in the descriptors.
    let choices = message.oneofs().filter(|oneof| !oneof.is_synthetic());
    let choices: Vec<Value> = choices.map(|oneof| choice(contract, &oneof)).collect();
    if !choices.is_empty() {
        set(&mut schema, "allOf", choices);
    }
    Ok(schema)
}

/// One field out of several, or none where none is needed.
fn choice(contract: &Contract, oneof: &OneofDescriptor) -> Value {
    let each = oneof.fields().map(|field| json!({ "required": [field.json_name()] }));
    let mut each: Vec<Value> = each.collect();
    if !contract.one_required(oneof) {
        each.push(json!({ "not": { "anyOf": each.clone() } }));
    }
    let text = comment(&oneof.parent_message().parent_file(), oneof.path());
    json!({ "description": text, "oneOf": each })
}

/// A field with its comment.
pub(super) fn described(
    contract: &Contract,
    field: &FieldDescriptor,
    incoming: bool,
) -> Result<Value, OpenApiError> {
    let mut schema = field_schema(&contract.rules(field), field, incoming)?;
    set(&mut schema, "description", field_comment(field));
    Ok(schema)
}

/// The schema of a field, a list or a map.
pub(super) fn field_schema(
    rules: &Rules,
    field: &FieldDescriptor,
    incoming: bool,
) -> Result<Value, OpenApiError> {
    let mut schema;
    if field.is_map() {
        let (of_map, kind) = (rules.of("map"), element(field));
        let values = single(&of_map.of("values"), &kind, field, incoming)?;
        schema = json!({ "type": "object", "additionalProperties": values });
        put(&mut schema, "maxProperties", of_map.number("max_pairs"));
        if let Some(pattern) = of_map.of("keys").of("string").text("pattern") {
            set(&mut schema, "propertyNames", json!({ "pattern": pattern }));
        }
    } else if field.is_list() {
        let items = single(&Rules::none(), &field.kind(), field, incoming)?;
        schema = json!({ "type": "array", "items": items });
        put(&mut schema, "maxItems", rules.of("repeated").number("max_items"));
        if rules.flag("required") {
            set(&mut schema, "minItems", 1);
        }
    } else {
        schema = single(rules, &field.kind(), field, incoming)?;
    }
    Ok(schema)
}

fn put(schema: &mut Value, name: &str, number: Option<serde_json::Number>) {
    if let Some(number) = number {
        set(schema, name, number);
    }
}

/// One value.
fn single(
    rules: &Rules,
    kind: &Kind,
    field: &FieldDescriptor,
    incoming: bool,
) -> Result<Value, OpenApiError> {
    Ok(match kind {
        Kind::String => text(rules),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Bytes => base64(rules),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            let mut schema = json!({ "type": "integer", "format": "int32" });
            put(&mut schema, "minimum", rules.of("int32").number("gte"));
            put(&mut schema, "maximum", rules.of("int32").number("lte"));
            schema
        }
        Kind::Uint32 | Kind::Fixed32 => {
            json!({ "type": "integer", "format": "int64", "minimum": 0, "maximum": u32::MAX })
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            let mut schema = large("int64", "^-?[0-9]{1,19}$", incoming);
            put(&mut schema, "minimum", rules.of("int64").number("gte"));
            schema
        }
        Kind::Uint64 | Kind::Fixed64 => {
            let mut schema = large("uint64", "^[0-9]{1,20}$", incoming);
            if incoming {
                set(&mut schema, "minimum", 0);
                put(&mut schema, "maximum", rules.of("uint64").number("lte"));
            }
            schema
        }
        Kind::Enum(values) => reference(values.name()),
        Kind::Message(message) => match message.full_name() {
            TIMESTAMP => json!({ "type": "string", "format": "date-time" }),
            // A length of time is never negative here.
            DURATION => {
                json!({ "type": "string", "pattern": "^[0-9]{1,12}([.][0-9]{1,9})?s$" })
            }
            name if name.starts_with("colophon.v1.") => reference(message.name()),
            _ => return Err(OpenApiError::Unsupported(field.full_name().to_owned())),
        },
        Kind::Float | Kind::Double => {
            return Err(OpenApiError::Unsupported(field.full_name().to_owned()));
        }
    })
}

fn text(rules: &Rules) -> Value {
    let of_string = rules.of("string");
    let mut schema = json!({ "type": "string" });
    put(&mut schema, "maxLength", of_string.number("max_len"));
    if of_string.flag("uuid") {
        set(&mut schema, "format", "uuid");
    } else if rules.flag("required") {
        set(&mut schema, "minLength", 1);
    }
    if let Some(pattern) = of_string.text("pattern") {
        set(&mut schema, "pattern", pattern);
    }
    schema
}

/// Bytes, which take four characters for three of them (RFC 4648, section 4).
fn base64(rules: &Rules) -> Value {
    let mut schema = json!({ "type": "string", "contentEncoding": "base64" });
    if let Some(most) = rules.of("bytes").number("max_len").and_then(|most| most.as_u64()) {
        set(&mut schema, "maxLength", most.div_ceil(3).saturating_mul(4));
    }
    if rules.flag("required") {
        set(&mut schema, "minLength", 1);
    }
    schema
}

/// Numbers of 64 bits are written as strings, and read as numbers, too.
fn large(format: &str, pattern: &str, incoming: bool) -> Value {
    let kind = if incoming { json!(["string", "integer"]) } else { json!("string") };
    json!({ "type": kind, "format": format, "pattern": pattern })
}

/// An enum: its words with what they mean. The zero value is never sent, and a request leaves the
/// field out instead.
fn words(values: &EnumDescriptor) -> Value {
    let file = values.parent_file();
    let mut text = comment(&file, values.path());
    let sent: Vec<_> = values.values().filter(|value| value.number() != 0).collect();
    for (index, value) in sent.iter().enumerate() {
        let meaning = comment(&file, value.path());
        text.push_str(if index == 0 { "\n\n" } else { "\n" });
        text.extend(["- `", value.name(), "`: ", &meaning]);
    }
    let names: Vec<&str> = sent.iter().map(EnumValueDescriptor::name).collect();
    json!({ "type": "string", "enum": names, "description": text })
}
