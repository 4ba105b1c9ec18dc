//! `releases`, `release`, `cancel`, `history` and `resolve`.

use colophon_api::v1::{
    Certainty, ListReleasesResponse, ListTagMovesResponse, Release, ReleaseState, Tag, TagEntry,
    TagMoveState,
};

use crate::{
    ID, colophon,
    fake::{Fake, Step},
    release, run, running, succeeded,
};

#[test]
fn a_list_is_put_together_from_its_pages() {
    let fake = Fake::start();
    let numbered = |number: usize| Release { id: format!("r{number}"), ..Release::default() };
    fake.script().releases = (0..450).map(numbered).collect();
    let line = "releases --repository b/x --state failed --state ERRORED --actor ci \
                --label team=web --limit 350 --output json";
    let ran = run(colophon(&fake, line));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let list: ListReleasesResponse = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((list.releases.len(), list.next_page_token.as_str()), (350, "350"));
    let script = fake.script();
    let sizes: Vec<i32> = script.listed.iter().map(|request| request.page_size).collect();
    assert_eq!(sizes, [200, 150]);
    let request = &script.listed[1];
    assert_eq!((request.repository.as_str(), request.actor.as_str()), ("b/x", "ci"));
    assert_eq!((request.page_token.as_str(), request.label.as_str()), ("200", "team=web"));
    let states = [ReleaseState::Failed, ReleaseState::Errored].map(i32::from);
    assert_eq!(request.states, states);
}

#[test]
fn a_release_is_shown_whatever_its_state_and_awaited_on_request() {
    let failed = release(ReleaseState::Failed, TagMoveState::Refused);
    for (line, code) in [("", 0), (" --wait", 1)] {
        let fake = Fake::start();
        fake.script().get.extend([Step::Answer(failed.clone())]);
        let ran = run(colophon(&fake, &format!("release {ID}{line}")));
        assert_eq!(ran.code, Some(code), "{}", ran.err);
        assert!(ran.out.contains("REFUSED"), "{}", ran.out);
    }
    let fake = Fake::start();
    fake.script().get.extend([Step::Answer(running()), Step::Answer(succeeded())]);
    let ran = run(colophon(&fake, &format!("release {ID} --wait")));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("SUCCEEDED"), "{}", ran.out);
}

#[test]
fn a_cancel_carries_its_reason() {
    let fake = Fake::start();
    fake.script().cancel = Some(Release { cancel_requested: true, ..running() });
    let ran = run(colophon(&fake, &format!("cancel {ID} --reason typo")));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("cancel   requested"), "{}", ran.out);
    let script = fake.script();
    assert_eq!(
        (script.cancelled[0].id.as_str(), script.cancelled[0].reason.as_str()),
        (ID, "typo")
    );
}

#[test]
fn history_asks_about_a_tag_or_a_repository() {
    let fake = Fake::start();
    let entry = TagEntry {
        kind: "drift".into(),
        reference: "ghcr.io/a/x:1\u{1b}[2J".into(),
        body: b"{}".to_vec(),
        ..TagEntry::default()
    };
    fake.script().moves = ListTagMovesResponse { moves: vec![entry], ..Default::default() };
    let ran = run(colophon(&fake, "history ghcr.io/a/x:1 --after 2026-11-01T10:00 --intents"));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("drift") && !ran.out.contains('\u{1b}'), "{}", ran.out);
    let ran = run(colophon(&fake, "history localhost:5000/a/x --actor ci --output json"));
    let list: ListTagMovesResponse = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(list.moves[0].body, b"{}");
    let script = fake.script();
    let [tag, repository] = &script.asked_moves[..] else { panic!("two questions") };
    assert_eq!((tag.reference.as_str(), tag.repository.as_str()), ("ghcr.io/a/x:1", ""));
    assert_eq!(tag.after.unwrap().to_string(), "2026-11-01T10:00:00Z");
    assert!(tag.include_intents && tag.page_size == 50);
    assert_eq!(
        (repository.reference.as_str(), repository.repository.as_str()),
        ("", "localhost:5000/a/x")
    );
}

#[test]
fn resolve_says_how_certain_its_answer_is() {
    let fake = Fake::start();
    fake.script().tag = Some(Tag {
        reference: "ghcr.io/a/x:1".into(),
        digest: succeeded().digest,
        certainty: Certainty::Confirmed.into(),
        ..Tag::default()
    });
    let ran = run(colophon(&fake, "resolve ghcr.io/a/x:1 --at 2026-11-01T10:00:00Z"));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains(&succeeded().digest) && ran.out.contains("CONFIRMED"), "{}", ran.out);
    let script = fake.script();
    assert_eq!(script.asked_tags[0].at.unwrap().to_string(), "2026-11-01T10:00:00Z");
}

#[test]
fn resolve_tells_a_tag_that_is_not_there_from_one_that_nobody_knows() {
    for (certainty, said) in
        [(Certainty::Unknown, "not known"), (Certainty::LastObserved, "no such tag")]
    {
        let fake = Fake::start();
        fake.script().tag = Some(Tag { certainty: certainty.into(), ..Tag::default() });
        let ran = run(colophon(&fake, "resolve ghcr.io/a/x:1"));
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.out.contains(&format!("digest     {said}\n")), "{}", ran.out);
    }
}

#[test]
fn a_release_says_what_it_is_and_what_it_waits_for() {
    let fake = Fake::start();
    let waiting = Release {
        purpose: "rollback".into(),
        waiting_for: "docker.io/a/* until 14:02: audit".into(),
        waiting_reason: "FROZEN".into(),
        ..running()
    };
    fake.script().get.push_back(Step::Answer(waiting));
    let ran = run(colophon(&fake, &format!("release {ID}")));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("purpose  rollback\n"), "{}", ran.out);
    let waits = "waits    FROZEN, docker.io/a/* until 14:02: audit\n";
    assert!(ran.out.contains(waits), "{}", ran.out);
    let ran = run(colophon(&fake, &format!("release {ID} --wait --timeout 200ms")));
    assert_eq!(ran.code, Some(17), "{}", ran.err);
    assert!(ran.err.contains("until 14:02: audit (FROZEN)"), "{}", ran.err);
}
