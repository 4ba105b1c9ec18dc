//! The engine's client against an engine that is scripted on a Unix socket, in the words of
//! version 20.10. The real one is tried by `make image-test`.

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use colophon_domain::Digest;
use colophon_local::{
    LocalErrorKind, Options, Source,
    docker::{Engine, Removed},
    open,
};
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody, combinators::BoxBody};
use hyper::{Method, Request, Response, body::Frame, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixListener;

use crate::{
    fixture::{Files, digest, named, old_archive},
    support::{opened, whole},
    tars::Tar,
};

type Body = BoxBody<Bytes, std::io::Error>;

/// What the engine has, and what it was asked.
#[derive(Default)]
struct Script {
    /// Ids and names.
    images: Vec<(String, Vec<&'static str>)>,
    /// Containers, and whether the engine's filter finds them.
    containers: Vec<(Value, bool)>,
    archive: Vec<u8>,
    /// The answer breaks off after half of the archive.
    breaks: bool,
    /// Why nothing is removed.
    conflict: Option<&'static str>,
    asked: Mutex<Vec<String>>,
}

struct Scripted {
    script: Arc<Script>,
    host: String,
    _folder: TempDir,
}

impl Scripted {
    fn start(script: Script) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket: PathBuf = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let script = Arc::new(script);
        let serving = Arc::clone(&script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = Arc::clone(&serving);
                let answer = service_fn(move |request| {
                    let answer = script.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), answer));
            }
        });
        let host = format!("unix://{}", socket.display());
        Self { script, host, _folder: folder }
    }

    async fn engine(&self) -> Engine {
        Engine::connect(Some(&self.host)).await.unwrap()
    }

    fn options(&self) -> Options {
        Options { docker_host: Some(self.host.clone()), ..Options::default() }
    }

    /// What was asked since the last time, without the version.
    fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.script.asked.lock().unwrap());
        asked.retain(|request| request != "GET /version");
        asked
    }
}

impl Script {
    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let target = request.uri().path_and_query().unwrap().as_str();
        self.asked.lock().unwrap().push(format!("{} {target}", request.method()));
        let path = request.uri().path();
        let name = path.strip_prefix("/images/").unwrap_or_default();
        let query = request.uri().query().unwrap_or_default();
        match (request.method(), path) {
            (_, "/version") => said(200, &json!({ "ApiVersion": "1.41", "Version": "20.10.24" })),
            (_, "/images/json") => {
                let list = self.images.iter().zip(0i64..);
                said(200, &list.map(|((id, tags), at)| summary(id, tags, at)).collect())
            }
            (_, "/containers/json") => {
                let by_engine = query.contains("ancestor");
                let list = self.containers.iter().filter(|(_, found)| *found || !by_engine);
                said(200, &list.map(|(container, _)| container.clone()).collect())
            }
            (&Method::DELETE, _) => match self.conflict {
                Some(why) => said(409, &json!({ "message": why })),
                None => said(200, &json!([{ "Untagged": name }, { "Deleted": "sha256:1" }])),
            },
            (_, _) if name.ends_with("/json") => self.inspect(name.trim_end_matches("/json")),
            (_, _) if name.ends_with("/get") => self.export(),
            _ => said(404, &json!({ "message": "page not found" })),
        }
    }

    fn inspect(&self, name: &str) -> Response<Body> {
        let name = name.trim_start_matches("docker.io/library/");
        let tagged = format!("{name}:latest");
        let is_it = |(id, tags): &&(String, Vec<&str>)| {
            id == name || tags.iter().any(|tag| *tag == name || *tag == tagged)
        };
        let Some((id, tags)) = self.images.iter().find(is_it) else {
            return said(404, &json!({ "message": format!("No such image: {name}\u{1b}[2J") }));
        };
        let created = "2026-11-30T18:00:00.123456789Z";
        said(200, &json!({ "Id": id, "RepoTags": tags, "Created": created, "Size": 1 }))
    }

    fn export(&self) -> Response<Body> {
        let half = self.archive.len() / 2;
        let length = if self.breaks { half } else { self.archive.len() };
        let chunks = self.archive[..length]
            .chunks(7000)
            .map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk))));
        let end = self.breaks.then(|| Err(std::io::Error::other("the disk is on fire")));
        let frames: Vec<_> = chunks.chain(end).collect();
        Response::new(StreamBody::new(stream::iter(frames)).boxed())
    }
}

fn summary(id: &str, tags: &[&str], created: i64) -> Value {
    json!({
        "Containers": -1, "Created": created, "Id": id, "Labels": null, "ParentId": "",
        "RepoDigests": null, "RepoTags": tags, "SharedSize": -1, "Size": 1, "VirtualSize": 1,
    })
}

