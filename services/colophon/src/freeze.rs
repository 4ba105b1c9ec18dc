//! `freeze`, `freezes` and `lift`: stops all moves for a time. A freeze has no idempotency key,
//! so one whose answer was lost may stand twice; that is said, since lifting one leaves the other.

use colophon_api::v1::{LiftFreezeRequest, ListFreezesRequest};

use crate::{
    answer::Answer,
    args::{Freeze, Freezes, Lift},
    call::{Patience, call},
    connect::Client,
    exit::{Exit, Problem},
    progress::{Notes as _, Progress},
};

/// Stops moves from now on.
pub async fn freeze(client: &Client, args: Freeze) -> Result<Answer, Problem> {
    let request = args.request()?;
    let mut progress = Progress::for_stderr();
    let mut sent = 0_u32;
    let made = call(Patience::for_questions(), &mut progress, || {
        sent += 1;
        let (mut freezes, request) = (client.freezes.clone(), request.clone());
        async move { freezes.create_freeze(request).await }
    })
    .await;
    match made {
        Ok(freeze) => {
            if sent > 1 {
                progress.note(
                    "it was sent more than once; `colophon freezes` shows whether it holds twice",
                );
            }
            Ok(Answer::Freeze(Box::new(freeze)))
        }
        Err(mut problem) => {
            if problem.exit == Exit::Unreachable {
                problem.message = format!("{}; whether it holds is not known", problem.message);
                problem.remedy = Some("`colophon freezes` shows it".to_owned());
            }
            Err(problem)
        }
    }
}

/// Lists freezes.
pub async fn list(client: &Client, args: &Freezes) -> Result<Answer, Problem> {
    let request = ListFreezesRequest { include_ended: args.all };
    let freezes = call(Patience::for_questions(), &mut Progress::for_stderr(), || {
        let mut freezes = client.freezes.clone();
        async move { freezes.list_freezes(request).await }
    })
    .await?;
    Ok(Answer::Freezes(freezes))
}

/// Ends a freeze; doing it twice is no error, so it may be sent again.
pub async fn lift(client: &Client, args: Lift) -> Result<Answer, Problem> {
    let request = LiftFreezeRequest { id: args.id, reason: args.reason.unwrap_or_default() };
    let freeze = call(Patience::for_questions(), &mut Progress::for_stderr(), || {
        let (mut freezes, request) = (client.freezes.clone(), request.clone());
        async move { freezes.lift_freeze(request).await }
    })
    .await?;
    Ok(Answer::Freeze(Box::new(freeze)))
}
