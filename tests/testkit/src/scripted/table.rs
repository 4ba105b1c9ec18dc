//! Tables of requests and answers, which are tried before the registry. A row has its number of
//! times, and one that was not used so often fails the test: it would have shown nothing.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::scripted::request::{Response, Seen, error, with};

/// For a row that answers however often it is asked, at least once.
pub const ALWAYS: usize = usize::MAX;

type Condition = Arc<dyn Fn(&Seen) -> bool + Send + Sync>;
type Change = Arc<dyn Fn(Response) -> Response + Send + Sync>;

/// Which requests a row is for.
#[derive(Clone)]
pub struct When {
    told: String,
    conditions: Vec<Condition>,
}

impl When {
    /// Requests with this method and this text in their path.
    pub fn of(method: &str, part: &str) -> Self {
        let (told, method, part) = (format!("{method} {part}"), method.to_owned(), part.to_owned());
        Self { told, conditions: vec![Arc::new(move |seen| seen.is(&method, &part))] }
    }

    /// Of these, the ones that meet a condition as well.
    #[must_use]
    pub fn and(mut self, condition: impl Fn(&Seen) -> bool + Send + Sync + 'static) -> Self {
        self.conditions.push(Arc::new(condition));
        self
    }

    fn meets(&self, seen: &Seen) -> bool {
        self.conditions.iter().all(|condition| condition(seen))
    }
}

/// What a row does.
#[derive(Clone)]
pub enum Answer {
    /// Answers in the registry's place, once the request's body was read.
    Reply {
        /// The status.
        status: u16,
        /// The headers.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
    /// The registry obeys; its answer is changed.
    Change(Change),
    /// The registry obeys after this time.
    Late(Duration),
    /// The connection closes; the registry hears nothing.
    Drop,
    /// The connection closes when so many bytes of a chunk or a blob were taken, which stay.
    Cut(u64),
    /// When so many bytes of a chunk or a blob were taken the registry stands still for ever.
    Stall(u64),
    /// The registry obeys, and the connection closes without an answer.
    DropAfter,
}

impl Answer {
    /// A status alone.
    pub fn status(status: u16) -> Self {
        Self::Reply { status, headers: Vec::new(), body: String::new() }
    }

    /// A refusal in the distribution specification's envelope.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
        Self::status(status).header("content-type", "application/json").body(body.to_string())
    }

    /// The registry's own answer, changed.
    pub fn change(change: impl Fn(Response) -> Response + Send + Sync + 'static) -> Self {
        Self::Change(Arc::new(change))
    }

    /// The same with one header more.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Self::Reply { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// The same with this body.
    #[must_use]
    pub fn body(mut self, text: impl Into<String>) -> Self {
        if let Self::Reply { body, .. } = &mut self {
            *body = text.into();
        }
        self
    }

    /// The answer of a [`Answer::Reply`].
    pub(super) fn reply(&self) -> Response {
        match self {
            Self::Reply { status, headers, body } => {
                let headers: Vec<_> =
                    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                with(*status, &headers, body.clone())
            }
            _ => error(500, "UNKNOWN", "this row has no answer of its own"),
        }
    }
}

struct Row {
    when: When,
    answer: Answer,
    times: usize,
    hits: usize,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = if self.times == ALWAYS { 1 } else { self.times };
        write!(f, "{}: {} of {wanted}", self.when.told, self.hits)
    }
}

/// The rows of a fake.
#[derive(Default)]
pub(super) struct Table(Mutex<Vec<Row>>);

impl Table {
    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, rows: impl IntoIterator<Item = (When, Answer, usize)>) {
        let rows = rows.into_iter();
        self.rows().extend(rows.map(|(when, answer, times)| Row { when, answer, times, hits: 0 }));
    }

    /// The answer of the first row that is for this request and has a turn left.
    pub(super) fn take(&self, seen: &Seen) -> Option<Answer> {
        let mut rows = self.rows();
        let row = rows.iter_mut().find(|row| row.hits < row.times && row.when.meets(seen))?;
        row.hits += 1;
        Some(row.answer.clone())
    }

    /// How often each row answered.
    pub(super) fn hits(&self) -> Vec<usize> {
        self.rows().iter().map(|row| row.hits).collect()
    }

    /// The rows that were not used as often as they should.
    pub(super) fn unused(&self) -> Vec<String> {
        let used = |row: &&Row| row.hits == row.times || (row.times == ALWAYS && row.hits > 0);
        self.rows().iter().filter(|row| !used(row)).map(ToString::to_string).collect()
    }
}
