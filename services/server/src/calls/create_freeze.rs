//! `FreezeService.CreateFreeze`.

use colophon_api::v1;
use colophon_domain::{
    Action, Failure, FreezeRequest, Principal, Reason, Repository, RepositoryPattern, Result,
};
use time::{Duration, OffsetDateTime};

use super::Calls;
use crate::{answer, fields};

/// A freeze that nobody lifts ends after this at the latest.
const LONGEST: Duration = Duration::days(366);
/// A host, a port and a name have fewer characters together.
const PATTERN_MOST: usize = 520;

impl Calls {
    /// Stops the moves of everything that a pattern covers, for a caller who may.
    pub(crate) async fn create_freeze(
        &self,
        caller: &Principal,
        request: v1::CreateFreezeRequest,
    ) -> Result<v1::Freeze> {
        let request = parse(request, self.clock.now())?;
        allow(caller, &request.pattern).map_err(|failure| failure.field("pattern"))?;
        Ok(answer::freeze(self.service.freeze(caller.clone(), request).await?))
    }
}

/// Refuses by naming the missing action and the pattern, as other rights are refused.
pub(super) fn allow(caller: &Principal, pattern: &RepositoryPattern) -> Result<()> {
    let (action, name) = (Action::Freeze, &caller.name);
    if caller.may_all(action, pattern) {
        return Ok(());
    }
    Err(Failure::new(
        Reason::PermissionDenied,
        format!("{name} lacks the action {action} for all of {pattern}"),
    )
    .remedy(format!("ask the operator to grant {action} on {pattern} to {name}")))
}

/// Reads the request; pure, with the time given.
fn parse(request: v1::CreateFreezeRequest, now: OffsetDateTime) -> Result<FreezeRequest> {
    Ok(FreezeRequest {
        pattern: pattern(&request.pattern)?,
        reason: fields::reason(request.reason)?,
        ends_at: end(fields::time("end_time", request.end_time)?, now)?,
    })
}

/// Reads the pattern, and refuses one that covers no repository: it would stop nothing, and
/// nobody would notice before it is too late.
fn pattern(text: &str) -> Result<RepositoryPattern> {
    if text.len() > PATTERN_MOST {
        return Err(Failure::invalid("pattern", "the pattern is too long to cover a repository"));
    }
    let pattern: RepositoryPattern = fields::required("pattern", text)?;
    let (prefix, example) = match text.strip_suffix('*') {
        Some("") => return Ok(pattern),
        // Two parts, because Docker Hub's names of one part get a `library/`.
        Some(prefix) => (prefix, "a/a"),
        None => (text, ""),
    };
    let whole = Repository::parse(&format!("{prefix}{example}")).map(|whole| whole.to_string());
    if whole.is_ok_and(|whole| whole.strip_suffix(example) == Some(prefix)) {
        return Ok(pattern);
    }
    Err(Failure::invalid("pattern", format!("{text:?} covers no repository")).remedy(
        "give * for everything, host/* for a registry, host/name/* for what is below, or \
         host/name for one repository; the host is never left out",
    ))
}

fn end(end: Option<OffsetDateTime>, now: OffsetDateTime) -> Result<OffsetDateTime> {
    let Some(end) = end else {
        return Err(Failure::invalid("end_time", "a freeze has an end, and none is given").remedy(
            "give end_time, at most 366 days from now; a freeze that is over before is lifted",
        ));
    };
    if end <= now {
        return Err(Failure::invalid("end_time", "the end of the freeze is not in the future"));
    }
    if end - now > LONGEST {
        return Err(Failure::invalid(
            "end_time",
            format!("a freeze lasts at most {} days", LONGEST.whole_days()),
        )
        .remedy("give an earlier end; another freeze can follow"));
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use colophon_domain::Grant;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-03 14:02:00 UTC);

    fn request() -> v1::CreateFreezeRequest {
        v1::CreateFreezeRequest {
            pattern: "docker.io/acme/*".into(),
            reason: "holidays".into(),
            end_time: Some((NOW + LONGEST).into()),
        }
    }

    /// The field that a changed request is refused for.
    fn refused(change: impl FnOnce(&mut v1::CreateFreezeRequest)) -> String {
        let mut changed = request();
        change(&mut changed);
        parse(changed, NOW).unwrap_err().field_name().unwrap_or("none").to_owned()
    }

    #[test]
    fn a_freeze_has_a_reason_and_an_end() {
        let parsed = parse(request(), NOW).unwrap();
        assert_eq!((parsed.ends_at, parsed.reason.as_str()), (NOW + LONGEST, "holidays"));
        assert_eq!(refused(|r| r.reason = "  ".into()), "reason");
        assert_eq!(refused(|r| r.reason = "a\nb".into()), "reason");
        let at = |end: OffsetDateTime| refused(|r| r.end_time = Some(end.into()));
        assert_eq!(at(NOW), "end_time");
        assert_eq!(at(NOW - Duration::DAY), "end_time");
        assert_eq!(at(NOW + LONGEST + Duration::NANOSECOND), "end_time");
        assert_eq!(
            refused(|r| {
                r.end_time = Some(colophon_api::Timestamp { seconds: i64::MAX, nanos: 0 });
            }),
            "end_time"
        );
        let endless = v1::CreateFreezeRequest { end_time: None, ..request() };
        let failure = parse(endless, NOW).unwrap_err();
        assert!(failure.message().contains("a freeze has an end"), "{failure}");
    }

    #[test]
    fn a_pattern_covers_what_repositories_are_called() {
        for text in [
            "*",
            "docker.io/*",
            "docker.io/library/*",
            "docker.io/library/nginx",
            "docker.io/acme/app",
            "ghcr.io/app",
            "registry.corp.lan:5000/*",
            "localhost:5000/a/b/c",
            "127.0.0.1:5000/acme/*",
        ] {
            assert_eq!(pattern(text).unwrap().to_string(), text);
        }
        let long = format!("ghcr.io/{}/*", "a".repeat(600));
        for text in [
            "",
            "acme/*",
            "acme/app",
            "app",
            "ghcr.io",
            "docker.io/nginx",
            "index.docker.io/*",
            "/*",
            "ghcr.io//*",
            "ghcr.io/a:b",
            "ghcr.io/a:b/*",
            "ghcr.io/*/b",
            "ghcr.io/a*",
            "GHCR.io/*",
            "ghcr.io:99999/*",
            "https://ghcr.io/*",
            &long,
        ] {
            assert_eq!(pattern(text).unwrap_err().field_name(), Some("pattern"), "{text}");
        }
    }

    #[test]
    fn the_right_is_needed_for_all_that_is_stopped() {
        let caller = |granted: &str| Principal {
            name: "ops".into(),
            grants: vec![
                Grant {
                    repositories: vec![granted.parse().unwrap()],
                    actions: vec![Action::Freeze],
                },
                Grant { repositories: vec!["*".parse().unwrap()], actions: vec![Action::Read] },
            ],
        };
        let wanted = "docker.io/acme/*".parse().unwrap();
        for wide in ["*", "docker.io/*", "docker.io/acme/*"] {
            allow(&caller(wide), &wanted).unwrap();
        }
        for narrow in ["docker.io/acme/app", "docker.io/acme/app/*", "ghcr.io/*"] {
            let failure = allow(&caller(narrow), &wanted).unwrap_err();
            assert_eq!(failure.reason(), Reason::PermissionDenied);
            for word in ["ops", "freeze", "docker.io/acme/*"] {
                assert!(failure.message().contains(word), "{failure}");
            }
        }
    }
}