fn said(status: u16, value: &Value) -> Response<Body> {
    let frames = [Ok(Frame::data(Bytes::from(value.to_string())))];
    let body = StreamBody::new(stream::iter(frames)).boxed();
    Response::builder().status(status).body(body).unwrap()
}

fn container(id: &str, image: &str, image_id: &str) -> Value {
    json!({
        "Id": id, "Names": [format!("/{id}")], "Image": image, "ImageID": image_id,
        "Command": "sh", "Created": 1, "Ports": [], "Labels": {}, "State": "exited",
        "Status": "Exited (0)", "HostConfig": {}, "NetworkSettings": {}, "Mounts": [],
    })
}

fn id(number: u8) -> String {
    Digest::sha256(&[number]).to_string()
}

fn docker(name: &str) -> Source {
    Source::Docker(name.to_owned())
}

#[tokio::test]
async fn an_image_of_an_old_engine_is_opened_by_name_and_by_id() {
    let archive = old_archive(&[(&["app:latest"], &[b"layer"])]).end();
    let expected = opened(&archive, &Options::default()).await.unwrap();
    let id = expected.image_id.clone().unwrap();
    let images = vec![(id.to_string(), vec!["app:1", "app:latest"])];
    let engine = Scripted::start(Script { images, archive, ..Script::default() });
    let by_id = id.to_string();
    for (name, exported) in [
        ("app", "app:latest"),
        ("docker.io/library/app:latest", "app:latest"),
        (by_id.as_str(), by_id.as_str()),
    ] {
        let image = open(&docker(name), &engine.options(), &()).await.unwrap();
        assert_eq!((&image.root, &image.image_id), (&expected.root, &Some(id.clone())));
        assert!(image.digest_is_new);
        assert_eq!(whole(&image).await.root, expected.root);
        let asked = [format!("GET /images/{name}/json"), format!("GET /images/{exported}/get")];
        assert_eq!(engine.asked(), asked);
    }
    // In that archive another name is not to be found, so it must be the same image by its id.
    let error = open(&docker("app:1"), &engine.options(), &()).await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn an_engine_with_containerd_knows_an_image_by_its_index() {
    let mut files = Files::default();
    let here = files.image("linux/amd64", &[b"here"]);
    let there = files.image("linux/arm64", &[b"there"]);
    let index = files.index(&[here.clone(), there.clone()]);
    let archive = files.layout(&[named(&index, "app:1")]).without(&there).tar().end();
    let images = vec![(digest(&index).to_string(), vec!["app:1"])];
    let engine = Scripted::start(Script { images, archive, ..Script::default() });
    let image = open(&docker("app:1"), &engine.options(), &()).await.unwrap();
    assert_eq!((image.root, image.image_id), (digest(&here), Some(digest(&index))));
    assert!(!image.digest_is_new && image.notes[0].contains("only linux/amd64"));
}

#[tokio::test]
async fn what_comes_must_be_what_was_found() {
    let archive = old_archive(&[(&["app:1"], &[b"layer"])]).end();
    let images = vec![(id(1), vec!["app:1"])];
    let engine = Scripted::start(Script { images, archive, ..Script::default() });
    let error = open(&docker("app:1"), &engine.options(), &()).await.unwrap_err();
    assert!(error.to_string().contains("another image meanwhile"), "{error}");
    assert_eq!(error.file(), Some("docker://app:1"));
    let twice = Options { image: Some("app:1".to_owned()), ..engine.options() };
    let error = open(&docker("app:1"), &twice, &()).await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::Invalid);
}

