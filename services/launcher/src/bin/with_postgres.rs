//! `with-postgres [COMMAND [ARGUMENT..]]` runs a command with `DATABASE_URL` set to an empty
//! database of a private PostgreSQL, and ends with the command's status. Without a command it
//! prints the URL and waits until its standard input is closed.

use std::{
    env,
    error::Error,
    ffi::OsString,
    io::Write as _,
    process::{ExitCode, ExitStatus},
};

use colophon_launcher::{Postgres, PostgresOptions};
use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

#[tokio::main]
async fn main() -> ExitCode {
    match run(env::args_os().skip(1).collect()).await {
        Ok(code) => code,
        Err(error) => {
            let mut text = format!("with-postgres: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            let _closed = writeln!(std::io::stderr(), "{text}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Vec<OsString>) -> Result<ExitCode, Box<dyn Error>> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let url = postgres.create_database("colophon").await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let work = async {
        let Some((program, rest)) = arguments.split_first() else {
            writeln!(std::io::stdout(), "{url}")?;
            input_closed().await?;
            return Ok(ExitCode::SUCCESS);
        };
        let mut command = Command::new(program);
        command.args(rest).env("DATABASE_URL", &url).kill_on_drop(true);
        let status = command.status().await;
        let status = status.map_err(|error| format!("{}: {error}", program.display()))?;
        Ok(code(status))
    };
    tokio::select! {
        done = work => done,
        // Leaving through here drops the cluster, which removes its folder.
        _ = terminate.recv() => Ok(ExitCode::from(143)),
        _ = interrupt.recv() => Ok(ExitCode::from(130)),
    }
}

/// Waits for the end of standard input on a thread of its own, which a signal need not wait for.
async fn input_closed() -> Result<(), Box<dyn Error>> {
    let (closed, wait) = oneshot::channel();
    std::thread::spawn(move || {
        let read = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _nobody_waits = closed.send(read);
    });
    wait.await??;
    Ok(())
}

fn code(status: ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
