//! The `OpenAPI` document as a page: every call with its parameters, its answer and its errors,
//! every message with its fields, and links between them. Plain HTML, written once.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Writes the page. What the document does not have is left out.
pub(super) fn page(document: &Value, style: &str) -> String {
    let title = text(&document["info"], "title");
    let (mut nav, mut main) = (String::new(), String::new());
    for tag in list(document, "tags") {
        let name = text(tag, "name");
        put(&mut nav, format_args!("<strong>{}</strong><ul>", Escaped(name)));
        put(
            &mut main,
            format_args!("<h2>{}</h2>{}", Escaped(name), Prose(text(tag, "description"))),
        );
        operations(document, Some(name), &mut nav, &mut main);
        nav.push_str("</ul>");
    }
    nav.push_str("<strong>Besides</strong><ul>");
    main.push_str("<h2>Besides</h2>");
    operations(document, None, &mut nav, &mut main);
    nav.push_str("</ul><strong>Messages</strong><ul>");
    main.push_str("<h2>Messages</h2>");
    for (name, schema) in members(&document["components"], "schemas") {
        let name = Escaped(name);
        put(&mut nav, format_args!("<li><a href=\"#schema-{name}\">{name}</a></li>"));
        put(&mut main, format_args!("<section id=\"schema-{name}\"><h3>{name}</h3>"));
        message(schema, &mut main);
        main.push_str("</section>");
    }
    nav.push_str("</ul>");
    let (version, about) =
        (text(&document["info"], "version"), text(&document["info"], "description"));
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}: the API</title>\
         <style>{style}</style></head><body><nav>{nav}</nav><main><h1>{title} <small>{version}</small>\
         </h1>{about}<p>The same as an <a href=\"/v1/openapi.json\">OpenAPI document</a>.</p>{main}\
         </main></body></html>\n",
        title = Escaped(title),
        version = Escaped(version),
        about = Prose(about),
    )
}

/// The calls of one service, or those of none.
fn operations(document: &Value, tag: Option<&str>, nav: &mut String, main: &mut String) {
    for (path, item) in members(document, "paths") {
        for verb in ["get", "put", "post", "delete", "patch"] {
            let Some(operation) = item.get(verb) else { continue };
            if list(operation, "tags").next().and_then(Value::as_str) != tag {
                continue;
            }
            let (id, path) = (Escaped(text(operation, "operationId")), Escaped(path));
            let upper = verb.to_uppercase();
            put(
                nav,
                format_args!(
                    "<li><a href=\"#{id}\"><span class=\"verb {verb}\">{upper}</span> {path}</a></li>"
                ),
            );
            put(
                main,
                format_args!(
                    "<section id=\"{id}\"><h3><span class=\"verb {verb}\">{upper}</span> {path}</h3>{}",
                    Prose(text(operation, "description"))
                ),
            );
            if let Some(grpc) = operation.get("x-grpc-method").and_then(Value::as_str) {
                put(
                    main,
                    format_args!("<p class=\"note\">On gRPC: <code>{}</code></p>", Escaped(grpc)),
                );
            }
            let open =
                operation.get("security").and_then(Value::as_array).is_some_and(Vec::is_empty);
            if open {
                main.push_str("<p class=\"note\">Needs no token.</p>");
            }
            parameters(document, operation, main);
            responses(operation, main);
            main.push_str("</section>");
        }
    }
}

fn parameters(document: &Value, operation: &Value, main: &mut String) {
    let mut rows = String::new();
    for parameter in list(operation, "parameters") {
        let resolved = parameter
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|place| document.pointer(place.strip_prefix('#').unwrap_or_default()));
        let parameter = resolved.unwrap_or(parameter);
        let needed = parameter.get("required") == Some(&Value::Bool(true));
        put(
            &mut rows,
            format_args!(
                "<tr><td><code>{}</code><br><span class=\"note\">{}{}</span></td><td>{}{}</td></tr>",
                Escaped(text(parameter, "name")),
                Escaped(text(parameter, "in")),
                if needed { ", required" } else { "" },
                kind(&parameter["schema"]),
                Prose(text(parameter, "description")),
            ),
        );
    }
    let body = operation.pointer("/requestBody/content/application~1json/schema");
    if let Some(body) = body {
        put(
            &mut rows,
            format_args!(
                "<tr><td>body<br><span class=\"note\">required</span></td><td>{}</td></tr>",
                kind(body)
            ),
        );
    }
    if operation.pointer("/requestBody/content/application~1octet-stream").is_some() {
        rows.push_str(
            "<tr><td>body<br><span class=\"note\">required</span></td><td>the bytes \
             <span class=\"note\">application/octet-stream</span></td></tr>",
        );
    }
    if !rows.is_empty() {
        put(main, format_args!("<h4>Request</h4><table>{rows}</table>"));
    }
}

fn responses(operation: &Value, main: &mut String) {
    main.push_str("<h4>Answers</h4><table>");
    for (status, response) in members(operation, "responses") {
        put(
            main,
            format_args!(
                "<tr><td><code>{}</code></td><td>{}",
                Escaped(status),
                Prose(text(response, "description"))
            ),
        );
        for (media, content) in members(response, "content") {
            let reasons = content.pointer("/schema/allOf/1/properties/reason/enum");
            if let Some(reasons) = reasons.and_then(Value::as_array) {
                for reason in reasons.iter().filter_map(Value::as_str) {
                    put(main, format_args!("<code>{}</code> ", Escaped(reason)));
                }
            } else {
                let schema = content.get("x-event-data").unwrap_or(&content["schema"]);
                put(
                    main,
                    format_args!("{} <span class=\"note\">{}</span>", kind(schema), Escaped(media)),
                );
            }
        }
        main.push_str("</td></tr>");
    }
    main.push_str("</table>");
}

