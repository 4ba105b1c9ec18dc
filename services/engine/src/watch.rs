//! Watching releases. However many watch however many releases, one task of a process asks the
//! database: for the revisions of what is watched, and for those releases whose revision grew.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use colophon_domain::{Failure, Reason, ReleaseView, Result, Retry};
use colophon_store::Store;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::Engine;

/// How often revisions are asked for without a hint.
const POLL: Duration = Duration::from_millis(300);
/// The least time between two questions, however many hints there are.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the database may be away, or one release unreadable, before those who watch are told.
const PATIENCE: Duration = Duration::from_secs(5);
/// Releases whose revisions are asked for at once.
const AT_ONCE: usize = 500;
/// Releases that are read at once.
const READERS: usize = 2;

/// What was seen of a release last.
#[derive(Clone)]
enum Sight {
    /// Nobody has looked yet.
    Nothing,
    /// It was like this.
    Release(Arc<ReleaseView>),
    /// It could not be looked at, or is gone.
    Lost(Reason, Arc<str>),
}

/// Since when releases could not be read that the database knows of.
type Unreadable = HashMap<Uuid, Instant>;

/// The releases that are watched in this process.
#[derive(Default)]
pub(crate) struct Watches {
    watched: Mutex<Watched>,
    /// Something has changed somewhere.
    pub(crate) hint: Notify,
}

#[derive(Default)]
struct Watched {
    releases: HashMap<Uuid, watch::Sender<Sight>>,
    /// The task that looks is there.
    looking: bool,
}

impl Engine {
    /// The states of a release from now on, as they are seen: whole ones, of which some in between
    /// may be left out. A state may come that its caller has seen already; its revision tells.
    /// After a failure nothing more comes.
    pub fn watch(
        &self,
        id: Uuid,
    ) -> impl Stream<Item = Result<Arc<ReleaseView>>> + Send + 'static + use<> {
        let sights = Watches::join(&self.watches, &self.store, id);
        // What was seen for others already is shown at once; after that what is new.
        stream::unfold(Some((sights, false)), |state| async move {
            let (mut sights, mut wait) = state?;
            loop {
                if wait {
                    sights.changed().await.ok()?;
                }
                wait = true;
                let sight = sights.borrow_and_update().clone();
                match sight {
                    Sight::Nothing => {}
                    Sight::Release(view) => return Some((Ok(view), Some((sights, true)))),
                    Sight::Lost(reason, text) => {
                        let failure = Failure::new(reason, text.to_string()).retry(Retry::Backoff);
                        return Some((Err(failure), None));
                    }
                }
            }
        })
    }
}

impl Watches {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        // A map is never left half written.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a release, and makes sure that somebody looks.
    fn join(watches: &Arc<Self>, store: &Store, id: Uuid) -> watch::Receiver<Sight> {
        let mut held = watches.lock();
        let nothing = || watch::Sender::new(Sight::Nothing);
        let sights = held.releases.entry(id).or_insert_with(nothing).subscribe();
        if !held.looking {
            held.looking = true;
            let (watches, store) = (Arc::clone(watches), store.clone());
            tokio::spawn(async move { watches.look(&store).await });
        }
        drop(held);
        watches.hint.notify_one();
        sights
    }

