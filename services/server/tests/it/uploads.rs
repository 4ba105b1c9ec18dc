//! Content from clients: the same on both faces, passed on while it comes, and refused before it is
//! read where that is possible.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Bytes;
use colophon_api::v1;
use colophon_domain::{Digest, Failure, NewUpload, Principal, Reason, ReleaseRequest};
use colophon_server::{ConnectionLimits, ServerSettings};
use futures_util::{StreamExt as _, stream};
use reqwest::{Body, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    fake::{CI, DEV, Fake, READER, Server, release, script, uuid},
    fake_uploads::{Came, FakeUploads, upload},
    http::{answer, client, get, h2_client, post, problem},
};

const MIB: usize = 1 << 20;

fn digest() -> String {
    Digest::sha256(b"blob").to_string()
}

fn engine(uploads: FakeUploads) -> Fake {
    let mut fake = Fake::default();
    fake.uploads = Arc::new(uploads);
    fake
}

fn blob_path(size: usize, offset: usize) -> String {
    format!("/v1/uploads/{}/blobs/{}?size={size}&offset={offset}", uuid(1), digest())
}

async fn put(server: &Server, path: &str, body: impl Into<Body>) -> Response {
    let call = client().put(server.url(path)).bearer_auth(CI).body(body);
    call.header("content-type", "application/octet-stream").send().await.unwrap()
}

/// The first message, without content.
fn head(size: usize, offset: usize) -> v1::PutBlobRequest {
    let (size, offset) = (i64::try_from(size).unwrap(), i64::try_from(offset).unwrap());
    let (id, digest) = (uuid(1).to_string(), digest());
    v1::PutBlobRequest { id, digest, size, offset, content: vec![] }
}

fn content(bytes: usize) -> v1::PutBlobRequest {
    v1::PutBlobRequest { content: vec![7; bytes], ..Default::default() }
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().unwrap().reason.clone()
}

