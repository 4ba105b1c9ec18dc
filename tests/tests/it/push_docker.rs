//! `colophon push` from a real Docker engine, and back: what was pushed, removed and pulled again runs.
//! It needs root, so `make image-test` starts an engine of its own and runs this.

use std::{path::Path, process::Command};

use colophon_testkit::image::ImageSpec;
use colophon_tests::{CliOutput, Node, SiteOptions, World};

/// The command `docker`, of the engine that the variables name: whether it worked, and what it said.
fn tried(arguments: &[&str]) -> (bool, String) {
    let program = std::env::var_os("COLOPHON_TEST_DOCKER").unwrap();
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), said + &String::from_utf8_lossy(&output.stderr))
}

fn docker(arguments: &[&str]) -> String {
    let (worked, said) = tried(arguments);
    assert!(worked, "docker {arguments:?}: {said}");
    said.trim().to_owned()
}

/// Gives the engine an image with busybox under a name.
async fn load(seed: &str, name: &str, folder: &Path) {
    let image = ImageSpec::new(seed).layer(200_000).build().await.unwrap();
    let file = folder.join(format!("{seed}.tar"));
    let output = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--override-arch", "amd64"])
        .arg(format!("oci:{}:image", image.layout().display()))
        .arg(format!("docker-archive:{}:{name}", file.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    docker(&["load", "-i", &file.display().to_string()]);
}

async fn colophon(world: &World, node: &Node, arguments: &[&str]) -> CliOutput {
    let mut command = world.cli_command(node).unwrap();
    command.args(arguments).env("DOCKER_HOST", std::env::var_os("DOCKER_HOST").unwrap());
    let output = command.output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    CliOutput { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

#[tokio::test]
#[ignore = "needs a Docker engine of its own: make image-test"]
async fn what_was_pushed_and_removed_can_be_pulled_and_runs() {
    let mut world = World::new().await.unwrap();
    let target = world.site(SiteOptions::default()).await.unwrap();
    let node = world.run().await.unwrap();
    let to = target.repository("app");
    for number in ["1", "2", "3"] {
        load(&format!("docker{number}"), &format!("app:{number}"), world.folder()).await;
    }
    // A container holds its image, whatever was asked for.
    docker(&["create", "--name", "user", "--network", "none", "app:1", "/bin/busybox", "true"]);
    let line = ["push", "docker://app:1", "--to", &to, "--tag", "1", "--remove-local"];
    let output = colophon(&world, &node, &line).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.err.contains("app:1 stays: used by the container user"), "{output:?}");
    docker(&["image", "inspect", "app:1"]);
    docker(&["rm", "user"]);

    let line = ["push", "docker://app:2", "--to", &to, "--tag", "2", "--remove-local"];
    let output = colophon(&world, &node, &line).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.err.contains("app:2 removed"), "{output:?}");
    assert!(!tried(&["image", "inspect", "app:2"]).0);

    // What the first run left goes now; what nobody has published stays.
    let line = ["prune-local", "--repository", &to, "--local", "app"];
    let planned = colophon(&world, &node, &[&line[..], &["--plan"]].concat()).await;
    assert_eq!(planned.code, Some(0), "{planned:?}");
    assert!(planned.out.contains("would be removed"), "{planned:?}");
    docker(&["image", "inspect", "app:1"]);
    let pruned = colophon(&world, &node, &line).await;
    assert_eq!(pruned.code, Some(0), "{pruned:?}");
    assert!(!tried(&["image", "inspect", "app:1"]).0, "{pruned:?}");
    docker(&["image", "inspect", "app:3"]);

    for tag in ["1", "2"] {
        let image = format!("{to}:{tag}");
        docker(&["pull", &image]);
        let said =
            docker(&["run", "--rm", "--network", "none", &image, "/bin/busybox", "echo", "up"]);
        assert!(said.ends_with("up"), "{said}");
    }
}
