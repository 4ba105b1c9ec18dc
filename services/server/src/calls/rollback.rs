//! `ReleaseService.Rollback`.

use colophon_api::v1::{
    self,
    rollback_request::{Position as Asked, Subject},
};
use colophon_domain::{
    Action, Failure, Position, Principal, Reference, Repository, Result, RollbackRequest,
    RollbackSubject,
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Calls, get_tag::tagged, idempotency};
use crate::{answer, fields};

const STEPS_MOST: u32 = 10_000;

impl Calls {
    /// Moves floating tags back, for a caller who may do so at every repository concerned.
    pub(crate) async fn rollback(
        &self,
        caller: &Principal,
        request: v1::RollbackRequest,
    ) -> Result<v1::Release> {
        let request = parse(request, self.clock.now())?;
        match &request.subject {
            RollbackSubject::Tag { repository, .. } => {
                allow(caller, repository, "reference", request.break_glass)?;
            }
            RollbackSubject::Release(id) => self.allow_release(caller, *id, &request).await?,
        }
        Ok(answer::release(self.service.rollback(caller.clone(), request).await?))
    }

    /// Asks the rights at every target of a release; who may not see it learns nothing about it.
    async fn allow_release(
        &self,
        caller: &Principal,
        id: Uuid,
        request: &RollbackRequest,
    ) -> Result<()> {
        let release = self.visible(caller, id).await.map_err(|failure| failure.field("release"))?;
        for publication in &release.publications {
            allow(caller, &publication.repository, "release", request.break_glass)?;
        }
        Ok(())
    }
}

fn allow(
    caller: &Principal,
    repository: &Repository,
    field: &'static str,
    break_glass: bool,
) -> Result<()> {
    caller.require(Action::Rollback, repository).map_err(|failure| failure.field(field))?;
    if break_glass {
        caller
            .require(Action::BreakGlass, repository)
            .map_err(|failure| failure.field("break_glass"))?;
    }
    Ok(())
}

/// Reads the request; pure, with the time given.
fn parse(request: v1::RollbackRequest, now: OffsetDateTime) -> Result<RollbackRequest> {
    let subject = match &request.subject {
        Some(Subject::Reference(text)) => tag(text, &request, now)?,
        Some(Subject::Release(id)) => release(id, &request)?,
        None => {
            return Err(Failure::invalid("reference", "it is not said what goes back")
                .remedy("give reference for one tag, or release for all tags of a release"));
        }
    };
    Ok(RollbackRequest {
        subject,
        reason: fields::reason(request.reason)?,
        on_behalf_of: fields::prose("on_behalf_of", request.on_behalf_of, 200)?,
        labels: fields::labels(request.labels)?,
        idempotency_key: idempotency::key(request.idempotency_key)?,
        break_glass: request.break_glass,
    })
}

fn tag(text: &str, request: &v1::RollbackRequest, now: OffsetDateTime) -> Result<RollbackSubject> {
    let reference: Reference = fields::required("reference", text)?;
    let (repository, tag) = tagged("reference", reference)?;
    let position = position(request.position.as_ref(), now)?;
    let expected = fields::optional("expected_digest", &request.expected_digest, str::parse)?;
    Ok(RollbackSubject::Tag { repository, tag, position, expected })
}

fn position(asked: Option<&Asked>, now: OffsetDateTime) -> Result<Position> {
    match asked {
        Some(Asked::Steps(number)) => match u32::try_from(*number) {
            Ok(steps @ 1..=STEPS_MOST) => Ok(Position::Steps(steps)),
            _ => Err(Failure::invalid(
                "steps",
                format!("steps is {number}; it must be 1 to {STEPS_MOST}"),
            )),
        },
        Some(Asked::At(at)) => match fields::time("at", Some(*at))? {
            Some(at) if at <= now => Ok(Position::At(at)),
            _ => Err(Failure::invalid("at", "the time to go back to is in the future")),
        },
        Some(Asked::Digest(text)) => fields::required("digest", text).map(Position::To),
        None => Err(Failure::invalid("steps", "it is not said how far back")
            .remedy("give one of steps (1 for the position before), at and digest")),
    }
}

/// A release goes back as a whole: what says something of one tag is refused, not ignored.
fn release(id: &str, request: &v1::RollbackRequest) -> Result<RollbackSubject> {
    let id = fields::id("release", id)?;
    let extra = match request.position {
        Some(Asked::Steps(_)) => Some("steps"),
        Some(Asked::At(_)) => Some("at"),
        Some(Asked::Digest(_)) => Some("digest"),
        None => (!request.expected_digest.is_empty()).then_some("expected_digest"),
    };
    match extra {
        None => Ok(RollbackSubject::Release(id)),
        Some(field) => Err(Failure::invalid(
            field,
            format!("{field} is for one tag; a release goes back to what was before it"),
        )
        .remedy(format!("leave {field} out, or give reference in place of release"))),
    }
}

