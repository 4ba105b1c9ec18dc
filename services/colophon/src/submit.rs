//! Asking for a release and waiting for it: what `publish` and `rollback` share. The request
//! carries an idempotency key, so that sending it again after a lost answer makes no second
//! release.

use std::time::{Duration, Instant};

use colophon_api::v1::Release;
use tonic::{Response, Status};

use crate::{
    answer::Answer,
    args::Waiting,
    call::{Patience, call},
    connect::Client,
    exit::{Exit, Problem},
    interrupt::Interrupt,
    progress::Progress,
    watch::watch,
};

/// The server asks the source's registry within such a call, which may be slow.
pub const ATTEMPT: Duration = Duration::from_mins(1);

/// Sends the request until it is answered and, unless told otherwise, waits for the release's
/// end. `attempt` sends the same request under the same `key` each time.
pub async fn submit<F>(
    client: &Client,
    waiting: &Waiting,
    key: &str,
    attempt: impl FnMut() -> F,
) -> Result<Answer, Problem>
where
    F: Future<Output = Result<Response<Release>, Status>>,
{
    let mut interrupt = Interrupt::new()?;
    let (release, problem) = submit_with(client, waiting, key, &mut interrupt, attempt).await?;
    Ok(Answer::Release(Box::new(release), problem))
}

/// The same for who listens for signals already, and has more to do with the release: as it was seen
/// last, and why it is not a success.
pub async fn submit_with<F>(
    client: &Client,
    waiting: &Waiting,
    key: &str,
    interrupt: &mut Interrupt,
    attempt: impl FnMut() -> F,
) -> Result<(Release, Option<Problem>), Problem>
where
    F: Future<Output = Result<Response<Release>, Status>>,
{
    let mut progress = Progress::for_stderr();
    let until = deadline(waiting.timeout);
    let accepted = call(Patience { attempt: ATTEMPT, until }, &mut progress, attempt);
    let accepted = tokio::select! {
        accepted = accepted => accepted.map_err(|problem| unsure(problem, key)),
        () = interrupt.wait() => Err(unsure(Problem::new(Exit::Interrupted, "interrupted"), key)),
    };
    let release = accepted?;
    if waiting.no_wait {
        return Ok((release, None));
    }
    let seen = watch(client, release, until, &mut progress, interrupt).await;
    Ok((seen.release, seen.problem))
}

/// `timeout` from now; a year if it is longer than the clock can count.
pub fn deadline(timeout: Duration) -> Instant {
    const YEAR: Duration = Duration::from_hours(365 * 24);
    Instant::now() + timeout.min(YEAR)
}

/// An attempt whose answer never came may have been accepted; the key makes asking again safe.
fn unsure(mut problem: Problem, key: &str) -> Problem {
    if matches!(problem.exit, Exit::Unreachable | Exit::Interrupted) {
        problem.message =
            format!("{}; whether the release was accepted is not known", problem.message);
        let again = format!(
            "run the same command with --idempotency-key {key}: it joins the release if there is one"
        );
        problem.remedy = Some(match problem.remedy {
            Some(remedy) => format!("{remedy}; {again}"),
            None => again,
        });
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_open_question_asks_to_send_again() {
        let refused = Problem::new(Exit::Refused, "no");
        assert_eq!(unsure(refused.clone(), "k"), refused);
        let lost = unsure(Problem::new(Exit::Unreachable, "gone").remedy("look"), "k");
        assert!(lost.remedy.unwrap().contains("--idempotency-key k"));
    }
}
