//! `colophond dev`: everything on one machine with one command. PostgreSQL, two registries and
//! OpenBao are started beside the service from what is installed, filled with an example, and
//! stopped with it, however it ends.

mod config;
mod example;
mod folder;
mod parts;
mod screen;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use rustix::process::{getpid, kill_process};
use secrecy::ExposeSecret as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep},
};

use self::{
    folder::Folder,
    parts::{Beside, DATABASE_VARIABLE},
};
use crate::{
    config::Config,
    logging,
    service::{Parts, StopSignal},
    telemetry::Telemetry,
};

/// How long the service itself may take to start; its parts have their own limits.
const PATIENCE: Duration = Duration::from_mins(1);

/// Start everything on this machine, for trying Colophon out and for development.
///
/// PostgreSQL, docker-registry and OpenBao are found on the machine and started beside the
/// service. What is missing is named with the command that installs it; only a database is
/// indispensable. Everything listens on 127.0.0.1 and ends with this process. Not for production.
#[derive(Args)]
pub(crate) struct DevArgs {
    /// Where everything is kept between two starts [default: /var/lib/colophon-dev as root, else
    /// colophon-dev in the user's data folder].
    #[arg(long, value_name = "FOLDER", env = "COLOPHON_DEV_FOLDER", conflicts_with = "ephemeral")]
    folder: Option<PathBuf>,
    /// Keep nothing: begin empty, on free ports, and remove everything at the end.
    #[arg(long)]
    ephemeral: bool,
    /// The address of the API [default: 127.0.0.1:8080, or a free port with --ephemeral].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// A further registry to copy from and to, without credentials, for example `quay.io`.
    #[arg(long = "registry", value_name = "HOST")]
    registries: Vec<String>,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(args: DevArgs) -> Result<()> {
    let since = Instant::now();
    let folder = Folder::open(args.folder.as_deref(), args.ephemeral)?;
    let mut stop = StopSignal::new()?;
    end_with_the_terminal()?;
    let starting = async {
        let beside = Beside::start(&folder).await;
        let vault = beside.fill_vault(&folder).await?;
        anyhow::Ok((beside, vault))
    };
    let (beside, vault) = tokio::select! {
        started = starting => started?,
        // What was started is stopped when `starting` is dropped.
        () = stop.arrives() => return Ok(()),
    };
    for line in beside.missing() {
        eprintln!("{line}");
    }
    let Some(database) = beside.database() else {
        bail!(
            "there is no database: install PostgreSQL, or name one in the environment variable \
             {DATABASE_VARIABLE}"
        );
    };
    let caller = folder.caller()?;
    let listen = args.listen.unwrap_or_else(|| folder.listen());
    let text = config::text(&config::Settings {
        folder: folder.path(),
        listen,
        database: database.expose_secret(),
        vault: vault.as_ref(),
        token_sha256: &caller.token_sha256,
        registries: beside.hosts(),
        others: &args.registries,
    })?;
    let path = folder.write_config(&text)?;
    let mut config = Config::read(&path)?;
    config.database.ignore_environment();
    // The configuration exports nothing, so there is nothing to be sent at the end.
    let telemetry = Telemetry::start(&config.telemetry, "dev")?;
    logging::start(&config.log, &telemetry)?;
    let running = Parts::build(config)?.run(&path, true, true, &telemetry, stop);
    tokio::pin!(running);
    let server = tokio::select! {
        ended = &mut running => return ended,
        server = serving(&folder) => server?,
    };
    let example = example::Example { server: &server, caller: &caller, beside: &beside };
    tokio::select! {
        ended = &mut running => return ended,
        filled = example.fill(&folder) => filled.context("the example cannot be published")?,
    }
    screen::show(&screen::Shown {
        server: &server,
        folder: &folder,
        beside: &beside,
        took: since.elapsed(),
    });
    running.await
    // The parts are stopped when they are dropped, and the service has ended before them.
}

/// The service takes SIGHUP for a wish to read its configuration again; here it says that the
/// terminal was closed.
fn end_with_the_terminal() -> Result<()> {
    let mut closed = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        closed.recv().await;
        // In order, as if somebody had asked for it.
        let _ended = kill_process(getpid(), rustix::process::Signal::TERM);
    });
    Ok(())
}

/// Waits until the service has said where it listens.
async fn serving(folder: &Folder) -> Result<String> {
    let file = folder.address_file();
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        if let Ok(address) = std::fs::read_to_string(&file) {
            return Ok(format!("http://{address}"));
        }
        sleep(Duration::from_millis(10)).await;
    }
    bail!("the service did not begin to serve within {} s", PATIENCE.as_secs())
}
