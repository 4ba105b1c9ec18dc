//! What the model knows of a release when it is accepted, and what a plan must show.

use std::collections::BTreeMap;

use colophon_domain::{
    IfOlder, OrderKey, PlanView, Purpose, Reason, ReleaseRequest, ReleaseView, TagKind,
    TagMoveState, TagMoveView, TagRequest,
};
use uuid::Uuid;

use crate::{
    model::Model,
    registry::{Key, Registry},
    rules::{Accepted, TagModel, Wish},
    sights::{highest_of, line_of},
    verdicts::Verdict,
};

/// What was asked for.
#[derive(Clone, Copy)]
pub(crate) enum Asked<'a> {
    Publish(&'a ReleaseRequest, Option<&'a PlanView>),
    /// A rollback, of a release if it is not one of a tag.
    Rollback {
        of: Option<Uuid>,
        break_glass: bool,
    },
}

/// A tag of a request, if it is named in it.
fn named<'a>(request: &'a ReleaseRequest, key: &Key) -> Option<&'a TagRequest> {
    let mut targets = request.targets.iter();
    let target = targets.find(|target| target.repository.to_string() == key.0)?;
    target.tags.iter().find(|tag| tag.tag.as_str() == key.1)
}

/// What follows from the request for one tag.
fn wish_of(request: &ReleaseRequest, key: &Key, kind: TagKind, wanted: String) -> Wish {
    let named = named(request, key);
    let version = request.version.as_ref().filter(|_| kind == TagKind::Floating);
    let line = version.and_then(|asked| line_of(&asked.version, &key.1));
    let version = version.filter(|_| line.is_some());
    let stays = version.is_some_and(|it| !it.version.is_plain() && !it.moves_pre_release);
    Wish {
        kind,
        // As if it was accepted later than everything that is there.
        ticket: i64::MAX,
        order: version
            .map(|asked| OrderKey::Semver(asked.version.clone()))
            .or_else(|| named.and_then(|named| named.order.clone())),
        if_older: match (line, named) {
            (Some(_), _) => IfOlder::Keep,
            (None, Some(named)) => named.if_older,
            (None, None) => IfOlder::Refuse,
        },
        line,
        kept: stays.then_some(Reason::PreRelease),
        expected: named.and_then(|it| Some(it.expected.as_ref()?.as_str().to_owned())),
        wanted,
        planned: None,
    }
}

impl Model {
    /// A release was accepted.
    pub(crate) fn accept(&mut self, view: &ReleaseView, asked: Asked<'_>) {
        let mut wishes = BTreeMap::new();
        for (at, publication) in view.publications.iter().enumerate() {
            for tag in &publication.tags {
                let key = (publication.repository.to_string(), tag.tag.to_string());
                let wanted = tag.wanted.as_ref().unwrap_or(&view.digest).to_string();
                let wish = match asked {
                    Asked::Publish(request, plan) => {
                        let plan = plan.map(|plan| &plan.publications[at]);
                        let planned = plan
                            .and_then(|it| it.tags.iter().find(|planned| planned.tag == tag.tag));
                        let mut wish = wish_of(request, &key, tag.kind, wanted);
                        if let Some(planned) = planned {
                            let old = planned.old.as_ref().map(ToString::to_string);
                            let kept = planned.outcome == TagMoveState::Kept;
                            wish.kept = planned.reason.filter(|_| kept);
                            if !kept {
                                let here = old.clone().unwrap_or_else(|| "none".to_owned());
                                wish.expected = Some(here);
                            }
                            wish.planned = Some((old, planned.outcome));
                        }
                        wish
                    }
                    Asked::Rollback { of, .. } => self.way_back(of, &key, tag, wanted),
                };
                Self::as_asked(&key, tag, &wish);
                let ticket = tag.ticket.unwrap_or_default();
                if view.purpose == Purpose::Rollback && wish.kept.is_none() {
                    self.tag(&key).barriers.insert(view.id, ticket);
                }
                wishes.insert(key, Wish { ticket, ..wish });
            }
        }
        if view.purpose == Purpose::Rollback {
            self.rollbacks.push(view.id);
        }
        self.releases.insert(view.id, accepted(view, asked, wishes));
    }

