//! `colophond dev`: one command starts everything, fills it, says what is missing, keeps what it
//! should, and leaves no process behind, however it ends.

use std::{
    collections::BTreeSet,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use colophon_testkit::{
    launcher::process::{Process, Signal, bound},
    wait::{binary, wait_until},
};
use colophon_tests::World;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(90);

/// A started `colophond dev`, and a folder of the test's own.
struct Dev {
    process: Process,
    folder: TempDir,
}

impl Dev {
    /// Starts it with a `PATH` of the test's choice.
    async fn start(path: &str, arguments: &[&str]) -> Self {
        // PostgreSQL runs as a user of its own where the test is root.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        let folder = tempfile::Builder::new().permissions(open).tempdir().unwrap();
        let process = launch(path, arguments, folder.path(), "first.log").await;
        Self { process, folder }
    }

    /// Waits for its first screen, and gives it.
    async fn screen(&mut self) -> String {
        self.process.until_log("In another terminal", PATIENCE).await.unwrap();
        let commands = async || {
            let text = self.process.log();
            (text.matches("  export ").count() == 2).then_some(text)
        };
        wait_until("the screen is whole", PATIENCE, commands).await.unwrap()
    }
}

async fn launch(path: &str, arguments: &[&str], folder: &Path, log: &str) -> Process {
    let command = command(path, arguments, folder);
    Process::spawn("colophond dev", command, &folder.join(log)).await.unwrap()
}

fn command(path: &str, arguments: &[&str], folder: &Path) -> Command {
    let mut command = bound(binary("colophond").unwrap()).unwrap();
    command.env_clear().env("PATH", path).env("TMPDIR", folder).current_dir(folder);
    command.arg("dev").args(["--listen", "127.0.0.1:0"]).args(arguments);
    command
}

/// The machine's `PATH`, with `OpenBao` where `make setup` puts it.
fn whole_path() -> String {
    let path = std::env::var("PATH").unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(1).unwrap();
    format!("{path}:{}", root.join(".cache/venv/bin").display())
}

/// What stands after a name on the screen.
fn part<'a>(screen: &'a str, name: &str) -> &'a str {
    let line = screen.lines().find_map(|line| line.trim_start().strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {screen}")).split_whitespace().next().unwrap()
}

/// Types the commands of the screen into a shell, and those that a test adds.
fn shell(screen: &str, commands: &str) -> String {
    let exports = screen.lines().filter(|line| line.starts_with("  export "));
    let script = exports.map(str::trim).chain([commands]).collect::<Vec<_>>().join("\n");
    let programs = binary("colophon").unwrap().parent().unwrap().to_owned();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-euc", &script])
        .env_clear()
        .env("PATH", path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// The processes below one, at any depth.
fn below(id: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut next = vec![id];
    while let Some(id) = next.pop() {
        for task in std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children"));
            for child in children.unwrap_or_default().split_whitespace() {
                let child = child.parse().unwrap();
                if found.insert(child) {
                    next.push(child);
                }
            }
        }
    }
    found
}

/// Still there, and no zombie that whoever adopted it has not reaped yet.
fn lives(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|text| !text.contains(") Z "))
}

async fn gone(ids: &BTreeSet<u32>) {
    let all = async || (!ids.iter().copied().any(lives)).then_some(());
    wait_until("no process is left", PATIENCE, all).await.unwrap();
}

#[tokio::test]
async fn one_command_publishes_an_example_and_takes_everything_along_when_it_ends() {
    let mut dev = Dev::start(&whole_path(), &["--ephemeral"]).await;
    let screen = dev.screen().await;
    let (staging, production) = (part(&screen, "staging"), part(&screen, "production"));
    assert!(screen.contains("its PAT is in Vault"), "{screen}");
    let history = shell(&screen, &format!("colophon history {production}/hello:latest"));
    assert!(history.contains("the example of colophond dev"), "{history}");
    let publish =
        format!("colophon publish {staging}/hello:build-2 --semver 1.1.0 --to {production}/hello");
    assert!(screen.contains(&publish), "the screen tells the next command: {screen}");
    assert!(shell(&screen, &publish).contains("SUCCEEDED"));
    let beside = below(dev.process.id());
    assert!(beside.len() > 4, "PostgreSQL, two registries and OpenBao: {beside:?}");
    // As when the terminal is closed.
    let status = dev.process.stop(Signal::HUP, PATIENCE).await.unwrap();
    assert!(status.success(), "{status}: {}", dev.process.log());
    gone(&beside).await;
    let left = std::fs::read_dir(dev.folder.path()).unwrap().flatten().map(|entry| entry.path());
    let left: Vec<PathBuf> = left
        .filter(|path| !path.to_string_lossy().contains("colophon-ports-"))
        .filter(|path| !path.ends_with("first.log"))
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "--ephemeral leaves nothing");
}

#[tokio::test]
async fn the_quick_start_does_what_it_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/quick-start.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, page) = page.split_once("## Look at what is there").unwrap();
    let (page, _) = page.split_once("## A service of your own").unwrap();
    let mut dev = Dev::start(&whole_path(), &["--ephemeral"]).await;
    let screen = dev.screen().await;
    let page = page
        .replace("127.0.0.1:5000", part(&screen, "staging"))
        .replace("127.0.0.1:5001", part(&screen, "production"));
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let said: Vec<String> = blocks.map(|block| shell(&screen, block)).collect();
    let [look, publish, refused, plan, back, freeze] = said.as_slice() else { panic!("{said:#?}") };
    assert!(look.contains("the example of colophond dev"), "{look}");
    for (tag, state) in [("1.1.0", "MOVED"), ("1.1", "MOVED"), ("1", "MOVED"), ("latest", "MOVED")]
    {
        assert_eq!(state_of(publish, tag), Some(state), "{publish}");
    }
    assert!(refused.contains("TAG_IMMUTABLE"), "{refused}");
    for (tag, kept) in [("1.0", false), ("1", true), ("latest", true)] {
        assert_eq!(state_of(plan, tag) == Some("KEPT"), kept, "{tag}: {plan}");
    }
    assert_eq!(state_of(back, "latest"), Some("MOVED"), "{back}");
    assert!(freeze.contains("an audit") && freeze.contains("done"), "{freeze}");
    dev.process.stop(Signal::TERM, PATIENCE).await.unwrap();
}

