//! The options of `rollback` and `settle`.

use clap::{Args, ValueEnum};
use colophon_api::Timestamp;

use super::{TIMES, Waiting, values};
use crate::exit::EXIT_CODES;

/// What goes back, how far and why.
#[derive(Debug, Args)]
#[command(after_help = TIMES, after_long_help = format!("{TIMES}\n\n{EXIT_CODES}"))]
pub struct Rollback {
    /// A floating tag, host[:port]/name:tag
    #[arg(required_unless_present = "release", conflicts_with = "release")]
    pub reference: Option<String>,
    /// In place of REFERENCE: all floating tags that this release has moved
    #[arg(long, value_name = "ID", conflicts_with_all = ["steps", "at", "to", "expect"])]
    pub release: Option<String>,
    /// So many positions back; a rollback after a rollback goes further back [default: 1]
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(i32).range(1..=10_000),
        conflicts_with_all = ["at", "to"]
    )]
    pub steps: Option<i32>,
    /// To where the tag was at this time
    #[arg(long, value_name = "TIME", value_parser = values::timestamp, conflicts_with = "to")]
    pub at: Option<Timestamp>,
    /// To a digest that the tag had once
    #[arg(long, value_name = "DIGEST", value_parser = values::digest)]
    pub to: Option<String>,
    /// Only if the tag is at this digest now
    #[arg(long, value_name = "DIGEST", value_parser = values::expected)]
    pub expect: Option<String>,
    /// Why, for the ledger
    #[arg(long, value_parser = values::reason)]
    pub reason: String,
    /// Move tags in spite of a freeze; the ledger says that it was done
    #[arg(long)]
    pub break_glass: bool,
    /// On whose behalf; recorded as claimed
    #[arg(long, value_name = "NAME")]
    pub on_behalf_of: Option<String>,
    /// A label to find the release by; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::label)]
    pub label: Vec<(String, String)>,
    /// How to wait.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// What became of an interrupted move.
#[derive(Debug, Args)]
pub struct Settle {
    /// The tag, host[:port]/name:tag
    pub reference: String,
    /// Whether the tag was moved: moved, it is at the new digest; not-moved, it is where it was
    #[arg(long = "as", value_enum, hide_possible_values = true, value_name = "moved|not-moved")]
    pub settled_as: SettledChoice,
    /// How that is known, for the ledger
    #[arg(long, value_parser = values::reason)]
    pub reason: String,
    /// On whose behalf; recorded as claimed
    #[arg(long, value_name = "NAME")]
    pub on_behalf_of: Option<String>,
}

/// What a person says of an interrupted move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SettledChoice {
    /// The tag is at the new digest.
    Moved,
    /// The tag is where it was.
    NotMoved,
}