/// What the engine has got, as soon as it has it.
async fn came(server: &Server) -> Came {
    for _ in 0..500 {
        if let Some(came) = server.fake.uploads.came.lock().unwrap().pop() {
            return came;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no content has ended");
}

#[tokio::test]
async fn both_faces_answer_the_same() {
    let server = Server::start(Fake::default()).await;
    let mut uploads = server.uploads(CI).await;
    let start = json!({"repository": "docker.io/acme/app", "origin": "app:latest on build-7"});
    let by_rest = answer(post(&server, CI, "/v1/uploads", &start).await).await;
    assert_eq!(by_rest["actor"], "ci");
    assert_eq!(by_rest["expireTime"], "2026-11-03T15:02:00Z");
    let by_grpc =
        uploads.start_upload(serde_json::from_value::<v1::StartUploadRequest>(start).unwrap());
    assert_eq!(by_rest, serde_json::to_value(by_grpc.await.unwrap().into_inner()).unwrap());

    let id = uuid(4).to_string();
    let shown = answer(get(&server, CI, &format!("/v1/uploads/{id}")).await).await;
    assert_eq!((&shown["id"], &shown["bytesReceived"]), (&json!(id), &json!("9007199254740993")));
    let by_grpc = uploads.get_upload(v1::GetUploadRequest { id: id.clone() }).await.unwrap();
    assert_eq!(shown, serde_json::to_value(by_grpc.into_inner()).unwrap());

    let blobs: Vec<_> = (0..3).map(|_| json!({"digest": digest(), "size": 9})).collect();
    let asked = json!({"blobs": blobs});
    let path = format!("/v1/uploads/{id}/find-blobs");
    let found = answer(post(&server, CI, &path, &asked).await).await;
    let states = found["blobs"].as_array().unwrap().iter();
    let states: Vec<_> = states
        .map(|at| (at["present"] == true, at["offset"].clone(), at["busy"] == true))
        .collect();
    let zero = json!("0");
    let wanted = [(true, zero.clone(), false), (false, json!("7"), false), (false, zero, true)];
    assert_eq!(states, wanted);

    let bytes = br#"{"schemaVersion":2}"#.to_vec();
    let put = v1::PutManifestRequest {
        id: String::new(),
        digest: Digest::sha256(&bytes).to_string(),
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        content: bytes,
    };
    let path = format!("/v1/uploads/{id}/manifests");
    let body = serde_json::to_value(&put).unwrap();
    let done = answer(post(&server, CI, &path, &body).await).await;
    assert_eq!(done["digest"], put.digest);
    uploads.put_manifest(v1::PutManifestRequest { id: id.clone(), ..put }).await.unwrap();

    let path = format!("/v1/uploads/{id}/abandon");
    assert_eq!(answer(post(&server, CI, &path, &json!({})).await).await, json!({}));
    uploads.abandon_upload(v1::AbandonUploadRequest { id }).await.unwrap();
    assert_eq!(server.fake.uploads.called.lock().unwrap().len(), 9);
}

#[tokio::test]
async fn a_blob_is_passed_on_as_it_comes_on_both_faces() {
    let server = Server::start(Fake::default()).await;
    let size = 3 * MIB + 7;
    let put_all = answer(put(&server, &blob_path(size, 7), vec![1; 3 * MIB]).await).await;
    assert_eq!(put_all, json!({"offset": size.to_string(), "present": true}));
    assert_eq!(came(&server).await, Came { bytes: 3 << 20, broken: None });
    // A part is a part: the answer says where the blob stands.
    let part = answer(put(&server, &blob_path(size, 0), vec![1; 5]).await).await;
    assert_eq!(part, json!({"offset": "5", "present": false}));
    came(&server).await;

    let mut first = head(size, 7);
    first.content = vec![7; MIB];
    let messages = stream::iter([first, content(MIB), content(0), content(MIB)]);
    let put = server.uploads(CI).await.put_blob(messages).await.unwrap().into_inner();
    assert_eq!(put, v1::PutBlobResponse { offset: i64::try_from(size).unwrap(), present: true });
    assert_eq!(came(&server).await, Came { bytes: 3 << 20, broken: None });
}

#[tokio::test]
async fn a_blob_may_come_for_longer_than_other_calls_take() {
    let settings =
        ServerSettings { call_timeout: Duration::from_millis(200), ..ServerSettings::default() };
    let server = Server::with(Fake::default(), settings, ConnectionLimits::default()).await;
    let slow = || {
        stream::iter(0..8).then(|_| async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok::<_, std::io::Error>(Bytes::from_static(b"ab"))
        })
    };
    let done = answer(put(&server, &blob_path(16, 0), Body::wrap_stream(slow())).await).await;
    assert_eq!(done["present"], true);
    let messages = stream::iter([head(16, 0)]).chain(slow().map(|piece| v1::PutBlobRequest {
        content: piece.unwrap().to_vec(),
        ..Default::default()
    }));
    assert!(server.uploads(CI).await.put_blob(messages).await.unwrap().into_inner().present);
    // A caller of gRPC may say itself when it has waited enough.
    let mut call = tonic::Request::new(
        stream::iter([head(16, 0)]).chain(stream::pending::<v1::PutBlobRequest>()),
    );
    call.set_timeout(Duration::from_millis(200));
    let status = server.uploads(CI).await.put_blob(call).await.unwrap_err();
    assert!(matches!(status.code(), Code::Unavailable | Code::Cancelled), "{status:?}");
}

#[tokio::test]
async fn what_stays_silent_breaks_off() {
    let settings =
        ServerSettings { content_pause: Duration::from_millis(150), ..ServerSettings::default() };
    let server = Server::with(Fake::default(), settings, ConnectionLimits::default()).await;
    let silent =
        stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"ab"))]).chain(stream::pending());
    let response = put(&server, &blob_path(16, 0), Body::wrap_stream(silent)).await;
    problem(response, StatusCode::SERVICE_UNAVAILABLE, "TIMEOUT").await;
    assert_eq!(came(&server).await, Came { bytes: 2, broken: Some(Reason::Timeout) });
    let messages = stream::iter([head(16, 0), content(2)]).chain(stream::pending());
    let status = server.uploads(CI).await.put_blob(messages).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::Unavailable, "TIMEOUT"));
    assert_eq!(came(&server).await, Came { bytes: 2, broken: Some(Reason::Timeout) });
}

