//! `WWW-Authenticate` (RFC 9110, section 11.6.1): one header may hold several challenges, and
//! there may be several headers. Quoted values may hold commas, which scopes do.

use std::{iter::Peekable, str::Chars};

use http::{HeaderMap, header};

/// Challenges of one answer that are looked at; no honest registry sends more.
const MOST_CHALLENGES: usize = 16;

/// One challenge; names are lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// A parameter's value, by its lower-case name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// All challenges of an answer, in their order.
pub(crate) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let mut found = Vec::new();
    for value in headers.get_all(header::WWW_AUTHENTICATE) {
        if let Ok(text) = value.to_str() {
            parse(text, &mut found);
        }
    }
    found.truncate(MOST_CHALLENGES);
    found
}

fn parse(text: &str, found: &mut Vec<Challenge>) {
    let mut rest = text.chars().peekable();
    let first_of_header = found.len();
    loop {
        while rest.next_if(|c| *c == ',' || c.is_whitespace()).is_some() {}
        let name = word(&mut rest);
        if name.is_empty() {
            // Either the end, or a character that stands in no name: there is no way to know
            // where the next challenge begins.
            return;
        }
        let spaces = std::iter::from_fn(|| rest.next_if(|c| c.is_whitespace())).count();
        if rest.peek() == Some(&'=') && found.len() > first_of_header {
            rest.next();
            let value = value(&mut rest);
            if let Some(challenge) = found.last_mut() {
                challenge.parameters.push((name, value));
            }
        } else {
            found.push(Challenge { scheme: name, parameters: Vec::new() });
            // `Negotiate abc==` carries a token68 instead of parameters; it is not for us.
            if spaces > 0 {
                skip_token68(&mut rest);
            }
        }
    }
}

fn word(rest: &mut Peekable<Chars<'_>>) -> String {
    let part = |c: &char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(*c);
    std::iter::from_fn(|| rest.next_if(part)).map(|c| c.to_ascii_lowercase()).collect()
}

fn value(rest: &mut Peekable<Chars<'_>>) -> String {
    while rest.next_if(|c| c.is_whitespace()).is_some() {}
    if rest.next_if_eq(&'"').is_none() {
        let bare = |c: &char| *c != ',' && !c.is_whitespace();
        return std::iter::from_fn(|| rest.next_if(bare)).collect();
    }
    let mut value = String::new();
    while let Some(c) = rest.next() {
        match c {
            '"' => break,
            '\\' => value.extend(rest.next()),
            c => value.push(c),
        }
    }
    value
}

fn skip_token68(rest: &mut Peekable<Chars<'_>>) {
    let mut ahead = rest.clone();
    let part = |c: &char| c.is_ascii_alphanumeric() || "-._~+/".contains(*c);
    let length = std::iter::from_fn(|| ahead.next_if(part)).count();
    let padding = std::iter::from_fn(|| ahead.next_if_eq(&'=')).count();
    while ahead.next_if(|c| c.is_whitespace()).is_some() {}
    let ends = ahead.peek().is_none_or(|c| *c == ',');
    if length > 0 && ends && (padding > 0 || ahead.peek().is_none()) {
        *rest = ahead;
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(headers: &[&'static str]) -> Vec<Challenge> {
        let mut map = HeaderMap::new();
        for text in headers {
            map.append(header::WWW_AUTHENTICATE, HeaderValue::from_static(text));
        }
        challenges(&map)
    }

    #[test]
    fn several_challenges_in_one_header() {
        let found = read(&[
            r#"Basic realm="a, b", Bearer realm="https://auth.x/token",service="x",scope="repository:a:pull,push",error="insufficient_scope", Negotiate"#,
        ]);
        let schemes: Vec<_> = found.iter().map(|c| c.scheme.as_str()).collect();
        assert_eq!(schemes, ["basic", "bearer", "negotiate"]);
        assert_eq!(found[0].get("realm"), Some("a, b"));
        assert_eq!(found[1].get("scope"), Some("repository:a:pull,push"));
        assert_eq!(found[1].get("error"), Some("insufficient_scope"));
        assert_eq!(found[1].get("nothing"), None);
    }

    #[test]
    fn several_headers_odd_spaces_and_bare_values() {
        let found =
            read(&["Negotiate abc==, BASIC Realm = x", r#"bearer  realm="a\"b" , service=s"#]);
        let schemes: Vec<_> = found.iter().map(|c| c.scheme.as_str()).collect();
        assert_eq!(schemes, ["negotiate", "basic", "bearer"]);
        assert_eq!(found[1].get("realm"), Some("x"));
        assert_eq!(found[2].get("realm"), Some("a\"b"));
        assert_eq!(found[2].get("service"), Some("s"));
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic_or_hang(text in "[ -~]{0,200}") {
            let mut map = HeaderMap::new();
            map.append(header::WWW_AUTHENTICATE, HeaderValue::from_str(&text).unwrap());
            prop_assert!(challenges(&map).len() <= MOST_CHALLENGES);
        }
    }
}
