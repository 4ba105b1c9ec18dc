//! The targets of a release as they are asked for: repositories, their tags, and the guards on
//! single tags. Pure, as all parsing of requests.

use std::collections::BTreeSet;

use colophon_api::v1::{self, order_key::Key};
use colophon_domain::{
    Failure, IfOlder, OrderKey, OrderKind, Repository, Result, Tag, TagKind, TagRequest,
    TargetRequest,
};
use time::OffsetDateTime;

use crate::fields;

const TARGETS_MOST: usize = 32;
const TAGS_MOST: usize = 64;

/// What a release says of all its targets.
pub(super) struct Whole {
    /// What orders the builds of floating tags whose guard does not say otherwise.
    pub(super) order: Option<OrderKey>,
    /// What becomes of a floating tag that has a newer key.
    pub(super) if_older: IfOlder,
    /// Every target gets the tags of a version.
    pub(super) versioned: bool,
}

/// Reads the targets; refusals name the place (`targets[0].guards[1].tag`).
pub(super) fn targets(messages: &[v1::Target], whole: &Whole) -> Result<Vec<TargetRequest>> {
    if messages.is_empty() {
        return Err(Failure::invalid("targets", "targets is required")
            .remedy("name at least one repository to publish to"));
    }
    if messages.len() > TARGETS_MOST {
        return Err(Failure::invalid("targets", format!("more than {TARGETS_MOST} targets"))
            .remedy("make several releases"));
    }
    let mut seen = BTreeSet::new();
    let mut parsed = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let here = format!("targets[{index}]");
        let request = target(message, whole).map_err(|failure| failure.within(&here))?;
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

fn target(message: &v1::Target, whole: &Whole) -> Result<TargetRequest> {
    if message.repository.is_empty() {
        return Err(Failure::invalid("repository", "repository is required"));
    }
    let repository =
        Repository::parse(&message.repository).map_err(|failure| failure.field("repository"))?;
    counted(message, &repository, whole.versioned)?;
    let mut seen = BTreeSet::new();
    let mut tags = named("unique_tags", TagKind::Unique, &message.unique_tags, &mut seen)?;
    tags.extend(named("floating_tags", TagKind::Floating, &message.floating_tags, &mut seen)?);
    guarded(&message.guards, &mut tags)?;
    for tag in tags.iter_mut().filter(|tag| tag.kind == TagKind::Floating) {
        tag.order = tag.order.take().or_else(|| whole.order.clone());
        if tag.order.is_some() {
            tag.if_older = whole.if_older;
        }
    }
    Ok(TargetRequest { repository, tags })
}

/// Refuses too many tags, and none where no version makes some.
fn counted(message: &v1::Target, repository: &Repository, versioned: bool) -> Result<()> {
    let (unique, floating) = (message.unique_tags.len(), message.floating_tags.len());
    let count = unique + floating;
    if count == 0 && !versioned {
        return Err(Failure::invalid("unique_tags", format!("no tag is given for {repository}"))
            .remedy("give at least one unique or floating tag, or the release a semver"));
    }
    if count > TAGS_MOST {
        let longer = if unique >= floating { "unique_tags" } else { "floating_tags" };
        return Err(Failure::invalid(
            longer,
            format!("{count} tags for {repository}; there may be {TAGS_MOST}"),
        ));
    }
    Ok(())
}

fn named(
    field: &str,
    kind: TagKind,
    texts: &[String],
    seen: &mut BTreeSet<Tag>,
) -> Result<Vec<TagRequest>> {
    let mut parsed = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let here = format!("{field}[{index}]");
        let tag: Tag = fields::required(&here, text)?;
        if !seen.insert(tag.clone()) {
            return Err(Failure::invalid(here, format!("the tag {tag} is given twice"))
                .remedy("a tag is either unique or floating, and named once"));
        }
        parsed.push(TagRequest::new(tag, kind));
    }
    Ok(parsed)
}

/// Puts the conditions of the guards on the tags that they name.
fn guarded(guards: &[v1::Guard], tags: &mut [TagRequest]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for (index, message) in guards.iter().enumerate() {
        let here = format!("guards[{index}]");
        guard(message, tags, &mut seen).map_err(|failure| failure.within(&here))?;
    }
    Ok(())
}

