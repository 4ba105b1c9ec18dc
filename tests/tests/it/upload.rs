//! Content from where it was built: whole images by both faces, and what breaks off, is wrong, is
//! somebody else's, is given up, forgotten, or survives the process that took it.

use std::time::Duration;

use colophon_testkit::{
    image::ImageSpec,
    peer::assert_same,
    scripted::{Personality, Scripted},
    wait::wait_until,
};
use colophon_tests::{Client, Node, PATIENCE, Site, SiteOptions, World, request};
use futures_util::{StreamExt as _, stream};
use http::Method;
use reqwest::Body;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    grpc::{run_script, stubs},
    release_scene::{state, text},
    upload_scene::{
        MIB, Parts, digest_of, left_on_disk, noise, open_body, post, put, put_manifests, stands,
        start,
    },
};

/// A registry that takes content in pieces of a MiB, and a process that does everything.
async fn scene() -> (World, Site, Node, Client) {
    let mut world = World::new().await.unwrap();
    let options = SiteOptions::default().settings("chunk_bytes = 1048576");
    let target = world.site(options).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    (world, target, node, client)
}

/// Publishes what an upload has brought into `app`.
async fn publish(client: &Client, target: &Site, root: &str, upload: &str) -> Value {
    let app = target.repository("app");
    let mut release = request(&format!("{app}@{root}"), &[(&app, &["1.0"], &["latest"])]);
    release["upload"] = json!(upload);
    let made = client.create(&release).await.unwrap().good().unwrap();
    client.wait_end(text(&made, "/id")).await.unwrap()
}

