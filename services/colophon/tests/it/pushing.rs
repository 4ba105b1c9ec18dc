//! `push` against a server that is directed: only what is missing is sent, several blobs at once, and
//! what breaks off goes on where it stands.

use std::{process::Stdio, time::Duration};

use colophon_testkit::image::{Image, ImageSpec};
use tonic::{Code, Status};

use crate::{
    Ran, colophon,
    fake::{Fake, Step, until},
    queued, ran, refusal, run, succeeded,
    uploads::UPLOAD,
};

const TO: &str = "--to docker.io/a/x --tag 1.4.2 --float 1.4";

pub fn built(spec: ImageSpec) -> Image {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(spec.build()).unwrap()
}

/// A server whose next release succeeds.
pub fn fake() -> Fake {
    let fake = Fake::start();
    fake.script().create.push_back(Step::Answer(queued()));
    fake.script().get.push_back(Step::Answer(succeeded()));
    fake
}

fn line(image: &Image, options: &str) -> String {
    format!("push oci:{} {TO} {options}", image.layout().display())
}

fn push(fake: &Fake, image: &Image, options: &str) -> Ran {
    run(colophon(fake, &line(image, options)))
}

#[test]
fn an_image_is_sent_whole_and_then_published_by_its_digest() {
    let (fake, image) = (fake(), built(ImageSpec::new("whole").layer(700_000)));
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let options = format!(
        "--semver 1.4.2 --label a=b --idempotency-key k --digest-file {} --metadata-file {} \
         --github-output",
        path("digest").display(),
        path("meta.json").display(),
    );
    let mut command = colophon(&fake, &line(&image, &options));
    command.env("GITHUB_OUTPUT", path("github"));
    let ran = run(command);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("SUCCEEDED"), "{}", ran.out);
    let script = fake.script();
    let uploads = &script.uploads;
    // Two configurations, busybox, which both platforms share, and two layers of each.
    assert_eq!((uploads.present.len(), uploads.puts.len()), (7, 7));
    assert!(uploads.largest <= 256 << 10, "{}", uploads.largest);
    let digests: Vec<&str> =
        uploads.manifests.iter().map(|manifest| manifest.digest.as_str()).collect();
    assert_eq!(digests.len(), 3);
    assert_eq!(digests[2], image.digest(), "the index is last");
    let started = &uploads.started[0];
    assert_eq!((uploads.started.len(), started.repository.as_str()), (1, "docker.io/a/x"));
    assert!(started.origin.starts_with("oci:") && started.origin.contains(" on "));
    let request = &script.created[0];
    assert_eq!(request.source, format!("docker.io/a/x@{}", image.digest()));
    assert_eq!((request.upload.as_str(), request.idempotency_key.as_str()), (UPLOAD, "k"));
    assert_eq!((request.semver.as_str(), request.labels["a"].as_str()), ("1.4.2", "b"));
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap();
    assert_eq!(read("digest"), format!("sha256:{}\n", "b".repeat(64)));
    assert!(read("meta.json").contains("containerimage.digest"));
    assert!(read("github").contains("\ntags=docker.io/a/x:1.4.2,docker.io/a/x:1.4\n"));
    // A log gets a line for each blob, and not more.
    assert_eq!(ran.err.lines().filter(|line| line.contains(" is there (")).count(), 7);
}

#[test]
fn only_what_is_missing_is_sent() {
    let image = built(ImageSpec::tiny("missing").layer(50_000).layer(60_000));
    let first = fake();
    assert_eq!(push(&first, &image, "").code, Some(0));
    let mut present = first.script().uploads.present.clone();
    let left = present.pop().unwrap();
    let second = fake();
    second.script().uploads.present = present.clone();
    let ran = push(&second, &image, "");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let puts: Vec<String> = second.script().uploads.puts.iter().map(|put| put.0.clone()).collect();
    assert_eq!(puts, std::slice::from_ref(&left));
    assert!(ran.err.contains("1 of 4 blobs to send"), "{}", ran.err);
    // With nothing missing the release is all there is to do.
    let third = fake();
    present.push(left);
    third.script().uploads.present = present;
    let ran = push(&third, &image, "");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("all 4 blobs are there already"), "{}", ran.err);
    assert!(third.script().uploads.puts.is_empty());
}

