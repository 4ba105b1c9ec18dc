//! The rules that the contract states of its fields (`buf.validate`), held against the server:
//! every method is called with each rule broken, and must refuse by naming that field.

use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MapKey,
    MessageDescriptor, OneofDescriptor, ReflectMessage as _, Value,
};
use reqwest::header::HeaderMap;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    fake::{CI, Fake, Server},
    grpc::{frame, raw_body},
};

struct Rules {
    pool: DescriptorPool,
    of_field: ExtensionDescriptor,
    of_oneof: ExtensionDescriptor,
}

impl Rules {
    fn of_the_contract() -> Self {
        let pool = DescriptorPool::decode(colophon_api::DESCRIBED_FILE_DESCRIPTOR_SET).unwrap();
        let extension = |name| pool.get_extension_by_name(name).unwrap();
        let (of_field, of_oneof) =
            (extension("buf.validate.field"), extension("buf.validate.oneof"));
        Self { pool, of_field, of_oneof }
    }

    fn field(&self, field: &FieldDescriptor) -> DynamicMessage {
        field.options().get_extension(&self.of_field).as_message().unwrap().clone()
    }

    fn required(&self, field: &FieldDescriptor) -> bool {
        flag(&self.field(field), "required")
    }

    fn one_required(&self, oneof: &OneofDescriptor) -> bool {
        flag(oneof.options().get_extension(&self.of_oneof).as_message().unwrap(), "required")
    }
}

fn flag(rules: &DynamicMessage, name: &str) -> bool {
    rules.get_field_by_name(name).unwrap().as_bool().unwrap()
}

/// A message within a message of rules, where it is set.
fn part(rules: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    rules
        .has_field_by_name(name)
        .then(|| rules.get_field_by_name(name).unwrap().as_message().unwrap().clone())
}

/// A rule's number, where it is set.
fn number(rules: &DynamicMessage, name: &str) -> Option<Value> {
    rules.has_field_by_name(name).then(|| rules.get_field_by_name(name).unwrap().into_owned())
}

fn length(rules: &DynamicMessage, name: &str) -> Option<usize> {
    number(rules, name).map(|value| usize::try_from(value.as_u64().unwrap()).unwrap())
}

/// A text that a field of this name takes.
fn text(name: &str) -> &'static str {
    match name {
        "id" | "release" => "00000000-0000-0000-0000-000000000001",
        "source" | "reference" => "docker.io/acme/app:v1",
        "repository" => "docker.io/acme/app",
        "tag" => "v1",
        "pattern" => "docker.io/acme/*",
        // That of the bytes that a manifest is here.
        "digest" => "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "media_type" => "application/vnd.oci.image.manifest.v1+json",
        "reason" => "a test",
        name => panic!("say here what {name} takes"),
    }
}

/// A request that has what the contract requires, and everything that has rules of its own.
fn good(rules: &Rules, message: &MessageDescriptor) -> DynamicMessage {
    let mut built = DynamicMessage::new(message.clone());
    for field in message.fields() {
        let first_of_required = field.containing_oneof().is_some_and(|one| {
            rules.one_required(&one) && one.fields().next() == Some(field.clone())
        });
        if !first_of_required && !rules.required(&field) {
            continue;
        }
        let value = match field.kind() {
            Kind::String => Value::String(text(field.name()).into()),
            Kind::Uint64 => Value::U64(1),
            Kind::Bytes => Value::Bytes("{}".into()),
            Kind::Enum(values) => Value::EnumNumber(values.values().nth(1).unwrap().number()),
            Kind::Message(inner) if inner.full_name() == "google.protobuf.Timestamp" => {
                let mut time = DynamicMessage::new(inner);
                time.set_field_by_name("seconds", Value::I64(1_793_800_000));
                Value::Message(time)
            }
            Kind::Message(inner) => Value::Message(good(rules, &inner)),
            kind => panic!("say here what {} takes, a {kind:?}", field.full_name()),
        };
        let value = if field.is_list() { Value::List(vec![value]) } else { value };
        built.set_field(&field, value);
    }
    let within = |name: &str| good(rules, &rules.pool.get_message_by_name(name).unwrap());
    match message.full_name() {
        "colophon.v1.Target" => {
            let mut guard = within("colophon.v1.Guard");
            guard.set_field_by_name("expected_digest", Value::String("none".into()));
            built.set_field_by_name("floating_tags", Value::List(vec![Value::String("v1".into())]));
            built.set_field_by_name("guards", Value::List(vec![Value::Message(guard)]));
        }
        "colophon.v1.CreateReleaseRequest" => {
            let key = Value::Message(within("colophon.v1.OrderKey"));
            built.set_field_by_name("order_key", key);
        }
        "colophon.v1.RollbackRequest" => built.set_field_by_name("steps", Value::I32(1)),
        _ => {}
    }
    built
}

