//! `colophon push` with the real service and real registries: sources that ordinary tools wrote arrive
//! with the digests that those tools give them, and what breaks off goes on where it stood.

use std::{
    path::Path,
    process::{Command as Process, Stdio},
    time::Duration,
};

use colophon_testkit::{
    image::{Image, ImageSpec},
    launcher::process::Signal,
    peer::sha256,
    proxy::{Action, FaultProxy, Rule},
    scripted::{Personality, Scripted},
    wait::wait_until,
};
use colophon_tests::{CliOutput, Node, PATIENCE, Site, SiteOptions, World};
use serde_json::Value;

use crate::release_scene::text;

struct Scene {
    world: World,
    node: Node,
    target: Site,
}

impl Scene {
    async fn new() -> Self {
        let mut world = World::new().await.unwrap();
        let target = world.site(SiteOptions::default()).await.unwrap();
        let node = world.run().await.unwrap();
        Self { world, node, target }
    }

    /// Pushes a source into a repository under a tag.
    async fn push(&self, source: &str, name: &str, tag: &str, options: &[&str]) -> CliOutput {
        let to = self.target.repository(name);
        let line = [&["push", source, "--to", &to, "--tag", tag], options].concat();
        self.world.cli(&self.node, &line).await.unwrap()
    }

    /// The same where it must succeed; the digest that the registry serves then.
    async fn pushed(&self, source: &str, name: &str, tag: &str, options: &[&str]) -> String {
        let output = self.push(source, name, tag, options).await;
        assert_eq!(output.code, Some(0), "{source}: {}{}", output.out, output.err);
        self.target.inspect(name, tag).await.unwrap()
    }
}

/// Runs a program in a folder, with whatever it caches in there; what it printed.
fn ran(folder: &Path, program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Process::new(program)
        .args(arguments)
        .env("HOME", folder)
        .env("XDG_RUNTIME_DIR", folder)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; run `make setup`"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    output.stdout
}

fn skopeo(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    ran(folder, "skopeo", &[&["--insecure-policy"], arguments].concat())
}

fn layout(image: &Image) -> String {
    format!("oci:{}", image.layout().display())
}

#[tokio::test]
async fn layouts_arrive_with_the_digest_that_skopeo_gives_them() {
    let scene = Scene::new().await;
    let home = tempfile::tempdir().unwrap();
    let image = ImageSpec::new("push").layer(3_000_000).build().await.unwrap();
    let from = layout(&image) + ":image";
    let copy = ["copy", "--all", "--preserve-digests", "--dest-tls-verify=false", &from];
    let host = scene.target.registry().host();
    skopeo(home.path(), &[&copy[..], &[&format!("docker://{host}/by/skopeo:1")]].concat());
    let expected = scene.target.inspect("by/skopeo", "1").await.unwrap();
    assert_eq!(expected, image.digest());

    skopeo(home.path(), &[&copy[..3], &[&from, "oci-archive:app.tar:v1"]].concat());
    let file = home.path().join("app.tar");
    let archive = format!("oci-archive:{}", file.display());
    for (name, source) in [("folder", &layout(&image)), ("archive", &archive)] {
        assert_eq!(scene.pushed(source, name, "1", &[]).await, expected, "{name}");
    }
    // What was pushed is whole.
    let peer = scene.target.peer().unwrap();
    let whole = peer.walk("by/skopeo", "1").await.unwrap();
    assert_eq!(peer.walk("folder", "1").await.unwrap(), whole);

    // The same archive on standard input.
    let mut command = scene.world.cli_command(&scene.node).unwrap();
    let to = scene.target.repository("stdin");
    command.args(["push", "-", "--to", &to, "--tag", "1"]);
    command.stdin(std::fs::File::open(&file).unwrap());
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(scene.target.inspect("stdin", "1").await.unwrap(), expected);

    // One platform of it has the digest that it has within the index.
    let one = scene.pushed(&archive, "platform", "1", &["--platform", "linux/arm64"]).await;
    assert_eq!(one, image.children()[1]);
}

#[tokio::test]
async fn layouts_of_umoci_are_pushed_by_their_tags() {
    let scene = Scene::new().await;
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("file"), "content").unwrap();
    let umoci = |arguments: &[&str]| ran(home.path(), "umoci", arguments);
    umoci(&["init", "--layout", "layout"]);
    for tag in ["v1", "v2"] {
        let image = format!("layout:{tag}");
        umoci(&["new", "--image", &image]);
        umoci(&["insert", "--rootless", "--image", &image, "file", &format!("/etc/{tag}")]);
    }
    let source = format!("oci:{}", home.path().join("layout").display());
    for tag in ["v1", "v2"] {
        let digest = scene.pushed(&source, "umoci", tag, &["--image", tag]).await;
        let raw = skopeo(home.path(), &["inspect", "--raw", &format!("oci:layout:{tag}")]);
        assert_eq!(digest, sha256(&raw));
    }
    // Two images, and none chosen: both are named, and how to choose.
    let output = scene.push(&source, "umoci", "x", &[]).await;
    assert_eq!((output.code, output.out.as_str()), (Some(2), ""), "{}", output.err);
    for part in ["v1", "v2", "--image"] {
        assert!(output.err.contains(part), "{part}: {}", output.err);
    }
}

