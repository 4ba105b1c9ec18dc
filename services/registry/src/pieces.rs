//! The arithmetic of an upload in pieces (distribution-spec, "Pushing a blob in chunks"): where a
//! request ends that begins somewhere, and where an upload stands that broke off.

use http::{HeaderMap, header};

/// A blob of up to so many chunks is sent in one request, which is the fastest way.
const FEW: u64 = 4;

/// What comes from a client comes once, and a piece that broke off is sent again: pieces are a small
/// part of the blob, and no smaller than this.
const PARTS: u64 = 64;
const LEAST: u64 = 1 << 20;

/// How a blob is cut: at the multiples of a chunk's size, wherever its upload begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    pub size: u64,
    chunk: u64,
}

impl Grid {
    pub(crate) fn new(size: u64, chunk: u64) -> Self {
        Self { size, chunk: chunk.max(1) }
    }

    /// For what a client sends: in small pieces, none of which is larger than a chunk.
    pub(crate) fn fine(size: u64, chunk: u64) -> Self {
        let part = size.div_ceil(PARTS).max(1).div_ceil(LEAST).saturating_mul(LEAST);
        Self::new(size, part.min(chunk))
    }

    /// Whether the blob is so large that it is sent in pieces, and gone on with.
    pub(crate) fn is_cut(self) -> bool {
        self.size / FEW >= self.chunk && self.size > self.chunk * FEW
    }

    /// Where digests are kept: where pieces end.
    pub(crate) fn chunk(self) -> u64 {
        self.chunk
    }

    /// The end of the piece that begins at `from` and has `least` bytes, unless it is the last.
    pub(crate) fn end(self, from: u64, least: u64) -> u64 {
        let next = (from / self.chunk).saturating_add(1).saturating_mul(self.chunk);
        let more = least.saturating_sub(next - from).div_ceil(self.chunk);
        next.saturating_add(more.saturating_mul(self.chunk)).min(self.size)
    }
}

/// The bytes that an upload has, as its `Range` says; that of an empty one is mostly `0-0`.
pub(crate) fn said(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::RANGE)?.to_str().ok()?.trim();
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    match range.strip_prefix("0-")?.trim().parse().ok()? {
        0 => Some(0),
        last => u64::checked_add(last, 1),
    }
}

/// Where to go on with an upload that broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stands {
    /// At this offset.
    At(u64),
    /// At this offset, where the registry has just refused a chunk: it takes none, or none of
    /// that size.
    Whole(u64),
    /// Nobody knows.
    Lost,
}

/// What counts: what was confirmed, or what the registry says now. It may have more than it
/// confirmed, of a chunk that broke off. If it says less, it may be one whose `Range` stays at the
/// first chunk, and is believed once it has refused to go on at what was confirmed.
pub(crate) fn stands(size: u64, confirmed: u64, said: Option<u64>, refused: Option<u64>) -> Stands {
    match said {
        Some(said) if said > size => Stands::Lost,
        Some(said) if refused == Some(said) => Stands::Whole(said),
        Some(said) if said >= confirmed || refused.is_some() => Stands::At(said),
        None if refused.is_some() => Stands::Lost,
        _ => Stands::At(confirmed),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_cover_a_blob_once_and_meet_at_the_same_places_wherever_one_begins(
            size in 1_u64..100_000, chunk in 1_u64..5000, from in 0_u64..100_000, least in 0_u64..9000,
        ) {
            let grid = Grid::new(size, chunk);
            let mut at = from % size;
            let mut last = false;
            while at < size {
                prop_assert!(!last);
                let end = grid.end(at, least);
                prop_assert!(end > at && end <= size);
                prop_assert!(end == size || end.is_multiple_of(chunk) && end - at >= least);
                prop_assert!(end - at <= chunk.max(least + chunk - 1));
                last = end == size;
                at = end;
            }
        }

        #[test]
        fn no_number_makes_the_arithmetic_fail(
            size in any::<u64>(), chunk in any::<u64>(), from in any::<u64>(), least in any::<u64>(),
        ) {
            let grid = Grid::new(size, chunk);
            prop_assert!(grid.end(from.min(size), least) <= size);
            prop_assert!(!grid.is_cut() || grid.size > grid.chunk);
        }

        #[test]
        fn an_upload_goes_on_within_the_blob(
            size in 0_u64..50, confirmed in 0_u64..50, said: Option<u8>, refused: Option<u8>,
        ) {
            let confirmed = confirmed.min(size);
            match stands(size, confirmed, said.map(u64::from), refused.map(u64::from)) {
                Stands::At(at) | Stands::Whole(at) => prop_assert!(at <= size),
                Stands::Lost => prop_assert!(refused.is_some() || said.map(u64::from) > Some(size)),
            }
        }
    }

    #[test]
    fn of_what_a_client_sends_a_small_part_is_lost_at_most() {
        let mib = |number: u64| number << 20;
        let chunk = |size| Grid::fine(size, mib(64)).chunk();
        assert_eq!([chunk(0), chunk(mib(4)), chunk(mib(64))], [mib(1); 3]);
        assert_eq!([chunk(mib(65)), chunk(mib(640)), chunk(mib(9000))], [mib(2), mib(10), mib(64)]);
        assert!(!Grid::fine(mib(4), mib(64)).is_cut() && Grid::fine(mib(5), mib(64)).is_cut());
        assert_eq!(Grid::fine(mib(640), mib(4)).chunk(), mib(4));
        assert!(Grid::fine(u64::MAX, u64::MAX).is_cut());
    }

    #[test]
    fn only_large_blobs_are_cut() {
        let cut = |size, chunk| Grid::new(size, chunk).is_cut();
        assert_eq!(
            [cut(0, 0), cut(4, 1), cut(5, 1), cut(40, 10), cut(41, 10)],
            [false, false, true, false, true]
        );
        assert!(!cut(u64::MAX, u64::MAX));
    }

    #[test]
    fn ranges_are_read_as_registries_write_them() {
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_static(text));
            said(&headers)
        };
        assert_eq!(read("0-99"), Some(100));
        assert_eq!(read("bytes=0-99"), Some(100));
        assert_eq!(read("0-0"), Some(0));
        assert_eq!([read("5-9"), read("0-"), read("0--1"), read("x")], [None; 4]);
        assert_eq!(read("0-18446744073709551615"), None);
        assert_eq!(said(&HeaderMap::new()), None);
    }

    #[test]
    fn what_was_confirmed_counts_until_the_registry_refuses_it() {
        assert_eq!(stands(9, 4, Some(6), None), Stands::At(6));
        assert_eq!(stands(9, 4, Some(2), None), Stands::At(4));
        assert_eq!(stands(9, 4, Some(2), Some(4)), Stands::At(2));
        assert_eq!(stands(9, 4, Some(4), Some(4)), Stands::Whole(4));
        assert_eq!(stands(9, 0, Some(0), Some(0)), Stands::Whole(0));
        assert_eq!(stands(9, 4, None, None), Stands::At(4));
        assert_eq!(stands(9, 4, None, Some(4)), Stands::Lost);
        assert_eq!(stands(9, 4, Some(10), None), Stands::Lost);
    }
}
