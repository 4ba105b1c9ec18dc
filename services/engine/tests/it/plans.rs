//! Plans and freezes where the clock and every request are held: a plan that has become too old, and
//! releases that wait for what they must, without asking anybody anything, and for nothing else.

use std::time::Duration;

use colophon_domain::{Position, Reason, ReleaseState, Repository, RollbackSubject};

use crate::{
    requests::version,
    world::{APP, Next, World},
};

#[tokio::test]
async fn a_plan_holds_for_a_day_and_no_longer() {
    let mut world = World::new(0).await;
    let request = world.image_request(1, &["production"]);
    let mut follows = request.clone();
    let plan = world.plan(&request).await.unwrap();
    follows.plan.clone_from(&plan.id);
    world.pass(Duration::from_hours(24) - Duration::from_secs(1)).await;
    world.accept(&follows, Some(&plan)).await.unwrap();
    world.all_well().await;
    assert_eq!(world.image("production"), Some(1));

    let request = world.image_request(2, &["production"]);
    let mut follows = request.clone();
    follows.plan = world.plan(&request).await.unwrap().id;
    assert!(follows.plan.is_some());
    world.pass(Duration::from_hours(24)).await;
    let failure = world.publish(&follows).await.unwrap_err();
    assert_eq!((failure.reason(), failure.field_name()), (Reason::PlanExpired, Some("plan")));
    assert_eq!(world.image("production"), Some(1));
}

/// The list of a repository's tags may be long: it is read when a version may move something, and
/// not each time that its job looks whether the freeze is over.
#[tokio::test]
async fn a_version_that_waits_for_a_freeze_lists_no_tags() {
    let mut world = World::new(0).await;
    let digest = world.images[1].clone();
    let id = world.accepted(&version(&digest, APP, "v1.4.2")).await;
    // The copy, and the version's own tag, which no other version can move.
    for _ in 0..2 {
        let at = world.begin().await;
        world.finish(at).await;
    }
    world.freeze("*", Duration::from_mins(10)).await;
    for _ in 0..3 {
        assert_eq!(world.start_worker().await, Next::Ended, "it asks for something");
        world.pass(Duration::from_secs(20)).await;
    }
    world.lift(0).await;
    world.all_well().await;
    assert_eq!(world.state(id).await, (ReleaseState::Succeeded, None));
    assert_eq!(world.image("latest"), Some(1));
}

/// A rollback with a broken glass overtakes a release that waits for the end of the freeze: its owner
/// is told at once, and not when the freeze is over.
#[tokio::test]
async fn what_is_overtaken_under_a_freeze_does_not_wait_for_its_end() {
    let mut world = World::new(0).await;
    for image in [1, 2] {
        world.accepted(&world.image_request(image, &["production"])).await;
        world.all_well().await;
    }
    world.freeze("*", Duration::from_mins(30)).await;
    let queued = world.accepted(&world.image_request(3, &["production"])).await;
    for _copy_then_wait in 0..2 {
        assert_eq!(world.start_worker().await, Next::Ended);
    }
    let subject = RollbackSubject::Tag {
        repository: Repository::parse(APP).unwrap(),
        tag: "production".parse().unwrap(),
        position: Position::Steps(1),
        expected: None,
    };
    world.roll_back(subject, true).await.unwrap();
    world.work_all().await;
    assert_eq!(world.image("production"), Some(1));
    world.pass(Duration::from_secs(20)).await;
    world.work_all().await;
    assert_eq!(world.state(queued).await, (ReleaseState::Failed, Some(Reason::Superseded)));
    world.all_well().await;
    assert_eq!(world.image("production"), Some(1));
}
