//! A repository's tags (distribution-spec, "Listing Tags" and "Deleting tags"). They are handed
//! on page by page and one by one, so that a repository with very many of them takes no more
//! memory than one page.

use std::{borrow::Cow, collections::HashSet, fmt};

use bytes::Bytes;
use colophon_domain::{Access, Digest, Reason, Result, Tag};
use http::{Method, StatusCode};
use oci_client::errors::OciErrorCode;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use url::Url;

use crate::{
    answer::{Asked, read_limited},
    exchange::{Call, CallError},
    pages::REMEDY,
    scope::Scopes,
    session::Session,
};

/// Tags that one page is asked for; ECR refuses to give more.
const PAGE: &str = "1000";
/// Bytes of a page. Some registries know no pages and send all tags at once.
const PAGE_LIMIT: usize = 4 << 20;
/// Pages of one listing.
const MOST_PAGES: usize = 1000;

impl Session {
    /// Shows every tag of the repository to `visit`, in the registry's order. What is listed but
    /// is no tag by the specification is left out. `false` if the registry says that there is no
    /// such repository, which some also say of one that has no tag.
    ///
    /// # Errors
    /// `REGISTRY_PROTOCOL` for a page that cannot be read and for a `Link` that leads to another
    /// host or to a page that was there already; `TOO_LARGE` for a page above 4 MiB and after
    /// 1,000 pages; `REGISTRY_*`, `RATE_LIMITED` and the like. What was shown until then is not
    /// all.
    #[tracing::instrument(level = "debug", name = "registry.tags.list", skip_all, fields(repository = self.repository.name()))]
    pub async fn tags(&self, visit: &mut (dyn FnMut(&str) + Send)) -> Result<bool> {
        let mut url = self.url("tags/list");
        url.query_pairs_mut().append_pair("n", PAGE);
        let asked = self.asked("listing the tags", false);
        let mut seen = HashSet::new();
        for number in 0..MOST_PAGES {
            if !seen.insert(Digest::sha256(url.as_str().as_bytes())) {
                return Err(asked.protocol("a page of the list leads back to itself"));
            }
            let Some((page, next)) = self.page(url, number == 0, &asked).await? else {
                return Ok(false);
            };
            show(&page, visit)
                .map_err(|_| asked.protocol("the answer is no list of tags").remedy(REMEDY))?;
            match next {
                Some(next) => url = next,
                None => return Ok(true),
            }
        }
        let text = format!("the list has more than {MOST_PAGES} pages");
        Err(asked.failure(Reason::TooLarge, &text))
    }

    /// One page and where the next one is; `None` if the first is refused because there is no
    /// such repository.
    async fn page(
        &self,
        url: Url,
        first: bool,
        asked: &Asked<'_>,
    ) -> Result<Option<(Bytes, Option<Url>)>> {
        let _place = self.place(&self.host.limits.requests).await;
        let mut call = Call::reading(self, Method::GET, url, asked.what.as_ref());
        // A session that writes has a token for more, which is not needed here.
        call.scopes = Scopes::of(self.repository.name(), Access::Pull);
        let response = self.follow(call).await?;
        if !response.status().is_success() {
            let refusal = self.refusal(response, asked).await;
            let unknown = [OciErrorCode::NameUnknown, OciErrorCode::NotFound];
            // Any other 404 may be that of a proxy, and would pass for a repository without tags.
            let gone = refusal.status == StatusCode::NOT_FOUND
                && unknown.iter().any(|code| refusal.has(code));
            return if first && gone { Ok(None) } else { Err(refusal.into_failure(asked)) };
        }
        let next = self.next_page(&response, asked)?;
        let timeout = self.host.config.request_timeout;
        let page = read_limited(response, PAGE_LIMIT, timeout, asked).await?;
        Ok(Some((page, next)))
    }

