//! The commands that ask or stop, and wait for nothing: `releases`, `cancel`, `history`,
//! `resolve`.

use colophon_api::v1::{
    CancelReleaseRequest, GetTagRequest, ListReleasesRequest, ListReleasesResponse,
    ListTagMovesRequest, ListTagMovesResponse,
};
use colophon_domain::{Reference, Repository};

use crate::{
    answer::Answer,
    args::{Cancel, History, Releases, Resolve},
    call::{Patience, call},
    connect::Client,
    exit::Problem,
    progress::Progress,
};

/// The largest page that the contract allows.
const PAGE: u32 = 200;

/// Lists releases, as many pages as the limit needs.
pub async fn releases(client: &Client, args: Releases) -> Result<Answer, Problem> {
    let mut progress = Progress::for_stderr();
    let mut request = ListReleasesRequest {
        repository: args.repository.unwrap_or_default(),
        states: args.state.into_iter().map(i32::from).collect(),
        actor: args.actor.unwrap_or_default(),
        label: args.label.map(|(key, value)| format!("{key}={value}")).unwrap_or_default(),
        ..ListReleasesRequest::default()
    };
    let mut all = ListReleasesResponse::default();
    while let Some(size) = next_page(args.limit, all.releases.len()) {
        request.page_size = size;
        let page = call(Patience::for_questions(), &mut progress, || {
            let (mut releases, request) = (client.releases.clone(), request.clone());
            async move { releases.list_releases(request).await }
        })
        .await?;
        all.releases.extend(page.releases);
        all.next_page_token.clone_from(&page.next_page_token);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    Ok(Answer::Releases(all))
}

/// Asks the server to stop a release.
pub async fn cancel(client: &Client, args: Cancel) -> Result<Answer, Problem> {
    let mut progress = Progress::for_stderr();
    let request = CancelReleaseRequest { id: args.id, reason: args.reason.unwrap_or_default() };
    let release = call(Patience::for_questions(), &mut progress, || {
        let (mut releases, request) = (client.releases.clone(), request.clone());
        async move { releases.cancel_release(request).await }
    })
    .await?;
    Ok(Answer::Release(Box::new(release), None))
}

/// Lists the moves of a tag or a repository.
pub async fn history(client: &Client, args: History) -> Result<Answer, Problem> {
    let mut progress = Progress::for_stderr();
    let (reference, repository) = subject(args.subject.as_deref().unwrap_or_default())?;
    let mut request = ListTagMovesRequest {
        reference,
        repository,
        release: args.release.unwrap_or_default(),
        actor: args.actor.unwrap_or_default(),
        after: args.after,
        before: args.before,
        include_intents: args.intents,
        ..ListTagMovesRequest::default()
    };
    let mut all = ListTagMovesResponse::default();
    while let Some(size) = next_page(args.limit, all.moves.len()) {
        request.page_size = size;
        let page = call(Patience::for_questions(), &mut progress, || {
            let (mut tags, request) = (client.tags.clone(), request.clone());
            async move { tags.list_tag_moves(request).await }
        })
        .await?;
        all.moves.extend(page.moves);
        all.next_page_token.clone_from(&page.next_page_token);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    Ok(Answer::Moves(all))
}

/// Asks what a tag pointed to.
pub async fn resolve(client: &Client, args: Resolve) -> Result<Answer, Problem> {
    let mut progress = Progress::for_stderr();
    let request = GetTagRequest { reference: args.reference, at: args.at };
    let tag = call(Patience::for_questions(), &mut progress, || {
        let (mut tags, request) = (client.tags.clone(), request.clone());
        async move { tags.get_tag(request).await }
    })
    .await?;
    Ok(Answer::Tag(Box::new(tag)))
}

/// The size of the next page, `None` when there is enough.
fn next_page(limit: u32, have: usize) -> Option<i32> {
    let have = u32::try_from(have).unwrap_or(u32::MAX);
    let missing = limit.checked_sub(have).filter(|missing| *missing > 0)?;
    i32::try_from(missing.min(PAGE)).ok()
}

/// The fields `reference` and `repository`: what is asked about goes into one of them.
fn subject(text: &str) -> Result<(String, String), Problem> {
    if text.is_empty() {
        return Ok((String::new(), String::new()));
    }
    if Repository::parse(text).is_ok() {
        return Ok((String::new(), text.to_owned()));
    }
    match text.parse::<Reference>() {
        Ok(_) => Ok((text.to_owned(), String::new())),
        Err(failure) => {
            let mut problem = Problem::usage(failure.message().to_owned());
            problem.reason = Some(failure.reason().as_str().to_owned());
            problem.remedy = failure.remedy_text().map(ToOwned::to_owned);
            Err(problem)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn a_tag_is_told_from_a_repository() {
        let reference = |text: &str| subject(text).unwrap().0;
        assert_eq!(reference("ghcr.io/a/x:1"), "ghcr.io/a/x:1");
        assert_eq!(reference("localhost:5000/a/x"), "");
        assert_eq!(subject("localhost:5000/a/x").unwrap().1, "localhost:5000/a/x");
        assert_eq!(subject("ghcr.io/A x").unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn pages_add_up_to_the_limit() {
        assert_eq!(next_page(50, 0), Some(50));
        assert_eq!(next_page(450, 200), Some(200));
        assert_eq!(next_page(450, 400), Some(50));
        assert_eq!(next_page(50, 50), None);
        assert_eq!(next_page(50, 70), None);
    }
}
