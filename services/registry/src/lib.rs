//! The OCI distribution client: sessions on repositories, the tokens that registries ask for,
//! manifests, blobs, and the copy of images between registries without a disk in between.
//!
//! Transport is ours, on `reqwest`: `oci-client`, which is used for its descriptors, media
//! types and error envelope, keeps one credential per host, swallows refused tokens, has no
//! source scope for mounts, knows neither `Retry-After` nor resumption, and cannot tell a PUT
//! that was not applied from one whose answer was lost. Each of these would cost a release.
//!
//! Start reading at [`Registries`] and [`copy()`].

mod accepted;
mod address;
mod along;
mod answer;
mod appraise;
mod auth;
mod blob;
mod body;
mod budget;
mod challenge;
mod config;
mod copy;
mod cosign;
mod dispatch;
mod download;
mod exchange;
mod flight;
mod gather;
mod hash;
mod hint;
mod host;
mod incoming;
mod known;
mod limited;
mod limits;
mod link;
mod manifest;
mod manifests;
mod measure;
mod memory_budget;
mod metrics;
mod observe;
mod pages;
mod pieces;
mod places;
mod plan;
mod platforms;
mod rate;
mod receive;
mod referrers;
mod request;
mod schemes;
mod scope;
mod seal;
mod send;
mod sent;
mod session;
mod tags;
mod tls;
mod token;
mod trails;
mod transfer;
mod transport;
mod upload;
mod way;

pub use along::Companion;
pub use appraise::{Shown, appraise};
pub use budget::Pass;
pub use config::RegistryConfig;
pub use copy::{BlobOutcome, Copied, CopyOptions, Progress, copy};
pub use manifest::{Content, Descriptor, Layer, Manifest};
pub use manifests::PutError;
pub use measure::{Need, measure};
pub use platforms::part;
pub use receive::{Broken, Received, Reception, Remains, TrailBook};
pub use session::{Registries, Session};
