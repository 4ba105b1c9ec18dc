//! The `Link` header (RFC 8288, section 3), as far as lists that come in pages use it.

/// The first link of a header's value that stands in a relation, whose names are
/// case-insensitive; `None` if there is no such link.
///
/// # Errors
/// A value that does not follow the grammar: what it meant to say is not known.
pub(crate) fn find<'a>(value: &'a str, relation: &str) -> Result<Option<&'a str>, ()> {
    let mut rest = value.trim();
    let mut found = None;
    while !rest.is_empty() {
        // The list's syntax allows empty elements.
        if let Some(after) = rest.strip_prefix(',') {
            rest = after.trim_start();
            continue;
        }
        let (target, after) =
            rest.strip_prefix('<').and_then(|rest| rest.split_once('>')).ok_or(())?;
        let (is, after) = parameters(after, relation)?;
        if is && found.is_none() {
            found = Some(target.trim());
        }
        rest = after;
    }
    Ok(found)
}

/// Reads a link's parameters; whether the first `rel` names the relation, and what follows.
fn parameters<'a>(text: &'a str, relation: &str) -> Result<(bool, &'a str), ()> {
    let mut rest = text.trim_start();
    let mut rel = None;
    while let Some(after) = rest.strip_prefix(';') {
        let after = after.trim_start();
        let end = after.find(['=', ';', ',']).unwrap_or(after.len());
        let (name, after) = after.split_at_checked(end).ok_or(())?;
        let name = name.trim();
        let Some(text) = after.strip_prefix('=') else {
            rest = after;
            continue;
        };
        let (text, after) = self::value(text.trim_start())?;
        if name.eq_ignore_ascii_case("rel") {
            // Later ones do not count (section 3.3).
            let mut names = text.split_ascii_whitespace();
            rel.get_or_insert_with(|| names.any(|name| name.eq_ignore_ascii_case(relation)));
        }
        rest = after.trim_start();
    }
    if rest.is_empty() || rest.starts_with(',') { Ok((rel == Some(true), rest)) } else { Err(()) }
}

/// A parameter's value, quoted or not, and what follows. Quoted pairs are left as they are;
/// they stand in no relation's name.
fn value(text: &str) -> Result<(&str, &str), ()> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',']).unwrap_or(text.len());
        let (value, after) = text.split_at_checked(end).ok_or(())?;
        return Ok((value.trim(), after));
    };
    let mut escaped = false;
    for (at, letter) in quoted.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => {
                let (value, after) = quoted.split_at_checked(at).ok_or(())?;
                return Ok((value, after.strip_prefix('"').ok_or(())?));
            }
            _ => {}
        }
    }
    Err(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_next_page_is_found_among_other_links() {
        let next = Ok(Some("/v2/a/tags/list?n=2&last=b"));
        for value in [
            r#"</v2/a/tags/list?n=2&last=b>; rel="next""#,
            r"</v2/a/tags/list?n=2&last=b>;rel=next",
            r#"</v2/a/tags/list?n=2&last=b> ; REL = "last NEXT" ; title="x""#,
            r#"</1>; rel="prev", </v2/a/tags/list?n=2&last=b>; rel="next", </3>; rel="next""#,
            r#"</1>; title="a, <b>; rel=\"next\" c"; rel=prev, ,< /v2/a/tags/list?n=2&last=b >; rel=next"#,
            r"</1>; rel=prev; rel=next, </v2/a/tags/list?n=2&last=b>; flag; rel=next",
        ] {
            assert_eq!(find(value, "next"), next, "{value}");
        }
        for value in ["", " , ", "</1>", "</1>; rel=prev", r#"</1>; rel="nextdoor""#] {
            assert_eq!(find(value, "next"), Ok(None), "{value}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_passed_over() {
        for value in [
            "/v2/a; rel=next",
            "</1; rel=next",
            r#"</1>; rel="next"#,
            "</1> rel=next",
            r#"</1>; rel="next"x"#,
        ] {
            assert_eq!(find(value, "next"), Err(()), "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(value in r#"[<>;,="\\ a-c]{0,40}|\PC{0,40}"#) {
            if let Ok(Some(found)) = find(&value, "a") {
                prop_assert!(value.contains(found));
            }
        }
    }
}
