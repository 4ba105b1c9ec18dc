//! The reconciler: finds out what became of moves whose worker died, stalled or never got an
//! answer. It looks only after the intent's deadline and grace, when no PUT can be under way.

use std::time::Duration;

use colophon_domain::{Access, Failure, Reason, Result, TagOrDigest, Urgency};
use colophon_store::{DueIntent, Look};
use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::Engine;

/// Intents taken at once: no more than are looked after at once, so that none waits until its hold
/// has run out.
const BATCH: i64 = 8;
/// How long a registry may take to answer; well below the hold.
pub(crate) const LOOK_TIMEOUT: Duration = Duration::from_secs(6);
/// How long a taken intent is ours; a reconciler that dies leaves it to the next one.
pub(crate) const HOLD: Duration = Duration::from_secs(15);
/// The pause after a registry could not be asked.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

impl Engine {
    /// Reconciles until it is told to stop. Any number of processes may do so at once.
    pub(crate) async fn reconcile(&self, shutdown: CancellationToken) {
        loop {
            let pause = match self.reconcile_due().await {
                Ok(pause) => pause,
                Err(failure) => {
                    tracing::warn!(%failure, "open intents could not be looked at");
                    self.settings.poll_interval
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Looks after every intent that is due; returns how long to rest.
    async fn reconcile_due(&self) -> Result<Duration> {
        loop {
            let due = self.store.take_due_intents(BATCH, HOLD).await?;
            if due.is_empty() {
                break;
            }
            let engine = self.current();
            stream::iter(due).for_each_concurrent(None, |intent| engine.resolve_one(intent)).await;
            self.wake();
        }
        let next = self.store.next_intent_due().await?;
        let rest = self.settings.poll_interval;
        Ok(next.map_or(rest, |next| next.min(rest)).max(Duration::from_millis(10)))
    }

    #[tracing::instrument(level = "debug", name = "engine.intent.resolve", skip_all, fields(release = %due.release, repository = %due.repository, tag = %due.tag))]
    pub(crate) async fn resolve_one(&self, due: DueIntent) {
        let reference = format!("{}:{}", due.repository, due.tag);
        let result =
            tokio::time::timeout(LOOK_TIMEOUT, self.look(&due)).await.unwrap_or_else(|_| {
                Err(Failure::new(
                    Reason::RegistryUnavailable,
                    "the registry did not answer in time",
                ))
            });
        match result {
            Ok(()) => {}
            // Another process has written the outcome.
            Err(failure) if failure.reason() == Reason::ReferenceBlocked => {}
            Err(failure) => {
                tracing::warn!(%reference, release = %due.release, %failure, "an open intent waits on");
                if let Err(failure) =
                    self.store.look_later(&due, failure.message(), LOOK_AGAIN).await
                {
                    tracing::debug!(%reference, %failure, "another process looks after it");
                }
            }
        }
    }

    /// Asks the registry what became of an interrupted move, and writes it down.
    pub(crate) async fn look(&self, due: &DueIntent) -> Result<()> {
        // Whoever wants to move the tag waits for this.
        let session =
            self.registries.session(&due.repository, Access::Push)?.urgent(Urgency::Urgent);
        let (observed, asked) = session.look(&TagOrDigest::Tag(due.tag.clone())).await?;
        let look = Look::since(observed.as_ref(), asked);
        let settled = self.store.resolve(due, look).await?;
        tracing::info!(
            reference = %format_args!("{}:{}", due.repository, due.tag), release = %due.release,
            outcome = ?settled, "an interrupted move was looked after"
        );
        Ok(())
    }
}
