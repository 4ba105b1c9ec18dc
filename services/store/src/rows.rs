//! From database columns back to the domain's types. Only valid values were ever written, so a
//! value that does not parse is a defect, or somebody else's hand in the database.

use colophon_domain::{
    Digest, Failure, JobKind, Phase, PublicationState, Reason, Reference, ReleaseState, Repository,
    Result, Tag, TagKind, TagMoveState,
};

fn corrupt(column: &'static str) -> Failure {
    Failure::new(Reason::Internal, format!("the database holds an unreadable {column}"))
}

macro_rules! word {
    ($name:ident, $type:ty, $column:literal) => {
        pub(crate) fn $name(text: &str) -> Result<$type> {
            <$type>::parse(text).ok_or_else(|| corrupt($column))
        }
    };
}

word!(release_state, ReleaseState, "release state");
word!(publication_state, PublicationState, "publication state");
word!(tag_move_state, TagMoveState, "tag move state");
word!(tag_kind, TagKind, "tag kind");
word!(job_kind, JobKind, "job kind");
word!(phase, Phase, "phase");
word!(reason, Reason, "reason");

pub(crate) fn repository(registry: &str, name: &str) -> Result<Repository> {
    Repository::from_parts(registry, name).map_err(|error| corrupt("repository").caused_by(error))
}

pub(crate) fn tag(text: &str) -> Result<Tag> {
    text.parse().map_err(|error: Failure| corrupt("tag").caused_by(error))
}

pub(crate) fn digest(text: &str) -> Result<Digest> {
    text.parse().map_err(|error: Failure| corrupt("digest").caused_by(error))
}

pub(crate) fn digest_option(text: Option<&str>) -> Result<Option<Digest>> {
    text.map(digest).transpose()
}

/// A source as it was given: a tag or a digest in a repository.
pub(crate) fn reference(registry: &str, name: &str, what: &str) -> Result<Reference> {
    let repository = repository(registry, name)?;
    match what.parse::<Digest>() {
        Ok(digest) => Ok(Reference::digest(repository, digest)),
        Err(_) => Ok(Reference::tag(repository, tag(what)?)),
    }
}
