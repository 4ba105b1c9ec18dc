//! Digests in the making. One can be written down and taken up again, which is how a transfer goes
//! on in another process without reading anew what has arrived.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use colophon_domain::Algorithm;
use sha2::{
    Digest as _, Sha256, Sha512,
    digest::common::hazmat::{SerializableState, SerializedState},
};

/// A digest in the making.
#[derive(Clone)]
pub(crate) enum Hash {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hash {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    pub(crate) fn hex(self) -> String {
        match self {
            Self::Sha256(hash) => hex::encode(hash.finalize()),
            Self::Sha512(hash) => hex::encode(hash.finalize()),
        }
    }

    /// Its state, to be written down.
    pub(crate) fn state(&self) -> Vec<u8> {
        match self {
            Self::Sha256(hash) => hash.serialize().to_vec(),
            Self::Sha512(hash) => hash.serialize().to_vec(),
        }
    }

    /// The digest with a state that was written down; `None` if it cannot be one.
    pub(crate) fn restored(algorithm: Algorithm, state: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::Sha256 => restored(state).map(Self::Sha256),
            Algorithm::Sha512 => restored(state).map(Self::Sha512),
        }
    }
}

fn restored<T: SerializableState>(state: &[u8]) -> Option<T> {
    T::deserialize(&SerializedState::<T>::try_from(state).ok()?).ok()
}

/// The states of one blob's digest at some of its offsets. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Marks {
    algorithm: Algorithm,
    /// A state is kept at each multiple of this.
    every: u64,
    states: Arc<Mutex<BTreeMap<u64, Hash>>>,
}

impl Marks {
    pub(crate) fn new(algorithm: Algorithm, every: u64) -> Self {
        Self { algorithm, every: every.max(1), states: Arc::default() }
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<u64, Hash>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keep(&self, offset: u64, hash: Hash) {
        self.states().insert(offset, hash);
    }

    /// The state at an offset, if it was kept.
    pub(crate) fn at(&self, offset: u64) -> Option<Hash> {
        self.states().get(&offset).cloned()
    }

    /// The last state that was kept at an offset or before it; that of the begin without one.
    pub(crate) fn before(&self, offset: u64) -> (u64, Hash) {
        let states = self.states();
        let last = states.range(..=offset).next_back();
        last.map_or_else(
            || (0, Hash::new(self.algorithm)),
            |(offset, hash)| (*offset, hash.clone()),
        )
    }

    pub(crate) fn clear(&self) {
        self.states().clear();
    }

    /// Adds bytes that begin at an offset, and keeps the states on the way.
    pub(crate) fn update(&self, hash: &mut Hash, mut offset: u64, mut bytes: &[u8]) {
        loop {
            let next = (offset / self.every).saturating_add(1).saturating_mul(self.every);
            let Some((now, later)) = usize::try_from(next - offset)
                .ok()
                .and_then(|length| bytes.split_at_checked(length))
            else {
                return hash.update(bytes);
            };
            hash.update(now);
            self.keep(next, hash.clone());
            (offset, bytes) = (next, later);
        }
    }
}

#[cfg(test)]
mod tests {
    use colophon_domain::Digest;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_digest_goes_on_from_any_state_that_was_kept(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            every in 1_u64..300,
            pieces in prop::collection::vec(1_usize..400, 1..10),
            offset in 0_u64..2000,
            long in any::<bool>(),
        ) {
            let algorithm = if long { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let whole = Digest::of(algorithm, &bytes);
            let marks = Marks::new(algorithm, every);
            let (mut hash, mut at) = (Hash::new(algorithm), 0);
            for length in pieces.iter().cycle() {
                let piece = &bytes[at..(at + length).min(bytes.len())];
                marks.update(&mut hash, at as u64, piece);
                at += piece.len();
                if at == bytes.len() {
                    break;
                }
            }
            prop_assert_eq!(hash.hex(), whole.hex());
            let (start, kept) = marks.before(offset);
            prop_assert!(start <= offset && start.is_multiple_of(every));
            prop_assert!(offset > bytes.len() as u64 || offset - start < every);
            let mut hash = Hash::restored(algorithm, &kept.state()).unwrap();
            hash.update(&bytes[usize::try_from(start).unwrap()..]);
            prop_assert_eq!(hash.hex(), whole.hex());
        }
    }

    #[test]
    fn what_is_no_state_is_refused() {
        let state = Hash::new(Algorithm::Sha256).state();
        assert!(Hash::restored(Algorithm::Sha512, &state).is_none());
        assert!(Hash::restored(Algorithm::Sha256, &state[1..]).is_none());
        assert!(Hash::restored(Algorithm::Sha256, &vec![0xff; state.len()]).is_none());
    }
}
