//! The service's composition root: reads the configuration, puts the floors together, and runs
//! the part that was asked for.

mod check;
mod config;
mod dev;
mod docker_import;
mod health;
mod hold;
mod live;
mod logging;
mod releases;
mod reload;
mod service;
mod telemetry;

use std::{
    fmt,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use colophon_domain::Failure;
use colophon_server::new_token;
use secrecy::ExposeSecret;

use crate::{
    config::Config,
    service::{Parts, StopSignal},
    telemetry::Telemetry,
};

/// Colophon, the publishing service for container images.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Args {
    /// The configuration file.
    #[arg(long, short, env = "COLOPHON_CONFIG", default_value = "colophon.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API; releases wait until a worker runs somewhere.
    Serve,
    /// Work on the queue; any number of workers share one database.
    Work,
    /// Serve the API and work on the queue, in one process.
    Run,
    Dev(dev::DevArgs),
    /// Bring the database's schema up to date, and end.
    Migrate,
    /// Hold everything: nothing is claimed and no tag moves until `resume`.
    Hold(hold::HoldArgs),
    /// Compare what is recorded of every tag with what its registry serves; ends with 3 if anything
    /// differs. One that was broken off goes on where it was.
    RestoreCheck {
        /// Compare also what was compared already.
        #[arg(long)]
        again: bool,
    },
    /// End the hold. After a restore the ledger is told first what the registries serve, and
    /// releases whose floating tags have moved since are cancelled; those from before that go on are
    /// listed, and put nothing back.
    Resume(hold::ResumeArgs),
    /// Look at the configuration without running anything.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Make a token for a caller: the token, once, and its entry for the configuration.
    NewToken,
    /// Print what a shell needs to complete command lines.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages into a folder.
    Man {
        /// The folder; it is made if it is not there.
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
}

#[derive(Clone, Subcommand)]
enum ConfigCommand {
    /// Say everything that is wrong with the file, with line and key. Nothing is connected, and the
    /// database's address need not be set; files with certificates are read.
    Check {
        /// Connect to the database and Vault, too.
        #[arg(long)]
        online: bool,
    },
    /// Print the JSON schema of the file.
    Schema,
    /// Print a section for each of Docker's insecure registries. Each is asked how it can be trusted;
    /// no credential is sent.
    ImportDocker {
        /// Docker's configuration.
        #[arg(value_name = "FILE", default_value = "/etc/docker/daemon.json")]
        file: PathBuf,
    },
}

/// How `restore-check` ends where something is not as recorded.
const DIFFERS: u8 = 3;

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let done = match &args.command {
        Command::NewToken => Some(print_token()),
        Command::Completions { shell } => Some(print_completions(*shell)),
        Command::Man { out } => Some(write_pages(out)),
        _ => None,
    };
    if let Some(done) = done {
        return done.map(|()| ExitCode::SUCCESS);
    }
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("the TLS provider was chosen twice"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    if let Command::Dev(args) = args.command {
        return runtime.block_on(dev::run(args)).map(|()| ExitCode::SUCCESS);
    }
    if let Command::Config { command } = args.command {
        let looked = runtime.block_on(look_at_config(command, &args.config));
        return looked.map(|()| ExitCode::SUCCESS);
    }
    let config = Config::read(&args.config).map_err(with_key)?;
    runtime.block_on(run(args.command, &args.config, config))
}

/// Says which key a value is wrong of, where the failure knows it.
pub(crate) fn with_key(error: anyhow::Error) -> anyhow::Error {
    let failure = error.downcast_ref::<Failure>();
    match failure.and_then(|failure| failure.field_name().map(str::to_owned)) {
        Some(key) => error.context(format!("the key {key}")),
        None => error,
    }
}

/// Prints a line. A reader who has gone away is no reason to stop.
pub(crate) fn say(line: impl fmt::Display) -> Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("standard output cannot be written to")
        }
        _ => Ok(()),
    }
}

async fn run(command: Command, path: &Path, config: Config) -> Result<ExitCode> {
    let telemetry = Telemetry::start(&config.telemetry, &service::worker_name())?;
    logging::start(&config.log, &telemetry)?;
    let result = work(command, path, config, &telemetry).await;
    telemetry.stop().await;
    result
}

async fn work(
    command: Command,
    path: &Path,
    config: Config,
    telemetry: &Telemetry,
) -> Result<ExitCode> {
    let parts = Parts::build(config).map_err(with_key)?;
    match command {
        Command::Serve => parts.run(path, true, false, telemetry, StopSignal::new()?).await?,
        Command::Work => parts.run(path, false, true, telemetry, StopSignal::new()?).await?,
        Command::Run => parts.run(path, true, true, telemetry, StopSignal::new()?).await?,
        Command::Hold(args) => {
            // A backup may be older than holds are. If its schema cannot be brought up to date, most
            // likely it is a newer version's: it can be held by this one all the same.
            if let Err(error) = parts.migrate().await {
                tracing::warn!(error = format!("{error:#}"), "the schema was left as it is");
            }
            hold::begin(parts.engine(), &args).await?;
        }
        Command::RestoreCheck { again } => {
            parts.migrate().await?;
            if !hold::compare(parts.engine(), again).await? {
                return Ok(ExitCode::from(DIFFERS));
            }
        }
        Command::Resume(args) => {
            parts.migrate().await?;
            hold::resume(parts.engine(), &args).await?;
        }
        Command::Migrate => parts.migrate().await?,
        Command::NewToken
        | Command::Dev(_)
        | Command::Config { .. }
        | Command::Completions { .. }
        | Command::Man { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn print_completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "colophond", &mut script);
    std::io::stdout().write_all(&script).context("the script cannot be printed")
}

fn write_pages(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Args::command(), folder))
        .with_context(|| format!("{} cannot be written to", folder.display()))?;
    say(format_args!("the manual pages are in {}", folder.display()))
}

async fn look_at_config(command: ConfigCommand, path: &Path) -> Result<()> {
    let online = match command {
        ConfigCommand::Check { online } => online,
        ConfigCommand::Schema => {
            return say(serde_json::to_string_pretty(&schemars::schema_for!(Config))?);
        }
        ConfigCommand::ImportDocker { file } => return docker_import::import(&file).await,
    };
    let text = Config::text(path)?;
    let faults = check::faults(&text);
    for fault in &faults {
        eprintln!("{}: {fault}", path.display());
    }
    if !faults.is_empty() {
        bail!("the configuration has errors: {}", faults.len());
    }
    say("the configuration is good")?;
    if online {
        Parts::build(Config::parse(&text)?).map_err(with_key)?.look().await?;
    }
    Ok(())
}

fn print_token() -> Result<()> {
    let (token, hash) = new_token()?;
    say(format_args!("# The token, shown this once:\n# {}", token.expose_secret()))?;
    say(format_args!("[[caller]]\nname = \"\"\ntoken_sha256 = \"{hash}\""))?;
    say("grants = [{ repositories = [\"ghcr.io/acme/*\"], actions = [\"read\"] }]")
}

#[cfg(test)]
mod tests {
    use colophon_testkit::docs;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_docs_show_only_commands_that_there_are() {
        let lines = docs::lines("colophond").unwrap();
        assert!(lines.len() >= 3, "{} lines were found", lines.len());
        for line in lines {
            let parsed = Args::try_parse_from(&line.words);
            assert!(parsed.is_ok(), "{}: {:?}", line.place, parsed.err());
        }
        let mut command = Args::command();
        command.build();
        let wrong = docs::mentions(&command).unwrap();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
