//! `--to`, `--tag`, `--float`, `--expect` and `--order-of`: each belongs to the last `--to`
//! before it. Clap keeps the positions of the values on the command line; this puts them together
//! again.

use std::any::Any;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches, error::ErrorKind};
use colophon_api::v1::{Guard, OrderKey, Target};

use super::values;

/// The targets of a release in the order of the command line.
#[derive(Debug, Clone, PartialEq)]
pub struct Targets(pub Vec<Target>);

const TO: &str = "to";
const TAG: &str = "tag";
const FLOAT: &str = "float";
const EXPECT: &str = "expect";
const ORDER_OF: &str = "order-of";
/// Not one of these options, but with it a target needs no tags of its own.
const SEMVER: &str = "semver";
/// Options of `push` that make tags, too.
const MAKE_TAGS: [&str; 2] = ["git", "semver_from_tag"];

impl Args for Targets {
    fn augment_args(command: Command) -> Command {
        let option = |name, value, help| {
            Arg::new(name).long(name).value_name(value).help(help).action(ArgAction::Append)
        };
        let to = "Publish to this repository, host[:port]/name; may be repeated";
        let tag = "A unique tag of the last --to: it never moves; may be repeated";
        let float = "A floating tag of the last --to: it moves forward; may be repeated";
        let expect = "Move this tag of the last --to only if it is at the digest now, or if there \
                      is \"none\"; may be repeated";
        let order_of = "What orders the builds of this floating tag of the last --to, in place of \
                        --order; may be repeated";
        command
            .arg(option(TO, "REPOSITORY", to).required(true))
            .arg(option(TAG, "TAG", tag))
            .arg(option(FLOAT, "TAG", float))
            .arg(option(EXPECT, "TAG=DIGEST", expect).value_parser(values::expected_of))
            .arg(option(ORDER_OF, "TAG=KIND:VALUE", order_of).value_parser(values::order_of))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Targets {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut starts: Vec<(usize, Target)> = placed(matches, TO)
            .map(|(index, repository)| (index, Target { repository, ..Target::default() }))
            .collect();
        for (name, floating) in [(TAG, false), (FLOAT, true)] {
            for (index, tag) in placed::<String>(matches, name) {
                let target = owner(&mut starts, index, name, &tag)?;
                if floating { &mut target.floating_tags } else { &mut target.unique_tags }
                    .push(tag);
            }
        }
        for (index, (tag, digest)) in placed::<(String, String)>(matches, EXPECT) {
            let target = owner(&mut starts, index, EXPECT, &tag)?;
            let place = &mut guard(target, &tag).expected_digest;
            set(place, digest, EXPECT, &tag)?;
        }
        for (index, (tag, key)) in placed::<(String, OrderKey)>(matches, ORDER_OF) {
            let target = owner(&mut starts, index, ORDER_OF, &tag)?;
            set(&mut guard(target, &tag).order_key, Some(key), ORDER_OF, &tag)?;
        }
        let asked = |name: &str| matches!(matches.try_get_one::<bool>(name), Ok(Some(true)));
        let versioned =
            matches.try_contains_id(SEMVER).unwrap_or(false) || MAKE_TAGS.into_iter().any(asked);
        let targets: Vec<Target> = starts.into_iter().map(|(_, target)| target).collect();
        for target in &targets {
            check(target, versioned)?;
        }
        Ok(Self(targets))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The values of an option with their positions on the command line.
fn placed<T: Any + Clone + Send + Sync>(
    matches: &ArgMatches,
    name: &str,
) -> impl Iterator<Item = (usize, T)> {
    let indices = matches.indices_of(name).into_iter().flatten();
    let values = matches.get_many::<T>(name).into_iter().flatten().cloned();
    indices.zip(values)
}

/// The target that a value at this position belongs to.
fn owner<'a>(
    starts: &'a mut [(usize, Target)],
    index: usize,
    name: &str,
    tag: &str,
) -> Result<&'a mut Target, Error> {
    let owner = starts.iter_mut().rev().find(|(start, _)| *start < index);
    owner
        .map(|(_, target)| target)
        .ok_or_else(|| usage(format!("--{name} {tag} stands before the first --to\n")))
}

/// The guard of a tag, which is made where there is none yet.
fn guard<'a>(target: &'a mut Target, tag: &str) -> &'a mut Guard {
    let guards = &mut target.guards;
    let place = guards.iter().position(|guard| guard.tag == tag);
    // One that is there is taken to the end, so that the last one is always the one meant.
    let guard = place.map(|place| guards.remove(place));
    guards.push_mut(guard.unwrap_or_else(|| Guard { tag: tag.to_owned(), ..Guard::default() }))
}

/// Sets what may be said once for each tag.
fn set<T: Default + PartialEq>(
    place: &mut T,
    value: T,
    name: &str,
    tag: &str,
) -> Result<(), Error> {
    if *place != T::default() {
        return Err(usage(format!("--{name} is given twice for the tag {tag}\n")));
    }
    *place = value;
    Ok(())
}