/// A message with its fields, or an enum with its words.
fn message(schema: &Value, main: &mut String) {
    put(main, format_args!("{}", Prose(text(schema, "description"))));
    let required: Vec<&str> = list(schema, "required").filter_map(Value::as_str).collect();
    // Of an answer nearly everything is always there, which its description says.
    let incoming = schema.get("additionalProperties") == Some(&Value::Bool(false));
    let mut rows = String::new();
    for (name, field) in members(schema, "properties") {
        let needed = incoming && required.contains(&name.as_str());
        put(
            &mut rows,
            format_args!(
                "<tr><td><code>{}</code>{}</td><td>{}{}</td></tr>",
                Escaped(name),
                if needed { "<br><span class=\"note\">required</span>" } else { "" },
                kind(field),
                Prose(text(field, "description")),
            ),
        );
    }
    if !rows.is_empty() {
        put(main, format_args!("<table>{rows}</table>"));
    }
    for choice in list(schema, "allOf") {
        let each = list(choice, "oneOf").filter_map(|one| one.pointer("/required/0")?.as_str());
        let each: Vec<String> =
            each.map(|name| format!("<code>{}</code>", Escaped(name))).collect();
        put(main, format_args!("<p>One of {}.</p>", each.join(", ")));
    }
}

/// What a value is, with its bounds, as HTML.
fn kind(schema: &Value) -> String {
    if let Some(place) = schema.get("$ref").and_then(Value::as_str) {
        let name = Escaped(place.rsplit('/').next().unwrap_or_default());
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    let mut said = match schema.get("type") {
        Some(Value::String(name)) if name == "array" => {
            format!("list of {}", kind(&schema["items"]))
        }
        Some(Value::String(name))
            if name == "object" && schema.get("additionalProperties").is_some() =>
        {
            format!("map to {}", kind(&schema["additionalProperties"]))
        }
        Some(Value::String(name)) => Escaped(name).to_string(),
        Some(Value::Array(names)) => {
            let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
            Escaped(&names.join(" or ")).to_string()
        }
        _ => String::new(),
    };
    for bound in [
        "format",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "pattern",
        "maxItems",
        "maxProperties",
    ] {
        match schema.get(bound) {
            Some(Value::String(value)) => put(
                &mut said,
                format_args!(
                    " <span class=\"note\">{bound} <code>{}</code></span>",
                    Escaped(value)
                ),
            ),
            Some(value) => {
                put(&mut said, format_args!(" <span class=\"note\">{bound} {value}</span>"));
            }
            None => {}
        }
    }
    said
}

fn put(text: &mut String, more: std::fmt::Arguments<'_>) {
    // Writing to a text cannot fail.
    let _ = text.write_fmt(more);
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn members<'a>(
    value: &'a Value,
    name: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    value.get(name).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

/// A text with what HTML has a meaning for escaped.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A comment: paragraphs, lists of lines that begin with a dash, code between backquotes.
struct Prose<'a>(&'a str);

impl std::fmt::Display for Prose<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for paragraph in self.0.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
            if paragraph.starts_with("- ") {
                f.write_str("<ul>")?;
                for line in paragraph.lines() {
                    f.write_str("<li>")?;
                    inline(f, line.trim_start_matches("- "))?;
                    f.write_str("</li>")?;
                }
                f.write_str("</ul>")?;
            } else {
                f.write_str("<p>")?;
                inline(f, paragraph)?;
                f.write_str("</p>")?;
            }
        }
        Ok(())
    }
}

fn inline(f: &mut std::fmt::Formatter<'_>, text: &str) -> std::fmt::Result {
    for (index, part) in text.split('`').enumerate() {
        if index % 2 == 1 {
            write!(f, "<code>{}</code>", Escaped(part))?;
        } else {
            write!(f, "{}", Escaped(part))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_document_says_is_text_and_never_markup() {
        let evil = "<script>alert('1')</script>\"&`<b>`";
        let document = json!({
            "info": { "title": evil, "version": evil, "description": evil },
            "tags": [{ "name": evil, "description": evil }],
            "paths": { "/<x>": { "get": {
                "operationId": evil, "tags": [evil], "description": evil,
                "parameters": [{ "name": evil, "in": evil, "schema": { "type": evil, "pattern": evil } }],
                "responses": { "200": { "description": evil } },
            } } },
            "components": { "schemas": { "<y>": { "properties": { "<z>": { "type": evil } } } } },
        });
        let page = page(&document, "");
        for mark in ["<script", "<b>", "<x>", "<y>", "<z>", "alert('"] {
            assert!(!page.contains(mark), "{mark}: {page}");
        }
        assert!(page.contains("<code>&lt;b&gt;</code>"), "{page}");
    }

    #[test]
    fn every_link_leads_to_a_place_on_the_page() {
        let document = serde_json::from_str(super::super::OPENAPI).unwrap();
        let page = page(&document, "");
        let links: Vec<&str> =
            page.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert!(links.len() > 50, "only {} links", links.len());
        for link in links {
            assert!(page.contains(&format!("id=\"{link}\"")), "{link}");
        }
        for words in ["/v1/releases/{id}/cancel", "IDEMPOTENCY_KEY_REUSED", "CERTAINTY_CONFIRMED"] {
            assert!(page.contains(words), "{words}");
        }
    }
}
