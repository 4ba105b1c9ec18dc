//! Large layers survive the worker that brings them: another one goes on where the registry stands,
//! and so does whoever takes over from one that was told to stop. And a layer that two workers want
//! in one repository at the same time moves once.
//!
//! `COLOPHON_RESUME_BYTES` asks for another size of the layer, with chunks of the default size from a
//! GiB on.

use std::time::Instant;

use colophon_testkit::{
    image::ImageSpec,
    proxy::{Action, Rule},
    scripted::{Answer, Personality, Scripted, When},
    wait::wait_until,
};
use colophon_tests::{Client, Node, PATIENCE, SiteOptions, World};
use http::Method;
use serde_json::json;

use crate::{kill::seconds, release_scene::attempts};

const MIB: u64 = 1 << 20;
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// From here on chunks have the default size, and sockets hold little of all bytes.
const LARGE: u64 = 1024 * MIB;
const LEASE: &str = "lease = \"2s\"\nput_timeout = \"1s\"\npoll_interval = \"50ms\"\n\
                     backoff_min = \"50ms\"\nbackoff_max = \"500ms\"\n";

/// Where a range begins.
fn start(range: &str) -> u64 {
    range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or_default()
}

/// A layer of its own for each number.
fn layer(size: u64, number: u8) -> Vec<u8> {
    let mut block: Vec<u8> = (0..=250).cycle().take(1 << 20).collect();
    block[0] = number;
    let blocks = usize::try_from(size.div_ceil(MIB)).unwrap();
    let mut bytes = block.repeat(blocks);
    bytes.truncate(usize::try_from(size).unwrap());
    bytes
}

/// Two registries in memory, one to read from and one that says where an upload stands, and
/// processes that know them.
struct Scene {
    world: World,
    source: Scripted,
    target: Scripted,
    client: Client,
    _api: Node,
    size: u64,
    chunk: u64,
}

impl Scene {
    async fn new(worker: &str) -> Self {
        let asked = std::env::var("COLOPHON_RESUME_BYTES").ok();
        let size = asked.map_or(48 * MIB, |text| text.parse().unwrap());
        let chunk = if size >= LARGE { 64 * MIB } else { MIB };
        let source = Scripted::start(Personality::default()).await.unwrap();
        let target = Scripted::start(Personality::distribution_v3()).await.unwrap();
        let mut world = World::new().await.unwrap();
        worker.clone_into(&mut world.worker);
        for host in [source.host(), target.host()] {
            world.registry_table(&format!(
                "[[registry]]\nhost = {host:?}\nplain_http = true\nchunk_bytes = {chunk}\n"
            ));
        }
        let api = world.serve().await.unwrap();
        let client = world.client(&api).unwrap();
        Self { world, source, target, client, _api: api, size, chunk }
    }

