//! A database that was restored: whoever says first that everything is held, the hold is that of a
//! restore, and releases from before it put nothing back.

use std::time::Duration;

use colophon_domain::Reason;
use colophon_store::{Found, Hold, Look, Store};
use uuid::Uuid;

use crate::{
    base::{LEASE, digest, request},
    hand::Hand,
};

const TWO: &[(&str, &[&str], &[&str])] = &[("a", &[], &["latest"]), ("b", &[], &["latest"])];

impl Hand {
    /// The database is found elsewhere than where it was, some time after it was written.
    async fn restored_elsewhere(&self) {
        self.base.store.look_for_restore().await.unwrap();
        self.base.pass(LEASE * 10).await;
        self.base.store.reap().await.unwrap();
        let elsewhere = sqlx::query("UPDATE instance SET lineage = 'elsewhere'");
        assert_eq!(elsewhere.execute(&self.base.pool).await.unwrap().rows_affected(), 1);
    }

    async fn compared(&self) {
        for recorded in self.base.store.to_compare(None, 100).await.unwrap() {
            let found = Found::Same;
            self.base.store.found(&recorded, &found).await.unwrap();
        }
    }

    /// Ends the hold the way an operator does who does not keep the queue.
    async fn go_on(&self) -> Vec<Uuid> {
        let store = self.base.store.clone();
        store.put_nothing_back().await.unwrap();
        let going_on = store.going_on().await.unwrap();
        end_hold(&store, false).await;
        going_on
    }
}

/// Ends the hold that is in force.
async fn end_hold(store: &Store, kept_queue: bool) {
    let hold = store.hold().await.unwrap().unwrap();
    store.end_hold(&hold, "ops", "compared", kept_queue).await.unwrap();
}

/// No process has looked when somebody holds everything by hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_by_hand_hides_no_restore() {
    let hand = Hand::new().await;
    let store = &hand.base.store;
    let id = hand.accept(&request(TWO), 1).await;
    hand.restored_elsewhere().await;
    let hold = store.begin_hold("alice", "checking").await.unwrap();
    assert!(hold.restored, "{hold:?}");
    assert_eq!(hold.by, "alice");
    assert!(hold.reason.starts_with("checking; the database lives elsewhere"), "{hold:?}");
    // Every look says the same, and none begins the hold anew.
    assert_eq!(store.look_for_restore().await.unwrap(), Some(hold.clone()));
    assert_eq!(store.hold().await.unwrap(), Some(hold));
    assert_eq!(store.going_on().await.unwrap(), [id], "it is from before the hold");
    let twice = store.begin_hold("bob", "again").await.unwrap_err();
    assert_eq!(twice.reason(), Reason::OnHold);
    assert!(twice.message().contains("checking"), "{twice}");
    end_hold(store, false).await;
    assert_eq!(store.look_for_restore().await.unwrap(), None);
}

/// A process of a version that did not see to it has written such a hold already.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_was_asked_for_becomes_one_of_a_restore() {
    let hand = Hand::new().await;
    hand.accept(&request(TWO), 1).await;
    let asked = hand.base.store.begin_hold("alice", "a rebuilt registry").await.unwrap();
    assert!(!asked.restored, "{asked:?}");
    hand.compared().await;
    hand.restored_elsewhere().await;
    let hold = hand.base.store.look_for_restore().await.unwrap().unwrap();
    assert!(hold.restored, "{hold:?}");
    assert_eq!(hold.since, asked.since);
    let left = hand.base.store.compared().await.unwrap().left;
    assert_eq!(left, 2, "what was compared before says nothing");
}

/// A snapshot that was put back lives where it lived: only a person can know.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_may_say_that_the_database_was_restored() {
    let hand = Hand::new().await;
    let store = &hand.base.store;
    let asked = store.begin_hold("alice", "came with the snapshot").await.unwrap();
    hand.base.pass(Duration::from_mins(1)).await;
    let id = hand.accept(&request(TWO), 1).await;
    hand.compared().await;
    hand.base.pass(Duration::from_mins(1)).await;
    let hold = store.begin_restored("bob", "Monday's snapshot").await.unwrap();
    let expected = Hold {
        restored: true,
        reason: "Monday's snapshot".into(),
        by: "bob".into(),
        since: asked.since + Duration::from_mins(2),
    };
    assert_eq!(hold, expected);
    assert_eq!(store.hold().await.unwrap(), Some(expected));
    assert_eq!(store.going_on().await.unwrap(), [id]);
    assert_eq!(store.compared().await.unwrap().left, 2);
    end_hold(store, false).await;
    // Without a hold before it is the same.
    assert!(store.begin_restored("bob", "once more").await.unwrap().restored);
}

