//! `docs/vault.md`, done as it says: its commands run against the server, and its sections of the
//! configuration log in and read.

use std::{path::Path, process::Stdio, time::Duration};

use colophon_launcher::tool;
use colophon_testkit::{
    cluster::{ClusterApi, ServiceAccount},
    issuer::Issuer,
};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::bench::{Bench, ask, config, vault_by};

/// The fenced blocks of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fenced = text.split("```").skip(1).step_by(2);
    let found = fenced.filter_map(|block| block.strip_prefix(&format!("{language}\n")));
    found.map(str::to_owned).collect()
}

/// Runs commands in a folder where `vault` is OpenBao's, as root.
async fn run(bench: &Bench, folder: &Path, script: &str) {
    let programs = folder.join("bin");
    if !programs.is_dir() {
        std::fs::create_dir(&programs).unwrap();
        std::os::unix::fs::symlink(tool::bao().unwrap(), programs.join("vault")).unwrap();
    }
    let path = std::env::var("PATH").unwrap();
    let output = tokio::process::Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(folder)
        .env_clear()
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("HOME", folder)
        .env("BAO_ADDR", bench.bao.address())
        .env("BAO_TOKEN", bench.bao.root_token().expose_secret())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{said}");
}

/// Reads `registries/ghcr-acme` with the section `[vault.auth]` of a part of the page.
async fn reads(bench: &Bench, folder: &Path, section: &str, rule: &str) -> String {
    let section = section.split_once("[vault.auth]\n").unwrap().1;
    let section = section.replace("/run/secrets/vault", &folder.display().to_string());
    let config = config(&bench.proxy.address, &section);
    let credential = ask(&vault_by(config, rule), None).await.unwrap();
    credential.token.expose_secret().to_owned()
}

#[tokio::test]
async fn the_page_about_vault_does_what_it_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/vault.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut parts = page.split("\n## ").skip(1);
    let mut next = |title: &str| {
        let part = parts.next().unwrap();
        assert!(part.starts_with(title), "{part}");
        part
    };
    let (bench, cluster) = (Bench::start().await, ClusterApi::start().await.unwrap());
    let issuer = Issuer::new("https://issuer.corp.lan").unwrap();
    // The bench has it already, and the page begins with nothing.
    bench.bao.request(Method::DELETE, "sys/auth/approle", None).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = |name: &str, content: &str| std::fs::write(folder.join(name), content).unwrap();
    for name in ["ghcr", "harbor", "team-a"] {
        file(&format!("{name}-pat.txt"), &format!("PAT of {name}\n"));
    }
    file("cluster-ca.pem", cluster.ca_pem());
    file("reviewer-token", cluster.reviewer().expose_secret());
    file("issuer.pem", &issuer.public_pem());
    let commands = |part: &str| {
        blocks(part, "sh").concat().replace("https://api.cluster.corp.lan:6443", &cluster.url())
    };
    let rule = "push = 'registries/ghcr-acme'";

    run(&bench, folder, &commands(next("The secrets"))).await;

    let part = next("Logging in from Kubernetes");
    run(&bench, folder, &commands(part)).await;
    let pod = ServiceAccount { namespace: "colophon", name: "colophon" };
    let volume = &blocks(part, "yaml")[1];
    assert!(volume.contains("audience: vault,") && volume.contains("path: token }"), "{volume}");
    assert!(volume.contains("serviceAccountName: colophon"), "{volume}");
    let token = cluster.token(pod, "vault", Duration::from_hours(1)).unwrap();
    file("token", token.expose_secret());
    assert_eq!(reads(&bench, folder, &blocks(part, "toml")[0], rule).await, "PAT of ghcr");
    assert_eq!(cluster.reviews(), 1);

    let part = next("Logging in with a token of another issuer");
    run(&bench, folder, &commands(part)).await;
    let claims = json!({ "sub": "release-service", "aud": "vault" });
    file("token", issuer.token(Duration::from_hours(1), claims).unwrap().expose_secret());
    assert_eq!(reads(&bench, folder, &blocks(part, "toml")[0], rule).await, "PAT of ghcr");

    let part = next("Logging in with AppRole");
    run(&bench, folder, &commands(part)).await;
    let role_id = std::fs::read_to_string(folder.join("role-id")).unwrap();
    let approle =
        blocks(part, "toml")[0].replace("9e8c2f4a-5d0b-4a51-9a55-0d2f3c6f7f10", role_id.trim_end());
    assert_eq!(reads(&bench, folder, &approle, rule).await, "PAT of ghcr");

    let part = next("Secrets elsewhere");
    run(&bench, folder, &commands(part)).await;
    let (_, policies) = part.split_once("in the role: `token_policies=").unwrap();
    let policies = policies.split_once('`').unwrap().0;
    let again = format!("vault write auth/approle/role/colophon token_policies={policies}");
    run(&bench, folder, &again).await;
    let rules: toml::Table = blocks(part, "toml")[0].parse().unwrap();
    let mut read = Vec::new();
    for registry in rules["registry"].as_array().unwrap() {
        let mut rule = registry["credentials"][0].as_table().unwrap().clone();
        // The question is about a repository of somebody else.
        rule.remove("repositories");
        let rule = toml::to_string(&rule).unwrap();
        read.push(reads(&bench, folder, &approle, &rule).await);
    }
    assert_eq!(read, ["PAT of harbor", "PAT of team-a"]);
}