#[cfg(test)]
mod tests {
    use colophon_api::Timestamp;
    use colophon_domain::{Digest, Expected, Grant, Reason};
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-03 14:02:00 UTC);

    fn request() -> v1::RollbackRequest {
        v1::RollbackRequest {
            subject: Some(Subject::Reference("acme/app:v1".into())),
            position: Some(Asked::Steps(1)),
            reason: "500s since 14:00".into(),
            ..Default::default()
        }
    }

    fn of_release() -> v1::RollbackRequest {
        let id = Uuid::from_u128(7).to_string();
        v1::RollbackRequest { subject: Some(Subject::Release(id)), position: None, ..request() }
    }

    /// The field that a changed request is refused for.
    fn refused(change: impl FnOnce(&mut v1::RollbackRequest)) -> String {
        refused_of(request(), change)
    }

    fn refused_of(
        mut request: v1::RollbackRequest,
        change: impl FnOnce(&mut v1::RollbackRequest),
    ) -> String {
        change(&mut request);
        parse(request, NOW).unwrap_err().field_name().unwrap_or("none").to_owned()
    }

    #[test]
    fn a_tag_goes_back_by_one_of_three() {
        let digest = Digest::sha256(b"manifest");
        for (asked, position) in [
            (Asked::Steps(10_000), Position::Steps(10_000)),
            (Asked::At(NOW.into()), Position::At(NOW)),
            (Asked::Digest(digest.to_string()), Position::To(digest.clone())),
        ] {
            let request = v1::RollbackRequest {
                position: Some(asked),
                expected_digest: digest.to_string(),
                idempotency_key: "k".into(),
                ..request()
            };
            let parsed = parse(request, NOW).unwrap();
            let subject = RollbackSubject::Tag {
                repository: Repository::parse("docker.io/acme/app").unwrap(),
                tag: "v1".parse().unwrap(),
                position,
                expected: Some(Expected::At(digest.clone())),
            };
            assert_eq!(parsed.subject, subject);
            assert_eq!(parsed.idempotency_key.as_deref(), Some("k"));
        }
    }

    #[test]
    fn a_release_goes_back_as_a_whole() {
        let parsed = parse(of_release(), NOW).unwrap();
        assert_eq!(parsed.subject, RollbackSubject::Release(Uuid::from_u128(7)));
        for (position, field) in [
            (Asked::Steps(1), "steps"),
            (Asked::At(NOW.into()), "at"),
            (Asked::Digest(Digest::sha256(b"").to_string()), "digest"),
        ] {
            assert_eq!(refused_of(of_release(), |r| r.position = Some(position)), field);
        }
        let expected = refused_of(of_release(), |r| r.expected_digest = "none".into());
        assert_eq!(expected, "expected_digest");
        let id = refused_of(of_release(), |r| r.subject = Some(Subject::Release("7".into())));
        assert_eq!(id, "release");
    }

    #[test]
    fn every_refusal_names_its_field() {
        let subject = |text: &str| Some(Subject::Reference(text.into()));
        assert_eq!(refused(|r| r.subject = None), "reference");
        assert_eq!(refused(|r| r.subject = subject("")), "reference");
        assert_eq!(refused(|r| r.subject = subject("acme/app")), "reference");
        let by_digest = format!("acme/app@{}", Digest::sha256(b""));
        assert_eq!(refused(|r| r.subject = subject(&by_digest)), "reference");
        assert_eq!(refused(|r| r.position = None), "steps");
        for steps in [0, -1, 10_001, i32::MIN] {
            assert_eq!(refused(|r| r.position = Some(Asked::Steps(steps))), "steps");
        }
        let later = Timestamp::from(NOW + time::Duration::SECOND);
        for at in [later, Timestamp { seconds: i64::MIN, nanos: 0 }] {
            assert_eq!(refused(|r| r.position = Some(Asked::At(at))), "at");
        }
        for digest in ["", "none", "sha256:1"] {
            assert_eq!(refused(|r| r.position = Some(Asked::Digest(digest.into()))), "digest");
        }
        assert_eq!(refused(|r| r.expected_digest = "latest".into()), "expected_digest");
        assert_eq!(refused(|r| r.reason = " ".into()), "reason");
        assert_eq!(refused(|r| r.on_behalf_of = "a\0".into()), "on_behalf_of");
        assert_eq!(refused(|r| _ = r.labels.insert(String::new(), "x".into())), "labels");
        assert_eq!(refused(|r| r.idempotency_key = "\n".into()), "idempotency_key");
    }

    #[test]
    fn going_back_and_breaking_the_glass_are_two_rights() {
        let app = Repository::parse("docker.io/acme/app").unwrap();
        let caller = |actions: &[Action]| Principal {
            name: "ci".into(),
            grants: vec![Grant {
                repositories: vec!["docker.io/acme/*".parse().unwrap()],
                actions: actions.to_vec(),
            }],
        };
        let refused = |actions: &[Action]| {
            let failure = allow(&caller(actions), &app, "reference", true).unwrap_err();
            assert_eq!(failure.reason(), Reason::PermissionDenied);
            failure.field_name().unwrap().to_owned()
        };
        assert_eq!(refused(&[Action::Publish, Action::MoveFloating]), "reference");
        assert_eq!(refused(&[Action::Rollback]), "break_glass");
        allow(&caller(&[Action::Rollback]), &app, "reference", false).unwrap();
        let both = [Action::Rollback, Action::BreakGlass];
        allow(&caller(&both), &app, "reference", true).unwrap();
    }
}
