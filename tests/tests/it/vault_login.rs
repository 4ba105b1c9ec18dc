//! Logging in to Vault as a pod does, and the PATs of two teams on one host.

use std::time::Duration;

use colophon_testkit::{
    cluster::{ClusterApi, ServiceAccount},
    image::ImageSpec,
    launcher::{Bao, BaoOptions, Login},
    token_service::Allowed,
};
use colophon_tests::{SiteOptions, World};
use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::{
    release_scene::{attempts, login, pat, published, state, succeeded, text},
    vault_scene::{CountedVault, POLICY, credentials, waiting},
};

const LONG: Duration = Duration::from_mins(10);
const POD: ServiceAccount<'_> = ServiceAccount { namespace: "colophon", name: "colophon" };

/// OpenBao that lets in the service account [`POD`], and Colophon told so.
async fn vault_of_cluster(world: &mut World, cluster: &ClusterApi) -> Bao {
    let bao = Bao::start(BaoOptions::default()).await.unwrap();
    let post = async |path: &str, body: Value| {
        bao.request(Method::POST, path, Some(body)).await.unwrap();
    };
    post("sys/policies/acl/colophon", json!({ "policy": POLICY })).await;
    post("sys/auth/kubernetes", json!({ "type": "kubernetes" })).await;
    let config = json!({
        "kubernetes_host": cluster.url(), "kubernetes_ca_cert": cluster.ca_pem(),
        "token_reviewer_jwt": cluster.reviewer().expose_secret(), "disable_local_ca_jwt": true,
    });
    post("auth/kubernetes/config", config).await;
    let role = json!({
        "bound_service_account_names": POD.name,
        "bound_service_account_namespaces": POD.namespace,
        "audience": "vault", "token_policies": "colophon", "token_ttl": "1h",
    });
    post("auth/kubernetes/role/colophon", role).await;
    let file = world.folder().join("vault-token");
    world.registry_table(&format!(
        "[vault]\naddress = {:?}\npat_cache_ttl = \"100ms\"\nreread_interval = \"100ms\"\n\
         [vault.auth]\nmethod = \"kubernetes\"\nrole = \"colophon\"\naudience = \"vault\"\n\
         token_file = {:?}\n",
        bao.address(),
        file.display().to_string(),
    ));
    bao
}

async fn put_login(bao: &Bao, name: &str, login: &Login) {
    let secret = json!({ "username": login.username, "token": pat(login) });
    bao.put_secret(&format!("registries/{name}"), secret).await.unwrap();
}

#[tokio::test]
async fn a_pod_without_a_good_token_waits_and_goes_on_with_the_next_one() {
    let mut world = World::new().await.unwrap();
    let cluster = ClusterApi::start().await.unwrap();
    let bao = vault_of_cluster(&mut world, &cluster).await;
    let team = login("team");
    put_login(&bao, "target", &team).await;
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = SiteOptions::default().login(&team).settings(&credentials("target"));
    let target = world.site(target).await.unwrap();
    world.worker.push_str("max_attempts = 1\n");
    let file = world.folder().join("vault-token");
    let project = |token: &secrecy::SecretString| {
        std::fs::write(&file, token.expose_secret()).unwrap();
    };
    // The kubelet was away for too long: the token that it projected has ended.
    let ended = cluster.ended_token(POD, "vault").unwrap();
    project(&ended);
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    let image = staging.push(&ImageSpec::tiny("pod"), "app", "1").await.unwrap();
    let (source, app) = (staging.reference("app", "1"), target.repository("app"));
    let id = client.publish(&source, &[(&app, &["1"], &["latest"])]).await.unwrap();
    let seen = waiting(&client, &id, "Kubernetes login at auth/kubernetes as colophon").await;
    assert_eq!(attempts(&seen), [""; 0], "{seen:#}");

    let token = cluster.token(POD, "vault", LONG).unwrap();
    project(&token);
    // It looks again after half a minute.
    let release = client.wait_end_for(&id, Duration::from_mins(3)).await.unwrap();
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    assert_eq!(attempts(&release), [""; 0], "{release:#}");
    assert_eq!(target.inspect("app", "latest").await.unwrap(), image.digest());
    let before = cluster.reviews();

    // The login is taken away, and another token has been projected meanwhile.
    let next = cluster.token(POD, "vault", LONG).unwrap();
    project(&next);
    let path = "sys/leases/revoke-prefix/auth/kubernetes/login";
    bao.request(Method::PUT, path, None).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let release = succeeded(&client, &source, &[(&app, &["2"], &[])]).await;
    assert_eq!(attempts(&release), [""; 0], "{release:#}");
    assert_eq!(cluster.reviews(), before + 1);

    // One for somebody else is not given away.
    project(&cluster.token(POD, "https://kubernetes.default.svc", LONG).unwrap());
    bao.request(Method::PUT, path, None).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let id = client.publish(&source, &[(&app, &["3"], &[])]).await.unwrap();
    let seen = waiting(&client, &id, "not for the audience vault").await;
    assert_eq!((attempts(&seen).len(), cluster.reviews()), (0, before + 1), "{seen:#}");
    for secret in [&ended, &token, &next] {
        assert!(!node.log().contains(secret.expose_secret()));
        assert!(!format!("{seen}{release}").contains(secret.expose_secret()));
    }
}

