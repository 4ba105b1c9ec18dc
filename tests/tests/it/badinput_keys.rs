//! Idempotency keys: a request that is sent again makes no second release, however often and
//! however fast; another request under the key is refused.

use std::collections::BTreeSet;

use colophon_testkit::image::ImageSpec;
use colophon_tests::{Client, Site, SiteOptions, World};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::release_scene::{assert_refused, tag_puts, text};

fn keyed(staging: &Site, target: &Site, tag: &str, key: &str) -> Value {
    json!({
        "source": staging.reference("app", "1"),
        "targets": [{ "repository": target.repository("app"), "floatingTags": [tag] }],
        "idempotencyKey": key,
    })
}

async fn releases(world: &World) -> i64 {
    let sql = "SELECT count(*) FROM release";
    sqlx::query_scalar(sql).fetch_one(world.database().pool()).await.unwrap()
}

async fn id(client: &Client, request: &Value) -> String {
    let release = client.create(request).await.unwrap().good().unwrap();
    text(&release, "/id").to_owned()
}

#[tokio::test]
async fn the_same_key_gives_the_same_release_also_at_the_same_time() {
    let mut world = World::new().await.unwrap();
    let mut staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::proxied()).await.unwrap();
    let everything =
        r#"[{ repositories = ["*"], actions = ["read", "publish", "move_floating"] }]"#;
    let other = world.caller("other", everything).unwrap();
    let nodes = [world.run().await.unwrap(), world.run().await.unwrap()];
    let clients: Vec<Client> = nodes.iter().map(|node| world.client(node).unwrap()).collect();
    let other = world.client_of(&nodes[0], &other).unwrap();
    staging.push(&ImageSpec::tiny("keys"), "app", "1").await.unwrap();

    // Twenty at once, at two replicas.
    let request = keyed(&staging, &target, "latest", "run 17");
    let ids = (0..20).map(|number| id(&clients[number % 2], &request));
    let ids: BTreeSet<String> = join_all(ids).await.into_iter().collect();
    assert_eq!((ids.len(), releases(&world).await), (1, 1), "{ids:?}");
    let first = ids.first().unwrap();
    clients[0].wait_end(first).await.unwrap();
    assert_eq!(tag_puts(&target), ["app:latest"]);

    // Another request under the key is refused, and names the release that has it.
    let answer = clients[0].create(&keyed(&staging, &target, "edge", "run 17")).await.unwrap();
    assert_refused(&answer, 409, "IDEMPOTENCY_KEY_REUSED", "idempotency_key");
    assert!(answer.text("/detail").contains(first), "{:#}", answer.body);
    assert!(!answer.text("/remedy").is_empty());
    assert_eq!(releases(&world).await, 1);

    // A key belongs to its caller.
    assert_ne!(&id(&other, &request).await, first);
    assert_eq!(releases(&world).await, 2);

    // It is looked up before anything else: it also holds when the source is gone.
    staging.registry_mut().kill();
    assert_eq!(&id(&clients[1], &request).await, first);
    let fresh = keyed(&staging, &target, "latest", "run 18");
    let answer = clients[0].create(&fresh).await.unwrap();
    assert_refused(&answer, 503, "REGISTRY_UNAVAILABLE", "source");
    // A refused request has not used its key up.
    staging.registry_mut().resume().await.unwrap();
    assert_ne!(&id(&clients[0], &fresh).await, first);
}

#[tokio::test]
async fn the_header_says_the_same_as_the_field() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::default()).await.unwrap();
    let node = world.serve().await.unwrap();
    let client = world.client(&node).unwrap();
    staging.push(&ImageSpec::tiny("keys"), "app", "1").await.unwrap();
    let by_field = id(&client, &keyed(&staging, &target, "latest", "k")).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let send = async |body: &Value, keys: &[&str]| {
        use secrecy::ExposeSecret as _;
        let mut request = http.post(format!("{}/v1/releases", client.url())).json(body);
        request = request.bearer_auth(client.token().expose_secret());
        for key in keys {
            request = request.header("Idempotency-Key", *key);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap())
    };
    let mut bare = keyed(&staging, &target, "latest", "k");
    let both = bare.clone();
    bare.as_object_mut().unwrap().remove("idempotencyKey");
    for (body, keys) in [(&bare, &["k"][..]), (&both, &["k"]), (&bare, &["k", "k"])] {
        let (status, release) = send(body, keys).await;
        assert_eq!((status, text(&release, "/id")), (200, by_field.as_str()), "{release:#}");
    }
    for (body, keys) in [(&both, &["other"][..]), (&bare, &["a", "b"]), (&bare, &[""])] {
        let (status, problem) = send(body, keys).await;
        assert_eq!((status, text(&problem, "/field")), (400, "idempotency_key"), "{problem:#}");
    }
    assert_eq!(releases(&world).await, 1);
}
