//! `settle`: a person says what became of an interrupted move.

use colophon_api::v1::{SettleTagRequest, SettledAs};

use crate::{
    answer::Answer,
    args::{Settle, SettledChoice},
    call::{Patience, call},
    connect::Client,
    exit::Problem,
    progress::Progress,
};

/// Settles the move. An attempt whose answer was lost may have done it; the next one is then
/// refused, and where to look is said.
pub async fn settle(client: &Client, args: Settle) -> Result<Answer, Problem> {
    let settled_as = match args.settled_as {
        SettledChoice::Moved => SettledAs::Moved,
        SettledChoice::NotMoved => SettledAs::NotMoved,
    };
    let request = SettleTagRequest {
        reference: args.reference,
        settled_as: settled_as.into(),
        reason: args.reason,
        on_behalf_of: args.on_behalf_of.unwrap_or_default(),
    };
    let mut sent = 0_u32;
    let settled = call(Patience::for_questions(), &mut Progress::for_stderr(), || {
        sent += 1;
        let (mut tags, request) = (client.tags.clone(), request.clone());
        async move { tags.settle_tag(request).await }
    })
    .await;
    match settled {
        Ok(tag) => Ok(Answer::Tag(Box::new(tag))),
        Err(problem) if sent > 1 => {
            let look = format!("`colophon history {}` shows whether it is done", request.reference);
            Err(problem.remedy(look))
        }
        Err(problem) => Err(problem),
    }
}
