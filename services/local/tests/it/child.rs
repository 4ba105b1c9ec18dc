//! This test program as a process of its own: with a standard input, with a peak of memory that is
//! its own, and to be killed.

use std::{process::Stdio, time::Duration};

use colophon_local::{Image, Options, Source, open};
use colophon_testkit::wait::wait_until;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{
    fixture::{Files, noise},
    support::whole,
};

/// Marks the line that a parent looks for in the output.
const SAYS: &str = "says: ";

/// Runs one of the tests below.
pub fn command(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--ignored", "--nocapture"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

/// What the test said by [`say`].
pub fn said(output: &std::process::Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|line| line.split_once(SAYS));
    line.unwrap_or_else(|| panic!("nothing was said: {text}")).1.to_owned()
}

pub fn say(text: &str) {
    println!("{SAYS}{text}");
}

/// The digests of an image, as one line.
pub fn in_short(image: &Image) -> String {
    let manifests = image.manifests.iter().map(|manifest| &manifest.digest);
    let all: Vec<_> = manifests.chain(image.blobs.iter().map(|blob| &blob.digest)).collect();
    format!("{} {all:?}", image.root)
}

/// What a process finds in an archive on its standard input.
pub async fn opened_from_stdin(bytes: &[u8]) -> String {
    let mut child = command("child::opens_standard_input").spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(bytes).await.unwrap();
    drop(stdin);
    said(&child.wait_with_output().await.unwrap())
}

#[tokio::test]
#[ignore = "what other tests run as a process of its own"]
async fn opens_standard_input() {
    let image = open(&Source::Stdin, &Options::default(), &()).await.unwrap();
    whole(&image).await;
    say(&in_short(&image));
}

#[tokio::test]
async fn a_process_that_is_killed_leaves_nothing_on_the_disk() {
    let mut files = Files::default();
    let root = files.image("linux/amd64", &[&noise(1, 3_000_000)]);
    let tar = files.layout(&[root]).tar().end();
    let folder = tempfile::tempdir().unwrap();
    let mut child =
        command("child::opens_standard_input").env("TMPDIR", folder.path()).spawn().unwrap();
    // Half of it, so that it has a temporary file and waits for more.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&tar[..tar.len() / 2]).await.unwrap();
    let files = format!("/proc/{}/fd", child.id().unwrap());
    let spools = || {
        let open = std::fs::read_dir(&files).unwrap().flatten();
        open.flat_map(|file| std::fs::read_link(file.path()))
            .filter(|path| path.starts_with(folder.path()))
            .count()
    };
    let patience = Duration::from_mins(1);
    let spooled = async || (spools() > 0).then_some(());
    wait_until("there is a temporary file", patience, spooled).await.unwrap();
    child.kill().await.unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
