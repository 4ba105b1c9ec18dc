//! What a registry's refusal means: the error envelope of the distribution specification, or
//! whatever else came in its place, turned into a typed failure. The registry's own words are
//! shown shortened and cleaned; headers, queries and secrets never are.

use std::{borrow::Cow, time::Duration};

use bytes::{Bytes, BytesMut};
use colophon_domain::{Failure, Reason, RegistryHost, Repository, Result, Retry};
use http::StatusCode;
use oci_client::errors::{OciEnvelope, OciErrorCode};
use reqwest::Response;

use crate::{sent::Sent, transport};

/// An error's body is read up to here.
pub(crate) const ERROR_LIMIT: usize = 64 * 1024;
/// This many characters of it are shown.
const SHOWN: usize = 200;
/// This many bytes of it are searched for what they say; two long names fit in.
const SEARCHED: usize = 2048;
/// What registries say of a tag that may not be moved.
const IMMUTABLE: [&str; 3] = ["immutable", "imagetagalreadyexists", "cannot be overwritten"];

/// A word of this many characters behind a scheme's name is taken for a secret.
const LEAST_SECRET: usize = 8;

/// What was asked of whom, for the texts of failures.
#[derive(Debug, Clone)]
pub(crate) struct Asked<'a> {
    pub repository: &'a Repository,
    /// In the form "reading the manifest v1".
    pub what: Cow<'a, str>,
    /// Whether the request writes.
    pub writes: bool,
}

impl Asked<'_> {
    pub(crate) fn registry(&self) -> &RegistryHost {
        self.repository.registry()
    }

    /// A failure whose text begins with who, what and where.
    pub(crate) fn failure(&self, reason: Reason, what_happened: &str) -> Failure {
        Failure::new(reason, format!("{} of {}: {what_happened}", self.what, self.repository))
    }

    /// A failure that another attempt may mend.
    pub(crate) fn unavailable(&self, what_happened: &str) -> Failure {
        self.failure(Reason::RegistryUnavailable, what_happened)
            .retry(Retry::Backoff)
            .remedy(format!("see whether {} is up; the attempt is repeated", self.registry()))
    }

    /// A request whose deadline came before it was sent.
    pub(crate) fn late(&self) -> Failure {
        let what_happened = "the time for it was over before it was sent";
        self.failure(Reason::RegistryUnavailable, what_happened).retry(Retry::Backoff)
    }

    /// An answer that no correct registry gives.
    pub(crate) fn protocol(&self, what_happened: &str) -> Failure {
        self.failure(Reason::RegistryProtocol, what_happened)
    }
}