#[tokio::test]
async fn streams_end_when_the_server_stops_and_what_came_counts() {
    let mut server = Server::start(Fake::default()).await;
    let endless = || {
        stream::repeat_with(|| content(2)).then(|message| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            message
        })
    };
    let messages = stream::iter([head(MIB, 0)]).chain(endless());
    let mut uploads = server.uploads(CI).await;
    let putting = tokio::spawn(async move { uploads.put_blob(messages).await });
    let body = endless().map(|message| Ok::<_, std::io::Error>(message.content));
    let call = h2_client().put(server.url(&blob_path(MIB, 0))).bearer_auth(CI);
    let by_rest = tokio::spawn(call.body(Body::wrap_stream(body)).send());
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.stop.take().unwrap().send(()).unwrap();
    let status = putting.await.unwrap().unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::Unavailable, "SERVER_STOPPING"));
    let response = by_rest.await.unwrap().unwrap();
    problem(response, StatusCode::SERVICE_UNAVAILABLE, "SERVER_STOPPING").await;
    for _ in 0..2 {
        let came = came(&server).await;
        assert!(came.bytes > 0 && came.broken == Some(Reason::ServerStopping), "{came:?}");
    }
    tokio::time::timeout(Duration::from_secs(10), server.ended).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn what_has_come_counts_when_the_client_is_gone() {
    let server = Server::start(Fake::default()).await;
    for http2 in [false, true] {
        let (pieces, body) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
        let body = stream::unfold(body, |mut body| async { Some((body.recv().await?, body)) });
        let client = if http2 { h2_client() } else { client() };
        let call = client.put(server.url(&blob_path(16, 0))).bearer_auth(CI);
        let putting = tokio::spawn(call.body(Body::wrap_stream(body)).send());
        pieces.send(Ok(Bytes::from_static(b"abcd"))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        putting.abort();
        let came = came(&server).await;
        assert_eq!(came.bytes, 4, "HTTP/2: {http2}");
    }
}

#[tokio::test]
async fn content_that_is_not_what_was_said_is_refused() {
    let server = Server::start(Fake::default()).await;
    for (path, body, field) in [
        (blob_path(4, 0), 5, "content"),
        (blob_path(4, 4), 1, "content"),
        (blob_path(4, 5), 0, "offset"),
        (blob_path(4, 0).replace("size=4", "size=-4"), 0, "size"),
        (blob_path(4, 0).replace("offset=0", "offset=x"), 0, "offset"),
        (blob_path(4, 0).replace("offset", "begin"), 0, "begin"),
        (blob_path(4, 0).replace(&uuid(1).to_string(), "1"), 4, "id"),
    ] {
        let response = put(&server, &path, vec![0; body]).await;
        let problem = problem(response, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
        assert_eq!(problem["field"], field, "{path}: {problem}");
    }
    let response = put(&server, &blob_path(4, 0).replace("sha256:", "md5:"), "abcd").await;
    let found = problem(response, StatusCode::BAD_REQUEST, "INVALID_REFERENCE").await;
    assert_eq!(found["field"], "digest");
    // A length that was not announced is noticed on the way.
    let pieces = stream::iter([Ok::<_, std::io::Error>("abc"), Ok("de")]);
    let response = put(&server, &blob_path(4, 0), Body::wrap_stream(pieces)).await;
    problem(response, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
    assert_eq!(came(&server).await, Came { bytes: 3, broken: Some(Reason::InvalidArgument) });
    let call = client().put(server.url(&blob_path(4, 0))).bearer_auth(CI).json(&json!({}));
    let response = call.send().await.unwrap();
    problem(response, StatusCode::UNSUPPORTED_MEDIA_TYPE, "INVALID_ARGUMENT").await;

    let mut uploads = server.uploads(CI).await;
    let mut named = content(1);
    named.digest = digest();
    for (messages, field) in [
        (vec![], "id"),
        (vec![content(1)], "id"),
        (vec![head(MIB, 0), content(MIB + 1)], "content"),
        (vec![head(4, 0), content(5)], "content"),
        (vec![head(4, 0), named], "digest"),
        (vec![head(4, 5)], "offset"),
    ] {
        let status = uploads.put_blob(stream::iter(messages)).await.unwrap_err();
        let details = status.get_error_details();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert_eq!(details.error_info().unwrap().metadata["field"], field, "{status:?}");
    }
    let large = stream::iter([head(8 * MIB, 0), content(7 * MIB)]);
    let status = uploads.put_blob(large).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::InvalidArgument, "INVALID_ARGUMENT"));
}

#[tokio::test]
async fn nobody_unknown_sends_anything() {
    let server = Server::start(Fake::default()).await;
    for token in [None, Some("nobody's")] {
        // It never ends, so an answer comes without it.
        let endless = stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0_u8; 1_024]));
        let mut call = h2_client().put(server.url(&blob_path(MIB, 0)));
        if let Some(token) = token {
            call = call.bearer_auth(token);
        }
        let response = call.body(Body::wrap_stream(endless)).send().await.unwrap();
        problem(response, StatusCode::UNAUTHORIZED, "UNAUTHENTICATED").await;
    }
    let silent = stream::pending::<v1::PutBlobRequest>();
    let status = server.uploads("nobody's").await.put_blob(silent).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(server.fake.uploads.called.lock().unwrap().is_empty());
}

#[tokio::test]
async fn beginning_needs_the_right_to_publish() {
    let server = Server::start(Fake::default()).await;
    let start = |repository: &str| json!({"repository": repository});
    let refused = post(&server, READER, "/v1/uploads", &start("ghcr.io/acme/app")).await;
    let denied = problem(refused, StatusCode::FORBIDDEN, "PERMISSION_DENIED").await;
    assert_eq!(denied["field"], "repository");
    let refused = post(&server, CI, "/v1/uploads", &start("docker.io/other/app")).await;
    problem(refused, StatusCode::FORBIDDEN, "PERMISSION_DENIED").await;
    answer(post(&server, DEV, "/v1/uploads", &start("docker.io/other/app")).await).await;
    let refused = post(&server, CI, "/v1/uploads", &start("docker.io/acme/app:v1")).await;
    problem(refused, StatusCode::BAD_REQUEST, "INVALID_REFERENCE").await;
    assert_eq!(*server.fake.uploads.called.lock().unwrap(), ["start_upload"]);
}

