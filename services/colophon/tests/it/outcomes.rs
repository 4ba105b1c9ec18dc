//! Each end that a release can have, and the exit code that a pipeline sees.

use std::{collections::HashMap, io::BufRead as _, process::Stdio};

use colophon_api::v1::{Guard, OlderPolicy, OnFailure, OrderKey, Release, Target, order_key::Key};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    ID, PUBLISH, TOKEN, bare, colophon,
    fake::{Fake, Step},
    queued, ran, run, running, succeeded,
};

fn fake(create: Release, get: Vec<Release>) -> Fake {
    let fake = Fake::start();
    fake.script().create.push_back(Step::Answer(create));
    fake.script().get.extend(get.into_iter().map(Step::Answer));
    fake
}

#[test]
fn a_release_that_succeeds_is_awaited_and_shown() {
    let fake = fake(queued(), vec![running(), running(), succeeded()]);
    let ran = run(colophon(&fake, PUBLISH));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains(&format!("release  {ID}  SUCCEEDED")), "{}", ran.out);
    assert!(ran.out.contains("unique    1.4.2  MOVED  -    bbbbbbbbbbbb"), "{}", ran.out);
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(
        lines,
        [
            &format!("release {ID} QUEUED"),
            "docker.io/a/x QUEUED",
            &format!("release {ID} RUNNING"),
            &format!("release {ID} SUCCEEDED"),
            "docker.io/a/x:1.4.2 MOVED",
            "docker.io/a/x:1.4 MOVED",
        ]
    );
    let script = fake.script();
    assert!(
        script
            .authorization
            .iter()
            .all(|header| { header.as_deref() == Some(&format!("Bearer {TOKEN}")) })
    );
    assert_eq!(script.created.len(), 1);
}

#[test]
fn every_option_reaches_the_request() {
    let fake = fake(queued(), vec![]);
    let line = "publish a/x:1 --to b/x --tag 1 --float latest --to c/x --float edge --float v1 \
                --reason weekly --on-behalf-of ada --label team=web --label a=b --priority -7 \
                --not-after 2026-11-03T16:02:00+02:00 --idempotency-key k1 --no-wait \
                --order number:1234 --if-older supersede --allow-backward --on-failure keep \
                --plan p1 --break-glass";
    let ran = run(colophon(&fake, line));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("QUEUED"));
    let script = fake.script();
    let request = &script.created[0];
    let target = |repository: &str, unique: &[&str], floating: &[&str]| Target {
        repository: repository.into(),
        unique_tags: unique.iter().map(|&tag| tag.into()).collect(),
        floating_tags: floating.iter().map(|&tag| tag.into()).collect(),
        guards: Vec::new(),
    };
    assert_eq!(
        request.targets,
        [target("b/x", &["1"], &["latest"]), target("c/x", &[], &["edge", "v1"])]
    );
    assert_eq!((request.source.as_str(), request.priority), ("a/x:1", -7));
    assert_eq!((request.reason.as_str(), request.on_behalf_of.as_str()), ("weekly", "ada"));
    assert_eq!(request.labels["team"], "web");
    assert_eq!(request.not_after.unwrap().to_string(), "2026-11-03T14:02:00Z");
    assert_eq!((request.idempotency_key.as_str(), request.plan.as_str()), ("k1", "p1"));
    assert_eq!(request.order_key, Some(OrderKey { key: Some(Key::Number(1234)) }));
    assert_eq!(request.if_older(), OlderPolicy::Supersede);
    assert_eq!(request.on_failure(), OnFailure::Keep);
    assert!(request.allow_backward && request.break_glass);
    assert_eq!((request.semver.as_str(), request.semver_moves_pre_release), ("", false));
}

#[test]
fn conditions_and_a_version_reach_the_request() {
    let fake = fake(queued(), vec![]);
    fake.script().create.push_back(Step::Answer(queued()));
    let digest = succeeded().digest;
    let line = format!(
        "publish a/x:1 --to b/x --float 1.4 --expect 1.4={digest} --order-of 1.4=semver:1.4.2 \
         --to c/x --tag 1 --expect 1=none --no-wait"
    );
    assert_eq!(run(colophon(&fake, &line)).code, Some(0));
    let line =
        "publish a/x:1 --semver v1.4.2-rc.1 --semver-pre-release --to b/x --to c/x --no-wait";
    assert_eq!(run(colophon(&fake, line)).code, Some(0));
    let script = fake.script();
    let [first, second] = &script.created[..] else { panic!("two requests") };
    let key = Some(OrderKey { key: Some(Key::Semver("1.4.2".into())) });
    let guard = |tag: &str, expected_digest: &str, order_key| Guard {
        tag: tag.into(),
        expected_digest: expected_digest.into(),
        order_key,
    };
    assert_eq!(first.targets[0].guards, [guard("1.4", &digest, key)]);
    assert_eq!(first.targets[1].guards, [guard("1", "none", None)]);
    assert_eq!((first.if_older, first.on_failure, first.order_key.clone()), (0, 0, None));
    assert_eq!(second.semver, "v1.4.2-rc.1");
    assert!(second.semver_moves_pre_release);
    assert_eq!(second.targets.len(), 2);
    assert!(second.targets.iter().all(|target| target.unique_tags.is_empty()));
}

