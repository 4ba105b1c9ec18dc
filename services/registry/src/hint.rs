//! Which permission is likely missing, in each registry's own words.

use colophon_domain::{Access, Reason, Repository};

/// What to look at when a credential is refused.
pub(crate) fn permission(repository: &Repository, access: Access, reason: Reason) -> String {
    let host = repository.registry().as_str();
    let wanted = wanted(host, access);
    match reason {
        Reason::RegistryUnauthorized => format!(
            "check that the username and PAT for {repository} are right and not expired; {wanted}"
        ),
        _ => format!("for {repository}, {wanted}"),
    }
}

fn wanted(host: &str, access: Access) -> &'static str {
    let pull = access == Access::Pull;
    if host == "ghcr.io" {
        return if pull {
            "the PAT needs read:packages and its user needs read access to the package"
        } else {
            "the PAT needs write:packages and its user needs write access to the package"
        };
    }
    if host == "docker.io" {
        return if pull {
            "the PAT needs the permission Read, and the repository must exist"
        } else {
            "the PAT needs the permission Read & Write, and its user must belong to the namespace"
        };
    }
    if host.contains("gitlab") {
        return if pull {
            "the token needs read_registry and the role Reporter"
        } else {
            "the token needs read_registry and write_registry and the role Developer"
        };
    }
    if host.ends_with(".amazonaws.com") {
        return if pull {
            "the identity needs ecr:BatchGetImage and ecr:GetDownloadUrlForLayer"
        } else {
            "the identity needs ecr:InitiateLayerUpload, ecr:UploadLayerPart, \
             ecr:CompleteLayerUpload, ecr:BatchCheckLayerAvailability and ecr:PutImage"
        };
    }
    if host == "quay.io" {
        return if pull {
            "the robot account needs the permission Read on the repository"
        } else {
            "the robot account needs the permission Write on the repository"
        };
    }
    if host.ends_with(".azurecr.io") {
        return if pull {
            "the token needs the role AcrPull"
        } else {
            "the token needs the role AcrPush"
        };
    }
    if pull {
        "the PAT likely lacks the permission to pull"
    } else {
        "the PAT likely lacks the permission to push"
    }
}
