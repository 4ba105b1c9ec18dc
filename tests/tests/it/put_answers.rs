//! Answers to the PUT of a tag that do not say that it was done: how long they are borne, and what
//! becomes of the release then.

use colophon_testkit::{image::ImageSpec, proxy::Action};
use http::{Method, StatusCode};
use serde_json::json;

use crate::{
    kill::TIMES,
    ledger_check,
    release_scene::{attempts, kinds, state, tags_with_hosts, text},
    safe_scene::{about, accepted, digest, ended, two_targets, waits, with},
};

/// One never hears what became of a PUT, and each time it turns out that nothing did. The attempts
/// are counted, and when they are used up the release ends, with everything where it was.
#[tokio::test]
async fn a_registry_that_never_says_what_it_did_uses_up_the_attempts() {
    for action in [
        Action::Status(StatusCode::INTERNAL_SERVER_ERROR, Vec::new(), String::new()),
        Action::DropBefore,
    ] {
        let times = TIMES.replace("max_attempts = 30", "max_attempts = 3");
        let (crew, second) = two_targets(&times, 1).await;
        let old = crew.image(&ImageSpec::tiny("old"), "app").await;
        let new = crew.image(&ImageSpec::tiny("new"), "app").await;
        let (here, there) = (crew.target.repository("app"), second.repository("app"));
        let request = |source: &str| {
            with(source, &[(&here, &[], &["latest"]), (&there, &[], &["latest"])], &json!({}))
        };
        let release = ended(&crew.client, &request(&old)).await;
        assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
        second.proxy().add(about(action, Method::PUT, "app", "latest").always());
        let release = ended(&crew.client, &request(&new)).await;
        assert_eq!(state(&release), "ERRORED ATTEMPTS_EXHAUSTED", "{release:#}");
        assert!(attempts(&release).len() >= 3, "every attempt is shown: {release:#}");
        assert!(attempts(&release).contains(&"REGISTRY_UNAVAILABLE"), "{release:#}");
        let ends = tags_with_hosts(&release);
        assert_eq!(ends[&format!("{here}:latest")], "RESTORED RESTORED");
        assert_eq!(ends[&format!("{there}:latest")], "FAILED ATTEMPTS_EXHAUSTED");
        for site in [&crew.target, &second] {
            assert_eq!(site.inspect("app", "latest").await.unwrap(), digest(&old));
        }
        second.proxy().clear();
        ledger_check::check(&crew.world, &crew.source, &[&crew.target, &second]).await;
    }
}

/// A registry that asks for a pause has done nothing: that is known at once, it is said what is
/// waited for, and it is no attempt.
#[tokio::test]
async fn a_registry_that_asks_for_a_pause_gets_it_and_costs_no_attempt() {
    let (crew, _) = two_targets(TIMES, 1).await;
    let new = crew.image(&ImageSpec::tiny("new"), "app").await;
    let app = crew.target.repository("app");
    let pause = vec![("Retry-After".to_owned(), "4".to_owned())];
    let pause = Action::Status(StatusCode::TOO_MANY_REQUESTS, pause, "slow down".to_owned());
    crew.target.proxy().add(about(pause, Method::PUT, "app", "latest"));
    let request = with(&new, &[(&app, &[], &["latest"])], &json!({}));
    let id = accepted(&crew.client, &request).await;
    let waiting = waits(&crew.client, &id, "RATE_LIMITED").await;
    assert!(text(&waiting, "/waitingFor").contains("pause"), "{waiting:#}");
    assert_eq!(text(&waiting, "/publications/0/tags/0/state"), "TAG_MOVE_STATE_PENDING");
    let line = ["release", &id, "--wait", "--timeout", "1s"];
    let output = crew.world.cli(&crew.api, &line).await.unwrap();
    assert_eq!(output.code, Some(18), "{output:?}");
    let release = crew.succeeds(&id).await;
    assert_eq!(attempts(&release), [""; 0]);
    let latest = format!("{app}:latest");
    let story = ["intent", "not_applied", "intent", "confirmed"];
    assert_eq!(kinds(&crew.client, &latest).await, story);
    let moves = crew.client.moves(&latest).await.unwrap();
    let refused = moves.iter().find(|entry| text(entry, "/kind") == "not_applied").unwrap();
    assert_eq!(text(refused, "/reasonCode"), "RATE_LIMITED");
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}
