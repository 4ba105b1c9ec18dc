//! What has ended long ago is let go of: jobs with their attempts, and idempotency keys. The release
//! stays, and so does the ledger.

use colophon_testkit::{image::ImageSpec, wait::wait_until};
use colophon_tests::{Client, PATIENCE, SiteOptions, World, request};
use serde_json::{Value, json};

use crate::release_scene::{attempts, state};

async fn accepted(client: &Client, request: &Value) -> String {
    let release = client.create(request).await.unwrap().good().unwrap();
    release["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_ended_long_ago_is_let_go_and_what_is_at_work_is_not() {
    let mut world = World::new().await.unwrap();
    world.sections = "[retention]\nfinished_jobs = \"10d\"\nidempotency_keys = \"5d\"\n".to_owned();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    staging.push(&ImageSpec::tiny("old"), "app", "1").await.unwrap();
    let api = world.serve().await.unwrap();
    let mut worker = world.work().await.unwrap();
    let client = world.client(&api).unwrap();
    let app = staging.repository("app");
    let asked = |tag: &str| {
        let mut request = request(&staging.reference("app", "1"), &[(&app, &[], &[tag])]);
        request["idempotencyKey"] = json!(tag);
        request
    };
    let [old, middle, recent] = [asked("old"), asked("middle"), asked("recent")];
    let mut ids = Vec::new();
    for request in [&old, &middle, &recent] {
        let id = accepted(&client, request).await;
        assert_eq!(state(&client.wait_end(&id).await.unwrap()), "SUCCEEDED");
        ids.push(id);
    }
    worker.stop().await.unwrap();
    let waiting = accepted(&client, &asked("waiting")).await;
    // Time passes: twenty days, seven, none; and the one that waits is the oldest of all.
    let pool = &world.database().pool().clone();
    for (id, days) in [(&ids[0], 20), (&ids[1], 7), (&waiting, 90)] {
        let statements = [
            "UPDATE release SET ended_at = ended_at - $2 * interval '1 day' WHERE id = $1::uuid",
            "UPDATE job SET ended_at = ended_at - $2 * interval '1 day' WHERE release_id = $1::uuid",
            "UPDATE idempotency_key SET created_at = created_at - $2 * interval '1 day'
             WHERE release_id = $1::uuid",
            "INSERT INTO attempt (job_id, number, worker, reason_code, message, started_at)
             SELECT id, $2, 'w', 'REGISTRY_UNAVAILABLE', '', colophon_now() FROM job
             WHERE release_id = $1::uuid",
        ];
        for statement in statements {
            sqlx::query(statement).bind(id).bind(days).execute(pool).await.unwrap();
        }
    }
    assert_eq!(attempts(&client.release(&ids[0]).await.unwrap()).len(), 1);
    let _worker = world.work().await.unwrap();
    let gone = async || {
        let keys: i64 = sqlx::query_scalar("SELECT count(*) FROM idempotency_key")
            .fetch_one(pool)
            .await
            .unwrap();
        (keys == 2).then_some(())
    };
    wait_until("the old keys are gone", PATIENCE, gone).await.unwrap();

    let seen = client.release(&ids[0]).await.unwrap();
    assert_eq!((state(&seen).as_str(), attempts(&seen).len()), ("SUCCEEDED", 0), "{seen:#}");
    assert_eq!(seen["publications"][0]["tags"][0]["state"], "TAG_MOVE_STATE_MOVED");
    assert_eq!(attempts(&client.release(&ids[1]).await.unwrap()).len(), 1, "not old enough");
    let moves = client.moves(&format!("{app}:old")).await.unwrap();
    assert_eq!(moves.len(), 2, "the ledger stays: {moves:#?}");
    // A key that is gone makes a new release; one that is not, or whose release waits, does not.
    assert_ne!(accepted(&client, &old).await, ids[0]);
    assert_ne!(accepted(&client, &middle).await, ids[1]);
    assert_eq!(accepted(&client, &recent).await, ids[2]);
    assert_eq!(accepted(&client, &asked("waiting")).await, waiting);
}