/// Values just beyond what the rules of a field allow.
fn beyond(rules: &DynamicMessage) -> Vec<Value> {
    let mut values = Vec::new();
    if let Some(rules) = part(rules, "string") {
        values.extend(length(&rules, "max_len").map(|most| Value::String("é".repeat(most + 1))));
        if flag(&rules, "uuid") || number(&rules, "pattern").is_some() {
            values.push(Value::String("a\nb".into()));
        }
    }
    if let Some(rules) = part(rules, "int32") {
        let bound = |name| number(&rules, name).map(|value| value.as_i32().unwrap());
        values.extend(bound("gte").map(|least| Value::I32(least - 1)));
        values.extend(bound("lte").map(|most| Value::I32(most + 1)));
    }
    if let Some(rules) = part(rules, "uint64") {
        values.extend(number(&rules, "lte").map(|most| Value::U64(most.as_u64().unwrap() + 1)));
    }
    if let Some(rules) = part(rules, "int64") {
        let least = number(&rules, "gte").map(|least| least.as_i64().unwrap());
        values.extend(least.map(|least| Value::I64(least - 1)));
    }
    if let Some(rules) = part(rules, "bytes") {
        let most = length(&rules, "max_len");
        values.extend(most.map(|most| Value::Bytes(vec![b' '; most + 1].into())));
    }
    if let Some(rules) = part(rules, "map") {
        let pair = |key: String, value: &Value| (MapKey::String(key), value.clone());
        let fine = Value::String("a".into());
        let most = length(&rules, "max_pairs").unwrap();
        values.push(Value::Map((0..=most).map(|n| pair(format!("k{n}"), &fine)).collect()));
        for key in beyond(&part(&rules, "keys").unwrap()) {
            let key = key.as_str().unwrap().to_owned();
            values.push(Value::Map([pair(key, &fine)].into()));
        }
        for value in beyond(&part(&rules, "values").unwrap()) {
            values.push(Value::Map([pair("k".into(), &value)].into()));
        }
    }
    values
}

