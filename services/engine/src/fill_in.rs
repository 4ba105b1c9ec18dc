//! Making a request whole: what follows from the version that it is published as, and from the
//! tag rules of the configuration, whatever the caller says.

use colophon_domain::{
    Failure, IfOlder, OrderKey, Reason, ReleaseRequest, RepositoryRule, Result, TagKind,
    TagRequest, TargetRequest, VersionRequest, is_retention_tag,
};

use crate::Engine;

/// Tags of one target, with those that follow from a version.
const TAGS_MOST: usize = 80;

impl Engine {
    /// Adds the tags that follow from the version, and makes unique what the configuration says
    /// is unique.
    pub(crate) fn fill_in(&self, request: &ReleaseRequest) -> Result<ReleaseRequest> {
        let mut whole = request.clone();
        for (index, target) in whole.targets.iter_mut().enumerate() {
            let rule = self.rules.of(&target.repository);
            let here = format!("targets[{index}]");
            if let Some(asked) = &request.version {
                add_version(target, asked, &rule).map_err(|failure| failure.within(&here))?;
            }
            refuse_kept(target).map_err(|failure| failure.within(&here))?;
            make_unique(target, &rule);
            if target.tags.len() > TAGS_MOST {
                return Err(Failure::invalid(
                    format!("{here}.floating_tags"),
                    format!("{} tags; there may be {TAGS_MOST}", target.tags.len()),
                ));
            }
            target.tags.sort_by_key(|tag| tag.kind != TagKind::Unique);
        }
        Ok(whole)
    }
}

/// Adds the version's own tag, and its floating tags.
fn add_version(
    target: &mut TargetRequest,
    asked: &VersionRequest,
    rule: &RepositoryRule,
) -> Result<()> {
    let unique = asked.version.tag();
    match target.tags.iter().find(|tag| tag.tag == unique) {
        Some(named) if named.kind == TagKind::Floating => {
            return Err(Failure::invalid(
                "floating_tags",
                format!("{unique} is the version's own tag and never moves"),
            )
            .remedy("leave it out: semver makes it a unique tag"));
        }
        Some(_) => {}
        None => target.tags.push(TagRequest::new(unique, TagKind::Unique)),
    }
    for template in rule.floats() {
        let tag = template.tag(&asked.version)?;
        let line = template.line(&asked.version);
        // Two templates may give one tag; then the first says of which versions it is.
        if target.tags.iter().any(|named| named.tag == tag && named.line.is_some()) {
            continue;
        }
        let position = target.tags.iter().position(|named| named.tag == tag);
        let mut request = match position {
            Some(at) => target.tags.remove(at),
            None => TagRequest::new(tag.clone(), TagKind::Floating),
        };
        if request.kind == TagKind::Unique {
            return Err(Failure::invalid(
                "unique_tags",
                format!("{tag} is a floating tag of the version {}", asked.version),
            )
            .remedy("leave it out, or have the operator change semver_floats of the repository"));
        }
        if request.order.is_some() {
            return Err(Failure::invalid(
                "guards",
                format!("{tag} is ordered by the version {}, and has another key", asked.version),
            )
            .remedy("leave the order key of this tag out"));
        }
        request.order = Some(OrderKey::Semver(asked.version.clone()));
        request.if_older = IfOlder::Keep;
        request.line = Some(line);
        if !asked.version.is_plain() && !asked.moves_pre_release {
            request.kept = Some((
                Reason::PreRelease,
                format!(
                    "{tag} stays: {} is a pre-release or has build metadata; to move floating tags \
                     with it, publish with semver_moves_pre_release",
                    asked.version
                ),
            ));
        }
        target.tags.push(request);
    }
    Ok(())
}

/// Tags under which digests are kept are nobody's to publish.
fn refuse_kept(target: &TargetRequest) -> Result<()> {
    let Some(tag) = target.tags.iter().find(|tag| is_retention_tag(&tag.tag)) else {
        return Ok(());
    };
    let list = match tag.kind {
        TagKind::Unique => "unique_tags",
        TagKind::Floating => "floating_tags",
    };
    Err(Failure::invalid(
        list,
        format!("{} is a name under which digests are kept that floating tags leave", tag.tag),
    )
    .remedy("take another tag"))
}

