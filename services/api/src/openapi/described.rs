//! What stands in the contract besides types: comments, the routes of `google.api.http` and the
//! rules of `buf.validate`.

use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, FileDescriptor, Kind,
    MethodDescriptor, OneofDescriptor, Value,
};

use super::OpenApiError;

/// The descriptors with the extensions that this reads.
pub(super) struct Contract {
    http: ExtensionDescriptor,
    field: ExtensionDescriptor,
    oneof: ExtensionDescriptor,
}

/// The REST route of a method.
pub(super) struct Route {
    pub(super) verb: &'static str,
    pub(super) path: String,
    pub(super) body: Body,
}

/// What the body of a call is; fields that are neither in it nor in the path are query parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// There is none.
    None,
    /// The message, as JSON.
    Message,
    /// The bytes of this field as they are.
    Content(String),
}

impl Contract {
    pub(super) fn of(pool: &DescriptorPool) -> Result<Self, OpenApiError> {
        let extension = |name: &str| {
            let unknown = || OpenApiError::Unsupported(format!("a contract without {name}"));
            pool.get_extension_by_name(name).ok_or_else(unknown)
        };
        Ok(Self {
            http: extension("google.api.http")?,
            field: extension("buf.validate.field")?,
            oneof: extension("buf.validate.oneof")?,
        })
    }

    /// The rules of a field.
    pub(super) fn rules(&self, field: &FieldDescriptor) -> Rules {
        Rules(field.options().get_extension(&self.field).as_message().cloned())
    }

    /// Whether one of the fields must be set.
    pub(super) fn one_required(&self, oneof: &OneofDescriptor) -> bool {
        Rules(oneof.options().get_extension(&self.oneof).as_message().cloned()).flag("required")
    }

    /// The method's route.
    pub(super) fn route(&self, method: &MethodDescriptor) -> Result<Route, OpenApiError> {
        let options = method.options();
        let rule = options.get_extension(&self.http);
        let text = |name: &str| {
            let value = rule.as_message().and_then(|rule| rule.get_field_by_name(name));
            value.and_then(|value| value.as_str().map(ToOwned::to_owned)).unwrap_or_default()
        };
        let routes = ["get", "put", "post", "delete", "patch"].map(|verb| (verb, text(verb)));
        let route = routes.into_iter().find(|(_, path)| !path.is_empty());
        let body = match text("body").as_str() {
            "" => Some(Body::None),
            "*" => Some(Body::Message),
            name => {
                let field = method.input().get_field_by_name(name);
                let of_bytes = field.filter(|field| field.kind() == Kind::Bytes);
                of_bytes.map(|_| Body::Content(name.to_owned()))
            }
        };
        match (route, body) {
            (Some((verb, path)), Some(body)) => Ok(Route { verb, path, body }),
            _ => Err(OpenApiError::Unsupported(format!("the route of {}", method.full_name()))),
        }
    }
}

/// The comment before a thing, as one text: lines are joined, paragraphs kept.
pub(super) fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let place = info.and_then(|info| info.location.iter().find(|place| place.path == path));
    let text = place.and_then(|place| place.leading_comments.as_deref()).unwrap_or_default();
    let paragraphs = text.split("\n \n").map(|paragraph| {
        paragraph.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>()
    });
    paragraphs.map(|lines| lines.join(" ")).collect::<Vec<_>>().join("\n\n")
}

/// The comment of a field; that it is required is said by the schema.
pub(super) fn field_comment(field: &FieldDescriptor) -> String {
    let text = comment(&field.parent_message().parent_file(), field.path());
    text.strip_suffix("Required.").map_or(text.as_str(), str::trim_end).to_owned()
}

/// A message of rules; none is the same as an empty one.
pub(super) struct Rules(Option<DynamicMessage>);

impl Rules {
    pub(super) fn none() -> Self {
        Self(None)
    }

    fn value(&self, name: &str) -> Option<Value> {
        let rules = self.0.as_ref().filter(|rules| rules.has_field_by_name(name))?;
        rules.get_field_by_name(name).map(std::borrow::Cow::into_owned)
    }

    /// The rules of a type, of keys or of values.
    pub(super) fn of(&self, name: &str) -> Self {
        Self(self.value(name).and_then(|value| value.as_message().cloned()))
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.value(name).and_then(|value| value.as_bool()).unwrap_or_default()
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.value(name).and_then(|value| value.as_str().map(ToOwned::to_owned))
    }

    /// A number of any width.
    pub(super) fn number(&self, name: &str) -> Option<serde_json::Number> {
        self.value(name).and_then(|value| match value {
            Value::I32(number) => Some(number.into()),
            Value::I64(number) => Some(number.into()),
            Value::U64(number) => Some(number.into()),
            _ => None,
        })
    }
}
