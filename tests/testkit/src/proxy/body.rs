//! Bodies that end too early or come slowly, as streams.

use std::{io, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::sleep;

/// How often a slow body gets a piece.
const PIECES_PER_SECOND: u64 = 20;

/// The first `limit` bytes, then an error, which closes the connection.
pub(crate) fn cut(body: Body, limit: u64) -> Body {
    let start = (body.into_data_stream(), limit);
    let pieces = stream::try_unfold(start, |(mut data, left)| async move {
        if left == 0 {
            return Err(cut_off());
        }
        match data.next().await {
            None => Err(cut_off()),
            Some(Err(error)) => Err(io::Error::other(error)),
            Some(Ok(mut piece)) => {
                piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - piece.len() as u64;
                Ok(Some((piece, (data, left))))
            }
        }
    });
    Body::from_stream(pieces)
}

/// The same bytes, at most `rate` per second.
pub(super) fn slow(body: Body, rate: u64) -> Body {
    let size = usize::try_from(rate.div_ceil(PIECES_PER_SECOND)).unwrap_or(usize::MAX).max(1);
    let start = (body.into_data_stream(), Bytes::new());
    let pieces = stream::try_unfold(start, move |(mut data, mut rest)| async move {
        while rest.is_empty() {
            match data.next().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(io::Error::other(error)),
                Some(Ok(piece)) => rest = piece,
            }
        }
        let piece = rest.split_to(size.min(rest.len()));
        sleep(Duration::from_micros(piece.len() as u64 * 1_000_000 / rate.max(1))).await;
        Ok(Some((piece, (data, rest))))
    });
    Body::from_stream(pieces)
}

/// The same bytes but for one bit.
pub(super) fn flipped(bytes: &Bytes, at: u64) -> Bytes {
    let mut bytes = bytes.to_vec();
    let last = bytes.len().saturating_sub(1);
    let at = usize::try_from(at).unwrap_or(usize::MAX).min(last);
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1;
    }
    Bytes::from(bytes)
}

/// Reads a body to its end and forgets it.
pub(super) async fn drain(mut body: Incoming) {
    while let Some(Ok(_)) = body.frame().await {}
}

fn cut_off() -> io::Error {
    io::Error::other("cut by a rule")
}
