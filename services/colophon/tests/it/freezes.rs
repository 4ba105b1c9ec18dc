//! `freeze`, `freezes` and `lift`.

use colophon_api::v1::{Freeze, ListFreezesResponse};
use colophon_domain::{Clock as _, SystemClock};
use tonic::{Code, Status};

use crate::{
    colophon, colophon_with,
    fake::{Fake, Step},
    refusal, run,
};

fn frozen() -> Freeze {
    Freeze {
        id: "f7".into(),
        pattern: "docker.io/acme/*".into(),
        reason: "audit".into(),
        actor: "ann".into(),
        create_time: Some("2026-11-03T12:00:00Z".parse().unwrap()),
        end_time: Some("2026-11-03T14:02:00Z".parse().unwrap()),
        active: true,
        ..Freeze::default()
    }
}

#[test]
fn a_freeze_carries_pattern_reason_and_end() {
    let fake = Fake::start();
    fake.script().freeze.extend([Step::Answer(frozen()), Step::Answer(frozen())]);
    let line = "freeze docker.io/acme/* --until 2026-11-03T16:02:00+02:00 --reason audit";
    let ran = run(colophon(&fake, line));
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{}", ran.out);
    assert!(ran.out.contains("freeze   f7  holds\n"), "{}", ran.out);
    assert!(ran.out.contains("lift     colophon lift f7\n"), "{}", ran.out);
    let line = ["freeze", "*", "--for", "2h", "--reason", "audit", "--output", "json"];
    let ran = run(colophon_with(&fake, &line));
    assert_eq!(serde_json::from_str::<Freeze>(&ran.out).unwrap(), frozen());
    let script = fake.script();
    let [until, lasting] = &script.frozen[..] else { panic!("two requests") };
    assert_eq!((until.pattern.as_str(), until.reason.as_str()), ("docker.io/acme/*", "audit"));
    assert_eq!(until.end_time.unwrap().to_string(), "2026-11-03T14:02:00Z");
    assert_eq!(lasting.pattern, "*");
    let ahead = lasting.end_time.unwrap().seconds - SystemClock.now().unix_timestamp();
    assert!((7100..=7200).contains(&ahead), "{ahead}");
}

#[test]
fn a_freeze_that_may_stand_twice_says_so() {
    let fake = Fake::start();
    fake.script()
        .freeze
        .extend([Step::Refuse(Status::unavailable("restarting")), Step::Answer(frozen())]);
    let ran = run(colophon(&fake, "freeze b/x --for 2h --reason audit"));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("`colophon freezes` shows whether it holds twice"), "{}", ran.err);
    let mut fake = Fake::start();
    fake.kill();
    let ran = run(colophon(&fake, "freeze b/x --for 2h --reason audit"));
    assert_eq!(ran.code, Some(5), "{}", ran.err);
    assert!(ran.err.contains("whether it holds is not known"), "{}", ran.err);
}

#[test]
fn a_refused_freeze_has_the_code_of_its_reason() {
    for (code, reason, exit) in [
        (Code::PermissionDenied, "PERMISSION_DENIED", 10),
        (Code::InvalidArgument, "INVALID_ARGUMENT", 3),
    ] {
        let fake = Fake::start();
        fake.script().freeze.push_back(Step::Refuse(refusal(code, reason, "no")));
        let ran = run(colophon(&fake, "freeze b/x --for 2h --reason audit"));
        assert_eq!((ran.code, ran.out.as_str()), (Some(exit), ""), "{}", ran.err);
    }
}

#[test]
fn freezes_are_listed_and_on_request_also_those_that_ended() {
    let fake = Fake::start();
    let ran = run(colophon(&fake, "freezes"));
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "nothing is frozen\n"), "{}", ran.err);
    let lifted = Freeze {
        id: "f6".into(),
        active: false,
        lifted_by: "bob".into(),
        lift_time: Some("2026-11-03T13:00:00Z".parse().unwrap()),
        ..frozen()
    };
    let list = ListFreezesResponse { freezes: vec![frozen(), lifted] };
    fake.script().freezes = list.clone();
    let ran = run(colophon(&fake, "freezes --all"));
    assert!(ran.out.contains("f7      holds          2026-11-03T14:02:00Z"), "{}", ran.out);
    assert!(ran.out.contains("f6      lifted by bob  2026-11-03T13:00:00Z"), "{}", ran.out);
    let ran = run(colophon(&fake, "freezes --all --output json"));
    assert_eq!(serde_json::from_str::<ListFreezesResponse>(&ran.out).unwrap(), list);
    let asked: Vec<bool> =
        fake.script().listed_freezes.iter().map(|request| request.include_ended).collect();
    assert_eq!(asked, [false, true, true]);
}

#[test]
fn lift_ends_a_freeze_and_may_say_why() {
    let fake = Fake::start();
    let lifted = Freeze { active: false, lifted_by: "bob".into(), ..frozen() };
    fake.script().lift = Some(lifted.clone());
    let ran = run(colophon(&fake, "lift f7 --reason over"));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("f7  lifted by bob"), "{}", ran.out);
    let ran = run(colophon(&fake, "lift f7 --output json"));
    assert_eq!(serde_json::from_str::<Freeze>(&ran.out).unwrap(), lifted);
    let script = fake.script();
    assert_eq!((script.lifted[0].id.as_str(), script.lifted[0].reason.as_str()), ("f7", "over"));
    assert_eq!(script.lifted[1].reason, "");
}
