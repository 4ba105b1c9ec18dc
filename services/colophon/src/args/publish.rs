//! The options of `publish` and of `plan`, which has the same but for those about waiting.

use std::time::Duration;

use clap::{Args, ValueEnum};
use colophon_api::{
    Timestamp,
    v1::{CreateReleaseRequest, OlderPolicy, OnFailure, OrderKey},
};
use colophon_domain::{Entropy as _, SystemEntropy};

use super::{TIMES, along::Along, moment, targets::Targets, values};
use crate::exit::{EXIT_CODES, Problem};

/// What to publish, and how to wait for it.
#[derive(Debug, Args)]
#[command(after_help = TIMES, after_long_help = format!("{TIMES}\n\n{EXIT_CODES}"))]
pub struct Publish {
    /// What, where and as what.
    #[command(flatten)]
    pub content: Content,
    /// Do exactly what this plan showed, or stop with `PLAN_CHANGED`
    #[arg(long, value_name = "ID", value_parser = values::plan)]
    pub plan: Option<String>,
    /// How to wait.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// What to plan.
#[derive(Debug, Args)]
#[command(after_help = PLAN_CODES)]
pub struct Plan {
    /// What, where and as what.
    #[command(flatten)]
    pub content: Content,
}

const PLAN_CODES: &str = "\
Exits with 0 if nothing stands against it. If something does, the code is that of its reason; 1 if
the reason has none.";

/// What to publish, where and as what.
#[derive(Debug, Args)]
pub struct Content {
    /// The image, host[:port]/name:tag or host[:port]/name@digest
    pub source: String,
    /// Where and as what.
    #[command(flatten)]
    pub terms: Terms,
    /// What of the image goes along.
    #[command(flatten)]
    pub along: Along,
}

/// Where to publish and as what, wherever the image comes from.
#[derive(Debug, Args)]
pub struct Terms {
    /// The repositories and their tags.
    #[command(flatten)]
    pub targets: Targets,
    /// Publish as this version: every --to gets it as a unique tag, and moves those of its
    /// floating tags of whose line it is the highest (by default 1.4, 1 and latest)
    #[arg(long, value_name = "VERSION", value_parser = values::semver, conflicts_with = "order")]
    pub semver: Option<String>,
    /// A pre-release, or a version with build metadata, moves floating tags too
    #[arg(long)]
    pub semver_pre_release: bool,
    /// What orders the builds of every floating tag: number:1234, time:2026-11-03T14:02:00Z or
    /// semver:1.4.2; an older build that finishes later does not move the tag back
    #[arg(long, value_name = "KIND:VALUE", value_parser = values::order)]
    pub order: Option<OrderKey>,
    /// What becomes of a floating tag that has a newer build already: refuse fails the release,
    /// supersede leaves the tag as it is [default: refuse]
    #[arg(long, value_enum, hide_possible_values = true, value_name = "refuse|supersede")]
    pub if_older: Option<OlderChoice>,
    /// Floating tags may go back to an older build; needs --reason
    #[arg(long)]
    pub allow_backward: bool,
    /// What becomes of floating tags that were moved when the rest fails: restore puts them back,
    /// keep leaves them [default: restore]
    #[arg(long, value_enum, hide_possible_values = true, value_name = "restore|keep")]
    pub on_failure: Option<OnFailureChoice>,
    /// Move tags in spite of a freeze; needs --reason, and the ledger says that it was done
    #[arg(long)]
    pub break_glass: bool,
    /// Why, for the ledger
    #[arg(long)]
    pub reason: Option<String>,
    /// On whose behalf; recorded as claimed
    #[arg(long, value_name = "NAME")]
    pub on_behalf_of: Option<String>,
    /// A label to find the release by; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::label)]
    pub label: Vec<(String, String)>,
    /// Begin no tag after this time
    #[arg(long, value_name = "TIME", value_parser = values::timestamp)]
    pub not_after: Option<Timestamp>,
    /// -100 to 100, greater goes first
    #[arg(long, allow_negative_numbers = true, default_value_t = 0, hide_default_value = true)]
    pub priority: i32,
}

/// What becomes of a floating tag that has a newer build already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OlderChoice {
    /// The release fails.
    Refuse,
    /// The tag stays.
    Supersede,
}

/// What becomes of floating tags that were moved when the rest fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnFailureChoice {
    /// They go back.
    Restore,
    /// They stay.
    Keep,
}

/// How to wait for a release, and how to send it safely.
#[derive(Debug, Args)]
pub struct Waiting {
    /// Makes running the command again safe; a random one if left out
    #[arg(long, value_name = "KEY", value_parser = values::key)]
    pub idempotency_key: Option<String>,
    /// Return as soon as the release is accepted
    #[arg(long)]
    pub no_wait: bool,
    /// Give up waiting after this long; the release goes on
    #[arg(long, value_name = "DURATION", value_parser = moment::duration, default_value = "30m")]
    pub timeout: Duration,
}

impl Waiting {
    /// The key given, or a random one.
    pub fn key(&self) -> String {
        self.idempotency_key.clone().unwrap_or_else(|| SystemEntropy.uuid().to_string())
    }
}