    /// Looks until nobody watches any more.
    async fn look(&self, store: &Store) {
        let mut away: Option<Instant> = None;
        let mut unreadable = Unreadable::new();
        while let Some(seen) = self.seen() {
            match self.look_once(store, &seen, &mut unreadable).await {
                Ok(()) => away = None,
                Err(failure) => {
                    // What could not be read meanwhile is no release's fault.
                    unreadable.clear();
                    let since = *away.get_or_insert_with(Instant::now);
                    tracing::debug!(%failure, "watched releases could not be looked at");
                    if since.elapsed() >= PATIENCE {
                        self.lose(seen.iter().map(|(id, _)| *id), &failure);
                        // Who begins to watch from now on is owed the same patience.
                        away = None;
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
            // A hint that nobody sends costs this long.
            let _ = tokio::time::timeout(POLL.saturating_sub(PAUSE), self.hint.notified()).await;
        }
    }

    /// The watched releases with the revisions that were seen last; `None` when nobody watches.
    fn seen(&self) -> Option<Vec<(Uuid, Option<u64>)>> {
        let mut watched = self.lock();
        watched.releases.retain(|_, sights| sights.receiver_count() > 0);
        if watched.releases.is_empty() {
            watched.looking = false;
            return None;
        }
        let revision = |sights: &watch::Sender<Sight>| match &*sights.borrow() {
            Sight::Release(view) => Some(view.revision),
            Sight::Nothing | Sight::Lost(..) => None,
        };
        Some(watched.releases.iter().map(|(id, sights)| (*id, revision(sights))).collect())
    }

    /// Looks at all that is watched.
    ///
    /// # Errors
    /// The database's, if it does not even say what has changed. A release that cannot be read
    /// concerns only those who watch it.
    async fn look_once(
        &self,
        store: &Store,
        seen: &[(Uuid, Option<u64>)],
        unreadable: &mut Unreadable,
    ) -> Result<()> {
        unreadable.retain(|id, _| seen.iter().any(|(watched, _)| watched == id));
        for group in seen.chunks(AT_ONCE) {
            let ids: Vec<Uuid> = group.iter().map(|(id, _)| *id).collect();
            let asked = tokio::time::timeout(PATIENCE, store.revisions(&ids)).await;
            let revisions: HashMap<Uuid, u64> =
                asked.unwrap_or_else(|_| Err(silent()))?.into_iter().collect();
            let gone = ids.iter().copied().filter(|id| !revisions.contains_key(id));
            self.lose(gone, &Failure::new(Reason::NotFound, "the release is not kept any more"));
            let changed: Vec<Uuid> = group
                .iter()
                .filter(|(id, seen)| revisions.get(id).is_some_and(|now| Some(*now) != *seen))
                .map(|(id, _)| *id)
                .collect();
            let mut reads =
                stream::iter(changed).map(|id| read(store, id)).buffer_unordered(READERS);
            while let Some((id, read)) = reads.next().await {
                let failure = match read {
                    Ok(view) => {
                        unreadable.remove(&id);
                        // One that went between the two questions is gone at the next look.
                        if let Some(view) = view {
                            self.show(view);
                        }
                        continue;
                    }
                    Err(failure) => failure,
                };
                tracing::debug!(%id, %failure, "a watched release could not be read");
                let since = *unreadable.entry(id).or_insert_with(Instant::now);
                if since.elapsed() >= PATIENCE {
                    self.lose([id].into_iter(), &failure);
                }
                // A database that went away fails all of them, each after a while. The next look
                // finds out whether it did.
                if failure.reason() == Reason::DatabaseUnavailable {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Shows a state to those who watch. One in which nothing is new but its number, because a job
    /// looked at something that it waits for, is only remembered.
    fn show(&self, view: ReleaseView) {
        let watched = self.lock();
        let Some(sights) = watched.releases.get(&view.id) else { return };
        sights.send_if_modified(|sight| {
            let new = match sight {
                Sight::Release(last) => {
                    let same = ReleaseView { revision: last.revision, ..view.clone() };
                    **last != same
                }
                Sight::Nothing | Sight::Lost(..) => true,
            };
            *sight = Sight::Release(Arc::new(view));
            new
        });
    }

    /// Tells those who watch that there is nothing more to see.
    fn lose(&self, ids: impl Iterator<Item = Uuid>, failure: &Failure) {
        let mut watched = self.lock();
        for id in ids {
            if let Some(sights) = watched.releases.remove(&id) {
                sights.send_replace(Sight::Lost(failure.reason(), failure.message().into()));
            }
        }
    }
}

async fn read(store: &Store, id: Uuid) -> (Uuid, Result<Option<ReleaseView>>) {
    let read = tokio::time::timeout(PATIENCE, store.whole_release(id)).await;
    (id, read.unwrap_or_else(|_| Err(silent())))
}

fn silent() -> Failure {
    Failure::new(Reason::DatabaseUnavailable, "the database does not answer")
}
