//! Sends the blobs that the repository lacks, several at once, each from where it stands. What came
//! before a connection broke off counts: the service is asked how far the blob is, and the rest goes
//! on from there.

use std::time::{Duration, Instant};

use colophon_api::v1::{
    FindBlobsRequest, PutBlobRequest, PutBlobResponse, UploadBlob, UploadBlobState,
};
use colophon_domain::{Reason, Retry};
use colophon_local::{Blob, Image, LocalError, PieceReader};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{ladder::Ladder, local_problem, manifests::AWAY, view::View};
use crate::{
    call::{Patience, call, judge},
    connect::Client,
    exit::{Exit, Problem},
    progress::Notes as _,
    submit::ATTEMPT,
    text::short_digest,
};

/// The contract's bound of one question.
const ASKED_AT_ONCE: usize = 1000;
/// Pieces that wait between the disk and the network.
const WAITING: usize = 2;
/// How long nothing of a blob may leave.
const STALL: Duration = Duration::from_mins(5);
/// How long a registry may take to close a blob that has come whole.
const CLOSING: Duration = Duration::from_mins(15);

/// Sends the blobs of one image.
pub struct Sender<'a> {
    /// The server.
    pub client: &'a Client,
    /// The upload's id.
    pub upload: &'a str,
    /// Where the blobs are.
    pub image: &'a Image,
    /// Who watches.
    pub view: &'a View,
    /// How many attempts in a row may bring nothing.
    pub attempts: u32,
}

/// Why an attempt did not bring the whole blob.
enum Missed {
    /// Somebody else sends it, or the server takes no more at once.
    Busy,
    /// It may go better again, after this time if the server asks for one.
    Again(Problem, Duration),
    /// It will not.
    Never(Problem),
}

impl Sender<'_> {
    /// Sends all that are missing, so many at once.
    pub async fn blobs(&self, streams: u8) -> Result<(), Problem> {
        let blobs = &self.image.blobs;
        let mut missing = Vec::new();
        for some in blobs.chunks(ASKED_AT_ONCE) {
            let states = self.find_some(some).await?;
            missing.extend(some.iter().zip(states).filter(|(_, state)| !state.present));
        }
        let total = missing.iter().fold(0, |sum: u64, (blob, _)| sum.saturating_add(blob.size));
        self.view.begin(blobs.len(), missing.len(), total);
        stream::iter(missing)
            .map(|(blob, state)| self.blob(blob, state))
            .buffer_unordered(usize::from(streams))
            .try_collect()
            .await
    }

    async fn find_some(&self, blobs: &[Blob]) -> Result<Vec<UploadBlobState>, Problem> {
        let request = self.question(blobs);
        let patience = Patience { attempt: ATTEMPT, until: Instant::now() + AWAY };
        let mut view = self.view;
        let answer = call(patience, &mut view, || {
            let (mut uploads, request) = (self.client.uploads.clone(), request.clone());
            async move { uploads.find_blobs(request).await }
        });
        let states = answer.await?.blobs;
        let same = |(state, blob): (&UploadBlobState, &Blob)| state.digest == blob.digest.as_str();
        if states.len() == blobs.len() && states.iter().zip(blobs).all(same) {
            return Ok(states);
        }
        Err(Problem::new(Exit::Refused, "the server answered about other blobs than it was asked"))
    }

    fn question(&self, blobs: &[Blob]) -> FindBlobsRequest {
        let asked =
            |blob: &Blob| UploadBlob { digest: blob.digest.to_string(), size: signed(blob.size) };
        FindBlobsRequest { id: self.upload.to_owned(), blobs: blobs.iter().map(asked).collect() }
    }

    /// Sends one blob until it is there, or there is no hope.
    async fn blob(&self, blob: &Blob, first: UploadBlobState) -> Result<(), Problem> {
        let digest = blob.digest.as_str();
        let mut ladder = Ladder::new(self.attempts);
        let mut known = Some(first);
        loop {
            let tried = self.attempt(blob, known.take(), &mut ladder).await;
            let pause = match tried {
                Ok(()) => {
                    self.view.arrived(digest, blob.size);
                    return Ok(());
                }
                Err(Missed::Never(problem)) => return Err(problem),
                Err(Missed::Busy) => ladder.busy(),
                Err(Missed::Again(problem, asked)) => match ladder.missed() {
                    Some(pause) => {
                        let mut view = self.view;
                        let name = short_digest(digest);
                        view.note(&format!(
                            "{name}: {}; going on where it stands",
                            problem.message
                        ));
                        pause.max(asked)
                    }
                    None => return Err(self.hopeless(blob, &ladder, problem)),
                },
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks how far the blob is, unless that is known, and sends the rest.
    async fn attempt(
        &self,
        blob: &Blob,
        known: Option<UploadBlobState>,
        ladder: &mut Ladder,
    ) -> Result<(), Missed> {
        let state = match known {
            Some(state) => state,
            None => self.find(blob).await?,
        };
        if state.present {
            return Ok(());
        }
        if state.busy {
            return Err(Missed::Busy);
        }
        let offset = u64::try_from(state.offset).unwrap_or(0);
        ladder.stands_at(offset);
        self.view.stands(blob.digest.as_str(), blob.size, offset);
        let answer = self.put(blob, offset).await?;
        if answer.present {
            return Ok(());
        }
        ladder.stands_at(u64::try_from(answer.offset).unwrap_or(0));
        let text = format!("the server has {} of {} bytes", answer.offset, blob.size);
        Err(Missed::Again(Problem::new(Exit::Refused, text), Duration::ZERO))
    }

    async fn find(&self, blob: &Blob) -> Result<UploadBlobState, Missed> {
        let request = self.question(std::slice::from_ref(blob));
        let mut uploads = self.client.uploads.clone();
        let answer = timeout(ATTEMPT, uploads.find_blobs(request)).await.map_err(|_| silent())?;
        let answer = answer.map_err(|status| missed(&status))?.into_inner();
        answer.blobs.into_iter().next().ok_or_else(|| {
            Missed::Never(Problem::new(Exit::Refused, "the server says nothing about a blob"))
        })
    }

    async fn put(&self, blob: &Blob, offset: u64) -> Result<PutBlobResponse, Missed> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut uploads = self.client.uploads.clone();
        let call = uploads.put_blob(ReceiverStream::new(receiver));
        let mut call = std::pin::pin!(call);
        let answer = tokio::select! {
            biased;
            // An answer before the end is a refusal, or another has brought the blob.
            answer = &mut call => answer,
            fed = self.feed(blob, offset, sender) => {
                fed?;
                timeout(CLOSING, call).await.map_err(|_| silent())?
            }
        };
        answer.map(tonic::Response::into_inner).map_err(|status| missed(&status))
    }

    /// Reads the rest of the blob into the call.
    async fn feed(
        &self,
        blob: &Blob,
        offset: u64,
        into: mpsc::Sender<PutBlobRequest>,
    ) -> Result<(), Missed> {
        let mut pieces: PieceReader = self.image.read(blob, offset);
        let mut at = offset;
        let mut message = PutBlobRequest {
            id: self.upload.to_owned(),
            digest: blob.digest.to_string(),
            size: signed(blob.size),
            offset: signed(offset),
            content: Vec::new(),
        };
        loop {
            let piece = pieces.next().await.map_err(|error| unreadable(&error))?;
            // The first message goes out even where nothing is left: it names the blob.
            let first = !message.digest.is_empty();
            message.content = match piece {
                Some(piece) => piece.into(),
                None if first => Vec::new(),
                None => return Ok(()),
            };
            at = at.saturating_add(message.content.len() as u64);
            match timeout(STALL, into.send(std::mem::take(&mut message))).await {
                Ok(Ok(())) => self.view.stands(blob.digest.as_str(), blob.size, at),
                // The call is over, and says why.
                Ok(Err(_)) => return Ok(()),
                Err(_) => return Err(silent()),
            }
        }
    }

    fn hopeless(&self, blob: &Blob, ladder: &Ladder, last: Problem) -> Problem {
        let message = format!(
            "{}: {}; {} attempts in a row brought nothing, {} of {} bytes are there",
            blob.digest,
            last.message,
            self.attempts,
            ladder.best(),
            blob.size
        );
        let remedy = "run the same command again: it goes on where it stands";
        Problem { message, ..last }.remedy(remedy)
    }
}

/// Sizes of blobs stay far below the contract's greatest number.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn unreadable(error: &LocalError) -> Missed {
    Missed::Never(local_problem(error))
}

