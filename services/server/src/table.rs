//! The one table from a kind of error to its gRPC code, its HTTP status and its title.

use colophon_domain::ErrorKind;
use http::StatusCode;
use tonic::Code;

/// How a kind of error looks on the two faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The code on gRPC.
    pub code: Code,
    /// The status on REST.
    pub status: StatusCode,
    /// The title of the problem document (RFC 9457), the same for every error of the kind.
    pub title: &'static str,
}

/// Looks a kind of error up.
pub fn row(kind: ErrorKind) -> Row {
    let (code, status, title) = match kind {
        ErrorKind::InvalidArgument => {
            (Code::InvalidArgument, StatusCode::BAD_REQUEST, "The request is not valid")
        }
        ErrorKind::Unauthenticated => {
            (Code::Unauthenticated, StatusCode::UNAUTHORIZED, "The caller is not known")
        }
        ErrorKind::PermissionDenied => {
            (Code::PermissionDenied, StatusCode::FORBIDDEN, "The caller may not do this")
        }
        ErrorKind::NotFound => (Code::NotFound, StatusCode::NOT_FOUND, "Not found"),
        ErrorKind::FailedPrecondition => {
            (Code::FailedPrecondition, StatusCode::CONFLICT, "The present state forbids it")
        }
        ErrorKind::Aborted => (Code::Aborted, StatusCode::CONFLICT, "Somebody else was faster"),
        ErrorKind::ResourceExhausted => {
            (Code::ResourceExhausted, StatusCode::TOO_MANY_REQUESTS, "A limit is reached")
        }
        ErrorKind::Unavailable => (
            Code::Unavailable,
            StatusCode::SERVICE_UNAVAILABLE,
            "A part that is needed is away for now",
        ),
        ErrorKind::Internal => {
            (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR, "A defect of the service")
        }
    };
    Row { code, status, title }
}

#[cfg(test)]
mod tests {
    use colophon_domain::Reason;

    use super::*;

    #[test]
    fn every_reason_has_an_error_code_and_an_error_status() {
        for reason in Reason::ALL {
            let row = row(reason.kind());
            assert_ne!(row.code, Code::Ok, "{reason}");
            assert!(row.status.is_client_error() || row.status.is_server_error(), "{reason}");
        }
    }

    #[test]
    fn the_faces_agree_on_whose_fault_it_is() {
        for reason in Reason::ALL {
            let row = row(reason.kind());
            let ours = matches!(row.code, Code::Internal | Code::Unavailable);
            assert_eq!(ours, row.status.is_server_error(), "{reason}");
        }
    }
}
