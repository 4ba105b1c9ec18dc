//! `plan`: shows what `publish` would do, and how to do exactly that. Nothing is stored, so the
//! question may be asked again freely.

use std::time::Instant;

use colophon_api::v1::Plan as Answered;

use crate::{
    answer::Answer,
    args::Plan,
    call::{Patience, call},
    connect::Client,
    exit::{Exit, Problem},
    progress::Progress,
    submit::ATTEMPT,
    watch::good,
};

/// Asks for the plan; a pipeline sees by the exit code whether something stands against it.
pub async fn plan(client: &Client, args: Plan, line: &[String]) -> Result<Answer, Problem> {
    let request = args.content.request()?;
    // The server asks every registry within this call.
    let patience = Patience { attempt: ATTEMPT, until: Instant::now() + ATTEMPT };
    let plan = call(patience, &mut Progress::for_stderr(), || {
        let (mut releases, request) = (client.releases.clone(), request.clone());
        async move { releases.plan_release(request).await }
    })
    .await?;
    let problem = (!plan.feasible).then(|| against(&plan));
    let publish = publish_line(line, &plan.id);
    Ok(Answer::Plan(Box::new(plan), publish, problem))
}

/// What stands against the plan: how much, and the first of it. Its reason gives the code, as if
/// the release had ended for it.
fn against(plan: &Answered) -> Problem {
    let mut found: Vec<(&str, String)> = Vec::new();
    for publication in &plan.publications {
        let repository = &publication.repository;
        for obstacle in &publication.obstacles {
            found.push((&obstacle.reason, about(repository, &obstacle.message)));
        }
        for tag in publication.tags.iter().filter(|tag| !good(tag.outcome())) {
            let outcome = tag.outcome().short_name();
            let message = if tag.message.is_empty() { outcome } else { &tag.message };
            found.push((&tag.reason, about(&format!("{repository}:{}", tag.tag), message)));
        }
    }
    let Some((reason, message)) = found.first() else {
        return Problem::new(Exit::NotPublished, "the server says that the plan is not feasible");
    };
    let message = match found.len() {
        1 => format!("the release would not succeed: {message}"),
        many => {
            format!("the release would not succeed: {message} (the first of {many} obstacles)")
        }
    };
    let exit = Exit::of_reason(reason).unwrap_or(Exit::NotPublished);
    let mut problem = Problem::new(exit, message);
    problem.reason = Some((*reason).to_owned());
    problem
}

/// The message with its subject before it, unless it names that itself.
fn about(subject: &str, message: &str) -> String {
    if message.contains(subject) { message.to_owned() } else { format!("{subject}: {message}") }
}

/// The options that stand before the command and take a value of their own.
const GLOBAL: [&str; 4] = ["--server", "--ca-file", "--token-file", "--output"];

/// The command line that publishes what this one plans, ready to be pasted into a shell. `None`
/// if it holds what cannot be shown as it is.
fn publish_line(line: &[String], id: &str) -> Option<String> {
    let mut arguments = line.iter().skip(1);
    let mut words = vec!["colophon".to_owned()];
    loop {
        let argument = arguments.next()?;
        if argument == "plan" {
            words.push("publish".to_owned());
            break;
        }
        words.push(argument.clone());
        if GLOBAL.contains(&argument.as_str()) {
            words.push(arguments.next()?.clone());
        }
    }
    let rest: Vec<String> = arguments.cloned().collect();
    // Behind `--` there are no options any more.
    let end = rest.iter().position(|argument| argument == "--").unwrap_or(rest.len());
    let (options, behind) = rest.split_at_checked(end)?;
    words.extend_from_slice(options);
    words.extend(["--plan".to_owned(), id.to_owned()]);
    words.extend_from_slice(behind);
    let quoted: Option<Vec<String>> = words.iter().map(|word| quoted(word)).collect();
    quoted.map(|words| words.join(" "))
}

/// The word as a POSIX shell reads it back; `None` for one that a terminal would not show.
fn quoted(word: &str) -> Option<String> {
    if crate::text::clean(word) != word {
        return None;
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return Some(word.to_owned());
    }
    Some(format!("'{}'", word.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use colophon_api::v1::{Obstacle, PlannedPublication, PlannedTag, TagMoveState};

    use super::*;

    fn line(words: &[&str]) -> Option<String> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        publish_line(&words, "p1")
    }

    #[test]
    fn the_line_to_publish_is_this_one_with_the_plan() {
        assert_eq!(
            line(&["/usr/bin/colophon", "--output", "table", "plan", "a/x:1", "--to", "b/x"]),
            Some("colophon --output table publish a/x:1 --to b/x --plan p1".into())
        );
        assert_eq!(
            line(&["colophon", "--server=http://a", "plan", "--reason", "it's due", "--", "plan"]),
            Some(
                r"colophon --server=http://a publish --reason 'it'\''s due' --plan p1 -- plan"
                    .into()
            )
        );
        assert_eq!(line(&["colophon", "plan", "a\u{1b}[2J"]), None);
        assert_eq!(line(&["colophon"]), None);
    }

    #[test]
    fn the_first_obstacle_is_named_and_all_are_counted() {
        let tag = PlannedTag {
            tag: "1".into(),
            outcome: TagMoveState::Refused.into(),
            reason: "TAG_IMMUTABLE".into(),
            message: "it is elsewhere".into(),
            ..PlannedTag::default()
        };
        let kept = PlannedTag { outcome: TagMoveState::Kept.into(), ..PlannedTag::default() };
        let publication = PlannedPublication {
            repository: "b/x".into(),
            tags: vec![kept, tag],
            ..PlannedPublication::default()
        };
        let mut plan = Answered { publications: vec![publication], ..Answered::default() };
        let problem = against(&plan);
        assert_eq!(
            (problem.exit, problem.reason.as_deref()),
            (Exit::Immutable, Some("TAG_IMMUTABLE"))
        );
        assert!(problem.message.ends_with("b/x:1: it is elsewhere"), "{}", problem.message);
        plan.publications[0].obstacles =
            vec![Obstacle { reason: "FROZEN".into(), message: "until 14:02".into() }];
        let problem = against(&plan);
        assert_eq!((problem.exit, problem.reason.as_deref()), (Exit::Frozen, Some("FROZEN")));
        assert!(problem.message.ends_with("b/x: until 14:02 (the first of 2 obstacles)"));
        let named = about("b/x:1", "the unique tag b/x:1 is elsewhere");
        assert_eq!(named, "the unique tag b/x:1 is elsewhere");
        plan.publications.clear();
        assert_eq!(against(&plan).exit, Exit::NotPublished);
    }
}
