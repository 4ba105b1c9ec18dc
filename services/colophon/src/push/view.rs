//! What happens while an image is read and sent, on stderr: bars on a terminal; in a log a line for
//! each blob that has come, and else at most one in ten seconds.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    time::{Duration, Instant},
};

use colophon_local::{Events, Progress, Step};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};

use crate::{
    progress::{BLOB_LINE, Notes, can_draw, line, say, styled},
    text::{bytes, clean, short_digest},
};

/// The least time between two lines that say how far it is.
const BETWEEN: Duration = Duration::from_secs(10);

/// The view of one push. All blobs that are sent at once share it.
pub struct View(RefCell<Inner>);

struct Inner {
    shape: Shape,
    step: Option<Step>,
    /// Where each missing blob stands.
    at: BTreeMap<String, u64>,
    missing: usize,
    arrived: usize,
    bytes: u64,
}

enum Shape {
    Bars(Box<Bars>),
    /// When the last line was printed that says how far it is.
    Lines(Option<Instant>),
}

struct Bars {
    all: MultiProgress,
    head: ProgressBar,
    blobs: BTreeMap<String, ProgressBar>,
}

impl View {
    /// Bars if stderr is a terminal that can draw them.
    pub fn for_stderr() -> Self {
        let shape = if can_draw() {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let head = line(&all, "{spinner} {msg}");
            Shape::Bars(Box::new(Bars { all, head, blobs: BTreeMap::new() }))
        } else {
            Shape::Lines(Some(Instant::now()))
        };
        Self(RefCell::new(Inner {
            shape,
            step: None,
            at: BTreeMap::new(),
            missing: 0,
            arrived: 0,
            bytes: 0,
        }))
    }

    /// What is to be sent is known.
    pub fn begin(&self, all: usize, missing: usize, total: u64) {
        let mut inner = self.0.borrow_mut();
        (inner.missing, inner.bytes) = (missing, total);
        let here = all.saturating_sub(missing);
        inner.tell(&match missing {
            0 => format!("all {all} blobs are there already"),
            _ => format!("{missing} of {all} blobs to send, {}; {here} there already", size(total)),
        });
    }

    /// A blob stands at this offset.
    pub fn stands(&self, digest: &str, of: u64, offset: u64) {
        let mut inner = self.0.borrow_mut();
        inner.at.insert(digest.to_owned(), offset);
        let now = Instant::now();
        if let Some(text) = inner.stands(digest, of, offset, now) {
            say(&text);
        }
    }

    /// A blob is there.
    pub fn arrived(&self, digest: &str, of: u64) {
        let mut inner = self.0.borrow_mut();
        inner.at.insert(digest.to_owned(), of);
        inner.arrived += 1;
        let (arrived, missing) = (inner.arrived, inner.missing);
        let text =
            format!("{} {} is there ({arrived} of {missing})", short_digest(digest), size(of));
        match &mut inner.shape {
            Shape::Lines(_) => say(&text),
            Shape::Bars(bars) => {
                if let Some(bar) = bars.blobs.remove(digest) {
                    bar.finish_and_clear();
                    bars.all.remove(&bar);
                }
            }
        }
    }

    /// Takes the bars away.
    pub fn finish(&self) {
        if let Shape::Bars(bars) = &self.0.borrow().shape {
            for bar in bars.blobs.values().chain([&bars.head]) {
                bar.finish_and_clear();
            }
        }
    }
}

impl Inner {
    /// Something that everybody sees once.
    fn tell(&self, text: &str) {
        match &self.shape {
            Shape::Bars(bars) => bars.head.set_message(clean(text)),
            Shape::Lines(_) => say(&clean(text)),
        }
    }