fn guard(message: &v1::Guard, tags: &mut [TagRequest], seen: &mut BTreeSet<Tag>) -> Result<()> {
    let name: Tag = fields::required("tag", &message.tag)?;
    let Some(tag) = tags.iter_mut().find(|tag| tag.tag == name) else {
        return Err(Failure::invalid("tag", format!("{name} is no tag of this target"))
            .remedy("name it in unique_tags or floating_tags too"));
    };
    if !seen.insert(name) {
        return Err(Failure::invalid("tag", format!("the tag {} has a guard already", tag.tag))
            .remedy("put all conditions on a tag into one guard"));
    }
    if message.expected_digest.is_empty() && message.order_key.is_none() {
        // Most likely a variable of a script that is empty: letting it pass would take away the
        // protection that was asked for.
        return Err(Failure::invalid(
            "expected_digest",
            format!("the guard of {} has no condition", tag.tag),
        )
        .remedy("give expected_digest (none if there must be no such tag), or an order_key"));
    }
    tag.expected = fields::optional("expected_digest", &message.expected_digest, str::parse)?;
    if let Some(key) = &message.order_key {
        if tag.kind == TagKind::Unique {
            return Err(Failure::invalid(
                "order_key",
                format!("{} is a unique tag, and has one build only", tag.tag),
            )
            .remedy("give order keys to floating tags"));
        }
        tag.order = Some(order_key(key)?);
    }
    Ok(())
}

/// Reads an order key; refusals name the place from `order_key` on.
pub(super) fn order_key(message: &v1::OrderKey) -> Result<OrderKey> {
    match &message.key {
        Some(Key::Number(number)) => OrderKey::number(*number),
        Some(Key::Time(time)) => OffsetDateTime::try_from(*time)
            .map_err(|error| Failure::invalid("order_key.time", error.to_string()))
            .and_then(OrderKey::time),
        Some(Key::Semver(text)) => OrderKey::parse(OrderKind::Semver, text),
        None => Err(Failure::invalid("order_key", "the order key is empty")
            .remedy("give one of number, time and semver")),
    }
}

#[cfg(test)]
mod tests {
    use colophon_api::Timestamp;
    use colophon_domain::{Digest, Expected};

    use super::*;

    fn whole() -> Whole {
        Whole { order: None, if_older: IfOlder::Refuse, versioned: false }
    }

    fn message() -> v1::Target {
        v1::Target {
            repository: "docker.io/acme/app".into(),
            unique_tags: vec!["v1.4.2".into()],
            floating_tags: vec!["v1".into(), "latest".into()],
            guards: vec![v1::Guard {
                tag: "latest".into(),
                expected_digest: "none".into(),
                order_key: number(7),
            }],
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "the field is optional")]
    fn number(number: u64) -> Option<v1::OrderKey> {
        Some(v1::OrderKey { key: Some(Key::Number(number)) })
    }

    /// The field that a changed target is refused for.
    fn refused(change: impl FnOnce(&mut v1::Target)) -> String {
        let mut changed = message();
        change(&mut changed);
        targets(&[changed], &whole()).unwrap_err().field_name().unwrap_or("none").to_owned()
    }

    #[test]
    fn tags_are_read_unique_ones_first_with_their_guards() {
        let parsed = targets(&[message()], &whole()).unwrap().remove(0);
        let names: Vec<_> = parsed.tags.iter().map(|tag| tag.tag.as_str()).collect();
        assert_eq!(names, ["v1.4.2", "v1", "latest"]);
        assert_eq!(parsed.of(TagKind::Unique).count(), 1);
        let [unique, plain, guarded] = parsed.tags.as_slice() else { panic!("{parsed:?}") };
        assert_eq!((&unique.expected, &unique.order), (&None, &None));
        assert_eq!((&plain.expected, &plain.order), (&None, &None));
        assert_eq!(guarded.expected, Some(Expected::Absent));
        assert_eq!(guarded.order, Some(OrderKey::Number(7)));
    }

    #[test]
    fn a_guard_may_say_where_a_unique_tag_is() {
        let digest = Digest::sha256(b"manifest");
        let mut message = message();
        message.guards[0] = v1::Guard {
            tag: "v1.4.2".into(),
            expected_digest: digest.to_string(),
            order_key: None,
        };
        let parsed = targets(&[message], &whole()).unwrap().remove(0);
        assert_eq!(parsed.tags[0].expected, Some(Expected::At(digest)));
    }

    #[test]
    fn the_releases_key_holds_where_no_guard_has_one() {
        let order = OrderKey::parse(OrderKind::Number, "3").unwrap();
        let whole = Whole { order: Some(order), if_older: IfOlder::Supersede, ..whole() };
        let parsed = targets(&[message()], &whole).unwrap().remove(0);
        let keys: Vec<_> = parsed.tags.iter().map(|tag| tag.order.clone()).collect();
        assert_eq!(keys, [None, Some(OrderKey::Number(3)), Some(OrderKey::Number(7))]);
        let policies: Vec<_> = parsed.tags.iter().map(|tag| tag.if_older).collect();
        assert_eq!(policies, [IfOlder::Refuse, IfOlder::Supersede, IfOlder::Supersede]);
    }

