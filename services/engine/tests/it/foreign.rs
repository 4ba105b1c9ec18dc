//! What others do: they move and delete tags, collect garbage, and time passes.

use std::time::Duration;

use rand::{Rng as _, seq::IndexedRandom as _};

use crate::{registry::Key, world::World};

/// Numbers of images that nobody publishes.
const FOREIGN: u32 = 1_000;

impl World {
    /// Somebody moves a tag to something of their own.
    pub(crate) fn foreign_move(&mut self, key: &Key) {
        let number = FOREIGN + self.rng.random_range(0..1_000_000);
        self.registry.within(&key.0, |content| {
            let digest = content.add_image(number);
            content.tags.insert(key.1.clone(), digest);
        });
        self.model.tag(key).touched = true;
        self.say("foreign", format_args!("{}:{}", key.0, key.1));
    }

    /// Somebody moves a tag to one of our images, or deletes it. Not while a move of ours is under
    /// way: who sees the tag where it was before cannot tell whose work that is.
    pub(crate) fn meddle(&mut self, key: &Key) {
        if self.model.tag(key).open.is_some() {
            return self.foreign_move(key);
        }
        let known = self
            .registry
            .within(&key.0, |content| content.manifests.keys().cloned().collect::<Vec<_>>());
        let to = known.choose(&mut self.rng).cloned().filter(|_| self.rng.random_ratio(1, 2));
        self.registry.within(&key.0, |content| match &to {
            Some(digest) => drop(content.tags.insert(key.1.clone(), digest.clone())),
            None => drop(content.tags.remove(&key.1)),
        });
        self.model.tag(key).touched = true;
        let word = if to.is_some() { "foreign" } else { "deleted" };
        self.say(word, format_args!("{}:{}", key.0, key.1));
    }

    /// The list of a repository does not show a version's tag for a while, or shows it again.
    pub(crate) fn hide_version(&mut self) {
        let versions = self.model.tags.keys().filter(|key| key.1.matches('.').count() > 1);
        let versions: Vec<Key> = versions.cloned().collect();
        let Some(key) = versions.choose(&mut self.rng) else { return };
        let hidden = self.registry.within(&key.0, |content| {
            content.unlisted.remove(&key.1) || !content.unlisted.insert(key.1.clone())
        });
        self.say(if hidden { "shown" } else { "hidden" }, format_args!("{}:{}", key.0, key.1));
    }

    pub(crate) fn collect_garbage(&mut self, place: &str) {
        let gone = self.registry.within(place, crate::registry::Content::collect_garbage);
        self.model.ended.collected += gone;
        self.say("garbage", format_args!("{place} {gone}"));
    }

    pub(crate) async fn pass(&mut self, time: Duration) {
        self.base.pass(time).await;
        self.say("time", format_args!("{time:?}"));
    }

    /// Mostly seconds, sometimes beyond the time of a PUT, rarely beyond a lease.
    pub(crate) async fn random_pass(&mut self) {
        let millis = match self.rng.random_range(0..100) {
            0..75 => self.rng.random_range(1..10_000),
            75..96 => self.rng.random_range(10_000..900_000),
            _ => self.rng.random_range(3_600_000..4_000_000),
        };
        self.pass(Duration::from_millis(millis)).await;
    }
}
