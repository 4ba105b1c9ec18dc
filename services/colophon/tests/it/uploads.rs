//! The part of the server that takes content: it keeps what comes, in memory, and breaks off, refuses
//! or dawdles where a test says so.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use colophon_api::v1::{
    AbandonUploadRequest, AbandonUploadResponse, FindBlobsRequest, FindBlobsResponse,
    GetUploadRequest, PutBlobRequest, PutBlobResponse, PutManifestRequest, PutManifestResponse,
    StartUploadRequest, Upload, UploadBlobState, upload_service_server::UploadService,
};
use colophon_testkit::peer::sha256;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{fake::Service, refusal};

/// The id of every upload.
pub const UPLOAD: &str = "019a4d1c-0000-7000-8000-0000000000aa";

/// What has come, and what stands in the way.
#[derive(Default)]
pub struct Uploads {
    /// Every `StartUpload` that arrived.
    pub started: Vec<StartUploadRequest>,
    /// What has come of each blob.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// The blobs that are there whole.
    pub present: Vec<String>,
    /// Every `PutBlob`: the digest, its offset, and the bytes that came.
    pub puts: Vec<(String, i64, usize)>,
    /// The largest message's content.
    pub largest: usize,
    /// How many blobs come now, and at most came at once.
    pub at_once: (usize, usize),
    /// Every manifest, in order.
    pub manifests: Vec<PutManifestRequest>,
    /// The next calls break off after so many bytes each.
    pub breaks: VecDeque<usize>,
    /// What every call is refused with after its first message.
    pub refuse: Option<Status>,
    /// What the next calls are refused with.
    pub refuse_next: VecDeque<Status>,
    /// So many questions about a blob are answered with "busy".
    pub busy: HashMap<String, u32>,
    /// Every upload that was abandoned.
    pub abandoned: Vec<String>,
    /// The pause after each message.
    pub pause: Duration,
}

impl Uploads {
    fn state(&mut self, digest: &str) -> UploadBlobState {
        let busy = self.busy.get_mut(digest).filter(|left| **left > 0);
        let busy = busy.map(|left| *left -= 1).is_some();
        UploadBlobState {
            digest: digest.to_owned(),
            present: self.present.iter().any(|present| present == digest),
            offset: self.offset(digest),
            busy,
        }
    }

    fn offset(&self, digest: &str) -> i64 {
        i64::try_from(self.blobs.get(digest).map_or(0, Vec::len)).unwrap()
    }

    /// The bytes that came in all calls together.
    pub fn came(&self) -> usize {
        self.puts.iter().map(|(_, _, bytes)| bytes).sum()
    }
}

/// Counts a stream for as long as it lives, also if its connection is lost.
struct Coming(Service);

impl Coming {
    fn new(service: &Service) -> Self {
        let mut script = service.held();
        let (now, most) = &mut script.uploads.at_once;
        *now += 1;
        *most = (*most).max(*now);
        drop(script);
        Self(service.clone())
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.held().uploads.at_once.0 -= 1;
    }
}

#[tonic::async_trait]
impl UploadService for Service {
    async fn start_upload(
        &self,
        request: Request<StartUploadRequest>,
    ) -> Result<Response<Upload>, Status> {
        let mut script = self.script(&request);
        script.uploads.started.push(request.into_inner());
        Ok(Response::new(Upload { id: UPLOAD.into(), ..Upload::default() }))
    }

    async fn get_upload(&self, _: Request<GetUploadRequest>) -> Result<Response<Upload>, Status> {
        Err(Status::internal("the test expected no such call"))
    }

    async fn find_blobs(
        &self,
        request: Request<FindBlobsRequest>,
    ) -> Result<Response<FindBlobsResponse>, Status> {
        let mut script = self.script(&request);
        let asked = request.into_inner();
        assert_eq!(asked.id, UPLOAD);
        let blobs = asked.blobs.iter().map(|blob| script.uploads.state(&blob.digest)).collect();
        Ok(Response::new(FindBlobsResponse { blobs }))
    }

    async fn put_blob(
        &self,
        request: Request<Streaming<PutBlobRequest>>,
    ) -> Result<Response<PutBlobResponse>, Status> {
        let _coming = Coming::new(self);
        let mut messages = request.into_inner();
        let first = messages.message().await?.ok_or_else(|| Status::internal("nothing came"))?;
        let (digest, size) = (first.digest.clone(), usize::try_from(first.size).unwrap());
        let (limit, pause, at) = {
            let mut script = self.held();
            let uploads = &mut script.uploads;
            let refused = uploads.refuse_next.pop_front().or_else(|| uploads.refuse.clone());
            if let Some(status) = refused {
                return Err(status);
            }
            if uploads.offset(&digest) != first.offset {
                return Err(refusal(Code::FailedPrecondition, "UPLOAD_OFFSET", "elsewhere"));
            }
            uploads.puts.push((digest.clone(), first.offset, 0));
            let limit = uploads.breaks.pop_front().unwrap_or(usize::MAX);
            (limit, uploads.pause, uploads.puts.len() - 1)
        };
        let mut next = Some(first);
        while let Some(message) = next {
            {
                let mut script = self.held();
                let uploads = &mut script.uploads;
                uploads.largest = uploads.largest.max(message.content.len());
                let left = limit - uploads.puts[at].2.min(limit);
                let content = &message.content[..message.content.len().min(left)];
                uploads.puts[at].2 += content.len();
                uploads.blobs.entry(digest.clone()).or_default().extend_from_slice(content);
                if uploads.puts[at].2 >= limit {
                    return Err(Status::unavailable("the server restarts"));
                }
            }
            tokio::time::sleep(pause).await;
            next = messages.message().await?;
        }
        let mut script = self.held();
        let uploads = &mut script.uploads;
        let came = uploads.blobs.entry(digest.clone()).or_default();
        let present = came.len() == size && sha256(came) == digest;
        let offset = i64::try_from(came.len()).unwrap();
        if present {
            uploads.present.push(digest);
        }
        Ok(Response::new(PutBlobResponse { offset, present }))
    }

    async fn put_manifest(
        &self,
        request: Request<PutManifestRequest>,
    ) -> Result<Response<PutManifestResponse>, Status> {
        let mut script = self.script(&request);
        let manifest = request.into_inner();
        let digest = manifest.digest.clone();
        assert_eq!(digest, sha256(&manifest.content));
        script.uploads.manifests.push(manifest);
        Ok(Response::new(PutManifestResponse { digest }))
    }

    async fn abandon_upload(
        &self,
        request: Request<AbandonUploadRequest>,
    ) -> Result<Response<AbandonUploadResponse>, Status> {
        self.script(&request).uploads.abandoned.push(request.into_inner().id);
        Ok(Response::new(AbandonUploadResponse {}))
    }
}
