//! Releases that are put to work again: whatever others have done meanwhile, they keep their place.

use std::time::Duration;

use colophon_domain::{OrderKey, PublicationState, Reason, ReleaseState, Result, TagMoveState};
use rand::Rng as _;
use uuid::Uuid;

use crate::{
    registry::Key,
    world::{COPY, How, Next, World},
};

impl World {
    /// Puts a release to work again. What it is to do again counts as not made: where it found the
    /// tag goes to whoever took the tag over from it.
    pub(crate) async fn retry(&mut self, id: Uuid) -> Result<()> {
        let retried = self.engine.retry_release(id, "ops", "again").await;
        let at = self.releases.iter().position(|known| *known == id).unwrap();
        self.say("retry", format_args!("r{at} {}", retried.is_ok()));
        if retried.is_ok() {
            let open: Vec<Key> = sqlx::query_as(
                "SELECT p.registry || '/' || p.repository, m.tag FROM tag_move m
                 JOIN publication p ON p.id = m.publication_id
                 WHERE m.release_id = $1 AND m.state = 'PENDING'",
            )
            .bind(id)
            .fetch_all(&self.base.pool)
            .await
            .unwrap();
            for key in open {
                self.model.unmake(id, &key);
            }
            *self.counts.entry("retried".into()).or_default() += 1;
        }
        self.sync().await;
        retried
    }

    /// One of the last releases is put to work again, if it may be.
    pub(crate) async fn random_retry(&mut self) {
        if self.releases.is_empty() {
            return;
        }
        let from = self.releases.len().saturating_sub(12);
        let id = self.releases[self.rng.random_range(from..self.releases.len())];
        if let Err(failure) = self.retry(id).await {
            // Or another release is moving a tag that this one would leave to it.
            let known = [Reason::NotRetryable, Reason::ReferenceBlocked];
            assert!(known.contains(&failure.reason()), "{failure}");
        }
    }
}

impl crate::model::Model {
    fn unmake(&mut self, id: Uuid, key: &Key) {
        let Some(made) = self.releases.get_mut(&id).unwrap().made.remove(key) else { return };
        for other in self.releases.values_mut() {
            if let Some(next) = other.made.get_mut(key)
                && next.before.mover == Some(id)
            {
                *next = crate::rules::Made { found: next.found, ..made.clone() };
            }
        }
    }
}

/// A release to two registries of which the second refuses: what the first has is put back.
async fn put_back(world: &mut World, image: usize) -> Uuid {
    let mut request = world.image_request(image, &["latest"]);
    let second = crate::requests::publish(&world.images[image], COPY, &["latest"]);
    request.targets.extend(second.targets);
    let id = world.accepted(&request).await;
    refuse_second(world).await;
    assert_eq!(world.state(id).await.0, ReleaseState::Failed);
    id
}

/// Works on everything, and lets the second registry deny every PUT of its tag.
async fn refuse_second(world: &mut World) {
    loop {
        match world.start_worker().await {
            Next::Idle if world.running.is_empty() => return,
            _ => {}
        }
        while !world.running.is_empty() {
            let asked = &world.running[0].parked.asked;
            let second = asked.puts() && asked.key().is_some_and(|key| key.0 == COPY);
            let how = if second { How::Denied } else { How::Done };
            world.answer(0, how).await;
        }
    }
}

fn tag_of(view: &colophon_domain::ReleaseView, target: usize) -> TagMoveState {
    view.publications[target].tags[0].state
}

#[tokio::test]
async fn what_was_put_back_is_moved_again() {
    let mut world = World::new(0).await;
    world.accepted(&world.image_request(1, &["latest"])).await;
    world.all_well().await;
    let id = put_back(&mut world, 2).await;
    assert_eq!(world.image("latest"), Some(1));
    assert_eq!(tag_of(&world.view(id).await, 0), TagMoveState::Restored);
    world.base.pass(Duration::from_hours(1)).await;
    world.retry(id).await.unwrap();
    let oldest = world.base.store.standing().await.unwrap().oldest;
    assert_eq!(oldest, Duration::ZERO, "the queue looks as if it had stood still for so long");
    // Once more is no error: it is at work.
    world.retry(id).await.unwrap();
    world.all_well().await;
    assert_eq!(world.state(id).await, (ReleaseState::Succeeded, None));
    assert_eq!(world.image("latest"), Some(2));
    let view = world.view(id).await;
    assert_eq!(view.retries.len(), 1);
    assert_eq!((&*view.retries[0].actor, &*view.retries[0].reason), ("ops", "again"));
    assert_eq!(view.retries[0].ended_reason, Some(Reason::RegistryUnauthorized));
    assert_eq!(world.retry(id).await.unwrap_err().reason(), Reason::NotRetryable);
}

