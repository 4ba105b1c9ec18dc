//! SIGKILL of the worker at every named step of a release, for each phase; another worker
//! finishes it. Prints what became of each.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use colophon_testkit::{
    image::ImageSpec,
    proxy::{Action, Fault, Rule},
};
use colophon_tests::PATIENCE;
use http::Method;

use crate::{
    kill::{Crew, LONG_TIMES, Lock, seconds},
    ledger_check,
};

/// A step of a worker after which it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    /// The job is claimed and nothing is done.
    Claim,
    /// A blob is on its way.
    MidCopy,
    /// The first transaction of a move is open.
    InTx1,
    /// The intent is committed; the PUT never arrives.
    Tx1,
    /// The PUT is sent; it reaches the registry after its sender died.
    PutSent,
    /// The registry has obeyed; its answer never arrives.
    PutAnswered,
    /// The PUT was answered; the look afterwards is under way.
    Head,
    /// The second transaction of a move is open.
    Tx2,
    /// The end of the job is being written, and what follows from it.
    FanIn,
    /// All of that is committed, and the worker does not hear of it.
    Committed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Copy,
    Unique,
    Floating,
}

impl Phase {
    fn points(self) -> &'static [Point] {
        use Point::{
            Claim, Committed, FanIn, Head, InTx1, MidCopy, PutAnswered, PutSent, Tx1, Tx2,
        };
        match self {
            Self::Copy => &[Claim, MidCopy, PutSent, PutAnswered, FanIn, Committed],
            Self::Unique | Self::Floating => {
                &[Claim, InTx1, Tx1, PutSent, PutAnswered, Head, Tx2, FanIn, Committed]
            }
        }
    }

    /// The kind of its jobs.
    fn kind(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Unique => "unique",
            Self::Floating => "floating",
        }
    }

    /// The tag that the worker is killed over. A copy has none of its own.
    fn tag(self) -> &'static str {
        match self {
            Self::Copy | Self::Unique => "1.0.0",
            Self::Floating => "1",
        }
    }
}

/// What holds the worker at its point, and what is let go when it is dead.
enum Held {
    /// A request that never arrives, or an answer.
    Dropped(Fault),
    /// A request that arrives although its sender is dead.
    Forwarded(Fault),
    /// A row.
    Locked(Lock),
}

struct Row {
    phase: Phase,
    point: Point,
    took: Duration,
    story: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_at_any_step_is_replaced() {
    let rows = tokio::join!(phase(Phase::Copy), phase(Phase::Unique), phase(Phase::Floating));
    let mut table =
        String::from("\nkilled at               | to the end, s | entries of the tag\n");
    for row in rows.0.iter().chain(&rows.1).chain(&rows.2) {
        let point = format!("{} {:?}", row.phase.kind(), row.point);
        writeln!(table, "{point:<24}| {:>13} | {}", seconds(row.took), row.story).unwrap();
    }
    println!("{table}");
}

async fn phase(phase: Phase) -> Vec<Row> {
    let mut crew = Crew::with(LONG_TIMES, 2).await;
    let mut rows = Vec::new();
    for point in phase.points() {
        rows.push(killed(&mut crew, phase, *point).await);
    }
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
    rows
}

/// One release whose worker is killed.
async fn killed(crew: &mut Crew, phase: Phase, point: Point) -> Row {
    let repository = format!("{}-{point:?}", phase.kind()).to_lowercase();
    println!("killing at {repository}");
    // The floating tag is there already, and the unique one is new.
    let old = crew.image(&ImageSpec::tiny(format!("{repository} old")), &repository).await;
    crew.publish_well(&old, &repository, &[], &["1"]).await;
    let new = crew.image(&ImageSpec::tiny(format!("{repository} new")), &repository).await;

    let (release, held) = match phase {
        Phase::Copy => reach_in_copy(crew, &repository, &new, point).await,
        Phase::Unique | Phase::Floating => {
            // While the copy is held nothing looks at a tag: the check of the unique tags is
            // over, and their jobs are not there yet.
            let gate = crew.target.proxy().add(uploads(&repository, Action::HoldBefore));
            let release = crew.publish(&new, &repository, &["1.0.0"], &["1"]).await;
            gate.reached(PATIENCE).await.unwrap();
            let held = reach_in_move(crew, &repository, &release, phase, point, &gate).await;
            (release, held)
        }
    };
    crew.kill_holder(&release, phase.kind()).await;
    let since = Instant::now();
    match held {
        Held::Dropped(fault) => fault.drop_connections(),
        Held::Forwarded(fault) => {
            crew.lands(&fault).await;
        }
        Held::Locked(lock) => {
            lock.release().await;
            crew.let_commits_pass().await;
        }
    }
    crew.time_passes(&release).await;
    crew.hire().await;
    let ended = crew.succeeds(&release).await;
    let took = since.elapsed();
    let attempts = ended["attempts"].as_array().unwrap().len();
    assert_eq!(
        attempts,
        usize::from(point != Point::Committed),
        "a death is an attempt: {ended:#}"
    );

    let story = ledger_check::story(&crew.world, &crew.target, &repository, phase.tag()).await;
    let words = story.words();
    let own = words
        .trim_start_matches("baseline ")
        .trim_start_matches(if phase == Phase::Floating { "intent confirmed " } else { "" });
    assert_eq!(own, expected(phase, point), "{repository}: {words}\n{}", crew.logs());
    crew.target.proxy().clear();
    Row { phase, point, took, story: own.to_owned() }
}

/// What the ledger says about the tag afterwards.
fn expected(phase: Phase, point: Point) -> &'static str {
    match (phase, point) {
        (Phase::Copy, _) | (_, Point::Claim | Point::MidCopy | Point::InTx1 | Point::Committed) => {
            "intent confirmed"
        }
        (_, Point::Tx1) => "intent not_applied intent confirmed",
        (_, Point::PutSent | Point::PutAnswered | Point::Head | Point::Tx2 | Point::FanIn) => {
            "intent recovered"
        }
    }
}

