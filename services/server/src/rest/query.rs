//! Query parameters: fields of the request message by their names in the contract,
//! in `snake_case` or `lowerCamelCase`. What is not a field is refused, never ignored.

use std::str::FromStr;

use colophon_api::{Duration, Timestamp};
use colophon_domain::{Failure, Result};
use url::form_urlencoded;

/// Parameters that no field has taken yet.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes the part of the URL behind the question mark.
    pub(super) fn parse(raw: Option<&str>) -> Self {
        Self(form_urlencoded::parse(raw.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// Takes all values of a field.
    fn take(&mut self, field: &str) -> Vec<String> {
        let camel = camel(field);
        let of_field = self.0.extract_if(.., |(name, _)| name.as_str() == field || *name == camel);
        of_field.map(|(_, value)| value).collect()
    }

    /// Takes the one value of a field.
    fn given(&mut self, field: &'static str) -> Result<Option<String>> {
        let mut values = self.take(field).into_iter();
        let value = values.next();
        if values.next().is_some() {
            return Err(Failure::invalid(field, format!("{field} is given more than once")));
        }
        Ok(value)
    }

    /// Takes the one value of a field of which an empty one is the same as none.
    fn single(&mut self, field: &'static str) -> Result<Option<String>> {
        Ok(self.given(field)?.filter(|value| !value.is_empty()))
    }

    fn parsed<T: FromStr>(&mut self, field: &'static str, what: &str) -> Result<Option<T>> {
        let parse = |value: String| {
            value.parse().map_err(|_| Failure::invalid(field, format!("{field} is not {what}")))
        };
        self.given(field)?.map(parse).transpose()
    }

    /// A text.
    pub(super) fn text(&mut self, field: &'static str) -> Result<String> {
        self.single(field).map(Option::unwrap_or_default)
    }

    /// An id; what it looks like is checked with the rest of the request.
    pub(super) fn id(&mut self, field: &'static str) -> Result<String> {
        match self.given(field)? {
            Some(text) if text.is_empty() => Err(Failure::invalid(
                field,
                format!("{field} is empty; give an id, or leave it out"),
            )),
            text => Ok(text.unwrap_or_default()),
        }
    }

    /// A whole number.
    pub(super) fn number(&mut self, field: &'static str) -> Result<i32> {
        self.parsed(field, "a whole number").map(Option::unwrap_or_default)
    }

    /// A whole number of 64 bits, not below zero.
    pub(super) fn long(&mut self, field: &'static str) -> Result<u64> {
        self.parsed(field, "a whole number").map(Option::unwrap_or_default)
    }

    /// A whole number of 64 bits, with its sign.
    pub(super) fn signed(&mut self, field: &'static str) -> Result<i64> {
        self.parsed(field, "a whole number").map(Option::unwrap_or_default)
    }

    /// A length of time.
    pub(super) fn duration(&mut self, field: &'static str) -> Result<Option<Duration>> {
        let Some(text) = self.given(field)? else {
            return Ok(None);
        };
        let duration = text.parse::<Duration>();
        duration.map(Some).map_err(|error| Failure::invalid(field, error.to_string()))
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool> {
        self.parsed(field, "true or false").map(Option::unwrap_or_default)
    }

    /// A time.
    pub(super) fn time(&mut self, field: &'static str) -> Result<Option<Timestamp>> {
        let Some(text) = self.given(field)? else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|error: colophon_api::TimestampError| {
            let failure = Failure::invalid(field, error.to_string());
            // The plus of `+02:00` arrives as a space unless it was escaped.
            if text.contains(' ') {
                failure.remedy("in a URL, write the + of an offset as %2B, or give the time in Z")
            } else {
                failure
            }
        })
    }

    /// Enums by their names in the contract, any number of them.
    pub(super) fn enums<E: Into<i32>>(
        &mut self,
        field: &'static str,
        by_name: impl Fn(&str) -> Option<E>,
    ) -> Result<Vec<i32>> {
        let named = |(index, name): (usize, String)| {
            by_name(&name).map(Into::into).ok_or_else(|| {
                Failure::invalid(format!("{field}[{index}]"), format!("{field} has no such value"))
                    .remedy("values are written in full, as in answers and in the contract")
            })
        };
        self.take(field).into_iter().enumerate().map(named).collect()
    }

    /// Refuses what no field has taken.
    pub(super) fn finish(self) -> Result<()> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => {
                let name: String = name.chars().take(100).collect();
                Err(Failure::invalid(name.clone(), format!("there is no parameter {name:?}"))
                    .remedy("the parameters of this path are the fields of its request message"))
            }
        }
    }
}

/// A field's name in JSON (proto3 JSON mapping).
fn camel(field: &str) -> String {
    let mut name = String::with_capacity(field.len());
    let mut upper = false;
    for c in field.chars() {
        if c == '_' {
            upper = true;
        } else {
            name.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use colophon_api::v1;

    use super::*;

    fn query(raw: &str) -> Query {
        Query::parse(Some(raw))
    }

    #[test]
    fn both_spellings_are_read() {
        assert_eq!(query("page_size=3").number("page_size").unwrap(), 3);
        assert_eq!(query("pageSize=3").number("page_size").unwrap(), 3);
        assert_eq!(query("pagesize=3").number("page_size").unwrap(), 0);
        assert!(query("includeIntents=true").flag("include_intents").unwrap());
        assert_eq!(query("release=").id("release").unwrap_err().field_name(), Some("release"));
        assert_eq!(query("actor=").text("actor").unwrap(), "");
        assert_eq!(query("reference=a%2Fb:c").text("reference").unwrap(), "a/b:c");
        assert_eq!(
            query("page_size=").number("page_size").unwrap_err().field_name(),
            Some("page_size")
        );
        Query::parse(None).finish().unwrap();
    }

    #[test]
    fn enums_go_by_their_full_names_and_repeat() {
        let states =
            |raw| query(raw).enums::<v1::ReleaseState>("states", v1::ReleaseState::from_str_name);
        assert_eq!(
            states("states=RELEASE_STATE_QUEUED&states=RELEASE_STATE_FAILED").unwrap(),
            [1, 4]
        );
        for raw in ["states=RELEASE_STATE_QUEUED&states=1", "states=RELEASE_STATE_QUEUED&states="] {
            assert_eq!(states(raw).unwrap_err().field_name(), Some("states[1]"), "{raw}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let field = |failure: Failure| failure.field_name().unwrap().to_owned();
        assert_eq!(field(query("pageSize=x").number("page_size").unwrap_err()), "page_size");
        assert_eq!(
            field(query("pageSize=1&page_size=1").number("page_size").unwrap_err()),
            "page_size"
        );
        assert_eq!(field(query("a=1").flag("a").unwrap_err()), "a");
        assert_eq!(field(query("colour=red").finish().unwrap_err()), "colour");
        let unescaped = query("at=2026-11-03T14:02:00+02:00").time("at").unwrap_err();
        assert!(unescaped.remedy_text().is_some_and(|remedy| remedy.contains("%2B")));
        let escaped = query("at=2026-11-03T14:02:00%2B02:00").time("at").unwrap();
        assert_eq!(escaped.unwrap().to_string(), "2026-11-03T12:02:00Z");
    }
}
