//! What the working copy says of an image: the commit as a tag, labels, and the version that a git
//! tag says. It is asked through the program `git`, in the current folder.

use std::{path::Path, process::Command};

use colophon_domain::Version;

use crate::{
    args::{Terms, WorkingCopy},
    exit::Problem,
};

/// Digits of a short commit.
const SHORT: usize = 12;
/// Labels are no longer than this on the server's side.
const LABEL: usize = 256;

/// Adds to the terms what git was asked for, and refuses what git says against it.
pub fn apply(asked: &WorkingCopy, folder: &Path, terms: &mut Terms) -> Result<(), Problem> {
    if !asked.git && !asked.semver_from_tag {
        return Ok(());
    }
    let git = Program { folder };
    let commit = git.said(&["rev-parse", "--verify", "HEAD^{commit}"])?;
    let dirty = !git.said(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    if dirty && !asked.allow_dirty {
        return Err(Problem::usage("the working copy has changes that are not committed")
            .remedy("commit them, or give --allow-dirty with --git: the tag then ends in -dirty"));
    }
    if asked.semver_from_tag {
        if dirty {
            return Err(Problem::usage("a tree with changes is not the version of its git tag")
                .remedy("commit the changes and tag the commit, or give --semver VERSION"));
        }
        terms.semver = Some(version(&git.said(&["tag", "--points-at", "HEAD"])?)?);
    }
    if asked.git {
        let tag = tag(&commit, asked.git_short, dirty);
        for target in &mut terms.targets.0 {
            if !target.unique_tags.contains(&tag) {
                target.unique_tags.push(tag.clone());
            }
        }
        let branch = git.said(&["symbolic-ref", "--short", "-q", "HEAD"]).ok();
        let origin = git.said(&["config", "--get", "remote.origin.url"]).ok();
        let found = [
            ("git.commit", Some(commit)),
            ("git.branch", branch),
            ("git.origin", origin.as_deref().and_then(without_credentials)),
        ];
        // What was given by hand comes later, and stands.
        let given = std::mem::take(&mut terms.label);
        let fits = |text: &String| !text.is_empty() && text.chars().count() <= LABEL;
        terms.label = found
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value.filter(fits)?)))
            .chain(given)
            .collect();
    }
    Ok(())
}

fn tag(commit: &str, short: bool, dirty: bool) -> String {
    let digits = commit.get(..SHORT).filter(|_| short).unwrap_or(commit);
    if dirty { format!("{digits}-dirty") } else { digits.to_owned() }
}

/// The version of the one tag that is one.
fn version(tags: &str) -> Result<String, Problem> {
    let versions: Vec<&str> = tags.lines().filter(|tag| Version::parse(tag).is_ok()).collect();
    match versions.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => {
            let others: Vec<&str> = tags.lines().collect();
            let others = match others.as_slice() {
                [] => "it has no git tag".to_owned(),
                some => format!("its git tags are {}", some.join(", ")),
            };
            Err(Problem::usage(format!("no git tag of the commit is a version: {others}"))
                .remedy("tag the commit, for example git tag v1.4.2, or give --semver VERSION"))
        }
        several => {
            let text =
                format!("several git tags of the commit are versions: {}", several.join(", "));
            Err(Problem::usage(text).remedy("say which one it is with --semver VERSION"))
        }
    }
}

/// A remote's address without a name or password, and without what may hold one; `None` where
/// nobody can tell.
fn without_credentials(url: &str) -> Option<String> {
    let url = url.trim();
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    if bare.contains("::") {
        return None;
    }
    if let Some((scheme, rest)) = bare.split_once("://") {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let port = host.rsplit_once(':').map_or("", |(_, port)| port);
        // A slash within a password ends the authority too early; what is left of it would show.
        let odd = host == authority
            && !host.starts_with('[')
            && !port.bytes().all(|byte| byte.is_ascii_digit());
        let at_later = path.contains('@') && host != authority;
        if odd || at_later {
            return None;
        }
        return Some(format!("{scheme}://{host}/{path}"));
    }
    // `user@host:path`; a path of this machine has no host before a colon.
    match bare.rsplit_once('@') {
        Some((before, _)) if before.contains('/') => Some(bare.to_owned()),
        Some((_, after)) => Some(after.to_owned()),
        None => Some(bare.to_owned()),
    }
}

/// The program, in a folder.
struct Program<'a> {
    folder: &'a Path,
}