/// The lines of a registry's table with a PAT for each team.
fn of_teams() -> String {
    ["team-a", "team-b"]
        .map(|team| {
            format!(
                "[[registry.credentials]]\nrepositories = \"{team}/*\"\n\
                 push = \"registries/{team}\"\n"
            )
        })
        .concat()
}

#[tokio::test]
async fn one_release_reads_with_the_pat_of_one_team_and_writes_with_the_pats_of_two() {
    let mut world = World::new().await.unwrap();
    let vault = CountedVault::start(&mut world, "", LONG).await;
    let (a, b) = (login("robot-a"), login("robot-b"));
    for (team, login) in [("team-a", &a), ("team-b", &b)] {
        vault.put_login(team, login).await;
    }
    let all = "pull,push";
    let site = SiteOptions::default()
        .token_login(&a, vec![Allowed::new("team-a/*", all)])
        .token_login(&b, vec![Allowed::new("team-b/*", all)])
        .settings(&of_teams());
    let site = world.site(site).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    let image = site.push(&ImageSpec::tiny("teams"), "team-a/app", "build").await.unwrap();
    let pushed = site.tokens().unwrap().requests().len();

    let (source, own, other) = (
        site.reference("team-a/app", "build"),
        site.repository("team-a/released"),
        site.repository("team-b/app"),
    );
    let release =
        succeeded(&client, &source, &[(&own, &["1"], &["latest"]), (&other, &["1"], &["latest"])])
            .await;
    assert_eq!(attempts(&release), [""; 0], "{release:#}");
    for (repository, login) in [("team-a/released", &a), ("team-b/app", &b)] {
        let peer = site.peer().unwrap().login(login.clone());
        for tag in ["1", "latest"] {
            let found = peer.digest_of(repository, tag).await.unwrap();
            assert_eq!(found.as_deref(), Some(image.digest()), "{repository}:{tag}");
        }
    }
    assert_eq!((vault.reads("team-a"), vault.reads("team-b")), (1, 1));
    // Whoever writes asks whether it may read the source as well, for a mount; it may not.
    let requests = site.tokens().unwrap().requests().split_off(pushed);
    let granted = |who: &str, what: &str| {
        requests.iter().any(|request| {
            request.username.as_deref() == Some(who)
                && request.granted.iter().any(|scope| scope.contains(what))
        })
    };
    assert!(
        granted("robot-a", "team-a/app:pull") && granted("robot-a", "team-a/released:pull,push")
    );
    assert!(granted("robot-b", "team-b/app:pull,push") && !granted("robot-b", "team-a/"));
    let asked_by_a = requests.iter().filter(|one| one.username.as_deref() == Some("robot-a"));
    assert!(asked_by_a.flat_map(|one| &one.scopes).all(|scope| !scope.contains("team-b/")));

    // What one team's PAT is good for does not help where the other's is not.
    site.tokens().unwrap().remove_login("robot-b");
    let target = site.repository("team-b/second");
    let release = published(&client, &source, &[(&target, &["2"], &[])]).await;
    assert_eq!(state(&release), "FAILED REGISTRY_UNAUTHORIZED", "{release:#}");
    assert!(text(&release, "/message").contains("username and PAT"), "{release:#}");
    for secret in [pat(&a), pat(&b)] {
        assert!(!node.log().contains(secret) && !release.to_string().contains(secret));
    }
}
