//! The options of the commands that ask, stop or go on: `releases`, `release`, `cancel`, `retry`,
//! `history`, `resolve`.

use std::time::Duration;

use clap::Args;
use colophon_api::{Timestamp, v1::ReleaseState};

use super::{moment, values};

/// Narrows the list of releases.
#[derive(Debug, Args)]
pub struct Releases {
    /// Only releases that publish to this repository
    #[arg(long)]
    pub repository: Option<String>,
    /// Only releases in this state, for example SUCCEEDED; may be repeated
    #[arg(long, value_parser = values::state)]
    pub state: Vec<ReleaseState>,
    /// Only releases of this caller
    #[arg(long, value_name = "NAME")]
    pub actor: Option<String>,
    /// Only releases with this label
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::label)]
    pub label: Option<(String, String)>,
    /// At most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}

/// Names a release to show.
#[derive(Debug, Args)]
#[command(after_help = "Without --wait the exit code is 0 whatever the release's state.")]
pub struct ShowRelease {
    /// The release
    pub id: String,
    /// Wait until it has ended, and exit as `publish` does
    #[arg(long)]
    pub wait: bool,
    /// Give up waiting after this long; the release goes on
    #[arg(long, value_name = "DURATION", value_parser = moment::duration, default_value = "30m")]
    pub timeout: Duration,
}

/// Names a release to put to work again.
#[derive(Debug, Args)]
#[command(after_help = "The release keeps its place in the order of acceptance: what a newer one \
                        has meanwhile stays.")]
pub struct Retry {
    /// The release
    pub id: String,
    /// Why, for the record
    #[arg(long)]
    pub reason: Option<String>,
    /// Return as soon as the release is at work
    #[arg(long)]
    pub no_wait: bool,
    /// Give up waiting after this long; the release goes on
    #[arg(long, value_name = "DURATION", value_parser = moment::duration, default_value = "30m")]
    pub timeout: Duration,
}

/// Names a release to stop.
#[derive(Debug, Args)]
pub struct Cancel {
    /// The release
    pub id: String,
    /// Why, for the record
    #[arg(long)]
    pub reason: Option<String>,
}

/// Narrows the history.
#[derive(Debug, Args)]
pub struct History {
    /// A tag, host[:port]/name:tag, or a repository, host[:port]/name
    #[arg(value_name = "REFERENCE|REPOSITORY", required_unless_present_any = ["release", "actor"])]
    pub subject: Option<String>,
    /// Only moves of this release
    #[arg(long, value_name = "ID")]
    pub release: Option<String>,
    /// Only moves that this caller asked for
    #[arg(long, value_name = "NAME")]
    pub actor: Option<String>,
    /// Only moves at or after this time
    #[arg(long, value_name = "TIME", value_parser = values::timestamp)]
    pub after: Option<Timestamp>,
    /// Only moves before this time
    #[arg(long, value_name = "TIME", value_parser = values::timestamp)]
    pub before: Option<Timestamp>,
    /// Also intents, which are recorded before a tag is moved
    #[arg(long)]
    pub intents: bool,
    /// At most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}

/// Names a tag and a time.
#[derive(Debug, Args)]
pub struct Resolve {
    /// The tag, host[:port]/name:tag
    pub reference: String,
    /// At this time; now if left out
    #[arg(long, value_name = "TIME", value_parser = values::timestamp)]
    pub at: Option<Timestamp>,
}