/// Whether the upload is there for this caller.
async fn status(client: &Client, id: &str) -> u16 {
    let path = format!("/v1/uploads/{id}");
    client.call(Method::GET, &path, &[], None).await.unwrap().status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_this_machine_is_sent_by_rest_and_published() {
    let (_world, target, node, client) = scene().await;
    let parts = Parts::of(ImageSpec::new("by rest").layer(3_500_000)).await;
    let id = start(&client, &target.repository("app")).await;
    let path = format!("/v1/uploads/{id}/find-blobs");
    let found = post(&client, &path, &parts.asked()).await.good().unwrap();
    let missing = found["blobs"].as_array().unwrap();
    assert!(missing.iter().all(|it| it["present"] == false && it["offset"] == "0"), "{found:#}");
    for (digest, bytes) in &parts.blobs {
        let blob = (digest.as_str(), bytes.len());
        let answer = put(&client, &id, blob, 0, bytes.clone()).await.unwrap().good().unwrap();
        assert_eq!(answer, json!({"offset": bytes.len().to_string(), "present": true}));
    }
    put_manifests(&client, &id, &parts).await;
    let upload = client.get(&format!("/v1/uploads/{id}"), &[]).await.unwrap();
    let sent: usize = parts.blobs.values().map(Vec::len).sum();
    assert_eq!(text(&upload, "/bytesReceived"), sent.to_string());

    let ended = publish(&client, &target, &parts.root, &id).await;
    assert_eq!(state(&ended), "SUCCEEDED", "{ended:#}\n{}", node.log());
    assert_eq!(ended["origin"], "app:latest on build-7");
    for tag in ["1.0", "latest"] {
        assert_eq!(target.inspect("app", tag).await.unwrap(), parts.root);
    }
    target.push_built(&parts.image, "by-skopeo", "1").await.unwrap();
    let peer = target.peer().unwrap();
    assert_same((&peer, "app", "1.0"), (&peer, "by-skopeo", "1")).await.unwrap();
    assert_eq!(status(&client, &id).await, 404, "it ended with the release");
    // Nothing of it need be sent again.
    let again = start(&client, &target.repository("app")).await;
    let path = format!("/v1/uploads/{again}/find-blobs");
    let found = post(&client, &path, &parts.asked()).await.good().unwrap();
    assert!(found["blobs"].as_array().unwrap().iter().all(|it| it["present"] == true), "{found:#}");
    assert_eq!(left_on_disk(&target.registry().storage()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_this_machine_is_sent_by_grpc_from_another_language() {
    let (world, target, node, client) = scene().await;
    let parts = Parts::of(ImageSpec::new("by grpc").layer(3_500_000)).await;
    let made = world.folder().join("stubs");
    std::fs::create_dir(&made).unwrap();
    stubs(&made).await;
    let manifests = parts.manifests.iter();
    let manifests: Vec<_> =
        manifests.map(|(kind, digest, _)| json!({"digest": digest, "media_type": kind})).collect();
    let given = json!({
        "address": node.address(), "token": world.token().expose_secret(),
        "repository": target.repository("app"),
        "blobs": parts.image.layout().join("blobs/sha256"),
        "digests": parts.blobs.keys().collect::<Vec<_>>(), "manifests": manifests,
    });
    let printed = run_script("grpc_upload.py", &made, &given).await;
    assert_eq!(printed["missing"], parts.blobs.len(), "{printed:#}");
    assert_eq!(printed["present"], parts.blobs.len(), "{printed:#}");
    // A blob that is not what was promised, and one that begins where it does not stand.
    assert_eq!(printed["errors"], json!(["FAILED_PRECONDITION", "FAILED_PRECONDITION"]));
    let ended = publish(&client, &target, &parts.root, text(&printed, "/upload")).await;
    assert_eq!(state(&ended), "SUCCEEDED", "{ended:#}\n{}", node.log());
    assert_eq!(ended["origin"], "app:1 on python");
    assert_eq!(target.inspect("app", "1.0").await.unwrap(), parts.root);
    assert_eq!(left_on_disk(&target.registry().storage()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_its_callers_alone_and_needs_the_right_to_publish() {
    let mut world = World::new().await.unwrap();
    let target = world.site(SiteOptions::default()).await.unwrap();
    let grants = |actions: &str| format!("[{{ repositories = [\"*\"], actions = [{actions}] }}]");
    let other = world.caller("other", &grants("\"read\", \"publish\", \"cancel\"")).unwrap();
    let reader = world.caller("reader", &grants("\"read\", \"cancel\"")).unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    let (other, reader) =
        (world.client_of(&node, &other).unwrap(), world.client_of(&node, &reader).unwrap());
    let app = target.repository("app");
    let refused = post(&reader, "/v1/uploads", &json!({"repository": app})).await;
    assert_eq!((refused.status.as_u16(), refused.text("/reason")), (403, "PERMISSION_DENIED"));
    let parts = Parts::of(ImageSpec::tiny("mine")).await;
    let id = start(&client, &app).await;
    for (digest, bytes) in &parts.blobs {
        put(&client, &id, (digest, bytes.len()), 0, bytes.clone()).await.unwrap().good().unwrap();
    }
    put_manifests(&client, &id, &parts).await;
    let (digest, bytes) = noise(100, "not mine");
    let at = |name: &str| format!("/v1/uploads/{id}/{name}");
    let mut release = request(&format!("{app}@{}", parts.root), &[(&app, &["1.0"], &[])]);
    release["upload"] = json!(id);
    let strangers = [
        other.call(Method::GET, &format!("/v1/uploads/{id}"), &[], None).await.unwrap(),
        post(&other, &at("find-blobs"), &parts.asked()).await,
        put(&other, &id, (&digest, bytes.len()), 0, bytes).await.unwrap(),
        post(&other, &at("abandon"), &json!({})).await,
        other.create(&release).await.unwrap(),
    ];
    for answer in strangers {
        let seen = (answer.status.as_u16(), answer.text("/reason"));
        assert_eq!(seen, (404, "NOT_FOUND"), "{:#}", answer.body);
    }
    assert_eq!(status(&client, &id).await, 200);
    let ended = publish(&client, &target, &parts.root, &id).await;
    assert_eq!(state(&ended), "SUCCEEDED", "{ended:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_have_its_digest_arrives_nowhere() {
    let (_world, target, _node, client) = scene().await;
    let id = start(&client, &target.repository("app")).await;
    for (bytes, seed) in [(100, "small"), (3 * MIB, "pieces")] {
        let (digest, mut wrong) = noise(bytes, seed);
        *wrong.last_mut().unwrap() ^= 1;
        let answer = put(&client, &id, (&digest, bytes), 0, wrong.clone()).await.unwrap();
        let seen = (answer.status.as_u16(), answer.text("/reason"));
        assert_eq!(seen, (409, "DIGEST_MISMATCH"), "{:#}", answer.body);
        assert_eq!(stands(&client, &id, &digest, bytes).await, Some(0), "nothing is gone on with");
        let stored = digest_of(&wrong);
        assert_eq!(stands(&client, &id, &stored, bytes).await, Some(0), "{stored}");
        assert_eq!(left_on_disk(&target.registry().storage()), 0, "{seed}");
    }
}

/// Sends a part of a blob of three pieces; two of them have arrived.
async fn break_off(client: &Client, id: &str, seed: &str) -> String {
    let (digest, bytes) = noise(3 * MIB, seed);
    let part = bytes.get(..2 * MIB + MIB / 2).unwrap().to_vec();
    let answer = put(client, id, (&digest, bytes.len()), 0, part).await.unwrap().good().unwrap();
    assert_eq!(answer["present"], false, "{answer}");
    digest
}

async fn nothing_left(target: &Site) {
    let storage = target.registry().storage();
    let gone = async || (left_on_disk(&storage) == 0).then_some(());
    wait_until("nothing is left on the registry's disk", 2 * PATIENCE, gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_abandoned_is_cancelled_at_the_registry() {
    let (_world, target, node, client) = scene().await;
    let id = start(&client, &target.repository("app")).await;
    break_off(&client, &id, "abandoned").await;
    assert_eq!(left_on_disk(&target.registry().storage()), 1, "{}", node.log());
    post(&client, &format!("/v1/uploads/{id}/abandon"), &json!({})).await.good().unwrap();
    assert_eq!(status(&client, &id).await, 404);
    nothing_left(&target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_goes_on_with_ends_by_itself_whichever_process_is_left() {
    for role in ["serve", "work"] {
        let (mut world, target, node, client) = scene().await;
        let id = start(&client, &target.repository("app")).await;
        break_off(&client, &id, "idle").await;
        assert_eq!(left_on_disk(&target.registry().storage()), 1, "{}", node.log());
        // Its time has passed, which takes a minute at least.
        let pool = world.database().pool();
        let late = "UPDATE upload SET created_at = now() - interval '1 day', \
                    expires_at = now() - interval '1 second'";
        sqlx::query(late).execute(pool).await.unwrap();
        assert_eq!(status(&client, &id).await, 404);
        drop(node);
        let last = match role {
            "serve" => world.serve().await.unwrap(),
            _ => world.work().await.unwrap(),
        };
        nothing_left(&target).await;
        let rows = "SELECT (SELECT count(*) FROM upload) + (SELECT count(*) FROM upload_blob)";
        let pool = world.database().pool();
        let gone = async || {
            let rows: i64 = sqlx::query_scalar(rows).fetch_one(pool).await.unwrap();
            (rows == 0).then_some(())
        };
        wait_until("no row is left", PATIENCE, gone).await.unwrap();
        drop(last);
    }
}

/// Sends pieces of a blob until the table says that so much of it was confirmed, and a bit more; gives
/// back how much was sent.
async fn until_confirmed(
    world: &World,
    pieces: &mpsc::Sender<Vec<u8>>,
    bytes: &[u8],
    confirmed: usize,
    more: usize,
) -> usize {
    let (first, rest) = bytes.split_at(confirmed);
    for piece in first.chunks(64 << 10) {
        pieces.send(piece.to_vec()).await.unwrap();
    }
    let pool = world.database().pool();
    let wanted = i64::try_from(confirmed).unwrap();
    let there = async || {
        let sql = "SELECT coalesce(max(sent_bytes), 0) FROM upload_blob";
        let sent: i64 = sqlx::query_scalar(sql).fetch_one(pool).await.unwrap();
        (sent >= wanted).then_some(())
    };
    wait_until("the pieces are confirmed", PATIENCE, there).await.unwrap();
    for piece in rest[..more].chunks(64 << 10) {
        pieces.send(piece.to_vec()).await.unwrap();
    }
    confirmed + more
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_goes_on_at_another_replica_when_its_process_is_killed() {
    let size = 16 * MIB;
    let registry = Scripted::start(Personality::distribution_v3()).await.unwrap();
    let mut world = World::new().await.unwrap();
    let host = registry.host();
    world.registry_table(&format!(
        "[[registry]]\nhost = {host:?}\nplain_http = true\nchunk_bytes = {MIB}\n"
    ));
    let (mut first, second) = (world.serve().await.unwrap(), world.serve().await.unwrap());
    let (a, b) = (world.client(&first).unwrap(), world.client(&second).unwrap());
    let (digest, bytes) = noise(size, "killed");
    let id = start(&a, &format!("{host}/app")).await;
    let (pieces, body) = mpsc::channel::<Vec<u8>>(1);
    let body = stream::unfold(body, |mut body| async {
        body.recv().await.map(|piece| (Ok::<_, std::io::Error>(piece), body))
    });
    let putting = {
        let (a, id, digest) = (a.clone(), id.clone(), digest.clone());
        tokio::spawn(async move {
            put(&a, &id, (&digest, size), 0, Body::wrap_stream(body.boxed())).await
        })
    };
    let sent = until_confirmed(&world, &pieces, &bytes, 8 * MIB, MIB / 2).await;
    first.kill();
    assert!(putting.await.unwrap().is_err(), "nobody has answered");
    // Until its lease has run out the blob is somebody's.
    let path = format!("/v1/uploads/{id}/find-blobs");
    let asked = json!({"blobs": [{"digest": digest, "size": size}]});
    let free = async || {
        let found = post(&b, &path, &asked).await.good().unwrap();
        let free = found["blobs"][0]["busy"] == false;
        free.then(|| text(&found, "/blobs/0/offset").parse::<usize>().unwrap())
    };
    let offset = wait_until("the blob is nobody's", PATIENCE, free).await.unwrap();
    assert!(offset >= 8 * MIB, "{offset}");
    let rest = bytes[offset..].to_vec();
    let whole = put(&b, &id, (&digest, size), offset, rest).await.unwrap().good().unwrap();
    assert_eq!(whole["present"], true, "{whole} {}", second.log());
    assert_eq!(registry.blob("app", &digest).unwrap(), bytes);
    let all = sent + size - offset;
    assert!(all * 100 <= size * 115, "{all} bytes were sent of {size}");
    assert_eq!(registry.open_uploads(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_one_client_sends_is_not_taken_from_another_at_the_same_time() {
    let (_world, target, _node, client) = scene().await;
    let id = start(&client, &target.repository("app")).await;
    let (digest, bytes) = noise(3 * MIB, "twice");
    let held = {
        let (client, id, digest) = (client.clone(), id.clone(), digest.clone());
        let body = open_body(vec![bytes[..MIB].to_vec()]);
        tokio::spawn(async move { put(&client, &id, (&digest, 3 * MIB), 0, body).await })
    };
    let other = start(&client, &target.repository("app")).await;
    let path = format!("/v1/uploads/{other}/find-blobs");
    let asked = json!({"blobs": [{"digest": digest, "size": bytes.len()}]});
    let busy = async || {
        let found = post(&client, &path, &asked).await.good().unwrap();
        (found["blobs"][0]["busy"] == true).then_some(())
    };
    wait_until("somebody sends it", PATIENCE, busy).await.unwrap();
    let refused = put(&client, &other, (&digest, bytes.len()), 0, bytes.clone()).await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.text("/reason")), (409, "UPLOAD_BUSY"));
    // Whoever breaks off leaves it to the next one at once, with what had arrived.
    held.abort();
    let mut offset = None;
    for _ in 0..100 {
        let answer = post(&client, &path, &asked).await.good().unwrap();
        if answer["blobs"][0]["busy"] == false {
            offset = Some(text(&answer, "/blobs/0/offset").parse::<usize>().unwrap());
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let offset = offset.unwrap();
    let rest = bytes[offset..].to_vec();
    let whole = put(&client, &other, (&digest, bytes.len()), offset, rest).await.unwrap();
    assert_eq!(whole.good().unwrap()["present"], true);
}
