//! A release that fails half way puts back the floating tags that it has moved, unless somebody
//! else has moved them since; and says of each what became of it.

use colophon_testkit::{
    image::ImageSpec,
    proxy::{Action, Fault},
};
use colophon_tests::{PATIENCE, Site};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    kill::{Crew, LONG_TIMES, TIMES},
    ledger_check,
    release_scene::{expected, state, tags_with_hosts, text},
    safe_scene::{
        about, accepted, deeds, digest, ended, foreign, frozen, lift, message, refuses_when_let,
        served, two_targets, waits, with,
    },
};

/// Two targets that have `app:latest` of an older build; the newer one is on its way.
struct Scene {
    crew: Crew,
    second: Site,
    old: String,
    new: String,
}

impl Scene {
    async fn new(times: &str) -> Self {
        let (crew, second) = two_targets(times, 1).await;
        let old = crew.image(&ImageSpec::tiny("old"), "app").await;
        let new = crew.image(&ImageSpec::tiny("new"), "app").await;
        let scene = Self { crew, second, old, new };
        let release = ended(&scene.crew.client, &scene.request(&scene.old, "1", &json!({}))).await;
        assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
        scene
    }

    /// A release to both targets: a unique tag, and `latest`.
    fn request(&self, source: &str, unique: &str, more: &Value) -> Value {
        let (first, second) = (self.crew.target.repository("app"), self.second.repository("app"));
        with(source, &[(&first, &[unique], &["latest"]), (&second, &[unique], &["latest"])], more)
    }

    /// The second registry refuses `latest` after the test has let it look at the tag.
    fn refuse_when_let(&self) -> Fault {
        refuses_when_let(&self.second, "app", "latest")
    }

    /// Publishes the newer build and waits for the end. The second target refuses it when the
    /// first one has it.
    async fn half_done(&self, more: &Value) -> Value {
        let look = self.refuse_when_let();
        let id = accepted(&self.crew.client, &self.request(&self.new, "2", more)).await;
        look.reached(PATIENCE).await.unwrap();
        self.first_moved(&id).await;
        look.forward();
        let release = self.crew.client.wait_end(&id).await.unwrap();
        self.second.proxy().clear();
        release
    }

    /// Waits until the first target has `latest` of the newer build, by the release's own words.
    async fn first_moved(&self, id: &str) {
        let moved = |release: &Value| {
            text(release, "/publications/0/tags/1/state") == "TAG_MOVE_STATE_MOVED"
        };
        self.crew.client.wait_release(id, PATIENCE, moved).await.unwrap();
    }

    async fn serves(&self, latest: [&str; 2]) {
        let found = [
            self.crew.target.inspect("app", "latest").await.unwrap(),
            self.second.inspect("app", "latest").await.unwrap(),
        ];
        assert_eq!(found, latest.map(|source| digest(source).to_owned()));
    }

    async fn check(&self) {
        let sites = [&self.crew.target, &self.second];
        ledger_check::check(&self.crew.world, &self.crew.source, &sites).await;
        ledger_check::puts_never_overlap(&self.crew.target);
    }
}