/// A tag that is unique by configuration is so whatever the caller calls it.
fn make_unique(target: &mut TargetRequest, rule: &RepositoryRule) {
    for tag in &mut target.tags {
        let moves = tag.kind == TagKind::Floating && tag.kept.is_none();
        if moves && rule.is_unique(&tag.tag) {
            *tag = TagRequest {
                expected: tag.expected.take(),
                content: tag.content.take(),
                ..TagRequest::new(tag.tag.clone(), TagKind::Unique)
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use colophon_domain::{RuleConfig, TagRules, Version};

    use super::*;

    fn rule(text: &str) -> RepositoryRule {
        let rules: Vec<RuleConfig> = if text.is_empty() {
            Vec::new()
        } else {
            vec![toml::from_str(&format!("pattern = \"*\"\n{text}")).unwrap()]
        };
        TagRules::new(rules).unwrap().of(&"ghcr.io/acme/app".to_owned().try_into().unwrap())
    }

    fn target(unique: &[&str], floating: &[&str]) -> TargetRequest {
        let tags = |texts: &[&str], kind| {
            let parse = |text: &&str| TagRequest::new(text.parse().unwrap(), kind);
            texts.iter().map(parse).collect::<Vec<_>>()
        };
        let mut all = tags(unique, TagKind::Unique);
        all.extend(tags(floating, TagKind::Floating));
        TargetRequest { repository: "ghcr.io/acme/app".to_owned().try_into().unwrap(), tags: all }
    }

    fn asked(version: &str, moves_pre_release: bool) -> VersionRequest {
        VersionRequest { version: Version::parse(version).unwrap(), moves_pre_release }
    }

    fn names(target: &TargetRequest) -> Vec<String> {
        target.tags.iter().map(|tag| format!("{}:{}", tag.kind, tag.tag)).collect()
    }

    #[test]
    fn a_version_makes_its_own_tag_and_its_floating_tags() {
        let mut whole = target(&["a1b2c3d"], &["edge"]);
        add_version(&mut whole, &asked("v1.4.2", false), &rule("")).unwrap();
        assert_eq!(
            names(&whole),
            [
                "unique:a1b2c3d",
                "floating:edge",
                "unique:v1.4.2",
                "floating:v1.4",
                "floating:v1",
                "floating:latest"
            ]
        );
        assert!(whole.tags[3].order.is_some() && whole.tags[3].line.is_some());
        assert!(whole.tags[1].order.is_none());
        let mut bare = target(&[], &[]);
        let floats = rule("semver_floats = [\"{major}\"]");
        add_version(&mut bare, &asked("1.4.2+b.5", false), &floats).unwrap();
        assert_eq!(names(&bare), ["unique:1.4.2_b.5", "floating:1"]);
        assert!(bare.tags[1].kept.is_some());
        let mut told = target(&[], &[]);
        add_version(&mut told, &asked("1.4.2-rc.1", true), &floats).unwrap();
        assert!(told.tags[1].kept.is_none());
    }

    #[test]
    fn what_contradicts_the_version_is_refused() {
        let with = |mut target: TargetRequest| {
            let failure = add_version(&mut target, &asked("1.4.2", false), &rule("")).unwrap_err();
            failure.field_name().unwrap().to_owned()
        };
        assert_eq!(with(target(&[], &["1.4.2"])), "floating_tags");
        assert_eq!(with(target(&["latest"], &[])), "unique_tags");
    }

    #[test]
    fn the_configuration_has_the_last_word_on_what_is_unique() {
        let mut whole = target(&[], &["a1b2c3d", "latest", "v1.2.3"]);
        make_unique(&mut whole, &rule("unique_tags = [\"[0-9a-f]{7,40}\", \"semver\"]"));
        assert_eq!(names(&whole), ["unique:a1b2c3d", "floating:latest", "unique:v1.2.3"]);
    }
}
