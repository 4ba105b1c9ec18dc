//! Watching releases while the database answers, but not for all of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use colophon_domain::{Reason, ReleaseView, Result};
use futures_util::{Stream, StreamExt as _};
use uuid::Uuid;

use crate::{
    requests::publish,
    world::{APP, COPY, World},
};

/// Nothing real takes this long.
const LONG: Duration = Duration::from_secs(30);
/// Those who watch are told after 5 s.
const SOON: Duration = Duration::from_secs(4);

type Shown = Result<Arc<ReleaseView>>;

async fn next(shown: &mut (impl Stream<Item = Shown> + Unpin)) -> Option<Shown> {
    tokio::time::timeout(LONG, shown.next()).await.unwrap()
}

impl World {
    /// Changes something of a release behind the store's back; its revision grows.
    async fn write(&self, id: Uuid, what: &str) {
        let text = format!("UPDATE release SET {what} WHERE id = '{id}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&self.base.pool).await.unwrap();
    }
}

#[tokio::test]
async fn a_release_that_cannot_be_read_ends_its_own_watch_and_no_other() {
    let mut world = World::new(1).await;
    let mut ids = Vec::new();
    for place in [APP, COPY] {
        let request = publish(&world.images[0].clone(), place, &["latest"]);
        ids.push(world.publish(&request).await.unwrap().id);
    }
    let (bad, good) = (ids[0], ids[1]);
    let mut shown_bad = Box::pin(world.engine.watch(bad));
    let mut shown_good = Box::pin(world.engine.watch(good));
    assert_eq!(next(&mut shown_bad).await.unwrap().unwrap().id, bad);
    assert_eq!(next(&mut shown_good).await.unwrap().unwrap().id, good);

    let begun = Instant::now();
    sqlx::raw_sql("ALTER TABLE release DROP CONSTRAINT release_phase_check")
        .execute(&world.base.pool)
        .await
        .unwrap();
    world.write(bad, "phase = 'nowhere'").await;
    world.write(good, "message = 'while the other cannot be read'").await;
    let seen = next(&mut shown_good).await.unwrap().unwrap();
    assert_eq!(seen.message, "while the other cannot be read");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());

    let failure = next(&mut shown_bad).await.unwrap().unwrap_err();
    assert_eq!(failure.reason(), Reason::Internal, "{failure}");
    assert!(begun.elapsed() > SOON, "told after {:?}", begun.elapsed());
    assert!(next(&mut shown_bad).await.is_none());
    // The other watch goes on, and so does one of the same release once it can be read again.
    world.write(good, "message = 'afterwards'").await;
    let seen = next(&mut shown_good).await.unwrap().unwrap();
    assert_eq!(seen.message, "afterwards");
    world.write(bad, "phase = 'copy'").await;
    let mut again = Box::pin(world.engine.watch(bad));
    assert_eq!(next(&mut again).await.unwrap().unwrap().id, bad);
}

#[tokio::test]
async fn one_that_can_be_read_again_in_time_was_never_lost() {
    let mut world = World::new(2).await;
    let request = publish(&world.images[0].clone(), APP, &["latest"]);
    let id = world.publish(&request).await.unwrap().id;
    let mut shown = Box::pin(world.engine.watch(id));
    next(&mut shown).await.unwrap().unwrap();
    sqlx::raw_sql("ALTER TABLE release DROP CONSTRAINT release_phase_check")
        .execute(&world.base.pool)
        .await
        .unwrap();
    // Twice for three seconds is not once for six.
    for text in ["once", "twice"] {
        world.write(id, "phase = 'nowhere'").await;
        let quiet = tokio::time::timeout(Duration::from_secs(3), shown.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        world.write(id, &format!("phase = 'copy', message = '{text}'")).await;
        let seen = next(&mut shown).await.unwrap().unwrap();
        assert_eq!(seen.message, text);
    }
}
