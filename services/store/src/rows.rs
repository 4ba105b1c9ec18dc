//! From database columns back to the domain's types. Only valid values were ever written, so a
//! value that does not parse is a defect, or somebody else's hand in the database.

use colophon_domain::{
    Digest, Expected, Failure, IfOlder, JobKind, Line, OnFailure, OrderKey, OrderKind, Phase,
    Platform, PublicationState, Purpose, Reason, Reference, Referrers, ReleaseState, Repository,
    RepositoryPattern, Result, Selection, Tag, TagKind, TagMoveState,
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
word!(purpose, Purpose, "purpose");
word!(on_failure, OnFailure, "on_failure");
word!(if_older, IfOlder, "if_older");

pub(crate) fn repository(registry: &str, name: &str) -> Result<Repository> {
    Repository::from_parts(registry, name).map_err(|error| corrupt("repository").caused_by(error))
}

pub(crate) fn pattern(text: &str) -> Result<RepositoryPattern> {
    text.parse().map_err(|error: Failure| corrupt("pattern").caused_by(error))
}

pub(crate) fn selection(
    platforms: &[String],
    referrers: &[String],
    cosign: bool,
    foreign: bool,
) -> Result<Selection> {
    let platforms =
        Platform::parse_all(platforms).map_err(|error| corrupt("platform").caused_by(error))?;
    let referrers =
        Referrers::parse(referrers).map_err(|error| corrupt("referrers").caused_by(error))?;
    Ok(Selection { platforms, referrers, cosign, foreign })
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

pub(crate) fn ledger_purpose(text: &str) -> Result<colophon_ledger::Purpose> {
    colophon_ledger::Purpose::parse(text).ok_or_else(|| corrupt("purpose of a move"))
}

/// An order key, where there is one.
pub(crate) fn order(kind: Option<&str>, value: Option<&str>) -> Result<Option<OrderKey>> {
    let Some((kind, value)) = kind.zip(value) else { return Ok(None) };
    let kind = OrderKind::parse(kind).ok_or_else(|| corrupt("order key"))?;
    let key = OrderKey::parse(kind, value);
    key.map(Some).map_err(|error| corrupt("order key").caused_by(error))
}

/// The columns of an order key.
pub(crate) fn order_columns(order: Option<&OrderKey>) -> (Option<&'static str>, Option<String>) {
    (order.map(|key| key.kind().as_str()), order.map(OrderKey::value))
}

pub(crate) fn expected(text: Option<&str>) -> Result<Option<Expected>> {
    let expected = text.map(str::parse).transpose();
    expected.map_err(|error: Failure| corrupt("expected digest").caused_by(error))
}

/// A line of versions as it is kept: nothing for every version, `1`, or `1.4`.
pub(crate) fn line_text(line: &Line) -> String {
    match (line.major, line.minor) {
        (Some(major), Some(minor)) => format!("{major}.{minor}"),
        (Some(major), None) => major.to_string(),
        _ => String::new(),
    }
}

pub(crate) fn line(text: Option<&str>) -> Result<Option<Line>> {
    let Some(text) = text else { return Ok(None) };
    let number = |text: &str| text.parse::<u64>().map_err(|_| corrupt("line of versions"));
    let line = match text.split_once('.') {
        Some((major, minor)) => Line { major: Some(number(major)?), minor: Some(number(minor)?) },
        None if text.is_empty() => Line { major: None, minor: None },
        None => Line { major: Some(number(text)?), minor: None },
    };
    Ok(Some(line))
}
