//! Floating tags that follow versions: what `v1.4`, `v1` and `latest` are called, which line of
//! versions each of them follows, and which is the highest version of a line.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Failure, Tag, Version, digest::shown};

/// A template has at most this many characters. Its three placeholders have 17 and stand for 41
/// at most (`v` and two numbers of 20 digits), so the tag stays within 128.
const TEMPLATE_LIMIT: usize = 97;

/// The versions that one floating tag follows: all, those of one major, or those of one major
/// and minor. The leading `v` makes no difference: `v1.4.2` and `1.4.3` are of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Line {
    /// The major that a version must have, if any.
    pub major: Option<u64>,
    /// The minor that a version must have, if any.
    pub minor: Option<u64>,
}

impl Line {
    /// Whether the version is of this line; its pre-releases are, too.
    pub fn contains(&self, version: &Version) -> bool {
        self.major.is_none_or(|major| major == version.major())
            && self.minor.is_none_or(|minor| minor == version.minor())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.major, self.minor) {
            (Some(major), Some(minor)) => write!(f, "{major}.{minor}.x"),
            (Some(major), None) => write!(f, "{major}.x"),
            (None, Some(minor)) => write!(f, "x.{minor}.x"),
            (None, None) => f.write_str("every version"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    Literal(String),
    V,
    Major,
    Minor,
}

/// How a floating tag is made from a version, as the configuration has it: `{v}{major}.{minor}`,
/// `stable-{major}`, `latest`. `{v}` is `v` if the version was written with one, else nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FloatTemplate(Vec<Part>);

impl FloatTemplate {
    /// `{v}{major}.{minor}`, `{v}{major}` and `latest`.
    pub fn defaults() -> Vec<Self> {
        let dot = Part::Literal(".".to_owned());
        vec![
            Self(vec![Part::V, Part::Major, dot, Part::Minor]),
            Self(vec![Part::V, Part::Major]),
            Self(vec![Part::Literal("latest".to_owned())]),
        ]
    }

    /// The floating tag that follows the line of this version.
    pub fn tag(&self, version: &Version) -> Result<Tag, Failure> {
        self.render(version.has_v(), version.major(), version.minor()).parse()
    }

    /// The line that the tag of this version follows.
    pub fn line(&self, version: &Version) -> Line {
        Line {
            major: self.0.contains(&Part::Major).then_some(version.major()),
            minor: self.0.contains(&Part::Minor).then_some(version.minor()),
        }
    }

    /// What the template gives for version 1.1, written without and with a `v`.
    pub(crate) fn samples(&self) -> [String; 2] {
        [false, true].map(|v| self.render(v, 1, 1))
    }

    fn render(&self, v: bool, major: u64, minor: u64) -> String {
        let text = |part: &Part| match part {
            Part::Literal(literal) => literal.clone(),
            Part::V => (if v { "v" } else { "" }).to_owned(),
            Part::Major => major.to_string(),
            Part::Minor => minor.to_string(),
        };
        self.0.iter().map(text).collect()
    }

    /// Cuts the text at its braces.
    fn split(text: &str) -> Result<Vec<Part>, String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            let (literal, tail) = rest.split_at(at);
            let Some((name, behind)) = tail.strip_prefix('{').and_then(|tail| tail.split_once('}'))
            else {
                return Err("its braces do not match".to_owned());
            };
            let part = match name {
                "v" => Part::V,
                "major" => Part::Major,
                "minor" => Part::Minor,
                "patch" => {
                    return Err("{patch} would name one version, and a floating tag follows many"
                        .to_owned());
                }
                _ => return Err(format!("it has the unknown placeholder {:?}", shown(name))),
            };
            if parts.contains(&part) {
                return Err(format!("it has {{{name}}} twice"));
            }
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            parts.push(part);
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(parts)
    }

    /// What is wrong with a template whose braces match.
    fn fault(&self) -> Option<String> {
        let at = |wanted: &Part| self.0.iter().position(|part| part == wanted);
        // `{v}` may be empty and digits run together: 1 and 11 would be the same tag as 11 and 1.
        let apart = |part: &Part| match part {
            Part::Literal(text) => text.contains(|c: char| !c.is_ascii_digit()),
            Part::V | Part::Major | Part::Minor => false,
        };
        match (at(&Part::Major), at(&Part::Minor)) {
            (None, Some(_)) => return Some("{minor} needs {major} beside it".to_owned()),
            (Some(major), Some(minor)) => {
                let between = self.0.get(major.min(minor) + 1..major.max(minor));
                if !between.unwrap_or_default().iter().any(apart) {
                    return Some(
                        "{major} and {minor} need more than digits between them".to_owned(),
                    );
                }
            }
            (_, None) => {}
        }
        // Whether a template gives tags, and whether those are versions, does not depend on the
        // numbers, as long as they are not 0; so two samples show all.
        for sample in self.samples() {
            if sample.parse::<Tag>().is_err() {
                return Some(format!("{:?} would be no tag", shown(&sample)));
            }
            if Version::from_tag(&sample).is_some() {
                return Some(format!("{sample:?} would be the tag of one version"));
            }
        }
        None
    }
}

impl FromStr for FloatTemplate {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let refuse = |what: String| {
            Failure::invalid(
                "semver_floats",
                format!("{:?} is no template of floating tags: {what}", shown(text)),
            )
            .remedy(
                "write a tag with {v}, {major} and {minor} where the version's parts stand, for \
                 example {v}{major}.{minor}, stable-{major} or latest",
            )
        };
        if text.len() > TEMPLATE_LIMIT {
            return Err(refuse(format!("it is too long, {TEMPLATE_LIMIT} characters are allowed")));
        }
        let template = Self(Self::split(text).map_err(refuse)?);
        match template.fault() {
            Some(fault) => Err(refuse(fault)),
            None => Ok(template),
        }
    }
}

