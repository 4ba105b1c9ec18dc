//! The database is restored from a dump that is older than what the registries show: the service
//! starts on hold, and an old queue moves no tag back.

use std::path::Path;

use colophon_testkit::{collector::Collector, image::ImageSpec, wait::wait_until};
use colophon_tests::{Client, PATIENCE, Site, SiteOptions, World};

use crate::{
    release_scene::{state, text},
    safe_scene::{frozen, waits},
};

/// What a test of a restore begins with.
struct Scene {
    world: World,
    staging: Site,
    target: Site,
    dump: std::path::PathBuf,
    /// The digests of three builds, the release of the second, which was waiting when the dump was
    /// made.
    digests: Vec<String>,
    waiting: String,
}

impl Scene {
    /// `latest` is at the first build in the dump, where the second waits, and at the third since.
    async fn new() -> Self {
        let mut world = World::new().await.unwrap();
        let staging = world.site(SiteOptions::default()).await.unwrap();
        let target = world.site(SiteOptions::default()).await.unwrap();
        let mut digests = Vec::new();
        for build in ["1", "2", "3", "4"] {
            let image = staging.push(&ImageSpec::tiny(build), "app", build).await.unwrap();
            digests.push(image.digest().to_owned());
        }
        let api = world.serve().await.unwrap();
        let client = world.client(&api).unwrap();
        let mut worker = world.work().await.unwrap();
        let publish = async |client: &Client, build: &str| {
            let app = target.repository("app");
            let source = staging.reference("app", build);
            client.publish(&source, &[(&app, &[], &["latest"])]).await.unwrap()
        };
        let first = publish(&client, "1").await;
        assert_eq!(state(&client.wait_end(&first).await.unwrap()), "SUCCEEDED");
        worker.stop().await.unwrap();
        let waiting = publish(&client, "2").await;
        let dump = world.dump().await.unwrap();
        let mut worker = world.work().await.unwrap();
        let third = publish(&client, "3").await;
        assert_eq!(state(&client.wait_end(&third).await.unwrap()), "SUCCEEDED");
        assert_eq!(target.inspect("app", "latest").await.unwrap(), digests[2]);
        worker.stop().await.unwrap();
        Self { world, staging, target, dump, digests, waiting }
    }

    async fn restore(&mut self) {
        let dump = self.dump.clone();
        self.world.restore(&dump).await.unwrap();
    }

    async fn served(&self) -> String {
        self.target.inspect("app", "latest").await.unwrap()
    }
}