#[tokio::test]
async fn what_was_moved_goes_back_when_another_target_refuses() {
    let scene = Scene::new(TIMES).await;
    let look = scene.refuse_when_let();
    let line = [
        "publish",
        &scene.new,
        "--to",
        &scene.crew.target.repository("app"),
        "--tag",
        "2",
        "--float",
        "latest",
        "--float",
        "brand-new",
        "--to",
        &scene.second.repository("app"),
        "--tag",
        "2",
        "--float",
        "latest",
    ];
    let others_move = async {
        look.reached(PATIENCE).await.unwrap();
        served(&scene.crew.target, "app", "latest", &scene.new).await;
        served(&scene.crew.target, "app", "brand-new", &scene.new).await;
        look.forward();
    };
    let (output, ()) = tokio::join!(scene.crew.world.cli(&scene.crew.api, &line), others_move);
    let output = output.unwrap();
    assert_eq!(output.code, Some(10), "{output:?}");
    for word in ["RESTORED", "put back", "REGISTRY_UNAUTHORIZED"] {
        let said = output.out.contains(word) || output.err.contains(word);
        assert!(said, "{word}: {output:?}");
    }
    let page = scene.crew.client.get("/v1/releases", &[("page_size", "1")]).await.unwrap();
    let release = &page["releases"][0];
    assert_eq!(state(release), "FAILED REGISTRY_UNAUTHORIZED", "{release:#}");
    let (first, second) = (scene.crew.target.repository("app"), scene.second.repository("app"));
    let states = tags_with_hosts(release);
    let wanted = [
        (format!("{first}:2"), "MOVED"),
        (format!("{first}:latest"), "RESTORED RESTORED"),
        (format!("{first}:brand-new"), "MOVED"),
        (format!("{second}:2"), "MOVED"),
        (format!("{second}:latest"), "FAILED REGISTRY_UNAUTHORIZED"),
    ];
    assert_eq!(states, expected(&wanted.each_ref().map(|(tag, state)| (tag.as_str(), *state))));
    let said = text(release, "/message");
    assert!(said.contains(&format!("put back: {first}:latest")), "{said}");
    assert!(!said.contains(&format!("{first}:2")), "a unique tag is none to go back: {said}");
    assert!(message(release, "brand-new").contains("did not exist before"), "{release:#}");
    scene.serves([&scene.old, &scene.old]).await;
    let entries = deeds(&scene.crew.client, &format!("{first}:latest")).await;
    assert_eq!(entries, ["confirmed publish", "confirmed publish", "confirmed restore"]);
    let line = ["history", &format!("{first}:latest")];
    let output = scene.crew.world.cli(&scene.crew.api, &line).await.unwrap();
    assert!(output.out.lines().nth(2).unwrap().contains("restore"), "{output:?}");
    // What was put back holds nobody up.
    scene.second.proxy().clear();
    let release = ended(&scene.crew.client, &scene.request(&scene.new, "2", &json!({}))).await;
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    scene.serves([&scene.new, &scene.new]).await;
    scene.check().await;
}

#[tokio::test]
async fn what_somebody_else_has_moved_since_stays() {
    let scene = Scene::new(LONG_TIMES).await;
    let look = scene.refuse_when_let();
    let id = accepted(&scene.crew.client, &scene.request(&scene.new, "2", &json!({}))).await;
    look.reached(PATIENCE).await.unwrap();
    scene.first_moved(&id).await;
    let theirs = foreign(&scene.crew.target, "app", "latest").await;
    look.forward();
    let release = scene.crew.client.wait_end(&id).await.unwrap();
    assert_eq!(state(&release), "FAILED REGISTRY_UNAUTHORIZED", "{release:#}");
    let latest = format!("{}:latest", scene.crew.target.repository("app"));
    assert_eq!(tags_with_hosts(&release)[&latest], "MOVED TAG_MOVED");
    let said = text(&release, "/publications/0/tags/1/message");
    assert!(said.contains("not put back") && said.contains("somebody else"), "{said}");
    assert!(text(&release, "/message").contains("not put back"), "{release:#}");
    assert_eq!(scene.crew.target.inspect("app", "latest").await.unwrap(), theirs.digest());
    let entries = deeds(&scene.crew.client, &latest).await;
    assert_eq!(entries, ["confirmed publish", "confirmed publish", "drift observation"]);
    scene.check().await;
}

#[tokio::test]
async fn who_wants_to_keep_them_says_so() {
    let scene = Scene::new(TIMES).await;
    let release = scene.half_done(&json!({ "onFailure": "ON_FAILURE_KEEP" })).await;
    assert_eq!(state(&release), "FAILED REGISTRY_UNAUTHORIZED", "{release:#}");
    assert_eq!(text(&release, "/publications/0/tags/1/state"), "TAG_MOVE_STATE_MOVED");
    assert!(text(&release, "/message").contains("not put back"), "{release:#}");
    scene.serves([&scene.new, &scene.old]).await;
    scene.check().await;
}

