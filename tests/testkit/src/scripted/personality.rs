//! How registries differ, as plain switches, and the well-known ones as settings of these. What
//! is claimed of one stands with its public source: a page of its documentation, or a thread of
//! a public repository, written as `owner/name#number`.

use std::time::Duration;

use crate::scripted::table::Answer;

/// Four mebibytes.
const MIB_4: u64 = 4 << 20;

/// How a registry wants to know who is asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    None,
    /// Username and password with each request (RFC 7617).
    Basic,
    /// A token from a realm on its own host (distribution's "Token Authentication").
    OwnRealm,
    /// A token from a realm on another host.
    OtherRealm,
}

/// How a registry says that a tag may not be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Immutable {
    /// 412, as Harbor.
    Harbor,
    /// 400 `TAG_INVALID`, as ECR.
    Ecr,
    /// 403 `DENIED`, as Docker Hub.
    Hub,
}

/// What becomes of a mount that finds no blob, or one that the asker may not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmounted {
    /// An ordinary upload begins (distribution-spec, "Mounting a blob from another repository").
    Upload,
    /// 401, as if nobody had asked.
    Unauthorized,
}

/// What becomes of an upload that is asked with the query of an earlier `Location`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldQuery {
    /// It goes on.
    Taken,
    /// The request is refused, and the upload goes on with the newest.
    Refused,
    /// The request is refused, and the upload is lost.
    Destroys,
    /// It is told where it stands; anything else is refused with 416, and the upload goes on with
    /// the newest.
    TellsOnly,
}

/// The switches. [`Personality::default`] is a registry that keeps to the specification and
/// asks nobody who they are.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is one way in which registries differ")]
pub struct Personality {
    /// How it wants to know who is asking.
    pub auth: Auth,
    /// Whether those without credentials may pull.
    pub anonymous_pull: bool,
    /// Tokens say nothing to whoever reads them.
    pub opaque_tokens: bool,
    /// How long a token is good for.
    pub token_life: Duration,
    /// The status, code and message for a token or login that lacks a right; without it, what
    /// the specification of tokens says, 401 and `insufficient_scope`, and 403 for a login.
    pub denial: Option<(u16, &'static str, &'static str)>,
    /// A `Location` of an upload has scheme and host.
    pub absolute_locations: bool,
    /// A `Location` of an upload has a query, which changes with every byte that is taken.
    pub location_query: bool,
    /// What becomes of an upload that is asked with the query of an earlier `Location`.
    pub old_query: OldQuery,
    /// `Content-Range` is looked at.
    pub checks_ranges: bool,
    /// The status of an answer to a chunk.
    pub chunk_status: u16,
    /// The largest body of a chunk; larger ones are refused with 416.
    pub largest_chunk: Option<u64>,
    /// What is announced as the smallest chunk (`OCI-Chunk-Min-Length`).
    pub smallest_chunk: Option<u64>,
    /// The `Range` in the answer to a chunk stays that of the first.
    pub range_sticks: bool,
    /// A POST with the digest and the content is a whole upload.
    pub single_post: bool,
    /// A blob is ever taken from another repository; the specification leaves that to the registry.
    pub mounts: bool,
    /// What becomes of a mount that does not work.
    pub unmounted: Unmounted,
    /// A push creates its repository; else one that is not there is said so to everything.
    pub creates_repositories: bool,
    /// What every name begins with.
    pub name_prefix: Option<&'static str>,
    /// How a tag that is frozen is told.
    pub immutable: Immutable,
    /// The status for a manifest whose content is missing; the specification's is 404.
    pub content_missing: u16,
    /// Tags come in pages; without it all of them at once, whatever is asked for.
    pub pages: bool,
    /// Tags of one page at most.
    pub most_tags: usize,
    /// Asking for larger pages is refused.
    pub refuses_larger_pages: bool,
    /// Referrers of one page of the referrers API; without it there is no such API.
    pub referrers: Option<usize>,
    /// Blobs are at another host, where no `Authorization` may be shown.
    pub redirects: bool,
    /// Ranges of blobs can be asked for.
    pub ranges: bool,
    /// A refusal reads the request's body first. One that does not may look like a broken
    /// connection to whoever is still sending.
    pub drains: bool,
    /// GETs of manifests that are allowed until the answer is 429.
    pub pulls: Option<u32>,
}

impl Default for Personality {
    fn default() -> Self {
        Self {
            auth: Auth::None,
            anonymous_pull: false,
            opaque_tokens: false,
            token_life: Duration::from_mins(5),
            denial: None,
            absolute_locations: false,
            location_query: false,
            old_query: OldQuery::Taken,
            checks_ranges: true,
            chunk_status: 202,
            largest_chunk: None,
            smallest_chunk: None,
            range_sticks: false,
            single_post: true,
            mounts: true,
            unmounted: Unmounted::Upload,
            creates_repositories: true,
            name_prefix: None,
            immutable: Immutable::Harbor,
            content_missing: 404,
            pages: true,
            most_tags: 1000,
            refuses_larger_pages: false,
            referrers: Some(100),
            redirects: false,
            ranges: true,
            drains: true,
            pulls: None,
        }
    }
}