    #[test]
    fn with_a_version_a_target_needs_no_tags() {
        let bare = v1::Target { repository: "docker.io/acme/app".into(), ..Default::default() };
        let failure = targets(std::slice::from_ref(&bare), &whole()).unwrap_err();
        assert_eq!(failure.field_name(), Some("targets[0].unique_tags"));
        let whole = Whole { versioned: true, ..whole() };
        assert!(targets(&[bare], &whole).unwrap()[0].tags.is_empty());
    }

    #[test]
    fn every_refusal_of_a_tag_names_its_field() {
        assert_eq!(refused(|t| t.repository.clear()), "targets[0].repository");
        assert_eq!(refused(|t| t.repository = "a/b:tag".into()), "targets[0].repository");
        assert_eq!(refused(|t| t.floating_tags[1] = "a b".into()), "targets[0].floating_tags[1]");
        assert_eq!(refused(|t| t.unique_tags.push(String::new())), "targets[0].unique_tags[1]");
        assert_eq!(refused(|t| t.unique_tags.push("v1.4.2".into())), "targets[0].unique_tags[1]");
        assert_eq!(
            refused(|t| t.floating_tags[0] = "v1.4.2".into()),
            "targets[0].floating_tags[0]"
        );
        let tags = |count: usize| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>();
        assert_eq!(refused(|t| t.floating_tags = tags(64)), "targets[0].floating_tags");
        assert_eq!(refused(|t| t.unique_tags = tags(63)), "targets[0].unique_tags");
        let failure = targets(&vec![message(); 33], &whole()).unwrap_err();
        assert_eq!(failure.field_name(), Some("targets"));
        let mut again = message();
        again.repository = "acme/app".into();
        let failure = targets(&[message(), again], &whole()).unwrap_err();
        assert_eq!(failure.field_name(), Some("targets[1].repository"));
    }

    #[test]
    fn every_refusal_of_a_guard_names_its_field() {
        let first = |change: fn(&mut v1::Guard)| refused(|t| change(&mut t.guards[0]));
        assert_eq!(first(|g| g.tag.clear()), "targets[0].guards[0].tag");
        assert_eq!(first(|g| g.tag = "a b".into()), "targets[0].guards[0].tag");
        assert_eq!(first(|g| g.tag = "v2".into()), "targets[0].guards[0].tag");
        assert_eq!(refused(|t| t.guards.push(t.guards[0].clone())), "targets[0].guards[1].tag");
        let expected = "targets[0].guards[0].expected_digest";
        assert_eq!(first(|g| g.expected_digest = "sha256:1".into()), expected);
        assert_eq!(first(|g| g.expected_digest = "None".into()), expected);
        assert_eq!(
            first(|g| {
                g.expected_digest.clear();
                g.order_key = None;
            }),
            expected
        );
        let order = "targets[0].guards[0].order_key";
        assert_eq!(first(|g| g.order_key = Some(v1::OrderKey { key: None })), order);
        assert_eq!(first(|g| g.tag = "v1.4.2".into()), order);
        assert_eq!(first(|g| g.order_key = number(u64::MAX)), format!("{order}.number"));
    }

    #[test]
    fn an_order_key_is_of_one_kind_and_within_its_bounds() {
        let read = |key| order_key(&v1::OrderKey { key: Some(key) });
        let most = i64::MAX.unsigned_abs();
        assert_eq!(read(Key::Number(most)).unwrap(), OrderKey::Number(most));
        let time: Timestamp = "2026-11-03T14:02:00.123456789Z".parse().unwrap();
        assert_eq!(read(Key::Time(time)).unwrap().value(), "2026-11-03T14:02:00.123456Z");
        assert_eq!(read(Key::Semver("v1.4.2-rc.1".into())).unwrap().kind(), OrderKind::Semver);
        for (key, field) in [
            (Key::Number(most + 1), "order_key.number"),
            (Key::Time(Timestamp { seconds: i64::MAX, nanos: 0 }), "order_key.time"),
            (Key::Time(Timestamp { seconds: -1, nanos: 0 }), "order_key.time"),
            (Key::Semver("1.4".into()), "order_key.semver"),
            (Key::Semver(String::new()), "order_key.semver"),
            (Key::Semver("1.4.2-".to_owned() + &"a".repeat(1_000)), "order_key.semver"),
        ] {
            let failure = read(key.clone()).unwrap_err();
            assert_eq!(failure.field_name(), Some(field), "{key:?}");
        }
    }
}
