//! `ReleaseService.ListReleases`.

use colophon_api::v1;
use colophon_domain::{
    Failure, Principal, ReleaseQuery, ReleaseState, ReleaseView, Repository, Result,
};

use super::{Calls, page, visibility};
use crate::{answer, fields, page::Conditions};

impl Calls {
    /// Lists the releases that the caller may see.
    pub(crate) async fn list_releases(
        &self,
        caller: &Principal,
        request: v1::ListReleasesRequest,
    ) -> Result<v1::ListReleasesResponse> {
        let (mut query, token) = parse(caller, request)?;
        query.before = conditions(&query).position(&token)?;
        let size = query.limit;
        let rows = self.service.list(ReleaseQuery { limit: size + 1, ..query.clone() }).await?;
        let (releases, last) = page(rows, size, |view| view.id, short);
        let next_page_token = last.map(|last| conditions(&query).token(&last)).unwrap_or_default();
        Ok(v1::ListReleasesResponse { releases, next_page_token })
    }
}

/// A release without what lists leave out: its attempts, and how far its blobs are.
fn short(view: ReleaseView) -> v1::Release {
    let mut view = ReleaseView { attempts: Vec::new(), ..view };
    for publication in &mut view.publications {
        publication.copied.blobs.clear();
        publication.copied.blobs_total = 0;
    }
    answer::release(view)
}

/// Reads the conditions, with the page's size as limit, and gives the token back unread.
fn parse(caller: &Principal, request: v1::ListReleasesRequest) -> Result<(ReleaseQuery, String)> {
    let query = ReleaseQuery {
        visibility: visibility(caller),
        repository: fields::optional("repository", &request.repository, Repository::parse)?,
        states: states(&request.states)?,
        actor: fields::actor(request.actor)?,
        label: label(&request.label)?,
        before: None,
        limit: fields::page_size(request.page_size)?,
    };
    Ok((query, request.page_token))
}

/// Reads the states, in order and each once.
fn states(numbers: &[i32]) -> Result<Vec<ReleaseState>> {
    let mut states = Vec::new();
    for (index, number) in numbers.iter().enumerate() {
        let state = match v1::ReleaseState::try_from(*number) {
            Ok(v1::ReleaseState::Queued) => ReleaseState::Queued,
            Ok(v1::ReleaseState::Running) => ReleaseState::Running,
            Ok(v1::ReleaseState::Succeeded) => ReleaseState::Succeeded,
            Ok(v1::ReleaseState::Failed) => ReleaseState::Failed,
            Ok(v1::ReleaseState::Errored) => ReleaseState::Errored,
            Ok(v1::ReleaseState::Cancelled) => ReleaseState::Cancelled,
            Ok(v1::ReleaseState::Unspecified) | Err(_) => {
                return Err(Failure::invalid(
                    format!("states[{index}]"),
                    format!("{number} is not a state of a release"),
                ));
            }
        };
        if !states.contains(&state) {
            states.push(state);
        }
    }
    states.sort_unstable();
    Ok(states)
}

fn label(text: &str) -> Result<Option<(String, String)>> {
    fields::optional("label", text, |text| {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::invalid("label", "the label is not of the form key=value"))?;
        fields::label(key, value)?;
        Ok((key.to_owned(), value.to_owned()))
    })
}

/// What a page token is bound to.
fn conditions(query: &ReleaseQuery) -> Conditions {
    let mut conditions = Conditions::of("ListReleases", &query.visibility.principal)
        .and_maybe(query.repository.as_ref())
        .and_maybe(query.actor.as_ref())
        .and_maybe(query.label.as_ref().map(|(key, value)| format!("{key}={value}")).as_ref());
    for state in &query.states {
        conditions = conditions.and(state.as_str());
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Principal {
        Principal { name: "ci".into(), grants: vec![] }
    }

    #[test]
    fn the_order_and_number_of_states_is_no_condition() {
        assert_eq!(states(&[4, 1, 4]).unwrap(), [ReleaseState::Queued, ReleaseState::Failed]);
        for numbers in [[1, 0], [1, 7], [1, -1]] {
            assert_eq!(states(&numbers).unwrap_err().field_name(), Some("states[1]"));
        }
    }

    #[test]
    fn a_label_is_a_key_and_a_value() {
        assert_eq!(label("a=b=c").unwrap(), Some(("a".into(), "b=c".into())));
        assert_eq!(label("a=").unwrap(), Some(("a".into(), String::new())));
        assert_eq!(label("").unwrap(), None);
        for text in ["a", "=b", "a b=c", "a=\n"] {
            assert_eq!(label(text).unwrap_err().field_name(), Some("label"), "{text}");
        }
    }

    #[test]
    fn conditions_are_refused_by_name() {
        let field = |request| {
            let failure = parse(&caller(), request).unwrap_err();
            failure.field_name().unwrap().to_owned()
        };
        let request = v1::ListReleasesRequest::default;
        assert_eq!(field(v1::ListReleasesRequest { page_size: 201, ..request() }), "page_size");
        assert_eq!(
            field(v1::ListReleasesRequest { repository: "a:b".into(), ..request() }),
            "repository"
        );
        assert_eq!(field(v1::ListReleasesRequest { actor: "a\0".into(), ..request() }), "actor");
    }

    #[test]
    fn the_size_of_a_page_is_no_condition_and_everything_else_is() {
        let token = |request| {
            let (query, _) = parse(&caller(), request).unwrap();
            conditions(&query).token(&uuid::Uuid::nil())
        };
        let request = v1::ListReleasesRequest::default;
        let plain = token(request());
        assert_eq!(plain, token(v1::ListReleasesRequest { page_size: 3, ..request() }));
        for other in [
            v1::ListReleasesRequest { repository: "a/b".into(), ..request() },
            v1::ListReleasesRequest { states: vec![1], ..request() },
            v1::ListReleasesRequest { actor: "a".into(), ..request() },
            v1::ListReleasesRequest { label: "a=".into(), ..request() },
        ] {
            assert_ne!(plain, token(other));
        }
    }
}
