//! Log lines with the ids of the trace and the span that they were written in.

use std::fmt;

use opentelemetry::{Context, trace::TraceContextExt as _};
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// Another format's lines, and in them `trace_id` and `span_id` where there is a trace: as first
/// fields of an object, at the end of a text.
pub(crate) struct Traced<F>(pub(crate) F);

impl<S, N, F> FormatEvent<S, N> for Traced<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let current = Context::map_current(|current| {
            let span = current.span().span_context().clone();
            span.is_valid().then(|| (span.trace_id(), span.span_id()))
        });
        let Some((trace, span)) = current else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(rest) => {
                write!(writer, "{{\"trace_id\":\"{trace}\",\"span_id\":\"{span}\",{rest}")
            }
            None => writeln!(writer, "{} trace_id={trace} span_id={span}", line.trim_end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing::Level;
    use tracing_subscriber::{
        EnvFilter, Layer as _, filter::filter_fn, fmt::format::JsonFields,
        layer::SubscriberExt as _,
    };

    use super::*;
    use crate::telemetry::{Anew, filter::OwnSpans, is_own};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written with our filters at `info`, as text or as JSON.
    fn written(json: bool, work: impl FnOnce()) -> String {
        let written = Written::default();
        let out = written.clone();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || out.clone());
        let format = tracing_subscriber::fmt::format::Format::default();
        let lines = if json {
            let format = Traced(format.json().flatten_event(true));
            lines.fmt_fields(JsonFields::new()).event_format(format).boxed()
        } else {
            lines.with_ansi(false).event_format(Traced(format.with_ansi(false))).boxed()
        };
        let tracer = SdkTracerProvider::builder().build().tracer("test");
        let spans = tracing_opentelemetry::layer().with_tracer(tracer);
        let subscriber = tracing_subscriber::registry()
            .with(filter_fn(|metadata| is_own(metadata) || *metadata.level() <= Level::WARN))
            .with(spans.with_filter(Anew(OwnSpans)))
            .with(lines.with_filter(Anew(EnvFilter::new("info"))));
        tracing::subscriber::with_default(subscriber, work);
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    /// A span that the log's filter leaves out, and a line in it.
    fn in_a_span() {
        tracing::debug_span!("quiet").in_scope(|| tracing::info!(number = 7, "said"));
    }

    #[test]
    fn an_object_begins_with_the_ids_of_its_trace() {
        let text = written(true, in_a_span);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        let length = |key: &str| line[key].as_str().unwrap().len();
        assert_eq!((length("trace_id"), length("span_id")), (32, 16), "{text}");
        assert_eq!((&line["number"], &line["message"]), (&7.into(), &"said".into()));
        assert!(line.get("span").is_none(), "RUST_LOG decides which spans are shown: {text}");
    }

    #[test]
    fn a_text_ends_with_them_and_a_line_without_a_trace_is_as_it_was() {
        let text = written(false, in_a_span);
        assert!(text.contains("said number=7 trace_id=") && text.ends_with('\n'), "{text}");
        assert_eq!(text.lines().count(), 1);
        let text = written(false, || tracing::info!("alone"));
        assert!(text.trim_end().ends_with("alone"), "{text}");
    }

    #[test]
    fn a_library_that_only_asks_takes_no_line_and_no_span_away() {
        let text = written(false, || {
            for _ in 0..3 {
                // Too quiet for the log, and no span: both filters say no, and nothing follows.
                let _asked = tracing::enabled!(target: "colophon_other", Level::DEBUG);
                let _asked = tracing::enabled!(target: "h2", Level::TRACE);
                in_a_span();
            }
        });
        assert_eq!(text.matches("said number=7 trace_id=").count(), 3, "{text}");
    }
}
