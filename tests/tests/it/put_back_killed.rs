//! SIGKILL of the worker that puts a tag back, at each step; another one finishes it.

use colophon_testkit::{image::ImageSpec, proxy::Action};
use colophon_tests::{PATIENCE, Site};
use http::Method;

use crate::{
    kill::{Crew, LONG_TIMES},
    ledger_check,
    release_scene::state,
    safe_scene::{about, digest, refuses_when_let, served, two_targets},
};

/// Where the worker dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    /// The intent is committed; the PUT never arrives.
    Intent,
    /// The PUT arrives after its sender died.
    Put,
    /// The registry has obeyed; nobody has written it.
    Outcome,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_while_it_puts_back_is_replaced() {
    let (mut crew, second) = two_targets(LONG_TIMES, 2).await;
    for point in [Point::Intent, Point::Put, Point::Outcome] {
        killed(&mut crew, &second, point).await;
    }
    ledger_check::check(&crew.world, &crew.source, &[&crew.target, &second]).await;
    ledger_check::puts_never_overlap(&crew.target);
}

async fn killed(crew: &mut Crew, second: &Site, point: Point) {
    let name = format!("{point:?}").to_lowercase();
    let old = crew.image(&ImageSpec::tiny(format!("{name} old")), &name).await;
    let new = crew.image(&ImageSpec::tiny(format!("{name} new")), &name).await;
    crew.publish_well(&old, &name, &[], &["latest"]).await;
    let look = refuses_when_let(second, &name, "latest");
    let (action, nth) = match point {
        Point::Intent | Point::Put => (Action::HoldBefore, 2),
        Point::Outcome => (Action::HoldAfter, 2),
    };
    // The first one publishes, the second one puts back.
    let put = crew.target.proxy().add(about(action, Method::PUT, &name, "latest").nth(nth));
    let here = (crew.target.repository(&name), second.repository(&name));
    let targets: [colophon_tests::Target<'_>; 2] =
        [(&here.0, &[], &["latest"]), (&here.1, &[], &["latest"])];
    let id = crew.client.publish(&new, &targets).await.unwrap();
    look.reached(PATIENCE).await.unwrap();
    served(&crew.target, &name, "latest", &new).await;
    look.forward();
    put.reached(PATIENCE).await.unwrap();
    crew.kill_holder(&id, "restore").await;
    if point == Point::Put {
        crew.lands(&put).await;
    } else {
        put.drop_connections();
    }
    crew.time_passes(&id).await;
    crew.hire().await;
    let release = crew.client.wait_end(&id).await.unwrap();
    assert_eq!(state(&release), "FAILED REGISTRY_UNAUTHORIZED", "{release:#}\n{}", crew.logs());
    assert_eq!(crew.target.inspect(&name, "latest").await.unwrap(), digest(&old));
    let words = ledger_check::story(&crew.world, &crew.target, &name, "latest").await.words();
    let publish = "intent confirmed intent confirmed ";
    let back = words.strip_prefix(publish).unwrap_or(&words);
    let expected = match point {
        Point::Intent => "intent not_applied intent confirmed",
        Point::Put | Point::Outcome => "intent recovered",
    };
    assert_eq!(back, expected, "{point:?}\n{}", crew.logs());
}