/// The word behind a tag in a table of tags.
fn state_of<'a>(table: &'a str, tag: &str) -> Option<&'a str> {
    table.lines().find_map(|line| {
        let mut cells = line.split_whitespace();
        let kind = cells.next()?;
        let named = ["unique", "floating"].contains(&kind) && cells.next()? == tag;
        if named { cells.next() } else { None }
    })
}

#[tokio::test]
async fn no_process_is_left_when_it_is_killed() {
    let mut dev = Dev::start(&whole_path(), &["--ephemeral"]).await;
    dev.screen().await;
    let beside = below(dev.process.id());
    assert!(beside.len() > 4, "{beside:?}");
    dev.process.kill();
    gone(&beside).await;
}

#[tokio::test]
async fn a_kept_folder_comes_back_as_it_was_and_serves_one_at_a_time() {
    // The screen's commands are for a shell.
    let again = ["--folder", "what's kept"];
    let mut dev = Dev::start(&whole_path(), &again).await;
    let screen = dev.screen().await;
    let history = "colophon history \"$TAG\" --output json | jq -r '.moves[].newDigest'";
    let history = format!("TAG={}/hello:latest\n{history}", part(&screen, "production"));
    let before = shell(&screen, &history);
    assert!(before.starts_with("sha256:"), "{before}");
    let mut second = launch(&whole_path(), &again, dev.folder.path(), "second.log").await;
    assert_eq!(second.wait(PATIENCE).await.unwrap().code(), Some(1));
    assert!(second.log().contains("another `colophond dev` uses"), "{}", second.log());
    // As when the machine loses its power.
    let beside = below(dev.process.id());
    dev.process.kill();
    gone(&beside).await;
    dev.process = launch(&whole_path(), &again, dev.folder.path(), "third.log").await;
    let screen = dev.screen().await;
    assert_eq!(shell(&screen, &history), before, "the same ledger, registry and token");
    assert!(dev.process.stop(Signal::TERM, PATIENCE).await.unwrap().success());
}

#[tokio::test]
async fn two_folders_on_one_database_have_an_example_each() {
    let world = World::new().await.unwrap();
    for _ in 0..2 {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(&whole_path(), &["--ephemeral"], folder.path());
        command.env("COLOPHON_DEV_DATABASE_URL", world.database().url());
        let log = folder.path().join("log");
        let process = Process::spawn("colophond dev", command, &log).await.unwrap();
        let mut dev = Dev { process, folder };
        let screen = dev.screen().await;
        let tag = format!("{}/hello:latest", part(&screen, "production"));
        let history = shell(&screen, &format!("colophon history {tag}"));
        assert!(history.contains("the example of colophond dev"), "{history}");
        assert!(dev.process.stop(Signal::TERM, PATIENCE).await.unwrap().success());
    }
}

#[tokio::test]
async fn a_folder_with_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("colophon.toml");
    std::fs::write(&own, "# mine\n").unwrap();
    let before = std::fs::metadata(folder.path()).unwrap().permissions();
    let mut dev = launch(&whole_path(), &["--folder", "."], folder.path(), "log").await;
    assert_eq!(dev.wait(PATIENCE).await.unwrap().code(), Some(1));
    assert!(dev.log().contains("holds something else"), "{}", dev.log());
    assert_eq!(std::fs::read_to_string(own).unwrap(), "# mine\n");
    assert_eq!(std::fs::metadata(folder.path()).unwrap().permissions(), before);
}

#[tokio::test]
async fn what_is_missing_is_named_with_its_remedy_and_the_rest_runs() {
    let tools = tempfile::tempdir().unwrap();
    for tool in ["setpriv", "id"] {
        let whole = std::env::var("PATH").unwrap();
        let found = std::env::split_paths(&whole).map(|dir| dir.join(tool)).find(|at| at.is_file());
        symlink(found.unwrap(), tools.path().join(tool)).unwrap();
    }
    let mut dev = Dev::start(tools.path().to_str().unwrap(), &["--ephemeral"]).await;
    let screen = dev.screen().await;
    for text in [
        "no registry `staging`: `docker-registry` is not installed; install it with `apt-get",
        "no Vault, so no registry has a PAT: `bao` is not installed; install it with `pip",
    ] {
        assert!(screen.contains(text), "{screen}");
    }
    let freezes = shell(&screen, "colophon freezes --output json");
    assert!(freezes.contains("freezes"), "the API serves: {freezes}");
}

#[tokio::test]
async fn without_a_database_it_says_so_and_ends() {
    // PostgreSQL is there, but not the programs that it is started with.
    let mut dev = Dev::start("/nowhere", &["--ephemeral"]).await;
    assert_eq!(dev.process.wait(PATIENCE).await.unwrap().code(), Some(1));
    let log = dev.process.log();
    for text in ["no database: ", "COLOPHON_DEV_DATABASE_URL"] {
        assert!(log.contains(text), "{log}");
    }
}
