//! `colophond config`: a file is checked without anything else being there, and its schema, which is
//! part of the documentation, is the one that the program has.

use std::path::{Path, PathBuf};

use colophon_testkit::{
    launcher::{PostgresOptions, Registry, RegistryOptions, Tls, port::Port},
    pki::{Authority, fingerprint, self_signed},
    wait::binary,
};
use colophon_tests::World;
use tokio::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

async fn schema() -> String {
    let output = Command::new(binary("colophond").unwrap())
        .args(["config", "schema"])
        .env_clear()
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_schema_is_fresh() {
    let committed = std::fs::read_to_string(root().join("docs/colophon.schema.json")).unwrap();
    assert!(
        schema().await == committed,
        "write it anew: colophond config schema > docs/colophon.schema.json"
    );
}

/// What another implementation of JSON Schema says of a file.
async fn validated(file: &Path) -> (bool, String) {
    let python = root().join(".cache/venv/bin/python");
    assert!(python.is_file(), "run `make setup`: there is no {}", python.display());
    let program = "import json, sys, tomllib, jsonschema\n\
        schema = json.load(open(sys.argv[1]))\n\
        jsonschema.Draft202012Validator.check_schema(schema)\n\
        text = json.loads(json.dumps(tomllib.load(open(sys.argv[2], 'rb')), default=str))\n\
        errors = list(jsonschema.Draft202012Validator(schema).iter_errors(text))\n\
        print(*(error.json_path for error in errors))\n\
        sys.exit(bool(errors))\n";
    let output = Command::new(python)
        .args(["-c", program])
        .arg(root().join("docs/colophon.schema.json"))
        .arg(file)
        .output()
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn the_samples_follow_the_schema_and_mistakes_do_not() {
    for sample in std::fs::read_dir(root().join("docs/samples")).unwrap() {
        let sample = sample.unwrap().path();
        let (good, said) = validated(&sample).await;
        assert!(good, "{}: {said}", sample.display());
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("colophon.toml");
    for (text, path) in [
        ("[server]\nport = 1", "$.server"),
        ("[worker]\nlease = 3", "$.worker.lease"),
        ("[[registry]]\nplain_http = true", "$.registry[0]"),
        ("[[registry]]\nhost = 'a.b'\n[[registry.credentials]]\nrepos = 1", "credentials[0]"),
        (
            "[[caller]]\nname = 'a'\ntoken_sha256 = ''\n[[caller.grants]]\nactions = ['fly']\n\
          repositories = []",
            "actions[0]",
        ),
        ("[vault]\naddress = 'https://v'\nauth = { method = 'guess' }", "$.vault"),
        ("nothing = 1", "$"),
    ] {
        std::fs::write(&file, text).unwrap();
        let (good, said) = validated(&file).await;
        assert!(!good && said.contains(path), "{text}: {said}");
    }
}

#[tokio::test]
async fn a_file_is_checked_with_nothing_else_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("colophon.toml");
    let check = async |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = Command::new(binary("colophond").unwrap())
            .args([Path::new("-c"), &file, Path::new("config"), Path::new("check")])
            .env_clear()
            .output()
            .await
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // No database is named, and nothing listens where Vault should be.
    let vault =
        "[vault]\naddress = 'http://127.0.0.1:1'\nauth = { method = 'token', token_env = 'X' }";
    let (code, said) = check(vault).await;
    assert_eq!((code, said.as_str()), (Some(0), ""), "{said}");
    let (code, said) = check(
        "[[registry]]\nhost = 'ghcr.io'\nplain = 1\n[worker]\nconcurrency = 0\n\
         [[repository]]\npattern = 'quay.io/*'\n",
    )
    .await;
    assert_eq!(code, Some(1), "{said}");
    for part in [
        "line 3: registry[0]: unknown field `plain`",
        "line 5: worker.concurrency: worker.concurrency must be 1 to 512",
        "line 7: repository[0].pattern: there is no [[registry]] with host = \"quay.io\"",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn on_request_the_parts_are_looked_at() {
    let mut world = World::with_own_postgres(PostgresOptions::default()).await.unwrap();
    world.run().await.unwrap().stop().await.unwrap();
    let vault = world.vault("").await.unwrap();
    let looked = world.service(&["config", "check", "--online"]).await.unwrap();
    assert_eq!(looked.code, Some(0), "{looked:?}");
    assert!(looked.out.ends_with("database: ok\nqueue: ok\nvault: ok\n"), "{looked:?}");
    vault.bao.seal().await.unwrap();
    world.database().server().lock().await.stop().await.unwrap();
    let looked = world.service(&["config", "check", "--online"]).await.unwrap();
    assert_eq!(looked.code, Some(1), "{looked:?}");
    assert!(looked.out.contains("database: DATABASE_UNAVAILABLE"), "{looked:?}");
    assert!(looked.out.contains("vault: VAULT_SEALED"), "{looked:?}");
}

/// A registry as it comes from `docker run registry`, with or without a certificate.
async fn registry(tls: Option<Tls>) -> Registry {
    Registry::start(RegistryOptions { tls, ..RegistryOptions::default() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_dockers_insecure_registries_gets_the_least_trust_that_it_needs() {
    let authority = Authority::new("known to the system").unwrap();
    let alone = self_signed().unwrap();
    let pin = fingerprint(&alone.cert_pem).unwrap();
    let plain = registry(None).await;
    let pinned = registry(Some(alone)).await;
    let trusted = registry(Some(authority.issue().unwrap())).await;
    let nobody = Port::reserve().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let entries = serde_json::json!({
        "log-driver": "json-file",
        "insecure-registries": [
            plain.host(), format!("https://{}", pinned.host()), "10.0.0.0/8", trusted.host(),
            nobody.address(),
        ],
    });
    let daemon = file("daemon.json", entries.to_string());
    let output = Command::new(binary("colophond").unwrap())
        .args(["config", "import-docker"])
        .arg(&daemon)
        .env_clear()
        .env("SSL_CERT_FILE", file("ca.pem", authority.pem().to_owned()))
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("10.0.0.0/8: a range of addresses (CIDR)"), "{said}");
    assert!(
        said.contains(&format!("{}: the registry answers neither", nobody.address())),
        "{said}"
    );
    let sections: toml::Table = toml::from_str(&String::from_utf8(output.stdout).unwrap()).unwrap();
    let expected = format!(
        "[[registry]]\nhost = \"{}\"\nplain_http = true\n[[registry]]\nhost = \"{}\"\n\
         cert_sha256 = \"{pin}\"\n[[registry]]\nhost = \"{}\"\n",
        plain.host(),
        pinned.host(),
        trusted.host()
    );
    assert_eq!(sections, toml::from_str::<toml::Table>(&expected).unwrap());
}
