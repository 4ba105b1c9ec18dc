//! Letting go of what floating tags left: too many, too old, in use, and where the registry does not
//! do as it is asked.

use std::time::Duration;

use colophon_domain::{
    Digest, FreezeRequest, ReleaseState, RepositoryPattern, RuleConfig, TagRules, retention_tag,
};
use colophon_engine::Worker;
use http::Method;

use crate::{
    registry::served,
    requests::publish,
    world::{APP, World},
};

const HOUR: Duration = Duration::from_hours(1);
const SECOND: Duration = Duration::from_secs(1);

async fn world(retention: &str) -> World {
    let text = format!("pattern = \"{APP}\"\n[retention]\n{retention}");
    let rule: RuleConfig = toml::from_str(&text).unwrap();
    let world = World::ruled(0, TagRules::new(vec![rule]).unwrap()).await;
    world.registry.open(true);
    world.registry.within(APP, |content| content.deletes = true);
    world
}

impl World {
    /// Publishes an image, works until that is done, and lets a second pass.
    async fn published(&self, image: usize, tags: &[&str]) {
        let request = publish(&self.images[image], APP, tags);
        let release = self.engine.create_release("ci", &request).await.unwrap();
        let worker = Worker::new(self.engine.clone(), "w".to_owned());
        while worker.work_one().await.unwrap() {}
        let state = self.base.store.accepted(release.id).await.unwrap().state;
        assert_eq!(state, ReleaseState::Succeeded, "image {image}");
        self.base.pass(SECOND).await;
    }

    /// The images that have a tag which keeps them.
    fn kept(&self) -> Vec<usize> {
        let kept = |image: &usize| {
            let tag = retention_tag(&self.images[*image].parse::<Digest>().unwrap());
            self.registry.digest(&(APP.to_owned(), tag.to_string())).is_some()
        };
        (0..self.images.len()).filter(kept).collect()
    }

    async fn prune(&self) -> usize {
        self.engine.prune_now().await.unwrap()
    }

    /// The entries of one tag that keeps an image, oldest first.
    async fn story(&self, image: usize) -> Vec<String> {
        let tag = retention_tag(&self.images[image].parse::<Digest>().unwrap());
        sqlx::query_scalar(
            "SELECT kind || COALESCE(' ' || reason_code, '') FROM audit_entry
             WHERE tag = $1 AND purpose = 'retention' ORDER BY tag_seq",
        )
        .bind(tag.as_str())
        .fetch_all(&self.base.pool)
        .await
        .unwrap()
    }

    async fn remembered(&self) -> i64 {
        self.base.count("SELECT count(*) FROM kept_digest").await
    }
}

#[tokio::test]
async fn of_too_many_the_oldest_are_let_go() {
    let world = world("keep = 2").await;
    for image in 1..=5 {
        world.published(image, &["production"]).await;
    }
    assert_eq!(world.kept(), [1, 2, 3, 4]);
    assert_eq!(world.prune().await, 2);
    assert_eq!(world.kept(), [3, 4]);
    assert_eq!(world.story(1).await, ["intent", "confirmed", "intent", "confirmed"]);
    assert_eq!((world.prune().await, world.remembered().await), (0, 2));
    // What comes and is left again is kept anew.
    world.published(1, &["production"]).await;
    world.published(2, &["production"]).await;
    assert_eq!(world.kept(), [1, 3, 4, 5]);
}

#[tokio::test]
async fn what_is_too_old_is_let_go() {
    let world = world("keep = 100\nmax_age = \"2h\"").await;
    for image in 1..=3 {
        world.published(image, &["production"]).await;
    }
    // The first was left two seconds ago, when the second came.
    world.base.pass((HOUR * 2).saturating_sub(SECOND * 2)).await;
    assert_eq!(world.prune().await, 0);
    world.base.pass(SECOND).await;
    assert_eq!(world.prune().await, 1);
    assert_eq!(world.kept(), [2]);
}

#[tokio::test]
async fn what_a_tag_points_to_stays_until_it_does_not() {
    let world = world("keep = 1").await;
    for image in 1..=3 {
        world.published(image, &["production"]).await;
    }
    world.published(1, &["!stable-1"]).await;
    assert_eq!(world.prune().await, 0);
    assert_eq!(world.kept(), [1, 2]);
    // Looked at again an hour later, when the tag is gone.
    world.registry.within(APP, |content| content.tags.remove("stable-1"));
    let forget = "UPDATE tag_head SET digest = NULL WHERE tag = 'stable-1'";
    sqlx::query(forget).execute(&world.base.pool).await.unwrap();
    assert_eq!(world.prune().await, 0);
    world.base.pass(HOUR).await;
    assert_eq!(world.prune().await, 1);
    assert_eq!(world.kept(), [2]);
}

#[tokio::test]
async fn a_digest_that_two_tags_left_is_kept_for_both() {
    let world = world("keep = 1").await;
    world.published(1, &["production", "latest"]).await;
    world.published(2, &["production", "latest"]).await;
    world.published(3, &["production"]).await;
    // For production it is one too many, and latest still keeps it.
    assert_eq!((world.prune().await, world.kept()), (0, vec![1, 2]));
    world.published(3, &["latest"]).await;
    assert_eq!((world.prune().await, world.kept()), (1, vec![2]));
}

