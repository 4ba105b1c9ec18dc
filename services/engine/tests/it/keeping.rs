//! What the model knows of digests that floating tags leave: each has a tag of its own before it
//! is left, and keeps it as long as it is one of the newest.

use colophon_domain::{Digest, Result, RuleConfig, TagRules, retention_tag};
use sqlx::PgPool;
use time::OffsetDateTime;

use crate::{
    model::{Model, Row},
    registry::{Key, Registry},
    rules::{Holder, Open},
    sights::Sights,
    walk::is_unique,
    world::{Next, World},
};

/// How many digests of each floating tag are kept.
pub(crate) const KEEP: usize = 2;

/// A floating tag, or an attempt to move it, that left a digest.
type Note = (String, String, String, OffsetDateTime);

/// The digests that are noted as left.
#[derive(Default)]
pub(crate) struct Keeping {
    /// There is a rule.
    pub(crate) ruled: bool,
    notes: Vec<Note>,
}

impl Keeping {
    pub(crate) async fn look(&mut self, pool: &PgPool) {
        if !self.ruled {
            return;
        }
        self.notes = sqlx::query_as(
            "SELECT registry || '/' || repository, tag, digest, left_at FROM kept_digest",
        )
        .fetch_all(pool)
        .await
        .unwrap();
    }

    /// Whether a digest may be let go: one floating tag noted it, and has left newer ones.
    fn too_many(&self, place: &str, digest: &str) -> bool {
        let here = || self.notes.iter().filter(|note| note.0 == place);
        let mut owners = here().filter(|note| note.2 == digest);
        let (Some(owner), None) = (owners.next(), owners.next()) else { return false };
        let newer = |note: &&Note| note.1 == owner.1 && note.2 != digest && note.3 >= owner.3;
        here().filter(newer).count() >= KEEP
    }
}

/// Whether the tag keeps a digest.
pub(crate) fn is_kept(key: &Key) -> bool {
    key.1.starts_with("colophon-kept-")
}

/// The digest that a tag keeps by its name.
pub(crate) fn named(key: &Key) -> String {
    key.1.trim_start_matches("colophon-kept-").replacen('-', ":", 1)
}

/// The tag that keeps a digest.
fn keeps(place: &str, digest: &str) -> Key {
    (place.to_owned(), retention_tag(&digest.parse::<Digest>().unwrap()).to_string())
}

/// Rules by which what floating tags leave is kept.
pub(crate) fn keeping_rules() -> TagRules {
    let text = format!("pattern = \"*\"\n[retention]\nkeep = {KEEP}");
    let rule: RuleConfig = toml::from_str(&text).unwrap();
    TagRules::new(vec![rule]).unwrap()
}

impl Model {
    /// An intent of a tag that keeps a digest: it is written once, or deleted.
    pub(crate) fn begin_keeping(&mut self, row: &Row, now: i64, sights: Option<&Sights>) {
        let key = &row.key;
        assert!(is_kept(key), "{key:?}: keeps nothing");
        let sights = sights.unwrap_or_else(|| panic!("{key:?}: nobody looked at it"));
        if row.new.is_some() {
            self.may_keep(row, now, sights);
        } else {
            self.may_let_go(key, now, sights);
        }
        let said = ("retention", row.new.clone());
        self.tag(key).open_up((row.id, now), row.release, said, Holder::default());
    }

    /// A tag that keeps a digest is written where there is none, for a floating tag of the same
    /// release that is there.
    fn may_keep(&self, row: &Row, now: i64, sights: &Sights) {
        let (key, digest) = (&row.key, Some(named(&row.key)));
        assert_eq!(row.new, digest, "{key:?}: keeps something else");
        assert_eq!(sights.of(key), Some(&None), "{key:?}: written over");
        let release = &self.releases[&row.release.unwrap()];
        let frozen = self.frozen(&key.0, now);
        assert!(!frozen || release.break_glass, "{key:?}: kept under a freeze");
        let leaves = |other: &Key| {
            other.0 == key.0 && !is_unique(other) && sights.of(other) == Some(&digest)
        };
        assert!(release.wishes.keys().any(leaves), "{key:?}: nobody leaves it");
    }

    /// A digest is let go if no tag is there any more and the tag that left it has left newer ones.
    fn may_let_go(&self, key: &Key, now: i64, sights: &Sights) {
        let digest = Some(named(key));
        assert!(!self.frozen(&key.0, now), "{key:?}: let go under a freeze");
        assert_eq!(sights.of(key), Some(&digest), "{key:?}: let go, and not there");
        let mut others = self.tags.iter().filter(|(other, _)| other.0 == key.0 && *other != key);
        let there = others.find(|(_, tag)| tag.digest == digest);
        assert!(there.is_none(), "{key:?}: let go while {there:?} is there");
        assert!(self.keeping.too_many(&key.0, &named(key)), "{key:?}: let go too early");
    }

    /// Whether the tag that would keep what a tag leaves has been taken for something else.
    pub(crate) fn cannot_leave(&self, key: &Key, registry: &Registry) -> bool {
        let Some(digest) = registry.digest(key).filter(|_| self.keeping.ruled) else {
            return false;
        };
        registry.digest(&keeps(&key.0, &digest)).is_some_and(|taken| taken != digest)
    }

    /// What a floating tag leaves by a move that is no put-back has its tag by then.
    pub(crate) fn must_be_kept(&self, key: &Key, open: &Open, registry: &Registry) {
        let moves = matches!(open.purpose.as_str(), "publish" | "rollback");
        let Some(old) = open.old.as_ref().filter(|_| self.keeping.ruled && moves) else { return };
        let keeps = keeps(&key.0, old);
        let kept = self.tags.get(&keeps).filter(|tag| tag.digest.as_ref() == Some(old));
        let kept = kept.unwrap_or_else(|| panic!("{key:?}: leaves {old}, which is not kept"));
        // Unless somebody else has taken that tag away.
        let there = registry.digest(&keeps).as_ref() == Some(old);
        assert!(there || kept.touched, "{key:?}: leaves {old}, whose tag is gone");
    }
}

impl World {
    /// Whether somebody may begin to look through the kept digests: of two at once the second
    /// meets what the first does.
    pub(crate) fn may_prune(&self) -> bool {
        let pruners = self.running.iter().filter(|running| running.name.starts_with('p'));
        self.model.keeping.ruled && pruners.count() < 2
    }

    /// Somebody looks through the kept digests.
    pub(crate) async fn start_pruner(&mut self) -> Next {
        let name = self.next_name("p");
        let engine = self.engine.clone();
        let task = tokio::spawn(async move {
            let gone: Result<usize> = engine.prune_now().await;
            gone.map(|gone| gone > 0)
        });
        self.follow(name, task, None, Sights::default()).await
    }
}
