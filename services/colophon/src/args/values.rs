//! The values of single options: texts become what the contract has, or an error that says the
//! form.

use colophon_api::{Timestamp, v1};
use colophon_domain::{
    Clock as _, Digest, Expected, Failure, OrderKey, Platform, Repository, RepositoryPattern,
    SystemClock, Version,
};
use colophon_local::Source;
use v1::{ReleaseState, order_key};

use super::moment;

/// A time in one of the forms of [`moment::FORMS`].
pub fn timestamp(text: &str) -> Result<Timestamp, String> {
    moment::parse(text, SystemClock.now()).map(Timestamp::from)
}

/// A time that lies so far ahead of now.
pub fn time_ahead(text: &str) -> Result<Timestamp, String> {
    let duration = moment::duration(text)?;
    let end = time::Duration::try_from(duration).ok();
    let end = end.and_then(|ahead| SystemClock.now().checked_add(ahead));
    end.map(Timestamp::from).ok_or_else(|| "the time is out of range".to_owned())
}

/// `KEY=VALUE`; the value may hold further equals signs.
pub fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("give KEY=VALUE".to_owned()),
    }
}

/// The short name of a release's state.
pub fn state(text: &str) -> Result<ReleaseState, String> {
    match ReleaseState::from_short_name(text) {
        Some(state) if state != ReleaseState::Unspecified => Ok(state),
        _ => Err("give QUEUED, RUNNING, SUCCEEDED, FAILED, ERRORED or CANCELLED".to_owned()),
    }
}

/// A reason that must not be blank.
pub fn reason(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("say why in words: the ledger and everybody who looks there shows it".into());
    }
    Ok(text.to_owned())
}

/// An idempotency key. An empty one would be the same as none, and sending again not safe.
pub fn key(text: &str) -> Result<String, String> {
    filled(text, "the key is empty: give one that is the same for each run of the same job")
}

/// A plan's id. An empty one would publish without the plan.
pub fn plan(text: &str) -> Result<String, String> {
    filled(text, "the id is empty: take it from `colophon plan`, which gives none if it fails")
}

fn filled(text: &str, otherwise: &str) -> Result<String, String> {
    if text.is_empty() { Err(otherwise.to_owned()) } else { Ok(text.to_owned()) }
}

/// A version; what is sent is what was written.
pub fn semver(text: &str) -> Result<String, String> {
    Version::parse(text).map(|version| version.to_string()).map_err(|failure| told(&failure))
}

/// `KIND:VALUE`.
pub fn order(text: &str) -> Result<v1::OrderKey, String> {
    let key = match text.parse::<OrderKey>().map_err(|failure| told(&failure))? {
        OrderKey::Number(number) => order_key::Key::Number(number),
        OrderKey::Time(time) => order_key::Key::Time(time.into()),
        OrderKey::Semver(version) => order_key::Key::Semver(version.to_string()),
    };
    Ok(v1::OrderKey { key: Some(key) })
}

/// Where an image of this machine is.
pub fn source(text: &str) -> Result<Source, String> {
    text.parse::<Source>().map_err(|error| match error.remedy_text() {
        Some(remedy) => format!("{}; {remedy}", error.what()),
        None => error.what().to_owned(),
    })
}

/// A platform.
pub fn platform(text: &str) -> Result<Platform, String> {
    text.parse().map_err(|failure| told(&failure))
}

/// A repository.
pub fn repository(text: &str) -> Result<String, String> {
    let parsed = Repository::parse(text).map_err(|failure| told(&failure))?;
    Ok(parsed.to_string())
}

/// A digest.
pub fn digest(text: &str) -> Result<String, String> {
    text.parse::<Digest>().map(|digest| digest.to_string()).map_err(|failure| told(&failure))
}

/// A digest, or `none` where there must be no such tag.
pub fn expected(text: &str) -> Result<String, String> {
    let expected = text.parse::<Expected>().map_err(|failure| told(&failure))?;
    Ok(expected.as_str().to_owned())
}