#[tokio::test]
async fn an_archive_of_the_older_form_gets_a_digest_and_keeps_its_configuration() {
    let scene = Scene::new().await;
    let home = tempfile::tempdir().unwrap();
    let image = ImageSpec::new("older").layer(500_000).build().await.unwrap();
    let from = layout(&image) + ":image";
    let target = "docker-archive:app.tar:app:1";
    skopeo(home.path(), &["copy", "--override-arch", "amd64", &from, target]);
    let source = format!("docker-archive:{}", home.path().join("app.tar").display());
    let output = scene.push(&source, "older", "1", &[]).await;
    assert_eq!(output.code, Some(0), "{}{}", output.out, output.err);
    assert!(output.err.contains("older form"), "{}", output.err);
    // The digest is another than that of skopeo's copy, whose compression is not ours; what the
    // image is, its configuration, is the same.
    let host = scene.target.registry().host();
    let by_skopeo = format!("docker://{host}/by/skopeo:1");
    let archive = "docker-archive:app.tar";
    skopeo(home.path(), &["copy", "--dest-tls-verify=false", archive, &by_skopeo]);
    let config = |reference: &str| {
        let line = ["inspect", "--raw", "--tls-verify=false", reference];
        let manifest: Value = serde_json::from_slice(&skopeo(home.path(), &line)).unwrap();
        text(&manifest, "/config/digest").to_owned()
    };
    assert_eq!(config(&format!("docker://{host}/older:1")), config(&by_skopeo));
    // Pushing it again computes the same digest.
    let first = scene.target.inspect("older", "1").await.unwrap();
    assert_eq!(scene.pushed(&source, "older", "2", &[]).await, first);
}

#[tokio::test]
async fn an_archive_that_leads_out_of_itself_is_refused() {
    let scene = Scene::new().await;
    let home = tempfile::tempdir().unwrap();
    let image = ImageSpec::tiny("evil").build().await.unwrap();
    std::fs::create_dir(home.path().join("in")).unwrap();
    std::fs::write(home.path().join("secret"), "x").unwrap();
    let inside = home.path().join("in");
    ran(&inside, "tar", &["-P", "-cf", "../evil.tar", "../secret"]);
    let layout = image.layout().display().to_string();
    ran(&inside, "tar", &["-C", &layout, "-rf", "../evil.tar", "."]);
    let source = format!("oci-archive:{}", home.path().join("evil.tar").display());
    let output = scene.push(&source, "evil", "1", &[]).await;
    assert_eq!((output.code, output.out.as_str()), (Some(11), ""), "{}", output.err);
    assert!(output.err.contains("entry 1"), "{}", output.err);
    assert!(scene.target.inspect("evil", "1").await.is_err());
}

#[tokio::test]
async fn outputs_say_what_was_published_everywhere() {
    let scene = Scene::new().await;
    let image = ImageSpec::tiny("outputs").build().await.unwrap();
    let file = |name: &str| scene.world.folder().join(name);
    let (digest, metadata) = (file("digest"), file("metadata.json"));
    let second = scene.target.repository("second");
    let options = [
        "--float",
        "latest",
        "--to",
        &second,
        "--tag",
        "1",
        "--digest-file",
        &digest.display().to_string(),
        "--metadata-file",
        &metadata.display().to_string(),
    ];
    let served = scene.pushed(&layout(&image), "first", "1", &options).await;
    assert_eq!(std::fs::read_to_string(&digest).unwrap(), format!("{served}\n"));
    let said: Value = serde_json::from_slice(&std::fs::read(&metadata).unwrap()).unwrap();
    assert_eq!(said["containerimage.digest"], served.as_str());
    let names = text(&said, "/image.name").split(',').count();
    assert_eq!(names, 3, "{said:#}");
    assert_eq!(scene.target.inspect("second", "1").await.unwrap(), served);
    assert_eq!(scene.target.inspect("first", "latest").await.unwrap(), served);
    // The release says where its content came from.
    let client = scene.world.client(&scene.node).unwrap();
    let release = client.release(text(&said, "/colophon.release")).await.unwrap();
    assert!(text(&release, "/origin").starts_with("oci:"), "{release:#}");
}

#[tokio::test]
async fn nothing_is_sent_twice() {
    let mut world = World::new().await.unwrap();
    let target = world.site(SiteOptions::proxied()).await.unwrap();
    let node = world.run().await.unwrap();
    let image = ImageSpec::new("again").layer(1_000_000).build().await.unwrap();
    let source = layout(&image);
    let to = target.repository("again");
    for (tag, most) in [("1", usize::MAX), ("2", 0)] {
        let before = sent(&target);
        let line = ["push", &source, "--to", &to, "--tag", tag];
        let output = world.cli(&node, &line).await.unwrap();
        assert_eq!(output.code, Some(0), "{}{}", output.out, output.err);
        assert!(sent(&target) - before <= most, "{tag}: {}", sent(&target) - before);
    }
}

