//! The one error that crosses the floors: a typed reason, what to do about it, and whether
//! trying again can help. Its texts are shown to callers, so they never hold a secret.

use std::{borrow::Cow, error::Error as StdError, fmt, time::Duration};

/// A result whose error is a [`Failure`].
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// The coarse class of a [`Reason`]; the server maps it to a gRPC code and an HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself is wrong and will stay wrong.
    InvalidArgument,
    /// Nobody we know is calling.
    Unauthenticated,
    /// The caller is known and may not do this.
    PermissionDenied,
    /// The thing named does not exist.
    NotFound,
    /// The state of the world forbids it: a unique tag elsewhere, a key used for another request.
    FailedPrecondition,
    /// Somebody else was faster; the same request may succeed later.
    Aborted,
    /// A limit of ours or of a registry is reached.
    ResourceExhausted,
    /// A part that we depend on is away.
    Unavailable,
    /// A defect of ours, or an answer that no correct peer gives.
    Internal,
}

/// Whether trying the same step again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It cannot: the failure is permanent.
    Never,
    /// It can, after a growing pause; this uses up an attempt.
    Backoff,
    /// It can, not before this long; waiting uses up no attempt.
    Wait(Duration),
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $wire:literal => $kind:ident,)+) => {
        /// Why something did not happen, or happened without a move. The wire form is the same in
        /// gRPC details, problem+json, the database and the command line.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable wire form, `SCREAMING_SNAKE_CASE`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $wire,)+ }
            }

            /// The class that decides gRPC code and HTTP status.
            pub fn kind(self) -> ErrorKind {
                match self { $(Self::$name => ErrorKind::$kind,)+ }
            }

            /// Reads the wire form back; `None` for a word that this version does not know.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($wire => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// A field of the request is missing, too long or not of its form.
    InvalidArgument = "INVALID_ARGUMENT" => InvalidArgument,
    /// A reference, repository, tag or digest cannot be parsed.
    InvalidReference = "INVALID_REFERENCE" => InvalidArgument,
    /// A page token is not one of ours, or belongs to another query.
    InvalidPageToken = "INVALID_PAGE_TOKEN" => InvalidArgument,
    /// The registry is not in the configuration; Colophon talks to no other.
    UnknownRegistry = "UNKNOWN_REGISTRY" => InvalidArgument,
    /// No token, or one that is unknown or expired.
    Unauthenticated = "UNAUTHENTICATED" => Unauthenticated,
    /// The caller's token lacks the action named for the repository named.
    PermissionDenied = "PERMISSION_DENIED" => PermissionDenied,
    /// No release, reference or page under this name.
    NotFound = "NOT_FOUND" => NotFound,
    /// The source tag or digest does not exist in its registry.
    SourceNotFound = "SOURCE_NOT_FOUND" => NotFound,
    /// The source existed when the release was accepted and is gone now.
    SourceGone = "SOURCE_GONE" => FailedPrecondition,
    /// The source is of a kind that is not copied, for example Docker schema 1.
    UnsupportedManifest = "UNSUPPORTED_MANIFEST" => FailedPrecondition,
    /// The idempotency key was used for another request.
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED" => FailedPrecondition,
    /// A unique tag already points to another digest; unique tags never move.
    TagImmutable = "TAG_IMMUTABLE" => FailedPrecondition,
    /// The tag is not where it was expected, or somebody else moved it while we did.
    TagMoved = "TAG_MOVED" => Aborted,
    /// The floating tag has a newer build already; going back was not asked for.
    OrderRegression = "ORDER_REGRESSION" => FailedPrecondition,
    /// The floating tag's builds are ordered by another kind of key, or the request has none.
    OrderKeyMismatch = "ORDER_KEY_MISMATCH" => FailedPrecondition,
    /// A higher version holds the floating tag; it stays, as asked.
    NotHighest = "NOT_HIGHEST" => FailedPrecondition,
    /// The version is a pre-release or has build metadata, and moves no floating tags; they stay,
    /// as asked.
    PreRelease = "PRE_RELEASE" => FailedPrecondition,
    /// The release has not ended; what it will have done is not known yet.
    NotEnded = "NOT_ENDED" => FailedPrecondition,
    /// What the plan showed is not what would happen now.
    PlanChanged = "PLAN_CHANGED" => FailedPrecondition,
    /// The plan is too old.
    PlanExpired = "PLAN_EXPIRED" => FailedPrecondition,
    /// The tag never was there, or not so far back.
    NotInHistory = "NOT_IN_HISTORY" => FailedPrecondition,
    /// A freeze stops all moves of the repository's tags.
    Frozen = "FROZEN" => FailedPrecondition,
    /// The tag was moved in spite of a freeze; said in the ledger, never to a caller as a refusal.
    BreakGlass = "BREAK_GLASS" => FailedPrecondition,
    /// Everything is held, because the database may have been restored or somebody asked for it.
    OnHold = "ON_HOLD" => Unavailable,
    /// A person said what became of the move; said in the ledger.
    SettledByHand = "SETTLED_BY_HAND" => FailedPrecondition,
    /// The tag's outcome is known, or its move may still be under way: nothing is to be settled.
    NotUnknown = "NOT_UNKNOWN" => FailedPrecondition,
    /// The release failed; the tag was put back to what it was before.
    Restored = "RESTORED" => Aborted,
    /// The tag was already where it should be; this is success.
    Unchanged = "UNCHANGED" => FailedPrecondition,
    /// A release that was accepted later has already moved this floating tag.
    Superseded = "SUPERSEDED" => Aborted,
    /// The release was cancelled.
    Cancelled = "CANCELLED" => Aborted,
    /// The release cannot be cancelled: it has ended, or its tags are being put back.
    NotCancellable = "NOT_CANCELLABLE" => FailedPrecondition,
    /// The release cannot be put to work again.
    NotRetryable = "NOT_RETRYABLE" => FailedPrecondition,
    /// The release's `not_after` has passed.
    Expired = "EXPIRED" => FailedPrecondition,
    /// Another job holds the reference, or its outcome is still unknown.
    ReferenceBlocked = "REFERENCE_BLOCKED" => Aborted,
    /// The registry's answer to a tag's PUT never arrived; the reconciler will look.
    OutcomeUnknown = "OUTCOME_UNKNOWN" => Unavailable,
    /// The worker lost its lease; another one goes on.
    LeaseLost = "LEASE_LOST" => Aborted,
    /// Another tag or target of the same release failed first.
    NotAttempted = "NOT_ATTEMPTED" => Aborted,
    /// The registry refuses our username and PAT.
    RegistryUnauthorized = "REGISTRY_UNAUTHORIZED" => FailedPrecondition,
    /// The registry accepts the PAT, which lacks the permission named.
    RegistryDenied = "REGISTRY_DENIED" => FailedPrecondition,
    /// The repository does not exist at the registry and is not created by a push.
    RepositoryNotFound = "REPOSITORY_NOT_FOUND" => FailedPrecondition,
    /// The registry cannot be reached or answers 5xx.
    RegistryUnavailable = "REGISTRY_UNAVAILABLE" => Unavailable,
    /// The registry's answer breaks the distribution specification.
    RegistryProtocol = "REGISTRY_PROTOCOL" => Internal,
    /// The registry asks us to slow down.
    RateLimited = "RATE_LIMITED" => ResourceExhausted,
    /// So many releases have been accepted and have not ended that no more are taken.
    QueueFull = "QUEUE_FULL" => ResourceExhausted,
    /// So many calls of the caller are under way that no more are answered.
    TooManyCalls = "TOO_MANY_CALLS" => ResourceExhausted,
    /// The registry speaks plain HTTP and the configuration does not say `plain_http`.
    PlainHttpRefused = "PLAIN_HTTP_REFUSED" => FailedPrecondition,
    /// The registry's certificate is not trusted.
    TlsUntrusted = "TLS_UNTRUSTED" => FailedPrecondition,
    /// An address or a token realm that the configuration does not allow.
    AddressRefused = "ADDRESS_REFUSED" => FailedPrecondition,
    /// Content does not have the digest or size that was promised.
    DigestMismatch = "DIGEST_MISMATCH" => FailedPrecondition,
    /// A manifest or an answer is larger than the limit.
    TooLarge = "TOO_LARGE" => FailedPrecondition,
    /// Blobs that a manifest needs are missing at the target.
    ContentMissing = "CONTENT_MISSING" => FailedPrecondition,
    /// Vault is sealed.
    VaultSealed = "VAULT_SEALED" => Unavailable,
    /// Vault cannot be reached.
    VaultUnavailable = "VAULT_UNAVAILABLE" => Unavailable,
    /// Vault forbids us to read the secret.
    VaultDenied = "VAULT_DENIED" => Unavailable,
    /// The secret is missing in Vault or lacks a field.
    CredentialMissing = "CREDENTIAL_MISSING" => FailedPrecondition,
    /// Attempts are used up.
    AttemptsExhausted = "ATTEMPTS_EXHAUSTED" => Unavailable,
    /// Somebody sends the blob at the moment, or has just broken off.
    UploadBusy = "UPLOAD_BUSY" => Aborted,
    /// The content does not begin where the blob stands.
    UploadOffset = "UPLOAD_OFFSET" => FailedPrecondition,
    /// The upload would have more bytes or blobs than one may have.
    UploadTooLarge = "UPLOAD_TOO_LARGE" => FailedPrecondition,
    /// The caller has so many uploads, or sends so many blobs at once, that no more are taken.
    UploadLimit = "UPLOAD_LIMIT" => ResourceExhausted,
    /// The caller waits for releases in too many calls at once.
    TooManyWatchers = "TOO_MANY_WATCHERS" => ResourceExhausted,
    /// The server stops, and with it a stream; another one goes on.
    ServerStopping = "SERVER_STOPPING" => Unavailable,
    /// The service had no answer in time; what was asked may still have happened.
    Timeout = "TIMEOUT" => Unavailable,
    /// The database cannot be reached.
    DatabaseUnavailable = "DATABASE_UNAVAILABLE" => Unavailable,
    /// A defect of ours.
    Internal = "INTERNAL" => Internal,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A typed failure. `message` says what happened and to what, `remedy` what to do; both are fit
