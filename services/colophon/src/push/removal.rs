//! Which local names may go: only those whose image is published, is used by no container and is
//! not among the newest. What is decided here is pure; what is asked and done stands beside it.

use std::collections::BTreeSet;

use colophon_domain::{Reference, Repository};
use colophon_local::docker::{LocalImage, Users};

/// What becomes of a local name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes; what is said about it.
    Remove(String),
    /// It stays; why.
    Leave(String),
}

/// One name of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// As the engine has it.
    pub name: String,
    /// What it stands for.
    pub image: LocalImage,
    /// It is among the newest that are kept.
    pub kept: bool,
}

/// Whether two names are of one repository; `docker` leaves parts of names out.
fn of(name: &str, repository: &Repository) -> bool {
    let named: Result<Reference, _> = name.parse();
    named.is_ok_and(|reference| reference.repository == *repository)
}

/// The names in a repository, those of the newest image first. An image without a date counts as
/// new, for nobody knows that it is old.
pub fn names(images: Vec<LocalImage>, repository: &Repository, keep: usize) -> Vec<Candidate> {
    let mut images = images;
    images.sort_by_key(|image| std::cmp::Reverse(image.created.unwrap_or(i64::MAX)));
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    for image in images {
        seen.insert(image.id.clone());
        let kept = seen.len() <= keep;
        let own = image.tags.iter().filter(|tag| of(tag, repository));
        names.extend(own.map(|tag| Candidate { name: tag.clone(), image: image.clone(), kept }));
    }
    names
}

/// Why a name stays whatever the ledger says; `None` if that decides.
pub fn stays(name: &Candidate, keep: usize, users: &Users) -> Option<String> {
    if name.kept {
        return Some(format!("it is among the newest {keep}"));
    }
    let shown = |container: &colophon_local::docker::Container| {
        format!("{} ({})", container.name, container.state)
    };
    let containers: Vec<String> = users.containers.iter().map(shown).collect();
    (!containers.is_empty()).then(|| format!("used by the container {}", containers.join(", ")))
}

/// What a name comes to whose image is published under `reference`, if it is.
pub fn verdict(name: &str, users: &Users, published: Option<&str>) -> Verdict {
    let Some(reference) = published else {
        return Verdict::Leave("no tag is known to be at it".to_owned());
    };
    let others: Vec<&str> =
        users.tags.iter().map(String::as_str).filter(|tag| *tag != name).collect();
    Verdict::Remove(match others.as_slice() {
        [] => format!("published as {reference}"),
        others => {
            let others = others.join(", ");
            format!("published as {reference}; the image stays, it is {others}, too")
        }
    })
}

#[cfg(test)]
mod tests {
    use colophon_domain::Digest;
    use colophon_local::docker::Container;

    use super::*;

    fn image(number: u8, created: Option<i64>, tags: &[&str]) -> LocalImage {
        let tags = tags.iter().map(|&tag| tag.to_owned()).collect();
        LocalImage { id: Digest::sha256(&[number]), tags, created }
    }

    #[test]
    fn the_newest_images_are_kept_and_names_of_others_are_none_of_ours() {
        let images = vec![
            image(1, Some(10), &["app:1", "other:1"]),
            image(2, Some(30), &["app:3", "app:latest"]),
            image(3, Some(20), &["app:2"]),
            image(4, None, &["app:odd"]),
        ];
        let repository = Repository::parse("docker.io/library/app").unwrap();
        let names = names(images, &repository, 2);
        let seen: Vec<(&str, bool)> =
            names.iter().map(|name| (name.name.as_str(), name.kept)).collect();
        assert_eq!(
            seen,
            [
                ("app:odd", true),
                ("app:3", true),
                ("app:latest", true),
                ("app:2", false),
                ("app:1", false)
            ]
        );
        let none = Users::default();
        assert!(stays(&names[0], 2, &none).unwrap().contains("newest 2"));
        assert_eq!(stays(&names[4], 2, &none), None);
    }

    #[test]
    fn what_a_container_uses_stays_and_the_container_is_named() {
        let container = Container { id: "1".into(), name: "web".into(), state: "running".into() };
        let users = Users { tags: vec![], containers: vec![container] };
        let name = Candidate { name: "app:1".into(), image: image(1, None, &[]), kept: false };
        assert_eq!(stays(&name, 0, &users).unwrap(), "used by the container web (running)");
    }

    #[test]
    fn only_what_is_published_goes_and_other_names_are_told() {
        let users = |tags: &[&str]| Users {
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            containers: vec![],
        };
        assert!(matches!(verdict("app:1", &users(&["app:1"]), None), Verdict::Leave(_)));
        let alone = verdict("app:1", &users(&["app:1"]), Some("b/x:1"));
        assert_eq!(alone, Verdict::Remove("published as b/x:1".into()));
        let Verdict::Remove(text) = verdict("app:1", &users(&["app:1", "app:2"]), Some("b/x:1"))
        else {
            panic!("it stays");
        };
        assert!(text.ends_with("the image stays, it is app:2, too"), "{text}");
    }
}
