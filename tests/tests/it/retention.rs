//! Keeping what floating tags leave: the digest has a tag of its own before the floating tag goes,
//! so that a registry's garbage collection does not take away what a rollback needs.

use colophon_testkit::{image::ImageSpec, proxy::Action};
use colophon_tests::{SiteOptions, World};
use http::Method;
use serde_json::json;

use crate::{
    kill::{Crew, TIMES},
    ledger_check,
    release_scene::{expected, state, tag_puts, tags, text},
    safe_scene::{about, deeds, denied, digest, ended, plan, rolled_back, with},
};

fn kept_tag(source: &str) -> String {
    format!("colophon-kept-{}", digest(source).replace(':', "-"))
}

async fn scene() -> Crew {
    let mut world = World::new().await.unwrap();
    world.rule("pattern = \"*\"\n[repository.retention]\nkeep = 2");
    Crew::on(world, TIMES, 1).await
}

#[tokio::test]
async fn what_a_floating_tag_leaves_survives_the_garbage_collection() {
    let mut crew = scene().await;
    let mut images = Vec::new();
    for number in 0..3 {
        let image = crew.image(&ImageSpec::tiny(format!("build {number}")), "app").await;
        let id = crew.publish(&image, "app", &[], &["latest", "edge"]).await;
        crew.succeeds(&id).await;
        images.push(image);
    }
    // Each digest got its tag before the first floating tag left it, and once.
    let puts = tag_puts(&crew.target);
    let position = |tag: &str, nth: usize| {
        let mut found = puts.iter().enumerate().filter(|(_, put)| **put == format!("app:{tag}"));
        found.nth(nth).unwrap_or_else(|| panic!("{tag} {nth}: {puts:?}")).0
    };
    for (number, image) in images.iter().take(2).enumerate() {
        let kept = kept_tag(image);
        assert_eq!(puts.iter().filter(|put| **put == format!("app:{kept}")).count(), 1);
        for tag in ["latest", "edge"] {
            assert!(position(&kept, 0) < position(tag, number + 1), "{puts:?}");
        }
        assert_eq!(crew.target.inspect("app", &kept).await.unwrap(), digest(image));
        let reference = format!("{}:{kept}", crew.target.repository("app"));
        assert_eq!(deeds(&crew.client, &reference).await, ["confirmed retention"]);
    }
    let there = crew.target.peer().unwrap().tags("app").await.unwrap();
    assert_eq!(there.len(), 4, "two that float, two that keep: {there:?}");

    crew.target.registry().collect_garbage(true).await.unwrap();
    crew.target.registry_mut().restart().await.unwrap();
    // Nothing but the registry itself has it any more.
    crew.source.peer().unwrap().delete_manifest("app", digest(&images[0])).await.unwrap();
    let latest = format!("{}:latest", crew.target.repository("app"));
    let release = rolled_back(&crew.client, &latest, &json!({ "steps": 2 })).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    assert_eq!(crew.target.inspect("app", "latest").await.unwrap(), digest(&images[0]));
    let walked = crew.target.peer().unwrap().walk("app", "latest").await.unwrap();
    assert_eq!(walked.root, digest(&images[0]));
    // A release shows the tags that were asked for, and no others.
    assert_eq!(tags(&release), expected(&[("app:latest", "MOVED")]));
    everything_ended(&crew).await;
}

/// The check of the whole ledger, without the content at the source, which a test has deleted.
async fn everything_ended(crew: &Crew) {
    let open: i64 = sqlx::query_scalar("SELECT count(*) FROM open_intent")
        .fetch_one(crew.world.database().pool())
        .await
        .unwrap();
    assert_eq!(open, 0);
}

#[tokio::test]
async fn a_digest_that_cannot_be_kept_is_not_left() {
    let crew = scene().await;
    let old = crew.image(&ImageSpec::tiny("old"), "app").await;
    let new = crew.image(&ImageSpec::tiny("new"), "app").await;
    crew.publish_well(&old, "app", &[], &["latest"]).await;
    let kept = kept_tag(&old);
    let refused = crew.target.proxy().add(about(denied(), Method::PUT, "app", &kept));
    let app = crew.target.repository("app");
    let request = with(&new, &[(&app, &["2"], &["latest"])], &json!({}));
    let release = ended(&crew.client, &request).await;
    assert_eq!(state(&release), "FAILED REGISTRY_UNAUTHORIZED", "{release:#}");
    assert_eq!(refused.hits(), 1);
    let said = text(&release, "/message");
    assert!(said.contains("could not be kept") && said.contains(digest(&old)), "{said}");
    assert_eq!(crew.target.inspect("app", "latest").await.unwrap(), digest(&old));
    let refused = [("app:2", "MOVED"), ("app:latest", "FAILED REGISTRY_UNAUTHORIZED")];
    assert_eq!(tags(&release), expected(&refused));
    // A plan says what would be kept, too.
    let mut next = request.clone();
    next["targets"][0]["uniqueTags"] = json!(["3"]);
    let shown = plan(&crew.client, &next).await.good().unwrap();
    let note = text(&shown, "/publications/0/notes/0");
    assert!(note.contains(digest(&old)) && note.contains(&kept), "{shown:#}");
    // The next release tries anew.
    let release = ended(&crew.client, &request).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    assert_eq!(crew.target.inspect("app", &kept).await.unwrap(), digest(&old));
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}

#[tokio::test]
async fn an_answer_that_was_lost_keeps_the_digest_all_the_same() {
    let mut world = World::new().await.unwrap();
    world.rule("pattern = \"*\"\n[repository.retention]\nkeep = 2");
    let mirror = world.site(SiteOptions::proxied()).await.unwrap();
    let crew = Crew::on(world, TIMES, 1).await;
    let old = crew.image(&ImageSpec::tiny("old"), "app").await;
    let new = crew.image(&ImageSpec::tiny("new"), "app").await;
    let (here, there) = (crew.target.repository("app"), mirror.repository("app"));
    let request = |source: &str| {
        with(source, &[(&here, &[], &["latest"]), (&there, &[], &["latest"])], &json!({}))
    };
    ended(&crew.client, &request(&old)).await;
    let lost = about(Action::DropAfter, Method::PUT, "app", &kept_tag(&old));
    let lost = crew.target.proxy().add(lost);
    let release = ended(&crew.client, &request(&new)).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    assert_eq!(lost.hits(), 1);
    for site in [&crew.target, &mirror] {
        assert_eq!(site.inspect("app", &kept_tag(&old)).await.unwrap(), digest(&old));
        assert_eq!(site.inspect("app", "latest").await.unwrap(), digest(&new));
    }
    ledger_check::check(&crew.world, &crew.source, &[&crew.target, &mirror]).await;
}