/// The release had succeeded, and a newer one had one of its tags: the reconciler sees that as a
/// tag that somebody else moved.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_fails_after_a_restore_puts_nothing_back() {
    for keep_queue in [false, true] {
        let mut hand = Hand::new().await;
        hand.serve("a:latest", 9);
        let id = hand.accept(&request(TWO), 1).await;
        hand.works(3).await;
        let dead = hand.claim().await;
        let step = hand.step(&dead).await;
        assert_eq!(step.repository.name(), "b");
        hand.intent(&step).await;
        hand.serve("b:latest", 3);
        hand.restored_elsewhere().await;
        assert!(hand.base.store.look_for_restore().await.unwrap().unwrap().restored);
        for due in hand.base.store.take_due_intents(5, LEASE).await.unwrap() {
            let newer = digest(3);
            hand.base.store.resolve(&due, Look::now(Some(&newer))).await.unwrap();
        }
        assert_eq!(hand.tag(id, "b:latest").await.reason.as_deref(), Some("TAG_MOVED"));
        hand.compared().await;
        assert_eq!(hand.base.store.overtaken().await.unwrap(), Vec::<Uuid>::new());
        if keep_queue {
            end_hold(&hand.base.store, true).await;
            hand.work_all().await;
            assert_eq!(hand.serves("a:latest"), Some(digest(9)));
            continue;
        }
        assert_eq!(hand.go_on().await, [id]);
        hand.work_all().await;
        assert_eq!(hand.serves("a:latest"), Some(digest(1)));
        assert_eq!(hand.tag(id, "a:latest").await.state, "MOVED");
        let release = hand.release(id).await;
        assert_eq!(release.reason.as_deref(), Some("TAG_MOVED"));
        assert!(release.message.ends_with("moved and not put back: r.test/a:latest"));
    }
}

/// It was putting its tags back when the backup was made, before or after the intent.
#[tokio::test(flavor = "multi_thread")]
async fn a_put_back_from_before_a_restore_is_given_up() {
    for begun in [false, true] {
        let mut hand = Hand::new().await;
        hand.denied.insert("b:latest");
        hand.serve("a:latest", 9);
        let id = hand.accept(&request(TWO), 1).await;
        hand.works(4).await;
        if begun {
            let dead = hand.claim().await;
            let step = hand.step(&dead).await;
            hand.intent(&step).await;
        }
        assert_eq!(hand.tag(id, "a:latest").await.state, "RESTORING");
        hand.restored_elsewhere().await;
        hand.base.store.look_for_restore().await.unwrap();
        hand.compared().await;
        assert_eq!(hand.base.store.going_on().await.unwrap(), [id]);
        assert_eq!(hand.go_on().await, Vec::<Uuid>::new(), "it moves nothing any more");
        if begun {
            // The intent is found out about after the end of the hold only.
            for due in hand.base.store.take_due_intents(5, LEASE).await.unwrap() {
                let there = digest(1);
                hand.base.store.resolve(&due, Look::now(Some(&there))).await.unwrap();
            }
            assert_eq!(hand.tag(id, "a:latest").await.state, "RESTORING");
        }
        hand.work_all().await;
        assert_eq!(hand.serves("a:latest"), Some(digest(1)), "{begun}");
        let stays = hand.tag(id, "a:latest").await;
        assert_eq!((&*stays.state, stays.reason.as_deref()), ("MOVED", Some("NOT_ATTEMPTED")));
        assert!(stays.message.contains("the database was restored"), "{stays:?}");
        let release = hand.release(id).await;
        assert_eq!((&*release.state, release.reason), ("FAILED", Some("REGISTRY_DENIED".into())));
    }
}

/// A worker has read what is to be put back while the hold was in force, and goes on with it after.
#[tokio::test(flavor = "multi_thread")]
async fn a_put_back_that_was_read_before_the_end_of_the_hold_is_refused() {
    let mut hand = Hand::new().await;
    hand.denied.insert("b:latest");
    hand.serve("a:latest", 9);
    hand.accept(&request(TWO), 1).await;
    hand.works(4).await;
    let job = hand.claim().await;
    let step = hand.step(&job).await;
    hand.base.pass(Duration::from_secs(1)).await;
    hand.base.store.begin_restored("ops", "a snapshot").await.unwrap();
    assert_eq!(hand.begin(&step).await.unwrap_err().reason(), Reason::OnHold);
    hand.base.store.put_nothing_back().await.unwrap();
    end_hold(&hand.base.store, false).await;
    let refused = hand.begin(&step).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::ReferenceBlocked, "{refused}");
    hand.work(&job).await;
    assert_eq!(hand.serves("a:latest"), Some(digest(1)));
}