/// Reads a body up to a limit, within a time.
pub(crate) async fn read_limited(
    mut response: Response,
    limit: usize,
    timeout: Duration,
    asked: &Asked<'_>,
) -> Result<Bytes> {
    let announced = response.content_length().and_then(|length| usize::try_from(length).ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large(limit, asked));
    }
    let read = async {
        let mut body = BytesMut::with_capacity(announced.unwrap_or_default());
        while let Some(chunk) =
            response.chunk().await.map_err(|error| transport::explain(error, asked))?
        {
            if body.len() + chunk.len() > limit {
                return Err(too_large(limit, asked));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    };
    tokio::time::timeout(timeout, read)
        .await
        .unwrap_or_else(|_| Err(asked.unavailable("the answer took too long")))
}

fn too_large(limit: usize, asked: &Asked<'_>) -> Failure {
    asked.failure(Reason::TooLarge, &format!("the answer is larger than {limit} bytes"))
}

/// A refusal, read and understood as far as it can be.
pub(crate) struct Refusal {
    pub status: StatusCode,
    pub codes: Vec<OciErrorCode>,
    /// The registry's words, fit to be shown.
    pub text: String,
    /// The same words in lower case and less shortened, to be searched and never shown.
    searched: String,
}

impl Refusal {
    /// Reads a refusal's body; one that cannot be read counts as empty.
    pub(crate) async fn read(mut response: Response, timeout: Duration, asked: &Asked<'_>) -> Self {
        let status = response.status();
        let sent = response.extensions_mut().remove::<Sent>().unwrap_or_default();
        let body = read_start(response, timeout.min(Duration::from_secs(10))).await;
        let refusal = Self::parse(status, &body, &sent, asked);
        tracing::debug!(
            registry = %asked.registry(), repository = asked.repository.name(),
            what = %asked.what, status = status.as_u16(), text = refusal.text, "refused"
        );
        refusal
    }

    fn parse(status: StatusCode, body: &[u8], sent: &Sent, asked: &Asked<'_>) -> Self {
        let (codes, text) = match serde_json::from_slice::<OciEnvelope>(body) {
            Ok(envelope) => {
                let text: Vec<String> = envelope
                    .errors
                    .iter()
                    .map(|error| format!("{} {}", code_text(&error.code), error.message))
                    .collect();
                (envelope.errors.into_iter().map(|error| error.code).collect(), text.join("; "))
            }
            Err(_) => (Vec::new(), String::from_utf8_lossy(body).into_owned()),
        };
        Self { status, codes, text: shown(&text, sent), searched: searched(&text, asked) }
    }

    pub(crate) fn has(&self, code: &OciErrorCode) -> bool {
        self.codes.contains(code)
    }

    /// Whether the registry says that a tag may not be moved: ECR, Harbor (412), Docker Hub,
    /// GitLab, Quay and Artifact Registry all use words of their own.
    pub(crate) fn says_immutable(&self) -> bool {
        // The page of a proxy that is out of order may hold any word.
        self.status == StatusCode::PRECONDITION_FAILED
            || self.status.is_client_error()
                && IMMUTABLE.iter().any(|word| self.searched.contains(word))
    }

    /// Whether the registry says that it does not do such a thing. One that takes a tag for a
    /// broken digest knows no deletion of tags either.
    pub(crate) fn says_unsupported(&self) -> bool {
        self.status == StatusCode::METHOD_NOT_ALLOWED
            || self.has(&OciErrorCode::Unsupported)
            || self.has(&OciErrorCode::DigestInvalid)
            || ["unsupported", "not supported"].iter().any(|word| self.searched.contains(word))
    }

    /// The failure for a tag that the registry does not let move.
    pub(crate) fn immutable(&self, asked: &Asked<'_>) -> Failure {
        asked
            .failure(Reason::TagImmutable, &self.words())
            .remedy("take another tag, or let the registry allow this one to move")
    }

    /// The status and the registry's words.
    pub(crate) fn words(&self) -> String {
        let status = self.status.as_u16();
        if self.text.is_empty() {
            format!("HTTP {status}")
        } else {
            format!("HTTP {status} {}", self.text)
        }
    }

    /// The failure for a refusal that the caller has no better explanation for.
    pub(crate) fn into_failure(self, asked: &Asked<'_>) -> Failure {
        let words = self.words();
        let failure = |reason| asked.failure(reason, &words);
        if self.status.is_server_error() || self.status == StatusCode::REQUEST_TIMEOUT {
            return asked.unavailable(&words);
        }
        if self.has(&OciErrorCode::NameUnknown)
            || (asked.writes && self.status == StatusCode::NOT_FOUND && self.codes.is_empty())
        {
            return failure(Reason::RepositoryNotFound).remedy(format!(
                "create {} first, if {} does not create repositories by a push",
                asked.repository,
                asked.registry()
            ));
        }
        if self.status == StatusCode::TOO_MANY_REQUESTS || self.has(&OciErrorCode::Toomanyrequests)
        {
            return failure(Reason::RateLimited).retry(Retry::Wait(Duration::from_secs(30)));
        }
        if self.has(&OciErrorCode::DigestInvalid) || self.has(&OciErrorCode::SizeInvalid) {
            return failure(Reason::DigestMismatch);
        }
        match self.status {
            StatusCode::UNAUTHORIZED => failure(Reason::RegistryUnauthorized),
            StatusCode::FORBIDDEN => failure(Reason::RegistryDenied),
            StatusCode::PAYLOAD_TOO_LARGE => failure(Reason::TooLarge),
            StatusCode::BAD_REQUEST if words.contains("HTTPS server") => {
                failure(Reason::RegistryProtocol)
                    .remedy("the registry speaks TLS: remove plain_http")
            }
            _ => failure(Reason::RegistryProtocol),
        }
    }
}

async fn read_start(mut response: Response, timeout: Duration) -> BytesMut {
    let mut body = BytesMut::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            let room = ERROR_LIMIT.saturating_sub(body.len());
            body.extend_from_slice(chunk.get(..room.min(chunk.len())).unwrap_or_default());
            if body.len() >= ERROR_LIMIT {
                break;
            }
        }
    };
    // What has come until the time is over is shown all the same.
    let _ = tokio::time::timeout(timeout, read).await;
    body
}

