//! What a command found out, and how it goes to stdout: a table for people or the contract's
//! JSON for scripts.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use colophon_api::v1::{
    Freeze, ListFreezesResponse, ListReleasesResponse, ListTagMovesResponse, Plan, Release, Tag,
};
use serde::Serialize;

use crate::{
    args::Output,
    exit::{Exit, Problem},
    render,
    text::clean_json,
};

/// The answer of a command.
pub enum Answer {
    /// One release, and why it is not a success if that was asked.
    Release(Box<Release>, Option<Problem>),
    /// A list of releases.
    Releases(ListReleasesResponse),
    /// A list of moves.
    Moves(ListTagMovesResponse),
    /// What a tag pointed to.
    Tag(Box<Tag>),
    /// What a release would do, the command line that does exactly that if it can be shown, and
    /// what stands against it.
    Plan(Box<Plan>, Option<String>, Option<Problem>),
    /// One freeze.
    Freeze(Box<Freeze>),
    /// A list of freezes.
    Freezes(ListFreezesResponse),
    /// A text that is the same in every form.
    Text(String),
}

impl Answer {
    /// The text for stdout.
    pub fn render(&self, output: Output) -> Result<String, Problem> {
        match (output, self) {
            (Output::Table, Self::Release(release, _)) => Ok(render::release(release)),
            (Output::Table, Self::Releases(list)) => Ok(render::releases(list)),
            (Output::Table, Self::Moves(list)) => Ok(render::moves(list)),
            (Output::Table, Self::Tag(tag)) => Ok(render::tag(tag)),
            (Output::Table, Self::Plan(plan, publish, _)) => {
                Ok(render::plan(plan, publish.as_deref()))
            }
            (Output::Table, Self::Freeze(freeze)) => Ok(render::freeze(freeze)),
            (Output::Table, Self::Freezes(list)) => Ok(render::freezes(list)),
            (_, Self::Text(text)) => Ok(text.clone()),
            (Output::Json, Self::Release(release, _)) => json(release),
            (Output::Json, Self::Releases(list)) => json(list),
            (Output::Json, Self::Moves(list)) => json(list),
            (Output::Json, Self::Tag(tag)) => json(tag),
            (Output::Json, Self::Plan(plan, ..)) => json(plan),
            (Output::Json, Self::Freeze(freeze)) => json(freeze),
            (Output::Json, Self::Freezes(list)) => json(list),
        }
    }

    /// The problem that the command ends with, if it does not end well.
    pub fn into_problem(self) -> Option<Problem> {
        match self {
            Self::Release(_, problem) | Self::Plan(_, _, problem) => problem,
            Self::Releases(_)
            | Self::Moves(_)
            | Self::Tag(_)
            | Self::Freeze(_)
            | Self::Freezes(_)
            | Self::Text(_) => None,
        }
    }
}

fn json(message: &impl Serialize) -> Result<String, Problem> {
    let text = serde_json::to_string_pretty(message).map_err(|error| {
        // Only a time outside the calendar cannot be written.
        Problem::new(Exit::Refused, format!("the server's answer cannot be written: {error}"))
    })?;
    Ok(clean_json(&text) + "\n")
}

/// Prints the answer, then the problem, and gives the exit code.
pub fn finish(result: Result<Answer, Problem>, output: Output, color: bool) -> ExitCode {
    let problem = match result {
        Err(problem) => Some(problem),
        Ok(answer) => match answer.render(output).and_then(|text| print(&text)) {
            Ok(()) => answer.into_problem(),
            Err(problem) => Some(problem),
        },
    };
    let Some(problem) = problem else { return Exit::Done.into() };
    // Nowhere is left to say that stderr is gone.
    drop(io::stderr().write_all(problem.render(color).as_bytes()));
    problem.exit.into()
}

fn print(text: &str) -> Result<(), Problem> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader such as `head` has seen enough; what was asked for has been done.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Problem::usage(format!("the answer cannot be printed: {error}"))),
        Ok(()) => Ok(()),
    }
}
