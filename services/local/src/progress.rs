//! Long work on a thread of its own, while the caller hears how far it is. Reading, hashing and
//! compressing never happen on the thread that talks to the network; and a thread that waits for
//! standard input must not keep a program from ending, as one of the runtime's own would.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::sync::{oneshot, watch};

use crate::error::{LocalError, LocalErrorKind};

/// What is being done to a source before it can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Step {
    /// The list of what is there is read.
    #[default]
    Reading,
    /// The source is put into a temporary file, because it can be read only once or is compressed.
    Spooling,
    /// Layers are compressed, because the source holds them uncompressed and names no digest.
    Compressing,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// Bytes that have been read in this step.
    pub bytes: u64,
    /// Of how many, where that is known.
    pub total: Option<u64>,
}

/// Who wants to know. It is called by the task that waits for the image, and not for every step.
pub trait Events {
    /// It went on.
    fn progress(&self, progress: Progress);
}

/// For callers that do not want to know.
impl Events for () {
    fn progress(&self, _: Progress) {}
}

/// The end of the working thread.
pub(crate) struct Work {
    seen: watch::Sender<Progress>,
    stopped: Arc<AtomicBool>,
}

impl Work {
    pub(crate) fn begin(&self, step: Step, total: Option<u64>) {
        self.seen.send_replace(Progress { step, bytes: 0, total });
    }

    /// So much more is done.
    ///
    /// # Errors
    /// If nobody waits for the result any more.
    pub(crate) fn advance(&self, bytes: usize) -> Result<(), LocalError> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(LocalError::new(LocalErrorKind::Stopped, "nobody waits for the image"));
        }
        self.seen.send_modify(|seen| seen.bytes = seen.bytes.saturating_add(bytes as u64));
        Ok(())
    }
}

/// Tells the thread when the future that waits for it is dropped.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does the work on a thread of its own and waits for it.
pub(crate) async fn run<T: Send + 'static>(
    events: &dyn Events,
    work: impl FnOnce(&Work) -> Result<T, LocalError> + Send + 'static,
) -> Result<T, LocalError> {
    let stop = StopOnDrop(Arc::default());
    let (sender, mut seen) = watch::channel(Progress::default());
    let (answer, mut answered) = oneshot::channel();
    let end = Work { seen: sender, stopped: Arc::clone(&stop.0) };
    thread::Builder::new()
        .name("local-image".to_owned())
        .spawn(move || answer.send(work(&end)).map_err(drop))
        .map_err(|error| LocalError::io("starting a thread", error))?;
    loop {
        tokio::select! {
            biased;
            done = &mut answered => {
                let lost = |_| LocalError::new(LocalErrorKind::Io, "the reading thread is gone");
                return done.map_err(lost)?;
            }
            // Without an end to hear from, only the answer is left to wait for.
            Ok(()) = seen.changed() => {
                let progress = *seen.borrow_and_update();
                events.progress(progress);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, sync::mpsc};

    use super::*;

    struct Seen(Mutex<Vec<Progress>>);

    impl Events for Seen {
        fn progress(&self, progress: Progress) {
            self.0.lock().unwrap().push(progress);
        }
    }

    #[tokio::test]
    async fn the_caller_hears_how_far_it_is() {
        let seen = Seen(Mutex::default());
        let done = run(&seen, |work| {
            work.begin(Step::Spooling, Some(7));
            work.advance(3)?;
            work.advance(4)?;
            Ok(5)
        });
        assert_eq!(done.await.unwrap(), 5);
        // Steps that follow each other closely are told as one.
        for progress in seen.0.into_inner().unwrap() {
            assert_eq!((progress.step, progress.total), (Step::Spooling, Some(7)));
        }
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_ends() {
        let (ended, end) = mpsc::channel();
        let work = run(&(), move |work| {
            let ended_by = loop {
                if let Err(error) = work.advance(1) {
                    break error;
                }
                thread::yield_now();
            };
            ended.send(ended_by.kind()).unwrap();
            Ok(())
        });
        let aborted = tokio::time::timeout(std::time::Duration::from_millis(20), work);
        aborted.await.unwrap_err();
        assert_eq!(end.recv().unwrap(), LocalErrorKind::Stopped);
    }
}
