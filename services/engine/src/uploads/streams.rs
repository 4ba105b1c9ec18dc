//! How many blobs each caller sends at the same time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use colophon_domain::{Failure, Reason, Result, Retry};

/// When a caller may come back.
const PAUSE: Duration = Duration::from_secs(2);

/// Those of the process.
#[derive(Default)]
pub(crate) struct Streams(Mutex<HashMap<String, u32>>);

/// One of them, until it is dropped.
pub(super) struct Stream {
    streams: Arc<Streams>,
    caller: String,
}

impl Streams {
    fn counts(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more for a caller.
    ///
    /// # Errors
    /// `UPLOAD_LIMIT` if there are `most` of them.
    pub(super) fn begin(self: &Arc<Self>, caller: &str, most: u32) -> Result<Stream> {
        let mut counts = self.counts();
        let count = counts.entry(caller.to_owned()).or_default();
        if *count >= most {
            let text = format!("{caller} sends {count} blobs at the moment");
            return Err(Failure::new(Reason::UploadLimit, text)
                .remedy("send fewer at the same time")
                .retry(Retry::Wait(PAUSE)));
        }
        *count += 1;
        Ok(Stream { streams: Arc::clone(self), caller: caller.to_owned() })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut counts = self.streams.counts();
        if let Some(count) = counts.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_its_own_and_gets_them_back() {
        let streams = Arc::<Streams>::default();
        let held = [streams.begin("a", 2).unwrap(), streams.begin("a", 2).unwrap()];
        let refused = streams.begin("a", 2).err().unwrap();
        assert_eq!(refused.reason(), Reason::UploadLimit);
        let other = streams.begin("b", 2).unwrap();
        drop(held);
        drop(streams.begin("a", 1).unwrap());
        drop(other);
        assert!(streams.counts().is_empty());
    }
}
