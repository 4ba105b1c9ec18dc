//! The command lines that the documentation shows, so that each program can hold its own parser
//! against them.

use std::{
    path::{Path, PathBuf},
    process::{Command as Process, Stdio},
};

use clap::Command;

use crate::error::{Error, Result, While as _};

/// A command line in a block of code.
#[derive(Debug)]
pub struct Line {
    /// The page and what the line is, for messages.
    pub place: String,
    /// Its words as a shell reads them, the program's name first.
    pub words: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The pages with their names: those at the root, the chart's, and all of `docs`.
fn pages() -> Result<Vec<(String, String)>> {
    let fixed = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "helm/colophon/README.md"];
    let mut names = fixed.map(str::to_owned).to_vec();
    for entry in std::fs::read_dir(root().join("docs")).doing("listing docs")? {
        let path = entry.doing("listing docs")?.path();
        if path.extension().is_some_and(|kind| kind == "md") {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            names.push(format!("docs/{name}"));
        }
    }
    names.sort();
    let read = |name: String| {
        let text = std::fs::read_to_string(root().join(&name)).doing(format!("reading {name}"))?;
        Ok((name, text))
    };
    names.into_iter().map(read).collect()
}

/// Every line in a block of code that runs `program`; continued ones are joined.
pub fn lines(program: &str) -> Result<Vec<Line>> {
    let mut found = Vec::new();
    for (name, text) in pages()? {
        for block in text.split("\n```").skip(1).step_by(2) {
            for line in block.replace("\\\n", " ").lines().skip(1) {
                let line = line.trim_start().trim_start_matches("$ ");
                if line.split(' ').next() == Some(program) {
                    let place = format!("{name}: {line}");
                    found.push(Line { words: words(program, line, &place)?, place });
                }
            }
        }
    }
    Ok(found)
}

/// The words of one command, as bash reads them; where its output goes is left out.
fn words(program: &str, line: &str, place: &str) -> Result<Vec<String>> {
    let end = [" |", " &&", " >", " <"].iter().filter_map(|end| line.find(end)).min();
    let own = line.get(..end.unwrap_or(line.len())).unwrap_or(line);
    // A function of the program's name takes the program's place.
    let script = format!("{program}() {{ printf '%s\\0' {program} \"$@\"; }}\n{own}");
    let output = Process::new("bash")
        .args(["--norc", "--noprofile", "-f", "-c", &script])
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .doing("asking bash for words")?;
    if !output.status.success() || !output.stderr.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::new(format!("{place}: {said}")));
    }
    let text = String::from_utf8(output.stdout).doing("reading words")?;
    let words = text.split_terminator('\0').map(str::to_owned).collect();
    Ok(words)
}

/// What the text between blocks says of commands and options of a program that there are not: in
/// code of one line that begins with its name. `program` is built, with global options everywhere.
pub fn mentions(program: &Command) -> Result<Vec<String>> {
    let own = program.get_name();
    let mut wrong = Vec::new();
    for (name, text) in pages()? {
        for prose in text.split("\n```").step_by(2) {
            for code in prose.split('`').skip(1).step_by(2) {
                let mut words = code.split_whitespace();
                if words.next() == Some(own)
                    && let Some(what) = unknown(program, words)
                {
                    wrong.push(format!("{name}: `{code}`: there is no {what}"));
                }
            }
        }
    }
    Ok(wrong)
}

/// The first word that names a command or an option that is not there.
fn unknown<'a>(program: &Command, words: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut command = program;
    let mut named = false;
    for word in words {
        if let Some(option) = word.strip_prefix("--") {
            let option = option.split('=').next().unwrap_or(option);
            let known = ["help", "version"].contains(&option)
                || command.get_arguments().any(|argument| argument.get_long() == Some(option));
            if !known {
                return Some(word.to_owned());
            }
        } else if !named
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
            && !word.starts_with('-')
        {
            let Some(found) = command.find_subcommand(word) else { return Some(word.to_owned()) };
            (command, named) = (found, true);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction};

    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        let read = |line: &str| words("it", line, "here").unwrap();
        assert_eq!(read("it a 'b c' \"d e\" # f"), ["it", "a", "b c", "d e"]);
        assert_eq!(read("it * --x \"$NONE-y\" | jq ."), ["it", "*", "--x", "-y"]);
        assert_eq!(read("it a || test $? -eq 7"), ["it", "a"]);
        assert_eq!(read("it a > /nowhere/b"), ["it", "a"]);
        assert!(words("it", "it 'a", "here").is_err());
    }

    #[test]
    fn what_is_not_there_is_found() {
        let long = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
        let mut program = Command::new("it")
            .arg(long("all").global(true))
            .subcommand(Command::new("go").arg(long("on")));
        program.build();
        let first = |line: &str| unknown(&program, line.split(' '));
        for line in ["go", "go --on X", "--all go --all", "X go --help", "-c FILE go"] {
            assert_eq!(first(line), None, "{line}");
        }
        assert_eq!(first("went").as_deref(), Some("went"));
        assert_eq!(first("go --off").as_deref(), Some("--off"));
    }
}
