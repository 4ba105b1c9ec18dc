//! The door of Colophon: gRPC and REST on one port, from one contract. It says who is calling
//! and what they may do, turns messages into the domain's types once, and gives errors one
//! shape on each face. What a release does is the engine's, behind [`Releases`].

mod answer;
mod callers;
mod calls;
mod connections;
mod content;
mod fields;
mod grpc;
mod guard;
mod health;
mod metrics;
mod observe;
mod openapi;
mod page;
mod places;
mod readiness;
mod reasons;
mod refusal;
mod rest;
mod sent;
mod service;
mod settings;
mod status;
mod table;
mod token;
mod uploads;

use std::sync::Arc;

use axum::middleware;
use colophon_api::v1::{
    freeze_service_server::FreezeServiceServer, release_service_server::ReleaseServiceServer,
    tag_service_server::TagServiceServer, upload_service_server::UploadServiceServer,
};
use colophon_domain::{Clock, Entropy, SystemEntropy};
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use settings::LARGE_LIMIT_BYTES;

pub use axum::Router;
pub use callers::{CallerConfig, Callers};
pub use connections::{serve, serve_within};
pub use health::{probes, starting};
pub use openapi::OPENAPI;
pub use readiness::{Part, Probe};
pub use reasons::call_reasons;
pub use service::Releases;
pub use settings::{ConnectionLimits, MESSAGE_LIMIT_BYTES, ServerSettings};
pub use table::{Row, row};
pub use token::{TOKEN_PREFIX, new_token};
pub use uploads::Uploads;

/// Both faces as one router, for [`serve`].
pub fn router(
    service: Arc<dyn Releases>,
    uploads: Arc<dyn Uploads>,
    callers: Callers,
    clock: Arc<dyn Clock>,
    settings: ServerSettings,
) -> Router {
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let readiness =
        readiness::Readiness::new(service.clone(), clock.clone(), settings.ready_max_age);
    let calls = Arc::new(calls::Calls::new(service, uploads, clock.clone(), &settings));
    let places = places::Places::new(settings.max_calls_per_caller);
    let doorkeeper = guard::Doorkeeper { callers, clock, places };
    let authenticated = middleware::from_fn_with_state(doorkeeper, guard::authenticate);

    // Content comes for as long as its client sends it.
    let blobs = rest::blobs(calls.clone()).route_layer(authenticated.clone());
    let rest = rest::routes(calls.clone(), settings.watch_keep_alive)
        .route_layer(authenticated.clone())
        .merge(health::routes(readiness.clone()))
        .merge(openapi::routes())
        .route_layer(middleware::from_fn_with_state(settings.call_timeout, guard::in_time));
    let grpc = grpc_routes(grpc::Grpc::new(calls, settings.call_timeout))
        .route_layer(authenticated)
        .merge(open_grpc_routes(readiness))
        .route_layer(middleware::from_fn(guard::only_grpc));
    rest.merge(blobs)
        .merge(grpc)
        .fallback(observe::nowhere)
        .layer(middleware::from_fn_with_state(entropy, observe::observe))
}

/// The services of the contract.
fn grpc_routes(grpc: grpc::Grpc) -> Router {
    let releases =
        ReleaseServiceServer::new(grpc.clone()).max_decoding_message_size(MESSAGE_LIMIT_BYTES);
    let tags = TagServiceServer::new(grpc.clone()).max_decoding_message_size(MESSAGE_LIMIT_BYTES);
    let freezes =
        FreezeServiceServer::new(grpc.clone()).max_decoding_message_size(MESSAGE_LIMIT_BYTES);
    let uploads = UploadServiceServer::new(grpc).max_decoding_message_size(LARGE_LIMIT_BYTES);
    Routes::new(releases)
        .add_service(tags)
        .add_service(freezes)
        .add_service(uploads)
        .prepare()
        .into_axum_router()
        .reset_fallback()
}

/// The services that need no token: they tell what the published contract tells anyway.
fn open_grpc_routes(readiness: readiness::Readiness) -> Router {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(colophon_api::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::new(HealthServer::new(readiness));
    // The descriptors are compiled in and a test reads them through the running service; should
    // they be damaged all the same, the API is worth more than its reflection.
    match (reflection().build_v1(), reflection().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => routes = routes.add_service(v1).add_service(v1alpha),
        (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "there is no reflection"),
    }
    routes.prepare().into_axum_router().reset_fallback()
}
