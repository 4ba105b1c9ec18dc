//! `UploadService.StartUpload`.

use colophon_api::v1;
use colophon_domain::{Action, Failure, NewUpload, Principal, Repository, Result};

use super::Calls;
use crate::{answer, fields};

impl Calls {
    /// Begins an upload for a caller who may publish to the repository.
    pub(crate) async fn start_upload(
        &self,
        caller: &Principal,
        request: v1::StartUploadRequest,
    ) -> Result<v1::Upload> {
        let request = parse(request)?;
        caller
            .require(Action::Publish, &request.repository)
            .map_err(|failure| failure.field("repository"))?;
        Ok(answer::upload(self.uploads.start_upload(caller.clone(), request).await?))
    }
}

fn parse(request: v1::StartUploadRequest) -> Result<NewUpload> {
    let repository = fields::optional("repository", &request.repository, Repository::parse)?;
    let repository =
        repository.ok_or_else(|| Failure::invalid("repository", "repository is required"))?;
    Ok(NewUpload { repository, origin: fields::prose("origin", request.origin, 200)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_has_no_tag_and_an_origin_is_one_line() {
        let read = |repository: &str, origin: &str| {
            let (repository, origin) = (repository.to_owned(), origin.to_owned());
            let failure = parse(v1::StartUploadRequest { repository, origin }).err()?;
            failure.field_name().map(ToOwned::to_owned)
        };
        assert_eq!(read("docker.io/acme/app", "app:latest on build-7"), None);
        for wrong in ["", "docker.io/acme/app:v1", "a b"] {
            assert_eq!(read(wrong, "").as_deref(), Some("repository"), "{wrong}");
        }
        for wrong in ["a\nb", &"x".repeat(201)] {
            assert_eq!(read("docker.io/acme/app", wrong).as_deref(), Some("origin"), "{wrong}");
        }
    }
}
