//! The real program against a server of the contract that a test directs.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test that fails fails the test"
)]

mod codes;
mod engine;
mod fake;
mod freezes;
mod outcomes;
mod plans;
mod pruning;
mod pushing;
mod queries;
mod robust;
mod rollbacks;
mod shells;
mod uploads;
mod usage;
mod watching;

use std::{
    collections::HashMap,
    process::{Command, Output, Stdio},
};

use colophon_api::v1::{
    Publication, PublicationState, Release, ReleaseState, TagKind, TagMove, TagMoveState,
};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::fake::Fake;

const TOKEN: &str = "hush-a-secret-token";

/// The program, talking to this server with the token.
fn colophon(fake: &Fake, line: &str) -> Command {
    let mut command = bare(line);
    command
        .env("COLOPHON_SERVER", format!("http://{}", fake.address()))
        .env("COLOPHON_TOKEN", TOKEN);
    command
}

/// The program with nothing of this machine's settings.
fn bare(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_colophon"));
    command.args(line.split_whitespace()).env_clear().stdin(Stdio::null());
    command
}

/// The same where a value holds spaces.
fn colophon_with(fake: &Fake, arguments: &[&str]) -> Command {
    let mut command = colophon(fake, "");
    command.args(arguments);
    command
}

/// A refusal as the server makes it.
fn refusal(code: Code, reason: &str, message: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "colophon", HashMap::new());
    Status::with_error_details(code, message, details)
}

/// How it ended: exit code, stdout, stderr.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(mut command: Command) -> Ran {
    ran(&command.output().unwrap())
}

/// Also sees to it that the token is in nothing that was printed.
fn ran(output: &Output) -> Ran {
    let out = String::from_utf8(output.stdout.clone()).unwrap();
    let err = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(!out.contains("hush") && !err.contains("hush"), "{out}{err}");
    Ran { code: output.status.code(), out, err }
}

const ID: &str = "019a4d1c-0000-7000-8000-000000000001";
const PUBLISH: &str = "publish ghcr.io/a/x:sha-1 --to docker.io/a/x --tag 1.4.2 --float 1.4";

/// A release of one target with a unique and a floating tag.
fn release(state: ReleaseState, tags: TagMoveState) -> Release {
    let tag = |name: &str, kind: TagKind| TagMove {
        tag: name.into(),
        kind: kind.into(),
        state: tags.into(),
        new_digest: format!("sha256:{}", "b".repeat(64)),
        ..TagMove::default()
    };
    Release {
        id: ID.into(),
        source: "ghcr.io/a/x:sha-1".into(),
        digest: format!("sha256:{}", "b".repeat(64)),
        state: state.into(),
        publications: vec![Publication {
            repository: "docker.io/a/x".into(),
            state: PublicationState::Queued.into(),
            tags: vec![tag("1.4.2", TagKind::Unique), tag("1.4", TagKind::Floating)],
            ..Publication::default()
        }],
        ..Release::default()
    }
}

fn queued() -> Release {
    release(ReleaseState::Queued, TagMoveState::Pending)
}

fn running() -> Release {
    release(ReleaseState::Running, TagMoveState::Pending)
}

fn succeeded() -> Release {
    release(ReleaseState::Succeeded, TagMoveState::Moved)
}
