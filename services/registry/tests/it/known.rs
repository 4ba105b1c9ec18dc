//! Blobs that another repository of the target's registry is known to hold: mounted from there,
//! whoever brought them, and what happens when that is not so any more.

use std::sync::{Arc, Mutex};

use colophon_domain::{
    Access, BlobPlaces, CopyTotals, Digest, Failure, Reason, Repository, Result,
};
use colophon_registry::{Manifest, Registries, RegistryConfig};
use colophon_testkit::{scripted::Personality, token_service::Allowed};
use futures_util::future::BoxFuture;

use crate::{
    stage::{ALL, HARBOR, Kind, Stage, WRITER},
    support::{Keys, LAYER, copy, descriptor, image, registries},
};

/// What a database would remember, the newest last.
#[derive(Default)]
struct Memory(Mutex<Vec<(Repository, Digest)>>);

impl Memory {
    fn knows(&self, repository: &Repository) -> usize {
        self.0.lock().unwrap().iter().filter(|(known, _)| known == repository).count()
    }
}

impl BlobPlaces for Memory {
    fn holders<'a>(
        &'a self,
        target: &'a Repository,
        blobs: &'a [Digest],
    ) -> BoxFuture<'a, Result<Vec<(Digest, Repository)>>> {
        let known = self.0.lock().unwrap();
        let found = known
            .iter()
            .rev()
            .filter(|(place, blob)| place.registry() == target.registry() && blobs.contains(blob));
        let found = found.map(|(place, blob)| (blob.clone(), place.clone())).collect();
        Box::pin(async { Ok(found) })
    }

    fn seen<'a>(
        &'a self,
        repositories: &'a [&'a Repository],
        blobs: &'a [Digest],
    ) -> BoxFuture<'a, Result<()>> {
        let mut known = self.0.lock().unwrap();
        for repository in repositories {
            known.retain(|(place, blob)| place != *repository || !blobs.contains(blob));
            known.extend(blobs.iter().map(|blob| ((*repository).clone(), blob.clone())));
        }
        Box::pin(async { Ok(()) })
    }

    fn gone<'a>(
        &'a self,
        repository: &'a Repository,
        blob: &'a Digest,
    ) -> BoxFuture<'a, Result<()>> {
        self.0.lock().unwrap().retain(|known| (&known.0, &known.1) != (repository, blob));
        Box::pin(async { Ok(()) })
    }
}

/// A registry with images, one that they go to, and what both processes remember.
struct Scene {
    source: Stage,
    target: Stage,
    memory: Arc<Memory>,
    root: Manifest,
}

impl Scene {
    async fn of((host, personality): Kind) -> Self {
        Self::with(host, personality()).await
    }

    async fn with(host: &'static str, personality: Personality) -> Self {
        let source = Stage::with("source.example.com", Personality::default()).await;
        let target = Stage::with(host, personality).await;
        for more in ["a", "b", "c", "d", "e", "f"] {
            target.fake.add_repository(&target.name(more));
        }
        let names = ["a", "b", "c", "d", "e", "f"].map(|short| target.name(short));
        let allowed = names.iter().map(|name| Allowed::new(name, "pull,push")).collect();
        target.fake.login(WRITER.0, WRITER.1, allowed);
        let root = source.publish("src");
        Self { source, target, memory: Arc::default(), root }
    }

    /// As a process of its own would copy to a repository.
    async fn copy(&self, to: &str) -> Result<CopyTotals> {
        self.copy_by(to, Keys::one(WRITER.0, WRITER.1)).await
    }

    async fn copy_by(&self, to: &str, keys: Arc<Keys>) -> Result<CopyTotals> {
        let registries = registries([self.source.config(), self.target.config()], keys);
        self.copy_in(&registries.with_places(self.memory.clone()), to, &self.root.digest).await
    }

    async fn copy_in(
        &self,
        registries: &Registries,
        to: &str,
        digest: &Digest,
    ) -> Result<CopyTotals> {
        let from = registries.session(&self.source.repository("src"), Access::Pull).unwrap();
        let to = registries.session(&self.target.repository(to), Access::Push).unwrap();
        copy(&from, &to, digest).await
    }

    fn holds(&self, short: &str) {
        self.target.holds(short, &self.root, (&self.source.fake, &self.source.name("src")));
    }

    /// Mounts that were asked for, as the names of the repositories that they were to come from.
    fn mounts(&self) -> Vec<String> {
        self.target.fake.seen().iter().flat_map(|seen| seen.query("from")).collect()
    }

