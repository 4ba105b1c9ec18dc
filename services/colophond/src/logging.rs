//! Logs go to standard error. Only our own code is ever logged in detail: libraries for HTTP and
//! Vault write requests, and with them tokens, into their traces and spans.

use anyhow::{Context, Result};
use colophon_domain::Failure;
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::filter_fn,
    fmt::format::{Format, JsonFields},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{
    config::{LogFormat, LogSection},
    telemetry::{Anew, Telemetry, Traced, is_own},
};

/// Starts logging; `RUST_LOG` goes before the configuration.
pub(crate) fn start(section: &LogSection, telemetry: &Telemetry) -> Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(filter).context("RUST_LOG")?,
        _ => section.parsed()?,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match section.format {
        LogFormat::Text => {
            let format = Traced(Format::default().with_ansi(false));
            lines.with_ansi(false).event_format(format).boxed()
        }
        LogFormat::Json => {
            let format = Traced(Format::default().json().flatten_event(true));
            lines.fmt_fields(JsonFields::new()).event_format(format).boxed()
        }
    };
    // What may be heard at all holds for every layer. What is heard of it is each layer's own
    // question, asked anew every time.
    tracing_subscriber::registry()
        .with(filter_fn(may_be_logged))
        .with(telemetry.layer())
        .with(lines.with_filter(Anew(filter)))
        .try_init()
        .context("logging was started twice")
}

impl LogSection {
    /// Refuses a filter that is none.
    pub(crate) fn check(&self) -> colophon_domain::Result<()> {
        self.parsed().map(drop)
    }

    fn parsed(&self) -> colophon_domain::Result<EnvFilter> {
        EnvFilter::try_new(&self.filter).map_err(|error| {
            let text = format!("log.filter is not of the form of RUST_LOG: {error}");
            Failure::invalid("log.filter", text)
        })
    }
}

/// Our own spans and events; of everybody else's only warnings and errors.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    is_own(metadata) || (metadata.is_event() && *metadata.level() <= Level::WARN)
}
