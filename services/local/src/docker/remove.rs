//! Taking a local name away, as `docker rmi NAME` does, and who would miss the image.

use std::collections::{BTreeMap, HashMap};

use bollard::{
    models::ContainerSummary,
    query_parameters::{ListContainersOptionsBuilder, RemoveImageOptionsBuilder},
};
use colophon_domain::TagOrDigest;

use super::{Engine, LocalImage, is_id, names};
use crate::{
    choose::whole_name,
    error::{LocalError, LocalErrorKind, shown},
};

/// Who has an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users {
    /// All of its names now.
    pub tags: Vec<String>,
    /// Containers that were made from it, or from an image that was built on it, in any state.
    pub containers: Vec<Container>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id, 64 hexadecimal characters.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `running`, `exited` and so on.
    pub state: String,
}

/// What the engine did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged(String),
    /// A layer or the image itself is gone.
    Deleted(String),
}

impl Engine {
    /// Who has an image now.
    ///
    /// # Errors
    /// `NotFound` if it is gone.
    pub async fn users(&self, image: &LocalImage) -> Result<Users, LocalError> {
        let now = self.docker.inspect_image(image.id.as_str()).await;
        let now = now.map_err(|error| self.failed(format!("image {}", image.id), error))?;
        // The engine's own filter misses containers that only share its layers, and a comparison
        // of ids those of images that were built on it.
        let all = self.containers(HashMap::new()).await?;
        let of_it = HashMap::from([("ancestor".to_owned(), vec![image.id.to_string()])]);
        let ancestors = self.containers(of_it).await?;
        let same = |container: &ContainerSummary| {
            [&container.image_id, &container.image]
                .iter()
                .any(|id| id.as_deref() == Some(image.id.as_str()))
        };
        let found = all.into_iter().filter(same).chain(ancestors);
        let by_id: BTreeMap<String, Container> =
            found.map(container).map(|it| (it.id.clone(), it)).collect();
        let tags = names(now.repo_tags.unwrap_or_default());
        Ok(Users { tags, containers: by_id.into_values().collect() })
    }

    async fn containers(
        &self,
        filters: HashMap<String, Vec<String>>,
    ) -> Result<Vec<ContainerSummary>, LocalError> {
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let list = self.docker.list_containers(Some(options)).await;
        list.map_err(|error| self.failed("the list of containers", error))
    }

    /// Takes a name away, never by force. Its image goes, too, if it has no other name.
    ///
    /// # Errors
    /// `InUse` if the engine keeps the image because something uses it, and `Invalid` for what is
    /// no name, such as an id.
    pub async fn untag(&self, name: &str) -> Result<Vec<Removed>, LocalError> {
        let tag = whole_name(name).map(|whole| whole.target);
        if is_id(name) || !matches!(tag, Some(TagOrDigest::Tag(_))) {
            let text = format!("{} is no name with a tag", shown(name));
            return Err(LocalError::new(LocalErrorKind::Invalid, text)
                .remedy("images are not removed by their ids"));
        }
        // With its tag a name cannot be taken for the beginning of an id.
        let has_tag = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
        let name = if has_tag { name.to_owned() } else { format!("{name}:latest") };
        let options = RemoveImageOptionsBuilder::new().force(false).noprune(false).build();
        let done = self.docker.remove_image(&name, Some(options), None).await;
        let done =
            done.map_err(|error| self.failed(format!("removing {}", shown(&name)), error))?;
        let removed = done.into_iter().flat_map(|item| {
            [item.untagged.map(Removed::Untagged), item.deleted.map(Removed::Deleted)]
        });
        Ok(removed.flatten().collect())
    }
}

fn container(summary: ContainerSummary) -> Container {
    let name = summary.names.unwrap_or_default().into_iter().next().unwrap_or_default();
    Container {
        id: summary.id.unwrap_or_default(),
        name: name.trim_start_matches('/').to_owned(),
        state: summary.state.map(|state| state.to_string()).unwrap_or_default(),
    }
}
