//! The registries that people use, as far as one can have them here: each personality of the
//! scripted registry under the name that it is known by, with logins and images.

use std::path::PathBuf;

use bytes::Bytes;
use colophon_domain::{Access, Digest, Repository};
use colophon_registry::{Manifest, Registries, RegistryConfig, Session};
use colophon_testkit::{
    launcher::Tls,
    scripted::{Personality, Place, Scripted},
    token_service::Allowed,
};

use crate::support::{Keys, LAYER, descriptor, entry, image, index, registries};

/// A login that may read the repository `src`, and one that may write to `dst`.
pub const READER: (&str, &str) = ("reader", "read_PatNeverShown");
pub const WRITER: (&str, &str) = ("writer", "write_PatNeverShown");

/// One of them, by its name.
pub type Kind = (&'static str, fn() -> Personality);

pub const HUB: Kind = ("docker.io", Personality::docker_hub);
pub const GHCR: Kind = ("ghcr.io", Personality::ghcr);
pub const ARTIFACTORY: Kind = ("artifactory.corp.lan", Personality::artifactory);
pub const HARBOR: Kind = ("harbor.corp.lan", Personality::harbor);
pub const ECR: Kind = ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", Personality::ecr);
pub const DISTRIBUTION: Kind = ("registry.example.com", Personality::distribution_v2);
pub const CORP_LAN: Kind = ("registry.corp.lan:5000", Personality::corp_lan);

pub const ALL: [Kind; 7] = [HUB, GHCR, ARTIFACTORY, HARBOR, ECR, DISTRIBUTION, CORP_LAN];

/// A running registry and its name.
pub struct Stage {
    pub fake: Scripted,
    pub host: &'static str,
    ca_file: Option<PathBuf>,
    plain: bool,
}

impl Stage {
    pub async fn of((host, personality): Kind) -> Self {
        Self::with(host, personality()).await
    }

    /// Both repositories are there; the reader may read `src`, the writer write to `dst`.
    pub async fn with(host: &'static str, personality: Personality) -> Self {
        let fake = Scripted::start(personality).await.unwrap();
        let stage = Self { fake, host, ca_file: None, plain: true };
        stage.prepared()
    }

    /// The same with TLS, trusted by a file with the CA.
    pub async fn with_tls((host, personality): Kind, tls: &Tls, ca_file: PathBuf) -> Self {
        let fake = Scripted::start_with(personality(), Some(tls)).await.unwrap();
        let stage = Self { fake, host, ca_file: Some(ca_file), plain: false };
        stage.prepared()
    }

    fn prepared(self) -> Self {
        self.fake.add_repository(&self.name("src"));
        self.fake.add_repository(&self.name("dst"));
        self.fake.login(READER.0, READER.1, vec![Allowed::new(&self.name("src"), "pull")]);
        self.fake.login(WRITER.0, WRITER.1, vec![Allowed::new(&self.name("dst"), "pull,push")]);
        self
    }

    /// The name of a repository; Artifactory's begin with the key of a repository of its own.
    pub fn name(&self, short: &str) -> String {
        let key = if self.host.starts_with("artifactory") { "docker-local/" } else { "" };
        format!("{key}{short}/app")
    }

    pub fn repository(&self, short: &str) -> Repository {
        Repository::parse(&format!("{}/{}", self.host, self.name(short))).unwrap()
    }

    pub fn config(&self) -> RegistryConfig {
        let realm = self.fake.realm();
        RegistryConfig {
            endpoint: Some(self.fake.host()),
            plain_http: self.plain,
            ca_file: self.ca_file.clone(),
            token_realms: if realm == self.fake.host() { Vec::new() } else { vec![realm] },
            ..RegistryConfig::new(self.host.parse().unwrap())
        }
    }

    /// Each repository's own credential.
    pub fn keys(&self) -> std::sync::Arc<Keys> {
        Keys::none().and(&format!("{} pull", self.name("src")), READER.0, READER.1).and(
            &format!("{} push", self.name("dst")),
            WRITER.0,
            WRITER.1,
        )
    }

    /// A session that reads `src`, with its credential.
    pub fn reads(&self) -> Session {
        registries([self.config()], self.keys())
            .session(&self.repository("src"), Access::Pull)
            .unwrap()
    }

    /// A session that writes to `dst`, with its credential.
    pub fn writes(&self) -> Session {
        registries([self.config()], self.keys())
            .session(&self.repository("dst"), Access::Push)
            .unwrap()
    }

    /// An index of two platforms with a layer that both have, under the tag `v1`.
    pub fn publish(&self, short: &str) -> Manifest {
        publish(&self.fake, &self.name(short))
    }

    /// Whether everything below an index is at a repository, byte for byte.
    pub fn holds(&self, short: &str, root: &Manifest, source: (&Scripted, &str)) {
        let name = self.name(short);
        let found = self.fake.manifest(&name, root.digest.as_str()).unwrap();
        assert_eq!((found.bytes, found.media_type), (root.bytes.clone(), root.media_type.clone()));
        let body: serde_json::Value = serde_json::from_slice(&root.bytes).unwrap();
        for child in body["manifests"].as_array().unwrap() {
            let digest = child["digest"].as_str().unwrap();
            let there = source.0.manifest(source.1, digest).unwrap();
            assert_eq!(self.fake.manifest(&name, digest).as_ref(), Some(&there), "{}", self.host);
            let image: serde_json::Value = serde_json::from_slice(&there.bytes).unwrap();
            let layers = image["layers"].as_array().unwrap();
            for blob in layers.iter().chain([&image["config"]]) {
                let digest = blob["digest"].as_str().unwrap();
                let there = source.0.blob(source.1, digest).unwrap();
                assert_eq!(self.fake.blob(&name, digest), Some(there), "{}", self.host);
            }
        }
    }

    /// Each host was shown what it is for: the storage nothing, the realm these logins, the
    /// registry these logins or tokens of its own, and with tokens never a login.
    pub fn was_shown_only(&self, logins: &[(&str, &str)]) {
        let logins: Vec<String> = logins.iter().map(|login| basic(*login)).collect();
        for seen in self.fake.seen() {
            let shown = seen.authorization();
            let token = shown.starts_with("Bearer ");
            let tokens = self.fake.token_requests().iter().any(|request| request.status == 200);
            let good = match seen.place {
                Place::Storage => false,
                Place::Realm => logins.iter().any(|login| login == shown),
                Place::Registry if seen.path == "/token" || !tokens => {
                    logins.iter().any(|login| login == shown)
                }
                Place::Registry => token,
            };
            assert!(good || shown.is_empty(), "{} {:?} {}", self.host, seen.place, seen.path);
        }
    }
}

pub fn basic((username, secret): (&str, &str)) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    format!("Basic {}", STANDARD.encode(format!("{username}:{secret}")))
}

