//! The documentation, held against what it is about: every reason, key and dependency is there,
//! the samples are read by the real program, and the commands of the API's page are run.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Stdio,
};

use colophon_domain::Reason;
use colophon_testkit::{image::ImageSpec, pki::Authority, wait::binary};
use colophon_tests::{SiteOptions, World};
use secrecy::ExposeSecret as _;
use tokio::process::Command;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub fn page(name: &str) -> String {
    let path = root().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cells of a page's tables, row by row, without the marks of code.
fn rows(text: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
        Some(inner.split(" | ").map(|cell| cell.trim_matches('`').to_owned()).collect())
    };
    text.lines().filter_map(cells).collect()
}

/// The fenced blocks of one language, in order.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(&format!("```{language}\n")) {
        let (block, behind) = after.split_once("```").unwrap();
        blocks.push(block.to_owned());
        rest = behind;
    }
    blocks
}

#[test]
fn every_reason_is_explained_with_its_status_and_code() {
    let text = page("docs/errors.md");
    let reasons: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    let rows: Vec<Vec<String>> = rows(&text).into_iter().filter(|row| row[0] != "reason").collect();
    let explained: BTreeSet<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(explained, reasons);
    assert_eq!(rows.len(), reasons.len(), "a reason is explained twice");
    for row in &rows {
        let kind = Reason::parse(&row[0]).unwrap().kind();
        let answer = colophon_server::row(kind);
        assert_eq!(row[1], answer.status.as_str(), "{}", row[0]);
        let code = format!("{:?}", answer.code).to_uppercase();
        assert_eq!(row[2].replace('_', ""), code, "{}", row[0]);
    }
}

#[test]
fn every_dependency_earns_its_place() {
    let manifest: toml::Table = page("Cargo.toml").parse().unwrap();
    let named = manifest["workspace"]["dependencies"].as_table().unwrap();
    let named: BTreeSet<&str> =
        named.keys().map(String::as_str).filter(|name| !name.starts_with("colophon")).collect();
    let rows = rows(&page("docs/dependencies.md"));
    let earned: BTreeSet<&str> =
        rows.iter().map(|row| row[0].as_str()).filter(|name| *name != "crate").collect();
    assert_eq!(earned, named);
    let members = manifest["workspace"]["members"].as_array().unwrap();
    let mut used = BTreeSet::new();
    for member in members {
        let manifest = page(&format!("{}/Cargo.toml", member.as_str().unwrap()));
        let manifest: toml::Table = manifest.parse().unwrap();
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            used.extend(
                manifest
                    .get(kind)
                    .and_then(toml::Value::as_table)
                    .into_iter()
                    .flat_map(|table| table.keys().cloned()),
            );
        }
    }
    let idle: Vec<&&str> = named.iter().filter(|name| !used.contains(**name)).collect();
    assert!(idle.is_empty(), "nobody uses {idle:?}");
}