    /// Publishes an image with a layer of the number's; returns the layer's digest and the release.
    async fn publish(&self, number: u8) -> (String, String) {
        let digest = self.source.add_blob("app", layer(self.size, number));
        let config = self.source.add_blob("app", format!("{{\"os\":\"{number}\"}}"));
        let blob = |digest: &str, size: u64, kind: &str| json!({ "mediaType": kind, "digest": digest, "size": size });
        let length = self.source.blob("app", &config).unwrap().len() as u64;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": IMAGE,
            "config": blob(&config, length, "application/vnd.oci.image.config.v1+json"),
            "layers": [blob(&digest, self.size, "application/vnd.oci.image.layer.v1.tar")],
        });
        let image = self.source.add_manifest("app", "v1", IMAGE, manifest.to_string());
        let from = format!("{}/app@{image}", self.source.host());
        let to = format!("{}/app", self.target.host());
        let tag = format!("1.{number}");
        let release = self.client.publish(&from, &[(&to, &[&tag], &[])]).await.unwrap();
        (digest, release)
    }

    /// The next upload stands still when so much of the layer has arrived.
    fn stalls_at(&self, percent: u64) -> u64 {
        let at = self.size * percent / 100;
        let (whole, part) = (at / self.chunk, at % self.chunk);
        let before = usize::try_from(whole).unwrap();
        let chunk = || When::of("PATCH", "/uploads/");
        self.target.script([
            (chunk(), Answer::change(|answer| answer), before),
            (chunk(), Answer::Stall(part), 1),
        ]);
        at
    }

    /// So much of the layer has arrived, and the chunk that stands still has begun.
    async fn stalled(&self, at: u64) {
        let chunks = usize::try_from(at / self.chunk + 1).unwrap();
        let there = async || {
            let arrived = self.target.bytes_received_in_all() >= at;
            let begun =
                || self.target.seen().iter().filter(|it| it.method == Method::PATCH).count();
            (arrived && begun() >= chunks).then_some(())
        };
        wait_until("the upload stands still", 4 * PATIENCE, there).await.unwrap();
    }

    async fn succeeds(&self, release: &str, workers: &[&Node]) {
        let ended = self.client.wait_end_for(release, 4 * PATIENCE).await.unwrap();
        let logs: String = workers.iter().map(|node| node.log()).collect();
        assert_eq!(ended["state"], "RELEASE_STATE_SUCCEEDED", "{ended:#}\n{logs}");
    }

    async fn flights(&self) -> i64 {
        let pool = self.world.database().pool();
        sqlx::query_scalar("SELECT count(*) FROM blob_flight").fetch_one(pool).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_goes_on_at_another_worker_wherever_the_first_one_was_killed() {
    for (number, percent) in (0..).zip([10, 50, 90]) {
        let mut scene = Scene::new(LEASE).await;
        let at = scene.stalls_at(percent);
        let mut first = scene.world.work().await.unwrap();
        let begun = Instant::now();
        let (digest, release) = scene.publish(number).await;
        scene.stalled(at).await;
        first.kill();
        let second = scene.world.work().await.unwrap();
        scene.succeeds(&release, &[&first, &second]).await;
        let took = begun.elapsed();

        assert_eq!(scene.target.blob("app", &digest).unwrap().len() as u64, scene.size);
        let up = scene.target.bytes_received_in_all();
        let down = scene.source.bytes_sent(&digest);
        println!(
            "killed at {percent} % of {} bytes: {up} bytes to the target, {down} from the source, {} s",
            scene.size,
            seconds(took)
        );
        // The configuration is a few bytes, and is sent again by whoever comes second.
        assert!(up <= scene.size + 100, "{up}");
        // Of what was confirmed nothing is read again; a socket holds some bytes of whoever died.
        let seen = scene.source.seen();
        let reads = seen.iter().filter(|it| it.is("GET", &digest));
        let starts: Vec<u64> = reads.skip(1).map(|it| start(it.header("range"))).collect();
        let confirmed = at / scene.chunk * scene.chunk;
        assert!(!starts.is_empty() && starts.iter().all(|it| *it >= confirmed), "{starts:?}");
        assert!(scene.size < LARGE || down <= scene.size + scene.size / 20, "{down}");
        assert_eq!(scene.flights().await, 0);
        drop(second);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_stop_leaves_its_layer_to_the_next() {
    let mut scene = Scene::new(&format!("{LEASE}stop_grace = \"0s\"\nmax_attempts = 1\n")).await;
    let at = scene.stalls_at(30);
    let mut first = scene.world.work().await.unwrap();
    let (digest, release) = scene.publish(1).await;
    scene.stalled(at).await;
    first.stop_well().await.unwrap();
    let second = scene.world.work().await.unwrap();
    scene.succeeds(&release, &[&first, &second]).await;
    assert_eq!(scene.target.blob("app", &digest).unwrap().len() as u64, scene.size);
    let up = scene.target.bytes_received_in_all();
    assert!(up <= scene.size + 100, "{up}");
    assert_eq!(attempts(&scene.client.release(&release).await.unwrap()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_two_workers_want_at_once_moves_once() {
    let mut world = World::new().await.unwrap();
    world.worker = format!("{LEASE}concurrency = 1\n").replace("2s", "20s");
    let source = world.site(SiteOptions::proxied()).await.unwrap();
    let target = world.site(SiteOptions::proxied()).await.unwrap();
    let api = world.serve().await.unwrap();
    let client = world.client(&api).unwrap();
    let mut images = Vec::new();
    for number in 0..2 {
        // Both have busybox, the same two megabytes.
        let spec = ImageSpec { busybox: true, ..ImageSpec::tiny(format!("shared {number}")) };
        let image = source.push(&spec, "app", &format!("v{number}")).await.unwrap();
        images.push(format!("{}@{}", source.repository("app"), image.digest()));
    }
    let workers = [world.work().await.unwrap(), world.work().await.unwrap()];
    let puts = Rule::new(Action::HoldBefore).method(Method::PUT).path("/uploads/").always();
    let held = target.proxy().add(puts);
    let app = target.repository("app");
    let mut releases = Vec::new();
    for (number, image) in images.iter().enumerate() {
        let tag = format!("1.{number}");
        releases.push(client.publish(image, &[(&app, &[&tag], &[])]).await.unwrap());
    }
    // Nothing arrives before each of them has a release.
    let pool = world.database().pool();
    let both = async || {
        let busy: i64 = sqlx::query_scalar(
            "SELECT count(DISTINCT worker) FROM job WHERE kind = 'copy' AND state = 'running'",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        (busy == 2).then_some(())
    };
    wait_until("both workers are at it", PATIENCE, both).await.unwrap();
    held.reached(PATIENCE).await.unwrap();
    held.forward();
    let mut present = 0;
    for release in &releases {
        let ended = client.wait_end_for(release, 2 * PATIENCE).await.unwrap();
        assert_eq!(ended["state"], "RELEASE_STATE_SUCCEEDED", "{ended:#}");
        let there = ended["publications"][0]["blobsPresent"].to_string();
        present += there.trim_matches('"').parse::<i64>().unwrap_or_else(|_| panic!("{ended:#}"));
    }
    assert_eq!(present, 1, "one of the two found the layer there");
    let mut puts: Vec<String> = target
        .proxy()
        .log()
        .into_iter()
        .filter(|it| it.method == Method::PUT && it.path.contains("/uploads/"))
        .filter_map(|it| it.query)
        .filter_map(|query| query.split("digest=").nth(1).map(str::to_owned))
        .collect();
    let all = puts.len();
    puts.sort_unstable();
    puts.dedup();
    assert_eq!(puts.len(), all, "each blob was sent once");
    drop(workers);
}
