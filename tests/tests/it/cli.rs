//! The client `colophon` with the real service: every command, every exit code, and JSON that is
//! the contract's.

use std::{process::Stdio, time::Duration};

use colophon_testkit::{
    image::ImageSpec,
    launcher::process::Signal,
    proxy::{Action, Rule},
    wait::wait_until,
};
use colophon_tests::{Client, Node, PATIENCE, Site, SiteOptions, World};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::{
    release_scene::{login, state, tag_puts, text},
    vault_scene::waiting,
};

struct Scene {
    world: World,
    api: Node,
    client: Client,
    staging: Site,
    target: Site,
}

impl Scene {
    /// Runs the client; returns its exit code, its output and what it says on the side.
    async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.world.cli(&self.api, arguments).await.unwrap();
        (output.code.unwrap(), output.out, output.err)
    }

    /// The same with `--output json`.
    async fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let all = [&["--output", "json"], arguments].concat();
        let (code, out, err) = self.run(&all).await;
        (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}")))
    }
}

/// Staging with `app:1`, an empty registry behind a proxy, and a server without a worker.
async fn scene() -> Scene {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::proxied()).await.unwrap();
    let api = world.serve().await.unwrap();
    let client = world.client(&api).unwrap();
    staging.push(&ImageSpec::new("cli"), "app", "1").await.unwrap();
    Scene { world, api, client, staging, target }
}

#[tokio::test]
async fn what_was_published_can_be_asked_for() {
    let mut scene = scene().await;
    let _worker = scene.world.work().await.unwrap();
    let (source, app) = (scene.staging.reference("app", "1"), scene.target.repository("app"));
    let line = [
        "publish",
        &source,
        "--to",
        &app,
        "--tag",
        "1.4.2",
        "--float",
        "1.4",
        "--float",
        "latest",
        "--reason",
        "weekly",
        "--label",
        "team=web",
        "--on-behalf-of",
        "ann",
        "--priority",
        "-3",
    ];
    let (code, out, err) = scene.run(&line).await;
    assert_eq!(code, 0, "{out}{err}");
    for word in ["1.4.2", "1.4", "latest", "MOVED"] {
        assert!(out.contains(word), "{word}: {out}");
    }
    assert!(err.lines().count() >= 2, "without a terminal progress comes in lines: {err}");
    assert!(!out.contains('\u{1b}') && !err.contains('\u{1b}'), "{out}{err}");
    assert_eq!(tag_puts(&scene.target).len(), 3);

    // The JSON of every command is what REST answers.
    let (code, page) =
        scene.json(&["releases", "--repository", &app, "--state", "SUCCEEDED"]).await;
    assert_eq!((code, page["releases"].as_array().unwrap().len()), (0, 1), "{page:#}");
    let id = text(&page, "/releases/0/id").to_owned();
    let (code, release) = scene.json(&["release", &id]).await;
    assert_eq!((code, &release), (0, &scene.client.release(&id).await.unwrap()));
    assert_eq!(text(&release, "/labels/team"), "web");
    let latest = format!("{app}:latest");
    let (code, tag) = scene.json(&["resolve", &latest]).await;
    assert_eq!((code, text(&tag, "/digest")), (0, text(&release, "/digest")));
    let at = text(&tag, "/entry/at").to_owned();
    let (code, then) = scene.json(&["resolve", &latest, "--at", &at]).await;
    let query = [("reference", latest.as_str()), ("at", at.as_str())];
    assert_eq!((code, &then), (0, &scene.client.get("/v1/tag", &query).await.unwrap()));
    let (code, before) = scene.json(&["resolve", &latest, "--at", "2h ago"]).await;
    assert_eq!((code, text(&before, "/certainty")), (0, "CERTAINTY_UNKNOWN"));
    let (code, history) = scene.json(&["history", &latest, "--intents"]).await;
    let moves = scene.client.moves(&latest).await.unwrap();
    assert_eq!((code, history["moves"].as_array().unwrap()), (0, &moves));
    let (code, history) = scene.json(&["history", &app, "--actor", "ci", "--limit", "2"]).await;
    assert_eq!((code, history["moves"].as_array().unwrap().len()), (0, 2));
    for question in
        [&["history", &latest][..], &["releases"], &["release", &id], &["resolve", &latest]]
    {
        let (code, out, err) = scene.run(question).await;
        assert_eq!((code, err.as_str()), (0, ""), "{question:?}");
        assert!(out.lines().count() >= 2, "{question:?}: {out}");
    }
    // `--no-wait` says what was accepted; `--wait` takes the waiting up.
    let line = ["publish", &source, "--to", &app, "--tag", "1.4.3", "--no-wait"];
    let (code, accepted) = scene.json(&line).await;
    assert_eq!(code, 0, "{accepted:#}");
    let (code, ended) = scene.json(&["release", text(&accepted, "/id"), "--wait"]).await;
    assert_eq!((code, state(&ended).as_str()), (0, "SUCCEEDED"));
    // The same key joins the release that it made.
    let key = ["publish", &source, "--to", &app, "--tag", "1.4.4", "--idempotency-key", "pipe-7"];
    let (first, second) = (scene.json(&key).await, scene.json(&key).await);
    assert_eq!((first.0, second.0, &first.1["id"]), (0, 0, &second.1["id"]));
}

