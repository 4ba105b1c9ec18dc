//! What happened to others and must not happen here, in the order in which it happened.

use std::time::Duration;

use colophon_domain::{
    Clock as _, IfOlder, OrderKey, Position, Reason, ReleaseRequest, ReleaseState, Repository,
    RollbackSubject, TagMoveState,
};
use uuid::Uuid;

use crate::{
    requests::{publish, version},
    world::{APP, How, Next, World},
};

impl World {
    pub(crate) async fn accepted(&mut self, request: &ReleaseRequest) -> Uuid {
        self.publish(request).await.unwrap().id
    }

    /// Where a tag of the app is: the number of an image.
    pub(crate) fn image(&self, tag: &str) -> Option<usize> {
        let digest = self.registry.digest(&(APP.to_owned(), tag.to_owned()))?;
        self.images.iter().position(|image| *image == digest)
    }

    /// Workers take jobs until one has a request about a tag, and waits; returns its place.
    pub(crate) async fn begin(&mut self) -> usize {
        loop {
            match self.start_worker().await {
                Next::Asks => return self.running.len() - 1,
                Next::Ended => {}
                Next::Idle => panic!("no job"),
            }
        }
    }

    /// Answers the only worker until its next request is a PUT.
    pub(crate) async fn until_put(&mut self) {
        while !self.running[0].parked.asked.puts() {
            assert_eq!(self.answer(0, How::Done).await, Next::Asks, "no PUT");
        }
    }

    pub(crate) async fn state(&self, id: Uuid) -> (ReleaseState, Option<Reason>) {
        let view = self.view(id).await;
        (view.state, view.state_reason)
    }

    async fn tag_states(&self, id: Uuid) -> Vec<(String, TagMoveState)> {
        let view = self.view(id).await;
        let tags = view.publications.iter().flat_map(|target| &target.tags);
        tags.map(|tag| (tag.tag.to_string(), tag.state)).collect()
    }

    pub(crate) async fn all_well(&mut self) {
        self.settle_all().await;
        self.check_ends().await;
    }

    pub(crate) fn image_request(&self, image: usize, tags: &[&str]) -> ReleaseRequest {
        publish(&self.images[image], APP, tags)
    }

    fn version_request(&self, image: usize, text: &str) -> ReleaseRequest {
        version(&self.images[image], APP, text)
    }
}

/// Two deploys ran at the same time. The older one was slow, finished last and moved production
/// back, and both were green.
#[tokio::test]
async fn a_slow_deploy_does_not_move_production_back() {
    let mut world = World::new(0).await;
    let older = world.accepted(&world.image_request(1, &["!slow", "production"])).await;
    world.begin().await;
    let newer = world.accepted(&world.image_request(2, &["production"])).await;
    world.work_all().await;
    assert_eq!(world.image("production"), Some(2));
    world.finish(0).await;
    world.all_well().await;
    assert_eq!(world.image("production"), Some(2));
    assert_eq!(world.state(newer).await, (ReleaseState::Succeeded, None));
    assert_eq!(world.state(older).await, (ReleaseState::Failed, Some(Reason::Superseded)));
}

/// The same with the older one's PUT in the network: the newer one waits for its outcome.
#[tokio::test]
async fn a_newer_deploy_waits_for_the_put_of_an_older_one() {
    let mut world = World::new(0).await;
    let first = world.accepted(&world.image_request(0, &["production"])).await;
    world.all_well().await;
    let older = world.accepted(&world.image_request(1, &["production"])).await;
    world.begin().await;
    world.until_put().await;
    let newer = world.accepted(&world.image_request(2, &["production"])).await;
    world.work_all().await;
    assert_eq!(world.image("production"), Some(0), "the newer one overtook a PUT");
    // Its worker dies, and the PUT arrives much later.
    world.crash(0, How::Late).await;
    world.pass(Duration::from_mins(5)).await;
    world.deliver();
    assert_eq!(world.image("production"), Some(1));
    world.all_well().await;
    assert_eq!(world.image("production"), Some(2));
    for id in [first, older, newer] {
        assert_eq!(world.state(id).await, (ReleaseState::Succeeded, None));
    }
}

