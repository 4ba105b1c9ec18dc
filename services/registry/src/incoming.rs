//! The content of a blob as a client sends it: hashed on the way, and no more of it than was promised.
//! The last piece is not handed on before the digest is known to be right, so that no wrong blob can be
//! completed. Unlike what is read from a registry it comes once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use colophon_domain::{Digest, Failure, Reason, Result, Retry};
use futures_util::{StreamExt as _, stream::BoxStream};
use tokio::time::Instant;

use crate::{
    body::Source,
    hash::{Hash, Marks},
    rate::Rate,
};

/// What a client sends.
pub(crate) struct Incoming {
    content: BoxStream<'static, Result<Bytes>>,
    digest: Digest,
    size: u64,
    marks: Marks,
    /// The state of the digest over all before the offset; none after the digest was found right.
    hash: Option<Hash>,
    start: u64,
    offset: u64,
    idle: Duration,
    rate: Rate,
    short: Arc<AtomicBool>,
}

impl Incoming {
    /// Content that begins at an offset at which `marks` has the state of the digest. A client that
    /// sends nothing for `idle`, or too little, is given up; `short` is set when it ends before the
    /// blob does.
    pub(crate) fn new(
        content: BoxStream<'static, Result<Bytes>>,
        (digest, size): (&Digest, u64),
        marks: &Marks,
        offset: u64,
        idle: Duration,
        short: &Arc<AtomicBool>,
    ) -> Self {
        let (start, hash) = marks.before(offset);
        Self {
            content,
            digest: digest.clone(),
            size,
            marks: marks.clone(),
            hash: Some(hash),
            start,
            offset: start,
            idle,
            rate: Rate::new(idle),
            short: Arc::clone(short),
        }
    }

    async fn read(&mut self) -> Result<Bytes> {
        let begin = Instant::now();
        let next = tokio::time::timeout(self.idle, self.content.next()).await;
        let slow = |text: String| Failure::new(Reason::Timeout, text).retry(Retry::Backoff);
        let Ok(next) = next else {
            return Err(slow(format!("nothing more came of the blob {} in time", self.digest)));
        };
        let Some(piece) = next else {
            self.short.store(true, Ordering::Release);
            let text = format!("the content of the blob {} ends before it does", self.digest);
            return Err(Failure::new(Reason::DigestMismatch, text).retry(Retry::Backoff));
        };
        let piece = piece?;
        let length = piece.len() as u64;
        if length > self.size - self.offset {
            let text = format!("the blob {} is larger than {} bytes", self.digest, self.size);
            return Err(Failure::new(Reason::DigestMismatch, text)
                .field("content")
                .remedy("send what the manifest names, with its size"));
        }
        if self.rate.too_slow(begin.elapsed(), length) && self.offset + length < self.size {
            return Err(slow(format!("too little came of the blob {} in time", self.digest)));
        }
        Ok(piece)
    }

    fn verify(&mut self) -> Result<()> {
        let Some(hash) = self.hash.take() else { return Ok(()) };
        let found = hash.hex();
        if found == self.digest.hex() {
            return Ok(());
        }
        let text = format!("the content of the blob {} has the digest {found}", self.digest);
        Err(Failure::new(Reason::DigestMismatch, text)
            .field("content")
            .remedy("nothing of it was kept; send it again from its start"))
    }
}

impl Source for Incoming {
    fn start(&self) -> u64 {
        self.start
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.offset == self.size {
            // Nothing is left to come; or all has come, and was found right.
            self.verify()?;
            return Ok(None);
        }
        let piece = loop {
            let piece = self.read().await?;
            if !piece.is_empty() {
                break piece;
            }
        };
        if let Some(hash) = &mut self.hash {
            self.marks.update(hash, self.offset, &piece);
        }
        self.offset += piece.len() as u64;
        if self.offset == self.size {
            self.verify()?;
        }
        Ok(Some(piece))
    }
}
