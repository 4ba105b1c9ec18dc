//! PATs, tokens and keys are nowhere to be found: not in logs at their most talkative, not in
//! the database, not in arguments or environments of processes, not in answers or errors.

use std::path::Path;

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use colophon_testkit::{
    collector::Collector,
    image::ImageSpec,
    launcher::Login,
    secrets::Secrets,
    token_service::{Allowed, TokenOptions, TokenService},
};
use colophon_tests::{CliOutput, Client, Node, SiteOptions, World};
use futures_util::future::join_all;
use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    release_scene::{login, pat, published, state, succeeded, text},
    secrets_echo::Echo,
    telemetry_metrics,
    vault_scene::CountedVault,
};

/// What every bearer token of the token service begins with: `{"typ":"JWT","alg":"ES256"`.
const JWT: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOi";

/// What the collector lets Colophon in by.
const COLLECTOR_KEY: &str = "otlp-key-7d1f2c90ab";

/// Everything that was written or answered, and is searched in the end.
struct Heard(Vec<(String, String)>);

impl Heard {
    fn add(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.0.push((place.into(), text.into()));
    }

    fn cli(&mut self, output: &CliOutput) {
        self.add("the client", format!("{}\n{}", output.out, output.err));
    }
}

/// Whether a text holds what looks like a token of OpenBao's: `s.` and 24 letters and digits.
fn has_vault_token(text: &str) -> bool {
    text.match_indices("s.").any(|(at, _)| {
        let rest = &text.as_bytes()[at + 2..];
        let before = at.checked_sub(1).map(|at| text.as_bytes()[at]);
        rest.len() >= 24
            && rest[..24].iter().all(u8::is_ascii_alphanumeric)
            && rest[..24].iter().any(u8::is_ascii_digit)
            && rest[..24].iter().any(u8::is_ascii_uppercase)
            && before.is_none_or(|byte| !byte.is_ascii_alphanumeric())
    })
}

/// The whole database as `pg_dump` writes it.
async fn dump(world: &World) -> Result<String> {
    let output = Command::new("pg_dump").arg(world.database().url()).output().await?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).context("a dump that is no text")
}

