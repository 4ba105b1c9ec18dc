//! Which image of several in one source.

use std::collections::BTreeSet;

use colophon_domain::{Digest, Reference, Repository};

use crate::error::{LocalError, LocalErrorKind, shown};

/// How many images an error lists.
const LISTED: usize = 20;

/// An image that can be chosen.
pub(crate) trait Candidate {
    /// What the source calls it.
    fn names(&self) -> &[String];

    /// Digests that stand for it: the root's, the configuration's.
    fn digests(&self) -> Vec<Digest>;
}

/// The only one, or the one that is wanted: by a name as the source has it, by the same name with
/// what `docker` leaves out (`docker.io/library/`, `:latest`), by the tag alone, or by a digest.
pub(crate) fn choose<'a, T: Candidate>(
    candidates: &'a [T],
    wanted: Option<&str>,
) -> Result<&'a T, LocalError> {
    let Some(wanted) = wanted else {
        return match candidates {
            [only] => Ok(only),
            several => Err(LocalError::new(
                LocalErrorKind::Ambiguous,
                format!("has {} images: {}", several.len(), list(several)),
            )
            .remedy("choose one by --image")),
        };
    };
    let tests: [&dyn Fn(&T) -> bool; 4] = [
        &|one| one.names().iter().any(|name| name == wanted),
        &|one| one.names().iter().any(|name| same_name(name, wanted)),
        &|one| one.names().iter().any(|name| tag(name) == Some(wanted)),
        &|one| wanted.contains(':') && one.digests().iter().any(|it| it.as_str() == wanted),
    ];
    for test in tests {
        let mut found = candidates.iter().filter(|one| test(one));
        match (found.next(), found.next()) {
            (None, _) => {}
            (Some(one), None) => return Ok(one),
            (Some(_), Some(_)) => {
                let text =
                    format!("{} stands for several images of {}", shown(wanted), list(candidates));
                return Err(LocalError::new(LocalErrorKind::Ambiguous, text)
                    .remedy("give --image a whole name or a digest"));
            }
        }
    }
    let text = format!("has no image {}; there is {}", shown(wanted), list(candidates));
    Err(LocalError::new(LocalErrorKind::NotFound, text).remedy("choose one of them by --image"))
}

/// Whether two names are the same to `docker`.
pub(crate) fn same_name(one: &str, other: &str) -> bool {
    match (whole_name(one), whole_name(other)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

/// A name with all that `docker` leaves out; `None` for what is no name.
pub(crate) fn whole_name(name: &str) -> Option<Reference> {
    name.parse().ok().or_else(|| {
        Repository::parse(name).ok()?;
        format!("{name}:latest").parse().ok()
    })
}

fn tag(name: &str) -> Option<&str> {
    let (before, tag) = name.rsplit_once(':')?;
    (!before.is_empty() && !tag.contains('/')).then_some(tag)
}

/// What there is, for an error.
fn list<T: Candidate>(candidates: &[T]) -> String {
    let one = |candidate: &T| match candidate.names() {
        [] => candidate.digests().first().map_or_else(|| "?".to_owned(), ToString::to_string),
        names => {
            let names: BTreeSet<String> = names.iter().map(|name| shown(name)).collect();
            names.into_iter().take(LISTED).collect::<Vec<_>>().join(" ")
        }
    };
    let mut list: Vec<String> = candidates.iter().take(LISTED).map(one).collect();
    match candidates.len() {
        0 => list.push("none".to_owned()),
        count if count > LISTED => list.push(format!("and {} more", count - LISTED)),
        _ => {}
    }
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(Vec<String>, Digest);

    impl Candidate for Named {
        fn names(&self) -> &[String] {
            &self.0
        }

        fn digests(&self) -> Vec<Digest> {
            vec![self.1.clone()]
        }
    }

    fn there() -> Vec<Named> {
        [
            &["app:1", "app:2"][..],
            &["ghcr.io/acme/app:latest"],
            &["tool:1", "localhost:5000/x"],
            &[],
        ]
        .iter()
        .zip(0u8..)
        .map(|(names, number)| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Named(names, Digest::sha256(&[number]))
        })
        .collect()
    }

    #[test]
    fn an_image_is_found_by_each_of_its_names() {
        let there = there();
        let digest = Digest::sha256(&[3]);
        for (wanted, number) in [
            ("app:1", 0),
            ("docker.io/library/app:2", 0),
            ("ghcr.io/acme/app", 1),
            ("latest", 1),
            ("2", 0),
            ("localhost:5000/x:latest", 2),
            (digest.as_str(), 3),
        ] {
            let found = choose(&there, Some(wanted)).unwrap();
            assert_eq!(found.1, Digest::sha256(&[number]), "{wanted}");
        }
    }

    #[test]
    fn what_is_not_clear_is_refused_with_what_there_is() {
        let there = there();
        for (wanted, kind) in [
            (None, LocalErrorKind::Ambiguous),
            (Some("1"), LocalErrorKind::Ambiguous),
            (Some("app"), LocalErrorKind::NotFound),
            (Some("5000/x"), LocalErrorKind::NotFound),
            (Some(""), LocalErrorKind::NotFound),
        ] {
            let error = choose(&there, wanted).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), kind, "{wanted:?}");
            assert!(error.remedy_text().unwrap().contains("--image"));
        }
        let error = choose(&there, None).map(|_| ()).unwrap_err();
        assert!(error.what().contains("app:2") && error.what().contains("sha256:"), "{error}");
        assert!(choose::<Named>(&[], None).is_err());
        assert!(choose(&there[..1], None).is_ok());
    }
}