impl TryFrom<String> for FloatTemplate {
    type Error = Failure;

    fn try_from(text: String) -> Result<Self, Failure> {
        text.parse()
    }
}

impl From<FloatTemplate> for String {
    fn from(template: FloatTemplate) -> Self {
        template.to_string()
    }
}

impl fmt::Display for FloatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| {
            f.write_str(match part {
                Part::Literal(literal) => literal,
                Part::V => "{v}",
                Part::Major => "{major}",
                Part::Minor => "{minor}",
            })
        })
    }
}

/// Finds the highest version of each of some lines among tags that are shown to it one by one.
/// It keeps one version for each line, however many tags a repository has.
#[derive(Debug, Clone)]
pub struct Highest {
    pre_releases: bool,
    best: BTreeMap<Line, Option<Version>>,
}

impl Highest {
    /// Looks for these lines. Versions with a pre-release or build metadata count only if
    /// `pre_releases` says so.
    pub fn new(lines: Vec<Line>, pre_releases: bool) -> Self {
        Self { pre_releases, best: lines.into_iter().map(|line| (line, None)).collect() }
    }

    /// Looks at one tag; what is no version is passed over.
    pub fn see(&mut self, tag: &str) {
        let Some(version) = Version::from_tag(tag) else { return };
        if !self.pre_releases && !version.is_plain() {
            return;
        }
        for (line, best) in &mut self.best {
            if line.contains(&version) && best.as_ref().is_none_or(|best| version.above(best)) {
                *best = Some(version.clone());
            }
        }
    }