fn code_text(code: &OciErrorCode) -> String {
    serde_json::to_value(code)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// A registry's words to be searched. A repository or tag may have a telling name, which says
/// nothing when it is repeated.
fn searched(text: &str, asked: &Asked<'_>) -> String {
    let mut end = text.len().min(SEARCHED);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut text = text.get(..end).unwrap_or_default().to_ascii_lowercase();
    let object = asked.what.rsplit(' ').next().unwrap_or_default().to_ascii_lowercase();
    for name in [asked.repository.name(), &object] {
        if IMMUTABLE.iter().any(|word| name.contains(word)) {
            text = text.replace(name, "");
        }
    }
    text
}

/// A registry's words, fit to be shown: one line, short, without the queries of URLs (they may
/// be signed) and not at all if they repeat a secret.
pub(crate) fn shown(text: &str, sent: &Sent) -> String {
    if sent.is_in(text) {
        return "(the answer repeats a secret and is not shown)".to_owned();
    }
    let text = text.get(..4 * SHOWN).unwrap_or(text);
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let mut line = String::new();
    let mut before = String::new();
    for word in words.filter(|word| !word.is_empty()) {
        // Somebody's authorization, even if it is not ours.
        let secret = before.ends_with("basic") || before.ends_with("bearer");
        before = word.to_ascii_lowercase();
        let word = if secret && word.chars().count() >= LEAST_SECRET { "***" } else { word };
        let word = match word.split_once('?') {
            Some((address, _)) if address.contains("://") => address,
            _ => word,
        };
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &str) -> Refusal {
        refusal_of("putting the manifest Immutable-1", status, body)
    }

    fn refusal_of(what: &str, status: u16, body: &str) -> Refusal {
        let sent = Sent::of(None, Some(&"ghp_secret".into()));
        let repository = Repository::parse("ghcr.io/acme/immutable-app").unwrap();
        let asked = Asked { repository: &repository, what: what.into(), writes: true };
        Refusal::parse(StatusCode::from_u16(status).unwrap(), body.as_bytes(), &sent, &asked)
    }

    fn reason(status: u16, body: &str) -> Reason {
        let repository = Repository::parse("ghcr.io/acme/app").unwrap();
        let asked =
            Asked { repository: &repository, what: "starting an upload".into(), writes: true };
        refusal(status, body).into_failure(&asked).reason()
    }

    #[test]
    fn codes_and_statuses_have_their_reasons() {
        let coded = |code: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"m"}}]}}"#);
        assert_eq!(reason(404, &coded("NAME_UNKNOWN")), Reason::RepositoryNotFound);
        assert_eq!(reason(404, "<html>"), Reason::RepositoryNotFound);
        assert_eq!(reason(400, &coded("DIGEST_INVALID")), Reason::DigestMismatch);
        assert_eq!(reason(400, &coded("TOOMANYREQUESTS")), Reason::RateLimited);
        assert_eq!(reason(403, "no"), Reason::RegistryDenied);
        assert_eq!(reason(413, ""), Reason::TooLarge);
        assert_eq!(reason(502, "<html>bad gateway</html>"), Reason::RegistryUnavailable);
        assert_eq!(reason(418, ""), Reason::RegistryProtocol);
    }

    #[test]
    fn immutable_tags_are_told_in_many_words() {
        assert!(refusal(412, "").says_immutable());
        assert!(refusal(400, "tag invalid: The image tag 'v1' already exists in the 'a' repository and cannot be overwritten because the repository is immutable.").says_immutable());
        assert!(refusal(403, "ImageTagAlreadyExistsException").says_immutable());
        assert!(!refusal(403, "denied").says_immutable());
    }

    #[test]
    fn long_names_do_not_hide_that_a_tag_is_immutable_and_telling_ones_do_not_say_so() {
        let (tag, name) = ("t".repeat(128), "n".repeat(255));
        let ecr = format!(
            r#"{{"errors":[{{"code":"TAG_INVALID","message":"The image tag '{tag}' already exists in the '{name}' repository and cannot be overwritten because the repository is immutable."}}]}}"#
        );
        assert!(refusal(400, &ecr).says_immutable());
        assert!(refusal(400, &format!("ghp_secret {ecr}")).says_immutable());
        let denied = "denied: no write access to acme/immutable-app:Immutable-1";
        assert!(!refusal(403, denied).says_immutable());
        assert!(refusal(403, &format!("{denied}, tag is immutable")).says_immutable());
        let euros = refusal(403, &"\u{20ac}".repeat(SEARCHED));
        assert!(!euros.says_immutable() && euros.searched.len() <= SEARCHED);
    }

    #[test]
    fn registries_say_in_many_ways_that_they_do_not_delete_tags() {
        let coded = |code: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"m"}}]}}"#);
        for (status, body) in [
            (405, String::new()),
            (400, coded("UNSUPPORTED")),
            (400, coded("DIGEST_INVALID")),
            (400, "Deletion of tags is not supported".to_owned()),
        ] {
            assert!(refusal(status, &body).says_unsupported(), "{status} {body}");
        }
        assert!(!refusal(400, &coded("TAG_INVALID")).says_unsupported());
        assert!(!refusal(400, "").says_unsupported());
    }

    #[test]
    fn the_registrys_words_are_short_clean_and_without_secrets() {
        let text = format!("see https://x/y?sig=abc now\r\n\u{1b}[31m{}", "z".repeat(500));
        let shown_text = refusal(400, &text).text;
        assert!(shown_text.starts_with("see https://x/y now [31mzz"), "{shown_text}");
        assert!(shown_text.chars().count() <= SHOWN);
        let echo = refusal(400, "you sent ghp_secret");
        assert!(!echo.words().contains("ghp_secret"));
        let strange = "bad header \"Authorization: Basic c29tZWJvZHk6ZWxzZQ==\", bearer of news";
        let expected = "bad header \"Authorization: Basic *** bearer of news";
        assert_eq!(shown(strange, &Sent::default()), expected);
        assert_eq!(shown(&"\u{20ac}".repeat(900), &Sent::default()).chars().count(), SHOWN);
    }
}
