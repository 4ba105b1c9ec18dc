//! Tables on stdout. Their layout is for people and may change; scripts take `--output json`.

mod freeze;
mod plan;
mod release;
mod tag;

use colophon_api::Timestamp;

pub use self::{
    freeze::{freeze, freezes},
    plan::plan,
    release::{release, releases},
    tag::{moves, tag},
};
use crate::text::{append, clean, or_dash};

/// Names and values below each other; what is empty is left out.
fn pairs(pairs: &[(&str, String)]) -> String {
    let shown = || pairs.iter().filter(|(_, value)| !value.is_empty());
    let width = shown().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in shown() {
        append(&mut text, format_args!("{name:width$}  {value}\n"));
    }
    text
}

fn actor(actor: &str, on_behalf_of: &str) -> String {
    match on_behalf_of {
        "" => or_dash(actor),
        claimed => format!("{} for {}", or_dash(actor), clean(claimed)),
    }
}

fn time(time: Option<&Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// To the second, for tables.
fn short_time(moment: Option<&Timestamp>) -> String {
    let text = time(moment);
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

fn more(token: &str) -> &'static str {
    if token.is_empty() { "" } else { "(there are more: raise --limit)\n" }
}
