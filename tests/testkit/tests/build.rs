//! What builds from less than the whole working copy: the image from what `.dockerignore` leaves, and
//! the contract's check in a clone without history.

#![expect(clippy::unwrap_used, reason = "all of it is a test; whatever is missing must fail it")]

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
    process::{Command, Output},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The files that the compiler reads into a program: those of the macros that name one.
fn included(source: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(source).unwrap();
    // The image has no tests, and what they include is not there.
    let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = Vec::new();
    for (name, from) in [
        ("include_str!(\"", source.parent().unwrap()),
        ("include_bytes!(\"", source.parent().unwrap()),
        (
            "sqlx::migrate!(\"",
            source.ancestors().find(|at| at.join("Cargo.toml").is_file()).unwrap(),
        ),
    ] {
        let named = shipped.split(name).skip(1).filter_map(|rest| rest.split('"').next());
        found.extend(named.map(|file| plain(&from.join(file))));
    }
    found
}

/// The path without `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        if part == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
        plain
    })
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_image_is_given_all_that_is_compiled() {
    let root = root();
    let ignored = std::fs::read_to_string(root.join(".dockerignore")).unwrap();
    let lines = || ignored.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    assert_eq!(lines().next(), Some("*"), "nothing is given but what is named");
    let given: BTreeSet<&str> = lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert_eq!(given.len() + 1, lines().count(), "{ignored}");

    let fixed = [".sqlx", "Cargo.lock", "Cargo.toml", "proto"].map(|name| root.join(name));
    let mut needed: Vec<PathBuf> = fixed.to_vec();
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let (_, members) = manifest.split_once("members = [").unwrap();
    let (members, _) = members.split_once(']').unwrap();
    // Cargo reads the manifest of every member, also of those that are not built.
    needed.extend(members.split('"').skip(1).step_by(2).map(|member| root.join(member)));
    let mut all = Vec::new();
    sources(&root.join("services"), &mut all);
    let before = needed.len();
    needed.extend(
        all.iter().filter(|path| path.iter().any(|at| at == "src")).flat_map(|it| included(it)),
    );
    assert!(needed.len() >= before + 3, "the document, the style and the migrations: {needed:?}");
    let given = |path: &PathBuf| given.iter().any(|name| path.starts_with(root.join(name)));
    let missing: Vec<_> = needed.iter().filter(|path| !path.exists() || !given(path)).collect();
    assert!(missing.is_empty(), "name it in .dockerignore: {missing:?}");
}

#[test]
fn the_contract_is_not_compared_with_half_a_history() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let run = |program: &str, at: &Path, arguments: &[&str]| -> Output {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(at).env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.env("GIT_CONFIG_NOSYSTEM", "1").output().unwrap()
    };
    let git = |at: &Path, arguments: &[&str]| {
        let who = ["-c", "user.name=it", "-c", "user.email=it@example.com"];
        let output = run("git", at, &[&who[..], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    let buf = root().join(".cache/venv/bin/buf");
    assert!(buf.is_file(), "run `make setup`: there is no {}", buf.display());
    std::fs::create_dir(&whole).unwrap();
    let copied = run("cp", &root(), &["-r", "proto", ".ci", whole.to_str().unwrap()]);
    assert!(copied.status.success(), "{copied:?}");
    git(&whole, &["init", "-q", "-b", "main"]);
    git(&whole, &["add", "-A"]);
    git(&whole, &["commit", "-q", "-m", "first"]);
    git(&whole, &["commit", "-q", "-m", "second", "--allow-empty"]);
    let url = format!("file://{}", whole.display());
    git(folder.path(), &["clone", "-q", "--depth", "1", &url, "shallow"]);
    git(folder.path(), &["clone", "-q", &url, "full"]);
    let check = |name: &str| {
        let clone = folder.path().join(name);
        std::fs::create_dir(clone.join(".cache")).unwrap();
        std::os::unix::fs::symlink(root().join(".cache/venv"), clone.join(".cache/venv")).unwrap();
        run("bash", &clone, &[".ci/contract"])
    };
    let full = check("full");
    assert!(full.status.success(), "{full:?}");
    assert!(String::from_utf8_lossy(&full.stdout).contains("compatible with"), "{full:?}");
    let shallow = check("shallow");
    let said = String::from_utf8_lossy(&shallow.stderr);
    assert!(!shallow.status.success() && said.contains("--unshallow"), "{shallow:?}");
}
