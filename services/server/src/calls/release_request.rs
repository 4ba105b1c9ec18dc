//! A release as it is asked for: `CreateRelease` and `PlanRelease` read the same message by the
//! same rules and ask the same rights, so that a plan says what a release would do.

use colophon_api::v1;
use colophon_domain::{
    Action, Failure, IfOlder, OnFailure, OrderKey, Platform, Principal, Purpose, Referrers,
    ReleaseRequest, Result, Selection, TagKind, TargetRequest, Version, VersionRequest,
};

use super::{
    idempotency,
    target_request::{self, Whole},
};
use crate::fields;

/// Reads the request; pure, so that the same bytes always give the same answer.
///
/// # Errors
/// `INVALID_ARGUMENT` or `INVALID_REFERENCE` with the field in the contract's spelling.
pub(super) fn parse(request: v1::CreateReleaseRequest) -> Result<ReleaseRequest> {
    let source = fields::required("source", &request.source)?;
    let version = version(&request)?;
    let order = order(&request, version.is_some())?;
    let if_older = if_older(request.if_older)?;
    let whole = Whole {
        order,
        if_older: if_older.unwrap_or(IfOlder::Refuse),
        versioned: version.is_some(),
    };
    let targets = target_request::targets(&request.targets, &whole)?;
    ordered(&targets, whole.order.as_ref(), if_older)?;
    let reason = fields::prose("reason", request.reason, 1_000)?;
    for (field, asked) in
        [("allow_backward", request.allow_backward), ("break_glass", request.break_glass)]
    {
        if asked && reason.trim().is_empty() {
            return Err(Failure::invalid("reason", format!("{field} needs a reason"))
                .remedy("say why; it will stand in the ledger"));
        }
    }
    let Ok(priority @ -100..=100) = i16::try_from(request.priority) else {
        return Err(Failure::invalid(
            "priority",
            format!("priority is {}; it must be -100 to 100", request.priority),
        ));
    };
    Ok(ReleaseRequest {
        purpose: Purpose::Publish,
        source,
        targets,
        version,
        reason,
        on_behalf_of: fields::prose("on_behalf_of", request.on_behalf_of, 200)?,
        labels: fields::labels(request.labels)?,
        not_after: fields::time("not_after", request.not_after)?,
        priority,
        idempotency_key: idempotency::key(request.idempotency_key)?,
        allow_backward: request.allow_backward,
        on_failure: on_failure(request.on_failure)?,
        plan: plan(request.plan)?,
        break_glass: request.break_glass,
        selection: selection(&request.selection.unwrap_or_default())?,
        upload: fields::optional("upload", &request.upload, |text| fields::id("upload", text))?,
    })
}

fn selection(asked: &v1::Selection) -> Result<Selection> {
    Ok(Selection {
        platforms: Platform::parse_all(&asked.platforms)
            .map_err(|failure| failure.field("selection.platforms"))?,
        referrers: Referrers::parse(&asked.referrers)
            .map_err(|failure| failure.field("selection.referrers"))?,
        cosign: !asked.without_cosign,
        foreign: asked.include_foreign,
    })
}

fn version(request: &v1::CreateReleaseRequest) -> Result<Option<VersionRequest>> {
    let moves_pre_release = request.semver_moves_pre_release;
    let version = fields::optional("semver", &request.semver, Version::parse)?;
    if version.is_none() && moves_pre_release {
        return Err(Failure::invalid(
            "semver_moves_pre_release",
            "semver_moves_pre_release says something of a version, and there is none",
        )
        .remedy("give semver, or leave semver_moves_pre_release out"));
    }
    Ok(version.map(|version| VersionRequest { version, moves_pre_release }))
}

/// The key of all floating tags.
fn order(request: &v1::CreateReleaseRequest, versioned: bool) -> Result<Option<OrderKey>> {
    let Some(key) = &request.order_key else {
        return Ok(None);
    };
    if versioned {
        return Err(Failure::invalid(
            "order_key",
            "semver orders the floating tags already, so there can be no order_key",
        )
        .remedy("leave one of the two out, or give order keys to single tags by guards"));
    }
    target_request::order_key(key).map(Some)
}