/// The client with its log at its most talkative, and its token in a file.
async fn cli(world: &World, node: &Node, arguments: &[&str]) -> CliOutput {
    let file = world.folder().join("caller-token");
    std::fs::write(&file, world.token().expose_secret()).unwrap();
    let mut command = world.cli_command(node).unwrap();
    command.env_remove("COLOPHON_TOKEN").env("RUST_LOG", "trace");
    command.arg("--token-file").arg(file).args(arguments);
    let output = command.output().await.unwrap();
    CliOutput {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Asks for a release from and to each repository, which nobody can fulfil: the first is refused
/// in the call, the other fails in the worker. Returns all that was answered.
async fn provoke(client: &Client, source: &str, targets: Vec<String>) -> Heard {
    let one = async |target: String| {
        let request = |source: &str| {
            let target = json!({ "repository": target, "uniqueTags": ["1"] });
            json!({ "source": source, "targets": [target] })
        };
        let refused = client.create(&request(&format!("{target}:1"))).await.unwrap();
        assert!(!refused.status.is_success(), "{target}: {:#}", refused.body);
        let accepted = client.create(&request(source)).await.unwrap().good().unwrap();
        let failed = client.wait_end(text(&accepted, "/id")).await.unwrap();
        assert_ne!(state(&failed), "SUCCEEDED", "{failed:#}");
        (target, format!("{}\n{failed}", refused.body))
    };
    Heard(join_all(targets.into_iter().map(one)).await)
}

#[tokio::test]
async fn no_secret_is_found_anywhere() {
    let mut world = World::new().await.unwrap();
    world.environment = vec![("RUST_LOG".to_owned(), "trace".to_owned())];
    world.worker.push_str("max_attempts = 2\n");
    // The collector's own key is a secret, too, and everything that is exported is searched.
    let collector = Collector::start(Some(("x-key", COLLECTOR_KEY))).await.unwrap();
    let keys = world.folder().join("otlp-headers");
    std::fs::write(&keys, format!("X-Key: {COLLECTOR_KEY}\n")).unwrap();
    world.telemetry = format!(
        "otlp_endpoint = {:?}\notlp_headers_file = {:?}\nmetrics_interval = \"1s\"\n\
         prometheus_listen = \"127.0.0.1:0\"\n",
        collector.endpoint(),
        keys.display().to_string(),
    );
    let ttl = std::time::Duration::from_mins(10);
    let settings = "pat_cache_ttl = \"1s\"\nreread_interval = \"100ms\"";
    let vault = CountedVault::start(&mut world, settings, ttl).await;
    let (good, wrong) = (login("team"), login("team"));
    vault.put_login("good", &good).await;
    vault.put_login("wrong", &wrong).await;
    let rules = "[[registry.credentials]]\nrepositories = \"*\"\npush = \"registries/good\"\n\
                 [[registry.credentials]]\nrepositories = \"wrong/*\"\npush = \"registries/wrong\"";
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let basic = world.site(SiteOptions::default().login(&good).settings(rules)).await.unwrap();
    let bearer = SiteOptions::default()
        .token_login(&good, vec![Allowed::new("*", "pull,push")])
        .settings(rules);
    let bearer = world.site(bearer).await.unwrap();
    let realm = TokenService::start(TokenOptions::default()).await.unwrap();
    realm.set_login("team", pat(&good), vec![Allowed::new("*", "pull,push")]);
    let echoes = [
        Echo::start("Basic realm=\"careless\"").await,
        Echo::start(&format!("Bearer realm=\"{}\",service=\"careless\"", realm.realm())).await,
    ];
    for echo in &echoes {
        world.registry_table(&format!(
            "[[registry]]\nhost = {:?}\nplain_http = true\ntoken_realms = [{:?}]\n\
             [[registry.credentials]]\npush = \"registries/good\"\n",
            echo.host(),
            realm.host(),
        ));
    }
    let (api, worker) = (world.serve().await.unwrap(), world.work().await.unwrap());
    let client = world.client(&api).unwrap();
    let mut heard = Heard(Vec::new());

    // What works, with the service's and the client's logs at their most talkative.
    staging.push(&ImageSpec::new("secrets"), "app", "1").await.unwrap();
    let source = staging.reference("app", "1");
    let (first, second) = (basic.repository("app"), bearer.repository("app"));
    let line = ["publish", &source, "--to", &first, "--tag", "1", "--to", &second, "--float", "l"];
    let output = cli(&world, &api, &line).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    heard.cli(&output);
    succeeded(&client, &bearer.reference("app", "l"), &[(&first, &["2"], &[])]).await;

    // What does not: wrong PATs, and registries that repeat what they were sent.
    for site in [&basic, &bearer] {
        let target = site.repository("wrong/app");
        let release = published(&client, &source, &[(&target, &["1"], &[])]).await;
        assert_eq!(state(&release), "FAILED REGISTRY_UNAUTHORIZED", "{release:#}");
        heard.add("a wrong PAT", release.to_string());
        let line = ["publish", &format!("{target}:1"), "--to", &target, "--tag", "1"];
        let output = cli(&world, &api, &line).await;
        assert_eq!(output.code, Some(10), "{output:?}");
        heard.cli(&output);
    }
    let forms = [400, 401, 403, 404, 405, 409, 412, 500, 503, 301, 307, 200, 201, 202];
    let name = |status: &i32| [format!("e{status}/app"), format!("e{status}-text/app")];
    let names: Vec<String> = forms.iter().flat_map(name).collect();
    let careless = |echo: &Echo| {
        let host = echo.host().to_owned();
        names.iter().map(move |name| format!("{host}/{name}")).collect::<Vec<_>>()
    };
    let careless: Vec<String> = echoes.iter().flat_map(careless).collect();
    heard.0.extend(provoke(&client, &source, careless).await.0);
    for path in ["/v1/releases", "/v1/tag-moves"] {
        heard.add(path, client.get(path, &[("page_size", "200")]).await.unwrap().to_string());
    }
    let wrong_token = call_with(&client, "clp_wrong_token_0123456789").await;
    heard.add("a wrong token", wrong_token.to_string());
    vault.bao.seal().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    provoke_sealed(&mut heard, &client, &first).await;

    for node in [&api, &worker] {
        heard.add(node.log_path().display().to_string(), node.log());
    }
    let log = worker.log() + &api.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log is not talkative");
    assert!(!log.contains("panicked"), "{log}");
    heard.add("pg_dump", dump(&world).await.unwrap());

    let mut secrets: Vec<String> = vec![
        pat(&good).to_owned(),
        pat(&wrong).to_owned(),
        vault.role.secret_id.expose_secret().to_owned(),
        vault.bao.root_token().expose_secret().to_owned(),
        world.token().expose_secret().to_owned(),
        "clp_wrong_token_0123456789".to_owned(),
        JWT.to_owned(),
        COLLECTOR_KEY.to_owned(),
    ];
    for echo in &echoes {
        let shown = echo.shown();
        assert!(!shown.is_empty(), "the careless registry was shown nothing");
        secrets.extend(shown);
    }
    search(&secrets, &heard, &[&good, &wrong]);
    nowhere_in_processes(&secrets);
    let own_files = ["serve-1", "work-2"].map(|name| world.folder().join(name));
    let own_files: Vec<&Path> = own_files.iter().map(std::path::PathBuf::as_path).collect();
    let references: Vec<&str> = secrets.iter().map(String::as_str).collect();
    assert_eq!(Secrets::new(&references).search(&own_files).unwrap(), vec![]);
    search(&secrets, &exported(&collector, [api, worker]).await, &[&good, &wrong]);
}

/// What was exported; the processes end, and send what is left.
async fn exported(collector: &Collector, nodes: [Node; 2]) -> Heard {
    let mut heard = Heard(Vec::new());
    for mut node in nodes {
        heard.add("/metrics", telemetry_metrics::page(&node).await);
        node.stop().await.unwrap();
    }
    let text = collector.everything();
    for own in ["vault.secret.read", "registry.token.fetch", "registry.blob.upload", "colophon.job"]
    {
        assert!(text.contains(own), "{own} was not exported");
    }
    // Libraries have spans of their own, which show requests.
    for foreign in ["hyper", "reqwest", "rustify", "h2::", "FramedRead", "Connection {"] {
        assert!(!text.contains(foreign), "a library's span was exported: {foreign}");
    }
    heard.add("the collector", text);
    heard
}

/// Finds none of the secrets in anything that was heard; but does find each where it is.
fn search(secrets: &[String], heard: &Heard, logins: &[&Login]) {
    let references: Vec<&str> = secrets.iter().map(String::as_str).collect();
    let needles = Secrets::new(&references);
    for secret in secrets {
        assert!(needles.in_text(format!("<{secret}>").as_bytes()), "the search is blind");
    }
    for Login { username, password } in logins {
        let pair = STANDARD.encode(format!("{username}:{}", password.expose_secret()));
        assert!(needles.in_text(pair.as_bytes()), "the search is blind");
    }
    assert!(has_vault_token("token=s.AbCdEfGh12345678IjKlMnOp;"), "the search is blind");
    for (place, text) in &heard.0 {
        assert!(!text.is_empty(), "nothing was heard of {place}");
        for secret in secrets {
            let one = Secrets::new(&[secret]);
            if let Some(line) = text.lines().find(|line| one.in_text(line.as_bytes())) {
                panic!("{place} shows a secret ({secret}): {line}");
            }
        }
        if let Some(line) = text.lines().find(|line| has_vault_token(line)) {
            panic!("{place} shows a token of Vault: {line}");
        }
    }
}

/// Looks at the arguments and the environment of every process, this test's own excepted.
fn nowhere_in_processes(secrets: &[String]) {
    let references: Vec<&str> = secrets.iter().map(String::as_str).collect();
    let hits = Secrets::new(&references).search_processes().unwrap();
    let own = format!("/proc/{}/", std::process::id());
    let hits: Vec<_> = hits.into_iter().filter(|hit| !hit.place.starts_with(&own)).collect();
    assert_eq!(hits, vec![]);
}

async fn call_with(client: &Client, token: &str) -> Value {
    let url = format!("{}/v1/releases", client.url());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http.get(url).bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    answer.json().await.unwrap()
}

async fn provoke_sealed(heard: &mut Heard, client: &Client, repository: &str) {
    let request = json!({
        "source": format!("{repository}:1"),
        "targets": [{ "repository": repository, "uniqueTags": ["9"] }],
    });
    let answer = client.call(Method::POST, "/v1/releases", &[], Some(&request)).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text("/reason")), (503, "VAULT_SEALED"));
    heard.add("a sealed Vault", answer.body.to_string());
}

#[tokio::test]
async fn a_token_of_vault_has_the_form_that_is_searched_for() {
    let mut world = World::new().await.unwrap();
    let ttl = std::time::Duration::from_mins(1);
    let vault = CountedVault::start(&mut world, "", ttl).await;
    let body = json!({
        "role_id": vault.role.role_id, "secret_id": vault.role.secret_id.expose_secret(),
    });
    let login = vault.bao.request(Method::POST, "auth/approle/login", Some(body)).await.unwrap();
    assert!(has_vault_token(&format!("={}", text(&login, "/auth/client_token"))), "{login}");
}
