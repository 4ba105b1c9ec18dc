//! Reading a blob (distribution-spec, "Pulling blobs"): in pieces, with the digest computed
//! beside the transfer, from any offset on, and resumed where it broke off. The last piece is held back until the
//! digest is known to be right, so that whoever passes the pieces on can never complete a
//! wrong blob.

use bytes::Bytes;
use colophon_domain::{Algorithm, Digest, Failure, Reason, Result, Retry};
use http::{HeaderValue, Method, StatusCode, header};
use reqwest::Response;
use tokio::time::Instant;

use crate::{
    body::Source,
    exchange::{Call, delays},
    hash::{Hash, Marks},
    manifest::Descriptor,
    manifests::range_start,
    rate::Rate,
    session::Session,
    transport,
};

/// A download that breaks off more often than this is given up.
const MOST_RESUMES: u32 = 50;
/// So is one that is too slow for this many times of its idle timeout.
const MOST_SLOW: u8 = 3;

/// A blob that is being read.
pub(crate) struct Download {
    session: Session,
    blob: Descriptor,
    size: u64,
    hash: Hash,
    marks: Marks,
    /// How many bytes were read and hashed.
    offset: u64,
    response: Option<Response>,
    /// Bytes at the start of the answer that were read before.
    skip: u64,
    held: Option<Bytes>,
    verified: bool,
    delays: backon::ExponentialBackoff,
    resumes: u32,
    rate: Rate,
    slow: u8,
}

impl Download {
    /// Asks for the blob from an offset on, or from a little before it: from where `marks` has the
    /// state of its digest. What is read adds to `marks`. Nothing is asked for where nothing is left.
    ///
    /// # Errors
    /// `SOURCE_GONE` if the registry does not have it.
    pub(crate) async fn open(
        session: &Session,
        blob: &Descriptor,
        marks: &Marks,
        from: u64,
    ) -> Result<Self> {
        let (offset, hash) = marks.before(from);
        let mut download = Self {
            session: session.clone(),
            blob: blob.clone(),
            size: u64::try_from(blob.size).unwrap_or_default(),
            hash,
            marks: marks.clone(),
            offset,
            response: None,
            skip: 0,
            held: None,
            verified: false,
            delays: delays(),
            resumes: 0,
            rate: Rate::new(session.host.config.idle_timeout),
            slow: 0,
        };
        if download.offset < download.size {
            download.ask().await?;
        }
        Ok(download)
    }

    fn verify(&mut self) -> Result<()> {
        let empty = Hash::new(Algorithm::Sha256);
        let found = std::mem::replace(&mut self.hash, empty).hex();
        if found != self.blob.digest.hex() {
            return Err(self.mismatch(&format!("its content has the digest {found}")));
        }
        self.verified = true;
        Ok(())
    }

    fn mismatch(&self, what: &str) -> Failure {
        self.asked(|asked| asked.failure(Reason::DigestMismatch, what))
    }

