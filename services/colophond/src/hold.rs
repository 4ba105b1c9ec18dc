//! The commands of an operator after a restore: compare, decide, go on.

use anyhow::Result;
use clap::Args;
use colophon_engine::{Compared, Engine, Finding, Found, Resume};

use crate::say;

/// Who does something, and why; both are recorded.
#[derive(Args)]
pub(crate) struct Words {
    /// Why.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who.
    #[arg(long, value_name = "NAME", env = "USER", default_value = "operator")]
    by: String,
}

/// `colophond hold`
#[derive(Args)]
pub(crate) struct HoldArgs {
    #[command(flatten)]
    words: Words,
    /// The database was restored in a way that it cannot notice itself, such as a snapshot of its
    /// disk that was put back: `resume` then compares and cancels as after any restore.
    #[arg(long)]
    restored: bool,
}

/// `colophond resume`
#[derive(Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    words: Words,
    /// Let releases from before the restore go on, also where their tags have moved since, and put
    /// back what they moved if they fail.
    #[arg(long)]
    keep_queue: bool,
    /// Go on although tags were not compared; releases of such tags are cancelled, too.
    #[arg(long)]
    unchecked: bool,
}

/// Holds everything.
pub(crate) async fn begin(engine: &Engine, args: &HoldArgs) -> Result<()> {
    let Words { reason, by } = &args.words;
    let hold = if args.restored {
        engine.begin_restored(by, reason).await?
    } else {
        engine.begin_hold(by, reason).await?
    };
    say(if hold.restored {
        "the service is on hold after a restore; `colophond restore-check` compares, and \
         `colophond resume` ends it"
    } else {
        "the service is on hold; `colophond resume` ends it"
    })
}

/// Compares the ledger with the registries and prints what differs; true if everything is as
/// recorded.
pub(crate) async fn compare(engine: &Engine, again: bool) -> Result<bool> {
    match engine.hold().await? {
        Some(hold) => {
            say(format_args!("on hold since {} by {}: {}", hold.since, hold.by, hold.reason))?;
        }
        None => say("not on hold")?,
    }
    let compared = engine.compare(again).await?;
    let mut after: Option<Finding> = None;
    loop {
        let page = engine.findings(after.as_ref()).await?;
        for finding in &page {
            say(line(finding))?;
        }
        let Some(last) = page.into_iter().last() else { break };
        after = Some(last);
    }
    let Compared { same, differ, unreachable, left } = compared;
    say(format_args!(
        "{same} tags as recorded, {differ} differ, {unreachable} not reachable, {left} left"
    ))?;
    Ok(differ + unreachable + left == 0)
}

fn line(finding: &Finding) -> String {
    let Finding { recorded, found } = finding;
    let tag = format!("{}:{}", recorded.repository, recorded.tag);
    let shown = |digest: Option<&colophon_domain::Digest>| {
        digest.map_or_else(|| "nothing".to_owned(), ToString::to_string)
    };
    match found {
        Found::Same => format!("SAME         {tag}"),
        Found::Differs(served) => format!(
            "DIFFERS      {tag}  recorded {}  served {}",
            shown(recorded.digest.as_ref()),
            shown(served.as_ref())
        ),
        Found::Unreachable(why) => format!("UNREACHABLE  {tag}  {why}"),
    }
}

/// Ends the hold.
pub(crate) async fn resume(engine: &Engine, args: &ResumeArgs) -> Result<()> {
    let resumed = engine
        .resume(&Resume {
            by: &args.words.by,
            reason: &args.words.reason,
            keep_queue: args.keep_queue,
            unchecked: args.unchecked,
        })
        .await?;
    for id in &resumed.cancelled {
        say(format_args!("CANCELLED    {id}"))?;
    }
    for id in &resumed.going_on {
        say(format_args!("GOES ON      {id}"))?;
    }
    say(format_args!(
        "the service goes on: {} tags recorded as they are served, {} to be seen later, \
         {} releases cancelled, {} from before go on",
        resumed.recorded,
        resumed.unseen,
        resumed.cancelled.len(),
        resumed.going_on.len()
    ))
}
