//! Waiting for a release to end. The server says what changes, as a stream; one that does not know
//! that, or has no stream left for this caller, is asked again and again. A server that restarts in
//! between is no failure: the release is in its database, and the client goes on until `--timeout`.

use std::time::{Duration, Instant};

use colophon_api::v1::{
    GetReleaseRequest, Release, ReleaseState, TagMove, TagMoveState, WatchReleaseRequest,
};
use colophon_domain::Reason;
use tonic::Code;

use crate::{
    call::{Patience, call},
    connect::Client,
    exit::{Exit, Problem},
    interrupt::Interrupt,
    progress::Progress,
};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const ATTEMPT: Duration = Duration::from_secs(10);

/// Where the waiting ended: what was seen last, and why it is not a success if it is none.
pub struct Seen {
    /// The release as it was seen last.
    pub release: Release,
    /// What to say and to exit with; `None` if every tag is where it should be.
    pub problem: Option<Problem>,
}

/// Follows the release until it has ended, `until` has passed or a signal arrives.
pub async fn watch(
    client: &Client,
    first: Release,
    until: Instant,
    progress: &mut Progress,
    interrupt: &mut Interrupt,
) -> Seen {
    let mut seen = first;
    let ended = tokio::select! {
        ended = follow(client, &mut seen, until, progress) => ended,
        () = interrupt.wait() => Err(interruption(&seen.id)),
    };
    progress.finish();
    let problem = match ended {
        Ok(()) => outcome(&seen),
        Err(problem) => Some(problem),
    };
    Seen { release: seen, problem }
}

/// How a stream ended.
enum Over {
    /// With the release.
    Ended,
    /// The time is over.
    Late,
    /// It broke, or the server stops: another one goes on where it ended.
    Broken,
    /// There is none to be had here.
    Unable,
}

/// Follows the release by streams, each of which goes on where the one before ended.
async fn follow(
    client: &Client,
    seen: &mut Release,
    until: Instant,
    progress: &mut Progress,
) -> Result<(), Problem> {
    let mut pause = FIRST_PAUSE;
    progress.show(seen);
    while !seen.state().ended() {
        let revision = seen.revision;
        match stream(client, seen, until, progress).await {
            Over::Ended => break,
            Over::Late => return Err(still_running(seen)),
            Over::Unable => return poll(client, seen, until, progress).await,
            Over::Broken => {}
        }
        pause = if seen.revision == revision {
            pause.mul_f32(2.0).min(LONGEST_PAUSE)
        } else {
            FIRST_PAUSE
        };
        tokio::time::sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
        // This call has the patience for a server that is away, and says what is wrong with one
        // that refuses.
        *seen = ask(client, seen, until, progress).await?;
        progress.show(seen);
    }
    Ok(())
}

/// One stream.
async fn stream(
    client: &Client,
    seen: &mut Release,
    until: Instant,
    progress: &mut Progress,
) -> Over {
    let request = WatchReleaseRequest { id: seen.id.clone(), after_revision: seen.revision };
    let mut releases = client.releases.clone();
    let opened = tokio::time::timeout(ATTEMPT, releases.watch_release(request)).await;
    let mut states = match opened {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => {
            return match status.code() {
                Code::Unimplemented | Code::ResourceExhausted => Over::Unable,
                _ => Over::Broken,
            };
        }
        Err(_) => return Over::Broken,
    };
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, states.message()).await {
            Ok(Ok(Some(release))) => {
                *seen = release;
                progress.show(seen);
                if seen.state().ended() {
                    return Over::Ended;
                }
            }
            Ok(Ok(None) | Err(_)) => return Over::Broken,
            Err(_) => return Over::Late,
        }
    }
}

async fn ask(
    client: &Client,
    seen: &Release,
    until: Instant,
    progress: &mut Progress,
) -> Result<Release, Problem> {
    let request = GetReleaseRequest { id: seen.id.clone(), wait: None };
    let patience = Patience { attempt: ATTEMPT, until };
    let answer = call(patience, progress, || {
        let (mut releases, request) = (client.releases.clone(), request.clone());
        async move { releases.get_release(request).await }
    });
    answer.await.map_err(|problem| lost_sight(problem, &seen.id))
}

