//! Finding releases and moves again: every condition by itself and together, newest first, and
//! pages that stay whole while new rows arrive.

use colophon_testkit::image::ImageSpec;
use colophon_tests::{Client, SiteOptions, World, request};
use serde_json::{Value, json};

use crate::release_scene::{state, succeeded, text};

/// A text of each row of a page.
async fn rows(client: &Client, path: &str, query: &[(&str, &str)], field: &str) -> Vec<String> {
    let page = client.get(path, query).await.unwrap();
    let list = if path == "/v1/releases" { "releases" } else { "moves" };
    let rows = page[list].as_array().unwrap();
    rows.iter().map(|row| text(row, field).to_owned()).collect()
}

#[tokio::test]
async fn every_condition_narrows_the_lists() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::default()).await.unwrap();
    let everything =
        r#"[{ repositories = ["*"], actions = ["read", "publish", "move_floating"] }]"#;
    let other = world.caller("other", everything).unwrap();
    let node = world.run().await.unwrap();
    let (ci, other) = (world.client(&node).unwrap(), world.client_of(&node, &other).unwrap());
    staging.push(&ImageSpec::tiny("a"), "app", "a").await.unwrap();
    staging.push(&ImageSpec::tiny("b"), "app", "b").await.unwrap();
    let (app, lib) = (target.repository("app"), target.repository("lib"));

    // Four releases: app by ci, app by other, both by ci, and one that fails.
    let create = async |client: &Client, source: &str, targets: &[(&str, &str)], team: &str| {
        let source = staging.reference("app", source);
        let tags: Vec<Vec<&str>> = targets.iter().map(|(_, tag)| vec![*tag]).collect();
        let targets: Vec<colophon_tests::Target<'_>> = targets
            .iter()
            .zip(&tags)
            .map(|((repository, _), tags)| (*repository, tags.as_slice(), &[][..]))
            .collect();
        let mut request = request(&source, &targets);
        request["labels"] = json!({ "team": team, "of": "all" });
        let release = client.create(&request).await.unwrap().good().unwrap();
        client.wait_end(text(&release, "/id")).await.unwrap()
    };
    let first = create(&ci, "a", &[(&app, "1")], "web").await;
    let second = create(&other, "a", &[(&app, "2")], "web").await;
    let third = create(&ci, "a", &[(&app, "3"), (&lib, "3")], "data").await;
    let failed = create(&ci, "b", &[(&app, "1")], "data").await;
    assert_eq!(state(&failed), "FAILED TAG_IMMUTABLE");
    let all = [&first, &second, &third, &failed].map(|release| text(release, "/id").to_owned());
    let [first_id, second_id, third_id, failed_id] = all.each_ref().map(String::as_str);

    let releases = async |query: &[(&str, &str)]| rows(&ci, "/v1/releases", query, "/id").await;
    assert_eq!(releases(&[]).await, [failed_id, third_id, second_id, first_id]);
    assert_eq!(releases(&[("repository", &lib)]).await, [third_id]);
    assert_eq!(releases(&[("actor", "other")]).await, [second_id]);
    assert_eq!(releases(&[("label", "team=web")]).await, [second_id, first_id]);
    let states = ("states", "RELEASE_STATE_SUCCEEDED");
    assert_eq!(releases(&[states]).await, [third_id, second_id, first_id]);
    let failing = ("states", "RELEASE_STATE_FAILED");
    assert_eq!(
        releases(&[failing, states, ("actor", "ci")]).await,
        [failed_id, third_id, first_id]
    );
    let narrow = [("label", "team=data"), ("repository", app.as_str()), states];
    assert_eq!(releases(&narrow).await, [third_id]);
    assert_eq!(releases(&[("label", "team=none")]).await, [""; 0]);
    assert_eq!(releases(&[("actor", "nobody")]).await, [""; 0]);

    let moves =
        async |query: &[(&str, &str)]| rows(&ci, "/v1/tag-moves", query, "/reference").await;
    let names = [format!("{app}:1"), format!("{app}:2"), format!("{app}:3"), format!("{lib}:3")];
    let [one, two, three, lib_three] = names.each_ref().map(String::as_str);
    assert_eq!(moves(&[("reference", one)]).await, [one]);
    assert_eq!(moves(&[("repository", &lib)]).await, [lib_three]);
    assert_eq!(moves(&[("repository", &app)]).await, [three, two, one]);
    assert_eq!(moves(&[("release", second_id)]).await, [two]);
    assert_eq!(moves(&[("release", third_id)]).await.len(), 2);
    assert_eq!(moves(&[("release", failed_id)]).await, [""; 0]);
    assert_eq!(moves(&[("actor", "other")]).await, [two]);
    assert_eq!(moves(&[("actor", "other"), ("repository", &lib)]).await, [""; 0]);
    // `after` takes the moment itself, `before` does not.
    let at = async |reference: &str| text(&ci.moves(reference).await.unwrap()[0], "/at").to_owned();
    let (at_one, at_two, at_three) = (at(one).await, at(two).await, at(three).await);
    let app_only = ("repository", app.as_str());
    assert_eq!(moves(&[app_only, ("after", &at_two)]).await, [three, two]);
    assert_eq!(moves(&[app_only, ("before", &at_two)]).await, [one]);
    let between = [app_only, ("after", at_one.as_str()), ("before", at_three.as_str())];
    assert_eq!(moves(&between).await, [two, one]);
    let with_intents = [("reference", one), ("include_intents", "true")];
    assert_eq!(moves(&with_intents).await.len(), 2);
}

#[tokio::test]
async fn pages_stay_whole_while_new_rows_arrive() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::default()).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    staging.push(&ImageSpec::tiny("pages"), "app", "1").await.unwrap();
    let (source, app) = (staging.reference("app", "1"), target.repository("app"));
    let mut expected = Vec::new();
    for number in 0..7 {
        let tag = format!("old-{number}");
        let release = succeeded(&client, &source, &[(&app, &[&tag], &[])]).await;
        expected.push(text(&release, "/id").to_owned());
    }
    expected.reverse();
    for (path, list, id) in
        [("/v1/releases", "releases", "/id"), ("/v1/tag-moves", "moves", "/release")]
    {
        let (mut seen, mut token) = (Vec::<String>::new(), String::new());
        for size in ["2", "1", "3", "2"] {
            let query = [("page_size", size), ("page_token", token.as_str())];
            let page: Value = client.get(path, &query).await.unwrap();
            let rows = page[list].as_array().unwrap();
            seen.extend(rows.iter().map(|row| text(row, id).to_owned()));
            text(&page, "/nextPageToken").clone_into(&mut token);
            // Something new comes at the front, which is behind the reader.
            let tag = format!("new-{}-{list}", seen.len());
            let release = succeeded(&client, &source, &[(&app, &[&tag], &[])]).await;
            if path == "/v1/releases" {
                expected.insert(0, text(&release, "/id").to_owned());
            }
        }
        let old = expected.iter().filter(|id| seen.contains(id)).count();
        assert_eq!(old, seen.len(), "{path}");
        let begin = expected.iter().position(|id| *id == seen[0]).unwrap();
        assert_eq!(&expected[begin..begin + seen.len()], seen, "{path}");
    }
}
