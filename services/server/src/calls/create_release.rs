//! `ReleaseService.CreateRelease`.

use std::collections::BTreeSet;

use colophon_api::v1;
use colophon_domain::{
    Action, Failure, Principal, ReleaseRequest, Repository, Result, Tag, TargetRequest,
};

use super::Calls;
use crate::{answer, fields};

const TARGETS_MOST: usize = 32;
const TAGS_MOST: usize = 64;
const LABELS_MOST: usize = 32;
const KEY_MOST: usize = 128;

impl Calls {
    /// Accepts a release for a caller who may read the source and publish to every target.
    pub(crate) async fn create_release(
        &self,
        caller: &Principal,
        request: v1::CreateReleaseRequest,
    ) -> Result<v1::Release> {
        let request = parse(request)?;
        allow(caller, &request)?;
        let release = self.service.create(caller.clone(), request).await?;
        Ok(answer::release(release))
    }
}

/// Puts the key of the REST header into the message; the two may both be there if they agree.
pub(crate) fn with_header_key(
    mut request: v1::CreateReleaseRequest,
    key: Option<String>,
) -> Result<v1::CreateReleaseRequest> {
    match key {
        Some(key) if request.idempotency_key.is_empty() => {
            // An empty header would otherwise be the same as none, and sending again not safe.
            idempotency_key(&key)?;
            request.idempotency_key = key;
            Ok(request)
        }
        Some(key) if key != request.idempotency_key => Err(Failure::invalid(
            "idempotency_key",
            "the header Idempotency-Key and the field idempotency_key differ",
        )
        .remedy("give one of them, or the same in both")),
        _ => Ok(request),
    }
}

/// Reads the request; pure, so that the same bytes always give the same answer.
fn parse(request: v1::CreateReleaseRequest) -> Result<ReleaseRequest> {
    let source = fields::required("source", &request.source)?;
    let targets = targets(&request.targets)?;
    let reason = fields::prose("reason", request.reason, 1_000)?;
    let on_behalf_of = fields::prose("on_behalf_of", request.on_behalf_of, 200)?;
    if request.labels.len() > LABELS_MOST {
        return Err(Failure::invalid("labels", format!("more than {LABELS_MOST} labels")));
    }
    for (key, value) in &request.labels {
        fields::label(key, value).map_err(|failure| failure.field("labels"))?;
    }
    let not_after = fields::time("not_after", request.not_after)?;
    let Ok(priority @ -100..=100) = i16::try_from(request.priority) else {
        return Err(Failure::invalid(
            "priority",
            format!("priority is {}; it must be -100 to 100", request.priority),
        ));
    };
    let key = request.idempotency_key;
    let idempotency_key = if key.is_empty() {
        None
    } else {
        idempotency_key(&key)?;
        Some(key)
    };
    Ok(ReleaseRequest {
        source,
        targets,
        reason,
        on_behalf_of,
        labels: request.labels,
        not_after,
        priority,
        idempotency_key,
    })
}

fn idempotency_key(key: &str) -> Result<()> {
    let printable = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if (1..=KEY_MOST).contains(&key.len()) && printable {
        return Ok(());
    }
    Err(Failure::invalid("idempotency_key", "the idempotency key is not of its form")
        .remedy(format!("a key has 1 to {KEY_MOST} printable ASCII characters; a UUID will do")))
}

fn targets(targets: &[v1::Target]) -> Result<Vec<TargetRequest>> {
    if targets.is_empty() {
        return Err(Failure::invalid("targets", "targets is required")
            .remedy("name at least one repository to publish to"));
    }
    if targets.len() > TARGETS_MOST {
        return Err(Failure::invalid("targets", format!("more than {TARGETS_MOST} targets"))
            .remedy("make several releases"));
    }
    let mut seen = BTreeSet::new();
    let mut parsed = Vec::with_capacity(targets.len());
    for (index, message) in targets.iter().enumerate() {
        let here = format!("targets[{index}]");
        let request = target(message).map_err(|failure| failure.within(&here))?;
        if !seen.insert(request.repository.clone()) {
            return Err(Failure::invalid(
                format!("{here}.repository"),
                format!("{} is a target already", request.repository),
            )
            .remedy("put all tags of a repository into one target"));
        }
        parsed.push(request);
    }
    Ok(parsed)
}

