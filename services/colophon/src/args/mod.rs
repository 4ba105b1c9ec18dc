//! The command line. What it says in `--help` is the reference; `docs/cli.md` is the guide. Each
//! group of commands has a file of its own.

mod along;
mod freeze;
mod moment;
mod publish;
mod push;
mod queries;
mod rollback;
mod shells;
mod targets;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::{
    freeze::{Freeze, Freezes, Lift},
    publish::{Plan, Publish, Terms, Waiting},
    push::{Outputs, PruneLocal, Push, Reading, WorkingCopy},
    queries::{Cancel, History, Releases, Resolve, Retry, ShowRelease},
    rollback::{Rollback, Settle, SettledChoice},
    shells::{Completions, Man},
};
use crate::exit::EXIT_CODES;

const TIMES: &str = "TIME is RFC 3339, \"YYYY-MM-DD HH:MM\" or \"HH:MM\" of today (both UTC), \
                     \"2h ago\" or \"in 2h\".";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "colophon", version, about, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    /// How to reach the server.
    #[command(flatten)]
    pub connection: Connection,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t, global = true)]
    pub output: Output,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to reach the server, and as whom.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// The server, `https://host[:port]` or `http://host:port`
    #[arg(
        long,
        env = "COLOPHON_SERVER",
        hide_env_values = true,
        value_name = "URL",
        global = true
    )]
    pub server: Option<String>,
    /// Also trust the certificates in this PEM file
    #[arg(
        long,
        env = "COLOPHON_CA_FILE",
        hide_env_values = true,
        value_name = "FILE",
        global = true
    )]
    pub ca_file: Option<PathBuf>,
    /// Read the token from this file; it goes before `COLOPHON_TOKEN`
    #[arg(
        long,
        env = "COLOPHON_TOKEN_FILE",
        hide_env_values = true,
        value_name = "FILE",
        global = true
    )]
    pub token_file: Option<PathBuf>,
    /// Send the token over plain HTTP to another machine, where anyone on the way can read it
    #[arg(long, global = true)]
    pub insecure_http: bool,
}

/// The form of the answer on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// For people; its layout may change
    #[default]
    Table,
    /// For scripts: the contract's messages, every key present
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copy an image where it is missing, then move the tags, and wait until that is done
    Publish(Box<Publish>),
    /// Send an image of this machine where it is to be published, then move the tags as `publish`
    /// does
    Push(Box<Push>),
    /// Show what `publish` would do with the same options, and move nothing
    Plan(Box<Plan>),
    /// Move floating tags back, and wait until that is done
    Rollback(Box<Rollback>),
    /// List releases, newest first
    Releases(Releases),
    /// Show one release
    Release(ShowRelease),
    /// Put a release to work again that ended without success, and wait until that is done
    Retry(Retry),
    /// Stop a release; floating tags that it has moved already are put back
    Cancel(Cancel),
    /// Show the moves of tags, newest first
    #[command(after_help = TIMES)]
    History(History),
    /// Show what a tag pointed to
    #[command(after_help = TIMES)]
    Resolve(Resolve),
    /// Stop every move of tags, of everything or of a part, until a time
    #[command(after_help = TIMES)]
    Freeze(Freeze),
    /// List the freezes that hold, newest first
    Freezes(Freezes),
    /// End a freeze before its time
    Lift(Lift),
    /// Say what became of an interrupted move, where the registry cannot be asked any more
    Settle(Settle),
    /// Remove local names of images that are published
    PruneLocal(PruneLocal),
    /// Print what a shell needs to complete command lines
    Completions(Completions),
    /// Write the manual pages into a folder
    Man(Man),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use colophon_testkit::docs;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_missing_or_out_of_range_is_a_usage_error() {
        for line in [
            "colophon releases --limit 0",
            "colophon history",
            "colophon release",
            "colophon rollback --reason bad",
            "colophon rollback b/x:1",
            "colophon rollback b/x:1 --steps 0 --reason bad",
            "colophon rollback b/x:1 --steps 1 --to sha256:x --reason bad",
            "colophon rollback b/x:1 --release 1 --reason bad",
            "colophon rollback --release 1 --steps 1 --reason bad",
            "colophon settle b/x:1 --reason seen",
            "colophon settle b/x:1 --as maybe --reason seen",
            "colophon freeze * --for 2h",
            "colophon freeze * --for 2h --until 14:02 --reason x",
            "colophon lift",
        ] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
        }
        assert!(Cli::try_parse_from(["colophon", "history", "--release", "x"]).is_ok());
    }

    #[test]
    fn the_docs_show_only_commands_that_there_are() {
        let lines = docs::lines("colophon").unwrap();
        assert!(lines.len() >= 20, "{} lines were found", lines.len());
        for line in lines {
            let parsed = Cli::try_parse_from(&line.words);
            assert!(parsed.is_ok(), "{}: {}", line.place, parsed.unwrap_err());
        }
        let mut command = Cli::command();
        command.build();
        let wrong = docs::mentions(&command).unwrap();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
