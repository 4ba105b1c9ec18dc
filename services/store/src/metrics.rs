//! What is counted of transactions. What one did counts when it is through: one that was broken off
//! or rolled back has done nothing.

use std::{cell::RefCell, future::Future, pin::pin, sync::LazyLock, time::Duration};

use colophon_domain::{ReleaseState, TagMoveState};
use colophon_telemetry::{Counter, Histogram, KeyValue, SECONDS, meter};

static DURATION: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    meter()
        .f64_histogram("colophon.store.transaction.duration")
        .with_unit("s")
        .with_description("Transactions, with all their tries")
        .with_boundaries(SECONDS.to_vec())
        .build()
});

static RETRIES: LazyLock<Counter<u64>> = LazyLock::new(|| {
    meter()
        .u64_counter("colophon.store.transaction.retries")
        .with_description("Transactions that the database broke off and that were tried again")
        .build()
});

static ENDED: LazyLock<Counter<u64>> = LazyLock::new(|| {
    meter()
        .u64_counter("colophon.releases.ended")
        .with_description("Releases that ended, by their last state")
        .build()
});

static PUT_BACK: LazyLock<Counter<u64>> = LazyLock::new(|| {
    meter()
        .u64_counter("colophon.releases.put_back")
        .with_description("Releases that began to put floating tags back")
        .build()
});

static TAGS: LazyLock<Counter<u64>> = LazyLock::new(|| {
    meter()
        .u64_counter("colophon.tags.settled")
        .with_description("Tags whose outcome was recorded, by their state")
        .build()
});

/// Something that a transaction did.
#[derive(Clone, Copy)]
pub(crate) enum Deed {
    /// A release ended.
    Ended(ReleaseState),
    /// A release began to put tags back.
    PutBack,
    /// So many tags were settled.
    Tags(TagMoveState, u64),
}

tokio::task_local! {
    static DEEDS: RefCell<Vec<Deed>>;
}

/// Notes what the transaction around does.
pub(crate) fn note(deed: Deed) {
    // Outside of a transaction with a name there is nothing to note.
    let _unnamed = DEEDS.try_with(|deeds| deeds.borrow_mut().push(deed));
}

/// Runs one try of a transaction, and counts what it did if it went through.
pub(crate) async fn tallied<T, E>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let mut work = pin!(DEEDS.scope(RefCell::default(), work));
    let result = work.as_mut().await;
    if result.is_ok() {
        let deeds = work.take_value().map(RefCell::into_inner).unwrap_or_default();
        deeds.into_iter().for_each(count);
    }
    result
}

fn count(deed: Deed) {
    match deed {
        Deed::Ended(state) => ENDED.add(1, &[KeyValue::new("state", state.as_str())]),
        Deed::PutBack => PUT_BACK.add(1, &[]),
        Deed::Tags(state, count) => TAGS.add(count, &[KeyValue::new("state", state.as_str())]),
    }
}

/// Counts a transaction with this name.
pub(crate) fn transaction(name: &'static str, tries: u32, good: bool, took: Duration) {
    let name = KeyValue::new("transaction", name);
    if tries > 1 {
        RETRIES.add(u64::from(tries - 1), std::slice::from_ref(&name));
    }
    let outcome = KeyValue::new("outcome", if good { "ok" } else { "failed" });
    DURATION.record(took.as_secs_f64(), &[name, outcome]);
}