/// Refuses a target without tags, which only a version makes good, and conditions on tags that
/// are not named: those that a version makes must be named, too.
fn check(target: &Target, versioned: bool) -> Result<(), Error> {
    let repository = &target.repository;
    let Target { unique_tags, floating_tags, .. } = target;
    if !versioned && unique_tags.is_empty() && floating_tags.is_empty() {
        return Err(usage(format!(
            "--to {repository} has no --tag and no --float after it, and there is no --semver\n"
        )));
    }
    for guard in &target.guards {
        let tag = &guard.tag;
        let unique = unique_tags.contains(tag);
        if guard.order_key.is_some() && unique {
            return Err(usage(format!(
                "--{ORDER_OF} {tag}: it is a unique tag, which never moves; only floating tags \
                 have an order\n"
            )));
        }
        if !unique && !floating_tags.contains(tag) {
            let name = if guard.order_key.is_some() { ORDER_OF } else { EXPECT };
            return Err(usage(format!(
                "--{name} {tag}: --to {repository} has no such --tag or --float; name it there, too\n"
            )));
        }
    }
    Ok(())
}

fn usage(message: String) -> Error {
    Error::raw(ErrorKind::MissingRequiredArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Vec<Target>, Error> {
        let command = Command::new("test").no_binary_name(true);
        let command = Targets::augment_args(command).arg(Arg::new(SEMVER).long(SEMVER));
        let matches = command.try_get_matches_from(line.split(' '))?;
        Targets::from_arg_matches(&matches).map(|targets| targets.0)
    }

    fn target(repository: &str, unique: &[&str], floating: &[&str]) -> Target {
        let owned = |tags: &[&str]| tags.iter().map(|&tag| tag.to_owned()).collect();
        Target {
            repository: repository.into(),
            unique_tags: owned(unique),
            floating_tags: owned(floating),
            guards: Vec::new(),
        }
    }

    #[test]
    fn a_tag_belongs_to_the_last_target_before_it() {
        let line = "--to a/x --tag 1.4.2 --float 1.4 --float=1 --to b/x --float latest --tag sha-1";
        assert_eq!(
            parse(line).unwrap(),
            [target("a/x", &["1.4.2"], &["1.4", "1"]), target("b/x", &["sha-1"], &["latest"])]
        );
    }

    #[test]
    fn conditions_belong_to_a_tag_of_the_last_target() {
        let line = "--to a/x --expect 1=none --float 1 --order-of 1=number:7 \
                    --to b/x --float 1 --tag 2 --expect 2=none";
        let targets = parse(line).unwrap();
        let key = values::order("number:7").unwrap();
        let guard = |tag: &str, order_key| Guard {
            tag: tag.into(),
            expected_digest: "none".into(),
            order_key,
        };
        assert_eq!(targets[0].guards, [guard("1", Some(key))]);
        assert_eq!(targets[1].guards, [guard("2", None)]);
    }

    #[test]
    fn with_a_version_a_target_needs_no_tags_of_its_own() {
        assert_eq!(parse("--to a/x --semver 1.4.2").unwrap(), [target("a/x", &[], &[])]);
        let line = "--to a/x --float 1.4 --expect 1.4=none --semver 1.4.2";
        assert_eq!(parse(line).unwrap()[0].guards.len(), 1);
        let error = parse("--to a/x --expect 1.4=none --semver 1.4.2").unwrap_err();
        assert!(error.to_string().contains("name it there, too"), "{error}");
    }

    #[test]
    fn a_tag_without_a_target_and_a_target_without_a_tag_are_refused() {
        for (line, part) in [
            ("--tag 1 --to a/x --tag 2", "--tag 1 stands before"),
            ("--float 1 --to a/x --tag 2", "--float 1 stands before"),
            ("--expect 1=none --to a/x --tag 1", "--expect 1 stands before"),
            ("--order-of 1=number:1 --to a/x --float 1", "--order-of 1 stands before"),
            ("--to a/x --to b/x --tag 2", "--to a/x has no --tag"),
            ("--to a/x", "--to a/x has no --tag"),
            ("--tag 2", "--to <REPOSITORY>"),
            ("--to a/x --tag 2 --expect 1=none", "--expect 1: --to a/x has no such"),
            ("--to a/x --float 2 --order-of 1=number:1", "--order-of 1: --to a/x has no such"),
            ("--to a/x --tag 1 --order-of 1=number:1", "it is a unique tag"),
            ("--to a/x --tag 1 --expect 1=none --expect 1=none", "given twice for the tag 1"),
            ("--to a/x --tag 1 --expect 1", "TAG=DIGEST"),
            ("--to a/x --float 1 --order-of 1=7", "number"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(part), "{line}: {error}");
        }
    }
}
