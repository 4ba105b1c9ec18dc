//! What happens while one waits, on stderr: bars on a terminal, elsewhere a line for each change.
//! stdout is left to the answer.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use colophon_api::v1::{
    BlobProgress, BlobState, Publication, PublicationState, Release, TagMoveState,
};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::text::{bytes, clean, short_digest};

/// Who says something while one waits.
pub trait Notes {
    /// Says something in between.
    fn note(&mut self, text: &str);
}

/// The progress of one release, and remarks on the way.
pub enum Progress {
    /// For a terminal.
    Bars(Box<Bars>),
    /// For a log.
    Lines(Lines),
}

impl Progress {
    /// Bars if stderr is a terminal that can draw them.
    pub fn for_stderr() -> Self {
        if can_draw() { Self::Bars(Box::default()) } else { Self::Lines(Lines::default()) }
    }

    /// Shows where the release stands.
    pub fn show(&mut self, release: &Release) {
        match self {
            Self::Bars(bars) => bars.show(release),
            Self::Lines(lines) => {
                for line in lines.changes(release) {
                    say(&line);
                }
            }
        }
    }

    /// Takes the bars away, so that what follows stands alone.
    pub fn finish(&mut self) {
        if let Self::Bars(bars) = self {
            for bar in bars.head.iter().chain(bars.blobs.values()).chain(&bars.copies) {
                bar.finish_and_clear();
            }
        }
    }
}

impl Notes for Progress {
    fn note(&mut self, text: &str) {
        let line = format!("note: {}", clean(text));
        match self {
            // Drawing is best effort: a terminal that went away must not stop the waiting.
            Self::Bars(bars) => drop(bars.all.println(line)),
            Self::Lines(_) => say(&line),
        }
    }
}

/// Whether stderr is a terminal that can draw bars.
pub fn can_draw() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stderr().is_terminal() && !dumb
}

/// A line on stderr.
pub fn say(line: &str) {
    // Whoever closed stderr does not want to read it.
    drop(writeln!(io::stderr(), "{line}"));
}

/// One line for every state that changed since the last look.
#[derive(Default)]
pub struct Lines {
    seen: BTreeMap<String, String>,
}

impl Lines {
    fn changes(&mut self, release: &Release) -> Vec<String> {
        let mut now = vec![(format!("release {}", release.id), release_text(release))];
        for publication in &release.publications {
            let repository = &publication.repository;
            now.push((repository.clone(), publication.state().short_name().to_owned()));
            if let Some(part) = part_sent(publication) {
                now.push((format!("{repository} copy"), part));
            }
            for tag in &publication.tags {
                let state = match (tag.state().short_name(), tag.reason.as_str()) {
                    (state, "") => state.to_owned(),
                    (state, reason) if state == reason => state.to_owned(),
                    (state, reason) => format!("{state} {reason}"),
                };
                now.push((format!("{repository}:{}", tag.tag), state));
            }
        }
        let mut lines = Vec::new();
        for (subject, state) in now {
            // "Its turn has not come" is what everybody expects of a tag at first.
            let first = self.seen.is_empty() || self.seen.contains_key(&subject);
            let quiet = state == "PENDING" && !first;
            if self.seen.get(&subject) != Some(&state) && !quiet {
                lines.push(clean(&format!("{subject} {state}")));
            }
            self.seen.insert(subject, state);
        }
        lines
    }
}

/// How much of a copy was sent, in quarters; nothing in the first of them.
fn part_sent(publication: &Publication) -> Option<String> {
    let (sent, total) = (publication.bytes_copied, publication.bytes_total);
    let quarter = sent.saturating_mul(4).checked_div(total)?.min(4);
    let copying = publication.state() == PublicationState::Copying;
    (copying && quarter > 0).then(|| format!("{}% of {} sent", quarter * 25, bytes(total)))
}

fn release_text(release: &Release) -> String {
    let state = release.state().short_name();
    match (release.waiting_for.as_str(), release.waiting_reason.as_str()) {
        ("", "") => state.to_owned(),
        _ if release.state().ended() => state.to_owned(),
        (what, "") | ("", what) => format!("{state}, waiting for: {what}"),
        (what, reason) => format!("{state}, waiting for: {what} ({reason})"),
    }
}

/// So many blobs of one publication have a bar of their own.
const BLOBS: usize = 8;