fn target(target: &v1::Target) -> Result<TargetRequest> {
    if target.repository.is_empty() {
        return Err(Failure::invalid("repository", "repository is required"));
    }
    let repository =
        Repository::parse(&target.repository).map_err(|failure| failure.field("repository"))?;
    let count = target.unique_tags.len() + target.floating_tags.len();
    if count == 0 {
        return Err(Failure::invalid("unique_tags", format!("no tag is given for {repository}"))
            .remedy("give at least one unique or floating tag"));
    }
    if count > TAGS_MOST {
        let longer = if target.unique_tags.len() >= target.floating_tags.len() {
            "unique_tags"
        } else {
            "floating_tags"
        };
        return Err(Failure::invalid(
            longer,
            format!("{count} tags for {repository}; there may be {TAGS_MOST}"),
        ));
    }
    let mut seen = BTreeSet::new();
    let unique_tags = tags("unique_tags", &target.unique_tags, &mut seen)?;
    let floating_tags = tags("floating_tags", &target.floating_tags, &mut seen)?;
    Ok(TargetRequest { repository, unique_tags, floating_tags })
}

fn tags(field: &str, texts: &[String], seen: &mut BTreeSet<Tag>) -> Result<Vec<Tag>> {
    let mut parsed = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let here = format!("{field}[{index}]");
        let tag: Tag = fields::required(&here, text)?;
        if !seen.insert(tag.clone()) {
            return Err(Failure::invalid(here, format!("the tag {tag} is given twice"))
                .remedy("a tag is either unique or floating, and named once"));
        }
        parsed.push(tag);
    }
    Ok(parsed)
}