impl Program<'_> {
    /// What it printed, without the line's end.
    fn said(&self, arguments: &[&str]) -> Result<String, Problem> {
        let output = Command::new("git")
            // A setting of the working copy must not start programs for a question.
            .args(["-c", "core.fsmonitor=false"])
            .args(arguments)
            .current_dir(self.folder)
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("LC_ALL", "C")
            .stdin(std::process::Stdio::null())
            .output();
        let output = output.map_err(|error| {
            Problem::usage(format!("git cannot be run: {error}"))
                .remedy("install git, or leave --git and --semver-from-tag out")
        })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Problem::usage(format!("git {}: {said}", arguments.join(" ")))
                .remedy("run it in a working copy that has a commit"));
        }
        let text = String::from_utf8(output.stdout)
            .map_err(|_| Problem::usage(format!("git {}: no text", arguments.join(" "))))?;
        Ok(text.trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command as Asked};

    #[test]
    fn no_credential_of_a_remote_is_left() {
        for (url, bare) in [
            ("https://github.com/acme/app.git", Some("https://github.com/acme/app.git")),
            ("https://ann@git.corp.lan/app", Some("https://git.corp.lan/app")),
            ("https://ann:hush@git.corp.lan:8443/app", Some("https://git.corp.lan:8443/app")),
            ("https://x-access-token:hush@github.com/a/b.git", Some("https://github.com/a/b.git")),
            ("https://hush@hush@git.corp.lan/app", Some("https://git.corp.lan/app")),
            ("https://ann:hu/sh@git.corp.lan/app", None),
            ("https://ann:a@hu/sh@git.corp.lan/app", None),
            ("https://git.corp.lan/app?access_token=hush#hush", Some("https://git.corp.lan/app")),
            ("ssh://git@github.com:22/acme/app", Some("ssh://github.com:22/acme/app")),
            ("ssh://git@[::1]:22/app", None),
            ("git@github.com:acme/app.git", Some("github.com:acme/app.git")),
            ("ann:hush@github.com:acme/app.git", Some("github.com:acme/app.git")),
            ("/srv/git/app.git", Some("/srv/git/app.git")),
            ("/srv/a@b/app.git", Some("/srv/a@b/app.git")),
            ("ext::ssh -i hush host", None),
        ] {
            let stripped = without_credentials(url);
            assert_eq!(stripped.as_deref(), bare, "{url}");
            assert!(!stripped.unwrap_or_default().contains("hush"), "{url}");
        }
    }

    #[test]
    fn exactly_one_tag_says_the_version() {
        assert_eq!(version("v1.4.2\nnightly").unwrap(), "v1.4.2");
        assert_eq!(version("1.4.2-rc.1").unwrap(), "1.4.2-rc.1");
        assert!(version("").unwrap_err().message.contains("it has no git tag"));
        assert!(version("nightly\nv1.4").unwrap_err().message.contains("nightly, v1.4"));
        let several = version("v1.4.2\nv1.5.0").unwrap_err();
        assert!(several.message.contains("v1.4.2, v1.5.0"), "{}", several.message);
    }

    fn git(folder: &Path, arguments: &[&str]) -> String {
        let me = ["-c", "user.name=ann", "-c", "user.email=ann@example.com"];
        let output = Command::new("git")
            .args([&me[..], arguments].concat())
            .current_dir(folder)
            .env("HOME", folder)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn asked(options: &str, folder: &Path) -> Result<Terms, Problem> {
        let line = format!("colophon push oci:x --to b/x {options}");
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Asked::Push(push) = cli.command else { panic!("another command") };
        let mut terms = push.terms;
        apply(&push.git, folder, &mut terms).map(|()| terms)
    }

    #[test]
    fn a_working_copy_gives_tag_labels_and_version() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        git(folder, &["init", "-q", "-b", "main"]);
        let empty = asked("--git", folder).unwrap_err();
        assert!(empty.message.starts_with("git rev-parse"), "{}", empty.message);
        std::fs::write(folder.join("a"), "1").unwrap();
        git(folder, &["add", "a"]);
        git(folder, &["commit", "-q", "-m", "first"]);
        git(folder, &["remote", "add", "origin", "https://ann:hush@git.corp.lan/app"]);
        let commit = git(folder, &["rev-parse", "HEAD"]);

        let terms = asked("--git --label git.branch=mine", folder).unwrap();
        assert_eq!(terms.targets.0[0].unique_tags, [commit.as_str()]);
        let request = terms.request(String::new()).unwrap();
        let labels: Vec<&str> = request.labels.values().map(String::as_str).collect();
        assert_eq!(labels, ["mine", commit.as_str(), "https://git.corp.lan/app"]);
        let terms = asked("--git --git-short", folder).unwrap();
        assert_eq!(terms.targets.0[0].unique_tags, [&commit[..12]]);

        assert!(asked("--semver-from-tag", folder).is_err());
        git(folder, &["tag", "v1.4.2"]);
        let terms = asked("--semver-from-tag --semver-pre-release", folder).unwrap();
        assert_eq!(terms.semver.as_deref(), Some("v1.4.2"));
        assert!(terms.label.is_empty() && terms.targets.0[0].unique_tags.is_empty());

        // A file that git does not know, such as the archive itself, is no change.
        std::fs::write(folder.join("app.tar"), "x").unwrap();
        assert!(asked("--git", folder).is_ok());
        std::fs::write(folder.join("a"), "2").unwrap();
        assert!(asked("--git", folder).unwrap_err().remedy.unwrap().contains("--allow-dirty"));
        let terms = asked("--git --git-short --allow-dirty", folder).unwrap();
        assert_eq!(terms.targets.0[0].unique_tags, [format!("{}-dirty", &commit[..12])]);
        assert!(asked("--git --allow-dirty --semver-from-tag", folder).is_err());
    }
}