#[tokio::test]
async fn a_release_that_did_not_succeed_ends_with_the_code_of_its_reason() {
    let mut scene = scene().await;
    let (source, app) = (scene.staging.reference("app", "1"), scene.target.repository("app"));
    let publish = ["publish", &source, "--to", &app, "--tag", "1"];
    let (code, accepted) = scene.json(&[&publish[..], &["--no-wait"]].concat()).await;
    assert_eq!((code, state(&accepted).as_str()), (0, "QUEUED"));
    let id = text(&accepted, "/id");
    let (code, cancelled) = scene.json(&["cancel", id, "--reason", "wrong"]).await;
    assert_eq!((code, state(&cancelled).as_str()), (0, "CANCELLED CANCELLED"));
    let (code, _, err) = scene.run(&["release", id, "--wait"]).await;
    assert_eq!(code, 8, "{err}");
    assert!(err.contains("CANCELLED"), "{err}");
    // Without --wait it was asked for the state, and gives it.
    assert_eq!(scene.run(&["release", id]).await.0, 0);

    let _worker = scene.world.work().await.unwrap();
    let other = ImageSpec::tiny("other").build().await.unwrap();
    scene.target.push_built(&other, "app", "1").await.unwrap();
    let (code, failed) = scene.json(&publish).await;
    assert_eq!((code, state(&failed).as_str()), (6, "FAILED TAG_IMMUTABLE"));
    let (code, out, err) = scene.run(&publish).await;
    assert_eq!(code, 6, "{out}{err}");
    assert!(err.contains("TAG_IMMUTABLE") && err.contains(other.digest()), "{err}");
    assert!(out.contains("REFUSED"), "{out}");
}

#[tokio::test]
async fn a_wrong_command_line_ends_with_2() {
    let scene = scene().await;
    let (source, app) = (scene.staging.reference("app", "1"), scene.target.repository("app"));
    let lines: [&[&str]; 8] = [
        &[],
        &["punlish"],
        &["publish", &source],
        &["publish", &source, "--tag", "1", "--to", &app],
        &["publish", &source, "--to", &app, "--tag", "1", "--not-after", "soon"],
        &["publish", &source, "--to", &app, "--tag", "1", "--label", "novalue"],
        &["history"],
        &["--token-file", "/nonexistent/token", "releases"],
    ];
    for line in lines {
        let (code, out, err) = scene.run(line).await;
        assert_eq!((code, out.as_str()), (2, ""), "{line:?}: {err}");
        assert!(!err.is_empty(), "{line:?}");
    }
    // A token is no argument, and plain HTTP goes to this machine only.
    assert_eq!(scene.run(&["--token", "x", "releases"]).await.0, 2);
    let far = ["--server", "http://colophon.example:80", "releases"];
    let (code, _, err) = scene.run(&far).await;
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("--insecure-http"), "{err}");
    let (code, out, _) = scene.run(&["--help"]).await;
    assert!(code == 0 && out.contains("Exit codes"), "{out}");
}

#[tokio::test]
async fn what_the_server_refuses_ends_with_3_or_the_code_of_its_reason() {
    let scene = scene().await;
    let (source, app) = (scene.staging.reference("app", "1"), scene.target.repository("app"));
    let cases: [(&[&str], &str, &str); 6] = [
        (&["publish", "a b", "--to", &app, "--tag", "1"], "INVALID_REFERENCE", "source"),
        (
            &["publish", &source, "--to", "elsewhere.example/x", "--tag", "1"],
            "UNKNOWN_REGISTRY",
            "targets[0].repository",
        ),
        (
            &["publish", &scene.staging.reference("app", "none"), "--to", &app, "--tag", "1"],
            "SOURCE_NOT_FOUND",
            "source",
        ),
        (&["release", "7"], "INVALID_ARGUMENT", "id"),
        (&["cancel", "019a4d1c-0000-7000-8000-000000000001"], "NOT_FOUND", "id"),
        (&["resolve", &app], "INVALID_REFERENCE", "reference"),
    ];
    for (line, reason, field) in cases {
        let (code, out, err) = scene.run(line).await;
        let wanted = if reason == "SOURCE_NOT_FOUND" { 11 } else { 3 };
        assert_eq!((code, out.as_str()), (wanted, ""), "{line:?}: {err}");
        assert!(err.contains(reason) && err.contains(&format!("field: {field}")), "{err}");
    }
    // Without a token, and with somebody else's.
    for token in [None, Some("clp_unknown")] {
        let mut command = scene.world.cli_command(&scene.api).unwrap();
        command.env_remove("COLOPHON_TOKEN").arg("releases");
        if let Some(token) = token {
            command.env("COLOPHON_TOKEN", token);
        }
        let output = command.output().await.unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(10), "{err}");
        assert!(err.contains("UNAUTHENTICATED") && !err.contains("clp_unknown"), "{err}");
    }
}

