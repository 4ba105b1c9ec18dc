//! Which requests meet a fault, which one, and how a test follows and releases it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Method, StatusCode};
use tokio::{sync::watch, time::timeout};

use crate::{
    error::{Result, While as _},
    proxy::Exchange,
};

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Action {
    /// It waits, completely read, until the test lets it go or drops it. Its sender may die.
    HoldBefore,
    /// The service obeys, its answer waits.
    HoldAfter,
    /// It goes on after this time.
    Delay(Duration),
    /// The connection closes and the service sees nothing.
    DropBefore,
    /// The service obeys, then the connection closes without an answer.
    DropAfter,
    /// The proxy answers by itself: status, headers, body.
    Status(StatusCode, Vec<(String, String)>, String),
    /// The service gets this many bytes of the body, then both connections close.
    CutRequest(u64),
    /// The client gets this many bytes of the answer's body, then its connection closes.
    CutResponse(u64),
    /// The body goes on at this many bytes per second.
    SlowRequest(u64),
    /// The answer's body comes at this many bytes per second.
    SlowResponse(u64),
    /// One bit of the answer's body is another, at this byte or at the last one.
    Flip(u64),
    /// The answer's body has at most this many bytes, and its head says the same.
    Truncate(u64),
    /// The answer says that the content has this digest.
    Digest(String),
}

type Condition = Box<dyn Fn(&Exchange) -> bool + Send + Sync>;

/// Which requests meet an action: the first that matches, unless said otherwise.
pub struct Rule {
    action: Action,
    conditions: Vec<Condition>,
    skip: usize,
    times: usize,
}

impl Rule {
    /// The action for the first request of all.
    pub fn new(action: Action) -> Self {
        Self { action, conditions: Vec::new(), skip: 0, times: 1 }
    }

    /// Only requests with this method.
    #[must_use]
    pub fn method(self, method: Method) -> Self {
        self.when(move |exchange| exchange.method == method)
    }

    /// Only requests whose path contains this text.
    #[must_use]
    pub fn path(self, part: impl Into<String>) -> Self {
        let part = part.into();
        self.when(move |exchange| exchange.path.contains(&part))
    }

    /// Only requests that meet this condition as well.
    #[must_use]
    pub fn when(mut self, condition: impl Fn(&Exchange) -> bool + Send + Sync + 'static) -> Self {
        self.conditions.push(Box::new(condition));
        self
    }

    /// The `n`th matching request, from 1, instead of the first.
    #[must_use]
    pub fn nth(mut self, n: usize) -> Self {
        self.skip = n.saturating_sub(1);
        self
    }

    /// This many matching requests in a row.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Every matching request.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }
}

/// What becomes of something held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Release {
    Forward,
    Drop,
}

/// A rule at work.
pub(super) struct Planned {
    rule: Rule,
    matched: AtomicUsize,
    hits: watch::Sender<usize>,
    release: watch::Sender<Option<Release>>,
    hung_up: watch::Sender<bool>,
}

impl Planned {
    pub(super) fn new(rule: Rule) -> Self {
        Self {
            rule,
            matched: AtomicUsize::new(0),
            hits: watch::Sender::new(0),
            release: watch::Sender::new(None),
            hung_up: watch::Sender::new(false),
        }
    }

    pub(super) fn action(&self) -> &Action {
        &self.rule.action
    }

    /// Whether the rule takes this request; counts it if it matches.
    pub(super) fn takes(&self, exchange: &Exchange) -> bool {
        if !self.rule.conditions.iter().all(|condition| condition(exchange)) {
            return false;
        }
        let before = self.matched.fetch_add(1, Ordering::SeqCst);
        before.checked_sub(self.rule.skip).is_some_and(|turn| turn < self.rule.times)
    }

    /// Tells the test that the action reached its point.
    pub(super) fn hit(&self) {
        self.hits.send_modify(|hits| *hits += 1);
    }

    /// Tells the test, and waits for its decision.
    pub(super) async fn hold(&self) -> Release {
        self.hit();
        let mut release = self.release.subscribe();
        let decided = release.wait_for(Option::is_some).await;
        decided.ok().and_then(|release| *release).unwrap_or(Release::Drop)
    }

    /// Returns when the test hangs up on the clients.
    pub(super) async fn hung_up(&self) {
        let mut hung_up = self.hung_up.subscribe();
        let _never_closed = hung_up.wait_for(|hung_up| *hung_up).await;
    }
}

/// Watches a rule and lets go what it holds.
pub struct Fault {
    planned: Arc<Planned>,
}

impl Fault {
    pub(super) fn new(planned: Arc<Planned>) -> Self {
        Self { planned }
    }

    /// How many requests met the action: are held, or were dropped, answered, cut.
    pub fn hits(&self) -> usize {
        *self.planned.hits.borrow()
    }

    /// Waits until the first request met the action.
    pub async fn reached(&self, patience: Duration) -> Result<()> {
        self.reached_times(1, patience).await
    }

    /// Waits until this many requests met the action.
    pub async fn reached_times(&self, times: usize, patience: Duration) -> Result<()> {
        let mut hits = self.planned.hits.subscribe();
        let reached = timeout(patience, hits.wait_for(|hits| *hits >= times)).await;
        let what = format!("waiting {patience:?} until {times} requests met a rule");
        reached.doing(&what)?.doing(&what).map(drop)
    }

    /// Lets everything go that is held or will be: the request to the service (its sender need
    /// not be there any more), or the answer to the client.
    pub fn forward(&self) {
        self.planned.release.send_replace(Some(Release::Forward));
    }

    /// Drops everything that is held or will be, and closes the connections.
    pub fn drop_connections(&self) {
        self.planned.release.send_replace(Some(Release::Drop));
    }

    /// Closes the clients' connections and keeps holding their requests, which
    /// [`forward`](Self::forward) can still let go.
    pub fn hang_up(&self) {
        self.planned.hung_up.send_replace(true);
    }
}