/// Every probe looks while an operator ends the hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_has_ended_does_not_begin_once_more() {
    let hand = Hand::new().await;
    hand.accept(&request(TWO), 1).await;
    for _ in 0..20 {
        hand.restored_elsewhere().await;
        let store = &hand.base.store;
        let hold = store.look_for_restore().await.unwrap().unwrap();
        hand.compared().await;
        let looking = futures_util::future::join_all((0..4).map(|_| store.look_for_restore()));
        let (ended, looked) =
            tokio::join!(store.end_hold(&hold, "ops", "compared", false), looking);
        ended.unwrap();
        assert!(looked.iter().all(Result::is_ok), "{looked:?}");
        assert_eq!(store.hold().await.unwrap(), None, "it holds once more");
    }
}

/// Somebody says that the database was restored once more, while another compares for the hold before.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_hold_that_was_looked_at_is_ended() {
    let hand = Hand::new().await;
    let store = &hand.base.store;
    hand.accept(&request(TWO), 1).await;
    let hold = store.begin_restored("alice", "Monday's snapshot").await.unwrap();
    hand.base.pass(Duration::from_secs(1)).await;
    store.begin_restored("bob", "Sunday's snapshot").await.unwrap();
    let refused = store.end_hold(&hold, "alice", "compared", false).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::OnHold, "{refused}");
    // No worker is to blame that the queue stands still.
    let standing = store.standing().await.unwrap();
    assert_eq!((standing.ready, standing.waiting), (0, 2));
    assert_eq!(standing.oldest_ready, Duration::ZERO);
    end_hold(store, false).await;
    assert_eq!(store.standing().await.unwrap().ready, 2);
    let refused = store.end_hold(&hold, "alice", "compared", false).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::NotFound, "{refused}");
}

/// What the registry shows is in the ledger when the end of the hold is broken off: the next try, and
/// the next comparison, must not take the release for one that was not overtaken.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_overtaken_stays_so_when_the_end_is_tried_again() {
    let hand = Hand::new().await;
    let store = &hand.base.store;
    let id = hand.accept(&request(TWO), 1).await;
    hand.base.pass(Duration::from_secs(1)).await;
    store.begin_restored("ops", "a snapshot").await.unwrap();
    let newer = digest(3);
    for recorded in store.to_compare(None, 100).await.unwrap() {
        store.found(&recorded, &Found::Differs(Some(newer.clone()))).await.unwrap();
        let seq = store.tag_seq(&recorded.repository, &recorded.tag).await.unwrap();
        let sight = || {
            store.record_sight(&recorded.repository, &recorded.tag, seq, Look::now(Some(&newer)))
        };
        assert!(sight().await.unwrap());
        assert!(!sight().await.unwrap(), "the tag has an entry more than before the look");
    }
    assert_eq!(store.overtaken().await.unwrap(), [id]);
    assert_eq!(store.compared().await.unwrap().left, 0);
    store.compare_again().await.unwrap();
    assert_eq!(store.compared().await.unwrap().left, 2);
    hand.compared().await;
    assert_eq!(store.compared().await.unwrap().same, 2);
    assert_eq!(store.overtaken().await.unwrap(), [id]);
}

/// The reconciler writes while everything is held.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_with_a_newer_entry_is_compared_again() {
    let hand = Hand::new().await;
    let store = &hand.base.store;
    let id = hand.accept(&request(TWO), 1).await;
    hand.base.pass(Duration::from_secs(1)).await;
    store.begin_restored("ops", "a snapshot").await.unwrap();
    hand.compared().await;
    assert_eq!(store.overtaken().await.unwrap(), Vec::<Uuid>::new());
    // As if each had an entry more since.
    let earlier = sqlx::query("UPDATE restore_finding SET tag_seq = tag_seq - 1");
    earlier.execute(&hand.base.pool).await.unwrap();
    assert_eq!(store.compared().await.unwrap().left, 2);
    assert_eq!(store.to_compare(None, 100).await.unwrap().len(), 2);
    assert_eq!(store.overtaken().await.unwrap(), [id]);
}
