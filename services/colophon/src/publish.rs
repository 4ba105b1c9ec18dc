//! `publish`, `release` and `retry`: asks for a release and waits for it, takes the waiting up, or has
//! it put to work again.

use colophon_api::v1::{GetReleaseRequest, RetryReleaseRequest};

use crate::{
    answer::Answer,
    args::{Publish, Retry, ShowRelease},
    call::{Patience, call},
    connect::Client,
    exit::Problem,
    interrupt::Interrupt,
    progress::Progress,
    submit::{ATTEMPT, deadline, submit},
    watch::watch,
};

/// Creates the release and, unless told otherwise, waits for its end.
pub async fn publish(client: &Client, args: Publish) -> Result<Answer, Problem> {
    let mut request = args.content.request()?;
    request.plan = args.plan.unwrap_or_default();
    request.idempotency_key = args.waiting.key();
    let key = request.idempotency_key.clone();
    submit(client, &args.waiting, &key, || {
        let (mut releases, request) = (client.releases.clone(), request.clone());
        async move { releases.create_release(request).await }
    })
    .await
}

/// Shows a release, at once or when it has ended.
pub async fn show(client: &Client, args: ShowRelease) -> Result<Answer, Problem> {
    let mut progress = Progress::for_stderr();
    let until = deadline(args.timeout);
    let patience =
        if args.wait { Patience { attempt: ATTEMPT, until } } else { Patience::for_questions() };
    let request = GetReleaseRequest { id: args.id, wait: None };
    let release = call(patience, &mut progress, || {
        let (mut releases, request) = (client.releases.clone(), request.clone());
        async move { releases.get_release(request).await }
    })
    .await?;
    if !args.wait {
        return Ok(Answer::Release(Box::new(release), None));
    }
    let mut interrupt = Interrupt::new()?;
    let seen = watch(client, release, until, &mut progress, &mut interrupt).await;
    Ok(Answer::Release(Box::new(seen.release), seen.problem))
}

/// Has a release put to work again and, unless told otherwise, waits for its end.
pub async fn retry(client: &Client, args: Retry) -> Result<Answer, Problem> {
    let mut progress = Progress::for_stderr();
    let until = deadline(args.timeout);
    let asked = GetReleaseRequest { id: args.id.clone(), wait: None };
    let request = RetryReleaseRequest { id: args.id, reason: args.reason.unwrap_or_default() };
    let patience = Patience { attempt: ATTEMPT, until };
    let before = call(patience, &mut progress, || {
        let (mut releases, asked) = (client.releases.clone(), asked.clone());
        async move { releases.get_release(asked).await }
    })
    .await?;
    let mut first = true;
    let release = call(patience, &mut progress, || {
        let (mut releases, asked, request) =
            (client.releases.clone(), asked.clone(), request.clone());
        let (tries, again) = (before.retries.len(), !std::mem::take(&mut first));
        async move {
            // An answer that was lost may have been a yes, and the release may have ended since: then
            // it is not put to work a second time.
            if again {
                let now = releases.get_release(asked).await?;
                if now.get_ref().retries.len() > tries {
                    return Ok(now);
                }
            }
            releases.retry_release(request).await
        }
    })
    .await?;
    if args.no_wait {
        return Ok(Answer::Release(Box::new(release), None));
    }
    let mut interrupt = Interrupt::new()?;
    let seen = watch(client, release, until, &mut progress, &mut interrupt).await;
    Ok(Answer::Release(Box::new(seen.release), seen.problem))
}