#[tokio::test]
async fn it_may_fail_again_and_is_put_back_again() {
    let mut world = World::new(0).await;
    world.accepted(&world.image_request(1, &["latest"])).await;
    world.all_well().await;
    let id = put_back(&mut world, 2).await;
    for _ in 0..2 {
        world.retry(id).await.unwrap();
        refuse_second(&mut world).await;
        assert_eq!(world.state(id).await.0, ReleaseState::Failed);
        assert_eq!(world.image("latest"), Some(1));
    }
    world.all_well().await;
    // It holds nothing that would keep the next one away.
    let next = world.accepted(&world.image_request(3, &["latest"])).await;
    world.all_well().await;
    assert_eq!(world.state(next).await, (ReleaseState::Succeeded, None));
}

#[tokio::test]
async fn a_newer_release_keeps_what_it_has() {
    let mut world = World::new(0).await;
    world.accepted(&world.image_request(1, &["latest"])).await;
    world.all_well().await;
    let id = put_back(&mut world, 2).await;
    let newer = world.accepted(&world.image_request(3, &["latest"])).await;
    world.all_well().await;
    assert_eq!(world.state(newer).await, (ReleaseState::Succeeded, None));
    world.retry(id).await.unwrap();
    world.all_well().await;
    assert_eq!(world.image("latest"), Some(3), "a retry slid the tag back");
    assert_eq!(world.state(id).await, (ReleaseState::Failed, Some(Reason::Superseded)));
    let view = world.view(id).await;
    // In the other registry nobody is newer.
    assert_eq!(tag_of(&view, 0), TagMoveState::Superseded);
    assert_eq!(tag_of(&view, 1), TagMoveState::Moved);
}

#[tokio::test]
async fn a_newer_release_that_is_at_work_is_waited_for() {
    let mut world = World::new(0).await;
    world.accepted(&world.image_request(1, &["latest"])).await;
    world.all_well().await;
    let id = put_back(&mut world, 2).await;
    let newer = world.accepted(&world.image_request(3, &["latest", "other"])).await;
    // It has moved the one tag and is about to move the other.
    world.begin().await;
    while world.image("latest") != Some(3) {
        assert_eq!(world.answer(0, How::Done).await, Next::Asks, "not moved");
    }
    world.retry(id).await.unwrap();
    world.all_well().await;
    assert_eq!(world.image("latest"), Some(3));
    assert_eq!(world.state(newer).await, (ReleaseState::Succeeded, None));
    assert_eq!(world.state(id).await, (ReleaseState::Failed, Some(Reason::Superseded)));
}

#[tokio::test]
async fn an_order_key_counts_as_it_did() {
    let mut world = World::new(0).await;
    let numbered = |world: &World, image: usize, number: u64| {
        let mut request = world.image_request(image, &["latest"]);
        request.targets[0].tags[0].order = Some(OrderKey::number(number).unwrap());
        request
    };
    let newer = world.accepted(&numbered(&world, 1, 9)).await;
    world.all_well().await;
    let older = world.accepted(&numbered(&world, 2, 5)).await;
    world.all_well().await;
    let refused = (ReleaseState::Failed, Some(Reason::OrderRegression));
    assert_eq!(world.state(older).await, refused);
    world.retry(older).await.unwrap();
    world.all_well().await;
    assert_eq!(world.state(older).await, refused);
    assert_eq!(world.image("latest"), Some(1));
    assert_eq!(world.retry(newer).await.unwrap_err().reason(), Reason::NotRetryable);
}

#[tokio::test]
async fn what_was_cancelled_is_not_put_to_work_again() {
    let mut world = World::new(0).await;
    for image in [1, 2] {
        world.accepted(&world.image_request(image, &["latest"])).await;
        world.all_well().await;
    }
    let cancelled = world.accepted(&world.image_request(3, &["latest"])).await;
    world.cancel(2).await;
    world.all_well().await;
    let failure = world.retry(cancelled).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::NotRetryable);
    assert!(failure.message().contains("was cancelled"), "{failure}");
}

/// What keeps a digest is looked at anew, and is not needed where the tag stays.
#[tokio::test]
async fn a_target_that_is_good_stays_good() {
    let mut world = World::ruled(0, crate::keeping::keeping_rules()).await;
    world.accepted(&world.image_request(1, &["latest"])).await;
    world.all_well().await;
    let id = put_back(&mut world, 2).await;
    world.accepted(&crate::requests::publish(&world.images[3], COPY, &["latest"])).await;
    world.all_well().await;
    for _ in 0..2 {
        world.retry(id).await.unwrap();
        world.all_well().await;
        assert_eq!(world.state(id).await, (ReleaseState::Failed, Some(Reason::Superseded)));
        assert_eq!(world.image("latest"), Some(2));
        assert_eq!(world.view(id).await.publications[0].state, PublicationState::Succeeded);
    }
}
