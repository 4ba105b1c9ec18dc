//! The service's completions, loaded by bash, and its manual pages, read by `man`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test that fails fails the test"
)]

use std::process::{Command, Stdio};

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; run `make setup`"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn bash_completes_commands() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("completions");
    std::fs::write(&file, run(env!("CARGO_BIN_EXE_colophond"), &["completions", "bash"])).unwrap();
    let script = format!(
        "source {}; complete -p colophond; COMP_WORDS=(colophond migr) COMP_CWORD=1; \
         _colophond colophond migr colophond; echo ${{COMPREPLY[*]}}",
        file.display()
    );
    let said = run("bash", &["--norc", "--noprofile", "-c", &script]);
    assert!(said.contains("-F _colophond") && said.ends_with("\nmigrate\n"), "{said}");
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    run(env!("CARGO_BIN_EXE_colophond"), &["man", "--out", &place]);
    let pages: Vec<_> = std::fs::read_dir(&place).unwrap().map(|page| page.unwrap()).collect();
    assert!(pages.len() > 8, "{pages:?}");
    for page in pages {
        let path = page.path().display().to_string();
        let text = run("man", &["--warnings", "--encoding=UTF-8", "--local-file", &path]);
        assert!(text.contains("SYNOPSIS"), "{path}: {text}");
    }
}