/// for callers. `source` is for the log only.
#[derive(Debug)]
pub struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    reason: Reason,
    retry: Retry,
    message: Cow<'static, str>,
    field: Option<Cow<'static, str>>,
    remedy: Option<Cow<'static, str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Failure {
    /// A permanent failure.
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            reason,
            retry: Retry::Never,
            message: message.into(),
            field: None,
            remedy: None,
            source: None,
        }))
    }

    /// A field of the request that is not of its form.
    pub fn invalid(
        field: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(Reason::InvalidArgument, message).field(field)
    }

    /// Says whether trying again can help.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// Names the request's field, in the contract's spelling (`targets[0].repository`).
    #[must_use]
    pub fn field(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// Puts `prefix` and a dot before the field's name, for a part of a larger request.
    #[must_use]
    pub fn within(mut self, prefix: &str) -> Self {
        self.0.field = Some(match self.0.field.take() {
            Some(field) => format!("{prefix}.{field}").into(),
            None => prefix.to_owned().into(),
        });
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// Keeps the cause for the log; callers never see it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Why it failed.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// Whether trying again can help.
    pub fn retry_class(&self) -> Retry {
        self.0.retry
    }

    /// What happened, fit for the caller.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The request's field that is wrong, if one is.
    pub fn field_name(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// What happened and what to do about it, as one text.
    pub fn explained(&self) -> String {
        match self.remedy_text() {
            Some(remedy) => format!("{}; {remedy}", self.message()),
            None => self.message().to_owned(),
        }
    }

    /// What to do about it.
    pub fn remedy_text(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.reason, self.0.message)?;
        if let Some(remedy) = &self.0.remedy {
            write!(f, " ({remedy})")?;
        }
        Ok(())
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_reads_back_from_its_wire_form() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
        }
        assert_eq!(Reason::parse("SOMETHING_NEW"), None);
    }

    #[test]
    fn a_field_is_named_from_the_outside_in() {
        let failure = Failure::invalid("tag", "too long").within("targets[1]");
        assert_eq!(failure.field_name(), Some("targets[1].tag"));
    }
}
