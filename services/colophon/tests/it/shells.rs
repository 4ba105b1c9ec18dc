//! Completions, loaded by the shells that they are for, and manual pages, read by `man`.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::bare;

/// Runs a shell with the completions in the file `completions` beside it, and gives what it printed.
fn asked(shell: &str, options: &[&str], script: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let made = bare(&format!("completions {shell}")).output().unwrap();
    assert!(made.status.success() && made.stderr.is_empty(), "{made:?}");
    std::fs::write(folder.path().join("completions"), made.stdout).unwrap();
    let output = Command::new(shell)
        .args(options)
        .args(["-c", script])
        .current_dir(folder.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{shell}: {error}; run `make setup`"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{shell}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn bash_completes_commands_options_and_values() {
    let script = r#"
        source completions
        function=$(complete -p colophon | sed 's/.* -F \([^ ]*\) .*/\1/')
        tab() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            "$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            echo "${COMPREPLY[*]}"
        }
        tab colophon pub
        tab colophon publish --semv
        tab colophon releases --output ''
        tab colophon settle ghcr.io/acme/app:1 --as ''
        tab colophon completions f
    "#;
    let said = asked("bash", &["--norc", "--noprofile"], script);
    let lines: Vec<&str> = said.lines().collect();
    let wanted =
        ["publish", "--semver --semver-pre-release", "table json", "moved not-moved", "fish"];
    assert_eq!(lines, wanted);
}

#[test]
fn fish_completes_commands_and_values() {
    let script = "source completions; complete -C 'colophon roll'; \
                  complete -C 'colophon releases --output '";
    let said = asked("fish", &["--no-config"], script);
    let words: Vec<&str> = said.lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(words, ["rollback", "json", "table"]);
}

#[test]
fn zsh_takes_the_completions() {
    let script = "autoload -U compinit; compinit -D -u; source ./completions; \
                  print $_comps[colophon]; whence -w _colophon";
    assert_eq!(asked("zsh", &["-f"], script), "_colophon\n_colophon: function\n");
}

/// A page as a reader sees it, if `man` has nothing to say against it.
fn read(page: &Path) -> String {
    let output = Command::new("man")
        .args(["--warnings", "--encoding=UTF-8", "--local-file"])
        .arg(page)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("LC_ALL", "C.UTF-8")
        .env("MANWIDTH", "120")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("man: {error}; run `make setup`"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", page.display());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    let ran = bare(&format!("man --out {}", pages.display())).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let help = String::from_utf8(bare("--help").output().unwrap().stdout).unwrap();
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let commands = commands.lines().take_while(|line| !line.is_empty());
    let mut names: Vec<String> = commands
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next().map(str::to_owned))
        .filter(|name| !name.is_empty() && name != "help")
        .map(|name| format!("colophon-{name}.1"))
        .collect();
    assert!(names.len() > 12, "{help}");
    names.push("colophon.1".to_owned());
    for name in &names {
        let text = read(&pages.join(name));
        assert!(text.contains("NAME") && text.contains("SYNOPSIS"), "{name}: {text}");
    }
    assert_eq!(std::fs::read_dir(&pages).unwrap().count(), names.len());
    // The table of exit codes is a table there, too.
    let text = read(&pages.join("colophon.1"));
    let rows = ["  12   too late: EXPIRED\n", "  130  interrupted; an accepted release goes on\n"];
    assert!(rows.iter().all(|row| text.contains(row)), "{text}");
    assert!(read(&pages.join("colophon-publish.1")).contains("--semver-pre-release"));
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let output = bare("man --out /dev/null/man").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/dev/null/man"), "{output:?}");
}