    fn downloads(&self) -> usize {
        self.source.fake.count("GET", "/blobs/")
    }
}

#[tokio::test]
async fn what_one_process_has_brought_another_mounts_elsewhere_at_each() {
    for kind in ALL {
        let scene = Scene::of(kind).await;
        assert_eq!(scene.copy("a").await.unwrap().blobs_copied, 5, "{}", kind.0);
        let (sent, downloads) = (scene.target.fake.bytes_received_in_all(), scene.downloads());
        let totals = scene.copy("b").await.unwrap();
        let expected = (5, 0, 0);
        assert_eq!(
            (totals.blobs_mounted, totals.blobs_copied, totals.bytes_copied),
            expected,
            "{}",
            kind.0
        );
        scene.holds("b");
        assert_eq!(scene.target.fake.bytes_received_in_all(), sent, "{}", kind.0);
        assert_eq!(scene.downloads(), downloads, "{}", kind.0);
        assert_eq!(scene.mounts(), vec![scene.target.name("a"); 5], "{}", kind.0);
        let heads = |name: &str| scene.target.fake.count("HEAD", &format!("{name}/blobs/"));
        // Each asked itself, and nobody asked the other before the mount.
        assert_eq!((heads(&scene.target.name("a")), heads(&scene.target.name("b"))), (5, 5));
        assert_eq!(scene.target.fake.open_uploads(), 0, "{}", kind.0);
        assert_eq!(scene.memory.knows(&scene.target.repository("b")), 5, "{}", kind.0);
        assert_eq!(scene.memory.knows(&scene.source.repository("src")), 5, "{}", kind.0);
    }
}

#[tokio::test]
async fn a_blob_that_was_deleted_behind_our_back_is_sent_and_not_known_there_any_more() {
    let scene = Scene::of(HARBOR).await;
    scene.copy("a").await.unwrap();
    let (a, fake) = (scene.target.repository("a"), &scene.target.fake);
    let blobs: Vec<Digest> =
        scene.memory.0.lock().unwrap().iter().map(|(_, blob)| blob.clone()).collect();
    fake.remove_blob(a.name(), blobs[0].as_str());
    let totals = scene.copy("b").await.unwrap();
    assert_eq!((totals.blobs_mounted, totals.blobs_copied), (4, 1));
    scene.holds("b");
    assert_eq!(scene.memory.knows(&a), 4);
    assert_eq!(fake.open_uploads(), 0);
    // Another place is found behind the one that has lost it: `b` of both.
    fake.remove_blob(scene.target.repository("b").name(), blobs[1].as_str());
    let totals = scene.copy("c").await.unwrap();
    assert_eq!((totals.blobs_mounted, totals.blobs_copied), (5, 0));
    assert_eq!(scene.memory.knows(&scene.target.repository("b")), 4);
    assert_eq!(fake.open_uploads(), 0, "the upload that the first place led to is cancelled");
}

#[tokio::test]
async fn somebody_elses_credential_is_not_tried_and_the_same_for_reading_is() {
    for (other, mounted) in [("b pull", 0), ("a pull", 5)] {
        let scene = Scene::of(HARBOR).await;
        scene.copy("a").await.unwrap();
        let before = scene.mounts().len();
        let target = &scene.target;
        let allowed = ["a", "b"].map(|name| Allowed::new(&target.name(name), "pull,push"));
        target.fake.login("team-b", "b_PatNeverShown", allowed.into());
        // Team B's PAT may read what team A has, and is meant for it in the second case only.
        let (short, access) = other.split_once(' ').unwrap();
        let keys = Keys::one(WRITER.0, WRITER.1)
            .and(&format!("{} push", target.name("b")), "team-b", "b_PatNeverShown")
            .and(&format!("{} {access}", target.name(short)), "team-b", "b_PatNeverShown");
        let totals = scene.copy_by("b", keys).await.unwrap();
        assert_eq!((totals.blobs_mounted, totals.blobs_copied), (mounted, 5 - mounted), "{other}");
        assert_eq!(i64::try_from(scene.mounts().len() - before).unwrap(), mounted, "{other}");
        scene.holds("b");
    }
}

