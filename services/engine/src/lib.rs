//! The use cases of Colophon: accepting a release, copying its content, moving its tags,
//! recording what happened, and finding out what became of an interrupted move.
//!
//! The database decides who may do what when; this crate does the network calls in between, and
//! never both at once: no call leaves the process while a transaction is open.

mod announce;
mod companions;
mod content;
mod copy_job;
mod copy_progress;
mod create;
mod early;
mod fill_in;
mod fingerprint;
mod finished;
mod hold;
mod job_span;
mod keep;
mod lease;
mod metrics;
mod plan;
mod plan_id;
mod read;
mod reconcile;
mod rollback;
mod room;
mod selected;
mod settings;
mod settle;
mod step;
mod tag_job;
mod tag_move;
mod uploads;
mod versions;
mod watch;
mod worker;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use colophon_domain::{Clock, Digest, Entropy, Repository, TagRules};
use colophon_registry::{Manifest, Registries};
use colophon_store::Store;
use moka::future::Cache;
use tokio::sync::Notify;

pub use colophon_store::{Author, Compared, Finding, Found, Hold};
pub use finished::RetentionSettings;
pub use hold::{Resume, Resumed};
pub use room::QueueLimits;
pub use settings::WorkSettings;
pub use uploads::UploadLimits;
pub use worker::Worker;

use crate::watch::Watches;

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
    /// What whatever begins now works with; running jobs go on with what they began with.
    newest: Arc<RwLock<(Registries, TagRules)>>,
    settings: Arc<WorkSettings>,
    limits: QueueLimits,
    retention: RetentionSettings,
    room: Arc<room::Room>,
    uploads: UploadLimits,
    streams: Arc<uploads::Streams>,
    manifests: Cache<(Repository, Digest), Manifest>,
    /// Jobs have become claimable.
    jobs: Arc<Notify>,
    /// The same, still to be told to other processes.
    unannounced: Arc<Notify>,
    watches: Arc<Watches>,
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
            newest: Arc::new(RwLock::new((registries.clone(), rules.clone()))),
            registries,
            clock,
            entropy,
            rules,
            settings: Arc::new(settings),
            limits: QueueLimits::default(),
            retention: RetentionSettings::default(),
            room: Arc::default(),
            uploads: UploadLimits::default(),
            streams: Arc::default(),
            manifests,
            jobs: Arc::default(),
            unannounced: Arc::default(),
            watches: Arc::default(),
        }
    }

    /// With other limits of what may wait, and of how long what has ended is kept.
    #[must_use]
    pub fn limited(mut self, limits: QueueLimits, retention: RetentionSettings) -> Self {
        self.limits = limits;
        self.retention = retention;
        self
    }

    /// With other limits of what clients may send.
    #[must_use]
    pub fn with_uploads(mut self, limits: UploadLimits) -> Self {
        self.uploads = limits;
        self
    }

    /// Puts other registries and rules into the place of those before, for whatever begins from now
    /// on, in every clone.
    pub fn reload(&self, registries: Registries, rules: TagRules) {
        *self.newest.write().unwrap_or_else(PoisonError::into_inner) = (registries, rules);
    }

    /// This engine with the newest registries and rules: whatever begins takes one, and keeps it to
    /// its end.
    #[must_use]
    pub fn current(&self) -> Self {
        let newest = self.newest.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (registries, rules) = newest;
        Self { registries, rules, ..self.clone() }
    }

    /// The registries that whatever begins now works with.
    pub fn registries(&self) -> Registries {
        self.current().registries
    }

    /// Says, here and in other processes, that jobs have become claimable.
    fn wake(&self) {
        self.jobs.notify_one();
        self.unannounced.notify_one();
        self.watches.hint.notify_one();
    }
}