#[tokio::test]
async fn a_registry_that_deletes_no_tags_is_asked_once_a_day() {
    let world = world("keep = 1").await;
    world.registry.within(APP, |content| content.deletes = false);
    for image in 1..=3 {
        world.published(image, &["production"]).await;
    }
    let refused = ["intent", "confirmed", "intent", "not_applied REGISTRY_DENIED"];
    assert_eq!((world.prune().await, world.kept()), (0, vec![1, 2]));
    assert_eq!(world.story(1).await, refused);
    world.base.pass(HOUR * 2).await;
    assert_eq!(world.prune().await, 0);
    assert_eq!(world.story(1).await, refused, "asked again too early");
    world.registry.within(APP, |content| content.deletes = true);
    world.base.pass(HOUR * 23).await;
    assert_eq!((world.prune().await, world.kept()), (1, vec![2]));
}

#[tokio::test]
async fn nothing_is_let_go_under_a_freeze() {
    let world = world("keep = 1").await;
    for image in 1..=3 {
        world.published(image, &["production"]).await;
    }
    let pattern: RepositoryPattern = "*".parse().unwrap();
    let ends_at = colophon_domain::Clock::now(&*world.base.clock) + HOUR / 2;
    let request = FreezeRequest { pattern, reason: "night".into(), ends_at };
    world.engine.freeze("ops", &request).await.unwrap();
    assert_eq!((world.prune().await, world.kept()), (0, vec![1, 2]));
    world.base.pass(HOUR).await;
    assert_eq!((world.prune().await, world.kept()), (1, vec![2]));
}

#[tokio::test]
async fn without_a_rule_nothing_is_let_go() {
    let mut world = world("keep = 1").await;
    for image in 1..=3 {
        world.published(image, &["production"]).await;
    }
    world.use_rules(TagRules::default());
    assert_eq!((world.prune().await, world.kept()), (0, vec![1, 2]));
}

/// The tag is deleted and nobody hears it, or the request never arrives: nobody guesses, the
/// reconciler looks.
async fn unheard(arrives: bool) -> World {
    let mut world = world("keep = 1").await;
    for image in 1..=3 {
        world.published(image, &["production"]).await;
    }
    world.registry.open(false);
    let engine = world.engine.clone();
    let pruning = tokio::spawn(async move { engine.prune_now().await });
    loop {
        let parked = world.registry.arrival().await;
        if parked.asked.method == Method::DELETE {
            if arrives {
                drop(world.registry.act(&parked.asked));
            }
            break;
        }
        let answer = world.registry.act(&parked.asked);
        drop(parked.reply.send(answer));
    }
    // The answer never comes, and what it was asked for is not asked again.
    world.registry.open(true);
    assert_eq!(pruning.await.unwrap().unwrap(), 0);
    assert_eq!(world.story(1).await, ["intent", "confirmed", "intent"]);
    assert!(!world.engine.reconcile_once().await.unwrap(), "looked at too early");
    world.base.pass(HOUR).await;
    assert!(world.engine.reconcile_once().await.unwrap());
    world
}

/// While the digests before it are let go, the tag comes to one that was too old, and leaves it
/// again: it is the newest now, and the first to which somebody would go back.
#[tokio::test]
async fn what_was_left_again_meanwhile_is_not_let_go() {
    let mut world = world("keep = 2").await;
    for image in 1..=5 {
        world.published(image, &["production"]).await;
    }
    // Too many are images 2 and 1. The first look, at 2, takes its time.
    world.registry.open(false);
    let engine = world.engine.clone();
    let pruning = tokio::spawn(async move { engine.prune_now().await });
    let parked = world.registry.arrival().await;
    world.registry.open(true);
    world.published(1, &["production"]).await;
    world.published(6, &["production"]).await;
    let answer = world.registry.act(&parked.asked);
    drop(parked.reply.send(answer));
    pruning.await.unwrap().unwrap();
    assert!(
        world.kept().contains(&1),
        "image 1 was left last, and is not kept: {:?}",
        world.kept()
    );
}

/// The registry shows the tag for a moment after it has accepted that it is deleted, as it may
/// after a PUT.
#[tokio::test]
async fn a_deletion_that_does_not_show_at_once_is_a_deletion() {
    let mut world = world("keep = 1").await;
    for image in 1..=3 {
        world.published(image, &["production"]).await;
    }
    world.registry.open(false);
    let engine = world.engine.clone();
    let pruning = tokio::spawn(async move { engine.prune_now().await });
    let mut deleted = false;
    loop {
        let parked = world.registry.arrival().await;
        if deleted {
            let old = world.registry.within(APP, |it| it.manifests[&world.images[1]].clone());
            world.registry.open(true);
            drop(parked.reply.send(served(&old)));
            break;
        }
        deleted = parked.asked.method == Method::DELETE;
        let answer = world.registry.act(&parked.asked);
        drop(parked.reply.send(answer));
    }
    pruning.await.unwrap().unwrap();
    world.base.pass(HOUR).await;
    world.prune().await;
    let kept_and_let_go = ["intent", "confirmed", "intent", "confirmed"];
    assert_eq!(world.story(1).await, kept_and_let_go);
}

#[tokio::test]
async fn a_deletion_whose_answer_was_lost_is_found_out() {
    let world = unheard(true).await;
    assert_eq!(world.story(1).await.last().unwrap(), "recovered");
    assert_eq!((world.prune().await, world.remembered().await), (0, 1));
    assert_eq!(world.kept(), [2]);
}

#[tokio::test]
async fn a_deletion_that_never_arrived_is_made_again() {
    let world = unheard(false).await;
    assert_eq!(world.story(1).await.last().unwrap(), "not_applied");
    assert_eq!((world.prune().await, world.remembered().await), (1, 1));
    assert_eq!(world.kept(), [2]);
}