    /// The highest version of the line that was seen; `None` also for a line that was not asked
    /// for.
    pub fn of(&self, line: &Line) -> Option<&Version> {
        self.best.get(line)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn templates_make_the_tags_of_lines() {
        let of = |template: &str, text: &str| {
            let template: FloatTemplate = template.parse().unwrap();
            let version = version(text);
            let line = template.line(&version);
            assert!(line.contains(&version));
            (template.tag(&version).unwrap().to_string(), line.to_string())
        };
        let pair = |tag: &str, line: &str| (tag.to_owned(), line.to_owned());
        assert_eq!(of("{v}{major}.{minor}", "v1.4.2"), pair("v1.4", "1.4.x"));
        assert_eq!(of("{v}{major}", "1.4.2-rc.1"), pair("1", "1.x"));
        assert_eq!(of("latest", "v1.4.2"), pair("latest", "every version"));
        assert_eq!(of("stable-{major}", "v1.4.2+x"), pair("stable-1", "1.x"));
        let defaults: Vec<String> =
            FloatTemplate::defaults().iter().map(ToString::to_string).collect();
        assert_eq!(defaults, ["{v}{major}.{minor}", "{v}{major}", "latest"]);
        for template in FloatTemplate::defaults() {
            assert_eq!(template.to_string().parse::<FloatTemplate>().unwrap(), template);
        }
    }

    #[test]
    fn templates_that_cannot_work_are_refused() {
        let (long, longer) = ("x".repeat(129), format!("{}{{major}}", "x".repeat(91)));
        for (text, what) in [
            ("", "no tag"),
            ("{v}", "no tag"),
            ("-{major}", "no tag"),
            ("{major} x", "no tag"),
            ("{v}.{major}", "no tag"),
            ("{major", "braces"),
            ("major}", "braces"),
            ("{{major}}", "placeholder"),
            ("{Major}", "placeholder"),
            ("{}", "placeholder"),
            ("{major}.{major}", "twice"),
            ("x-{minor}", "needs {major}"),
            ("{major}.{minor}.{patch}", "one version"),
            ("{major}.{minor}.0", "one version"),
            ("{v}{major}.0.0-x", "one version"),
            ("1.2.3", "one version"),
            ("{major}{minor}", "between them"),
            ("{major}{v}{minor}", "between them"),
            ("{minor}0{major}", "between them"),
            (&long, "too long"),
            (&longer, "too long"),
        ] {
            let failure = text.parse::<FloatTemplate>().unwrap_err();
            assert!(failure.message().contains(what), "{failure}");
            assert_eq!(failure.field_name(), Some("semver_floats"));
        }
    }

    #[test]
    fn the_highest_of_each_line_is_kept() {
        let line = |major, minor| Line { major, minor };
        let lines = vec![line(Some(1), Some(4)), line(Some(1), None), line(None, None)];
        let find = |pre_releases| {
            let mut highest = Highest::new(lines.clone(), pre_releases);
            for tag in ["1.4.2", "v1.4.10", "1.5.0-rc.1", "latest", "2.0.0_a", "1.4.9", "v1.x"] {
                highest.see(tag);
            }
            let text = |line| highest.of(line).map(ToString::to_string).unwrap_or_default();
            (lines.iter().map(text).collect::<Vec<_>>(), highest.of(&line(Some(3), None)).cloned())
        };
        assert_eq!(find(false), (["v1.4.10"; 3].map(String::from).into(), None));
        assert_eq!(find(true).0, ["v1.4.10", "1.5.0-rc.1", "2.0.0+a"]);
    }

    fn versions() -> impl Strategy<Value = Version> {
        let tail = "(-(0|[a-c]{1,2})(\\.[1-9])?)?(\\+[a-z]{1,2})?";
        ("v?[0-3]\\.[0-3]\\.[0-9]", tail).prop_map(|(number, tail)| version(&(number + &tail)))
    }

    proptest! {
        /// Every template that is accepted gives a tag for every version, which is not itself
        /// the tag of a version, and different tags for different lines.
        #[test]
        fn accepted_templates_tell_lines_apart(
            text in "([a0.-]{0,2}|\\{v\\}|\\{major\\}|\\{minor\\}){1,6}",
            one in (0..130_u64, 0..130_u64), other in (0..130_u64, 0..130_u64),
        ) {
            let Ok(template) = text.parse::<FloatTemplate>() else { return Ok(()) };
            prop_assert_eq!(template.to_string(), text);
            let largest = version(&format!("v{0}.{0}.0", u64::MAX));
            prop_assert!(template.tag(&largest).is_ok());
            let [one, other] =
                [one, other].map(|(major, minor)| version(&format!("{major}.{minor}.7")));
            let (tag, line) = (template.tag(&one).unwrap(), template.line(&one));
            prop_assert_eq!(Version::from_tag(tag.as_str()), None);
            prop_assert_eq!(tag == template.tag(&other).unwrap(), line == template.line(&other));
        }

        /// The order in which tags are seen makes no difference, and nothing seen is higher.
        #[test]
        fn the_highest_is_the_highest(
            seen in prop::collection::vec(versions(), 0..20), pre_releases: bool,
        ) {
            let line = Line { major: Some(1), minor: None };
            let mut there = Highest::new(vec![line], pre_releases);
            let mut back = there.clone();
            for version in &seen {
                there.see(version.tag().as_str());
            }
            for version in seen.iter().rev() {
                back.see(version.tag().as_str());
            }
            prop_assert_eq!(there.of(&line), back.of(&line));
            let counts = |version: &&Version| pre_releases || version.is_plain();
            let mut of_line = seen.iter().filter(|version| line.contains(version)).filter(counts);
            match there.of(&line) {
                None => prop_assert_eq!(of_line.next(), None),
                Some(best) => {
                    prop_assert!(line.contains(best) && seen.contains(best));
                    prop_assert!(of_line.all(|version| version.precedence(best).is_le()));
                }
            }
        }
    }
}
