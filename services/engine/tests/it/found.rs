//! What this simulation found, in the order in which it happens.

use std::time::Duration;

use colophon_domain::{Expected, Reason, ReleaseState, retention_tag};

use crate::{
    keeping::{is_kept, keeping_rules},
    world::{APP, How, Next, World},
};

/// A release cannot keep what its tag leaves, because the answer to the PUT was lost. Before
/// anybody has found out what became of it, somebody else moves the tag, and the release ends.
/// The tag that was to keep the digest must end with it.
#[tokio::test]
async fn a_kept_tag_whose_release_has_ended_has_an_end_too() {
    let mut world = World::ruled(0, keeping_rules()).await;
    world.accepted(&world.image_request(1, &["production"])).await;
    world.all_well().await;
    let mut request = world.image_request(2, &["production"]);
    request.targets[0].tags[0].expected = Some(Expected::At(world.images[1].parse().unwrap()));
    let id = world.accepted(&request).await;
    // The look before the copy, and the copy.
    world.begin().await;
    world.finish(0).await;
    world.begin().await;
    world.until_put().await;
    assert!(world.running[0].parked.asked.key().is_some_and(|key| is_kept(&key)));
    assert_eq!(world.answer(0, How::Lost).await, Next::Ended);
    world.foreign_move(&(APP.to_owned(), "production".to_owned()));
    world.pass(Duration::from_mins(30)).await;
    world.begin().await;
    world.finish(0).await;
    let refused = (ReleaseState::Failed, Some(Reason::TagMoved));
    assert_eq!(world.state(id).await, refused);
    world.all_well().await;
    let left = "SELECT count(*) FROM tag_move WHERE ended_at IS NULL";
    assert_eq!(world.base.count(left).await, 0, "a tag of a release that has ended has no end");
}

/// The registry collects what was copied before its first tag is written. The source is there all
/// the time, so it can be copied again, as it is where only a blob was collected.
#[tokio::test]
async fn what_was_collected_before_it_had_a_tag_is_copied_again() {
    let mut world = World::new(0).await;
    let id = world.accepted(&world.image_request(1, &["production"])).await;
    assert_eq!(world.start_worker().await, Next::Ended, "the copy");
    world.collect_garbage(APP);
    world.all_well().await;
    assert_eq!(world.state(id).await, (ReleaseState::Succeeded, None));
    assert_eq!(world.image("production"), Some(1));
}

/// A release that is not allowed to move its tag has noted the digest there as left. It was not
/// left, and must not take the place of one that was.
#[tokio::test]
async fn what_was_not_left_takes_nobodys_place() {
    let mut world = World::ruled(0, keeping_rules()).await;
    world.registry.within(APP, |content| content.deletes = true);
    for image in [1, 2, 3] {
        world.accepted(&world.image_request(image, &["production"])).await;
        world.all_well().await;
        world.pass(Duration::from_secs(1)).await;
    }
    let denied = world.accepted(&world.image_request(4, &["production"])).await;
    world.begin().await;
    // First what keeps image 3, then the tag itself.
    world.until_put().await;
    assert_eq!(world.answer(0, How::Done).await, Next::Asks);
    world.until_put().await;
    assert_eq!(world.running[0].parked.asked.tag(), Some("production"));
    world.answer(0, How::Denied).await;
    world.all_well().await;
    assert_eq!(world.state(denied).await.0, ReleaseState::Failed);
    assert_eq!(world.image("production"), Some(3));
    world.registry.open(true);
    world.engine.prune_now().await.unwrap();
    let kept = [1, 2].map(|image| {
        let tag = retention_tag(&world.images[image].parse().unwrap());
        world.image(tag.as_str())
    });
    assert_eq!(kept, [Some(1), Some(2)], "two are to be kept, and the tag has left two");
}

/// The registry does what it is asked, and then asks for a pause, so that nobody can look at once
/// whether it did. That is a wait, and no attempt.
#[tokio::test]
async fn a_pause_between_a_put_and_the_look_after_it_is_no_attempt() {
    let mut world = World::new(0).await;
    let id = world.accepted(&world.image_request(1, &["production"])).await;
    world.begin().await;
    world.until_put().await;
    world.accepted(&world.image_request(2, &["edge"])).await;
    let other = world.begin().await;
    world.answer(other, How::Paused).await;
    assert_eq!(world.answer(0, How::Done).await, Next::Ended, "it looks in spite of the pause");
    world.all_well().await;
    assert_eq!(world.image("production"), Some(1));
    let view = world.view(id).await;
    assert_eq!((view.state, view.attempts.len()), (ReleaseState::Succeeded, 0));
}