/// A head line, one bar for each publication, and below it one for each blob on its way.
pub struct Bars {
    all: MultiProgress,
    head: Option<ProgressBar>,
    copies: Vec<ProgressBar>,
    blobs: BTreeMap<(usize, String), ProgressBar>,
}

impl Default for Bars {
    fn default() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self { all, head: None, copies: Vec::new(), blobs: BTreeMap::new() }
    }
}

impl Bars {
    fn show(&mut self, release: &Release) {
        let head = self.head.get_or_insert_with(|| line(&self.all, "{spinner} {msg}"));
        head.set_message(clean(&format!("release {} {}", release.id, release_text(release))));
        while self.copies.len() < release.publications.len() {
            self.copies.push(line(&self.all, "  {prefix} [{bar:20}] {msg}"));
        }
        for (bar, publication) in self.copies.iter().zip(&release.publications) {
            let total = u64::try_from(publication.bytes_total).unwrap_or(0);
            let present = matches!(
                publication.state(),
                PublicationState::Copied | PublicationState::Succeeded
            );
            // What is at the target already is not sent: the bar is full when the content is
            // there, however little of it travelled.
            let position = u64::try_from(publication.bytes_copied).unwrap_or(0).min(total);
            bar.set_length(total.max(1));
            bar.set_position(if present { total.max(1) } else { position });
            bar.set_prefix(clean(&publication.repository));
            bar.set_message(publication_text(publication));
        }
        self.show_blobs(release);
    }

    fn show_blobs(&mut self, release: &Release) {
        let mut on_their_way = BTreeMap::new();
        for (at, publication) in release.publications.iter().enumerate() {
            if publication.state() != PublicationState::Copying {
                continue;
            }
            let blobs = publication.progress.iter().flat_map(|progress| &progress.blobs);
            let moving = blobs.filter(|blob| blob.state() == BlobState::Sending).take(BLOBS);
            on_their_way.extend(moving.map(|blob| ((at, blob.digest.clone()), blob)));
        }
        self.blobs.retain(|key, bar| {
            let stays = on_their_way.contains_key(key);
            if !stays {
                bar.finish_and_clear();
                self.all.remove(bar);
            }
            stays
        });
        for (key, blob) in on_their_way {
            let Some(copy) = self.copies.get(key.0) else { continue };
            let bar = self.blobs.entry(key).or_insert_with(|| {
                let bar = self.all.insert_after(copy, ProgressBar::no_length());
                bar.set_style(styled(BLOB_LINE));
                bar
            });
            let size = u64::try_from(blob.size_bytes).unwrap_or(0);
            bar.set_length(size.max(1));
            bar.set_position(u64::try_from(blob.done_bytes).unwrap_or(0).min(size));
            bar.set_prefix(short_digest(&blob.digest));
            bar.set_message(blob_text(blob));
        }
    }
}

/// What a blob on its way looks like.
pub const BLOB_LINE: &str = "    {prefix} [{bar:20}] {msg}";

fn blob_text(blob: &BlobProgress) -> String {
    let text = format!("{} of {}", bytes(blob.done_bytes), bytes(blob.size_bytes));
    if blob.attempts > 1 { format!("{text}, attempt {}", blob.attempts) } else { text }
}

