//! Uploads on the gRPC face.

use axum::body::Bytes;
use colophon_api::v1::{self, upload_service_server::UploadService};
use colophon_domain::{Failure, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Grpc, asked_timeout, known};
use crate::{
    content::{self, Pieces},
    guard,
    health::Stopping,
    status,
};

/// A message carries at most so many bytes of a blob.
const PIECE_MOST: usize = 1 << 20;

#[tonic::async_trait]
impl UploadService for Grpc {
    async fn start_upload(
        &self,
        request: Request<v1::StartUploadRequest>,
    ) -> Result<Response<v1::Upload>, Status> {
        self.answer(request, |calls, caller, message| async move {
            calls.start_upload(&caller, message).await
        })
        .await
    }

    async fn get_upload(
        &self,
        request: Request<v1::GetUploadRequest>,
    ) -> Result<Response<v1::Upload>, Status> {
        self.answer(request, |calls, caller, message| async move {
            calls.get_upload(&caller, message).await
        })
        .await
    }

    async fn find_blobs(
        &self,
        request: Request<v1::FindBlobsRequest>,
    ) -> Result<Response<v1::FindBlobsResponse>, Status> {
        self.answer(request, |calls, caller, message| async move {
            calls.find_blobs(&caller, message).await
        })
        .await
    }

    /// Takes as long as the client sends, unless the client itself says when it has waited enough.
    async fn put_blob(
        &self,
        request: Request<Streaming<v1::PutBlobRequest>>,
    ) -> Result<Response<v1::PutBlobResponse>, Status> {
        let (metadata, extensions, mut messages) = request.into_parts();
        let (caller, id) = known(&extensions)?;
        let stopping = Stopping::of(&extensions);
        let put = async {
            let mut head = self.head(&mut messages).await?;
            let pieces = pieces(std::mem::take(&mut head.content).into(), messages);
            self.calls.put_blob(&caller, head, pieces, stopping).await
        };
        let put = match asked_timeout(&metadata) {
            None => put.await,
            Some(limit) => tokio::time::timeout(limit, put)
                .await
                .unwrap_or_else(|_| Err(guard::too_slow(limit))),
        };
        put.map(Response::new).map_err(|failure| status::refused(&failure, &id))
    }

    async fn put_manifest(
        &self,
        request: Request<v1::PutManifestRequest>,
    ) -> Result<Response<v1::PutManifestResponse>, Status> {
        self.answer(request, |calls, caller, message| async move {
            calls.put_manifest(&caller, message).await
        })
        .await
    }

    async fn abandon_upload(
        &self,
        request: Request<v1::AbandonUploadRequest>,
    ) -> Result<Response<v1::AbandonUploadResponse>, Status> {
        self.answer(request, |calls, caller, message| async move {
            calls.abandon_upload(&caller, message).await
        })
        .await
    }
}

impl Grpc {
    /// The message that names the blob.
    async fn head(
        &self,
        messages: &mut Streaming<v1::PutBlobRequest>,
    ) -> Result<v1::PutBlobRequest> {
        let first = tokio::time::timeout(self.call_timeout, messages.message()).await;
        match first.unwrap_or_else(|_| Ok(None)).map_err(|status| unread(&status))? {
            Some(head) => Ok(head),
            None => Err(Failure::invalid("id", "no message came that names the blob")
                .remedy("give id, digest and size in the first message")),
        }
    }
}

/// The content of the first message and of those that follow.
fn pieces(first: Bytes, messages: Streaming<v1::PutBlobRequest>) -> Pieces {
    let first = stream::once(future::ready(bounded(first)));
    first
        .chain(messages.map_err(|status| unread(&status)).map(|message| message.and_then(piece)))
        .boxed()
}

/// Only the first message names the blob: one that names another would end up in the wrong one.
fn piece(message: v1::PutBlobRequest) -> Result<Bytes> {
    let v1::PutBlobRequest { id, digest, size, offset, content } = message;
    let named = [
        ("id", !id.is_empty()),
        ("digest", !digest.is_empty()),
        ("size", size != 0),
        ("offset", offset != 0),
    ];
    if let Some((field, _)) = named.into_iter().find(|(_, given)| *given) {
        let text = format!("{field} is in a message behind the first one");
        return Err(Failure::invalid(field, text).remedy(
            "name the blob in the first message alone; send another blob in another call",
        ));
    }
    bounded(content.into())
}

fn bounded(content: Bytes) -> Result<Bytes> {
    if content.len() > PIECE_MOST {
        return Err(Failure::invalid("content", "a message has more than 1 MiB of content")
            .remedy("send the blob in more messages"));
    }
    Ok(content)
}

/// What the decoder says is the caller's mistake; everything else is a connection that broke.
fn unread(status: &Status) -> Failure {
    match status.code() {
        Code::Internal | Code::OutOfRange | Code::Unimplemented => status::unreadable(status),
        _ => content::broke_off(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_behind_the_first_have_nothing_but_content() {
        let content = v1::PutBlobRequest { content: "ab".into(), ..Default::default() };
        assert_eq!(piece(content).unwrap(), "ab");
        let field = |message| piece(message).unwrap_err().field_name().unwrap().to_owned();
        assert_eq!(field(v1::PutBlobRequest { size: 1, ..Default::default() }), "size");
        assert_eq!(
            field(v1::PutBlobRequest { digest: "a".into(), ..Default::default() }),
            "digest"
        );
        let large = vec![0; PIECE_MOST + 1];
        assert_eq!(field(v1::PutBlobRequest { content: large, ..Default::default() }), "content");
    }
}
