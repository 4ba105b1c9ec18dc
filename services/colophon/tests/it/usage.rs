//! Command lines that are wrong: code 2, nothing is sent, and the message says what to do.

use crate::{colophon, colophon_with, fake::Fake, ran};

#[test]
fn a_wrong_command_line_exits_with_2_before_anything_is_sent() {
    let fake = Fake::start();
    for line in [
        "",
        "publish",
        "publish a/x:1",
        "publish a/x:1 --to b/x",
        "publish a/x:1 --tag 1 --to b/x --tag 2",
        "publish a/x:1 --to b/x --tag 1 --not-after tomorrow",
        "publish a/x:1 --to b/x --tag 1 --timeout soon",
        "releases --state DONE",
        "history a/x@y",
        "resolve b/x:1 --token hush",
        "plan a/x:1 --to b/x --tag 1 --no-wait",
        "plan a/x:1 --to b/x --tag 1 --plan p1",
        "lift",
    ] {
        let output = colophon(&fake, line).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(!output.stderr.is_empty(), "{line}");
    }
    assert!(fake.script().authorization.is_empty());
}

/// Runs a wrong line, and sees that its message has all of these parts.
fn wrong(fake: &Fake, line: &[&str], parts: &[&str]) {
    let output = colophon_with(fake, line).output().unwrap();
    let ran = ran(&output);
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{line:?}: {}", ran.err);
    for part in parts {
        assert!(ran.err.contains(part), "{line:?}: {part}: {}", ran.err);
    }
}

#[test]
fn what_publish_cannot_mean_is_explained() {
    let fake = Fake::start();
    for command in ["publish", "plan"] {
        let to = [command, "a/x:1", "--to", "b/x"];
        let cases: [(&[&str], &[&str]); 16] = [
            (&[], &["--to b/x has no --tag and no --float after it", "--semver"]),
            (&["--tag", "1", "--allow-backward"], &["--allow-backward needs --reason", "ledger"]),
            (&["--tag", "1", "--break-glass"], &["--break-glass needs --reason"]),
            (&["--tag", "1", "--break-glass", "--reason", " "], &["--break-glass needs --reason"]),
            (&["--float", "1", "--if-older", "supersede"], &["--order number:1234"]),
            (&["--float", "1", "--if-older", "keep"], &["refuse", "supersede"]),
            (&["--tag", "1", "--order", "number:1"], &["there is no --float"]),
            (&["--float", "1", "--order", "1234"], &["number:1234"]),
            (&["--float", "1", "--order", "semver:1.4"], &["1.4"]),
            (&["--float", "1", "--order-of", "1=1234"], &["--order-of", "number:1234"]),
            (&["--tag", "1", "--order-of", "1=number:1"], &["never moves"]),
            (&["--tag", "1", "--expect", "2=none"], &["--expect 2", "no such --tag or --float"]),
            (&["--tag", "1", "--expect", "1"], &["TAG=DIGEST", "TAG=none"]),
            (&["--tag", "1", "--expect", "1=sha256:1"], &["the word none"]),
            (&["--semver", "1.4"], &["MAJOR.MINOR.PATCH"]),
            (
                &["--semver", "1.4.2", "--order", "number:1"],
                &["--semver <VERSION>", "cannot be used with", "--order"],
            ),
        ];
        for (options, parts) in cases {
            wrong(&fake, &[&to[..], options].concat(), parts);
        }
        wrong(&fake, &[&to[..], &["--tag", "1", "--semver-pre-release"]].concat(), &["--semver"]);
        wrong(&fake, &[&to[..], &["--tag", "1", "--on-failure", "x"]].concat(), &["restore"]);
    }
    assert!(fake.script().authorization.is_empty());
}

#[test]
fn what_the_other_commands_cannot_mean_is_explained() {
    let fake = Fake::start();
    let cases: [(&[&str], &[&str]); 14] = [
        (&["freeze", "b/x", "--reason", "x"], &["a freeze has an end", "--until", "--for"]),
        (&["freeze", "b/x", "--for", "2h"], &["--reason"]),
        (&["freeze", "b/x", "--for", "2h", "--reason", ""], &["--reason"]),
        (&["freeze", "b/x", "--for", "2h", "--until", "14:02", "--reason", "x"], &["cannot be"]),
        (&["freeze", "acme*", "--for", "2h", "--reason", "x"], &["ends in /*", "quote"]),
        (&["freeze", "b/x", "--for", "long", "--reason", "x"], &["90s, 30m or 2h"]),
        (&["rollback", "--reason", "x"], &["REFERENCE"]),
        (&["rollback", "b/x:1"], &["--reason"]),
        (&["rollback", "b/x:1", "--reason", " "], &["say why"]),
        (&["rollback", "b/x:1", "--steps", "0", "--reason", "x"], &["--steps", "1..=10000"]),
        (&["rollback", "b/x:1", "--to", "latest", "--reason", "x"], &["--to <DIGEST>", "sha256"]),
        (&["rollback", "--release", "1", "--at", "14:02", "--reason", "x"], &["cannot be used"]),
        (&["settle", "b/x:1", "--reason", "x"], &["--as <moved|not-moved>"]),
        (&["settle", "b/x:1", "--as", "gone", "--reason", "x"], &["moved", "not-moved"]),
    ];
    for (line, parts) in cases {
        wrong(&fake, line, parts);
    }
    assert!(fake.script().authorization.is_empty());
}
