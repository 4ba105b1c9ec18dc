//! The probes and the reflection service, which need no token.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use colophon_domain::{Failure, Reason};
use colophon_server::{ConnectionLimits, ServerSettings};
use reqwest::{Method, StatusCode};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    fake::{Fake, Server},
    http::{answer, problem, send},
};

fn always_asked() -> ServerSettings {
    ServerSettings { ready_max_age: Duration::ZERO, ..ServerSettings::default() }
}

/// An engine whose readiness the test switches.
fn switched() -> (Arc<AtomicBool>, Fake) {
    let ready = Arc::new(AtomicBool::new(true));
    let switch = ready.clone();
    let fake = Fake::default().ready(move |()| {
        if ready.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(Failure::new(Reason::DatabaseUnavailable, "db.corp.lan:5432 refuses"))
    });
    (switch, fake)
}

fn check(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test]
async fn readiness_follows_the_engine_and_life_does_not() {
    let (ready, fake) = switched();
    let server = Server::with(fake, always_asked(), ConnectionLimits::default()).await;
    let mut grpc = HealthClient::new(server.channel().await);
    answer(send(&server, Method::GET, "/readyz").await).await;
    for service in
        ["", "colophon.v1.FreezeService", "colophon.v1.ReleaseService", "colophon.v1.TagService"]
    {
        let answer = grpc.check(check(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    assert_eq!(grpc.check(check("nothing")).await.unwrap_err().code(), Code::NotFound);

    ready.store(false, Ordering::SeqCst);
    let response = send(&server, Method::GET, "/readyz").await;
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let problem = problem(response, status, "DATABASE_UNAVAILABLE").await;
    // The probe is open to everybody; where our parts are is not their business.
    assert!(!problem.to_string().contains("corp.lan"), "{problem}");
    let answered = grpc.check(check("")).await.unwrap().into_inner();
    assert_eq!(answered.status(), ServingStatus::NotServing);
    let part = &problem["parts"]["database"];
    assert_eq!(part["reason"], "DATABASE_UNAVAILABLE", "{problem}");
    assert_eq!(part["since"], "2026-11-03T14:02:00Z", "{problem}");
    for path in ["/healthz", "/livez"] {
        answer(send(&server, Method::GET, path).await).await;
    }
}

#[tokio::test]
async fn what_is_not_needed_makes_it_degraded_and_no_more() {
    let fake = Fake::default()
        .vault(|()| Err(Failure::new(Reason::VaultSealed, "https://vault.corp.lan is sealed")));
    let server = Server::with(fake, always_asked(), ConnectionLimits::default()).await;
    let body = answer(send(&server, Method::GET, "/readyz").await).await;
    assert_eq!(
        (&body["status"], &body["parts"]["database"]["status"]),
        (&"degraded".into(), &"ok".into())
    );
    assert_eq!(body["parts"]["vault"]["reason"], "VAULT_SEALED", "{body}");
    assert!(!body.to_string().contains("corp.lan"), "{body}");
    let mut grpc = HealthClient::new(server.channel().await);
    let answered = grpc.check(check("")).await.unwrap().into_inner();
    assert_eq!(answered.status(), ServingStatus::Serving);
}

#[tokio::test]
async fn many_probes_are_one_question() {
    let long = ServerSettings { ready_max_age: Duration::from_mins(10), ..always_asked() };
    let server = Server::with(Fake::default(), long, ConnectionLimits::default()).await;
    let probes = (0..20).map(|_| send(&server, Method::GET, "/readyz"));
    for response in futures_util::future::join_all(probes).await {
        answer(response).await;
    }
    assert_eq!(server.called(), ["ready", "vault"]);
}

#[tokio::test]
async fn a_watch_sees_every_change_and_ends_with_the_server() {
    let (ready, fake) = switched();
    let mut server = Server::with(fake, always_asked(), ConnectionLimits::default()).await;
    let mut grpc = HealthClient::new(server.channel().await);
    let mut unknown = grpc.watch(check("nothing")).await.unwrap().into_inner();
    let first = unknown.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
    drop(unknown);

    let mut watch = grpc.watch(check("")).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    ready.store(false, Ordering::SeqCst);
    let second = watch.message().await.unwrap().unwrap();
    assert_eq!(second.status(), ServingStatus::NotServing);
    ready.store(true, Ordering::SeqCst);
    let third = watch.message().await.unwrap().unwrap();
    assert_eq!(third.status(), ServingStatus::Serving);

    server.stop.take().unwrap().send(()).unwrap();
    let last = watch.message().await.unwrap().unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing);
    assert!(watch.message().await.unwrap().is_none());
    drop((watch, grpc));
    server.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn so_many_watch_at_once_and_no_more() {
    let server = Server::start(Fake::default()).await;
    let mut grpc = HealthClient::new(server.channel().await);
    let mut held = Vec::new();
    for service in ["", "nothing"].into_iter().cycle().take(64) {
        let mut watch = grpc.watch(check(service)).await.unwrap().into_inner();
        watch.message().await.unwrap().unwrap();
        held.push(watch);
    }
    // Another connection of a stranger is the same.
    let mut other = HealthClient::new(server.channel().await);
    for client in [&mut grpc, &mut other] {
        let status = client.watch(check("")).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    }
    // Nobody else is concerned.
    let answered = other.check(check("")).await.unwrap().into_inner();
    assert_eq!(answered.status(), ServingStatus::Serving);
    drop(held.pop());
    let mut again = async || other.watch(check("")).await.is_ok();
    for _ in 0..500 {
        if again().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the place of a watch that ended is not given to another");
}

#[tokio::test]
async fn reflection_shows_the_contract() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let server = Server::start(Fake::default()).await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(server.channel().await)
        .server_reflection_info(futures_util::stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("not a list of services");
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in [
        "colophon.v1.FreezeService",
        "colophon.v1.ReleaseService",
        "colophon.v1.TagService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
    }
    let alpha = crate::grpc::raw(
        &server,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        None,
    )
    .await;
    assert!(!alpha.headers().contains_key("grpc-status"), "{alpha:?}");
}