    fn asked<T>(&self, make: impl FnOnce(&crate::answer::Asked<'_>) -> T) -> T {
        make(&self.session.asked(reading(&self.blob.digest), false))
    }

    /// The next bytes that were not read before, whatever it takes.
    async fn read(&mut self) -> Result<Bytes> {
        loop {
            match self.read_once().await {
                Ok(piece) => {
                    self.delays = delays();
                    return Ok(piece);
                }
                Err(failure) if failure.retry_class() == Retry::Backoff => {
                    self.response = None;
                    self.resumes += 1;
                    let more = self.resumes <= MOST_RESUMES && self.slow < MOST_SLOW;
                    let delay = self.delays.next().filter(|_| more);
                    let Some(delay) = delay else { return Err(failure) };
                    tracing::debug!(
                        repository = %self.session.repository, digest = %self.blob.digest,
                        offset = self.offset, "the download broke off and is resumed"
                    );
                    tokio::time::sleep(delay).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn read_once(&mut self) -> Result<Bytes> {
        if self.response.is_none() {
            self.ask().await?;
        }
        let idle = self.session.host.config.idle_timeout;
        loop {
            let Some(response) = self.response.as_mut() else {
                return Err(self.asked(|asked| asked.unavailable("the connection broke")));
            };
            let begin = Instant::now();
            let next = tokio::time::timeout(idle, response.chunk()).await;
            let length = next.as_ref().map_or(0, |next| {
                next.as_ref().ok().and_then(Option::as_ref).map_or(0, |piece| piece.len() as u64)
            });
            let too_slow = self.rate.too_slow(begin.elapsed(), length);
            self.slow += u8::from(too_slow);
            let piece = match next {
                // What came is lost, but not the blob's end.
                Ok(Ok(Some(_))) if too_slow && self.offset + length < self.size => {
                    return Err(self.asked(|asked| asked.unavailable("too few bytes in time")));
                }
                Ok(Ok(Some(piece))) => piece,
                Ok(Ok(None)) => {
                    return Err(self.asked(|asked| asked.unavailable("the answer ended early")));
                }
                Ok(Err(error)) => {
                    return Err(self.asked(|asked| transport::explain(error, asked)));
                }
                Err(_) => return Err(self.asked(|asked| asked.unavailable("no bytes in time"))),
            };
            if let Some(piece) = self.trim(piece)? {
                return Ok(piece);
            }
        }
    }

    /// Drops what was read before, and refuses what is too much.
    fn trim(&mut self, mut piece: Bytes) -> Result<Option<Bytes>> {
        let length = piece.len() as u64;
        if self.skip >= length {
            self.skip -= length;
            return Ok(None);
        }
        let fresh = piece.split_off(usize::try_from(self.skip).unwrap_or_default());
        self.skip = 0;
        if fresh.len() as u64 > self.size - self.offset {
            return Err(self.mismatch(&format!("it is larger than {} bytes", self.size)));
        }
        Ok(Some(fresh))
    }

    #[tracing::instrument(level = "debug", name = "registry.blob.download", skip_all, fields(registry = %self.session.host.name, repository = self.session.repository.name(), digest = %self.blob.digest, offset = self.offset))]
    async fn ask(&mut self) -> Result<()> {
        let session = self.session.clone();
        let digest = &self.blob.digest;
        let url = session.url(&format!("blobs/{digest}"));
        let mut call = Call::reading(&session, Method::GET, url, reading(digest));
        let asked = call.asked.clone();
        if self.offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.offset))
                .map_err(|error| asked.failure(Reason::Internal, "odd range").caused_by(error))?;
            call.headers.insert(header::RANGE, range);
        }
        let response = session.follow(call).await?;
        let start = match response.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => range_start(&response)
                .filter(|start| *start <= self.offset)
                .ok_or_else(|| asked.protocol("the answer is another range than asked for"))?,
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                return Err(asked.failure(Reason::SourceGone, "the registry does not have it"));
            }
            _ => return Err(session.refusal(response, &asked).await.into_failure(&asked)),
        };
        let announced = response.content_length().map(|length| start + length);
        if announced.is_some_and(|announced| announced != self.size) {
            let promised = self.size;
            return Err(self.mismatch(&format!("it has not the {promised} bytes promised")));
        }
        self.skip = self.offset - start;
        self.response = Some(response);
        Ok(())
    }
}

impl Source for Download {
    fn start(&self) -> u64 {
        self.offset
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        while !self.verified {
            if self.offset == self.size {
                self.verify()?;
                break;
            }
            let piece = self.read().await?;
            self.marks.update(&mut self.hash, self.offset, &piece);
            self.offset += piece.len() as u64;
            if let Some(before) = self.held.replace(piece) {
                return Ok(Some(before));
            }
        }
        Ok(self.held.take())
    }
}

fn reading(digest: &Digest) -> String {
    format!("reading the blob {digest}")
}