#[test]
fn a_refusal_exits_with_3_and_says_what_to_do() {
    let metadata: HashMap<String, String> = [
        ("field".to_owned(), "targets[0].unique_tags[0]".to_owned()),
        ("remedy".to_owned(), "choose another\u{9b}2J tag".to_owned()),
    ]
    .into();
    for code in [
        Code::InvalidArgument,
        Code::Unauthenticated,
        Code::PermissionDenied,
        Code::NotFound,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::Internal,
    ] {
        let details = ErrorDetails::with_error_info("SOME_REASON", "colophon", metadata.clone());
        let fake = Fake::start();
        let status = Status::with_error_details(code, "1.4.2 is elsewhere", details);
        fake.script().create.push_back(Step::Refuse(status));
        let ran = run(colophon(&fake, PUBLISH));
        assert_eq!(ran.code, Some(3), "{code:?}");
        assert_eq!(ran.out, "");
        assert_eq!(
            ran.err,
            "error: SOME_REASON: 1.4.2 is elsewhere\n  \
             field: targets[0].unique_tags[0]\n  \
             remedy: choose another\u{fffd}2J tag\n"
        );
    }
}

#[test]
fn a_release_that_takes_longer_than_the_timeout_exits_with_4() {
    let mut waiting = running();
    waiting.waiting_for = "vault is sealed".into();
    let fake = fake(queued(), vec![waiting]);
    let ran = run(colophon(&fake, &format!("{PUBLISH} --timeout 300ms")));
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    assert!(ran.err.contains("waits for: vault is sealed"), "{}", ran.err);
    assert!(ran.err.contains(&format!("`colophon release {ID} --wait`")), "{}", ran.err);
    assert!(ran.out.contains("RUNNING"), "{}", ran.out);
}

#[test]
fn json_is_the_contracts_message_with_every_key() {
    let fake = fake(queued(), vec![succeeded()]);
    let ran = run(colophon(&fake, &format!("{PUBLISH} --output json")));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(value["state"], "RELEASE_STATE_SUCCEEDED");
    assert_eq!(value["publications"][0]["tags"][0]["newDigest"], succeeded().digest);
    assert_eq!(value["publications"][0]["tags"][0]["oldDigest"], "");
    assert_eq!(value["attempts"], serde_json::json!([]));
    let read: Release = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(read, succeeded());
}

/// Starts `publish`, sends it a signal as soon as it waits, and gives its end.
fn interrupted_by(signal: &str) -> crate::Ran {
    let fake = fake(queued(), vec![running()]);
    let mut child =
        colophon(&fake, PUBLISH).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut err = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    err.read_line(&mut line).unwrap();
    assert_eq!(line, format!("release {ID} QUEUED\n"));
    let kill = format!("kill -{signal} {}", child.id());
    assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut err, &mut rest).unwrap();
    let mut output = child.wait_with_output().unwrap();
    output.stderr = rest;
    ran(&output)
}

#[test]
fn an_interruption_says_that_the_release_goes_on() {
    for signal in ["INT", "TERM"] {
        let ran = interrupted_by(signal);
        assert_eq!(ran.code, Some(130), "{}", ran.err);
        assert!(ran.err.contains(&format!("release {ID} goes on")), "{}", ran.err);
        assert!(ran.err.contains(&format!("`colophon cancel {ID}` stops it")), "{}", ran.err);
    }
}

#[test]
fn the_server_and_the_token_are_needed_and_kept_from_strangers() {
    let ran = run(bare("releases"));
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("COLOPHON_SERVER"), "{}", ran.err);
    let mut command = bare("releases --server http://colophon.example.com:80");
    command.env("COLOPHON_TOKEN", TOKEN);
    let ran = run(command);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("--insecure-http"), "{}", ran.err);
}

#[test]
fn help_and_version_are_there() {
    let ran = run(bare("--version"));
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (Some(0), concat!("colophon ", env!("CARGO_PKG_VERSION"), "\n"))
    );
    let mut help = bare("publish --help");
    help.env("COLOPHON_TOKEN", TOKEN);
    let ran = run(help);
    assert_eq!(ran.code, Some(0));
    assert!(ran.out.contains("Exit codes:") && ran.out.contains("2h ago"), "{}", ran.out);
    for option in ["--order-of <TAG=KIND:VALUE>", "--expect <TAG=DIGEST>", "--plan <ID>"] {
        assert!(ran.out.contains(option), "{option}: {}", ran.out);
    }
    let ran = run(bare("plan --help"));
    assert_eq!(ran.code, Some(0));
    assert!(ran.out.contains("Exits with 0 if nothing stands against it"), "{}", ran.out);
    for option in ["--no-wait", "--timeout", "--idempotency-key", "--plan"] {
        assert!(!ran.out.contains(option), "{option}: {}", ran.out);
    }
}