/// The look of a bar. The templates are ours and a test reads them; a plain line is no reason to fail.
pub fn styled(template: &str) -> ProgressStyle {
    style(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// A bar below those that there are.
pub fn line(all: &MultiProgress, template: &str) -> ProgressBar {
    let bar = all.add(ProgressBar::no_length());
    bar.set_style(styled(template));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn style(template: &str) -> Result<ProgressStyle, indicatif::style::TemplateError> {
    ProgressStyle::with_template(template).map(|style| style.progress_chars("=> "))
}

fn publication_text(publication: &Publication) -> String {
    let open = [
        TagMoveState::Pending,
        TagMoveState::Moving,
        TagMoveState::Unknown,
        TagMoveState::Restoring,
    ];
    let done = publication.tags.iter().filter(|tag| !open.contains(&tag.state())).count();
    let tags = publication.tags.len();
    let state = publication.state().short_name();
    let copied = bytes(publication.bytes_copied);
    let total = bytes(publication.bytes_total);
    format!("{state}  {copied} of {total} sent  {done} of {tags} tags")
}

#[cfg(test)]
mod tests {
    use colophon_api::v1::{CopyProgress, ReleaseState, TagMove};

    use super::*;

    fn release(state: ReleaseState, tag: TagMoveState) -> Release {
        Release {
            id: "1".into(),
            state: state.into(),
            publications: vec![Publication {
                repository: "b/x".into(),
                state: PublicationState::Queued.into(),
                tags: vec![TagMove { tag: "1.4".into(), state: tag.into(), ..TagMove::default() }],
                ..Publication::default()
            }],
            ..Release::default()
        }
    }

    #[test]
    fn only_changes_are_told() {
        let mut lines = Lines::default();
        let queued = release(ReleaseState::Queued, TagMoveState::Pending);
        assert_eq!(lines.changes(&queued), ["release 1 QUEUED", "b/x QUEUED"]);
        assert_eq!(lines.changes(&queued), Vec::<String>::new());
        let mut running = release(ReleaseState::Running, TagMoveState::Moved);
        running.waiting_for = "vault is\nsealed".into();
        assert_eq!(
            lines.changes(&running),
            ["release 1 RUNNING, waiting for: vault is sealed", "b/x:1.4 MOVED"]
        );
        running.waiting_for = "until 14:02".into();
        running.waiting_reason = "FROZEN".into();
        let tag = &mut running.publications[0].tags[0];
        tag.state = TagMoveState::Superseded.into();
        tag.reason = "SUPERSEDED".into();
        assert_eq!(
            lines.changes(&running),
            ["release 1 RUNNING, waiting for: until 14:02 (FROZEN)", "b/x:1.4 SUPERSEDED"]
        );
    }

    #[test]
    fn the_bars_can_be_drawn() {
        assert!(style("{spinner} {msg}").is_ok());
        assert!(style("  {prefix} [{bar:20}] {msg}").is_ok() && style(BLOB_LINE).is_ok());
        let mut bars = Bars::default();
        bars.all.set_draw_target(ProgressDrawTarget::hidden());
        bars.show(&release(ReleaseState::Running, TagMoveState::Moving));
        assert_eq!(bars.copies.len(), 1);
        assert_eq!(bars.copies[0].message(), "QUEUED  0 B of 0 B sent  0 of 1 tags");
    }

    fn copying(sent: i64, blobs: Vec<BlobProgress>) -> Release {
        let mut release = release(ReleaseState::Running, TagMoveState::Pending);
        let publication = &mut release.publications[0];
        publication.state = PublicationState::Copying.into();
        (publication.bytes_copied, publication.bytes_total) = (sent, 4096);
        publication.progress = Some(CopyProgress { blobs, blobs_total: 3 });
        release
    }

    #[test]
    fn every_blob_on_its_way_has_a_bar_and_gives_it_back() {
        let blob = |letter: &str, state: BlobState| BlobProgress {
            digest: format!("sha256:{}", letter.repeat(64)),
            size_bytes: 2048,
            done_bytes: 1024,
            state: state.into(),
            attempts: 2,
        };
        let mut bars = Bars::default();
        bars.all.set_draw_target(ProgressDrawTarget::hidden());
        bars.show(&copying(
            1024,
            vec![blob("a", BlobState::Sending), blob("b", BlobState::Present)],
        ));
        let bar = bars.blobs.values().next().unwrap();
        assert_eq!(bars.blobs.len(), 1);
        assert_eq!(bar.message(), "1.00 KiB of 2.00 KiB, attempt 2");
        assert_eq!(
            (bar.position(), bar.length(), bar.prefix().as_str()),
            (1024, Some(2048), "aaaaaaaaaaaa")
        );
        let many = (0..20).map(|n| blob(&char::from(b'a' + n).to_string(), BlobState::Sending));
        bars.show(&copying(1024, many.collect()));
        assert_eq!(bars.blobs.len(), BLOBS);
        bars.show(&release(ReleaseState::Succeeded, TagMoveState::Moved));
        assert!(bars.blobs.is_empty());
    }

    #[test]
    fn a_log_hears_of_every_quarter_once() {
        let mut lines = Lines::default();
        lines.changes(&copying(0, vec![]));
        assert_eq!(lines.changes(&copying(1_000, vec![])), Vec::<String>::new());
        assert_eq!(lines.changes(&copying(1_030, vec![])), ["b/x copy 25% of 4.00 KiB sent"]);
        assert_eq!(lines.changes(&copying(2_000, vec![])), Vec::<String>::new());
        assert_eq!(lines.changes(&copying(9_000, vec![])), ["b/x copy 100% of 4.00 KiB sent"]);
    }
}