#[tokio::test]
async fn an_engine_that_breaks_off_or_lies_is_an_error_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let layer = crate::fixture::noise(1, 200_000);
    let archive = old_archive(&[(&["app:1"], &[&layer])]).end();
    let hostile = [Tar::default().file("../up", b"x").cut(), archive.clone()].concat();
    for (archive, breaks, kind) in [
        (archive.clone(), true, LocalErrorKind::Engine),
        (archive[..archive.len() / 2].to_vec(), false, LocalErrorKind::Damaged),
        (hostile, false, LocalErrorKind::Refused),
        (Vec::new(), false, LocalErrorKind::NotAnImage),
    ] {
        let images = vec![(id(1), vec!["app:1"])];
        let engine = Scripted::start(Script { images, archive, breaks, ..Script::default() });
        let options = Options { spool: Some(folder.path().to_owned()), ..engine.options() };
        let error = open(&docker("app:1"), &options, &()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn only_names_reach_the_engine() {
    let images = vec![(id(1), vec!["app:1", "deadbeef:latest", "<none>:<none>"])];
    let engine = Scripted::start(Script { images, ..Script::default() });
    let client = engine.engine().await;
    engine.asked();
    for name in
        ["", "../containers/x", "app:1/../../x", "app?x=1", "app#x", "App", "a b", "sha256:../x"]
    {
        let error = client.find(name).await.unwrap_err();
        assert_eq!(error.kind(), LocalErrorKind::Invalid, "{name}");
    }
    for name in
        ["", "app?x", &id(1), &id(1)[7..], "sha256:1", "app@sha256:1", &format!("app@{}", id(1))]
    {
        let error = client.untag(name).await.unwrap_err();
        assert_eq!(error.kind(), LocalErrorKind::Invalid, "{name}");
    }
    assert_eq!(engine.asked(), Vec::<String>::new());
    let error = client.find("gone").await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::NotFound);
    assert!(!error.to_string().contains('\u{1b}'), "{error:?}");
    let found = client.find("app:1").await.unwrap();
    assert_eq!((found.id.to_string(), found.created), (id(1), Some(1_796_061_600)));
    assert_eq!(found.tags, ["app:1", "deadbeef:latest"]);
}

#[tokio::test]
async fn a_name_is_taken_away_without_force() {
    let images = vec![(id(1), vec!["app:1"])];
    let engine = Scripted::start(Script { images, ..Script::default() });
    let client = engine.engine().await;
    engine.asked();
    let gone = client.untag("app:1").await.unwrap();
    assert_eq!(gone, [Removed::Untagged("app:1".into()), Removed::Deleted("sha256:1".into())]);
    // What looks like an id is asked for as the name that it is.
    client.untag("deadbeef").await.unwrap();
    client.untag("localhost:5000/app").await.unwrap();
    let how = "?force=false&noprune=false";
    let asked = ["app:1", "deadbeef:latest", "localhost:5000/app:latest"]
        .map(|name| format!("DELETE /images/{name}{how}"));
    assert_eq!(engine.asked(), asked);

    let conflict = Some("conflict: unable to remove repository reference \"app:1\" (must force)");
    let engine = Scripted::start(Script { conflict, ..Script::default() });
    let error = engine.engine().await.untag("app:1").await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::InUse);
    assert!(error.to_string().contains("unable to remove"), "{error}");
}

#[tokio::test]
async fn everybody_who_has_the_image_is_named() {
    let images = vec![(id(1), vec!["app:1", "app:2"]), (id(2), vec!["tool:1"])];
    let containers = vec![
        (container("by-name", "app:1", &id(1)), true),
        (container("by-id", "app:gone", &id(1)), false),
        (container("built-on-it", "child:1", &id(3)), true),
        (container("other", "tool:1", &id(2)), false),
    ];
    let engine = Scripted::start(Script { images, containers, ..Script::default() });
    let client = engine.engine().await;
    let found = client.find("app:2").await.unwrap();
    let users = client.users(&found).await.unwrap();
    assert_eq!(users.tags, ["app:1", "app:2"]);
    let names: Vec<_> = users.containers.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["built-on-it", "by-id", "by-name"]);
    assert!(users.containers.iter().all(|it| it.state == "exited"));
    let asked = engine.asked();
    assert!(asked.iter().filter(|it| it.contains("/containers/json?all=true")).count() == 2);
}

#[tokio::test]
async fn images_of_a_repository_are_listed_with_all_of_their_names() {
    let images = vec![
        (id(1), vec!["app:1", "ghcr.io/acme/app:1"]),
        (id(2), vec!["app:2"]),
        (id(3), vec!["apple:1", "<none>:<none>"]),
        (id(4), vec![]),
    ];
    let engine = Scripted::start(Script { images, ..Script::default() });
    let client = engine.engine().await;
    let listed = |repository: &'static str| {
        let client = client.clone();
        async move {
            let found = client.images_of(repository).await.unwrap();
            found.into_iter().map(|it| (it.created.unwrap(), it.tags)).collect::<Vec<_>>()
        }
    };
    let one = (0, vec!["app:1".to_owned(), "ghcr.io/acme/app:1".to_owned()]);
    assert_eq!(listed("app").await, [one.clone(), (1, vec!["app:2".to_owned()])]);
    assert_eq!(listed("docker.io/library/app").await.len(), 2);
    assert_eq!(listed("ghcr.io/acme/app").await, [one]);
    assert_eq!(listed("nothing").await, []);
    let error = client.images_of("app:1").await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::Invalid);
}

#[tokio::test]
async fn an_engine_that_is_away_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    drop(UnixListener::bind(&socket).unwrap());
    for path in [socket, folder.path().join("none.sock")] {
        let host = format!("unix://{}", path.display());
        let error = Engine::connect(Some(&host)).await.unwrap_err();
        assert_eq!(error.kind(), LocalErrorKind::Engine, "{error}");
        let remedy = error.remedy_text().unwrap();
        assert!(remedy.contains("DOCKER_HOST") && remedy.contains("docker save"), "{error}");
        assert_eq!(error.file(), Some(host.as_str()));
    }
}
