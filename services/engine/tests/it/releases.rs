//! What callers do: publish, plan, roll back, cancel, freeze, settle by hand.

use std::{fmt::Write as _, time::Duration};

use colophon_domain::{
    FreezeRequest, PlanView, Position, Principal, Reason, ReleaseRequest, ReleaseView, Result,
    RollbackRequest, RollbackSubject, Settlement,
};
use colophon_engine::Author;
use uuid::Uuid;

use crate::{accepting::Asked, model::Freeze, registry::Key, world::World};

/// A request that may be sent again.
pub(crate) struct Sent {
    pub(crate) request: ReleaseRequest,
    pub(crate) id: Uuid,
}

const CALLER: &str = "ci";

impl World {
    /// Sends a request; its own requests to registries are answered at once.
    pub(crate) async fn publish(&mut self, request: &ReleaseRequest) -> Result<ReleaseView> {
        self.accept(request, None).await
    }

    pub(crate) async fn accept(
        &mut self,
        request: &ReleaseRequest,
        plan: Option<&PlanView>,
    ) -> Result<ReleaseView> {
        self.registry.open(true);
        let accepted = self.engine.create_release(CALLER, request).await;
        self.registry.open(false);
        let said = match &accepted {
            Ok(_) => format!("r{} {}", self.releases.len(), shown(request)),
            Err(failure) => format!("{} {}", failure.reason(), shown(request)),
        };
        self.say(if accepted.is_ok() { "publish" } else { "refused" }, said);
        if let Ok(view) = &accepted {
            self.model.accept(view, Asked::Publish(request, plan));
            self.releases.push(view.id);
            if request.idempotency_key.is_some() {
                self.sent.push(Sent { request: request.clone(), id: view.id });
            }
        }
        accepted
    }

    pub(crate) async fn plan(&mut self, request: &ReleaseRequest) -> Result<PlanView> {
        self.registry.open(true);
        let plan = self.engine.plan(request).await;
        self.registry.open(false);
        self.say("plan", shown(request));
        if let Ok(plan) = &plan {
            self.model.check_plan(plan, request, &self.registry);
        }
        plan
    }

    /// The same request again makes the same release; another one under its key none.
    pub(crate) async fn send_again(&mut self, at: usize) {
        let Sent { request, id } = &self.sent[at];
        let (mut other, id) = (request.clone(), *id);
        self.registry.open(true);
        let again = self.engine.create_release(CALLER, request).await.unwrap();
        other.source = crate::requests::source(&self.images[0], "one.test/other");
        let failure = self.engine.create_release(CALLER, &other).await.unwrap_err();
        self.registry.open(false);
        assert_eq!(again.id, id, "a key made two releases");
        assert_eq!(failure.reason(), Reason::IdempotencyKeyReused);
        self.say("again", at);
    }

    pub(crate) async fn roll_back(
        &mut self,
        subject: RollbackSubject,
        break_glass: bool,
    ) -> Result<ReleaseView> {
        let text = match &subject {
            RollbackSubject::Tag { repository, tag, position, .. } => match position {
                Position::Steps(steps) => format!("{repository}:{tag} by {steps}"),
                Position::At(_) => format!("{repository}:{tag} to a time"),
                Position::To(digest) => format!("{repository}:{tag} to {digest:.15}"),
            },
            RollbackSubject::Release(id) => {
                format!("of r{:?}", self.releases.iter().position(|known| known == id))
            }
        };
        let of = match &subject {
            RollbackSubject::Release(id) => Some(*id),
            RollbackSubject::Tag { .. } => None,
        };
        let request = RollbackRequest {
            subject,
            reason: "on call".into(),
            on_behalf_of: String::new(),
            labels: std::collections::BTreeMap::new(),
            idempotency_key: None,
            break_glass,
        };
        self.registry.open(true);
        let ops = Principal { name: "ops".into(), grants: Vec::new() };
        let accepted = self.engine.rollback(&ops, &request).await;
        self.registry.open(false);
        let said = match &accepted {
            Ok(_) => format!("r{} {text}", self.releases.len()),
            Err(failure) => format!("{} {text}", failure.reason()),
        };
        self.say(if accepted.is_ok() { "rollback" } else { "no rollback" }, said);
        if let Ok(view) = &accepted {
            self.model.accept(view, Asked::Rollback { of, break_glass });
            self.releases.push(view.id);
        }
        accepted
    }