#[tokio::test]
async fn what_the_engine_refuses_is_told_in_its_words() {
    let uploads = FakeUploads {
        start: script(|_: (Principal, NewUpload)| {
            Err(Failure::new(Reason::UploadLimit, "16 uploads of ci are open already"))
        }),
        show: script(|_| Err(Failure::new(Reason::NotFound, "there is no upload"))),
        put: script(|(_, _, _, offset, _): crate::fake_uploads::Put| {
            Err(match offset {
                0 => Failure::new(Reason::UploadBusy, "somebody sends it"),
                _ => Failure::new(Reason::UploadOffset, "the blob stands at 3").field("offset"),
            })
        }),
        ..FakeUploads::default()
    };
    let server = Server::start(engine(uploads)).await;
    let start = json!({"repository": "docker.io/acme/app"});
    let refused = post(&server, CI, "/v1/uploads", &start).await;
    problem(refused, StatusCode::TOO_MANY_REQUESTS, "UPLOAD_LIMIT").await;
    let refused = get(&server, CI, &format!("/v1/uploads/{}", uuid(2))).await;
    problem(refused, StatusCode::NOT_FOUND, "NOT_FOUND").await;
    // The rest of a body that nobody wants is read, so that its sender sees the answer.
    let refused = put(&server, &blob_path(4 * MIB, 0), vec![0; 4 * MIB]).await;
    problem(refused, StatusCode::CONFLICT, "UPLOAD_BUSY").await;
    let refused = put(&server, &blob_path(4, 1), "abc").await;
    let at = problem(refused, StatusCode::CONFLICT, "UPLOAD_OFFSET").await;
    assert_eq!(at["field"], "offset");
    let mut client = server.uploads(CI).await;
    let status = client.put_blob(stream::iter([head(4, 0)])).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::Aborted, "UPLOAD_BUSY"));
    let status = client.put_blob(stream::iter([head(4, 1)])).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_manifest_may_be_larger_than_other_messages_and_has_its_digest() {
    let server = Server::start(Fake::default()).await;
    let path = format!("/v1/uploads/{}/manifests", uuid(1));
    let message = |bytes: Vec<u8>| v1::PutManifestRequest {
        id: uuid(1).to_string(),
        digest: Digest::sha256(&bytes).to_string(),
        media_type: "application/vnd.oci.image.index.v1+json".into(),
        content: bytes,
    };
    let json = |message: &v1::PutManifestRequest| serde_json::to_value(message).unwrap();
    let largest = message(vec![b' '; 4 * MIB]);
    answer(post(&server, CI, &path, &json(&largest)).await).await;
    let mut uploads = server.uploads(CI).await;
    uploads.put_manifest(largest).await.unwrap();
    let larger = message(vec![b' '; 4 * MIB + 1]);
    let response = post(&server, CI, &path, &json(&larger)).await;
    problem(response, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
    let status = uploads.put_manifest(larger).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let response = post(&server, CI, &path, &json(&message(vec![b' '; 5 * MIB]))).await;
    problem(response, StatusCode::PAYLOAD_TOO_LARGE, "INVALID_ARGUMENT").await;

    let other = v1::PutManifestRequest { digest: digest(), ..message(b"{}".to_vec()) };
    let response = post(&server, CI, &path, &json(&other)).await;
    problem(response, StatusCode::CONFLICT, "DIGEST_MISMATCH").await;
    assert_eq!(server.fake.uploads.called.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_release_names_the_upload_that_brought_it() {
    let seen = Arc::new(Mutex::new(None));
    let keep = seen.clone();
    let fake = Fake::default().create(move |(_, request): (Principal, ReleaseRequest)| {
        *keep.lock().unwrap() = request.upload;
        Ok(colophon_domain::ReleaseView { origin: upload(uuid(1)).origin, ..release(1) })
    });
    let server = Server::start(fake).await;
    let body = |upload: &str| {
        json!({
            "source": "ghcr.io/acme/app:sha-1",
            "targets": [{"repository": "docker.io/acme/app", "uniqueTags": ["v1"]}],
            "upload": upload
        })
    };
    let made: Value =
        answer(post(&server, CI, "/v1/releases", &body(&uuid(9).to_string())).await).await;
    assert_eq!(made["origin"], "app:latest on build-7");
    assert_eq!(seen.lock().unwrap().take(), Some(uuid(9)));
    let refused = post(&server, CI, "/v1/releases", &body("9")).await;
    let wrong = problem(refused, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
    assert_eq!(wrong["field"], "upload");
}
