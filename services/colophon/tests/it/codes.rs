//! The exit codes by reason: the same reason gives the same code, whether the server refuses the
//! request or the release ends with it.

use colophon_api::v1::{ReleaseState, TagMoveState};
use colophon_domain::{ErrorKind, Reason};
use tonic::Code;

use crate::{
    PUBLISH, colophon,
    fake::{Fake, Step},
    queued, refusal, release, run,
};

/// The reasons that have a code of their own.
const CODES: [(i32, &[&str]); 13] = [
    (6, &["TAG_IMMUTABLE"]),
    (7, &["SUPERSEDED"]),
    (8, &["CANCELLED"]),
    (9, &["ATTEMPTS_EXHAUSTED"]),
    (
        10,
        &[
            "PERMISSION_DENIED",
            "UNAUTHENTICATED",
            "REGISTRY_DENIED",
            "REGISTRY_UNAUTHORIZED",
            "VAULT_DENIED",
            "CREDENTIAL_MISSING",
        ],
    ),
    (11, &["SOURCE_NOT_FOUND", "SOURCE_GONE", "UNSUPPORTED_MANIFEST"]),
    (12, &["EXPIRED"]),
    (13, &["TAG_MOVED"]),
    (14, &["ORDER_REGRESSION", "ORDER_KEY_MISMATCH"]),
    (15, &["PLAN_CHANGED", "PLAN_EXPIRED"]),
    (16, &["NOT_IN_HISTORY", "NOT_ENDED"]),
    (17, &["FROZEN"]),
    (18, &["RATE_LIMITED", "QUEUE_FULL", "TOO_MANY_CALLS", "TOO_MANY_WATCHERS", "UPLOAD_LIMIT"]),
];

fn own_code(reason: Reason) -> Option<i32> {
    let listed = |(_, reasons): &&(i32, &[&str])| reasons.contains(&reason.as_str());
    CODES.iter().find(listed).map(|(code, _)| *code)
}

/// The code that gRPC has for the reason; what may pass is left out, or the client would try
/// again.
fn status(reason: Reason) -> Code {
    match reason.kind() {
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Aborted => Code::Aborted,
        ErrorKind::Internal => Code::Internal,
        _ => Code::FailedPrecondition,
    }
}

#[test]
fn a_refusal_and_an_end_for_the_same_reason_have_the_same_code() {
    let reasons: Vec<Reason> = Reason::ALL.to_vec();
    assert_eq!(
        reasons.iter().filter(|reason| own_code(**reason).is_some()).count(),
        CODES.iter().map(|(_, reasons)| reasons.len()).sum::<usize>(),
        "a reason of the list is none"
    );
    for reason in reasons {
        let fake = Fake::start();
        let refused = refusal(status(reason), reason.as_str(), "no");
        fake.script().create.push_back(Step::Refuse(refused));
        let ran = run(colophon(&fake, PUBLISH));
        assert_eq!(ran.code, Some(own_code(reason).unwrap_or(3)), "{reason}: {}", ran.err);
        assert!(ran.err.contains(&format!("{reason}: no")), "{}", ran.err);

        let mut ended = release(ReleaseState::Failed, TagMoveState::NotAttempted);
        ended.state_reason = reason.as_str().into();
        ended.message = "no\u{1b}[2J".into();
        fake.script().create.push_back(Step::Answer(ended));
        let ran = run(colophon(&fake, PUBLISH));
        assert_eq!(ran.code, Some(own_code(reason).unwrap_or(1)), "{reason}: {}", ran.err);
        assert!(ran.err.contains(&format!(": {reason}: release")), "{}", ran.err);
        assert!(ran.out.contains("NOT_ATTEMPTED"), "{}", ran.out);
        assert!(!ran.out.contains('\u{1b}') && !ran.err.contains('\u{1b}'));
    }
}

#[test]
fn a_state_has_its_code_whatever_the_reason_is() {
    for (state, reason, code) in [
        (ReleaseState::Failed, "", 1),
        (ReleaseState::Failed, "A_WORD_OF_TOMORROW", 1),
        (ReleaseState::Errored, "REGISTRY_UNAVAILABLE", 9),
        (ReleaseState::Cancelled, "CANCELLED", 8),
        (ReleaseState::Cancelled, "", 8),
    ] {
        let mut ended = release(state, TagMoveState::NotAttempted);
        ended.state_reason = reason.into();
        let fake = Fake::start();
        fake.script().create.push_back(Step::Answer(queued()));
        fake.script().get.push_back(Step::Answer(ended));
        let ran = run(colophon(&fake, PUBLISH));
        assert_eq!(ran.code, Some(code), "{state:?} {reason}: {}", ran.err);
    }
}

#[test]
fn a_vault_that_denies_is_told_from_a_server_that_is_away() {
    let fake = Fake::start();
    let denied = || Step::Refuse(refusal(Code::Unavailable, "VAULT_DENIED", "no policy"));
    fake.script().create.extend([denied(), denied(), denied(), denied(), denied(), denied()]);
    let ran = run(colophon(&fake, &format!("{PUBLISH} --timeout 300ms")));
    assert_eq!(ran.code, Some(10), "{}", ran.err);
    assert!(ran.err.contains("no policy; trying again"), "{}", ran.err);
}

#[test]
fn superseded_reads_as_nothing_to_do() {
    let fake = Fake::start();
    let mut overtaken = release(ReleaseState::Failed, TagMoveState::Superseded);
    overtaken.state_reason = "SUPERSEDED".into();
    let tags = &mut overtaken.publications[0].tags;
    tags[0].state = TagMoveState::Moved.into();
    tags[1].reason = "SUPERSEDED".into();
    fake.script().create.push_back(Step::Answer(overtaken));
    let ran = run(colophon(&fake, PUBLISH));
    assert_eq!(ran.code, Some(7), "{}", ran.err);
    assert!(ran.err.contains("\nnote: SUPERSEDED: release"), "{}", ran.err);
    assert!(ran.err.contains("remedy: nothing needs doing"), "{}", ran.err);
    assert!(ran.out.contains("1.4: something newer has it, so it stays"), "{}", ran.out);
}

#[test]
fn kept_is_success_and_says_that_nothing_needs_doing() {
    let mut kept = release(ReleaseState::Succeeded, TagMoveState::Moved);
    kept.publications[0].tags[1].state = TagMoveState::Kept.into();
    kept.publications[0].tags[1].reason = "NOT_HIGHEST".into();
    let fake = Fake::start();
    fake.script().create.push_back(Step::Answer(kept));
    let ran = run(colophon(&fake, PUBLISH));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("it belongs to a higher version; nothing needs doing"), "{}", ran.out);
}