/// Two stages' sessions, from `src` of one to `dst` of the other.
pub fn between(source: &Stage, target: &Stage) -> (Registries, Session, Session) {
    let keys = Keys::none().and(&format!("{} pull", source.name("src")), READER.0, READER.1).and(
        &format!("{} push", target.name("dst")),
        WRITER.0,
        WRITER.1,
    );
    let all = registries([source.config(), target.config()], keys);
    let from = all.session(&source.repository("src"), Access::Pull).unwrap();
    let to = all.session(&target.repository("dst"), Access::Push).unwrap();
    (all, from, to)
}

/// An index of two platforms with a layer that both have, under the tag `v1`.
pub fn publish(fake: &Scripted, name: &str) -> Manifest {
    let blob = |kind: &str, bytes: Vec<u8>| {
        let size = bytes.len();
        let digest: Digest = fake.add_blob(name, Bytes::from(bytes)).parse().unwrap();
        descriptor(kind, &digest, size)
    };
    let shared = blob(LAYER, vec![7; 200_000]);
    let platforms = ["amd64", "arm64"].map(|platform| {
        let config = blob("application/vnd.oci.image.config.v1+json", platform.into());
        let own = blob(LAYER, platform.repeat(10_000).into());
        let child = image(&[config, shared.clone(), own]);
        let (kind, bytes) = (&child.media_type, child.bytes.clone());
        fake.add_manifest(name, child.digest.as_str(), kind, bytes);
        let mut entry = entry(&child);
        entry["platform"] = serde_json::json!({ "os": "linux", "architecture": platform });
        entry
    });
    let root = index(&platforms);
    fake.add_manifest(name, "v1", &root.media_type, root.bytes.clone());
    root
}
