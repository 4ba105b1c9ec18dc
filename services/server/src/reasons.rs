//! Which reasons a call can be refused with: the one table, from which the `OpenAPI` document is
//! written. What a release meets later, when it is at work, stands in the release and not here.

use colophon_domain::Reason;

/// What every call can be refused with.
const ALWAYS: &[Reason] = &[
    Reason::InvalidArgument,
    Reason::Unauthenticated,
    Reason::TooManyCalls,
    Reason::Timeout,
    Reason::DatabaseUnavailable,
    Reason::Internal,
];

/// What can come of asking a registry, and of reading its PAT before.
const REGISTRY: &[Reason] = &[
    Reason::UnknownRegistry,
    Reason::SourceNotFound,
    Reason::UnsupportedManifest,
    Reason::RegistryUnauthorized,
    Reason::RegistryDenied,
    Reason::RepositoryNotFound,
    Reason::RegistryUnavailable,
    Reason::RegistryProtocol,
    Reason::RateLimited,
    Reason::PlainHttpRefused,
    Reason::TlsUntrusted,
    Reason::AddressRefused,
    Reason::DigestMismatch,
    Reason::TooLarge,
    Reason::VaultSealed,
    Reason::VaultUnavailable,
    Reason::VaultDenied,
    Reason::CredentialMissing,
];

/// What can stand against a plan's tag when a release is to follow it.
const PLANNED: &[Reason] = &[
    Reason::PlanChanged,
    Reason::PlanExpired,
    Reason::TagImmutable,
    Reason::TagMoved,
    Reason::OrderRegression,
    Reason::OrderKeyMismatch,
    Reason::Superseded,
    Reason::OutcomeUnknown,
    Reason::ReferenceBlocked,
];

/// The reasons of a method, by its full or short name; each once, those of every call first.
/// `None` for one that stands not in the table.
pub fn call_reasons(method: &str) -> Option<Vec<Reason>> {
    let name = method.rsplit('.').next().unwrap_or(method);
    let own: &[&[Reason]] = match name {
        "CreateRelease" => &[
            &[
                Reason::InvalidReference,
                Reason::PermissionDenied,
                Reason::IdempotencyKeyReused,
                Reason::QueueFull,
                Reason::NotFound,
            ],
            REGISTRY,
            PLANNED,
        ],
        "PlanRelease" => &[&[Reason::InvalidReference, Reason::PermissionDenied], REGISTRY],
        "Rollback" => &[
            &[
                Reason::InvalidReference,
                Reason::PermissionDenied,
                Reason::NotFound,
                Reason::IdempotencyKeyReused,
                Reason::NotInHistory,
                Reason::NotEnded,
                Reason::TagImmutable,
                Reason::TagMoved,
                Reason::SourceGone,
            ],
            REGISTRY,
        ],
        "GetRelease" | "WatchRelease" => &[&[Reason::NotFound, Reason::TooManyWatchers]],
        "RetryRelease" => &[&[
            Reason::NotFound,
            Reason::PermissionDenied,
            Reason::NotRetryable,
            Reason::ReferenceBlocked,
            Reason::QueueFull,
        ]],
        "CancelRelease" => &[&[Reason::NotFound, Reason::PermissionDenied, Reason::NotCancellable]],
        "ListReleases" | "ListTagMoves" => &[&[Reason::InvalidReference, Reason::InvalidPageToken]],
        "GetTag" => &[&[Reason::InvalidReference, Reason::PermissionDenied]],
        "SettleTag" => &[&[Reason::InvalidReference, Reason::PermissionDenied, Reason::NotUnknown]],
        "CreateFreeze" => {
            &[&[Reason::PermissionDenied, Reason::UnknownRegistry, Reason::RateLimited]]
        }
        "LiftFreeze" | "GetUpload" => &[&[Reason::NotFound, Reason::PermissionDenied]],
        "ListFreezes" => &[],
        "StartUpload" => {
            &[&[Reason::InvalidReference, Reason::PermissionDenied, Reason::UploadLimit], REGISTRY]
        }
        "AbandonUpload" => &[&[Reason::NotFound]],
        "FindBlobs" => &[
            &[
                Reason::InvalidReference,
                Reason::NotFound,
                Reason::PermissionDenied,
                Reason::UploadTooLarge,
            ],
            REGISTRY,
        ],
        "PutBlob" => &[
            &[
                Reason::InvalidReference,
                Reason::NotFound,
                Reason::PermissionDenied,
                Reason::UploadBusy,
                Reason::UploadOffset,
                Reason::UploadTooLarge,
                Reason::UploadLimit,
                Reason::LeaseLost,
                Reason::ServerStopping,
            ],
            REGISTRY,
        ],
        "PutManifest" => &[
            &[
                Reason::InvalidReference,
                Reason::NotFound,
                Reason::PermissionDenied,
                Reason::ContentMissing,
                Reason::UploadTooLarge,
            ],
            REGISTRY,
        ],
        _ => return None,
    };
    let mut reasons = ALWAYS.to_vec();
    for reason in own.iter().copied().flatten() {
        if !reasons.contains(reason) {
            reasons.push(*reason);
        }
    }
    Some(reasons)
}
