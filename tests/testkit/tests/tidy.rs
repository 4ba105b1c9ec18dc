//! Rules of this working copy that no compiler checks: which crate may use which, that every
//! module says what it is, that files stay readable, and that migrations are only ever added.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "all of it is a test, its helpers too; whatever is missing must fail it"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The floors of ARCHITECTURE.md: a crate uses only crates of lower floors, and those of one
/// floor do not know each other.
const FLOORS: [(&str, u8); 13] = [
    ("colophon-api", 0),
    ("colophon-domain", 0),
    ("colophon-ledger", 0),
    ("colophon-telemetry", 0),
    ("colophon-store", 1),
    ("colophon-registry", 1),
    ("colophon-vault", 1),
    ("colophon-launcher", 1),
    ("colophon-local", 1),
    ("colophon-engine", 2),
    ("colophon-server", 3),
    ("colophond", 4),
    ("colophon", 4),
];

/// Floors hold for what ships; these are the tests' own and stand above all.
const ABOVE: [&str; 4] = ["colophon-testkit", "colophon-tests", "colophon-demo", "colophon-bench"];

/// The one use within a floor: the ledger's entries speak of the domain's digests and references.
const NEIGHBOURS: [(&str, &str); 1] = [("colophon-ledger", "colophon-domain")];

/// The client is installed on machines that hold no secret and no database: it has the contract,
/// the words, the verification and the images that lie there, and nothing else of ours.
const CLIENT: [&str; 4] = ["colophon-api", "colophon-domain", "colophon-ledger", "colophon-local"];

/// How long a source file may be.
const LINES: usize = 500;

#[test]
fn crates_use_only_lower_floors() {
    let floors: BTreeMap<&str, u8> = FLOORS.into();
    let mut wrong = Vec::new();
    for (name, used_by_it) in uses() {
        let Some(floor) = floors.get(name.as_str()) else {
            if !ABOVE.contains(&name.as_str()) {
                wrong.push(format!("{name} has no floor; give it one here"));
            }
            continue;
        };
        for used in &used_by_it {
            let pair = (name.as_str(), used.as_str());
            let lower = floors.get(pair.1).is_some_and(|below| below < floor);
            if !lower && !NEIGHBOURS.contains(&pair) {
                wrong.push(format!("{name} uses {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_client_and_the_launcher_stay_small() {
    let uses = uses();
    let extra = |name: &str, allowed: &[&str]| {
        let extra = uses[name].iter().filter(|used| !allowed.contains(&used.as_str()));
        extra.cloned().collect::<Vec<_>>()
    };
    assert_eq!(extra("colophon", &CLIENT), Vec::<String>::new());
    // The launcher starts programs and knows nothing of the service.
    assert_eq!(extra("colophon-launcher", &[]), Vec::<String>::new());
}

#[test]
fn every_source_file_says_what_it_is_and_stays_readable() {
    let mut wrong = Vec::new();
    let sources = sources();
    assert!(sources.len() > 50, "only {} files were found", sources.len());
    for path in sources {
        let text = std::fs::read_to_string(&path).unwrap();
        let head = text.lines().next().unwrap_or_default();
        if !head.starts_with("//! ") || head.contains("placeholder") {
            wrong.push(format!("{}: begin with //! and what this is for", path.display()));
        }
        let lines = text.lines().count();
        if lines > LINES {
            wrong.push(format!("{}: {lines} lines, split it", path.display()));
        }
    }
    for entry in std::fs::read_dir(root().join("proto/colophon/v1")).unwrap() {
        let path = entry.unwrap().path();
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        if lines > LINES {
            wrong.push(format!("{}: {lines} lines, split it", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lints_are_expected_with_a_reason_and_never_silenced() {
    // Put together here, so that this file does not find itself.
    let attributes = ["#[", "#!["].map(|open| [open, "allow("].concat());
    let silenced = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        attributes.iter().any(|attribute| text.contains(attribute))
    };
    let found: Vec<_> = sources().into_iter().filter(silenced).collect();
    assert!(found.is_empty(), "use #[expect(.., reason = \"..\")]: {found:?}");
}

#[test]
fn migrations_are_numbered_without_gaps_and_name_one_topic() {
    let folder = std::fs::read_dir(root().join("migrations")).unwrap();
    let mut names: Vec<String> =
        folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    assert!(!names.is_empty());
    for (name, number) in names.iter().zip(1..) {
        let topic = name.strip_prefix(&format!("{number:04}_"));
        let topic = topic.and_then(|rest| rest.strip_suffix(".sql"));
        let plain = |topic: &str| topic.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(
            topic.is_some_and(|topic| !topic.is_empty() && plain(topic)),
            "{name}: expected {number:04}_topic.sql"
        );
    }
}

/// A database that ran a migration refuses a service in which its text differs, so a published
/// one is never edited. Published is what the newest version tag holds; without a tag, or where
/// the sources came without their history, nothing is.
#[test]
fn published_migrations_are_never_changed() {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root()).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(tag) = git(&["describe", "--tags", "--abbrev=0", "--match", "v*"]) else { return };
    let difference = [
        "diff",
        "--name-status",
        "--no-renames",
        "--diff-filter=MD",
        tag.trim(),
        "--",
        "migrations",
    ];
    let changed = git(&difference).unwrap();
    assert!(changed.is_empty(), "since {}: {changed}", tag.trim());
}

/// What each crate of the workspace uses of the others, in what it ships.
fn uses() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let uses = packages.map(|package| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        // `path` marks ours; `kind` is "dev" for what only tests use.
        let ours = dependencies.filter(|used| used["path"].is_string() && used["kind"] != "dev");
        (text(&package["name"]), ours.map(|used| text(&used["name"])).collect())
    });
    uses.collect()
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join("services"), root().join("tests")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort_unstable();
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
