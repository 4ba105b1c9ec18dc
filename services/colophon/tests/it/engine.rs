//! A Docker engine on a Unix socket, of which a test says what it has. The real one is tried by
//! `make image-test`.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// What the engine has, and what it was told to remove.
#[derive(Default)]
pub struct Has {
    /// Each image's id, names, and age as a time of its making.
    pub images: Vec<(String, Vec<String>, i64)>,
    /// Each container's name, and the id of its image.
    pub containers: Vec<(String, String)>,
    /// What `docker save` would write, whatever image is asked for.
    pub archive: Vec<u8>,
    /// Every name that was removed.
    pub removed: Vec<String>,
    /// Every query of such a removal.
    pub queries: Vec<String>,
}

/// The running engine.
pub struct Engine {
    has: Arc<Mutex<Has>>,
    folder: TempDir,
}

impl Engine {
    /// An engine with a socket of its own.
    pub fn start(has: Has) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("docker.sock")).unwrap();
        let has = Arc::new(Mutex::new(has));
        let shared = Arc::clone(&has);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || answer(stream, &shared));
            }
        });
        Self { has, folder }
    }

    /// As in `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("docker.sock").display())
    }

    pub fn has(&self) -> MutexGuard<'_, Has> {
        self.has.lock().unwrap()
    }
}

fn answer(mut stream: UnixStream, has: &Mutex<Has>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let Some(first) = head.lines().next() else { return };
    let (method, target) = first.split_once(' ').unwrap();
    let target = target.split(' ').next().unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = match path.strip_prefix("/v1.") {
        Some(rest) => rest.split_once('/').map_or("", |(_, path)| path),
        None => path.trim_start_matches('/'),
    };
    let (status, body) = has.lock().unwrap().answer(method, path, query);
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    // A client that has gone does not want the answer.
    drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)));
}

impl Has {
    fn answer(&mut self, method: &str, path: &str, query: &str) -> (&'static str, Vec<u8>) {
        let said = |value: Value| ("200 OK", value.to_string().into_bytes());
        let name = path.strip_prefix("images/").unwrap_or_default();
        match (method, path) {
            (_, "version") => said(json!({ "ApiVersion": "1.41", "Version": "20.10.24" })),
            (_, "images/json") => said(self.images.iter().map(summary).collect()),
            (_, "containers/json") => {
                let here = self.containers.iter().filter(|(_, image)| {
                    !query.contains("ancestor") || query.contains(&image.replace(':', "%3A"))
                });
                said(here.map(|(name, image)| container(name, image)).collect())
            }
            ("DELETE", _) => {
                self.removed.push(name.to_owned());
                self.queries.push(query.to_owned());
                for (_, tags, _) in &mut self.images {
                    tags.retain(|tag| tag != name);
                }
                said(json!([{ "Untagged": name }]))
            }
            _ if name.ends_with("/json") => self.inspect(name.trim_end_matches("/json")),
            _ if name.ends_with("/get") => ("200 OK", self.archive.clone()),
            _ => ("404 Not Found", json!({ "message": "page not found" }).to_string().into()),
        }
    }

    fn inspect(&self, name: &str) -> (&'static str, Vec<u8>) {
        let is_it = |(id, tags, _): &&(String, Vec<String>, i64)| {
            id == name || tags.iter().any(|tag| tag == name)
        };
        let Some((id, tags, _)) = self.images.iter().find(is_it) else {
            let message = format!("No such image: {name}");
            return ("404 Not Found", json!({ "message": message }).to_string().into());
        };
        let value = json!({ "Id": id, "RepoTags": tags, "Created": "2026-11-30T18:00:00Z" });
        ("200 OK", value.to_string().into())
    }
}

fn summary((id, tags, created): &(String, Vec<String>, i64)) -> Value {
    json!({
        "Containers": -1, "Created": created, "Id": id, "Labels": null, "ParentId": "",
        "RepoDigests": null, "RepoTags": tags, "SharedSize": -1, "Size": 1, "VirtualSize": 1,
    })
}

fn container(name: &str, image: &str) -> Value {
    json!({
        "Id": name, "Names": [format!("/{name}")], "Image": image, "ImageID": image,
        "Command": "sh", "Created": 1, "Ports": [], "Labels": {}, "State": "running",
        "Status": "Up", "HostConfig": {}, "NetworkSettings": {}, "Mounts": [],
    })
}