/// Three merges within 34 s; the oldest build finished last and won `latest`.
#[tokio::test]
async fn of_three_merges_the_newest_has_latest_whoever_finishes_last() {
    let mut world = World::new(0).await;
    let mut ids = Vec::new();
    for (image, seconds) in [(1, 17), (2, 17), (3, 0)] {
        let unique = format!("!merge-{image}");
        ids.push(world.accepted(&world.image_request(image, &[&unique, "latest"])).await);
        world.begin().await;
        world.pass(Duration::from_secs(seconds)).await;
    }
    // Each has begun; they finish from the newest to the oldest.
    for _ in 0..3 {
        let last = world.running.len() - 1;
        world.finish(last).await;
        world.work_all().await;
    }
    world.all_well().await;
    assert_eq!(world.image("latest"), Some(3));
    let superseded = (ReleaseState::Failed, Some(Reason::Superseded));
    let succeeded = (ReleaseState::Succeeded, None);
    for (id, state) in ids.into_iter().zip([superseded, superseded, succeeded]) {
        assert_eq!(world.state(id).await, state);
    }
}

/// The same where even the builds' requests come from the newest to the oldest: the number of the
/// build says which is newer.
#[tokio::test]
async fn of_three_builds_the_greatest_number_has_latest_whoever_asks_last() {
    let mut world = World::new(0).await;
    for (image, number) in [(3, 103), (1, 101), (2, 102)] {
        let mut request = world.image_request(image, &["latest"]);
        request.targets[0].tags[0].order = Some(OrderKey::number(number).unwrap());
        request.targets[0].tags[0].if_older = IfOlder::Supersede;
        let id = world.accepted(&request).await;
        world.all_well().await;
        let state = world.state(id).await;
        let expected = if image == 3 {
            (ReleaseState::Succeeded, None)
        } else {
            (ReleaseState::Failed, Some(Reason::Superseded))
        };
        assert_eq!(state, expected, "{number}");
    }
    assert_eq!(world.image("latest"), Some(3));
}

/// A backport is published after a newer version: it moves its own line and nothing else.
async fn backport(world: &mut World) {
    let id = world.accepted(&world.version_request(9, "v1.3.9")).await;
    world.all_well().await;
    assert_eq!(world.state(id).await, (ReleaseState::Succeeded, None));
    let states = world.tag_states(id).await;
    let states: Vec<_> = states.iter().map(|(tag, state)| (tag.as_str(), *state)).collect();
    let (moved, kept) = (TagMoveState::Moved, TagMoveState::Kept);
    assert_eq!(states, [("v1.3.9", moved), ("v1.3", moved), ("v1", kept), ("latest", kept)]);
    assert_eq!((world.image("v1.3.9"), world.image("v1.3")), (Some(9), Some(9)));
}

#[tokio::test]
async fn a_backport_moves_neither_the_major_version_nor_latest() {
    let mut world = World::new(0).await;
    let newer = world.accepted(&world.version_request(4, "v1.4.2")).await;
    world.all_well().await;
    assert_eq!(world.state(newer).await, (ReleaseState::Succeeded, None));
    backport(&mut world).await;
    assert_eq!((world.image("v1"), world.image("latest")), (Some(4), Some(4)));
}

/// Somebody else published v1.4.2: only the registry knows it.
#[tokio::test]
async fn a_backport_behind_a_version_that_only_the_registry_knows() {
    let mut world = World::new(0).await;
    for tag in ["v1.4.2", "v1.4", "v1", "latest"] {
        let key = (APP.to_owned(), tag.to_owned());
        world.registry.within(APP, |content| {
            let digest = content.add_image(4);
            content.tags.insert(key.1.clone(), digest);
        });
        world.model.tag(&key).touched = true;
    }
    backport(&mut world).await;
    assert_eq!((world.image("v1"), world.image("latest")), (Some(4), Some(4)));
}

