//! An answer that holds its caller's place until it has been sent: one that asks for much and reads
//! nothing must not fill the memory with answers.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};

use crate::places::Place;

/// What is handed to the connection at once, in bytes. The connection takes a whole frame as soon as
/// its peer takes one byte, so an answer in one frame would count as sent too soon.
const FRAME: usize = 16 << 10;

/// The answer, in frames of bounded size.
struct Sent {
    body: Body,
    /// What is left of the frame that the answer gave last.
    rest: Bytes,
    _place: Place,
}

/// Lets the answer hold the place until its last frame was taken, or its connection is gone.
pub(crate) fn until_sent(body: Body, place: Place) -> Body {
    Body::new(Sent { body, rest: Bytes::new(), _place: place })
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)?) {
                None => return Poll::Ready(None),
                Some(frame) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
            }
        }
        let next = self.rest.len().min(FRAME);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(next)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (of_body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower().saturating_add(rest));
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::places::Places;

    #[tokio::test]
    async fn the_place_is_held_until_the_last_frame_was_taken() {
        let places = Places::new(1);
        let whole = vec![7_u8; 2 * FRAME + 1];
        let mut body = until_sent(Body::from(whole.clone()), places.take("ci").unwrap());
        assert_eq!(body.size_hint().exact(), Some(whole.len() as u64));
        let mut got = Vec::new();
        for length in [FRAME, FRAME, 1] {
            assert!(!body.is_end_stream());
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(frame.len(), length);
            got.extend_from_slice(&frame);
            assert_eq!(body.size_hint().exact(), Some((whole.len() - got.len()) as u64));
            assert!(places.take("ci").is_none());
        }
        assert!(body.is_end_stream());
        assert!(body.frame().await.is_none());
        assert_eq!(got, whole);
        drop(body);
        places.take("ci").unwrap();
    }
}