/// The request with one rule broken, and the fields of which one must be named, for every rule.
fn broken(
    rules: &Rules,
    request: &DynamicMessage,
    here: &str,
) -> Vec<(Vec<String>, DynamicMessage)> {
    let name = |field: &FieldDescriptor| match here {
        "" => field.name().to_owned(),
        here => format!("{here}.{}", field.name()),
    };
    let with = |field: &FieldDescriptor, value: Value| {
        let mut changed = request.clone();
        changed.set_field(field, value);
        changed
    };
    let mut cases = Vec::new();
    for field in request.descriptor().fields() {
        let of_field = rules.field(&field);
        if rules.required(&field) {
            let mut without = request.clone();
            without.clear_field(&field);
            cases.push((vec![name(&field)], without));
        }
        for value in beyond(&of_field) {
            cases.push((vec![name(&field)], with(&field, value)));
        }
        if let Some(of_list) = part(&of_field, "repeated") {
            let item = match request.get_field(&field).as_list().unwrap().first() {
                Some(item) => item.clone(),
                None => Value::String("v2".into()),
            };
            let many = length(&of_list, "max_items").unwrap() + 1;
            cases.push((vec![name(&field)], with(&field, Value::List(vec![item; many]))));
        }
        if !request.has_field(&field) {
            continue;
        }
        match request.get_field(&field).as_ref() {
            Value::Message(inner) => {
                for (fields, inner) in broken(rules, inner, &name(&field)) {
                    cases.push((fields, with(&field, Value::Message(inner))));
                }
            }
            Value::List(items) => {
                if let Some(Value::Message(first)) = items.first() {
                    for (fields, inner) in broken(rules, first, &format!("{}[0]", name(&field))) {
                        cases
                            .push((fields, with(&field, Value::List(vec![Value::Message(inner)]))));
                    }
                }
            }
            _ => {}
        }
    }
    for oneof in request.descriptor().oneofs().filter(|oneof| rules.one_required(oneof)) {
        let mut without = request.clone();
        let mut names = vec![here.to_owned()];
        for field in oneof.fields() {
            without.clear_field(&field);
            names.push(name(&field));
        }
        cases.push((names, without));
    }
    cases
}

fn refusal(headers: &HeaderMap) -> Option<(Code, String)> {
    let status = Status::from_header_map(headers)?;
    let field = status.get_error_details().error_info()?.metadata.get("field").cloned();
    Some((status.code(), field.unwrap_or_default()))
}

#[tokio::test]
async fn every_rule_of_the_contract_is_kept_by_naming_the_field() {
    let rules = Rules::of_the_contract();
    let server = Server::start(Fake::default()).await;
    let mut tried = 0;
    let services = rules.pool.services().filter(|service| service.package_name() == "colophon.v1");
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    // What a stream of messages needs is no rule of one message, and has tests of its own.
    for method in methods.filter(|method| !method.is_client_streaming()) {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let request = good(&rules, &method.input());
        let answer = raw_body(&server, &path, Some(CI), frame(&request)).await;
        // The answer's own status stands behind the body; a refusal would be in the headers.
        assert_eq!(refusal(answer.headers()), None, "{path}");
        let asked = || server.called().len() + server.fake.uploads.called.lock().unwrap().len();
        let before = asked();
        for (fields, request) in broken(&rules, &request, "") {
            let answer = raw_body(&server, &path, Some(CI), frame(&request)).await;
            let (code, field) = refusal(answer.headers()).unwrap_or_else(|| {
                panic!("{path} takes a request with {fields:?} broken: {request:?}")
            });
            assert_eq!(code, Code::InvalidArgument, "{path} {fields:?}");
            assert!(fields.contains(&field), "{path} {fields:?}: {field} is named instead");
            tried += 1;
        }
        assert_eq!(asked(), before, "{path}: the engine was asked all the same");
    }
    assert!(tried > 60, "only {tried} requests were tried");
}

/// Whoever reads the contract and whoever reads its rules must come to the same.
#[test]
fn what_is_called_required_has_the_rule_and_the_other_way_round() {
    let rules = Rules::of_the_contract();
    let mut seen = 0;
    for message in rules.pool.all_messages().filter(|m| m.package_name() == "colophon.v1") {
        let file = message.parent_file();
        let info = file.file_descriptor_proto().source_code_info.as_ref().unwrap();
        for field in message.fields() {
            let place = info.location.iter().find(|place| place.path == field.path());
            let Some(place) = place else {
                assert!(message.is_map_entry(), "{} has no comment", field.full_name());
                continue;
            };
            let said = place.leading_comments().trim_end().ends_with("Required.");
            assert_eq!(said, rules.required(&field), "{}", field.full_name());
            seen += usize::from(said);
        }
    }
    assert!(seen > 10, "only {seen} required fields were found");
}
