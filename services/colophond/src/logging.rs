//! Logs go to standard error. Only our own code is ever logged in detail: libraries for HTTP and
//! Vault write requests, and with them tokens, into their traces and spans.

use anyhow::{Context, Result};
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::config::{LogFormat, LogSection};

/// Starts logging; `RUST_LOG` goes before the configuration.
pub(crate) fn start(section: &LogSection) -> Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(filter).context("RUST_LOG")?,
        _ => EnvFilter::try_new(&section.filter).context("log.filter")?,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match section.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // For the whole subscriber, not for the one layer: a library that asks whether a line would be
    // logged leaves its answer behind in a layer's own filter, and our next line gets lost.
    tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(may_be_logged))
        .with(lines)
        .try_init()
        .context("logging was started twice")
}

/// Our own spans and events; of everybody else's only warnings and errors.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("colophon")
        || (metadata.is_event() && *metadata.level() <= Level::WARN)
}
