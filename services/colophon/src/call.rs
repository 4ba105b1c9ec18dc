//! One call to the server, made again while that can help: a connection that fails, a server
//! that restarts, `UNAVAILABLE`, a limit with a time to wait. What the server refuses is final.

use std::{
    error::Error,
    io,
    time::{Duration, Instant},
};

use colophon_domain::Retry;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::{
    exit::{Exit, Problem},
    progress::Notes,
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a call may take and be tried.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The longest time that one attempt may take.
    pub attempt: Duration,
    /// When to stop trying again.
    pub until: Instant,
}

impl Patience {
    /// For questions: they are quick, and asking again later is easy.
    pub fn for_questions() -> Self {
        let attempt = Duration::from_secs(30);
        Self { attempt, until: Instant::now() + Duration::from_secs(5) }
    }
}

/// An attempt that did not work.
pub struct Miss {
    /// What went wrong.
    pub problem: Problem,
    /// Whether another attempt can help, and the pause that the server asks for.
    pub again: Retry,
}

/// Makes the call until it is answered for good or the patience is over. Two attempts that fail
/// alike are told of once.
pub async fn call<T, F>(
    patience: Patience,
    progress: &mut impl Notes,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Problem>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let mut pause = FIRST_PAUSE;
    let mut told = String::new();
    loop {
        let left = patience.until.saturating_duration_since(Instant::now());
        // The last attempt still gets a second, or a short patience would never try at all.
        let limit = patience.attempt.min(left.max(Duration::from_secs(1)));
        let miss = match tokio::time::timeout(limit, attempt()).await {
            Ok(Ok(response)) => return Ok(response.into_inner()),
            Ok(Err(status)) => judge(&status),
            Err(_) => unanswered(limit),
        };
        let wait = match miss.again {
            Retry::Never => return Err(miss.problem),
            Retry::Backoff => pause,
            Retry::Wait(asked) => asked.max(pause),
        };
        if Instant::now() + wait >= patience.until {
            return Err(miss.problem);
        }
        if told != miss.problem.message {
            progress.note(&format!("{}; trying again", miss.problem.message));
            told.clone_from(&miss.problem.message);
        }
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn unanswered(limit: Duration) -> Miss {
    let seconds = limit.as_secs().max(1);
    let problem =
        Problem::new(Exit::Unreachable, format!("the server did not answer within {seconds} s"));
    Miss { problem, again: Retry::Backoff }
}

/// What a status means: what to say of it, and whether asking again can help.
pub fn judge(status: &Status) -> Miss {
    // Only a status that was made on this side has a source: the connection failed.
    if let Some(source) = status.source() {
        return broken(source);
    }
    let details = status.get_error_details();
    let wait = details.retry_info().and_then(|info| info.retry_delay).map(Retry::Wait);
    let (exit, again) = match (status.code(), wait) {
        (Code::Unavailable | Code::DeadlineExceeded, wait) => {
            (Exit::Unreachable, wait.unwrap_or(Retry::Backoff))
        }
        (Code::ResourceExhausted, Some(wait)) => (Exit::Unreachable, wait),
        _ => (Exit::Refused, Retry::Never),
    };
    let info = details.error_info();
    // A status without details says no reason of ours, except where its code can mean one only.
    let own = match (info, status.code()) {
        (Some(info), _) => Exit::of_reason(&info.reason),
        (None, Code::PermissionDenied | Code::Unauthenticated) => Some(Exit::NotPermitted),
        (None, _) => None,
    };
    let metadata = |key: &str| info.and_then(|info| info.metadata.get(key)).cloned();
    let violation = details.bad_request().and_then(|request| request.field_violations.first());
    let message = match status.message() {
        "" => format!("the server answered: {}", status.code().description()),
        message => message.to_owned(),
    };
    let fallback = match status.code() {
        Code::Unauthenticated => Some("set COLOPHON_TOKEN or --token-file"),
        Code::Unimplemented => Some("check that --server is a Colophon server of this version"),
        _ => None,
    };
    let problem = Problem {
        exit: own.unwrap_or(exit),
        reason: Some(info.map_or_else(|| code_name(status.code()), |info| info.reason.clone())),
        message,
        field: metadata("field").or_else(|| violation.map(|violation| violation.field.clone())),
        remedy: metadata("remedy").or_else(|| fallback.map(ToOwned::to_owned)),
    };
    Miss { problem, again }
}

/// The code in the spelling of reasons, for a server that gives none.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for character in format!("{code:?}").chars() {
        if character.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(character.to_ascii_uppercase());
    }
    name
}

