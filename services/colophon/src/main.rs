//! The command line client of Colophon: publishes images under tags and asks what tags pointed
//! to. It talks gRPC to the server, and for `push` to the Docker engine of its machine; it never sees
//! a registry or its credentials.

mod answer;
mod args;
mod call;
mod connect;
mod exit;
mod freeze;
mod interrupt;
mod plan;
mod progress;
mod publish;
mod push;
mod queries;
mod render;
mod rollback;
mod settle;
mod submit;
mod text;
mod watch;

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;

use crate::{
    answer::{Answer, finish},
    args::{Cli, Command},
    connect::Client,
    exit::Problem,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = cli.output;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => Err(Problem::usage(format!("this machine gives no event loop: {error}"))),
    };
    finish(result, output, may_color())
}

async fn run(cli: Cli) -> Result<Answer, Problem> {
    let client = || Client::new(&cli.connection);
    match cli.command {
        // These are about the program itself, and need no server.
        Command::Completions(args) => Ok(Answer::Text(args.script())),
        Command::Man(args) => args.write().map(Answer::Text),
        Command::Publish(args) => publish::publish(&client()?, *args).await,
        Command::Push(args) => push::push(&client()?, *args).await,
        Command::PruneLocal(args) => push::prune(&client()?, args).await,
        Command::Plan(args) => plan::plan(&client()?, *args, &line()).await,
        Command::Rollback(args) => rollback::rollback(&client()?, *args).await,
        Command::Release(args) => publish::show(&client()?, args).await,
        Command::Releases(args) => queries::releases(&client()?, args).await,
        Command::Retry(args) => publish::retry(&client()?, args).await,
        Command::Cancel(args) => queries::cancel(&client()?, args).await,
        Command::History(args) => queries::history(&client()?, args).await,
        Command::Resolve(args) => queries::resolve(&client()?, args).await,
        Command::Freeze(args) => freeze::freeze(&client()?, args).await,
        Command::Freezes(args) => freeze::list(&client()?, &args).await,
        Command::Lift(args) => freeze::lift(&client()?, args).await,
        Command::Settle(args) => settle::settle(&client()?, args).await,
    }
}

/// The command line as it was typed; what is no Unicode cannot be shown again anyway.
fn line() -> Vec<String> {
    std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect()
}

/// Whether stderr is a terminal whose owner did not ask for plain text (no-color.org).
fn may_color() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stderr().is_terminal() && !refused && !dumb
}
