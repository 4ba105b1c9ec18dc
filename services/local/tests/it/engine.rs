//! A real Docker engine. It needs root, so `make image-test` starts one of its own and runs this.

use std::{path::Path, process::Command};

use colophon_local::{
    LocalErrorKind, Options, Source,
    docker::{Engine, Removed},
    open,
};

use crate::support::{archive, whole};

/// The command `docker`, of the engine that the variables name.
fn docker(arguments: &[&str]) -> String {
    let program = std::env::var_os("COLOPHON_TEST_DOCKER").unwrap();
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "docker {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Builds an image of busybox and a file, from nothing.
fn build(folder: &Path, tag: &str, content: &str) -> String {
    std::fs::copy("/bin/busybox", folder.join("busybox")).unwrap();
    std::fs::write(folder.join("content"), content).unwrap();
    let text = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY content /content\n\
                CMD [\"/bin/busybox\", \"cat\", \"/content\"]\n";
    std::fs::write(folder.join("Dockerfile"), text).unwrap();
    docker(&["build", "-q", "--network", "none", "-t", tag, folder.to_str().unwrap()])
}

#[tokio::test]
#[ignore = "needs root; make image-test runs it on an engine of its own"]
async fn an_image_is_built_opened_and_untagged() {
    let folder = tempfile::tempdir().unwrap();
    let id = build(folder.path(), "app:1", "one");
    docker(&["tag", "app:1", "ghcr.io/acme/app:1"]);
    let options = Options::default();

    // The same bytes whichever way, and every time.
    let source = Source::Docker("app:1".to_owned());
    let image = open(&source, &options, &()).await.unwrap();
    assert_eq!(image.image_id.as_ref().unwrap().as_str(), id);
    let first = whole(&image).await;
    let at = folder.path().join("app.tar");
    docker(&["save", "-o", at.to_str().unwrap(), "app:1"]);
    let saved = open(&archive(&at), &options, &()).await.unwrap();
    assert_eq!(whole(&saved).await, first);
    assert_eq!(saved.names, ["app:1"]);
    let by_id = open(&Source::Docker(id.clone()), &options, &()).await.unwrap();
    assert_eq!(whole(&by_id).await, first);
    let engine = Engine::connect(None).await.unwrap();
    let found = engine.find("app:1").await.unwrap();
    assert_eq!(found.id.as_str(), id);
    assert!(found.created.is_some());
    assert_eq!(engine.find("gone:1").await.unwrap_err().kind(), LocalErrorKind::NotFound);
    let mut tags = engine.users(&found).await.unwrap().tags;
    tags.sort_unstable();
    assert_eq!(tags, ["app:1", "ghcr.io/acme/app:1"]);
    let listed = engine.images_of("ghcr.io/acme/app").await.unwrap();
    assert_eq!((listed.len(), &listed[0].id), (1, &found.id));

    // With another name it only loses this one.
    let gone = engine.untag("ghcr.io/acme/app:1").await.unwrap();
    assert_eq!(gone, [Removed::Untagged("ghcr.io/acme/app:1".to_owned())]);
    // A container keeps it, running or not.
    let container = docker(&["create", "--network", "none", "--name", "user", "app:1"]);
    let users = engine.users(&found).await.unwrap();
    assert_eq!(users.containers.len(), 1);
    let user = &users.containers[0];
    assert_eq!(
        (&user.id, user.name.as_str(), user.state.as_str()),
        (&container, "user", "created")
    );
    assert_eq!(engine.untag("app:1").await.unwrap_err().kind(), LocalErrorKind::InUse);
    assert_eq!(engine.find("app:1").await.unwrap().id, found.id);
    docker(&["rm", "user"]);
    // An id is no name, in whatever form.
    for name in [id.as_str(), &id[7..], &id[..19]] {
        assert_eq!(engine.untag(name).await.unwrap_err().kind(), LocalErrorKind::Invalid);
    }
    let gone = engine.untag("app:1").await.unwrap();
    assert_eq!(gone[0], Removed::Untagged("app:1".to_owned()));
    assert!(gone.contains(&Removed::Deleted(id.clone())), "{gone:?}");
    assert_eq!(engine.users(&found).await.unwrap_err().kind(), LocalErrorKind::NotFound);
    assert_eq!(engine.images_of("app").await.unwrap(), []);
    // What was opened is still all there.
    assert_eq!(whole(&image).await, first);
}
