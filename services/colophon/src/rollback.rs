//! `rollback`: asks for tags to go back and waits for it. It is a release like those of
//! `publish`, with the same key, the same waiting and the same ends.

use colophon_api::v1::{
    RollbackRequest,
    rollback_request::{Position, Subject},
};

use crate::{answer::Answer, args::Rollback, connect::Client, exit::Problem, submit::submit};

/// Creates the rollback and, unless told otherwise, waits for its end.
pub async fn rollback(client: &Client, args: Rollback) -> Result<Answer, Problem> {
    let request = request(&args);
    submit(client, &args.waiting, &request.idempotency_key, || {
        let (mut releases, request) = (client.releases.clone(), request.clone());
        async move { releases.rollback(request).await }
    })
    .await
}

fn request(args: &Rollback) -> RollbackRequest {
    let position = args
        .steps
        .map(Position::Steps)
        .or_else(|| args.at.map(Position::At))
        .or_else(|| args.to.clone().map(Position::Digest));
    let tag = args.reference.clone().map(Subject::Reference);
    RollbackRequest {
        // Of a tag without more the one position before is meant; a release has no position.
        position: position.or_else(|| tag.as_ref().map(|_| Position::Steps(1))),
        subject: tag.or_else(|| args.release.clone().map(Subject::Release)),
        reason: args.reason.clone(),
        on_behalf_of: args.on_behalf_of.clone().unwrap_or_default(),
        labels: args.label.iter().cloned().collect(),
        idempotency_key: args.waiting.key(),
        break_glass: args.break_glass,
        expected_digest: args.expect.clone().unwrap_or_default(),
    }
}
