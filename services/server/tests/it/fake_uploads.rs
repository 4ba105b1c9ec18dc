//! A scripted engine of uploads, which takes content and remembers how it ended.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use axum::body::Bytes;
use colophon_domain::{
    BlobProgress, BlobWish, Digest, NewUpload, Principal, Reason, Repository, Result, UploadView,
    Wanted,
};
use colophon_server::Uploads;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::BoxStream};
use uuid::Uuid;

use crate::{
    fake::{NOW, Script, script},
    views::uuid,
};

/// A blob as it is put: the caller, the upload, the blob, the offset, the content.
pub type Put = (Principal, Uuid, BlobWish, u64, BoxStream<'static, Result<Bytes>>);
type Manifest = (Principal, Uuid, String, Digest, Bytes);

/// How the content of a blob ended: its bytes, and what broke it off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Came {
    pub bytes: u64,
    pub broken: Option<Reason>,
}

pub struct FakeUploads {
    pub start: Script<(Principal, NewUpload), UploadView>,
    pub show: Script<(Principal, Uuid), UploadView>,
    pub find: Script<(Principal, Uuid, Vec<BlobWish>), Vec<BlobProgress>>,
    pub put: Script<Put, BlobProgress>,
    pub manifest: Script<Manifest, ()>,
    pub abandon: Script<(Principal, Uuid), ()>,
    /// The methods called, in order.
    pub called: Mutex<Vec<&'static str>>,
    pub came: Arc<Mutex<Vec<Came>>>,
}

impl Default for FakeUploads {
    fn default() -> Self {
        let came = Arc::<Mutex<Vec<Came>>>::default();
        let comes = came.clone();
        Self {
            start: script(|(caller, new): (Principal, NewUpload)| {
                let (repository, origin) = (new.repository, new.origin);
                Ok(UploadView { repository, origin, principal: caller.name, ..upload(uuid(1)) })
            }),
            show: script(|(_, id)| Ok(upload(id))),
            find: script(|(_, _, blobs): (_, _, Vec<BlobWish>)| {
                let states = [Wanted::Present, Wanted::From(7), Wanted::Busy];
                let found = blobs.into_iter().zip(states.into_iter().cycle());
                Ok(found
                    .map(|(blob, wanted)| BlobProgress { digest: blob.digest, wanted })
                    .collect())
            }),
            put: Mutex::new(Box::new(move |put| taken(put, comes.clone()).boxed())),
            manifest: script(|_| Ok(())),
            abandon: script(|_| Ok(())),
            called: Mutex::default(),
            came,
        }
    }
}

/// Reads the whole content, keeping none of it.
pub async fn taken(put: Put, came: Arc<Mutex<Vec<Came>>>) -> Result<BlobProgress> {
    let (_, _, blob, offset, mut content) = put;
    let (mut bytes, mut broken) = (0, None);
    while let Some(piece) = content.next().await {
        match piece {
            Ok(piece) => bytes += piece.len() as u64,
            Err(failure) => broken = Some(failure),
        }
    }
    let reason = broken.as_ref().map(colophon_domain::Failure::reason);
    came.lock().unwrap().push(Came { bytes, broken: reason });
    let stands = offset + bytes;
    let wanted = if stands == blob.size { Wanted::Present } else { Wanted::From(stands) };
    broken.map_or(Ok(BlobProgress { digest: blob.digest, wanted }), Err)
}

pub fn upload(id: Uuid) -> UploadView {
    UploadView {
        id,
        repository: Repository::parse("docker.io/acme/app").unwrap(),
        origin: "app:latest on build-7".into(),
        principal: "ci".into(),
        created_at: NOW,
        expires_at: NOW + std::time::Duration::from_hours(1),
        bytes_received: 9_007_199_254_740_993,
    }
}

impl FakeUploads {
    fn ask<Q, A>(
        &self,
        name: &'static str,
        script: &Script<Q, A>,
        question: Q,
    ) -> Pin<Box<dyn Future<Output = Result<A>> + Send + 'static>> {
        self.called.lock().unwrap().push(name);
        (script.lock().unwrap())(question)
    }
}

impl Uploads for FakeUploads {
    fn start_upload(
        &self,
        caller: Principal,
        request: NewUpload,
    ) -> BoxFuture<'_, Result<UploadView>> {
        self.ask("start_upload", &self.start, (caller, request))
    }

    fn upload(&self, caller: Principal, id: Uuid) -> BoxFuture<'_, Result<UploadView>> {
        self.ask("upload", &self.show, (caller, id))
    }

    fn find_blobs(
        &self,
        caller: Principal,
        id: Uuid,
        blobs: Vec<BlobWish>,
    ) -> BoxFuture<'_, Result<Vec<BlobProgress>>> {
        self.ask("find_blobs", &self.find, (caller, id, blobs))
    }

    fn put_blob(
        &self,
        caller: Principal,
        id: Uuid,
        blob: BlobWish,
        offset: u64,
        content: BoxStream<'static, Result<Bytes>>,
    ) -> BoxFuture<'_, Result<BlobProgress>> {
        self.ask("put_blob", &self.put, (caller, id, blob, offset, content))
    }

    fn put_manifest(
        &self,
        caller: Principal,
        id: Uuid,
        media_type: String,
        digest: Digest,
        content: Bytes,
    ) -> BoxFuture<'_, Result<()>> {
        self.ask("put_manifest", &self.manifest, (caller, id, media_type, digest, content))
    }

    fn abandon(&self, caller: Principal, id: Uuid) -> BoxFuture<'_, Result<()>> {
        self.ask("abandon", &self.abandon, (caller, id))
    }
}