/// `TAG=DIGEST` or `TAG=none`.
pub fn expected_of(text: &str) -> Result<(String, String), String> {
    let (tag, value) = of_tag(text, "TAG=DIGEST, or TAG=none if there must be no such tag")?;
    Ok((tag, expected(value)?))
}

/// `TAG=KIND:VALUE`.
pub fn order_of(text: &str) -> Result<(String, v1::OrderKey), String> {
    let (tag, value) = of_tag(text, "TAG=KIND:VALUE, for example latest=number:1234")?;
    Ok((tag, order(value)?))
}

/// A pattern over repositories.
pub fn pattern(text: &str) -> Result<String, String> {
    text.parse::<RepositoryPattern>().map(String::from).map_err(|failure| {
        // A shell that finds files for an asterisk gives their names in its place.
        told(&failure) + "; quote the asterisk: '*'"
    })
}

fn of_tag<'a>(text: &'a str, form: &str) -> Result<(String, &'a str), String> {
    match text.split_once('=') {
        Some((tag, value)) if !tag.is_empty() => Ok((tag.to_owned(), value)),
        _ => Err(format!("give {form}")),
    }
}

fn told(failure: &Failure) -> String {
    match failure.remedy_text() {
        Some(remedy) => format!("{}; {remedy}", failure.message()),
        None => failure.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn states_and_labels_are_checked() {
        assert_eq!(state("failed"), Ok(ReleaseState::Failed));
        assert!(state("unspecified").is_err());
        assert_eq!(label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(label("=x").is_err() && label("x").is_err());
    }

    #[test]
    fn order_keys_become_the_contracts() {
        let key = |text: &str| order(text).unwrap().key.unwrap();
        assert_eq!(key("number:1234"), order_key::Key::Number(1234));
        assert_eq!(key("semver:v1.4.2"), order_key::Key::Semver("v1.4.2".into()));
        let time = "2026-11-03T14:02:00Z".parse().unwrap();
        assert_eq!(key("time:2026-11-03T16:02:00+02:00"), order_key::Key::Time(time));
        for text in ["1234", "number:", "number:-1", "date:1", "semver:1.4", "time:noon"] {
            assert!(!order(text).unwrap_err().is_empty(), "{text}");
        }
        assert_eq!(order_of("latest=number:1").unwrap().0, "latest");
        assert!(order_of("number:1").unwrap_err().contains("TAG=KIND:VALUE"));
    }

    #[test]
    fn what_a_tag_must_be_at_is_a_digest_or_none() {
        assert_eq!(expected_of("1.4=none"), Ok(("1.4".into(), "none".into())));
        assert_eq!(expected_of(&format!("1.4={DIGEST}")), Ok(("1.4".into(), DIGEST.into())));
        assert!(expected_of("1.4").unwrap_err().contains("TAG=none"));
        assert!(expected_of("=none").is_err());
        assert!(expected("absent").unwrap_err().contains("none"));
        assert!(digest("none").is_err());
    }

    #[test]
    fn versions_reasons_and_patterns_say_their_form() {
        assert_eq!(semver("v1.4.2-rc.1"), Ok("v1.4.2-rc.1".into()));
        assert!(semver("1.4").unwrap_err().contains("1.4.2"));
        assert!(reason(" ").is_err() && reason("bad build").is_ok());
        assert_eq!(pattern("docker.io/acme/*"), Ok("docker.io/acme/*".into()));
        assert!(pattern("acme*").unwrap_err().contains("quote"));
    }

    #[test]
    fn a_time_ahead_is_counted_from_now() {
        let now = Timestamp::from(SystemClock.now());
        let ahead = time_ahead("2h").unwrap();
        assert!((7200..7230).contains(&(ahead.seconds - now.seconds)));
        assert!(time_ahead("90000000years").is_err() && time_ahead("soon").is_err());
    }
}