#[test]
fn several_blobs_come_at_once_but_no_more_than_was_asked() {
    let mut spec = ImageSpec::tiny("several");
    for number in 0..6 {
        spec = spec.layer(300_000 + number);
    }
    let image = built(spec);
    for (options, most) in [("", 4), ("--streams 1", 1)] {
        let fake = fake();
        fake.script().uploads.pause = Duration::from_millis(60);
        let ran = push(&fake, &image, options);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(fake.script().uploads.at_once, (0, most));
    }
}

#[test]
fn a_stream_that_breaks_off_goes_on_where_it_stands() {
    let (fake, image) = (fake(), built(ImageSpec::tiny("broken").layer(2_000_000)));
    fake.script().uploads.breaks = [700_000, 1, 400_000].into();
    let ran = push(&fake, &image, "--streams 1");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("going on where it stands"), "{}", ran.err);
    let script = fake.script();
    let offsets: Vec<i64> = script.uploads.puts.iter().take(4).map(|put| put.1).collect();
    assert_eq!(offsets, [0, 700_000, 700_001, 1_100_001]);
    // Nothing came twice.
    let whole: usize = script.uploads.blobs.values().map(Vec::len).sum();
    assert_eq!(script.uploads.came(), whole);
}

#[test]
fn a_server_that_dies_and_comes_back_is_found_again() {
    let (mut fake, image) = (fake(), built(ImageSpec::tiny("dies").layer(4_000_000)));
    fake.script().uploads.pause = Duration::from_millis(20);
    let mut command = colophon(&fake, &line(&image, ""));
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the half", || fake.script().uploads.came() > 2_000_000);
    fake.kill();
    std::thread::sleep(Duration::from_millis(300));
    fake.script().uploads.pause = Duration::ZERO;
    fake.resume();
    let ran = ran(&running.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let script = fake.script();
    assert!(script.uploads.puts.iter().any(|put| put.1 > 1_000_000), "{:?}", script.uploads.puts);
}

#[test]
fn another_offset_is_asked_for_and_somebody_else_is_waited_for() {
    let (fake, image) = (fake(), built(ImageSpec::tiny("busy").layer(400_000)));
    {
        let mut script = fake.script();
        script.uploads.refuse_next = [
            refusal(Code::FailedPrecondition, "UPLOAD_OFFSET", "elsewhere"),
            refusal(Code::Aborted, "UPLOAD_BUSY", "somebody sends it"),
            refusal(Code::ResourceExhausted, "UPLOAD_LIMIT", "too many at once"),
        ]
        .into();
    }
    let before = std::time::Instant::now();
    // One attempt may be fruitless, so none of them may count but the first.
    let ran = push(&fake, &image, "--streams 1 --attempts 2");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(before.elapsed() >= Duration::from_secs(2), "{:?}", before.elapsed());
}

#[test]
fn a_blob_that_somebody_sends_is_waited_for_and_not_sent() {
    let image = built(ImageSpec::tiny("other").layer(300_000));
    let first = fake();
    assert_eq!(push(&first, &image, "").code, Some(0));
    let (digest, bytes) = {
        let script = first.script();
        let layer = script.uploads.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
        (layer.0.clone(), layer.1.clone())
    };
    let second = fake();
    {
        let mut script = second.script();
        script.uploads.busy.insert(digest.clone(), 1);
        script.uploads.blobs.insert(digest.clone(), bytes[..100_000].to_vec());
    }
    let ran = push(&second, &image, "");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let script = second.script();
    let put = script.uploads.puts.iter().find(|put| put.0 == digest).unwrap();
    assert_eq!(put.1, 100_000, "what the other one left is gone on with");
}

#[test]
fn what_brings_nothing_is_given_up_with_what_to_do() {
    let (fake, image) = (fake(), built(ImageSpec::tiny("hopeless").layer(200_000)));
    fake.script().uploads.refuse = Some(Status::unavailable("the registry is away"));
    let ran = push(&fake, &image, "--attempts 3 --streams 1");
    assert_eq!((ran.code, ran.out.as_str()), (Some(5), ""), "{}", ran.err);
    for part in ["the registry is away", "3 attempts in a row", "run the same command again"] {
        assert!(ran.err.contains(part), "{part}: {}", ran.err);
    }
    assert!(fake.script().created.is_empty());
}

#[test]
fn a_refusal_ends_with_the_code_of_its_reason() {
    let image = built(ImageSpec::tiny("refused"));
    for (status, code) in [
        (refusal(Code::PermissionDenied, "PERMISSION_DENIED", "not yours"), 10),
        (refusal(Code::FailedPrecondition, "UPLOAD_TOO_LARGE", "too large"), 3),
    ] {
        let fake = fake();
        fake.script().uploads.refuse = Some(status);
        let ran = push(&fake, &image, "");
        assert_eq!(ran.code, Some(code), "{}", ran.err);
        assert!(fake.script().created.is_empty());
    }
}

#[test]
fn a_release_that_is_refused_ends_the_upload() {
    let (fake, image) = (Fake::start(), built(ImageSpec::tiny("unwanted")));
    let refused = refusal(Code::FailedPrecondition, "TAG_IMMUTABLE", "1.4.2 is elsewhere");
    fake.script().create.push_back(Step::Refuse(refused));
    let ran = push(&fake, &image, "");
    assert_eq!(ran.code, Some(6), "{}", ran.err);
    assert_eq!(fake.script().uploads.abandoned, [UPLOAD]);
}

#[test]
fn a_source_that_cannot_be_read_is_named_before_anything_is_sent() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("app.tar");
    std::fs::write(&at, "no archive").unwrap();
    let at = at.display();
    let lines = [
        (format!("push docker-archive:{at} {TO}"), 11, "app.tar"),
        (format!("push oci:{at}.none {TO}"), 11, "app.tar.none"),
        (format!("push app:1 {TO}"), 2, "docker-archive:FILE"),
        (format!("push oci:x {TO} --remove-local"), 2, "docker://NAME"),
        (format!("push docker://x {TO} --platform linux/arm64 --remove-local"), 2, "--platform"),
        (format!("push oci:x {TO} --digest-file /none/x"), 2, "/none/x"),
        (format!("push oci:x {TO} --semver-pre-release"), 2, "--semver"),
        (format!("push oci:x {TO} --break-glass"), 2, "--break-glass needs --reason"),
    ];
    for (line, code, part) in lines {
        let ran = run(colophon(&fake, &line));
        assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{line}: {}", ran.err);
        assert!(ran.err.contains(part), "{line}: {}", ran.err);
    }
    assert!(fake.script().authorization.is_empty());
}