fn broken(source: &(dyn Error + 'static)) -> Miss {
    let mut causes: Vec<String> = Vec::new();
    let mut untrusted = false;
    let mut next = Some(source);
    while let Some(error) = next {
        let text = error.to_string();
        if causes.last().is_none_or(|last| !last.contains(&text)) {
            causes.push(text);
        }
        // A certificate that is not trusted, or a peer that speaks no TLS, stays so.
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        untrusted |= kind == Some(io::ErrorKind::InvalidData);
        next = error.source();
    }
    let message = format!("the server cannot be reached: {}", causes.join(": "));
    let problem = Problem::new(Exit::Unreachable, message);
    if untrusted {
        let remedy = "check --server; give the CA that signed its certificate with --ca-file";
        return Miss { problem: problem.remedy(remedy), again: Retry::Never };
    }
    Miss {
        problem: problem.remedy("check --server and that the server runs"),
        again: Retry::Backoff,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_refusal_carries_reason_field_and_remedy() {
        let metadata = [("remedy", "choose another tag"), ("field", "targets[0].unique_tags[0]")];
        let metadata: HashMap<String, String> =
            metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let details = ErrorDetails::with_error_info("TAG_IMMUTABLE", "colophon", metadata);
        let status =
            Status::with_error_details(Code::FailedPrecondition, "1.4 is elsewhere", details);
        let miss = judge(&status);
        assert_eq!(miss.again, Retry::Never);
        assert_eq!(
            miss.problem,
            Problem {
                exit: Exit::Immutable,
                reason: Some("TAG_IMMUTABLE".into()),
                message: "1.4 is elsewhere".into(),
                field: Some("targets[0].unique_tags[0]".into()),
                remedy: Some("choose another tag".into()),
            }
        );
    }

    #[test]
    fn a_status_without_details_still_names_a_reason() {
        let miss = judge(&Status::new(Code::PermissionDenied, ""));
        assert_eq!(miss.problem.reason.as_deref(), Some("PERMISSION_DENIED"));
        assert_eq!(miss.problem.exit, Exit::NotPermitted);
        assert!(!miss.problem.message.is_empty());
        // Not a word of ours: a proxy or the library stopped the call.
        let miss = judge(&Status::new(Code::Cancelled, ""));
        assert_eq!(miss.problem.exit, Exit::Refused);
        let miss = judge(&Status::unauthenticated("no token"));
        assert!(miss.problem.remedy.unwrap().contains("COLOPHON_TOKEN"));
    }

    #[test]
    fn what_may_pass_is_tried_again_after_the_time_that_the_server_asks_for() {
        assert_eq!(judge(&Status::unavailable("sealed")).again, Retry::Backoff);
        assert_eq!(judge(&Status::deadline_exceeded("late")).again, Retry::Backoff);
        let wait = Duration::from_secs(7);
        let details = ErrorDetails::with_retry_info(Some(wait));
        let status = Status::with_error_details(Code::ResourceExhausted, "slow", details);
        assert_eq!(judge(&status).again, Retry::Wait(wait));
        assert_eq!(judge(&Status::resource_exhausted("too many")).again, Retry::Never);
        assert_eq!(judge(&Status::aborted("moved")).again, Retry::Never);
    }

    #[test]
    fn a_reason_with_a_code_of_its_own_keeps_it_while_the_call_is_tried_again() {
        let details = ErrorDetails::with_error_info("VAULT_DENIED", "colophon", HashMap::new());
        let miss = judge(&Status::with_error_details(Code::Unavailable, "no policy", details));
        assert_eq!((miss.problem.exit, miss.again), (Exit::NotPermitted, Retry::Backoff));
    }

    #[test]
    fn a_connection_that_broke_is_tried_again_but_not_a_certificate() {
        let miss = broken(&io::Error::from(io::ErrorKind::ConnectionReset));
        assert_eq!((miss.problem.exit, miss.again), (Exit::Unreachable, Retry::Backoff));
        let miss = broken(&io::Error::new(io::ErrorKind::InvalidData, "unknown issuer"));
        assert_eq!((miss.problem.exit, miss.again), (Exit::Unreachable, Retry::Never));
        assert!(miss.problem.message.contains("unknown issuer"));
    }
}
