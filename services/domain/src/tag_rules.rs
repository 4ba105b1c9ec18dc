//! Rules of tags by configuration: which tags of a repository are unique whatever a request says,
//! which floating tags follow a version, and how many old digests are kept.

use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    Failure, FloatTemplate, RegistryHost, Repository, RepositoryPattern, Retention, Tag, Version,
    digest::shown, is_retention_tag, retention::KEPT,
};

/// What stands for [`KEPT`] where a pattern is named.
const KEPT_PATTERN: &str = "colophon-kept-.*";

/// The word among the unique tags that stands for every version.
const SEMVER: &str = "semver";

/// Patterns, and templates, of one table.
const COUNT_LIMIT: usize = 64;

/// The characters of one pattern.
const PATTERN_LIMIT: usize = 500;

/// The bytes of one compiled pattern, and as many again for matching it.
const REGEX_LIMIT: usize = 256 * 1024;

/// One `[[repository]]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// The repositories, host included.
    #[schemars(with = "String")]
    pub pattern: RepositoryPattern,
    /// Tags that never move: each a regular expression over the whole tag, or the word `semver`
    /// for every version.
    #[serde(default)]
    pub unique_tags: Vec<String>,
    /// The floating tags that follow a version; [`FloatTemplate::defaults`] if left out, none if
    /// empty.
    #[schemars(with = "Option<Vec<String>>")]
    pub semver_floats: Option<Vec<FloatTemplate>>,
    /// How many old digests are kept; none if left out.
    pub retention: Option<Retention>,
}

/// What makes a tag unique.
#[derive(Debug)]
enum Unique {
    Semver,
    Matching { text: String, regex: Regex },
}

impl Unique {
    fn new(text: &str) -> Result<Self, String> {
        if text == SEMVER {
            return Ok(Self::Semver);
        }
        if text.is_empty() || text.len() > PATTERN_LIMIT {
            return Err(format!("a pattern has 1 to {PATTERN_LIMIT} characters"));
        }
        // Tags are ASCII. The pattern must be one by itself before it is put between anchors:
        // `a)|(b` would else become one there, and match within a tag.
        compile(text)?;
        let regex = compile(&format!(r"\A(?:{text})\z"))
            .map_err(|_| "it ends in a comment, and cannot be held to the whole tag".to_owned())?;
        Ok(Self::Matching { text: text.to_owned(), regex })
    }

    fn text(&self) -> &str {
        match self {
            Self::Semver => SEMVER,
            Self::Matching { text, .. } => text,
        }
    }

    fn covers(&self, tag: &str) -> bool {
        match self {
            Self::Semver => Version::from_tag(tag).is_some(),
            Self::Matching { regex, .. } => regex.is_match(tag.as_bytes()),
        }
    }
}

fn compile(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text)
        .unicode(false)
        .size_limit(REGEX_LIMIT)
        .dfa_size_limit(REGEX_LIMIT)
        .nest_limit(50)
        .build()
        // The last line says what is wrong; those before repeat the pattern.
        .map_err(|error| error.to_string().lines().last().unwrap_or_default().trim().to_owned())
}

#[derive(Debug)]
struct Rule {
    pattern: Option<RepositoryPattern>,
    unique: Vec<Unique>,
    floats: Vec<FloatTemplate>,
    retention: Option<Retention>,
}

impl Rule {
    /// Checks one table; the failure's field is the name within it.
    fn new(config: RuleConfig) -> Result<Self, Failure> {
        check_pattern(&config.pattern)?;
        check_count("unique_tags", config.unique_tags.len())?;
        let mut unique = Vec::new();
        for (number, text) in config.unique_tags.iter().enumerate() {
            unique.push(Unique::new(text).map_err(|what| {
                let message = format!("{:?} cannot say which tags are unique: {what}", shown(text));
                Failure::invalid(format!("unique_tags[{number}]"), message).remedy(
                    "write a regular expression over the whole tag, with ASCII classes only, or \
                     the word semver",
                )
            })?);
        }
        if let Some(floats) = &config.semver_floats {
            check_count("semver_floats", floats.len())?;
            check_floats(floats, &unique)?;
        }
        if let Some(retention) = &config.retention {
            retention.check().map_err(|failure| failure.within("retention"))?;
        }
        Ok(Self {
            pattern: Some(config.pattern),
            unique,
            floats: config.semver_floats.unwrap_or_else(FloatTemplate::defaults),
            retention: config.retention,
        })
    }
}