#[tokio::test]
async fn an_old_queue_moves_no_tag_back() {
    let mut scene = Scene::new().await;
    scene.restore().await;
    let node = scene.world.run().await.unwrap();
    assert!(node.log().contains("on hold"), "{}", node.log());
    let client = scene.world.client(&node).unwrap();
    let ready = async || {
        let (status, body) = node.probe_api("/readyz").await.ok()?;
        (status == 200 && body["parts"]["queue"]["reason"] == "ON_HOLD").then_some(body)
    };
    let body = wait_until("the probes say so", PATIENCE, ready).await.unwrap();
    assert_eq!(body["status"], "degraded", "{body}");
    // Everything can be read, and what comes now is accepted and waits.
    let new = &[(&*scene.target.repository("app"), &[][..], &["edge"][..])];
    let new = client.publish(&scene.staging.reference("app", "4"), new).await.unwrap();
    for id in [&scene.waiting, &new] {
        let seen = client.release(id).await.unwrap();
        assert_eq!(state(&seen), "QUEUED", "{seen:#}");
        assert_eq!(text(&seen, "/waitingReason"), "ON_HOLD", "{seen:#}");
    }

    let early = scene.world.service(&["resume", "--reason", "in a hurry"]).await.unwrap();
    assert_eq!(early.code, Some(1), "{early:?}");
    assert!(early.err.contains("were not compared"), "{early:?}");
    let found = scene.world.service(&["restore-check"]).await.unwrap();
    assert_eq!(found.code, Some(3), "{found:?}");
    let differs = format!(
        "DIFFERS      {}:latest  recorded {}  served {}",
        scene.target.repository("app"),
        scene.digests[0],
        scene.digests[2]
    );
    assert!(found.out.contains(&differs), "{found:?}");
    assert!(found.out.contains("1 tags as recorded, 1 differ, 0 not reachable, 0 left"));
    // Once more, it goes on where it was: there is nothing left to ask.
    let again = scene.world.service(&["restore-check"]).await.unwrap();
    assert_eq!(again.out, found.out);
    assert_eq!(scene.served().await, scene.digests[2]);
    assert_eq!(state(&client.release(&scene.waiting).await.unwrap()), "QUEUED");

    let resumed = ["resume", "--reason", "restored from Monday", "--by", "alice"];
    let resumed = scene.world.service(&resumed).await.unwrap();
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert!(resumed.out.contains(&format!("CANCELLED    {}", scene.waiting)), "{resumed:?}");
    let old = client.wait_end(&scene.waiting).await.unwrap();
    assert_eq!(state(&old), "CANCELLED CANCELLED", "{old:#}");
    assert!(text(&old, "/message").contains("restored from Monday"), "{old:#}");
    assert_eq!(state(&client.wait_end(&new).await.unwrap()), "SUCCEEDED");
    assert_eq!(scene.served().await, scene.digests[2]);
    let tag = format!("{}:latest", scene.target.repository("app"));
    let moves = client.moves(&tag).await.unwrap();
    assert_eq!(text(&moves[0], "/kind"), "drift", "{moves:#?}");
    assert_eq!(text(&moves[0], "/newDigest"), scene.digests[2], "{moves:#?}");
    let ended: (String, String, bool) =
        sqlx::query_as("SELECT ended_by, end_reason, kept_queue FROM hold")
            .fetch_one(scene.world.database().pool())
            .await
            .unwrap();
    assert_eq!(ended, ("alice".into(), "restored from Monday".into(), false));
}

/// What the hold is for: the same dump, and nobody notices that it was restored.
#[tokio::test]
async fn without_a_hold_the_tag_would_go_back() {
    let mut scene = Scene::new().await;
    scene.restore().await;
    sqlx::query("UPDATE instance SET lineage = database_lineage()")
        .execute(scene.world.database().pool())
        .await
        .unwrap();
    let node = scene.world.run().await.unwrap();
    let client = scene.world.client(&node).unwrap();
    assert_eq!(state(&client.wait_end(&scene.waiting).await.unwrap()), "SUCCEEDED");
    assert_eq!(scene.served().await, scene.digests[1]);
}

#[tokio::test]
async fn an_operator_may_let_the_old_queue_go_on() {
    let mut scene = Scene::new().await;
    scene.restore().await;
    let node = scene.world.run().await.unwrap();
    let client = scene.world.client(&node).unwrap();
    let resumed = ["resume", "--reason", "the queue is right", "--keep-queue", "--unchecked"];
    let resumed = scene.world.service(&resumed).await.unwrap();
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert_eq!(state(&client.wait_end(&scene.waiting).await.unwrap()), "SUCCEEDED");
    assert_eq!(scene.served().await, scene.digests[1]);
    // The next start is none from a dump.
    let again = scene.world.run().await.unwrap();
    assert!(!again.log().contains("on hold"), "{}", again.log());
}

#[tokio::test]
async fn an_operator_may_hold_everything_by_hand() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    staging.push(&ImageSpec::tiny("held"), "app", "1").await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    let held = world.service(&["hold", "--reason", "a rebuilt registry"]).await.unwrap();
    assert_eq!(held.code, Some(0), "{held:?}");
    let twice = world.service(&["hold", "--reason", "again"]).await.unwrap();
    assert!(twice.err.contains("on hold already"), "{twice:?}");
    let app = staging.repository("app");
    let id = client.publish(&staging.reference("app", "1"), &[(&app, &["2"], &[])]).await.unwrap();
    let seen = client.release(&id).await.unwrap();
    assert_eq!(text(&seen, "/waitingReason"), "ON_HOLD", "{seen:#}");
    // SQL itself refuses an intent, whoever asks.
    let refused = sqlx::query(
        "INSERT INTO open_intent (registry, repository, tag, intent_id, tag_move_id, new_digest,
                                  deadline, resolve_after)
         SELECT 'r', 'a', 't', id, id, '', colophon_now(), colophon_now() FROM release",
    )
    .execute(world.database().pool())
    .await
    .unwrap_err();
    assert!(refused.to_string().contains("on hold"), "{refused}");
    let resumed = world.service(&["resume", "--reason", "it is there"]).await.unwrap();
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert_eq!(state(&client.wait_end(&id).await.unwrap()), "SUCCEEDED");
    let twice = world.service(&["resume", "--reason", "again"]).await.unwrap();
    assert!(twice.err.contains("not on hold"), "{twice:?}");
}

