//! `publish` and `release`: asks for a release and waits for it. The request is sent with an
//! idempotency key, so that sending it again after a lost answer makes no second release.

use std::time::{Duration, Instant};

use colophon_api::v1::{CreateReleaseRequest, GetReleaseRequest};
use colophon_domain::{Entropy as _, SystemEntropy};

use crate::{
    answer::Answer,
    args::{Publish, ShowRelease},
    call::{Patience, call},
    connect::Client,
    exit::{Exit, Problem},
    interrupt::Interrupt,
    progress::Progress,
    watch::watch,
};

/// The server asks the source's registry within this call, which may be slow.
const ATTEMPT: Duration = Duration::from_mins(1);

/// Creates the release and, unless told otherwise, waits for its end.
pub async fn publish(client: &Client, args: Publish) -> Result<Answer, Problem> {
    let mut progress = Progress::for_stderr();
    let mut interrupt = Interrupt::new()?;
    let until = deadline(args.timeout);
    let no_wait = args.no_wait;
    let request = request(args);
    let key = request.idempotency_key.clone();
    let accepted = call(Patience { attempt: ATTEMPT, until }, &mut progress, || {
        let (mut releases, request) = (client.releases.clone(), request.clone());
        async move { releases.create_release(request).await }
    });
    let accepted = tokio::select! {
        accepted = accepted => accepted.map_err(|problem| unsure(problem, &key)),
        () = interrupt.wait() => Err(unsure(Problem::new(Exit::Interrupted, "interrupted"), &key)),
    };
    let release = accepted?;
    if no_wait {
        return Ok(Answer::Release(Box::new(release), None));
    }
    let seen = watch(client, release, until, &mut progress, &mut interrupt).await;
    Ok(Answer::Release(Box::new(seen.release), seen.problem))
}

/// Shows a release, at once or when it has ended.
pub async fn show(client: &Client, args: ShowRelease) -> Result<Answer, Problem> {
    let mut progress = Progress::for_stderr();
    let until = deadline(args.timeout);
    let patience =
        if args.wait { Patience { attempt: ATTEMPT, until } } else { Patience::for_questions() };
    let request = GetReleaseRequest { id: args.id };
    let release = call(patience, &mut progress, || {
        let (mut releases, request) = (client.releases.clone(), request.clone());
        async move { releases.get_release(request).await }
    })
    .await?;
    if !args.wait {
        return Ok(Answer::Release(Box::new(release), None));
    }
    let mut interrupt = Interrupt::new()?;
    let seen = watch(client, release, until, &mut progress, &mut interrupt).await;
    Ok(Answer::Release(Box::new(seen.release), seen.problem))
}

/// `timeout` from now; a year if it is longer than the clock can count.
fn deadline(timeout: Duration) -> Instant {
    const YEAR: Duration = Duration::from_hours(365 * 24);
    Instant::now() + timeout.min(YEAR)
}

fn request(args: Publish) -> CreateReleaseRequest {
    CreateReleaseRequest {
        source: args.source,
        targets: args.targets.0,
        reason: args.reason.unwrap_or_default(),
        on_behalf_of: args.on_behalf_of.unwrap_or_default(),
        labels: args.label.into_iter().collect(),
        not_after: args.not_after,
        priority: args.priority,
        idempotency_key: args.idempotency_key.unwrap_or_else(|| SystemEntropy.uuid().to_string()),
    }
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
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn parsed(line: &str) -> CreateReleaseRequest {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Publish(publish) = cli.command else { panic!("another command") };
        request(*publish)
    }

    #[test]
    fn a_key_is_drawn_where_none_is_given() {
        let line = "colophon publish a/x:1 --to b/x --tag 1";
        let (one, two) = (parsed(line), parsed(line));
        assert_ne!(one.idempotency_key, two.idempotency_key);
        assert_eq!(one.idempotency_key.len(), 36);
        assert_eq!(parsed(&format!("{line} --idempotency-key k")).idempotency_key, "k");
    }

    #[test]
    fn only_an_open_question_asks_to_send_again() {
        let refused = Problem::new(Exit::Refused, "no");
        assert_eq!(unsure(refused.clone(), "k"), refused);
        let lost = unsure(Problem::new(Exit::Unreachable, "gone").remedy("look"), "k");
        assert!(lost.remedy.unwrap().contains("--idempotency-key k"));
    }
}