    /// A release says of its tag what was asked for.
    fn as_asked(key: &Key, tag: &TagMoveView, wish: &Wish) {
        let kept = tag.reason.filter(|_| tag.state == TagMoveState::Kept);
        assert_eq!(kept, wish.kept, "{key:?}: stays, or does not");
        assert_eq!(tag.order, wish.order, "{key:?}: ordered otherwise");
        assert_eq!(tag.expected, wish.expected, "{key:?}: expected elsewhere");
    }

    /// One tag of a rollback. That of a release goes back to what was there before it.
    fn way_back(&self, of: Option<Uuid>, key: &Key, tag: &TagMoveView, wanted: String) -> Wish {
        let mut kept = None;
        if let Some(id) = of {
            let before = self.before(id, key);
            if tag.state == TagMoveState::Kept {
                assert!(before.contains(&None), "{key:?}: there was something before");
                kept = Some(Reason::NotInHistory);
            } else {
                assert!(before.contains(&Some(wanted.clone())), "{key:?}: back to elsewhere");
            }
        }
        Wish {
            kind: TagKind::Floating,
            ticket: 0,
            order: None,
            if_older: IfOlder::Refuse,
            line: None,
            kept,
            expected: tag.expected.clone(),
            wanted,
            planned: None,
        }
    }

    /// What was there before a release, or before those that failed before it and left it the tag.
    pub(crate) fn before(&self, id: Uuid, key: &Key) -> Vec<Option<String>> {
        let mut made = self.releases[&id].made.get(key);
        let mut all = Vec::new();
        while let Some(it) = made {
            all.push(it.old.clone());
            made = it.before.mover.and_then(|id| self.releases[&id].made.get(key));
        }
        all
    }

    /// What a plan shows must be what the rules say now.
    pub(crate) fn check_plan(
        &self,
        plan: &PlanView,
        request: &ReleaseRequest,
        registry: &Registry,
    ) {
        for publication in &plan.publications {
            let place = publication.repository.to_string();
            for tag in &publication.tags {
                let key = (place.clone(), tag.tag.to_string());
                let wish = wish_of(request, &key, tag.kind, plan.digest.to_string());
                let seen = registry.digest(&key);
                assert_eq!(tag.old.as_ref().map(ToString::to_string), seen, "{key:?}: planned");
                let highest = match (&wish.order, wish.line) {
                    (Some(OrderKey::Semver(own)), Some(line)) => {
                        highest_of(self.versions(registry, &place).into_iter(), line, own)
                    }
                    _ => None,
                };
                let nobody = TagModel::default();
                let known = self.tags.get(&key).unwrap_or(&nobody);
                let verdict = match wish.kept {
                    Some(reason) => Verdict::Left(TagMoveState::Kept, reason),
                    None => {
                        asked_for(request).verdict(&wish, known, seen.as_ref(), highest.as_ref())
                    }
                };
                let shown = match (tag.outcome, tag.reason) {
                    (TagMoveState::Moved, None) => Verdict::Moves,
                    (TagMoveState::Unchanged, None) => Verdict::Unchanged,
                    (state, reason) => Verdict::Left(state, reason.unwrap()),
                };
                assert_eq!(shown, verdict, "{key:?}: planned");
            }
        }
    }
}

/// A release that nobody has accepted yet.
fn asked_for(request: &ReleaseRequest) -> Accepted {
    Accepted {
        purpose: Purpose::Publish,
        allow_backward: request.allow_backward,
        break_glass: request.break_glass,
        planned: false,
        not_after: request.not_after,
        on_failure: request.on_failure,
        cancelled: false,
        wishes: BTreeMap::new(),
        made: BTreeMap::new(),
    }
}

fn accepted(view: &ReleaseView, asked: Asked<'_>, wishes: BTreeMap<Key, Wish>) -> Accepted {
    let (allow_backward, break_glass, planned) = match asked {
        Asked::Publish(request, plan) => {
            (request.allow_backward, request.break_glass, plan.is_some())
        }
        Asked::Rollback { break_glass, .. } => (false, break_glass, false),
    };
    assert_eq!(view.break_glass, break_glass);
    Accepted {
        purpose: view.purpose,
        allow_backward,
        break_glass,
        planned,
        not_after: view.not_after,
        on_failure: view.on_failure,
        cancelled: false,
        wishes,
        made: BTreeMap::new(),
    }
}