fn check_count(field: &'static str, count: usize) -> Result<(), Failure> {
    if count <= COUNT_LIMIT {
        return Ok(());
    }
    Err(Failure::invalid(field, format!("{field} has {count} entries, and at most {COUNT_LIMIT}"))
        .remedy("join several patterns to one with |"))
}

/// Refuses a pattern that no repository can ever match, because it does not begin with a registry
/// as it stands in references.
fn check_pattern(pattern: &RepositoryPattern) -> Result<(), Failure> {
    let text = pattern.to_string();
    let matches = match text.strip_suffix("/*") {
        _ if text == "*" => true,
        Some(above) if above.contains('/') => {
            Repository::parse(above).is_ok_and(|repository| repository.to_string() == above)
        }
        Some(host) => host.parse::<RegistryHost>().is_ok_and(|known| known.as_str() == host),
        None => Repository::parse(&text).is_ok_and(|repository| repository.to_string() == text),
    };
    if matches {
        return Ok(());
    }
    let message = format!("{:?} covers no repository", shown(&text));
    Err(Failure::invalid("pattern", message)
        .remedy("begin with the registry as it stands in references, for example docker.io/acme/*"))
}

/// Refuses templates that are there twice, that give tags of ours, or tags that the same table
/// makes unique. The defaults are not checked: whoever makes everything unique and never publishes
/// a version need not say that there are no floating tags.
fn check_floats(floats: &[FloatTemplate], unique: &[Unique]) -> Result<(), Failure> {
    for (number, float) in floats.iter().enumerate() {
        let refuse = |what: String, remedy: &'static str| {
            let message = format!("{:?} cannot be a floating tag: {what}", float.to_string());
            Err(Failure::invalid(format!("semver_floats[{number}]"), message).remedy(remedy))
        };
        if floats.iter().take(number).any(|other| other == float) {
            return refuse("it is there twice".to_owned(), "leave one of them out");
        }
        for tag in float.samples() {
            if tag.starts_with(KEPT) {
                let what = format!("tags that begin with {KEPT} are Colophon's own");
                return refuse(what, "begin with something else");
            }
            if let Some(unique) = unique.iter().find(|unique| unique.covers(&tag)) {
                let what = format!("unique_tags has {:?}, which covers {tag}", unique.text());
                return refuse(what, "narrow the one or leave out the other");
            }
        }
    }
    Ok(())
}

/// The rules of all repositories. A clone is cheap and shares them.
#[derive(Debug, Clone, Default)]
pub struct TagRules {
    rules: Arc<[RepositoryRule]>,
    default: RepositoryRule,
}

impl TagRules {
    /// Checks the tables of the configuration. A failure names what is wrong as
    /// `repository[0].unique_tags[1]`.
    pub fn new(tables: Vec<RuleConfig>) -> Result<Self, Failure> {
        let mut rules: Vec<RepositoryRule> = Vec::new();
        for (number, config) in tables.into_iter().enumerate() {
            let table = format!("repository[{number}]");
            if rules.iter().any(|rule| rule.pattern() == Some(&config.pattern)) {
                let message = format!("{:?} is there twice", config.pattern.to_string());
                return Err(Failure::invalid("pattern", message)
                    .remedy("join the two tables to one")
                    .within(&table));
            }
            let rule = Rule::new(config).map_err(|failure| failure.within(&table))?;
            rules.push(RepositoryRule(Arc::new(rule)));
        }
        Ok(Self { rules: rules.into(), default: RepositoryRule::default() })
    }

    /// The rule of a repository: the table with the most specific pattern that covers it, whole.
    /// Nothing is taken from less specific ones, so that a table says everything about its
    /// repositories. Without a table no pattern makes a tag unique, the default templates hold
    /// and nothing is kept.
    pub fn of(&self, repository: &Repository) -> RepositoryRule {
        let covers = |rule: &&RepositoryRule| {
            rule.pattern().is_some_and(|pattern| pattern.covers(repository))
        };
        let specificity =
            |rule: &&RepositoryRule| rule.pattern().map_or(0, RepositoryPattern::specificity);
        self.rules.iter().filter(covers).max_by_key(specificity).unwrap_or(&self.default).clone()
    }
}

/// What holds for the tags of one repository. A clone is cheap.
#[derive(Debug, Clone)]
pub struct RepositoryRule(Arc<Rule>);