impl Content {
    /// The request without key and plan; what contradicts itself is a usage error that says why.
    pub fn request(self) -> Result<CreateReleaseRequest, Problem> {
        let mut request = self.terms.request(self.source)?;
        request.selection = self.along.selection();
        Ok(request)
    }
}

impl Terms {
    /// The request without key, plan and selection.
    pub fn request(self, source: String) -> Result<CreateReleaseRequest, Problem> {
        self.check()?;
        let if_older = self.if_older.map_or(OlderPolicy::Unspecified, |choice| match choice {
            OlderChoice::Refuse => OlderPolicy::Refuse,
            OlderChoice::Supersede => OlderPolicy::Supersede,
        });
        let on_failure = self.on_failure.map_or(OnFailure::Unspecified, |choice| match choice {
            OnFailureChoice::Restore => OnFailure::Restore,
            OnFailureChoice::Keep => OnFailure::Keep,
        });
        Ok(CreateReleaseRequest {
            source,
            targets: self.targets.0,
            reason: self.reason.unwrap_or_default(),
            on_behalf_of: self.on_behalf_of.unwrap_or_default(),
            labels: self.label.into_iter().collect(),
            not_after: self.not_after,
            priority: self.priority,
            idempotency_key: String::new(),
            order_key: self.order,
            if_older: if_older.into(),
            allow_backward: self.allow_backward,
            semver: self.semver.unwrap_or_default(),
            semver_moves_pre_release: self.semver_pre_release,
            on_failure: on_failure.into(),
            plan: String::new(),
            break_glass: self.break_glass,
            selection: None,
            upload: String::new(),
        })
    }

    /// Refuses what contradicts itself.
    pub fn check(&self) -> Result<(), Problem> {
        let silent = self.reason.as_deref().is_none_or(|reason| reason.trim().is_empty());
        for (asked, option) in
            [(self.allow_backward, "--allow-backward"), (self.break_glass, "--break-glass")]
        {
            if asked && silent {
                return Err(Problem::usage(format!("{option} needs --reason"))
                    .remedy("say why: it stands in the ledger with the move"));
            }
        }
        if self.semver_pre_release && self.semver.is_none() {
            return Err(Problem::usage("--semver-pre-release says nothing without --semver")
                .remedy("say which version it is, for example --semver 1.5.0-rc.1"));
        }
        let floating = self.targets.0.iter().any(|target| !target.floating_tags.is_empty());
        if self.order.is_some() && !floating {
            return Err(Problem::usage("--order is about floating tags, and there is no --float")
                .remedy("add a --float, or leave --order out: unique tags never move"));
        }
        let guards = || self.targets.0.iter().flat_map(|target| &target.guards);
        let ordered = self.order.is_some() || guards().any(|guard| guard.order_key.is_some());
        if self.if_older.is_some() && !ordered {
            return Err(Problem::usage("--if-older says nothing without --order or --order-of")
                .remedy("say what orders the builds, for example --order number:1234"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;
    use crate::exit::Exit;

    fn parsed(line: &str) -> Publish {
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Publish(publish) = cli.command else { panic!("another command") };
        *publish
    }

    #[test]
    fn a_publish_is_read_whole() {
        let publish = parsed(
            "colophon publish a/x:1 --to b/x --tag 1 --float latest --label team=web \
             --label a=b=c --priority -5 --timeout 90s --server http://localhost:1",
        );
        assert_eq!(publish.waiting.timeout, Duration::from_secs(90));
        let request = publish.content.request().unwrap();
        assert_eq!(request.source, "a/x:1");
        assert_eq!(request.targets[0].floating_tags, ["latest"]);
        assert_eq!(request.labels["a"], "b=c");
        assert_eq!(request.priority, -5);
        assert_eq!((request.if_older(), request.on_failure()), Default::default());
    }

    #[test]
    fn a_key_is_drawn_where_none_is_given() {
        let line = "colophon publish a/x:1 --to b/x --tag 1";
        let key = |line: &str| parsed(line).waiting.key();
        assert_ne!(key(line), key(line));
        assert_eq!(key(line).len(), 36);
        assert_eq!(key(&format!("{line} --idempotency-key k")), "k");
        // A variable of a script that is empty must not look like none.
        for option in ["--idempotency-key=", "--plan="] {
            let line = format!("{line} {option}");
            let refused = Cli::try_parse_from(line.split_whitespace()).unwrap_err().to_string();
            assert!(refused.contains("is empty"), "{refused}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_the_reason() {
        for (options, part) in [
            ("--allow-backward", "--allow-backward needs --reason"),
            ("--break-glass", "--break-glass needs --reason"),
            ("--if-older supersede", "--if-older says nothing"),
            ("--order number:1", "there is no --float"),
        ] {
            let line = format!("colophon publish a/x:1 --to b/x --tag 1 {options}");
            let problem = parsed(&line).content.request().unwrap_err();
            assert_eq!(problem.exit, Exit::Usage, "{line}");
            assert!(problem.message.contains(part), "{}", problem.message);
            assert!(problem.remedy.is_some(), "{line}");
        }
    }
}
