//! What one worker has brought to a registry another mounts into a second repository there, although
//! the image comes from elsewhere, and what happens when it has been deleted meanwhile.

use colophon_testkit::image::{Image, ImageSpec};
use colophon_tests::{Client, Site, SiteOptions, World};
use http::{Method, StatusCode};

use crate::release_scene::{login, succeeded, text};

/// Two registries to come from, and one to go to behind a proxy that counts.
struct Scene {
    world: World,
    first: Site,
    second: Site,
    target: Site,
    image: Image,
}

impl Scene {
    /// The same layers at both sources.
    async fn new(target: SiteOptions) -> Self {
        let mut world = World::new().await.unwrap();
        let first = world.site(SiteOptions::default()).await.unwrap();
        let second = world.site(SiteOptions::proxied()).await.unwrap();
        let target = world.site(target).await.unwrap();
        let spec = ImageSpec::tiny("known").layer(300_000).layer(200_000);
        let image = first.push(&spec, "app", "1").await.unwrap();
        second.push_built(&image, "mirror/app", "1").await.unwrap();
        Self { world, first, second, target, image }
    }

    /// Publishes, and says how many blobs were copied and mounted.
    async fn publish(&self, client: &Client, source: &str, to: &str) -> (usize, usize) {
        let to = self.target.repository(to);
        let release = succeeded(client, source, &[(&to, &["1"], &[])]).await;
        let number = |name: &str| text(&release["publications"][0], name).parse().unwrap();
        (number("/blobsCopied"), number("/blobsMounted"))
    }

    /// Blobs that were sent to the target, and those that were read at the second source.
    fn moved(&self) -> (usize, usize) {
        let count = |site: &Site, method: &str, part: &str| {
            let log = site.proxy().log();
            let of = |path: &str| path.contains("/blobs/") && path.contains(part);
            log.iter().filter(|seen| seen.method == method && of(&seen.path)).count()
        };
        (count(&self.target, "PUT", "/uploads/"), count(&self.second, "GET", "/blobs/"))
    }
}

#[tokio::test]
async fn layers_that_another_worker_brought_from_another_registry_are_mounted() {
    let mut scene = Scene::new(SiteOptions::proxied()).await;
    let api = scene.world.serve().await.unwrap();
    let client = scene.world.client(&api).unwrap();
    let mut first = scene.world.work().await.unwrap();
    let source = scene.first.reference("app", "1");
    let (blobs, _) = scene.publish(&client, &source, "team/a").await;
    assert!(blobs >= 3, "{blobs}");
    first.stop().await.unwrap();
    let (sent, read) = scene.moved();

    let _second = scene.world.work().await.unwrap();
    let source = scene.second.reference("mirror/app", "1");
    assert_eq!(scene.publish(&client, &source, "team/b").await, (0, blobs));
    assert_eq!(scene.moved(), (sent, read), "no byte of a blob moved");
    assert_eq!(scene.target.inspect("team/b", "1").await.unwrap(), scene.image.digest());

    // Deleted behind our back: all who have it lose a layer, and it is sent again.
    let peer = scene.target.peer().unwrap();
    let walk = peer.walk("team/b", "1").await.unwrap();
    let layers = walk.contents.iter().filter(|(_, content)| !content.manifest);
    let (layer, _) = layers.max_by_key(|(_, content)| content.size).unwrap();
    for name in ["team/a", "team/b"] {
        let gone = peer.request(Method::DELETE, name, &format!("blobs/{layer}")).await.unwrap();
        assert_eq!(gone.status(), StatusCode::ACCEPTED);
    }
    assert_eq!(scene.publish(&client, &source, "team/c").await, (1, blobs - 1));
    assert_eq!(scene.moved(), (sent + 1, read + 1));
    assert_eq!(scene.target.inspect("team/c", "1").await.unwrap(), scene.image.digest());
    let known = "SELECT repository FROM blob_location WHERE digest = $1 ORDER BY repository";
    let known: Vec<String> = sqlx::query_scalar(known)
        .bind(layer)
        .fetch_all(scene.world.database().pool())
        .await
        .unwrap();
    assert_eq!(known, ["app", "mirror/app", "team/c"]);
}

#[tokio::test]
async fn what_another_team_has_is_not_tried() {
    let [a, b] = ["a", "b"].map(login);
    let table = |team: &str| {
        format!(
            "[[registry.credentials]]\nrepositories = \"team-{team}/*\"\n\
             push = \"registries/{team}\"\n"
        )
    };
    let options = SiteOptions::proxied().login(&a).login(&b);
    let mut scene = Scene::new(options.settings(&(table("a") + &table("b")))).await;
    let vault = scene.world.vault("").await.unwrap();
    vault.put_login("a", &a).await.unwrap();
    vault.put_login("b", &b).await.unwrap();
    let node = scene.world.run().await.unwrap();
    let client = scene.world.client(&node).unwrap();
    let source = scene.first.reference("app", "1");
    let mounts = || {
        let log = scene.target.proxy().log();
        let mounts = |query: &String| query.contains("mount=");
        log.iter().filter(|seen| seen.query.as_ref().is_some_and(mounts)).count()
    };
    let (blobs, _) = scene.publish(&client, &source, "team-a/x").await;
    // The registry would let team B's login read it: its list of logins knows no rights.
    assert_eq!(scene.publish(&client, &source, "team-b/x").await, (blobs, 0));
    assert_eq!(mounts(), 0);
    assert_eq!(scene.publish(&client, &source, "team-b/y").await, (0, blobs));
    assert_eq!(mounts(), blobs);
}
