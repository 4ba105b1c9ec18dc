//! The options of `push` and `prune-local`.

use std::path::PathBuf;

use clap::Args;
use colophon_domain::Platform;
use colophon_local::Source;

use super::{TIMES, Waiting, publish::Terms, values};
use crate::exit::EXIT_CODES;

/// What to push from this machine, where and as what.
#[derive(Debug, Args)]
#[command(after_help = TIMES, after_long_help = format!("{TIMES}\n\n{EXIT_CODES}"))]
pub struct Push {
    /// The image: `docker://NAME` of the local Docker engine, `docker-archive:FILE`,
    /// `oci-archive:FILE`, `oci:FOLDER`, or - for an archive on standard input
    #[arg(value_parser = values::source)]
    pub source: Source,
    /// How it is read and sent.
    #[command(flatten)]
    pub reading: Reading,
    /// Where and as what.
    #[command(flatten)]
    pub terms: Terms,
    /// What the working copy says.
    #[command(flatten)]
    pub git: WorkingCopy,
    /// What is written down.
    #[command(flatten)]
    pub outputs: Outputs,
    /// What is removed.
    #[command(flatten)]
    pub removal: Removal,
    /// How to wait.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// How an image of this machine is read and sent.
#[derive(Debug, Args)]
pub struct Reading {
    /// Which image of an archive or a folder that has several: a name, a tag or a digest
    #[arg(long, value_name = "NAME")]
    pub image: Option<String>,
    /// Push only this platform of an index, os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM", value_parser = values::platform)]
    pub platform: Option<Platform>,
    /// So many blobs are sent at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub streams: u8,
    /// Give up on a blob after so many attempts that brought nothing, one after the other
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub attempts: u32,
    /// The folder for temporary files, where the image comes as a stream or is compressed
    /// [default: TMPDIR]
    #[arg(long, value_name = "FOLDER")]
    pub spool: Option<PathBuf>,
}

/// What the working copy in the current folder says of the image.
#[derive(Debug, Args)]
#[command(next_help_heading = "From git")]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct WorkingCopy {
    /// Every --to gets the commit as a unique tag, and the release says commit, branch and origin
    #[arg(long)]
    pub git: bool,
    /// With --git: the first 12 digits of the commit as the tag
    #[arg(long, requires = "git")]
    pub git_short: bool,
    /// Push from a tree with changes that are not committed; the tag gets the suffix -dirty
    #[arg(long)]
    pub allow_dirty: bool,
    /// Publish as the version that the one git tag at the commit says
    #[arg(long, conflicts_with_all = ["semver", "order"])]
    pub semver_from_tag: bool,
}

/// What is written for what comes after in a pipeline, once all tags are where they should be.
#[derive(Debug, Args)]
#[command(next_help_heading = "Outputs")]
pub struct Outputs {
    /// Write the digest into this file
    #[arg(long, value_name = "FILE")]
    pub digest_file: Option<PathBuf>,
    /// Write what was published into this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// Add digest, image, tags and release to the file that the variable `GITHUB_OUTPUT` names
    #[arg(long)]
    pub github_output: bool,
}

/// What is removed from the local Docker engine when everything has come.
#[derive(Debug, Args)]
#[command(next_help_heading = "Afterwards")]
pub struct Removal {
    /// Remove the local name of `docker://NAME` once every tag was seen at its digest
    #[arg(long, conflicts_with = "no_wait")]
    pub remove_local: bool,
    /// With --remove-local: leave the newest N images of the local repository
    #[arg(long, value_name = "N", requires = "remove_local")]
    pub keep: Option<usize>,
}

/// What earlier runs left in the local Docker engine.
#[derive(Debug, Args)]
pub struct PruneLocal {
    /// Remove local names of images that are published here, host[:port]/name
    #[arg(long, value_name = "REPOSITORY", value_parser = values::repository)]
    pub repository: String,
    /// What the repository is called in the local engine [default: like --repository]
    #[arg(long, value_name = "NAME")]
    pub local: Option<String>,
    /// Leave the newest N images
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub keep: usize,
    /// Show what would be removed and what not, and why, and remove nothing
    #[arg(long)]
    pub plan: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;

    fn parsed(line: &str) -> Result<Push, clap::Error> {
        match Cli::try_parse_from(line.split_whitespace())?.command {
            Command::Push(push) => Ok(*push),
            _ => panic!("another command"),
        }
    }

    #[test]
    fn a_push_is_read_whole() {
        let push = parsed(
            "colophon push - --image app:1 --platform linux/arm64 --to b/x --tag 1 --float latest \
             --streams 2 --digest-file d --metadata-file m --github-output --reason why",
        )
        .unwrap();
        assert_eq!(push.source, Source::Stdin);
        assert_eq!((push.reading.streams, push.reading.attempts), (2, 10));
        assert_eq!(push.reading.platform.unwrap().to_string(), "linux/arm64");
        let request = push.terms.request("b/x@d".to_owned()).unwrap();
        assert_eq!((request.source.as_str(), request.reason.as_str()), ("b/x@d", "why"));
        assert_eq!(request.selection, None);
    }

    #[test]
    fn a_target_needs_no_tag_where_git_makes_one() {
        for option in ["--git", "--semver-from-tag", "--semver 1.4.2", "--tag 1"] {
            let line = format!("colophon push oci:x --to b/x {option}");
            assert!(parsed(&line).is_ok(), "{line}");
        }
        for options in [
            "",
            "--to b/x",
            "--to b/x --git-short --tag 1",
            "--to b/x --semver-from-tag --semver 1.4.2",
            "--to b/x --tag 1 --keep 2",
            "--to b/x --tag 1 --remove-local --no-wait",
            "--to b/x --tag 1 --streams 0",
        ] {
            assert_eq!(
                parsed(&format!("colophon push oci:x {options}")).unwrap_err().exit_code(),
                2
            );
        }
        let error = parsed("colophon push app:1 --to b/x --tag 1").unwrap_err().to_string();
        assert!(error.contains("docker-archive:FILE"), "{error}");
    }
}