async fn poll(
    client: &Client,
    seen: &mut Release,
    until: Instant,
    progress: &mut Progress,
) -> Result<(), Problem> {
    let mut pause = FIRST_PAUSE;
    loop {
        progress.show(seen);
        if seen.state().ended() {
            return Ok(());
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(still_running(seen));
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = pause.mul_f32(1.5).min(LONGEST_PAUSE);
        *seen = ask(client, seen, until, progress).await?;
    }
}

/// What a release that has ended means for the exit code.
fn outcome(release: &Release) -> Option<Problem> {
    if release.state() == ReleaseState::Succeeded {
        return None;
    }
    let state = release.state().short_name();
    let reason = release.state_reason.as_str();
    let exit = Exit::of_release(release.state(), reason);
    let mut problem = Problem::new(exit, format!("release {} {state}", release.id));
    if !release.message.is_empty() {
        problem.message = format!("{}: {}", problem.message, release.message);
    }
    problem.reason = Some(reason.to_owned());
    let calm = |tag: &TagMove| good(tag.state()) || tag.state() == TagMoveState::Superseded;
    if exit == Exit::Superseded && tags(release).all(calm) {
        problem.remedy = Some(
            "nothing needs doing, unless this build is wanted all the same: what was accepted \
             later, or is newer, has the tag"
                .to_owned(),
        );
    }
    Some(problem)
}

fn tags(release: &Release) -> impl Iterator<Item = &TagMove> {
    release.publications.iter().flat_map(|publication| &publication.tags)
}

/// Whether a tag in this state is as the release wants it.
pub fn good(state: TagMoveState) -> bool {
    matches!(state, TagMoveState::Moved | TagMoveState::Unchanged | TagMoveState::Kept)
}

fn still_running(release: &Release) -> Problem {
    let (id, state) = (&release.id, release.state().short_name());
    let waiting = match (release.waiting_for.as_str(), release.waiting_reason.as_str()) {
        ("", "") => String::new(),
        (what, "") | ("", what) => format!(", it waits for: {what}"),
        (what, reason) => format!(", it waits for: {what} ({reason})"),
    };
    let message = format!("release {id} is still {state} after --timeout{waiting}");
    // Whoever waits for the end of a freeze should hear of the freeze.
    let exit = match Reason::parse(&release.waiting_reason) {
        Some(Reason::Frozen) => Exit::Frozen,
        Some(Reason::RateLimited) => Exit::RateLimited,
        _ => Exit::StillRunning,
    };
    Problem::new(exit, message).remedy(goes_on(id))
}

fn interruption(id: &str) -> Problem {
    Problem::new(Exit::Interrupted, format!("interrupted; release {id} goes on"))
        .remedy(goes_on(id))
}

fn lost_sight(mut problem: Problem, id: &str) -> Problem {
    problem.message = format!("{}; what became of release {id} is not known", problem.message);
    problem.remedy = Some(goes_on(id));
    problem
}

fn goes_on(id: &str) -> String {
    format!("`colophon release {id} --wait` shows it, `colophon cancel {id}` stops it")
}

#[cfg(test)]
mod tests {
    use colophon_api::v1::Publication;

    use super::*;

    #[test]
    fn only_success_is_success() {
        let release = |state: ReleaseState| Release { state: state.into(), ..Release::default() };
        assert!(outcome(&release(ReleaseState::Succeeded)).is_none());
        for (state, exit) in [
            (ReleaseState::Failed, Exit::NotPublished),
            (ReleaseState::Errored, Exit::Errored),
            (ReleaseState::Cancelled, Exit::Cancelled),
        ] {
            assert_eq!(outcome(&release(state)).unwrap().exit, exit);
        }
    }

    #[test]
    fn superseded_needs_no_doing_unless_another_tag_failed() {
        let tag = |state: TagMoveState| TagMove { state: state.into(), ..TagMove::default() };
        let mut release = Release {
            state: ReleaseState::Failed.into(),
            state_reason: "SUPERSEDED".into(),
            publications: vec![Publication {
                tags: vec![tag(TagMoveState::Moved), tag(TagMoveState::Superseded)],
                ..Publication::default()
            }],
            ..Release::default()
        };
        let problem = outcome(&release).unwrap();
        assert_eq!(problem.exit, Exit::Superseded);
        assert!(problem.remedy.unwrap().starts_with("nothing needs doing"));
        release.publications[0].tags.push(tag(TagMoveState::NotAttempted));
        let problem = outcome(&release).unwrap();
        assert_eq!((problem.exit, problem.remedy), (Exit::Superseded, None));
    }

    #[test]
    fn a_timeout_says_what_the_release_waits_for() {
        let mut release = Release {
            id: "1".into(),
            state: ReleaseState::Running.into(),
            waiting_for: "vault is sealed".into(),
            ..Release::default()
        };
        let problem = still_running(&release);
        assert_eq!(problem.exit, Exit::StillRunning);
        assert!(problem.message.ends_with("it waits for: vault is sealed"));
        assert!(problem.remedy.unwrap().contains("colophon cancel 1"));
        release.waiting_reason = "VAULT_SEALED".into();
        assert!(still_running(&release).message.ends_with("vault is sealed (VAULT_SEALED)"));
        release.waiting_reason = "FROZEN".into();
        assert_eq!(still_running(&release).exit, Exit::Frozen);
    }
}