/// Asks for every right that the release needs, before the engine does anything with it.
fn allow(caller: &Principal, request: &ReleaseRequest) -> Result<()> {
    caller
        .require(Action::Read, &request.source.repository)
        .map_err(|failure| failure.field("source"))?;
    for (index, target) in request.targets.iter().enumerate() {
        let here = format!("targets[{index}]");
        caller
            .require(Action::Publish, &target.repository)
            .map_err(|failure| failure.field("repository").within(&here))?;
        if !target.floating_tags.is_empty() {
            caller
                .require(Action::MoveFloating, &target.repository)
                .map_err(|failure| failure.field("floating_tags").within(&here))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use colophon_api::Timestamp;
    use colophon_domain::{Grant, Reason};

    use super::*;

    fn request() -> v1::CreateReleaseRequest {
        v1::CreateReleaseRequest {
            source: "ghcr.io/acme/app:sha-1".into(),
            targets: vec![v1::Target {
                repository: "docker.io/acme/app".into(),
                unique_tags: vec!["v1.4.2".into()],
                floating_tags: vec!["v1".into(), "latest".into()],
            }],
            ..Default::default()
        }
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
            ..request()
        })
        .unwrap();
        assert_eq!(parsed.targets[0].floating_tags.len(), 2);
        assert_eq!(parsed.priority, -100);
        assert_eq!(parsed.idempotency_key.as_deref(), Some("run 17~"));
        assert_eq!(parse(request()).unwrap().idempotency_key, None);
    }

    #[test]
    fn every_refusal_names_its_field() {
        assert_eq!(refused(|r| r.source.clear()), "source");
        assert_eq!(refused(|r| r.source = "ghcr.io/acme/app".into()), "source");
        assert_eq!(refused(|r| r.targets.clear()), "targets");
        assert_eq!(refused(|r| r.targets = vec![r.targets[0].clone(); 33]), "targets");
        assert_eq!(
            refused(|r| r
                .targets
                .push(v1::Target { repository: "acme/app".into(), ..r.targets[0].clone() })),
            "targets[1].repository"
        );
        assert_eq!(refused(|r| r.targets[0].repository.clear()), "targets[0].repository");
        assert_eq!(
            refused(|r| r.targets[0].repository = "a/b:tag".into()),
            "targets[0].repository"
        );
        assert_eq!(
            refused(|r| r.targets[0].floating_tags[1] = "a b".into()),
            "targets[0].floating_tags[1]"
        );
        assert_eq!(
            refused(|r| r.targets[0].unique_tags.push(String::new())),
            "targets[0].unique_tags[1]"
        );
        assert_eq!(
            refused(|r| r.targets[0].floating_tags[0] = "v1.4.2".into()),
            "targets[0].floating_tags[0]"
        );
        assert_eq!(
            refused(|r| r.targets[0].unique_tags.push("v1.4.2".into())),
            "targets[0].unique_tags[1]"
        );
        assert_eq!(refused(|r| r.priority = 101), "priority");
        assert_eq!(refused(|r| r.priority = i32::MIN), "priority");
        assert_eq!(refused(|r| r.reason = "x".repeat(1_001)), "reason");
        assert_eq!(refused(|r| r.on_behalf_of = "a\nb".into()), "on_behalf_of");
        assert_eq!(refused(|r| r.idempotency_key = "x".repeat(129)), "idempotency_key");
        assert_eq!(refused(|r| r.idempotency_key = "é".into()), "idempotency_key");
        assert_eq!(
            refused(|r| r.not_after = Some(Timestamp { seconds: i64::MAX, nanos: 0 })),
            "not_after"
        );
    }

    #[test]
    fn tags_and_labels_are_counted() {
        let tags = |count: usize| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>();
        assert_eq!(
            refused(|r| {
                r.targets[0].unique_tags.clear();
                r.targets[0].floating_tags.clear();
            }),
            "targets[0].unique_tags"
        );
        assert_eq!(refused(|r| r.targets[0].floating_tags = tags(64)), "targets[0].floating_tags");
        let labels = |count: usize| (0..count).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(refused(|r| r.labels = labels(33)), "labels");
        assert_eq!(refused(|r| _ = r.labels.insert("a b".into(), String::new())), "labels");
        let mut most = request();
        most.labels = labels(32);
        most.targets[0].floating_tags = tags(63);
        parse(most).unwrap();
    }

    #[test]
    fn header_and_field_agree_or_one_is_left_out() {
        let with = |field: &str, header: Option<&str>| {
            let request = v1::CreateReleaseRequest { idempotency_key: field.into(), ..request() };
            with_header_key(request, header.map(Into::into)).map(|request| request.idempotency_key)
        };
        assert_eq!(with("", Some("k")).unwrap(), "k");
        assert_eq!(with("k", Some("k")).unwrap(), "k");
        assert_eq!(with("k", None).unwrap(), "k");
        for (field, header) in [("k", "other"), ("", ""), ("k", "")] {
            let failure = with(field, Some(header)).unwrap_err();
            assert_eq!(failure.field_name(), Some("idempotency_key"));
        }
    }

    #[test]
    fn each_part_needs_its_own_right() {
        let grant = |pattern: &str, actions: &[Action]| Grant {
            repositories: vec![pattern.parse().unwrap()],
            actions: actions.to_vec(),
        };
        let mut caller = Principal { name: "ci".into(), grants: vec![] };
        let request = parse(request()).unwrap();
        let missing = |caller: &Principal| {
            let failure = allow(caller, &request).unwrap_err();
            assert_eq!(failure.reason(), Reason::PermissionDenied);
            failure.field_name().unwrap().to_owned()
        };
        assert_eq!(missing(&caller), "source");
        caller.grants.push(grant("ghcr.io/*", &[Action::Read]));
        assert_eq!(missing(&caller), "targets[0].repository");
        caller.grants.push(grant("docker.io/acme/*", &[Action::Publish]));
        assert_eq!(missing(&caller), "targets[0].floating_tags");
        caller.grants.push(grant("docker.io/acme/app", &[Action::MoveFloating]));
        allow(&caller, &request).unwrap();
    }
}
