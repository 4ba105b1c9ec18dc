//! `rollback` and `settle`.

use colophon_api::v1::{
    Certainty, Release, SettledAs, Tag,
    rollback_request::{Position, Subject},
};
use tonic::{Code, Status};

use crate::{
    ID, colophon, colophon_with,
    fake::{Fake, Step, until},
    queued, ran, refusal, run, running, succeeded,
};

fn rolled_back() -> Release {
    Release { purpose: "rollback".into(), ..succeeded() }
}

#[test]
fn a_rollback_is_awaited_as_a_release_is() {
    let fake = Fake::start();
    fake.script().rollback.push_back(Step::Answer(queued()));
    fake.script().get.extend([Step::Answer(running()), Step::Answer(rolled_back())]);
    let ran = run(colophon(&fake, "rollback docker.io/a/x:latest --reason crashes"));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains(&format!("release {ID} RUNNING")), "{}", ran.err);
    assert!(ran.out.contains("purpose  rollback"), "{}", ran.out);
    let script = fake.script();
    let request = &script.rolled_back[0];
    assert_eq!(request.subject, Some(Subject::Reference("docker.io/a/x:latest".into())));
    // Of a tag without more the position before is meant.
    assert_eq!(request.position, Some(Position::Steps(1)));
    assert_eq!((request.reason.as_str(), request.idempotency_key.len()), ("crashes", 36));
    assert!(!request.break_glass && request.expected_digest.is_empty());
}

#[test]
fn every_position_and_option_reaches_the_request() {
    let digest = succeeded().digest;
    let cases = [
        ("--steps 3".to_owned(), Position::Steps(3)),
        (
            "--at 2026-11-03T16:02:00+02:00".to_owned(),
            Position::At("2026-11-03T14:02:00Z".parse().unwrap()),
        ),
        (format!("--to {digest}"), Position::Digest(digest.clone())),
    ];
    for (option, position) in cases {
        let fake = Fake::start();
        fake.script().rollback.push_back(Step::Answer(queued()));
        let line = format!(
            "rollback b/x:1 {option} --reason bad --expect {digest} --break-glass \
             --on-behalf-of ada --label team=web --idempotency-key k1 --no-wait"
        );
        let ran = run(colophon(&fake, &line));
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let script = fake.script();
        let request = &script.rolled_back[0];
        assert_eq!(request.position, Some(position));
        assert_eq!((&request.expected_digest, request.break_glass), (&digest, true));
        assert_eq!((request.on_behalf_of.as_str(), &request.labels["team"][..]), ("ada", "web"));
        assert_eq!(request.idempotency_key, "k1");
    }
    let fake = Fake::start();
    fake.script().rollback.push_back(Step::Answer(rolled_back()));
    let line = format!("rollback --release {ID} --reason bad --output json");
    let ran = run(colophon(&fake, &line));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(serde_json::from_str::<Release>(&ran.out).unwrap(), rolled_back());
    let script = fake.script();
    assert_eq!(script.rolled_back[0].subject, Some(Subject::Release(ID.into())));
    assert_eq!(script.rolled_back[0].position, None);
}

#[test]
fn a_rollback_whose_answer_was_lost_is_sent_again_under_its_key() {
    let mut fake = Fake::start();
    fake.script().rollback.extend([Step::Hang, Step::Answer(rolled_back())]);
    let mut command = colophon(&fake, "rollback b/x:1 --reason bad");
    let piped = || std::process::Stdio::piped();
    let child = command.stdout(piped()).stderr(piped()).spawn().unwrap();
    until("the first request", || fake.script().rolled_back.len() == 1);
    fake.kill();
    fake.resume();
    let ran = ran(&child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let script = fake.script();
    assert_eq!(script.rolled_back.len(), 2);
    assert_eq!(script.rolled_back[0], script.rolled_back[1]);
}

#[test]
fn a_rollback_without_a_server_says_how_to_send_it_again() {
    let mut fake = Fake::start();
    fake.kill();
    let line = "rollback b/x:1 --reason bad --idempotency-key k7 --timeout 300ms";
    let ran = run(colophon(&fake, line));
    assert_eq!(ran.code, Some(5), "{}", ran.err);
    assert!(ran.err.contains("--idempotency-key k7"), "{}", ran.err);
}

#[test]
fn a_rollback_that_is_refused_has_the_code_of_its_reason() {
    for (code, reason, exit) in [
        (Code::FailedPrecondition, "NOT_IN_HISTORY", 16),
        (Code::Aborted, "TAG_MOVED", 13),
        (Code::PermissionDenied, "PERMISSION_DENIED", 10),
        (Code::NotFound, "NOT_FOUND", 3),
    ] {
        let fake = Fake::start();
        fake.script().rollback.push_back(Step::Refuse(refusal(code, reason, "no")));
        let ran = run(colophon(&fake, "rollback b/x:1 --steps 9 --reason bad"));
        assert_eq!(ran.code, Some(exit), "{}", ran.err);
        assert!(ran.err.contains(&format!("error: {reason}: no")), "{}", ran.err);
    }
}

fn settled() -> Tag {
    Tag {
        reference: "b/x:1".into(),
        digest: succeeded().digest,
        certainty: Certainty::LastObserved.into(),
        explanation: "settled by hand".into(),
        ..Tag::default()
    }
}

#[test]
fn settle_says_what_became_of_the_move() {
    for (word, settled_as) in [("moved", SettledAs::Moved), ("not-moved", SettledAs::NotMoved)] {
        let fake = Fake::start();
        fake.script().settle.push_back(Step::Answer(settled()));
        let line = [
            "settle",
            "b/x:1",
            "--as",
            word,
            "--reason",
            "seen in its UI",
            "--on-behalf-of",
            "ada",
        ];
        let ran = run(colophon_with(&fake, &line));
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.out.contains("settled by hand"), "{}", ran.out);
        let script = fake.script();
        let request = &script.settled[0];
        assert_eq!((request.reference.as_str(), request.settled_as()), ("b/x:1", settled_as));
        assert_eq!(request.reason, "seen in its UI");
        assert_eq!(request.on_behalf_of, "ada");
    }
    let fake = Fake::start();
    fake.script().settle.push_back(Step::Answer(settled()));
    let ran = run(colophon(&fake, "settle b/x:1 --as moved --reason seen --output json"));
    assert_eq!(serde_json::from_str::<Tag>(&ran.out).unwrap(), settled());
}

#[test]
fn a_second_attempt_to_settle_may_meet_the_first() {
    let fake = Fake::start();
    fake.script().settle.extend([
        Step::Refuse(Status::unavailable("restarting")),
        Step::Refuse(refusal(Code::FailedPrecondition, "NOT_UNKNOWN", "it is known")),
    ]);
    let ran = run(colophon(&fake, "settle b/x:1 --as moved --reason seen"));
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    assert!(ran.err.contains("`colophon history b/x:1` shows whether it is done"), "{}", ran.err);
}
