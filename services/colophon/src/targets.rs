//! `--to`, `--tag` and `--float`: every tag belongs to the last `--to` before it. Clap keeps the
//! positions of the values on the command line; this puts them together again.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches, error::ErrorKind};
use colophon_api::v1::Target;

/// The targets of a release in the order of the command line.
#[derive(Debug, Clone, PartialEq)]
pub struct Targets(pub Vec<Target>);

const TO: &str = "to";
const TAG: &str = "tag";
const FLOAT: &str = "float";

impl Args for Targets {
    fn augment_args(command: Command) -> Command {
        let option = |name, value, help| {
            Arg::new(name).long(name).value_name(value).help(help).action(ArgAction::Append)
        };
        command
            .arg(
                option(
                    TO,
                    "REPOSITORY",
                    "Publish to this repository, host[:port]/name; may be repeated",
                )
                .required(true),
            )
            .arg(option(
                TAG,
                "TAG",
                "A unique tag of the last --to: it never moves; may be repeated",
            ))
            .arg(option(
                FLOAT,
                "TAG",
                "A floating tag of the last --to: it moves forward; may be repeated",
            ))
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
            for (index, tag) in placed(matches, name) {
                let owner = starts.iter_mut().rev().find(|(start, _)| *start < index);
                let Some((_, target)) = owner else {
                    return Err(usage(format!("--{name} {tag} stands before the first --to\n")));
                };
                if floating { &mut target.floating_tags } else { &mut target.unique_tags }
                    .push(tag);
            }
        }
        let targets: Vec<Target> = starts.into_iter().map(|(_, target)| target).collect();
        let bare =
            |target: &&Target| target.unique_tags.is_empty() && target.floating_tags.is_empty();
        if let Some(target) = targets.iter().find(bare) {
            let repository = &target.repository;
            return Err(usage(format!("--to {repository} has no --tag and no --float after it\n")));
        }
        Ok(Self(targets))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The values of an option with their positions on the command line.
fn placed(matches: &ArgMatches, name: &str) -> impl Iterator<Item = (usize, String)> {
    let indices = matches.indices_of(name).into_iter().flatten();
    let values = matches.get_many::<String>(name).into_iter().flatten().cloned();
    indices.zip(values)
}

fn usage(message: String) -> Error {
    Error::raw(ErrorKind::MissingRequiredArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Vec<Target>, Error> {
        let command = Targets::augment_args(Command::new("test").no_binary_name(true));
        let matches = command.try_get_matches_from(line.split(' '))?;
        Targets::from_arg_matches(&matches).map(|targets| targets.0)
    }

    fn target(repository: &str, unique: &[&str], floating: &[&str]) -> Target {
        let owned = |tags: &[&str]| tags.iter().map(|&tag| tag.to_owned()).collect();
        Target {
            repository: repository.into(),
            unique_tags: owned(unique),
            floating_tags: owned(floating),
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
    fn a_tag_without_a_target_and_a_target_without_a_tag_are_refused() {
        for (line, part) in [
            ("--tag 1 --to a/x --tag 2", "--tag 1 stands before"),
            ("--float 1 --to a/x --tag 2", "--float 1 stands before"),
            ("--to a/x --to b/x --tag 2", "--to a/x has no --tag"),
            ("--to a/x", "--to a/x has no --tag"),
            ("--tag 2", "--to <REPOSITORY>"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(part), "{line}: {error}");
        }
    }
}
