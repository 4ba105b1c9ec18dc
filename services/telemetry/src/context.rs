//! Trace contexts: from a caller's header onto a span, from a span into the queue, and back.

use std::{collections::HashMap, time::SystemTime};

use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue, global,
    propagation::Extractor,
    trace::{Span as _, Status, TraceContextExt as _, Tracer as _, TracerProvider as _},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The one header that is read. `tracestate` and `baggage` are the caller's own notes, of any
/// content, and would end in every span.
const TRACEPARENT: &str = "traceparent";

/// The form of version 00; later versions may only append to it.
const LENGTH: usize = 55;

/// Makes a caller's trace the span's parent, if the request names exactly one in good form. To be
/// called before the span is entered.
pub fn adopt_caller(span: &Span, headers: &HeaderMap) {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return };
    adopt(span, value.to_str().ok());
}

/// Makes a trace the span's parent. What is in no good form is ignored, and a new trace begins. To
/// be called before the span is entered.
pub fn adopt(span: &Span, traceparent: Option<&str>) {
    if let Some(context) = parent(traceparent) {
        // Nothing traces, or the span began already: it keeps the parent that it has.
        let _without_consequence = span.set_parent(context);
    }
}

/// The current span as a `traceparent`; `None` where nothing traces.
pub fn current() -> Option<String> {
    let context = Span::current().context();
    let mut carrier = HashMap::new();
    global::get_text_map_propagator(|known| known.inject_context(&context, &mut carrier));
    carrier.remove(TRACEPARENT)
}

/// Says that the current span's work failed, and why in one word.
pub fn failed(reason: &'static str) {
    Span::current().set_status(Status::error(reason));
}

/// A span that began at a time in the past and ends now, for what turns out only in the end to
/// belong to a trace. Nothing where there is no parent.
pub fn ended(
    name: &'static str,
    traceparent: Option<&str>,
    began: SystemTime,
    attributes: Vec<KeyValue>,
) {
    let Some(parent) = parent(traceparent) else { return };
    let tracer = global::tracer_provider().tracer("colophon");
    let span = tracer.span_builder(name).with_start_time(began).with_attributes(attributes);
    tracer.build_with_context(span, &parent).end();
}

fn parent(traceparent: Option<&str>) -> Option<Context> {
    let carrier = Carrier(well_formed(traceparent?)?);
    let context = global::get_text_map_propagator(|known| {
        known.extract_with_context(&Context::new(), &carrier)
    });
    context.span().span_context().is_valid().then_some(context)
}

/// The `version-trace-parent-flags` of a value (W3C Trace Context, section 3.2), read strictly:
/// hexadecimal digits in lower case, and each part as long as it must be.
fn well_formed(value: &str) -> Option<&str> {
    let (known, more) = value.split_at_checked(LENGTH)?;
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let dash = |at: usize| matches!(at, 2 | 35 | 52);
    let formed = known
        .bytes()
        .enumerate()
        .all(|(at, byte)| if dash(at) { byte == b'-' } else { digit(byte) });
    let version = known.get(..2)?;
    let whole = more.is_empty() || (version != "00" && more.starts_with('-'));
    (formed && whole && version != "ff").then_some(known)
}

/// Shows a propagator the one value that was found good.
struct Carrier<'a>(&'a str);

impl Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_strictly() {
        assert_eq!(well_formed(GOOD), Some(GOOD));
        let later = format!("cc{}-more", &GOOD[2..]);
        assert_eq!(well_formed(&later), Some(&later[..LENGTH]));
        for value in [
            "",
            "00",
            &GOOD[1..],
            &format!("{GOOD}-more"),
            &format!("{GOOD}0"),
            &format!(" {GOOD}"),
            &format!("ff{}", &GOOD[2..]),
            &GOOD.to_uppercase(),
            &GOOD.replace("4bf9", "+bf9"),
            &GOOD.replace('-', "_"),
            &GOOD.replace("4bf9", "4b\u{e9}9"),
            &"é".repeat(40),
        ] {
            assert_eq!(well_formed(value), None, "{value}");
        }
    }

    #[test]
    fn nothing_is_said_where_nothing_traces() {
        adopt(&Span::current(), Some(GOOD));
        failed("INTERNAL");
        ended("x", Some(GOOD), SystemTime::UNIX_EPOCH, Vec::new());
        assert_eq!(current(), None);
    }
}