#[tokio::test]
async fn a_cancel_among_the_tags_puts_back_what_was_moved() {
    let scene = Scene::new(LONG_TIMES).await;
    let put = scene.second.proxy().add(about(Action::HoldBefore, Method::PUT, "app", "latest"));
    let id = accepted(&scene.crew.client, &scene.request(&scene.new, "2", &json!({}))).await;
    put.reached(PATIENCE).await.unwrap();
    scene.first_moved(&id).await;
    let answer = scene.crew.client.cancel(&id).await.unwrap().good().unwrap();
    assert_eq!(answer["cancelRequested"], true, "{answer:#}");
    // The PUT is on its way: it ends, and then goes back too.
    put.forward();
    let release = scene.crew.client.wait_end(&id).await.unwrap();
    assert_eq!(state(&release), "CANCELLED CANCELLED", "{release:#}");
    for publication in 0..2 {
        let pointer = format!("/publications/{publication}/tags/1/state");
        assert_eq!(text(&release, &pointer), "TAG_MOVE_STATE_RESTORED", "{release:#}");
    }
    scene.serves([&scene.old, &scene.old]).await;
    scene.check().await;
}

#[tokio::test]
async fn a_registry_that_is_away_gets_its_tag_back_when_it_returns() {
    let scene = Scene::new(TIMES).await;
    let look = scene.refuse_when_let();
    let id = accepted(&scene.crew.client, &scene.request(&scene.new, "2", &json!({}))).await;
    look.reached(PATIENCE).await.unwrap();
    scene.first_moved(&id).await;
    let away = Action::Status(StatusCode::SERVICE_UNAVAILABLE, Vec::new(), String::new());
    let away = about(away, Method::HEAD, "app", "latest").always();
    let away = scene.crew.target.proxy().add(away);
    look.forward();
    away.reached_times(3, PATIENCE).await.unwrap();
    let release = scene.crew.client.release(&id).await.unwrap();
    assert_eq!(text(&release, "/phase"), "restore", "{release:#}");
    let answer = scene.crew.client.cancel(&id).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text("/reason")), (409, "NOT_CANCELLABLE"));
    assert!(answer.text("/detail").contains("being put back"), "{:#}", answer.body);
    scene.crew.target.proxy().clear();
    let release = scene.crew.client.wait_end(&id).await.unwrap();
    assert_eq!(state(&release), "FAILED REGISTRY_UNAUTHORIZED", "{release:#}");
    scene.serves([&scene.old, &scene.old]).await;
    scene.check().await;
}

#[tokio::test]
async fn a_freeze_stops_a_put_back_too_and_says_so() {
    let scene = Scene::new(LONG_TIMES).await;
    let look = scene.refuse_when_let();
    let id = accepted(&scene.crew.client, &scene.request(&scene.new, "2", &json!({}))).await;
    look.reached(PATIENCE).await.unwrap();
    scene.first_moved(&id).await;
    let freeze = frozen(&scene.crew.client, &scene.crew.target.repository("app")).await;
    look.forward();
    let waiting = waits(&scene.crew.client, &id, "FROZEN").await;
    assert_eq!(text(&waiting, "/phase"), "restore", "{waiting:#}");
    let restoring = text(&waiting, "/publications/0/tags/1/state");
    assert_eq!(restoring, "TAG_MOVE_STATE_RESTORING", "{waiting:#}");
    assert_eq!(scene.crew.target.inspect("app", "latest").await.unwrap(), digest(&scene.new));
    lift(&scene.crew.client, &freeze).await;
    let release = scene.crew.client.wait_end(&id).await.unwrap();
    assert_eq!(state(&release), "FAILED REGISTRY_UNAUTHORIZED", "{release:#}");
    scene.serves([&scene.old, &scene.old]).await;
    // Whoever broke the glass may put back what was moved so.
    scene.second.proxy().clear();
    frozen(&scene.crew.client, "*").await;
    let glass = json!({ "breakGlass": true, "reason": "an outage" });
    let release = scene.half_done(&glass).await;
    assert_eq!(text(&release, "/publications/0/tags/1/state"), "TAG_MOVE_STATE_RESTORED");
    scene.serves([&scene.old, &scene.old]).await;
    scene.check().await;
}