fn uploads(repository: &str, action: Action) -> Rule {
    Rule::new(action).method(Method::POST).path(format!("/v2/{repository}/blobs/uploads/"))
}

fn manifest(repository: &str, reference: &str, method: Method, action: Action) -> Rule {
    Rule::new(action).method(method).path(format!("/v2/{repository}/manifests/{reference}"))
}

async fn reach_in_copy(
    crew: &Crew,
    repository: &str,
    source: &str,
    point: Point,
) -> (String, Held) {
    let put = |action| manifest(repository, "sha256:", Method::PUT, action);
    let rule = match point {
        // The check of the unique tags is the first thing that a copy job does.
        Point::Claim => manifest(repository, "1.0.0", Method::HEAD, Action::HoldBefore),
        Point::MidCopy => Rule::new(Action::HoldBefore)
            .method(Method::PUT)
            .path(format!("/v2/{repository}/blobs/uploads/")),
        Point::PutSent => put(Action::HoldBefore),
        _ => put(Action::HoldAfter),
    };
    let fault = crew.target.proxy().add(rule);
    let release = crew.publish(source, repository, &["1.0.0"], &["1"]).await;
    fault.reached(PATIENCE).await.unwrap();
    let held = match point {
        Point::Committed => {
            let mut lock = crew.stop_commits("job", "NEW.kind = 'unique'").await;
            fault.forward();
            crew.somebody_waits_for(&mut lock).await;
            Held::Locked(lock)
        }
        Point::PutSent => Held::Forwarded(fault),
        Point::FanIn => {
            let mut lock = crew.lock_release(&release).await;
            fault.forward();
            crew.somebody_waits_for(&mut lock).await;
            Held::Locked(lock)
        }
        _ => Held::Dropped(fault),
    };
    (release, held)
}

async fn reach_in_move(
    crew: &Crew,
    repository: &str,
    release: &str,
    phase: Phase,
    point: Point,
    gate: &Fault,
) -> Held {
    let tag = phase.tag();
    let proxy = crew.target.proxy();
    let head = |action| manifest(repository, tag, Method::HEAD, action).when(ends_with(tag));
    let put = |action| manifest(repository, tag, Method::PUT, action).when(ends_with(tag));
    let fault = proxy.add(match point {
        Point::Claim => head(Action::HoldBefore),
        Point::InTx1 => head(Action::HoldAfter),
        Point::Tx1 | Point::PutSent => put(Action::HoldBefore),
        _ => put(Action::HoldAfter),
    });
    gate.forward();
    fault.reached(PATIENCE).await.unwrap();
    match point {
        Point::PutSent => Held::Forwarded(fault),
        Point::Head => {
            let look = proxy.add(head(Action::HoldBefore));
            fault.forward();
            look.reached(PATIENCE).await.unwrap();
            Held::Dropped(look)
        }
        Point::InTx1 | Point::Tx2 | Point::FanIn | Point::Committed => {
            let mut lock = match point {
                Point::Committed => {
                    crew.stop_commits("audit_entry", "NEW.kind = 'confirmed'").await
                }
                Point::FanIn => crew.lock_release(release).await,
                _ => crew.lock_head(repository, tag).await,
            };
            fault.forward();
            crew.somebody_waits_for(&mut lock).await;
            Held::Locked(lock)
        }
        _ => Held::Dropped(fault),
    }
}

/// The tag `1` is the beginning of the tag `1.0.0`.
fn ends_with(
    tag: &str,
) -> impl Fn(&colophon_testkit::proxy::Exchange) -> bool + Send + Sync + use<> {
    let end = format!("/{tag}");
    move |exchange| exchange.path.ends_with(&end)
}
