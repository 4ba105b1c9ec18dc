//! The local Docker engine, by its API (Engine API 1.41 and later): which images it has, who uses
//! one, its content, and taking a name away. Nothing here is forced, and nothing is removed by its
//! id, so that no name and no container that others rely on can go.

mod export;
mod host;
mod remove;

use std::fmt;

use bollard::{Docker, errors::Error as DockerError, models::ImageInspect};
use colophon_domain::{Digest, Repository};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub(crate) use export::open;
pub use remove::{Container, Removed, Users};

use crate::{
    choose::whole_name,
    error::{LocalError, LocalErrorKind, shown},
};

/// How much of what the engine says is shown.
const SAID: usize = 300;

/// A Docker engine of this machine.
#[derive(Debug, Clone)]
pub struct Engine {
    docker: Docker,
    address: String,
}

/// An image that the engine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalImage {
    /// What the engine calls it: the digest of its configuration, or, where the engine keeps images
    /// in containerd, that of its manifest or index.
    pub id: Digest,
    /// All of its names, as the engine has them (`myapp:latest`).
    pub tags: Vec<String>,
    /// When it was built, in seconds since 1970; `None` if it does not say.
    pub created: Option<i64>,
}

impl Engine {
    /// Connects to the engine that `host` names in the form of `DOCKER_HOST`; `None` asks that
    /// variable, and then the usual socket. Docker's contexts are not read.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use colophon_local::{LocalErrorKind, docker::Engine};
    ///
    /// let error = Engine::connect(Some("ssh://build.corp.lan")).await.unwrap_err();
    /// assert_eq!(error.kind(), LocalErrorKind::Unsupported);
    /// assert!(error.remedy_text().unwrap().contains("docker save"));
    /// # });
    /// ```
    ///
    /// # Errors
    /// If it is no engine of this machine, or does not answer.
    pub async fn connect(host: Option<&str>) -> Result<Self, LocalError> {
        let (docker, address) = host::client(host)?;
        // An old engine refuses the version that a new client begins with.
        match docker.negotiate_version().await {
            Ok(docker) => Ok(Self { docker, address }),
            Err(error) => Err(host::unreachable(&address, error)),
        }
    }

    /// The image that a name, an id or a digest stands for now.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub async fn find(&self, name: &str) -> Result<LocalImage, LocalError> {
        let found = self.docker.inspect_image(&asked(name)?).await;
        let found = found.map_err(|error| self.failed(format!("image {}", shown(name)), error))?;
        self.image(found)
    }

    /// The images that have a name in a local repository (`myapp`, `ghcr.io/acme/myapp`).
    ///
    /// # Errors
    /// If it is not the name of a repository, or the engine fails.
    pub async fn images_of(&self, repository: &str) -> Result<Vec<LocalImage>, LocalError> {
        let wanted = Repository::parse(repository)
            .map_err(|failure| LocalError::new(LocalErrorKind::Invalid, failure.explained()))?;
        let all = None::<bollard::query_parameters::ListImagesOptions>;
        let list = self.docker.list_images(all).await;
        let list = list.map_err(|error| self.failed("the list of images", error))?;
        let mut found = Vec::new();
        for summary in list {
            let tags = names(summary.repo_tags);
            let is_there = |tag: &String| {
                whole_name(tag).is_some_and(|reference| reference.repository == wanted)
            };
            if tags.iter().any(is_there) {
                let id = self.id(&summary.id)?;
                found.push(LocalImage { id, tags, created: Some(summary.created) });
            }
        }
        Ok(found)
    }

    fn image(&self, found: ImageInspect) -> Result<LocalImage, LocalError> {
        let id = self.id(found.id.as_deref().unwrap_or_default())?;
        let created = found.created.and_then(|text| OffsetDateTime::parse(&text, &Rfc3339).ok());
        Ok(LocalImage {
            id,
            tags: names(found.repo_tags.unwrap_or_default()),
            created: created.map(OffsetDateTime::unix_timestamp),
        })
    }

    fn id(&self, text: &str) -> Result<Digest, LocalError> {
        let text = if text.contains(':') { text.to_owned() } else { format!("sha256:{text}") };
        text.parse().map_err(|error| {
            self.error(LocalErrorKind::Engine, "an image has no id".to_owned()).caused_by(error)
        })
    }

    /// What the engine refused, or why it could not be asked.
    fn failed(&self, what: impl fmt::Display, error: DockerError) -> LocalError {
        let DockerError::DockerResponseServerError { status_code, message } = &error else {
            return host::unreachable(&self.address, error);
        };
        let kind = match status_code {
            404 => LocalErrorKind::NotFound,
            409 => LocalErrorKind::InUse,
            _ => LocalErrorKind::Engine,
        };
        let said: String = message.trim().chars().take(SAID).collect();
        self.error(kind, format!("{what}: {}", said.escape_debug()))
    }

    fn error(&self, kind: LocalErrorKind, what: String) -> LocalError {
        LocalError::new(kind, what).in_file(&self.address)
    }
}

/// A name as the engine is asked for it. It becomes a part of an address there, so it must be one
/// of the forms that cannot lead elsewhere.
fn asked(name: &str) -> Result<String, LocalError> {
    let whole_id = name.parse::<Digest>().is_ok() || (is_id(name) && !name.contains(':'));
    if whole_id || whole_name(name).is_some() {
        return Ok(name.to_owned());
    }
    Err(LocalError::new(LocalErrorKind::Invalid, format!("{} is no image's name", shown(name)))
        .remedy("give it as docker images shows it: name:tag, or its id"))
}

/// Whether the engine takes it for an id, which it does before it looks at names: a whole one, or
/// the beginning of one behind the name of its algorithm.
fn is_id(name: &str) -> bool {
    let whole = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole || name.starts_with("sha256:") || name.starts_with("sha512:")
}

/// The names that are some; what has lost its name is listed as `<none>`.
fn names(tags: Vec<String>) -> Vec<String> {
    tags.into_iter().filter(|tag| whole_name(tag).is_some()).collect()
}