#[tokio::test]
async fn a_release_that_goes_on_ends_with_4_and_says_what_it_waits_for() {
    let mut scene = scene().await;
    let (source, app) = (scene.staging.reference("app", "1"), scene.target.repository("app"));
    let line = ["publish", &source, "--to", &app, "--tag", "1", "--timeout", "1s"];
    let (code, out, err) = scene.run(&line).await;
    assert_eq!(code, 4, "{out}{err}");
    assert!(err.contains("still QUEUED") && err.contains("colophon cancel"), "{err}");

    // With a worker and a Vault that is not there.
    let vault = scene.world.vault("").await.unwrap();
    let team = login("team");
    let guarded = SiteOptions::default()
        .login(&team)
        .settings("[[registry.credentials]]\npush = \"registries/team\"");
    let guarded = scene.world.site(guarded).await.unwrap();
    vault.bao.seal().await.unwrap();
    let api = scene.world.run().await.unwrap();
    let app = guarded.repository("app");
    let client = scene.world.client(&api).unwrap();
    let id = client.publish(&source, &[(&app, &["1"], &[])]).await.unwrap();
    waiting(&client, &id, "is sealed").await;
    let line = ["release", &id, "--wait", "--timeout", "1s"];
    let output = scene.world.cli(&api, &line).await.unwrap();
    assert_eq!(output.code, Some(4), "{output:?}");
    assert!(output.err.contains("it waits for: Vault"), "{output:?}");
    assert!(output.err.contains("is sealed"), "{output:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_ends_with_5() {
    let mut scene = scene().await;
    let (source, app) = (scene.staging.reference("app", "1"), scene.target.repository("app"));
    scene.api.stop().await.unwrap();
    let line = ["publish", &source, "--to", &app, "--tag", "1", "--timeout", "1s"];
    let (code, out, err) = scene.run(&line).await;
    assert_eq!((code, out.as_str()), (5, ""), "{err}");
    assert!(err.contains("cannot be reached") && err.contains("--idempotency-key"), "{err}");
    let (code, _, err) = scene.run(&["releases"]).await;
    assert_eq!(code, 5, "{err}");
}

#[tokio::test]
async fn ctrl_c_ends_with_130_and_the_release_goes_on() {
    let mut scene = scene().await;
    let slow = Rule::new(Action::SlowRequest(300_000)).path("/blobs/uploads/").always();
    let slow = scene.target.proxy().add(slow);
    let _worker = scene.world.work().await.unwrap();
    let (source, app) = (scene.staging.reference("app", "1"), scene.target.repository("app"));
    let mut command = scene.world.cli_command(&scene.api).unwrap();
    command.args(["publish", &source, "--to", &app, "--tag", "1"]);
    let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    slow.reached(PATIENCE).await.unwrap();
    let mut side = BufReader::new(running.stderr.take().unwrap()).lines();
    // It has said that the release was accepted, so it waits now.
    let first = side.next_line().await.unwrap().unwrap();
    assert!(first.contains("release"), "{first}");
    let id = rustix_pid(running.id().unwrap());
    rustix::process::kill_process(id, Signal::INT).unwrap();
    let status = tokio::time::timeout(Duration::from_secs(20), running.wait()).await;
    assert_eq!(status.unwrap().unwrap().code(), Some(130));
    let mut said = String::new();
    while let Some(line) = side.next_line().await.unwrap() {
        said += &line;
    }
    assert!(said.contains("goes on") && said.contains("colophon cancel"), "{said}");
    scene.target.proxy().clear();
    let succeeded = async || {
        let page = scene.client.get("/v1/releases", &[]).await.ok()?;
        (state(&page["releases"][0]) == "SUCCEEDED").then_some(())
    };
    wait_until("the release succeeded", PATIENCE, succeeded).await.unwrap();
}

fn rustix_pid(id: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
}
