//! What is counted of calls. Labels are the routes and methods that there are, never what somebody
//! asked for: a stranger may ask for anything.

use std::{collections::BTreeSet, sync::LazyLock, time::Duration};

use colophon_telemetry::{Histogram, KeyValue, SECONDS, meter};
use http::Method;
use prost::Message as _;
use prost_types::FileDescriptorSet;

use crate::observe::Face;

static DURATION: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    meter()
        .f64_histogram("colophon.server.request.duration")
        .with_unit("s")
        .with_description("Calls, until the head of the answer")
        .with_boundaries(SECONDS.to_vec())
        .build()
});

/// The paths of every gRPC method that is served.
static METHODS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    [
        colophon_api::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ]
    .into_iter()
    .flat_map(methods)
    .collect()
});

fn methods(descriptors: &[u8]) -> Vec<String> {
    // They are compiled in; one that could not be read would have its calls counted as unknown.
    let files = FileDescriptorSet::decode(descriptors).unwrap_or_default().file;
    let mut paths = Vec::new();
    for file in files {
        for service in &file.service {
            let service_path = format!("/{}.{}/", file.package(), service.name());
            let of_service =
                service.method.iter().map(|method| service_path.clone() + method.name());
            paths.extend(of_service);
        }
    }
    paths
}

/// Counts a call that was answered. `route` is the template of a REST path or the path of a gRPC
/// method; `status` is HTTP's or gRPC's.
pub(crate) fn answered(
    face: Face,
    route: Option<&str>,
    method: &Method,
    status: u16,
    took: Duration,
) {
    let (face, route) = match face {
        Face::Rest => ("rest", route),
        Face::Grpc => ("grpc", route.filter(|path| METHODS.contains(*path))),
    };
    let labels = [
        KeyValue::new("face", face),
        KeyValue::new("route", route.unwrap_or("none").to_owned()),
        KeyValue::new("method", known(method)),
        KeyValue::new("status", i64::from(status)),
    ];
    DURATION.record(took.as_secs_f64(), &labels);
}

fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_that_is_served_is_known() {
        for path in [
            "/colophon.v1.ReleaseService/CreateRelease",
            "/colophon.v1.TagService/GetTag",
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ] {
            assert!(METHODS.contains(path), "{path}: {METHODS:?}");
        }
        assert!(!METHODS.contains("/colophon.v1.ReleaseService/Anything"));
    }
}
