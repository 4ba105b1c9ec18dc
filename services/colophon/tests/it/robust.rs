//! A server that is away, restarts, loses an answer or is not who it says.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Stdio},
    time::Duration,
};

use rcgen::{CertificateParams, KeyPair};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    ID, PUBLISH, TOKEN, bare, colophon,
    fake::{Fake, Step, until},
    queued, ran, run, running, succeeded,
};

fn spawn(fake: &Fake, line: &str) -> Child {
    colophon(fake, line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A port of ours that refuses connections for as long as the socket lives.
fn refusing() -> (tokio::net::TcpSocket, SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[test]
fn a_server_that_is_away_exits_with_5() {
    let (_socket, address) = refusing();
    for line in [&format!("{PUBLISH} --timeout 500ms --idempotency-key k7"), "resolve b/x:1"] {
        let mut command = bare(&format!("{line} --server http://{address}"));
        command.env("COLOPHON_TOKEN", TOKEN);
        let ran = run(command);
        assert_eq!(ran.code, Some(5), "{}", ran.err);
        assert!(ran.err.contains("error: the server cannot be reached"), "{}", ran.err);
        assert!(ran.err.contains("note: ") && ran.err.contains("trying again"), "{}", ran.err);
        assert_eq!(ran.err.contains("--idempotency-key k7"), line.contains("publish"));
    }
}

#[test]
fn unavailable_is_tried_again_under_the_same_key() {
    let fake = Fake::start();
    let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(150)));
    let limited = Status::with_error_details(Code::ResourceExhausted, "slow down", details);
    fake.script().create.extend([
        Step::Refuse(Status::unavailable("the database cannot be reached")),
        Step::Refuse(limited),
        Step::Answer(succeeded()),
    ]);
    let ran = run(colophon(&fake, PUBLISH));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("note: the database cannot be reached; trying again"), "{}", ran.err);
    let script = fake.script();
    assert_eq!(script.created.len(), 3);
    assert!(!script.created[0].idempotency_key.is_empty());
    assert!(script.created.iter().all(|request| *request == script.created[0]));
}

#[test]
fn a_lost_answer_makes_no_second_release() {
    let mut fake = Fake::start();
    fake.script().create.extend([Step::Hang, Step::Answer(succeeded())]);
    let child = spawn(&fake, PUBLISH);
    until("the first request", || fake.script().created.len() == 1);
    fake.kill();
    fake.resume();
    let ran = ran(&child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let script = fake.script();
    assert_eq!(script.created.len(), 2);
    assert_eq!(script.created[0].idempotency_key, script.created[1].idempotency_key);
}

#[test]
fn a_restart_while_waiting_does_not_fail_the_pipeline() {
    let mut fake = Fake::start();
    fake.script().create.push_back(Step::Answer(queued()));
    fake.script().get.push_back(Step::Answer(running()));
    let child = spawn(&fake, PUBLISH);
    until("a first look", || fake.script().authorization.len() > 2);
    fake.kill();
    let mut script = fake.script();
    script.get.clear();
    script.get.extend([Step::Refuse(Status::unavailable("starting")), Step::Answer(succeeded())]);
    drop(script);
    fake.resume();
    let ran = ran(&child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("trying again"), "{}", ran.err);
    assert_eq!(fake.script().created.len(), 1);
}

#[test]
fn a_refusal_while_waiting_says_that_the_release_goes_on() {
    let fake = Fake::start();
    fake.script().create.push_back(Step::Answer(queued()));
    fake.script().get.push_back(Step::Refuse(Status::not_found("no such release")));
    let ran = run(colophon(&fake, PUBLISH));
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    assert!(ran.err.contains(&format!("what became of release {ID}")), "{}", ran.err);
}

#[test]
fn the_token_file_goes_before_the_variable() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "hush-from-a-file\n").unwrap();
    let fake = Fake::start();
    let mut command = colophon(&fake, "releases");
    command.env("COLOPHON_TOKEN_FILE", &file);
    assert_eq!(run(command).code, Some(0));
    let mut command = bare(&format!("releases --server http://{}", fake.address()));
    command.env("COLOPHON_TOKEN", "");
    assert_eq!(run(command).code, Some(0));
    let seen = fake.script().authorization.clone();
    assert_eq!(seen, [Some("Bearer hush-from-a-file".to_owned()), None]);
}

#[test]
fn https_needs_a_certificate_that_is_trusted() {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    fs::write(&file, &certificate).unwrap();
    let fake = Fake::start_tls(&certificate, &key.serialize_pem());
    let server = format!("--server https://localhost:{}", fake.address().port());

    let mut trusting = bare(&format!("releases {server} --ca-file {}", file.display()));
    trusting.env("COLOPHON_TOKEN", TOKEN);
    let ran = run(trusting);
    assert_eq!(ran.code, Some(0), "{}", ran.err);

    // Another CA than the server's, so that the outcome does not hang on what this machine has.
    let other = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    fs::write(&file, other.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()).unwrap();
    let ran = run(bare(&format!("{PUBLISH} {server} --ca-file {}", file.display())));
    assert_eq!(ran.code, Some(5), "{}", ran.err);
    assert!(ran.err.contains("certificate"), "{}", ran.err);
    assert!(!ran.err.contains("trying again"), "{}", ran.err);
    assert_eq!(fake.script().authorization.len(), 1);
}