/// The schema of the backup does not know of holds yet; and later, one that this version does not know.
#[tokio::test]
async fn a_database_of_another_version_can_be_held_before_anything_is_started() {
    let mut world = World::new().await.unwrap();
    let pool = world.database().pool().clone();
    let before = tempfile::tempdir().unwrap();
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    for file in std::fs::read_dir(migrations).unwrap().flatten() {
        if *file.file_name() < *"0009" {
            std::fs::copy(file.path(), before.path().join(file.file_name())).unwrap();
        }
    }
    let before = sqlx::migrate::Migrator::new(before.path()).await.unwrap();
    assert_eq!(before.iter().count(), 8);
    before.run(&pool).await.unwrap();
    let held = world.service(&["hold", "--restored", "--reason", "last year's backup"]).await;
    let held = held.unwrap();
    assert!(held.code == Some(0) && held.out.contains("after a restore"), "{held:?}");
    let found = world.service(&["restore-check"]).await.unwrap();
    assert_eq!(found.code, Some(0), "{found:?}");
    let resumed = world.service(&["resume", "--reason", "nothing was in it"]).await.unwrap();
    assert_eq!(resumed.code, Some(0), "{resumed:?}");

    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'later', true, '', 0)",
    )
    .execute(&pool)
    .await
    .unwrap();
    let held = world.service(&["hold", "--reason", "a newer version fails"]).await.unwrap();
    assert!(held.code == Some(0) && held.err.contains("another version"), "{held:?}");
    let refused = world.service(&["resume", "--reason", "by the older one"]).await.unwrap();
    assert!(refused.code == Some(1) && refused.err.contains("another version"), "{refused:?}");
}

/// The collector gets the spans, and the exit code is the same although nobody reads.
#[tokio::test]
async fn a_check_that_finds_something_ends_in_order() {
    let mut scene = Scene::new().await;
    scene.restore().await;
    let collector = Collector::start(None).await.unwrap();
    scene.world.telemetry = format!("otlp_endpoint = {:?}\n", collector.endpoint());
    let mut unread = async |arguments: &[&str]| {
        let mut command = scene.world.service_command(arguments).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command.stdout(writer).status().await.unwrap().code()
    };
    assert_eq!(unread(&["restore-check"]).await, Some(3));
    let heard = collector.everything();
    assert!(heard.contains("registry.request"), "{heard}");
    assert_eq!(unread(&["resume", "--reason", "compared"]).await, Some(0));
}

/// Nobody has started a process since the restore: the hold must not be one that compares nothing.
#[tokio::test]
async fn a_hold_by_hand_hides_no_restore() {
    let mut scene = Scene::new().await;
    scene.restore().await;
    let held = ["hold", "--reason", "restored, checking", "--by", "alice"];
    let held = scene.world.service(&held).await.unwrap();
    assert!(held.code == Some(0) && held.out.contains("after a restore"), "{held:?}");
    scene.is_resumed_without_the_old_queue().await;
    let began: (String, String) = sqlx::query_as("SELECT cause, began_by FROM hold")
        .fetch_one(scene.world.database().pool())
        .await
        .unwrap();
    assert_eq!(began, ("restore".into(), "alice".into()));
}