impl Personality {
    /// Docker Hub.
    ///
    /// - Tokens come from `auth.docker.io`, for `registry-1.docker.io`, and public images may be
    ///   pulled by anybody (docs.docker.com, "Docker Hub usage and limits", the example with
    ///   `curl`).
    /// - GETs of manifests are counted and HEADs are not; answers carry
    ///   `ratelimit-limit: 100;w=21600` and `ratelimit-remaining` (the same page;
    ///   docker/hub-feedback#2464 shows the headers).
    /// - Beyond that allowance: 429 `TOOMANYREQUESTS` in JSON (docker/docs#21908). Of too many
    ///   requests of any kind: 429 in plain text, with `Retry-After`
    ///   (docker/hub-feedback#1907, and see [`Personality::throttled`]).
    /// - A mount needs a token that may also pull from the source, even a public one
    ///   (oras-project/rust-oci-client#235).
    /// - No referrers API (docker/roadmap#724). It came late in 2025
    ///   (awslabs/soci-snapshotter#1828); set [`Personality::referrers`] for Hub as it is since.
    /// - A tag that may not be moved: 403 (docker/hub-feedback#2466).
    /// - Blobs are at hosts of a content delivery network (docs.docker.com, "Allowlist for
    ///   Docker Desktop", `production.cloudflare.docker.com`).
    pub fn docker_hub() -> Self {
        Self {
            auth: Auth::OtherRealm,
            anonymous_pull: true,
            absolute_locations: true,
            location_query: true,
            checks_ranges: false,
            single_post: false,
            immutable: Immutable::Hub,
            referrers: None,
            redirects: true,
            pulls: Some(100),
            ..Self::default()
        }
    }

    /// GitHub's container registry.
    ///
    /// - Its own realm, and tokens that are no JSON web tokens: base64 of something else is taken
    ///   as one (argoproj-labs/argocd-image-updater#303, updatecli/updatecli#245).
    /// - A chunk above 4 MiB is refused with 416 and a text that speaks of the body's size
    ///   (wasmCloud/wash-archive#268, oras-project/rust-oci-client#37, ocx-sh/ocx#237).
    /// - A PAT without `write:packages`: 403 `DENIED` when an upload is begun, although there
    ///   was a token (tuna-os/tunaOS#642, Snowfork/snowbridge#1272).
    /// - Blobs are at `pkg-containers.githubusercontent.com` (docs.github.com, "Self-hosted
    ///   runners reference", the domains that packages need).
    pub fn ghcr() -> Self {
        Self {
            auth: Auth::OwnRealm,
            anonymous_pull: true,
            opaque_tokens: true,
            denial: Some((403, "DENIED", "permission_denied: write_package")),
            largest_chunk: Some(MIB_4),
            referrers: None,
            redirects: true,
            ..Self::default()
        }
    }

    /// Artifactory, with a repository whose key is `docker-local`.
    ///
    /// - With the method "repository path" the name begins with the repository's key, and what
    ///   has no such key is refused with 400 (jfrog/charts#908, jfrog/charts#455).
    /// - A `Location` is absolute, with the base URL that the proxy in front tells it
    ///   (`X-Artifactory-Override-Base-Url`: jfrog/charts#455, distribution/distribution#2266).
    ///   The query is not Artifactory's own; the specification allows one, and proxies that sign
    ///   or pin sessions add one.
    /// - Basic authentication, with a user's identity token as the password (jfrog.com/help,
    ///   "Docker registry").
    pub fn artifactory() -> Self {
        Self {
            auth: Auth::Basic,
            denial: Some((403, "DENIED", "Not enough permissions to deploy the artifact")),
            absolute_locations: true,
            location_query: true,
            name_prefix: Some("docker-local/"),
            referrers: None,
            ..Self::default()
        }
    }

    /// Harbor.
    ///
    /// - Its own realm.
    /// - A mount from a project that the asker may not read: 401 `UNAUTHORIZED`, and no upload
    ///   (goharbor/harbor#17097, google/go-containerregistry#1393, oras-project/oras#1924).
    /// - A tag under an immutability rule: 412, "configured as immutable"
    ///   (goharbor/harbor#9718).
    pub fn harbor() -> Self {
        Self {
            auth: Auth::OwnRealm,
            absolute_locations: true,
            location_query: true,
            checks_ranges: false,
            unmounted: Unmounted::Unauthorized,
            immutable: Immutable::Harbor,
            ..Self::default()
        }
    }

