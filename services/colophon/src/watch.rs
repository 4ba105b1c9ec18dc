//! Waiting for a release to end. A server that restarts in between is no failure: the release
//! is in its database, and the client asks again until `--timeout`.

use std::time::{Duration, Instant};

use colophon_api::v1::{GetReleaseRequest, Release, ReleaseState};

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

/// Asks for the release until it has ended, `until` has passed or a signal arrives.
pub async fn watch(
    client: &Client,
    first: Release,
    until: Instant,
    progress: &mut Progress,
    interrupt: &mut Interrupt,
) -> Seen {
    let mut seen = first;
    let ended = tokio::select! {
        ended = poll(client, &mut seen, until, progress) => ended,
        () = interrupt.wait() => Err(interruption(&seen.id)),
    };
    progress.finish();
    let problem = match ended {
        Ok(()) => outcome(&seen),
        Err(problem) => Some(problem),
    };
    Seen { release: seen, problem }
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
        let request = GetReleaseRequest { id: seen.id.clone() };
        let patience = Patience { attempt: ATTEMPT, until };
        let answer = call(patience, progress, || {
            let (mut releases, request) = (client.releases.clone(), request.clone());
            async move { releases.get_release(request).await }
        });
        *seen = answer.await.map_err(|problem| lost_sight(problem, &seen.id))?;
    }
}

/// What a release that has ended means for the exit code.
fn outcome(release: &Release) -> Option<Problem> {
    if release.state() == ReleaseState::Succeeded {
        return None;
    }
    let state = release.state().short_name();
    let mut problem = Problem::new(Exit::NotPublished, format!("release {} {state}", release.id));
    if !release.message.is_empty() {
        problem.message = format!("{}: {}", problem.message, release.message);
    }
    problem.reason = Some(release.state_reason.clone());
    Some(problem)
}

fn still_running(release: &Release) -> Problem {
    let (id, state) = (&release.id, release.state().short_name());
    let waiting = match release.waiting_for.as_str() {
        "" => String::new(),
        what => format!(", it waits for: {what}"),
    };
    let message = format!("release {id} is still {state} after --timeout{waiting}");
    Problem::new(Exit::StillRunning, message).remedy(goes_on(id))
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
    use super::*;

    #[test]
    fn only_success_is_success() {
        let release = |state: ReleaseState| Release { state: state.into(), ..Release::default() };
        assert!(outcome(&release(ReleaseState::Succeeded)).is_none());
        for state in [ReleaseState::Failed, ReleaseState::Errored, ReleaseState::Cancelled] {
            assert_eq!(outcome(&release(state)).unwrap().exit, Exit::NotPublished);
        }
    }

    #[test]
    fn a_timeout_says_what_the_release_waits_for() {
        let release = Release {
            id: "1".into(),
            state: ReleaseState::Running.into(),
            waiting_for: "vault is sealed".into(),
            ..Release::default()
        };
        let problem = still_running(&release);
        assert_eq!(problem.exit, Exit::StillRunning);
        assert!(problem.message.ends_with("it waits for: vault is sealed"));
        assert!(problem.remedy.unwrap().contains("colophon cancel 1"));
    }
}