#[test]
fn links_and_named_files_lead_somewhere() {
    let fixed = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "helm/colophon/README.md"];
    let mut pages = fixed.map(str::to_owned).to_vec();
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name).extension().is_some_and(|kind| kind == "md") {
            pages.push(format!("docs/{name}"));
        }
    }
    let mut broken = Vec::new();
    for name in pages {
        let (text, path) = (page(&name), root().join(&name));
        let folder = path.parent().unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let file = link.split('#').next().unwrap_or_default();
            if !folder.join(file).exists() {
                broken.push(format!("{name}: {link}"));
            }
        }
        // Code of one line that looks like a file of ours.
        for code in text.split('`').skip(1).step_by(2) {
            let file = ["services/", "tests/", "docs/", "proto/", "migrations/"]
                .iter()
                .any(|top| code.starts_with(top));
            if file && !code.contains(['*', ' ', '\n', '{']) && !root().join(code).exists() {
                broken.push(format!("{name}: `{code}`"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Runs `colophond config check` and returns whether the file is good, and what was said.
async fn check(folder: &Path, config: &str) -> (bool, String) {
    let file = folder.join("colophon.toml");
    std::fs::write(&file, config).unwrap();
    let output = Command::new(binary("colophond").unwrap())
        .args([Path::new("-c"), &file, Path::new("config"), Path::new("check")])
        .env_clear()
        .env("VAULT_TOKEN", "hvs.sample")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn the_tables_of_the_registries_page_are_good() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("corp").unwrap();
    let ca = folder.path().join("corp-ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let vault = "[vault]\naddress = \"https://vault.corp.lan\"\n\
                 auth = { method = \"token\", token_env = \"VAULT_TOKEN\" }\n";
    let tables = blocks(&page("docs/registries.md"), "toml");
    assert!(tables.len() > 5, "{}", tables.len());
    let config = format!("{vault}{}", tables.concat());
    let config = config.replace("/etc/colophon/corp-ca.pem", &ca.display().to_string());
    let (good, said) = check(folder.path(), &config).await;
    assert!(good, "{said}");
}

/// The keys that the program names when it is given one that nobody knows.
async fn known_keys(folder: &Path, config: &str) -> BTreeSet<String> {
    let (good, said) = check(folder, &format!("{config}\nbogus = 1\n")).await;
    assert!(!good && said.contains("unknown field `bogus`, expected"), "{config}: {said}");
    let (_, list) = said.split_once("expected").unwrap();
    let line = list.lines().next().unwrap_or_default();
    line.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_key_of_the_configuration_is_described() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut described: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in page("docs/configuration.md").lines() {
        if let Some(title) = line.strip_prefix("## `").or_else(|| line.strip_prefix("### `")) {
            title.trim_end_matches('`').clone_into(&mut section);
            described.entry(section.clone()).or_default();
        } else if let [row] = rows(line).as_slice()
            && row[0] != "key"
            && !section.is_empty()
        {
            described.entry(section.clone()).or_default().insert(row[0].clone());
        }
    }
    let vault = "[vault]\naddress = \"https://vault.corp.lan\"\n[vault.auth]\nmethod = ";
    let questions = [
        ("[server]", "[server]".to_owned()),
        ("[server.limits]", "[server.limits]".to_owned()),
        ("[server.connections]", "[server.connections]".to_owned()),
        ("[database]", "[database]".to_owned()),
        ("[vault]", "[vault]".to_owned()),
        ("[vault.auth]", format!("{vault}\"approle\"")),
        ("[vault.auth]", format!("{vault}\"token\"")),
        ("[vault.auth]", format!("{vault}\"kubernetes\"")),
        ("[vault.auth]", format!("{vault}\"jwt\"")),
        ("[[registry]]", "[[registry]]\nhost = \"ghcr.io\"".to_owned()),
        (
            "[[registry.credentials]]",
            "[[registry]]\nhost = \"ghcr.io\"\n[[registry.credentials]]".to_owned(),
        ),
        ("[[repository]]", "[[repository]]".to_owned()),
        ("[repository.retention]", "[[repository]]\n[repository.retention]".to_owned()),
        ("[[caller]]", "[[caller]]".to_owned()),
        ("[[caller.grants]]", "[[caller]]\n[[caller.grants]]".to_owned()),
        ("[worker]", "[worker]".to_owned()),
        ("[retention]", "[retention]".to_owned()),
        ("[upload]", "[upload]".to_owned()),
        ("[reload]", "[reload]".to_owned()),
        ("[log]", "[log]".to_owned()),
        ("[telemetry]", "[telemetry]".to_owned()),
    ];
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (section, config) in questions {
        known.entry(section.to_owned()).or_default().extend(known_keys(folder, &config).await);
    }
    // Sections are keys too, but have tables of their own on the page; the service's floors read
    // these two by other means than the rest of their tables.
    known.get_mut("[server]").unwrap().retain(|key| key != "limits" && key != "connections");
    known.get_mut("[vault.auth]").unwrap().insert("method".to_owned());
    known.get_mut("[[registry]]").unwrap().insert("credentials".to_owned());
    assert_eq!(described, known);
    let sections: BTreeSet<String> = known
        .keys()
        .map(|title| title.trim_matches(['[', ']']).to_owned())
        .filter(|title| !title.contains('.'))
        .collect();
    assert_eq!(sections, known_keys(folder, "").await);
}

#[tokio::test]
async fn a_value_that_is_wrong_is_named_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let vault = "[database]\nurl = \"postgres://db/c\"\n[vault]\naddress = \"https://v\"\n";
    let jwt = "[vault.auth]\nmethod = \"jwt\"\nrole = \"r\"\ntoken_file = \"/t\"";
    for (config, key) in [
        (format!("{vault}pat_cache_ttl = \"1h\"\n{jwt}"), ": vault.pat_cache_ttl: "),
        (format!("{vault}client_key_file = \"k\"\n{jwt}"), ": vault.client_cert_file: "),
        (format!("{vault}kv_version = 3\n{jwt}"), "kv_version is 1 or 2"),
        (format!("{vault}{jwt}\naudience = \"\""), ": vault.auth.audience: "),
        (format!("{vault}{jwt}\nrole_id = \"r\""), "unknown field `role_id`"),
        (format!("{vault}[vault.auth]\nmethod = \"jwt\""), "missing field `role`"),
    ] {
        let (good, said) = check(folder.path(), &config).await;
        assert!(!good && said.contains(key), "{config}: {said}");
    }
}

#[tokio::test]
async fn the_sample_configurations_are_good() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let authority = Authority::new("sample CA").unwrap();
    std::fs::write(folder.join("corp-ca.pem"), authority.pem()).unwrap();
    std::fs::write(folder.join("database-url"), "postgres://colophon@db.corp.lan/colophon\n")
        .unwrap();
    let samples = std::fs::read_dir(root().join("docs/samples")).unwrap();
    for sample in samples {
        let sample = sample.unwrap().path();
        let place = folder.display().to_string();
        let text = std::fs::read_to_string(&sample)
            .unwrap()
            .replace("/etc/colophon", &place)
            .replace("/run/secrets", &place);
        let (good, said) = check(folder, &text).await;
        assert!(good, "{}: {said}", sample.display());
    }
}

#[tokio::test]
async fn the_commands_of_the_api_page_do_what_it_says() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::default()).await.unwrap();
    let node = world.run().await.unwrap();
    staging.push(&ImageSpec::tiny("docs"), "acme/app", "build-4711").await.unwrap();
    staging.push(&ImageSpec::tiny("mended"), "acme/app", "build-4712").await.unwrap();
    let text = page("docs/api.md")
        .replace("registry.corp.lan:5000", &staging.host())
        .replace("ghcr.io", &target.host());
    let folder = world.folder().join("docs");
    std::fs::create_dir(&folder).unwrap();
    let run = async |program: &Path, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(&folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PYTHONPATH", &folder)
            .env("COLOPHON_SERVER", format!("http://{}", node.address()))
            .env("COLOPHON_TOKEN", world.token().expose_secret())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {out}{err}", output.status);
        out
    };

    let script = blocks(&text, "sh").join("\n");
    let said = run(Path::new("bash"), &["-euo", "pipefail", "-c", &script]).await;
    let lines: Vec<&str> = said.lines().collect();
    let id = lines[0];
    assert!(matches!(lines[1], "RELEASE_STATE_QUEUED" | "RELEASE_STATE_RUNNING"), "{said}");
    let digest = lines[2];
    assert_eq!(lines[3], "RELEASE_STATE_SUCCEEDED", "{said}");
    for (line, tag) in lines[4..7].iter().zip(["1.4.2", "1.4", "latest"]) {
        assert_eq!(*line, format!("{tag} TAG_MOVE_STATE_MOVED"), "{said}");
    }
    assert_eq!(lines[7], id, "the release is in the list: {said}");
    assert_eq!(lines[8..10], [digest, "CERTAINTY_LAST_OBSERVED"], "{said}");
    assert_eq!(lines[10], "CERTAINTY_UNKNOWN", "{said}");
    let history = format!(" confirmed  -> {digest} ci: weekly release");
    assert!(lines[12].ends_with(&history), "{said}");
    assert_eq!(lines[13], lines[14], "the leaf hash is that of the body: {said}");
    let rest = [
        &["409", "NOT_CANCELLABLE"][..],
        &["event: release", "204", "409", "NOT_RETRYABLE"],
        &["true"],
        &["1.4.3 TAG_MOVE_STATE_MOVED", "1.4 TAG_MOVE_STATE_MOVED"],
        &["1 TAG_MOVE_STATE_MOVED", "latest TAG_MOVE_STATE_MOVED"],
        &["RELEASE_STATE_SUCCEEDED", "true 0", "edge TAG_MOVE_STATE_MOVED"],
        &["rollback", "RELEASE_STATE_SUCCEEDED", digest],
        &["holidays true", "false", "ci", "409", "NOT_UNKNOWN"],
    ];
    assert_eq!(lines[15..], rest.concat(), "{said}");

    let python = root().join(".cache/venv/bin/python");
    assert!(python.is_file(), "run `make setup`: there is no {}", python.display());
    let protos = root().join("proto").display().to_string();
    let here = folder.display().to_string();
    let (python_out, grpc_out) =
        (format!("--python_out={here}"), format!("--grpc_python_out={here}"));
    let compile = ["-m", "grpc_tools.protoc", "-I", protos.as_str(), &python_out, &grpc_out];
    let protos = [
        "colophon/v1/plan.proto",
        "colophon/v1/release.proto",
        "colophon/v1/tag_move.proto",
        "colophon/v1/watch.proto",
        "buf/validate/validate.proto",
        "google/api/annotations.proto",
    ];
    run(&python, &[&compile[..], &protos].concat()).await;
    let program = blocks(&text, "python").concat();
    let said = run(&python, &["-c", &program]).await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "the release, the one that was planned and the rollback: {said}");
    assert_eq!(lines[2], format!("{id} RELEASE_STATE_SUCCEEDED"));
}