    /// Amazon's Elastic Container Registry.
    ///
    /// - Basic authentication with the user `AWS` (docs.aws.amazon.com, "Private registry
    ///   authentication in Amazon ECR").
    /// - 201 in answer to a chunk (regclient/regclient#81, jdx/mise#11376), with a `Range` that
    ///   stays at the end of the first chunk although all were taken
    ///   (aws/containers-roadmap#2831).
    /// - A repository must exist before a push, or else 404 `NAME_UNKNOWN` in answer to
    ///   everything (aws-actions/amazon-ecr-login#4, plexsystems/sinker#55).
    /// - An immutable repository refuses a tag that is there, even with the digest that it has
    ///   (moby/buildkit#3776, aws/containers-roadmap#2380).
    /// - Pages of more than 1,000 tags are refused (google/go-containerregistry#681).
    /// - Blobs are at S3 (docs.aws.amazon.com, "Amazon ECR interface VPC endpoints", which need
    ///   a gateway for the layers' bucket).
    pub fn ecr() -> Self {
        Self {
            auth: Auth::Basic,
            denial: Some((403, "DENIED", "User is not authorized to perform: ecr:PutImage")),
            absolute_locations: true,
            chunk_status: 201,
            range_sticks: true,
            single_post: false,
            creates_repositories: false,
            immutable: Immutable::Ecr,
            most_tags: 1000,
            refuses_larger_pages: true,
            redirects: true,
            ..Self::default()
        }
    }

    /// The registry of the distribution project in its second version, as Debian has it.
    ///
    /// - A `Location` has the scheme and host of the request and a `_state`, which holds the
    ///   offset (distribution/distribution#232); with another offset than the upload has, a
    ///   request is refused with 404 `BLOB_UPLOAD_INVALID` (`ResumeBlobUpload` in
    ///   `registry/handlers/blobupload.go` of distribution/distribution; oras-project/oras-py#43
    ///   ran into it). That code means to cancel the upload as well, but version 2.8.2 keeps it,
    ///   as the test of this module sees at a real one; [`OldQuery::Destroys`] is the other way.
    /// - `Content-Range` is not looked at (the same file).
    /// - A POST with a digest and the content begins an upload (distribution/distribution#3230).
    /// - No referrers API, no pages of tags, and 400 for a manifest whose content is missing: what
    ///   version 2.8.2 says to all of these is held against this by a test.
    pub fn distribution_v2() -> Self {
        Self {
            absolute_locations: true,
            location_query: true,
            old_query: OldQuery::Refused,
            checks_ranges: false,
            single_post: false,
            content_missing: 400,
            pages: false,
            referrers: None,
            ..Self::default()
        }
    }

    /// The registry of the distribution project in its third version.
    ///
    /// - A GET tells where an upload stands whatever its `_state` is; with another offset than the
    ///   upload has, anything else is refused with 416 (`blobUploadDispatcher` and
    ///   `ResumeBlobUpload` in `registry/handlers/blobupload.go` of distribution/distribution at
    ///   v3.1.1).
    /// - `Content-Range` is looked at (`PatchBlobData` in the same file).
    /// - No referrers API.
    pub fn distribution_v3() -> Self {
        Self {
            old_query: OldQuery::TellsOnly,
            checks_ranges: true,
            content_missing: 404,
            pages: true,
            ..Self::distribution_v2()
        }
    }

    /// A registry in a company's network: as [`Personality::distribution_v2`], with Basic
    /// authentication, and with plain HTTP or the certificate of a private CA, as it is started.
    /// Docker calls such registries insecure (docs.docker.com, "Test an insecure registry").
    /// Its own `htpasswd` knows no rights: whoever is known may do everything
    /// (distribution.github.io, "Configuring a registry"); the 403 is that of a proxy in front.
    pub fn corp_lan() -> Self {
        Self { auth: Auth::Basic, ..Self::distribution_v2() }
    }

    /// The 429 that protects the registry from too many requests; Docker Hub's words
    /// (docker/hub-feedback#1907). To be put into a table of answers.
    pub fn throttled(retry_after: &str) -> Answer {
        Answer::status(429)
            .header("content-type", "text/plain")
            .header("retry-after", retry_after)
            .body("Too Many Requests (HAP429).\n")
    }

    /// The status, code and message for a tag that may not be moved.
    pub(super) fn frozen(&self, name: &str, tag: &str) -> (u16, &'static str, String) {
        match self.immutable {
            Immutable::Harbor => {
                let project = name.split_once('/').map_or(name, |(_, repository)| repository);
                let text = format!(
                    "Failed to process request due to '{project}:{tag}' configured as immutable."
                );
                (412, "PRECONDITION", text)
            }
            Immutable::Ecr => {
                let text = format!(
                    "The image tag '{tag}' already exists in the '{name}' repository and cannot \
                     be overwritten because the repository is immutable."
                );
                (400, "TAG_INVALID", text)
            }
            Immutable::Hub => {
                (403, "DENIED", format!("tag {tag} is immutable and cannot be overwritten"))
            }
        }
    }
}