fn if_older(number: i32) -> Result<Option<IfOlder>> {
    match v1::OlderPolicy::try_from(number) {
        Ok(v1::OlderPolicy::Unspecified) => Ok(None),
        Ok(v1::OlderPolicy::Refuse) => Ok(Some(IfOlder::Refuse)),
        Ok(v1::OlderPolicy::Supersede) => Ok(Some(IfOlder::Supersede)),
        Err(_) => Err(Failure::invalid("if_older", format!("{number} is no value of if_older"))),
    }
}

/// Refuses what would order nothing: most likely it was meant for tags that are not there.
fn ordered(
    targets: &[TargetRequest],
    order: Option<&OrderKey>,
    if_older: Option<IfOlder>,
) -> Result<()> {
    let floating = || targets.iter().flat_map(|target| target.of(TagKind::Floating));
    if order.is_some() && floating().next().is_none() {
        return Err(Failure::invalid(
            "order_key",
            "order_key orders floating tags, and none is given",
        )
        .remedy("give floating_tags, or leave order_key out"));
    }
    if if_older.is_some() && floating().all(|tag| tag.order.is_none()) {
        return Err(Failure::invalid(
            "if_older",
            "if_older is about order keys, and no floating tag has one",
        )
        .remedy("give an order_key, or leave if_older out"));
    }
    Ok(())
}

fn on_failure(number: i32) -> Result<OnFailure> {
    match v1::OnFailure::try_from(number) {
        Ok(v1::OnFailure::Unspecified | v1::OnFailure::Restore) => Ok(OnFailure::Restore),
        Ok(v1::OnFailure::Keep) => Ok(OnFailure::Keep),
        Err(_) => {
            Err(Failure::invalid("on_failure", format!("{number} is no value of on_failure")))
        }
    }
}

fn plan(text: String) -> Result<Option<String>> {
    if text.is_empty() {
        return Ok(None);
    }
    fields::printable("plan", &text)
        .map_err(|failure| failure.remedy("give the id of a plan as PlanRelease answered it"))?;
    Ok(Some(text))
}

