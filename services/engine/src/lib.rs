//! The use cases of Colophon: accepting a release, copying its content, moving its tags,
//! recording what happened, and finding out what became of an interrupted move.
//!
//! The database decides who may do what when; this crate does the network calls in between, and
//! never both at once: no call leaves the process while a transaction is open.

mod announce;
mod content;
mod copy_job;
mod create;
mod early;
mod fill_in;
mod fingerprint;
mod keep;
mod lease;
mod plan;
mod plan_id;
mod read;
mod reconcile;
mod rollback;
mod settings;
mod settle;
mod step;
mod tag_job;
mod tag_move;
mod versions;
mod worker;

use std::{sync::Arc, time::Duration};

use colophon_domain::{Clock, Digest, Entropy, Repository, TagRules};
use colophon_registry::{Manifest, Registries};
use colophon_store::Store;
use moka::future::Cache;
use tokio::sync::Notify;

pub use colophon_store::Author;
pub use settings::WorkSettings;
pub use worker::Worker;

/// Manifests are kept by repository and digest, up to this many bytes and for a short while: a
/// release reads the same one for each of its tags.
const MANIFEST_CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Long enough for the tags of a release and for a burst of them.
const MANIFEST_CACHE_TIME: Duration = Duration::from_mins(1);

/// The use cases. Cheap to clone; a process has one.
#[derive(Clone)]
pub struct Engine {
    store: Store,
    registries: Registries,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    rules: TagRules,
    settings: Arc<WorkSettings>,
    manifests: Cache<(Repository, Digest), Manifest>,
    /// Jobs have become claimable.
    jobs: Arc<Notify>,
    /// The same, still to be told to other processes.
    unannounced: Arc<Notify>,
}

impl Engine {
    /// Puts the parts together. Time and randomness are the caller's; `rules` are the tag rules of
    /// the configuration.
    pub fn new(
        store: Store,
        registries: Registries,
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
        rules: TagRules,
        settings: WorkSettings,
    ) -> Self {
        let manifests = Cache::builder()
            .max_capacity(MANIFEST_CACHE_BYTES)
            .time_to_live(MANIFEST_CACHE_TIME)
            .weigher(|_, manifest: &Manifest| {
                u32::try_from(manifest.bytes.len()).unwrap_or(u32::MAX)
            })
            .build();
        Self {
            store,
            registries,
            clock,
            entropy,
            rules,
            settings: Arc::new(settings),
            manifests,
            jobs: Arc::default(),
            unannounced: Arc::default(),
        }
    }

    /// Says, here and in other processes, that jobs have become claimable.
    fn wake(&self) {
        self.jobs.notify_one();
        self.unannounced.notify_one();
    }
}