#[test]
fn standard_input_is_an_archive() {
    let (fake, image) = (fake(), built(ImageSpec::tiny("stdin").layer(100_000)));
    let folder = tempfile::tempdir().unwrap();
    let tar = folder.path().join("app.tar");
    let made = std::process::Command::new("tar")
        .args(["-C", &image.layout().display().to_string(), "-cf"])
        .arg(&tar)
        .arg(".")
        .status();
    assert!(made.unwrap().success());
    let mut command = colophon(&fake, &format!("push - {TO}"));
    command.stdin(std::fs::File::open(&tar).unwrap());
    let ran = run(command);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(fake.script().created[0].source, format!("docker.io/a/x@{}", image.digest()));
}

#[test]
fn ctrl_c_while_sending_leaves_what_was_sent() {
    let (fake, image) = (fake(), built(ImageSpec::tiny("stopped").layer(3_000_000)));
    fake.script().uploads.pause = Duration::from_millis(200);
    let mut command = colophon(&fake, &line(&image, ""));
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("a part", || fake.script().uploads.came() > 500_000);
    let kill =
        std::process::Command::new("kill").args(["-INT", &running.id().to_string()]).status();
    assert!(kill.unwrap().success());
    let ran = ran(&running.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{}", ran.err);
    assert!(ran.err.contains("run the same command again"), "{}", ran.err);
    assert!(fake.script().created.is_empty() && fake.script().uploads.abandoned.is_empty());
}