    /// Deletes a tag, and nothing but the tag: a digest cannot be given. `true` if the registry
    /// says that it is gone, `false` if it says that it does not delete tags. The request is not
    /// repeated after a lost answer, since the tag may be somebody else's by then.
    ///
    /// # Errors
    /// `TAG_IMMUTABLE` if the registry keeps the tag where it is; `REGISTRY_UNAVAILABLE`, after
    /// which the tag may be gone or not; `REGISTRY_UNAUTHORIZED`, `REGISTRY_DENIED` and the like.
    #[tracing::instrument(level = "debug", name = "registry.tag.delete", skip_all, fields(repository = self.repository.name(), tag = %tag))]
    pub async fn delete_tag(&self, tag: &Tag) -> Result<bool> {
        let _place = self.place(&self.host.limits.requests).await;
        let url = self.url(&format!("manifests/{tag}"));
        let mut call = Call::writing(self, Method::DELETE, url, format!("deleting the tag {tag}"));
        call.scopes = call.scopes.and_delete(self.repository.name());
        let response = self.call(&call).await.map_err(|CallError { failure, .. }| {
            let text = "the PAT likely lacks the permission to delete";
            match failure.reason() {
                Reason::RegistryDenied => {
                    failure.remedy(format!("for {}, {text}", self.repository))
                }
                _ => failure,
            }
        })?;
        match response.status() {
            StatusCode::OK
            | StatusCode::ACCEPTED
            | StatusCode::NO_CONTENT
            | StatusCode::NOT_FOUND => return Ok(true),
            StatusCode::METHOD_NOT_ALLOWED => return Ok(false),
            _ => {}
        }
        let refusal = self.refusal(response, &call.asked).await;
        if refusal.says_unsupported() {
            return Ok(false);
        }
        if refusal.says_immutable() {
            return Err(refusal.immutable(&call.asked));
        }
        Err(refusal.into_failure(&call.asked))
    }
}

/// Shows the tags of a page (`{"name": .., "tags": [..]}`); `null` is no tag.
fn show(page: &[u8], visit: &mut (dyn FnMut(&str) + Send)) -> serde_json::Result<()> {
    let mut reader = serde_json::Deserializer::from_slice(page);
    reader.deserialize_map(Page(visit))?;
    reader.end()
}

struct Page<'a>(&'a mut (dyn FnMut(&str) + Send));

impl<'de> Visitor<'de> for Page<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with tags")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let mut found = false;
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            if key != "tags" {
                map.next_value::<IgnoredAny>()?;
            } else if found {
                return Err(M::Error::duplicate_field("tags"));
            } else {
                map.next_value_seed(Tags(&mut *self.0))?;
                found = true;
            }
        }
        if found { Ok(()) } else { Err(M::Error::missing_field("tags")) }
    }
}

/// Shows the tags as they are read, so that they are never held as a list.
struct Tags<'a>(&'a mut (dyn FnMut(&str) + Send));

impl<'de> DeserializeSeed<'de> for Tags<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tags<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of tags or null")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<(), S::Error> {
        while let Some(text) = list.next_element::<Cow<'_, str>>()? {
            if text.parse::<Tag>().is_ok() {
                (self.0)(&text);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(page: &str) -> Option<Vec<String>> {
        let mut tags = Vec::new();
        show(page.as_bytes(), &mut |tag: &str| tags.push(tag.to_owned())).ok().map(|()| tags)
    }

    #[test]
    fn pages_are_read_as_registries_write_them() {
        let expected = Some(vec!["v1".to_owned(), "latest".to_owned()]);
        assert_eq!(shown(r#"{"name":"a/b","tags":["v1","latest"]}"#), expected);
        assert_eq!(
            shown(r#"{"tags":["\u0076\u0031","latest"],"child":[{"tags":["x"]}]}"#),
            expected
        );
        assert_eq!(shown(r#"{"name":"a/b","tags":null}"#), Some(Vec::new()));
        assert_eq!(shown(r#"{"name":"a/b","tags":[]}"#), Some(Vec::new()));
    }

    #[test]
    fn what_is_no_tag_is_left_out() {
        let long = "x".repeat(129);
        let digest = Digest::sha256(b"");
        let page = format!(r#"{{"tags":["","-a","a b","{digest}","{long}","../a","a\nb","ok"]}}"#);
        assert_eq!(shown(&page), Some(vec!["ok".to_owned()]));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for page in [
            "",
            "{}",
            "[]",
            "null",
            "<html>",
            r#"{"name":"a/b"}"#,
            r#"{"tags":"v1"}"#,
            r#"{"tags":{"v1":1}}"#,
            r#"{"tags":[1]}"#,
            r#"{"tags":[null]}"#,
            r#"{"tags":["v1"]"#,
            r#"{"tags":["v1"]}{"tags":[]}"#,
            r#"{"tags":[],"tags":["v1"]}"#,
        ] {
            assert_eq!(shown(page), None, "{page}");
        }
    }

    proptest! {
        #[test]
        fn all_tags_of_a_page_come_in_order(tags in prop::collection::vec("[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", 0..20)) {
            let page = serde_json::json!({"name": "a/b", "tags": tags}).to_string();
            prop_assert_eq!(shown(&page), Some(tags));
        }
    }
}
