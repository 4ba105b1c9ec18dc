//! The command line. What it says in `--help` is the reference; `docs/cli.md` is the guide.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use colophon_api::{Timestamp, v1::ReleaseState};
use colophon_domain::{Clock as _, SystemClock};

use crate::{moment, targets::Targets};

const EXIT_CODES: &str = "\
Exit codes:
  0    every tag is where it should be; with --no-wait: the release was accepted
  1    the release ended FAILED, ERRORED or CANCELLED
  2    the command line is wrong
  3    the server refused the request
  4    the release was still running when --timeout passed
  5    the server could not be reached, or was not ready
  130  interrupted; an accepted release goes on

The token is read from COLOPHON_TOKEN or from a file (--token-file), never from an argument.";

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
    /// List releases, newest first
    Releases(Releases),
    /// Show one release
    Release(ShowRelease),
    /// Stop a release before any of its tags moves
    Cancel(Cancel),
    /// Show the moves of tags, newest first
    #[command(after_help = TIMES)]
    History(History),
    /// Show what a tag pointed to
    #[command(after_help = TIMES)]
    Resolve(Resolve),
}

/// What to publish, where and as what.
#[derive(Debug, Args)]
#[command(after_help = TIMES, after_long_help = format!("{TIMES}\n\n{EXIT_CODES}"))]
pub struct Publish {
    /// The image, host[:port]/name:tag or host[:port]/name@digest
    pub source: String,
    /// The repositories and their tags.
    #[command(flatten)]
    pub targets: Targets,
    /// Why, for the ledger
    #[arg(long)]
    pub reason: Option<String>,
    /// On whose behalf; recorded as claimed
    #[arg(long, value_name = "NAME")]
    pub on_behalf_of: Option<String>,
    /// A label to find the release by; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub label: Vec<(String, String)>,
    /// Begin no tag after this time
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    pub not_after: Option<Timestamp>,
    /// -100 to 100, greater goes first
    #[arg(long, allow_negative_numbers = true, default_value_t = 0, hide_default_value = true)]
    pub priority: i32,
    /// Makes running the command again safe; a random one if left out
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Return as soon as the release is accepted
    #[arg(long)]
    pub no_wait: bool,
    /// Give up waiting after this long; the release goes on
    #[arg(long, value_name = "DURATION", value_parser = moment::duration, default_value = "30m")]
    pub timeout: Duration,
}

/// Narrows the list of releases.
#[derive(Debug, Args)]
pub struct Releases {
    /// Only releases that publish to this repository
    #[arg(long)]
    pub repository: Option<String>,
    /// Only releases in this state, for example SUCCEEDED; may be repeated
    #[arg(long, value_parser = state)]
    pub state: Vec<ReleaseState>,
    /// Only releases of this caller
    #[arg(long, value_name = "NAME")]
    pub actor: Option<String>,
    /// Only releases with this label
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
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
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    pub after: Option<Timestamp>,
    /// Only moves before this time
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
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
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    pub at: Option<Timestamp>,
}

fn timestamp(text: &str) -> Result<Timestamp, String> {
    moment::parse(text, SystemClock.now()).map(Timestamp::from)
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("give KEY=VALUE".to_owned()),
    }
}

fn state(text: &str) -> Result<ReleaseState, String> {
    match ReleaseState::from_short_name(text) {
        Some(state) if state != ReleaseState::Unspecified => Ok(state),
        _ => Err("give QUEUED, RUNNING, SUCCEEDED, FAILED, ERRORED or CANCELLED".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_publish_is_read_whole() {
        let line = "colophon publish a/x:1 --to b/x --tag 1 --float latest --label team=web \
                    --label a=b=c --priority -5 --timeout 90s --server http://localhost:1";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Publish(publish) = cli.command else { panic!("another command") };
        assert_eq!(publish.source, "a/x:1");
        assert_eq!(publish.targets.0[0].floating_tags, ["latest"]);
        assert_eq!(publish.label[1], ("a".into(), "b=c".into()));
        assert_eq!(publish.priority, -5);
        assert_eq!(publish.timeout, Duration::from_secs(90));
        assert_eq!(cli.connection.server.as_deref(), Some("http://localhost:1"));
    }

    #[test]
    fn states_labels_and_limits_are_checked() {
        assert_eq!(state("failed"), Ok(ReleaseState::Failed));
        assert!(state("unspecified").is_err());
        assert!(label("=x").is_err() && label("x").is_err());
        for line in ["colophon releases --limit 0", "colophon history", "colophon release"] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
        }
        assert!(Cli::try_parse_from(["colophon", "history", "--release", "x"]).is_ok());
    }
}
