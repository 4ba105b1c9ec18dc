//! What the service says is published, asked anew before anything is removed: the release, the
//! ledger's moves, and each tag.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use colophon_api::v1::{
    Certainty, GetReleaseRequest, GetTagRequest, ListTagMovesRequest, Release, ReleaseState,
    TagMoveState,
};

use super::view::View;
use crate::{
    call::{Patience, call},
    connect::Client,
    exit::Problem,
    submit::ATTEMPT,
};

/// So many moves of a repository are looked at, the newest.
const MOVES: usize = 5_000;
const PAGE: i32 = 200;

fn patience() -> Patience {
    Patience { attempt: ATTEMPT, until: Instant::now() + ATTEMPT }
}

/// Whether a tag is at a digest now, as far as the service knows.
pub async fn is_at(
    client: &Client,
    mut view: &View,
    reference: &str,
    digest: &str,
) -> Result<bool, Problem> {
    let request = GetTagRequest { reference: reference.to_owned(), at: None };
    let tag = call(patience(), &mut view, || {
        let (mut tags, request) = (client.tags.clone(), request.clone());
        async move { tags.get_tag(request).await }
    })
    .await?;
    let certain = matches!(tag.certainty(), Certainty::Confirmed | Certainty::LastObserved);
    Ok(certain && !digest.is_empty() && tag.digest == digest)
}

/// Why a release is no reason to remove anything; `None` if it has succeeded and every tag that it
/// moved is at its digest still.
pub async fn against(
    client: &Client,
    mut view: &View,
    seen: &Release,
) -> Result<Option<String>, Problem> {
    let request = GetReleaseRequest { id: seen.id.clone(), wait: None };
    let release = call(patience(), &mut view, || {
        let (mut releases, request) = (client.releases.clone(), request.clone());
        async move { releases.get_release(request).await }
    })
    .await?;
    if release.state() != ReleaseState::Succeeded || release.digest != seen.digest {
        return Ok(Some(format!("the release is {}", release.state().short_name())));
    }
    let mut looked = 0_usize;
    for publication in &release.publications {
        // A tag that was kept has a higher version, and another digest, by right.
        let own = publication.tags.iter().filter(|tag| tag.state() != TagMoveState::Kept);
        for tag in own {
            let reference = format!("{}:{}", publication.repository, tag.tag);
            if !is_at(client, view, &reference, &release.digest).await? {
                return Ok(Some(format!("{reference} is not known to be at {}", release.digest)));
            }
            looked += 1;
        }
    }
    Ok((looked == 0).then(|| "the release moved no tag".to_owned()))
}

/// Where each digest is published in a repository, as the newest moves of its tags say. What is
/// removed for it is asked about again by [`is_at`].
pub async fn published(
    client: &Client,
    mut view: &View,
    repository: &str,
) -> Result<BTreeMap<String, String>, Problem> {
    let mut request = ListTagMovesRequest {
        repository: repository.to_owned(),
        page_size: PAGE,
        ..ListTagMovesRequest::default()
    };
    let (mut seen, mut found, mut count) = (BTreeSet::new(), BTreeMap::new(), 0_usize);
    while count < MOVES {
        let page = call(patience(), &mut view, || {
            let (mut tags, request) = (client.tags.clone(), request.clone());
            async move { tags.list_tag_moves(request).await }
        })
        .await?;
        count += page.moves.len();
        for entry in page.moves {
            // The newest entry of a tag comes first, and those before it say nothing any more.
            if seen.insert(entry.reference.clone()) && !entry.new_digest.is_empty() {
                found.entry(entry.new_digest).or_insert(entry.reference);
            }
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    Ok(found)
}
