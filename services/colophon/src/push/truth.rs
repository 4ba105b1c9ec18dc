//! What is published, asked anew before anything is removed: the release, the ledger's moves, and each
//! tag, of the ledger and of its registry.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use colophon_api::v1::{
    Certainty, CreateReleaseRequest, GetReleaseRequest, GetTagRequest, ListTagMovesRequest,
    Release, ReleaseState, TagMoveState, Target,
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
/// Tags of one target (the contract's bound).
const TAGS: usize = 64;

fn patience() -> Patience {
    Patience { attempt: ATTEMPT, until: Instant::now() + ATTEMPT }
}

/// Which of some tags is not at a digest: by the ledger, or else by the registry, which is asked in
/// this moment. `None` if all are there.
pub async fn elsewhere(
    client: &Client,
    view: &View,
    repository: &str,
    tags: &[&str],
    digest: &str,
) -> Result<Option<String>, Problem> {
    for tag in tags {
        let reference = format!("{repository}:{tag}");
        if digest.is_empty() || !recorded(client, view, &reference, digest).await? {
            return Ok(Some(reference));
        }
    }
    for tags in tags.chunks(TAGS) {
        let there = served(client, view, repository, tags, digest).await?;
        if let Some(tag) = tags.iter().find(|tag| !there.contains(**tag)) {
            return Ok(Some(format!("{repository}:{tag}")));
        }
    }
    Ok(None)
}

/// Whether the ledger has a tag at a digest.
async fn recorded(
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
    Ok(certain && tag.digest == digest)
}

/// Those of some tags that the registry has at a digest now. A plan finds out: it looks at each, and
/// moves nothing.
async fn served(
    client: &Client,
    mut view: &View,
    repository: &str,
    tags: &[&str],
    digest: &str,
) -> Result<BTreeSet<String>, Problem> {
    let target = Target {
        repository: repository.to_owned(),
        // Any tag may be asked about as one that does not move.
        unique_tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..Target::default()
    };
    let request = CreateReleaseRequest {
        source: format!("{repository}@{digest}"),
        targets: vec![target],
        ..CreateReleaseRequest::default()
    };
    let plan = call(patience(), &mut view, || {
        let (mut releases, request) = (client.releases.clone(), request.clone());
        async move { releases.plan_release(request).await }
    })
    .await?;
    let tags = plan.publications.into_iter().flat_map(|publication| publication.tags);
    Ok(tags.filter(|tag| tag.old_digest == digest).map(|tag| tag.tag).collect())
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
        let own: Vec<&str> = own.map(|tag| tag.tag.as_str()).collect();
        looked += own.len();
        let (repository, digest) = (&publication.repository, &release.digest);
        if let Some(reference) = elsewhere(client, view, repository, &own, digest).await? {
            return Ok(Some(format!("{reference} is not known to be at {digest}")));
        }
    }
    Ok((looked == 0).then(|| "the release moved no tag".to_owned()))
}

/// Where each digest is published in a repository, as the newest moves of its tags say. What is
/// removed for it is asked about again by [`elsewhere`].
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
