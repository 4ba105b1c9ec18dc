//! A worker is killed at every step of a release; another one finishes it.

use colophon_testkit::image::ImageSpec;
use colophon_tests::{SiteOptions, World};

#[tokio::test]
async fn first() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::proxied()).await.unwrap();
    let api = world.serve().await.unwrap();
    let _worker = world.work().await.unwrap();
    let client = world.client(&api).unwrap();
    let image = staging.push(&ImageSpec::tiny("one"), "app", "v1").await.unwrap();
    let id = client
        .publish(
            &staging.reference("app", "v1"),
            &[(&target.repository("app"), &["1.0.0"], &["1"])],
        )
        .await
        .unwrap();
    let ended = client
        .wait_end_for(&id, std::time::Duration::from_secs(5))
        .await
        .unwrap_or_else(|e| panic!("{e}\n{}\n{}", api.log(), _worker.log()));
    assert_eq!(ended["state"], "RELEASE_STATE_SUCCEEDED", "{ended:#}");
    assert_eq!(target.inspect("app", "1").await.unwrap(), image.digest());
    assert_eq!(client.moves(&target.reference("app", "1")).await.unwrap().len(), 2);
    let out = world.cli(&api, &["release", &id]).await.unwrap();
    assert_eq!(out.code, Some(0), "{out:?}");
}
