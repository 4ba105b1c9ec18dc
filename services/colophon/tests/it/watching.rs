//! Following a release by streams, and putting one to work again.

use colophon_api::v1::{Release, ReleaseState, Retry, TagMoveState};
use tonic::{Code, Status};

use crate::{
    ID, PUBLISH, colophon, colophon_with,
    fake::{Fake, Step},
    queued, refusal, release, run, running, succeeded,
};

fn at(revision: u64, release: Release) -> Release {
    Release { revision, ..release }
}

/// One that ended without success, after so many retries.
fn errored(retries: usize) -> Release {
    let release = release(ReleaseState::Errored, TagMoveState::Failed);
    Release { retries: vec![Retry::default(); retries], ..release }
}

#[test]
fn a_stream_that_breaks_is_taken_up_where_it_ended() {
    let fake = Fake::start();
    {
        let mut script = fake.script();
        script.create.push_back(Step::Answer(at(1, queued())));
        script.watch.push_back(vec![Ok(at(3, running())), Err(Status::unavailable("stops"))]);
        script.watch.push_back(vec![Ok(at(5, succeeded()))]);
        script.get.push_back(Step::Answer(at(4, running())));
    }
    let ran = run(colophon(&fake, PUBLISH));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains(&format!("release {ID} RUNNING")), "{}", ran.err);
    let script = fake.script();
    let seen: Vec<_> = script.watched.iter().map(|it| (&*it.id, it.after_revision)).collect();
    assert_eq!(seen, [(ID, 1), (ID, 4)]);
    assert!(script.get.len() == 1 && script.watch.is_empty());
}

#[test]
fn a_server_that_has_no_stream_for_us_is_asked_instead() {
    for refused in ["TOO_MANY_WATCHERS", ""] {
        let fake = Fake::start();
        {
            let mut script = fake.script();
            script.create.push_back(Step::Answer(queued()));
            script.get.extend([Step::Answer(running()), Step::Answer(succeeded())]);
            if !refused.is_empty() {
                let status = refusal(Code::ResourceExhausted, refused, "too many");
                script.watch.push_back(vec![Err(status)]);
            }
        }
        let ran = run(colophon(&fake, PUBLISH));
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(!fake.script().watched.is_empty());
    }
}

#[test]
fn a_release_that_is_not_ours_to_see_any_more_ends_the_waiting() {
    let fake = Fake::start();
    {
        let mut script = fake.script();
        script.create.push_back(Step::Answer(queued()));
        script.watch.push_back(vec![Err(Status::not_found("gone"))]);
        let gone = refusal(Code::NotFound, "NOT_FOUND", "there is no such release");
        script.get.push_back(Step::Refuse(gone));
    }
    let ran = run(colophon(&fake, PUBLISH));
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    assert!(ran.err.contains("there is no such release"), "{}", ran.err);
}

#[test]
fn retry_puts_a_release_to_work_and_waits() {
    let fake = Fake::start();
    {
        let mut script = fake.script();
        script.get.push_back(Step::Answer(at(6, errored(0))));
        script.retry.push_back(Step::Answer(at(7, running())));
        script.watch.push_back(vec![Ok(at(9, succeeded()))]);
    }
    let ran = run(colophon_with(&fake, &["retry", ID, "--reason", "the registry is back"]));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("SUCCEEDED"), "{}", ran.out);
    {
        let mut script = fake.script();
        assert_eq!(
            (&*script.retried[0].id, &*script.retried[0].reason),
            (ID, "the registry is back")
        );
        assert_eq!(script.watched[0].after_revision, 7);
        let refused = refusal(Code::FailedPrecondition, "NOT_RETRYABLE", "it has succeeded");
        script.retry.push_back(Step::Refuse(refused));
        script.retry.push_back(Step::Answer(running()));
    }
    let ran = run(colophon(&fake, &format!("retry {ID}")));
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    assert!(ran.err.contains("NOT_RETRYABLE: it has succeeded"), "{}", ran.err);
    let ran = run(colophon(&fake, &format!("retry {ID} --no-wait")));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("RUNNING"), "{}", ran.out);
}

#[test]
fn a_retry_whose_answer_was_lost_is_not_asked_for_twice() {
    let lost = || Step::Refuse(Status::unavailable("stops"));
    // It was put to work, and has ended since, well or not.
    let ended = Release { retries: vec![Retry::default()], ..succeeded() };
    for (now, code) in [(ended, 0), (errored(1), 9)] {
        let fake = Fake::start();
        {
            let mut script = fake.script();
            script.get.extend([Step::Answer(errored(0)), Step::Answer(now)]);
            script.retry.push_back(lost());
        }
        let ran = run(colophon(&fake, &format!("retry {ID}")));
        assert_eq!(ran.code, Some(code), "{}", ran.err);
        assert_eq!(fake.script().retried.len(), 1, "{}", ran.err);
    }
    // It never arrived.
    let fake = Fake::start();
    {
        let mut script = fake.script();
        script.get.push_back(Step::Answer(errored(2)));
        script.retry.extend([lost(), Step::Answer(running())]);
    }
    let ran = run(colophon(&fake, &format!("retry {ID} --no-wait")));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(fake.script().retried.len(), 2, "{}", ran.err);
}