/// The database lives where it lived, as after a snapshot of its disk was put back.
#[tokio::test]
async fn an_operator_may_say_that_the_database_was_restored() {
    let mut scene = Scene::new().await;
    scene.restore().await;
    sqlx::query("UPDATE instance SET lineage = database_lineage()")
        .execute(scene.world.database().pool())
        .await
        .unwrap();
    let held = scene.world.service(&["hold", "--reason", "a hand on it"]).await.unwrap();
    assert!(held.code == Some(0) && !held.out.contains("after a restore"), "{held:?}");
    let held = ["hold", "--restored", "--reason", "Monday's snapshot"];
    let held = scene.world.service(&held).await.unwrap();
    assert!(held.code == Some(0) && held.out.contains("after a restore"), "{held:?}");
    scene.is_resumed_without_the_old_queue().await;
}

impl Scene {
    async fn is_resumed_without_the_old_queue(&mut self) {
        let node = self.world.run().await.unwrap();
        let early = self.world.service(&["resume", "--reason", "in a hurry"]).await.unwrap();
        assert!(early.err.contains("were not compared"), "{early:?}");
        let found = self.world.service(&["restore-check"]).await.unwrap();
        assert_eq!(found.code, Some(3), "{found:?}");
        let resumed = self.world.service(&["resume", "--reason", "compared"]).await.unwrap();
        assert_eq!(resumed.code, Some(0), "{resumed:?}");
        assert!(resumed.out.contains(&format!("CANCELLED    {}", self.waiting)), "{resumed:?}");
        assert!(!resumed.out.contains("GOES ON"), "{resumed:?}");
        let client = self.world.client(&node).unwrap();
        let old = client.wait_end(&self.waiting).await.unwrap();
        assert_eq!(state(&old), "CANCELLED CANCELLED", "{old:#}");
        assert_eq!(self.served().await, self.digests[2]);
    }
}

/// It may have succeeded since the dump was made, and only looks as if it were at work.
#[tokio::test]
async fn a_release_that_goes_on_is_named_and_puts_nothing_back() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::default()).await.unwrap();
    let second = world.site(SiteOptions::default()).await.unwrap();
    let node = world.serve().await.unwrap();
    let client = world.client(&node).unwrap();
    let mut worker = world.work().await.unwrap();
    let (app, copy) = (target.repository("app"), second.repository("app"));
    let both: &[(&str, &[&str], &[&str])] = &[(&app, &[], &["latest"]), (&copy, &[], &["latest"])];
    let mut digests = Vec::new();
    let mut ids = Vec::new();
    for build in ["1", "2"] {
        let image = staging.push(&ImageSpec::tiny(build), "app", build).await.unwrap();
        digests.push(image.digest().to_owned());
        ids.push(client.publish(&staging.reference("app", build), both).await.unwrap());
        if build == "1" {
            assert_eq!(state(&client.wait_end(&ids[0]).await.unwrap()), "SUCCEEDED");
            frozen(&client, &copy).await;
        }
    }
    waits(&client, &ids[1], "FROZEN").await;
    let moved = async || (target.inspect("app", "latest").await.ok()? == digests[1]).then_some(());
    wait_until("the first target has the second build", PATIENCE, moved).await.unwrap();
    worker.stop().await.unwrap();
    let dump = world.dump().await.unwrap();
    world.restore(&dump).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    let found = world.service(&["restore-check"]).await.unwrap();
    assert_eq!(found.code, Some(0), "{found:?}");
    let resumed = world.service(&["resume", "--reason", "nothing differs"]).await.unwrap();
    assert!(resumed.out.contains(&format!("GOES ON      {}", ids[1])), "{resumed:?}");
    assert!(resumed.out.contains("0 releases cancelled, 1 from before go on"), "{resumed:?}");
    client.cancel(&ids[1]).await.unwrap().good().unwrap();
    let ended = client.wait_end(&ids[1]).await.unwrap();
    assert_eq!(state(&ended), "CANCELLED CANCELLED", "{ended:#}");
    let said = format!("moved and not put back: {app}:latest");
    assert!(text(&ended, "/message").ends_with(&said), "{ended:#}");
    assert_eq!(target.inspect("app", "latest").await.unwrap(), digests[1]);
    assert_eq!(second.inspect("app", "latest").await.unwrap(), digests[0]);
}
