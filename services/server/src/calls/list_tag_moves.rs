//! `TagService.ListTagMoves`.

use colophon_api::v1;
use colophon_domain::{EntryQuery, Failure, Principal, Reference, Repository, Result};

use super::{Calls, get_tag::tagged, page, visibility};
use crate::{answer, fields, page::Conditions};

impl Calls {
    /// Lists the entries of repositories that the caller may read.
    pub(crate) async fn list_tag_moves(
        &self,
        caller: &Principal,
        request: v1::ListTagMovesRequest,
    ) -> Result<v1::ListTagMovesResponse> {
        let (mut query, token) = parse(caller, request)?;
        query.before = conditions(&query).position(&token)?;
        let size = query.limit;
        let rows = self.service.entries(EntryQuery { limit: size + 1, ..query.clone() }).await?;
        let (moves, last) = page(rows, size, |view| (view.at, view.id), answer::entry);
        let next_page_token = last.map(|last| conditions(&query).token(&last)).unwrap_or_default();
        Ok(v1::ListTagMovesResponse { moves, next_page_token })
    }
}

/// Reads the conditions, with the page's size as limit, and gives the token back unread.
fn parse(caller: &Principal, request: v1::ListTagMovesRequest) -> Result<(EntryQuery, String)> {
    let mut repository = fields::optional("repository", &request.repository, Repository::parse)?;
    let mut tag = None;
    if !request.reference.is_empty() {
        let reference: Reference = fields::required("reference", &request.reference)?;
        let (of_reference, of_tag) = tagged("reference", reference)?;
        if repository.is_some_and(|repository| repository != of_reference) {
            return Err(Failure::invalid(
                "repository",
                "repository is another one than that of reference, so nothing could be found",
            )
            .remedy("give one of the two"));
        }
        repository = Some(of_reference);
        tag = Some(of_tag);
    }
    let query = EntryQuery {
        visibility: visibility(caller),
        repository,
        tag,
        release: fields::optional("release", &request.release, |text| fields::id("release", text))?,
        actor: fields::actor(request.actor)?,
        from: fields::time("after", request.after)?,
        until: fields::time("before", request.before)?,
        include_intents: request.include_intents,
        before: None,
        limit: fields::page_size(request.page_size)?,
    };
    Ok((query, request.page_token))
}

/// What a page token is bound to.
fn conditions(query: &EntryQuery) -> Conditions {
    Conditions::of("ListTagMoves", &query.visibility.principal)
        .and_maybe(query.repository.as_ref())
        .and_maybe(query.tag.as_ref())
        .and_maybe(query.release.as_ref())
        .and_maybe(query.actor.as_ref())
        .and_maybe(query.from.map(time::OffsetDateTime::unix_timestamp_nanos).as_ref())
        .and_maybe(query.until.map(time::OffsetDateTime::unix_timestamp_nanos).as_ref())
        .and_maybe(query.include_intents.then_some("intents").as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(request: v1::ListTagMovesRequest) -> Result<EntryQuery> {
        parse(&Principal { name: "ci".into(), grants: vec![] }, request).map(|(query, _)| query)
    }

    #[test]
    fn a_reference_is_a_repository_and_a_tag() {
        let request = v1::ListTagMovesRequest {
            reference: "acme/app:v1".into(),
            repository: "docker.io/acme/app".into(),
            ..Default::default()
        };
        let query = parsed(request.clone()).unwrap();
        assert_eq!(query.repository.unwrap().to_string(), "docker.io/acme/app");
        assert_eq!(query.tag.unwrap().as_str(), "v1");
        let other = v1::ListTagMovesRequest { repository: "acme/other".into(), ..request };
        assert_eq!(parsed(other).unwrap_err().field_name(), Some("repository"));
    }

    #[test]
    fn a_digest_is_no_tag() {
        let request = v1::ListTagMovesRequest {
            reference: format!("acme/app@sha256:{}", "0".repeat(64)),
            ..Default::default()
        };
        assert_eq!(parsed(request).unwrap_err().field_name(), Some("reference"));
    }

    #[test]
    fn everything_but_the_size_is_a_condition() {
        let token = |request| conditions(&parsed(request).unwrap()).token(&uuid::Uuid::nil());
        let request = v1::ListTagMovesRequest::default;
        let plain = token(request());
        assert_eq!(plain, token(v1::ListTagMovesRequest { page_size: 3, ..request() }));
        let time = Some("2026-11-03T14:02:00Z".parse().unwrap());
        for other in [
            v1::ListTagMovesRequest { reference: "a/b:c".into(), ..request() },
            v1::ListTagMovesRequest { repository: "a/b".into(), ..request() },
            v1::ListTagMovesRequest { release: uuid::Uuid::nil().to_string(), ..request() },
            v1::ListTagMovesRequest { actor: "a".into(), ..request() },
            v1::ListTagMovesRequest { after: time, ..request() },
            v1::ListTagMovesRequest { before: time, ..request() },
            v1::ListTagMovesRequest { include_intents: true, ..request() },
        ] {
            assert_ne!(plain, token(other));
        }
    }
}