fn silent() -> Missed {
    let problem = Problem::new(Exit::Unreachable, "the server did not go on");
    Missed::Again(problem, Duration::ZERO)
}

fn missed(status: &Status) -> Missed {
    let miss = judge(status);
    // Only what the server itself gives as a reason counts: a code can mean anything.
    let details = status.get_error_details();
    let info = details.error_info();
    let reason = info.and_then(|info| Reason::parse(&info.reason));
    match (reason, miss.again) {
        (Some(Reason::UploadBusy | Reason::UploadLimit), _) => Missed::Busy,
        (Some(Reason::UploadOffset | Reason::LeaseLost), _) | (_, Retry::Backoff) => {
            Missed::Again(miss.problem, Duration::ZERO)
        }
        (_, Retry::Wait(asked)) => Missed::Again(miss.problem, asked),
        // What a stream that breaks off looks like where something stands in between.
        (_, Retry::Never) if info.is_none() && broken(status.code()) => {
            Missed::Again(miss.problem, Duration::ZERO)
        }
        (_, Retry::Never) => Missed::Never(miss.problem),
    }
}

fn broken(code: Code) -> bool {
    matches!(code, Code::Unknown | Code::Internal | Code::Cancelled)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn refused(code: Code, reason: &str) -> Missed {
        let details = ErrorDetails::with_error_info(reason, "colophon", HashMap::new());
        missed(&Status::with_error_details(code, "no", details))
    }

    #[test]
    fn what_passes_is_tried_again_and_what_does_not_ends_the_push() {
        for reason in ["UPLOAD_BUSY", "UPLOAD_LIMIT"] {
            assert!(matches!(refused(Code::Aborted, reason), Missed::Busy), "{reason}");
        }
        for reason in ["UPLOAD_OFFSET", "LEASE_LOST"] {
            let refused = refused(Code::FailedPrecondition, reason);
            assert!(matches!(refused, Missed::Again(..)), "{reason}");
        }
        for status in [Status::unavailable("x"), Status::unknown("x"), Status::cancelled("x")] {
            assert!(matches!(missed(&status), Missed::Again(..)), "{status:?}");
        }
        for reason in ["PERMISSION_DENIED", "UPLOAD_TOO_LARGE", "NOT_FOUND", "INTERNAL"] {
            let refused = refused(Code::FailedPrecondition, reason);
            assert!(matches!(refused, Missed::Never(_)), "{reason}");
        }
    }
}