    /// Moves the bars; the line for a log if its time has come.
    fn stands(&mut self, digest: &str, of: u64, offset: u64, now: Instant) -> Option<String> {
        let sent = self.at.values().fold(0_u64, |sum, at| sum.saturating_add(*at));
        let text = format!(
            "{} of {} sent, {} of {} blobs",
            size(sent),
            size(self.bytes),
            self.arrived,
            self.missing
        );
        match &mut self.shape {
            Shape::Bars(bars) => {
                bars.head.set_message(text);
                let bar = bars.blobs.entry(digest.to_owned()).or_insert_with(|| {
                    let bar = bars.all.add(ProgressBar::new(of.max(1)));
                    bar.set_style(styled(BLOB_LINE));
                    bar.set_prefix(short_digest(digest));
                    bar
                });
                bar.set_position(offset);
                bar.set_message(format!("{} of {}", size(offset), size(of)));
                None
            }
            Shape::Lines(last) => due(last, now).then_some(text),
        }
    }

    fn reading(&mut self, progress: Progress, now: Instant) -> Option<String> {
        let what = match progress.step {
            Step::Reading => "reading the image",
            Step::Spooling => "putting the image into a temporary file",
            Step::Compressing => "compressing layers",
        };
        let text = match progress.total {
            Some(total) => format!("{what}: {} of {}", size(progress.bytes), size(total)),
            None => format!("{what}: {}", size(progress.bytes)),
        };
        let first = self.step.replace(progress.step) != Some(progress.step);
        match &mut self.shape {
            Shape::Bars(bars) => {
                bars.head.set_message(text);
                None
            }
            // Reading a list is quick, and nobody waits for it.
            Shape::Lines(last) if first && progress.step != Step::Reading => {
                *last = Some(now);
                Some(what.to_owned())
            }
            Shape::Lines(last) => due(last, now).then_some(text),
        }
    }
}

/// Whether it is time for another line; if so, it counts as printed.
fn due(last: &mut Option<Instant>, now: Instant) -> bool {
    let due = last.is_none_or(|last| now.saturating_duration_since(last) >= BETWEEN);
    if due {
        *last = Some(now);
    }
    due
}

fn size(count: u64) -> String {
    bytes(i64::try_from(count).unwrap_or(i64::MAX))
}

impl Events for View {
    fn progress(&self, progress: Progress) {
        let text = self.0.borrow_mut().reading(progress, Instant::now());
        if let Some(text) = text {
            say(&text);
        }
    }
}

impl Notes for &View {
    fn note(&mut self, text: &str) {
        let line = format!("note: {}", clean(text));
        match &self.0.borrow().shape {
            Shape::Bars(bars) => drop(bars.all.println(line)),
            Shape::Lines(_) => say(&line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_gets_a_line_in_ten_seconds_at_most() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let view = View::for_stderr();
        let mut inner = view.0.borrow_mut();
        inner.shape = Shape::Lines(Some(start));
        (inner.bytes, inner.missing) = (2048, 2);
        let mut told = Vec::new();
        for second in 0..25 {
            inner.at.insert("sha256:a".to_owned(), second * 64);
            told.extend(inner.stands("sha256:a", 2048, second * 64, after(second)));
        }
        assert_eq!(
            told,
            ["640 B of 2.00 KiB sent, 0 of 2 blobs", "1.25 KiB of 2.00 KiB sent, 0 of 2 blobs"]
        );
    }

    #[test]
    fn long_steps_are_told_when_they_begin() {
        let start = Instant::now();
        let view = View::for_stderr();
        let mut inner = view.0.borrow_mut();
        inner.shape = Shape::Lines(Some(start));
        let step = |step, bytes| Progress { step, bytes, total: Some(2048) };
        assert_eq!(inner.reading(step(Step::Reading, 1), start), None);
        let told = inner.reading(step(Step::Compressing, 1), start);
        assert_eq!(told.as_deref(), Some("compressing layers"));
        assert_eq!(inner.reading(step(Step::Compressing, 2), start), None);
        let told = inner.reading(step(Step::Compressing, 1024), start + BETWEEN);
        assert_eq!(told.as_deref(), Some("compressing layers: 1.00 KiB of 2.00 KiB"));
    }
}