#[tokio::test]
async fn a_mount_that_the_registry_does_not_allow_means_an_ordinary_upload() {
    // The configuration names one PAT for both, and the registry does not let it read `a`; Harbor
    // says 401 to such a mount.
    let scene = Scene::of(HARBOR).await;
    scene.copy("a").await.unwrap();
    let allowed = vec![Allowed::new(&scene.target.name("b"), "pull,push")];
    scene.target.fake.login(WRITER.0, WRITER.1, allowed);
    let totals = scene.copy("b").await.unwrap();
    assert_eq!((totals.blobs_mounted, totals.blobs_copied), (0, 5));
    scene.holds("b");
    assert_eq!(scene.memory.knows(&scene.target.repository("a")), 5, "it is there as before");
    assert_eq!(scene.target.fake.open_uploads(), 0);
}

#[tokio::test]
async fn a_registry_that_never_mounts_is_soon_not_asked() {
    let personality = Personality { mounts: false, ..Personality::default() };
    let scene = Scene::with("registry.example.com", personality).await;
    let keys = Keys::one(WRITER.0, WRITER.1);
    let configs = [scene.source.config(), scene.target.config()];
    let one = registries(configs, keys.clone()).with_places(scene.memory.clone());
    scene.copy_in(&one, "a", &scene.root.digest).await.unwrap();
    let mut asked = scene.mounts().len();
    for to in ["b", "c", "d"] {
        let totals = scene.copy_in(&one, to, &scene.root.digest).await.unwrap();
        assert_eq!((totals.blobs_mounted, totals.blobs_copied), (0, 5), "{to}");
        assert!(scene.mounts().len() > asked, "{to}");
        asked = scene.mounts().len();
    }
    // Also not after a reload of the configuration.
    let configs: Vec<RegistryConfig> = vec![scene.source.config(), scene.target.config()];
    let other = one.replaced(configs, keys).unwrap();
    for (registries, to) in [(&one, "e"), (&other, "f")] {
        scene.copy_in(registries, to, &scene.root.digest).await.unwrap();
        scene.holds(to);
        assert_eq!(scene.mounts().len(), asked, "{to}");
    }
    assert_eq!(scene.target.fake.open_uploads(), 0);
    // What a refused mount began was gone on with: an upload for each blob and no more.
    assert_eq!(scene.target.fake.count("PUT", "/blobs/uploads/"), 6 * 5);
    assert_eq!(scene.memory.knows(&scene.target.repository("a")), 5);
}

#[tokio::test]
async fn who_cannot_show_a_blob_is_not_given_one_from_elsewhere() {
    let scene = Scene::of(HARBOR).await;
    scene.copy("a").await.unwrap();
    let source = (&scene.source.fake, scene.source.name("src"));
    let layer = scene.memory.0.lock().unwrap()[0].1.clone();
    let size = scene.target.fake.blob(&scene.target.name("a"), layer.as_str()).unwrap().len();
    let config: Digest = source.0.add_blob(&source.1, "own").parse().unwrap();
    let forged = image(&[descriptor("c", &config, 3), descriptor(LAYER, &layer, size)]);
    source.0.add_manifest(&source.1, "forged", &forged.media_type, forged.bytes.clone());
    source.0.remove_blob(&source.1, layer.as_str());
    let configs = [scene.source.config(), scene.target.config()];
    let registries = registries(configs, Keys::one(WRITER.0, WRITER.1));
    let registries = registries.with_places(scene.memory.clone());
    let before = scene.mounts().len();
    let failure = scene.copy_in(&registries, "b", &forged.digest).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::SourceGone, "{failure}");
    assert_eq!(scene.mounts().len(), before);
    assert_eq!(scene.target.fake.blob(&scene.target.name("b"), layer.as_str()), None);
}

/// A database that is away.
struct Away;

impl BlobPlaces for Away {
    fn holders<'a>(
        &'a self,
        _: &'a Repository,
        _: &'a [Digest],
    ) -> BoxFuture<'a, Result<Vec<(Digest, Repository)>>> {
        Box::pin(async { Err(Failure::new(Reason::DatabaseUnavailable, "away")) })
    }

    fn seen<'a>(&'a self, _: &'a [&'a Repository], _: &'a [Digest]) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::pending())
    }

    fn gone<'a>(&'a self, _: &'a Repository, _: &'a Digest) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_copy_needs_nobody_who_remembers() {
    let scene = Scene::of(HARBOR).await;
    let configs = [scene.source.config(), scene.target.config()];
    let registries = registries(configs, Keys::one(WRITER.0, WRITER.1)).with_places(Arc::new(Away));
    let totals = scene.copy_in(&registries, "a", &scene.root.digest).await.unwrap();
    assert_eq!(totals.blobs_copied, 5);
    scene.holds("a");
}