impl Default for RepositoryRule {
    fn default() -> Self {
        Self(Arc::new(Rule {
            pattern: None,
            unique: Vec::new(),
            floats: FloatTemplate::defaults(),
            retention: None,
        }))
    }
}

impl RepositoryRule {
    /// The pattern of the table that holds; `None` if no table covers the repository.
    pub fn pattern(&self) -> Option<&RepositoryPattern> {
        self.0.pattern.as_ref()
    }

    /// Whether the tag must never move. Tags that Colophon keeps digests under never do.
    pub fn is_unique(&self, tag: &Tag) -> bool {
        self.unique_by(tag).is_some()
    }

    /// The first pattern that makes the tag unique, as the configuration has it, for a message.
    pub fn unique_by(&self, tag: &Tag) -> Option<&str> {
        if is_retention_tag(tag) {
            return Some(KEPT_PATTERN);
        }
        self.0.unique.iter().find(|unique| unique.covers(tag.as_str())).map(Unique::text)
    }

    /// The floating tags that follow a version.
    pub fn floats(&self) -> &[FloatTemplate] {
        &self.0.floats
    }

    /// Which old digests are kept, if any are.
    pub fn retention(&self) -> Option<&Retention> {
        self.0.retention.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{Digest, retention_tag};

    #[derive(Debug, Deserialize)]
    struct File {
        repository: Vec<RuleConfig>,
    }

    fn rules(text: &str) -> Result<TagRules, Failure> {
        TagRules::new(toml::from_str::<File>(text).unwrap().repository)
    }

    fn of(rules: &TagRules, repository: &str) -> RepositoryRule {
        rules.of(&Repository::parse(repository).unwrap())
    }

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    #[test]
    fn the_most_specific_table_holds_whole() {
        let rules = rules(
            r#"
            [[repository]]
            pattern = "ghcr.io/acme/*"
            unique_tags = ["^[0-9a-f]{7,40}$", "semver", "rc|rc-[0-9]+"]
            semver_floats = ["{v}{major}.{minor}", "stable"]
            [repository.retention]
            keep = 10
            max_age = "30d"

            [[repository]]
            pattern = "ghcr.io/acme/app"
            unique_tags = ["v.*"]
            [[repository]]
            pattern = "*"
            semver_floats = []
            "#,
        )
        .unwrap();
        let wide = of(&rules, "ghcr.io/acme/other");
        for (text, by) in [
            ("0123abc", Some("^[0-9a-f]{7,40}$")),
            ("0123abcx", None),
            ("v1.4.2_build.5", Some("semver")),
            ("v1.4", None),
            ("rc", Some("rc|rc-[0-9]+")),
            ("rc-12", Some("rc|rc-[0-9]+")),
            ("src", None),
            ("rc-", None),
        ] {
            assert_eq!(wide.unique_by(&tag(text)), by, "{text}");
            assert_eq!(wide.is_unique(&tag(text)), by.is_some());
        }
        let thirty = Duration::from_hours(720);
        assert_eq!(wide.retention(), Some(&Retention { keep: 10, max_age: Some(thirty) }));
        assert_eq!(wide.floats().len(), 2);
        let app = of(&rules, "ghcr.io/acme/app");
        assert_eq!((app.floats(), app.retention()), (&FloatTemplate::defaults()[..], None));
        assert!(app.is_unique(&tag("v1.4")) && !app.is_unique(&tag("0123abc")));
        assert_eq!(of(&rules, "quay.io/acme/app").floats(), []);
        let none = of(&TagRules::default(), "ghcr.io/acme/app");
        assert_eq!((none.pattern(), none.retention()), (None, None));
        assert_eq!(none.floats(), FloatTemplate::defaults());
        assert!(!none.is_unique(&tag("1.4.2")));
        assert!(none.is_unique(&retention_tag(&Digest::sha256(b"x"))));
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let many = format!("unique_tags = {:?}", vec!["x"; 65]);
        let long = format!("unique_tags = [{:?}]", "x".repeat(501));
        for (table, field) in [
            (r#"unique_tags = ["semver", "["]"#, "unique_tags[1]"),
            (r#"unique_tags = ["a)|(b"]"#, "unique_tags[0]"),
            (r#"unique_tags = ["(?x)a # b"]"#, "unique_tags[0]"),
            (r#"unique_tags = [""]"#, "unique_tags[0]"),
            (r#"unique_tags = ["((a{99}){99}){99}"]"#, "unique_tags[0]"),
            (r#"unique_tags = ["\\pL+"]"#, "unique_tags[0]"),
            (&long, "unique_tags[0]"),
            (&many, "unique_tags"),
            (r#"semver_floats = ["latest", "{major}", "latest"]"#, "semver_floats[2]"),
            (r#"semver_floats = ["colophon-kept-{major}"]"#, "semver_floats[0]"),
            ("unique_tags = ['v[0-9.]+']\nsemver_floats = ['{v}{major}']", "semver_floats[0]"),
            ("retention = { keep = 0 }", "retention.keep"),
            ("retention = { keep = 1001 }", "retention.keep"),
            ("retention = { keep = 1, max_age = '0s' }", "retention.max_age"),
            ("retention = { keep = 1, max_age = '101y' }", "retention.max_age"),
        ] {
            let first = "[[repository]]\npattern = '*'\n";
            let text = format!("{first}[[repository]]\npattern = 'ghcr.io/acme/*'\n{table}");
            let failure = rules(&text).unwrap_err();
            assert_eq!(failure.field_name(), Some(format!("repository[1].{field}").as_str()));
            assert!(failure.remedy_text().is_some(), "{failure}");
        }
        for pattern in ["acme/*", "acme/app", "index.docker.io/acme/*", "ghcr.io", "ghcr.io//x/*"] {
            let failure = rules(&format!("[[repository]]\npattern = '{pattern}'")).unwrap_err();
            assert_eq!(failure.field_name(), Some("repository[0].pattern"), "{pattern}");
        }
        let twice = "[[repository]]\npattern = 'ghcr.io/*'\n".repeat(2);
        assert_eq!(rules(&twice).unwrap_err().field_name(), Some("repository[1].pattern"));
        let unknown = "[[repository]]\npattern = '*'\nunique = ['x']";
        assert!(toml::from_str::<File>(unknown).unwrap_err().to_string().contains("unique"));
    }

    #[test]
    fn a_broken_pattern_is_explained() {
        let failure = rules("[[repository]]\npattern = '*'\nunique_tags = ['a(b']").unwrap_err();
        assert!(failure.message().contains("unclosed group"), "{failure}");
    }

    proptest! {
        #[test]
        fn no_pattern_panics_and_each_is_held_to_the_whole_tag(
            text in "[ab|()^$?*+.-]{1,8}|\\PC{0,8}", tag in "[ab]{1,5}",
        ) {
            if let (Ok(unique), Ok(plain)) = (Unique::new(&text), compile(&text)) {
                let whole = plain.find_iter(tag.as_bytes()).any(|found| found.len() == tag.len());
                prop_assert!(!whole || unique.covers(&tag));
                prop_assert!(!unique.covers(&tag) || plain.is_match(tag.as_bytes()));
            }
        }

        #[test]
        fn a_choice_of_words_covers_these_words_only(
            words in prop::collection::vec("[ab]{1,3}", 1..5), tag in "[ab]{1,4}",
        ) {
            let unique = Unique::new(&words.join("|")).unwrap();
            prop_assert_eq!(unique.covers(&tag), words.contains(&tag));
        }

        /// Every repository has the table with the longest pattern that covers it.
        #[test]
        fn the_longest_pattern_wins(
            order in Just(vec!["*", "a.io/*", "a.io/b/*", "a.io/b/cd"]).prop_shuffle(),
            count in 0..=4_usize,
        ) {
            let patterns = &order[..count];
            let table = |pattern: &&str| RuleConfig {
                pattern: pattern.parse().unwrap(),
                unique_tags: Vec::new(),
                semver_floats: None,
                retention: None,
            };
            let rules = TagRules::new(patterns.iter().map(table).collect()).unwrap();
            for repository in ["a.io/b/cd", "a.io/b/d", "a.io/x", "b.io/x"] {
                let covers = |pattern: &&&str| match pattern.strip_suffix('*') {
                    Some(above) => repository.starts_with(above),
                    None => repository == **pattern,
                };
                let longest = patterns.iter().filter(covers).max_by_key(|pattern| pattern.len());
                let rule = of(&rules, repository);
                let found = rule.pattern().map(ToString::to_string);
                prop_assert_eq!(found.as_deref(), longest.copied());
            }
        }
    }
}