/// Requests that began to bring a blob.
fn sent(target: &Site) -> usize {
    let log = target.proxy().log();
    log.iter().filter(|it| it.method == "POST" && it.path.contains("/blobs/uploads")).count()
}

const MIB: u64 = 1 << 20;
const LAYER: u64 = 40 * MIB;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_killed_goes_on_where_it_stood() {
    // Relative locations lead through the proxy.
    let personality = Personality { absolute_locations: false, ..Personality::distribution_v3() };
    let registry = Scripted::start(personality).await.unwrap();
    let proxy = FaultProxy::start(registry.host().parse().unwrap()).await.unwrap();
    let slow = Rule::new(Action::SlowRequest(10 * MIB)).path("/blobs/uploads/").always();
    let _slow = proxy.add(slow);
    let mut world = World::new().await.unwrap();
    world.registry_table(&format!(
        "[[registry]]\nhost = {:?}\nplain_http = true\nchunk_bytes = {MIB}\n",
        proxy.host()
    ));
    let node = world.run().await.unwrap();
    let image = ImageSpec::tiny("killed").layer(LAYER).build().await.unwrap();
    let to = format!("{}/app", proxy.host());
    let source = layout(&image);
    let line = ["push", source.as_str(), "--to", &to, "--tag", "1", "--streams", "1"];

    let mut command = world.cli_command(&node).unwrap();
    command.args(line).stdout(Stdio::null()).stderr(Stdio::null());
    let mut first = command.spawn().unwrap();
    let half = async || (registry.bytes_received_in_all() >= LAYER / 2).then_some(());
    wait_until("the half has come", 4 * PATIENCE, half).await.unwrap();
    let id = rustix::process::Pid::from_raw(i32::try_from(first.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(id, Signal::KILL).unwrap();
    assert!(!first.wait().await.unwrap().success());

    let again = world.cli(&node, &line);
    let output = tokio::time::timeout(4 * PATIENCE, again).await.unwrap().unwrap();
    assert_eq!(output.code, Some(0), "{}{}", output.out, output.err);
    let came = registry.bytes_received_in_all();
    assert!(came <= LAYER + LAYER / 20, "{came} bytes for a layer of {LAYER}");
    assert!(output.err.contains("blobs to send"), "{}", output.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_what_it_says_leaves_nothing_under_way() {
    let registry = Scripted::start(Personality::distribution_v3()).await.unwrap();
    let mut world = World::new().await.unwrap();
    world.registry_table(&format!(
        "[[registry]]\nhost = {:?}\nplain_http = true\nchunk_bytes = {MIB}\n",
        registry.host()
    ));
    let node = world.run().await.unwrap();
    let image = ImageSpec::tiny("damaged").layer(6 * MIB).build().await.unwrap();
    let blobs = std::fs::read_dir(image.layout().join("blobs/sha256")).unwrap();
    let blobs = blobs.map(|entry| entry.unwrap().path());
    let layer = blobs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&layer).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&layer, bytes).unwrap();

    let to = format!("{}/app", registry.host());
    let line = ["push", &layout(&image), "--to", &to, "--tag", "1"];
    let output = world.cli(&node, &line).await.unwrap();
    assert_eq!(output.code, Some(11), "{}{}", output.out, output.err);
    assert!(output.err.contains("what should be sha256:"), "{}", output.err);
    let pool = world.database().pool();
    let gone = async || {
        let left: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM upload) + (SELECT count(*) FROM upload_blob)",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        (left == 0 && registry.open_uploads() == 0).then_some(())
    };
    wait_until("nothing is under way", 2 * PATIENCE, gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_at_once_bring_an_image_once() {
    let personality = Personality { absolute_locations: false, ..Personality::distribution_v3() };
    let registry = Scripted::start(personality).await.unwrap();
    let proxy = FaultProxy::start(registry.host().parse().unwrap()).await.unwrap();
    let _slow = proxy.add(Rule::new(Action::SlowRequest(8 * MIB)).path("/blobs/uploads/").always());
    let mut world = World::new().await.unwrap();
    world.registry_table(&format!(
        "[[registry]]\nhost = {:?}\nplain_http = true\nchunk_bytes = {MIB}\n",
        proxy.host()
    ));
    let node = world.run().await.unwrap();
    let image = ImageSpec::tiny("two").layer(12 * MIB).build().await.unwrap();
    let (to, source) = (format!("{}/app", proxy.host()), layout(&image));
    let push = async |tag: &str| {
        let line = ["push", source.as_str(), "--to", &to, "--tag", tag];
        world.cli(&node, &line).await.unwrap()
    };
    let later = async {
        // Well within the two seconds that the layer takes.
        tokio::time::sleep(Duration::from_millis(300)).await;
        push("2").await
    };
    let (one, other) = tokio::join!(push("1"), later);
    for output in [one, other] {
        assert_eq!(output.code, Some(0), "{}{}", output.out, output.err);
    }
    let came = registry.bytes_received_in_all();
    assert!(came <= 12 * MIB + MIB, "{came}");
}