/// Asks for every right that the release needs, before the engine does anything with it.
pub(super) fn allow(caller: &Principal, request: &ReleaseRequest) -> Result<()> {
    caller
        .require(Action::Read, &request.source.repository)
        .map_err(|failure| failure.field("source"))?;
    for (index, target) in request.targets.iter().enumerate() {
        let here = format!("targets[{index}]");
        let floats = target.of(TagKind::Floating).next().is_some();
        let needed = [
            (true, Action::Publish, format!("{here}.repository")),
            (floats, Action::MoveFloating, format!("{here}.floating_tags")),
            // A version moves floating tags that the request does not name.
            (request.version.is_some(), Action::MoveFloating, "semver".to_owned()),
            (request.allow_backward, Action::Rollback, "allow_backward".to_owned()),
            (request.break_glass, Action::BreakGlass, "break_glass".to_owned()),
        ];
        for (_, action, field) in needed.into_iter().filter(|(needed, ..)| *needed) {
            caller.require(action, &target.repository).map_err(|failure| failure.field(field))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use colophon_api::{Timestamp, v1::order_key::Key};
    use colophon_domain::{Grant, Reason};

    use super::*;

    fn request() -> v1::CreateReleaseRequest {
        v1::CreateReleaseRequest {
            source: "ghcr.io/acme/app:sha-1".into(),
            targets: vec![v1::Target {
                repository: "docker.io/acme/app".into(),
                unique_tags: vec!["v1.4.2".into()],
                floating_tags: vec!["v1".into(), "latest".into()],
                guards: vec![],
            }],
            ..Default::default()
        }
    }

    fn number(number: u64) -> v1::OrderKey {
        v1::OrderKey { key: Some(Key::Number(number)) }
    }

    /// The field that a changed request is refused for.
    fn refused(change: impl FnOnce(&mut v1::CreateReleaseRequest)) -> String {
        let mut changed = request();
        change(&mut changed);
        parse(changed).unwrap_err().field_name().unwrap_or("none").to_owned()
    }

    #[test]
    fn a_request_is_read_once() {
        let parsed = parse(v1::CreateReleaseRequest {
            priority: -100,
            idempotency_key: "run 17~".into(),
            labels: [("team".to_owned(), "web".to_owned())].into(),
            not_after: Some("2026-11-03T14:02:00Z".parse().unwrap()),
            order_key: Some(number(17)),
            if_older: v1::OlderPolicy::Supersede.into(),
            allow_backward: true,
            break_glass: true,
            reason: "the old one works".into(),
            on_failure: v1::OnFailure::Keep.into(),
            plan: "p 1".into(),
            selection: Some(v1::Selection {
                platforms: vec!["linux/arm64/v8".into()],
                referrers: vec!["application/spdx+json".into()],
                without_cosign: true,
                include_foreign: true,
            }),
            ..request()
        })
        .unwrap();
        let Selection { platforms, referrers, cosign, foreign } = &parsed.selection;
        assert_eq!(platforms, &["linux/arm64".parse().unwrap()]);
        assert!(referrers.takes("application/spdx+json") && !referrers.takes("application/x"));
        assert!(!cosign && *foreign);
        assert_eq!(parsed.purpose, Purpose::Publish);
        assert_eq!(parsed.targets[0].of(TagKind::Floating).count(), 2);
        assert_eq!(parsed.targets[0].tags[1].order, Some(OrderKey::Number(17)));
        assert_eq!(parsed.targets[0].tags[1].if_older, IfOlder::Supersede);
        assert_eq!(parsed.priority, -100);
        assert_eq!(parsed.idempotency_key.as_deref(), Some("run 17~"));
        assert!(parsed.allow_backward && parsed.break_glass);
        assert_eq!(parsed.on_failure, OnFailure::Keep);
        assert_eq!(parsed.plan.as_deref(), Some("p 1"));

        let plain = parse(request()).unwrap();
        let source = "ghcr.io/acme/app:sha-1".parse().unwrap();
        assert_eq!(plain, ReleaseRequest::publish(source, plain.targets.clone()));
    }

    #[test]
    fn a_version_needs_no_tags_and_may_stand_beside_some() {
        let parsed = parse(v1::CreateReleaseRequest {
            semver: "v1.4.2-rc.1".into(),
            semver_moves_pre_release: true,
            ..request()
        })
        .unwrap();
        let version = parsed.version.unwrap();
        assert_eq!(version.version.to_string(), "v1.4.2-rc.1");
        assert!(version.moves_pre_release);
        assert_eq!(parsed.targets[0].tags.len(), 3);
        // A single tag may still have a key of its own.
        let mut guarded = request();
        guarded.semver = "1.4.2".into();
        guarded.targets[0].guards =
            vec![v1::Guard { tag: "v1".into(), order_key: Some(number(1)), ..Default::default() }];
        guarded.if_older = v1::OlderPolicy::Refuse.into();
        assert!(parse(guarded).is_ok());
    }

    #[test]
    fn every_refusal_names_its_field() {
        assert_eq!(refused(|r| r.source.clear()), "source");
        assert_eq!(refused(|r| r.source = "ghcr.io/acme/app".into()), "source");
        assert_eq!(refused(|r| r.targets.clear()), "targets");
        assert_eq!(refused(|r| r.targets[0].repository.clear()), "targets[0].repository");
        assert_eq!(refused(|r| r.priority = 101), "priority");
        assert_eq!(refused(|r| r.priority = i32::MIN), "priority");
        assert_eq!(refused(|r| r.reason = "x".repeat(1_001)), "reason");
        assert_eq!(refused(|r| r.on_behalf_of = "a\nb".into()), "on_behalf_of");
        assert_eq!(refused(|r| r.idempotency_key = "é".into()), "idempotency_key");
        assert_eq!(refused(|r| r.plan = "x".repeat(129)), "plan");
        assert_eq!(refused(|r| r.plan = "a\tb".into()), "plan");
        assert_eq!(refused(|r| _ = r.labels.insert("a b".into(), String::new())), "labels");
        assert_eq!(
            refused(|r| r.not_after = Some(Timestamp { seconds: i64::MAX, nanos: 0 })),
            "not_after"
        );
        assert_eq!(refused(|r| r.on_failure = 3), "on_failure");
        assert_eq!(refused(|r| r.if_older = -1), "if_older");
        assert_eq!(refused(|r| r.semver = "1.4".into()), "semver");
        assert_eq!(refused(|r| r.semver = "v1.4.2 ".into()), "semver");
        assert_eq!(refused(|r| r.semver_moves_pre_release = true), "semver_moves_pre_release");
        let with = |selection| refused(|r| r.selection = Some(selection));
        let platforms = vec!["linux".to_owned()];
        let wrong = v1::Selection { platforms, ..v1::Selection::default() };
        assert_eq!(with(wrong), "selection.platforms");
        let referrers = vec!["sbom".to_owned()];
        let wrong = v1::Selection { referrers, ..v1::Selection::default() };
        assert_eq!(with(wrong), "selection.referrers");
    }

    #[test]
    fn what_would_order_nothing_is_refused() {
        assert_eq!(refused(|r| r.order_key = Some(v1::OrderKey { key: None })), "order_key");
        assert_eq!(refused(|r| r.order_key = Some(number(u64::MAX))), "order_key.number");
        assert_eq!(
            refused(|r| {
                r.order_key = Some(number(1));
                r.targets[0].floating_tags.clear();
            }),
            "order_key"
        );
        assert_eq!(
            refused(|r| {
                r.order_key = Some(number(1));
                r.semver = "1.4.2".into();
            }),
            "order_key"
        );
        for policy in [v1::OlderPolicy::Refuse, v1::OlderPolicy::Supersede] {
            assert_eq!(refused(|r| r.if_older = policy.into()), "if_older");
        }
    }

    #[test]
    fn what_goes_against_the_rules_needs_a_reason() {
        for blank in ["", "  "] {
            let with = |change: fn(&mut v1::CreateReleaseRequest)| {
                refused(|r| {
                    r.reason = blank.into();
                    change(r);
                })
            };
            assert_eq!(with(|r| r.allow_backward = true), "reason");
            assert_eq!(with(|r| r.break_glass = true), "reason");
        }
    }

    fn grant(pattern: &str, actions: &[Action]) -> Grant {
        Grant { repositories: vec![pattern.parse().unwrap()], actions: actions.to_vec() }
    }

    /// What the caller's rights are refused for.
    fn missing(caller: &Principal, request: &v1::CreateReleaseRequest) -> String {
        let failure = allow(caller, &parse(request.clone()).unwrap()).unwrap_err();
        assert_eq!(failure.reason(), Reason::PermissionDenied);
        failure.field_name().unwrap().to_owned()
    }

    #[test]
    fn each_part_needs_its_own_right() {
        let mut caller = Principal { name: "ci".into(), grants: vec![] };
        let mut request = request();
        assert_eq!(missing(&caller, &request), "source");
        caller.grants.push(grant("ghcr.io/*", &[Action::Read]));
        assert_eq!(missing(&caller, &request), "targets[0].repository");
        caller.grants.push(grant("docker.io/acme/*", &[Action::Publish]));
        assert_eq!(missing(&caller, &request), "targets[0].floating_tags");
        request.targets[0].floating_tags.clear();
        allow(&caller, &parse(request.clone()).unwrap()).unwrap();
        // A version moves floating tags, whether or not some are named.
        request.semver = "1.4.2".into();
        assert_eq!(missing(&caller, &request), "semver");
        caller.grants.push(grant("docker.io/acme/app", &[Action::MoveFloating]));
        allow(&caller, &parse(request).unwrap()).unwrap();
    }

    #[test]
    fn going_back_and_breaking_the_glass_need_their_rights_at_every_target() {
        let all = [Action::Read, Action::Publish, Action::MoveFloating];
        let mut caller = Principal { name: "ci".into(), grants: vec![grant("*", &all)] };
        let mut request = request();
        let other =
            v1::Target { repository: "docker.io/acme/b".into(), ..request.targets[0].clone() };
        request.targets.push(other);
        request.reason = "the old one works".into();
        for (action, field) in
            [(Action::Rollback, "allow_backward"), (Action::BreakGlass, "break_glass")]
        {
            let mut asked = request.clone();
            asked.allow_backward = action == Action::Rollback;
            asked.break_glass = action == Action::BreakGlass;
            assert_eq!(missing(&caller, &asked), field);
            caller.grants.push(grant("docker.io/acme/app", &[action]));
            assert_eq!(missing(&caller, &asked), field);
            caller.grants.push(grant("docker.io/acme/*", &[action]));
            allow(&caller, &parse(asked).unwrap()).unwrap();
        }
    }
}