/// The registry's list does not show v1.4.2 yet, but the ledger has it.
#[tokio::test]
async fn a_backport_behind_a_version_that_only_the_ledger_knows() {
    let mut world = World::new(0).await;
    // Moves no floating tag, so that nothing but the version's own tag says that it was there.
    let only = publish(&world.images[4], APP, &["!v1.4.2"]);
    world.accepted(&only).await;
    world.all_well().await;
    world.registry.within(APP, |content| content.unlisted.insert("v1.4.2".to_owned()));
    backport(&mut world).await;
    assert_eq!((world.image("v1"), world.image("latest")), (None, None));
}

/// Somebody on call rolls back while an older deploy is still on its way.
#[tokio::test]
async fn what_was_accepted_before_a_rollback_does_not_come_after_it() {
    let mut world = World::new(0).await;
    for image in [1, 2] {
        world.accepted(&world.image_request(image, &["production"])).await;
        world.all_well().await;
    }
    let slow = world.accepted(&world.image_request(3, &["!slow", "production"])).await;
    world.begin().await;
    let subject = RollbackSubject::Tag {
        repository: Repository::parse(APP).unwrap(),
        tag: "production".parse().unwrap(),
        position: Position::Steps(1),
        expected: None,
    };
    let back = world.roll_back(subject, false).await.unwrap().id;
    world.finish(0).await;
    world.all_well().await;
    assert_eq!(world.image("production"), Some(1));
    assert_eq!(world.state(back).await, (ReleaseState::Succeeded, None));
    assert_eq!(world.state(slow).await, (ReleaseState::Failed, Some(Reason::Superseded)));
}

/// Two releases hold a tag each that the other one wants, each with the greater number for what it
/// holds. Each waits for the other while that may yet be put back; both must end.
#[tokio::test]
async fn two_releases_that_wait_for_each_other_both_end() {
    let mut world = World::new(0).await;
    let numbered = |world: &World, image: usize, tags: [(&str, u64); 2]| {
        let mut request = world.image_request(image, &tags.map(|(tag, _)| tag));
        for (tag, (_, number)) in request.targets[0].tags.iter_mut().zip(tags) {
            tag.order = Some(OrderKey::number(number).unwrap());
        }
        request
    };
    // Their first tags are different ones, and one worker of each is in the middle.
    let one = numbered(&world, 1, [("a", 2), ("b", 1)]);
    let two = numbered(&world, 2, [("b", 2), ("a", 1)]);
    let ids = [world.accepted(&one).await, world.accepted(&two).await];
    for _copy in ids {
        let at = world.begin().await;
        world.finish(at).await;
    }
    for tag in ["a", "b"] {
        world.begin().await;
        while world.image(tag).is_none() {
            let at = world.running.len() - 1;
            assert_eq!(world.answer(at, How::Done).await, Next::Asks, "{tag} was never moved");
        }
    }
    while !world.running.is_empty() {
        world.finish(0).await;
    }
    world.all_well().await;
    for id in ids {
        let (state, reason) = world.state(id).await;
        assert_eq!((state, reason), (ReleaseState::Failed, Some(Reason::OrderRegression)));
    }
}

/// A job that waited for the outcome of a move was claimed and put back without a pause, above all
/// where its release was too late meanwhile. Found by this simulation.
#[tokio::test]
async fn a_late_release_waits_for_an_outcome_without_turning_in_circles() {
    let mut world = World::new(0).await;
    let mut request = world.image_request(1, &["production"]);
    let clock = world.base.clock.clone();
    request.not_after = Some(clock.now() + Duration::from_secs(20));
    let late = world.accepted(&request).await;
    world.begin().await;
    world.until_put().await;
    assert_eq!(world.answer(0, How::Lost).await, Next::Ended);
    world.pass(Duration::from_secs(30)).await;
    assert_eq!(world.start_worker().await, Next::Ended);
    assert_eq!(world.start_worker().await, Next::Idle, "claimed again at once");
    world.all_well().await;
    assert_eq!(world.image("production"), None);
    assert_eq!(world.state(late).await, (ReleaseState::Failed, Some(Reason::Expired)));
}
