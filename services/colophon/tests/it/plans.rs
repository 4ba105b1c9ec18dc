//! `plan`: the request, the table, the line that publishes, and the exit code.

use colophon_api::v1::{
    Obstacle, Plan, PlannedPublication, PlannedTag, TagKind, TagMoveState, order_key::Key,
};
use tonic::Code;

use crate::{
    colophon, colophon_with,
    fake::{Fake, Step},
    refusal, run, succeeded,
};

fn plan(outcome: TagMoveState, reason: &str) -> Plan {
    Plan {
        id: "plan-7".into(),
        source: "a/x:1".into(),
        digest: succeeded().digest,
        publications: vec![PlannedPublication {
            repository: "b/x".into(),
            tags: vec![PlannedTag {
                tag: "1.4".into(),
                kind: TagKind::Floating.into(),
                old_digest: format!("sha256:{}", "a".repeat(64)),
                new_digest: succeeded().digest,
                outcome: outcome.into(),
                reason: reason.into(),
                message: String::new(),
            }],
            copy_from: "a/x@sha256:bb".into(),
            manifests: 2,
            blobs: 5,
            bytes: 3_145_728,
            ..PlannedPublication::default()
        }],
        create_time: Some("2026-11-03T14:02:00Z".parse().unwrap()),
        expire_time: Some("2026-11-03T15:02:00Z".parse().unwrap()),
        feasible: reason.is_empty(),
        ..Plan::default()
    }
}

#[test]
fn a_plan_has_the_options_of_publish_and_says_how_to_do_exactly_that() {
    let fake = Fake::start();
    fake.script().plan.push_back(Step::Answer(plan(TagMoveState::Moved, "")));
    let line = [
        "plan",
        "a/x:1",
        "--to",
        "b/x",
        "--float",
        "1.4",
        "--expect",
        "1.4=none",
        "--order",
        "number:7",
        "--reason",
        "it's due",
        "--priority",
        "-5",
    ];
    let ran = run(colophon_with(&fake, &line));
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{}", ran.out);
    for part in [
        "plan         plan-7  feasible\n",
        "holds until  2026-11-03T15:02:00Z\n",
        "floating  1.4  MOVED    aaaaaaaaaaaa  bbbbbbbbbbbb\n",
        "copy: 3.00 MiB in 5 blobs and 2 manifests, from a/x@sha256:bb\n",
        "  colophon publish a/x:1 --to b/x --float 1.4 --expect 1.4=none --order number:7 \
         --reason 'it'\\''s due' --priority -5 --plan plan-7\n",
    ] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
    let script = fake.script();
    let request = &script.planned[0];
    assert_eq!((request.idempotency_key.as_str(), request.plan.as_str()), ("", ""));
    assert_eq!(request.targets[0].guards[0].expected_digest, "none");
    assert_eq!(request.order_key.as_ref().unwrap().key, Some(Key::Number(7)));
    assert_eq!((request.reason.as_str(), request.priority), ("it's due", -5));
    assert!(script.created.is_empty());
}

#[test]
fn what_stands_against_a_plan_gives_the_code() {
    let line = "plan a/x:1 --to b/x --float 1.4";
    let fake = Fake::start();
    let regression = plan(TagMoveState::Refused, "ORDER_REGRESSION");
    fake.script().plan.push_back(Step::Answer(regression.clone()));
    let ran = run(colophon(&fake, line));
    assert_eq!(ran.code, Some(14), "{}", ran.err);
    assert!(ran.err.contains("error: ORDER_REGRESSION: the release would not"), "{}", ran.err);
    assert!(ran.out.contains("plan-7  something stands against it"), "{}", ran.out);

    // A permission that the PAT lacks is an obstacle of the plan, whatever publish would say.
    let mut denied = plan(TagMoveState::Moved, "");
    denied.feasible = false;
    denied.publications[0].obstacles =
        vec![Obstacle { reason: "REGISTRY_DENIED".into(), message: "no push".into() }];
    fake.script().plan.push_back(Step::Answer(denied));
    let ran = run(colophon(&fake, line));
    assert_eq!(ran.code, Some(10), "{}", ran.err);
    assert!(ran.out.contains("obstacle: REGISTRY_DENIED: no push"), "{}", ran.out);

    fake.script().plan.push_back(Step::Answer(regression.clone()));
    let ran = run(colophon(&fake, &format!("{line} --output json")));
    assert_eq!(ran.code, Some(14), "{}", ran.err);
    assert_eq!(serde_json::from_str::<Plan>(&ran.out).unwrap(), regression);
}

#[test]
fn a_plan_that_is_refused_has_the_code_of_its_reason() {
    for (code, reason, exit) in [
        (Code::NotFound, "SOURCE_NOT_FOUND", 11),
        (Code::PermissionDenied, "PERMISSION_DENIED", 10),
        (Code::InvalidArgument, "INVALID_ARGUMENT", 3),
    ] {
        let fake = Fake::start();
        fake.script().plan.push_back(Step::Refuse(refusal(code, reason, "no")));
        let ran = run(colophon(&fake, "plan a/x:1 --to b/x --tag 1"));
        assert_eq!((ran.code, ran.out.as_str()), (Some(exit), ""), "{}", ran.err);
    }
}