    pub(crate) async fn cancel(&mut self, at: usize) {
        let id = self.releases[at];
        let cancelled = self.engine.cancel_release(id, "ops", "not now").await;
        match &cancelled {
            Ok(()) => self.model.releases.get_mut(&id).unwrap().cancelled = true,
            Err(failure) => assert_eq!(failure.reason(), Reason::NotCancellable, "{failure}"),
        }
        self.say("cancel", format_args!("r{at} {}", cancelled.is_ok()));
        self.sync().await;
    }

    pub(crate) async fn freeze(&mut self, pattern: &str, time: Duration) {
        let ends_at = colophon_domain::Clock::now(&*self.base.clock) + time;
        let pattern: colophon_domain::RepositoryPattern = pattern.parse().unwrap();
        let request = FreezeRequest { pattern: pattern.clone(), reason: "night".into(), ends_at };
        let view = self.engine.freeze("ops", &request).await.unwrap();
        let ends_at = self.now() + i64::try_from(time.as_millis()).unwrap();
        self.say("freeze", format_args!("{pattern} for {time:?}"));
        self.model.freezes.push(Freeze { id: view.id, pattern, ends_at, lifted: false });
    }

    pub(crate) async fn lift(&mut self, at: usize) {
        let id = self.model.freezes[at].id;
        self.engine.lift("ops", id, "morning").await.unwrap();
        self.model.freezes[at].lifted = true;
        self.say("lift", at);
    }

    /// A person says what became of a move, and is right where there is a choice. The registry is
    /// asked before, and answers or does not.
    pub(crate) async fn settle(&mut self, key: &Key) {
        let now = self.now();
        let served = self.registry.digest(key);
        let tag = self.model.tag(key);
        let open = tag.open.clone();
        let moved = open.as_ref().is_some_and(|open| open.new == served);
        let settlement = if moved { Settlement::Moved } else { Settlement::NotMoved };
        let author = Author {
            principal: "ops".into(),
            on_behalf_of: String::new(),
            reason: "saw it".into(),
        };
        let repository = colophon_domain::Repository::parse(&key.0).unwrap();
        // A registry that asked for a pause is not asked.
        let deaf = self.chance(50) || self.paused;
        self.registry.deaf(deaf);
        self.registry.open(!deaf);
        let settled =
            self.engine.settle(&repository, &key.1.parse().unwrap(), settlement, &author).await;
        self.registry.open(false);
        self.registry.deaf(false);
        match &settled {
            Ok(_) => {
                let open = open.unwrap_or_else(|| panic!("{key:?}: nothing was open"));
                assert!(open.resolve_after <= now, "{key:?}: settled too early");
                // What a person says may be wrong, and then the ledger is.
                let known = served == open.new || served == open.old;
                assert!(known || deaf, "{key:?}: settled in spite of what the registry shows");
                self.model.tag(key).touched |= !known;
            }
            Err(failure) => {
                assert_eq!(failure.reason(), Reason::NotUnknown, "{failure}");
                let early = open.as_ref().is_none_or(|open| open.resolve_after > now);
                let elsewhere = open.is_some_and(|open| served != open.new && served != open.old);
                assert!(early || elsewhere && !deaf, "{key:?}: could not be settled");
            }
        }
        self.say("settle", format_args!("{}:{} {settlement} {}", key.0, key.1, settled.is_ok()));
        self.sync().await;
    }
}

/// A request in a line.
fn shown(request: &ReleaseRequest) -> String {
    let mut text = request.source.to_string();
    text.truncate(50);
    for target in &request.targets {
        let _ = write!(text, " -> {}", target.repository);
        for tag in &target.tags {
            let order = tag.order.as_ref().map(|order| format!("#{order}")).unwrap_or_default();
            let _ = write!(text, " {}{order}", tag.tag);
        }
    }
    if let Some(version) = &request.version {
        let _ = write!(text, " as {}", version.version);
    }
    for (flag, word) in [
        (request.allow_backward, " backward"),
        (request.break_glass, " glass"),
        (request.plan.is_some(), " planned"),
    ] {
        text += if flag { word } else { "" };
    }
    text
}
