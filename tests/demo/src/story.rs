//! What the demo tells: two builds are pushed and published as versions, the floating tags move
//! from the first to the second, one of them goes back, the ledger says so, and `skopeo` sees the
//! same in every registry.

use std::fmt;

use anyhow::{Context as _, Result};
use colophon_domain::{Clock as _, SystemClock};
use time::format_description::well_known::Rfc3339;

use crate::{
    parts::Parts,
    terminal::{Shell, Terminal},
};

/// What one of the registries serves, beside what it has to serve.
pub(crate) struct Line {
    what: String,
    wanted: String,
    seen: String,
}

impl Line {
    pub(crate) fn is_right(&self) -> bool {
        self.wanted == self.seen && !self.seen.is_empty()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<44} {}", self.what, self.seen)?;
        if !self.is_right() {
            write!(f, "\n       expected {:>78}", self.wanted)?;
        }
        Ok(())
    }
}

/// Tells it all; the answer is what was compared.
pub(crate) async fn tell(terminal: &Terminal, parts: &Parts) -> Result<Vec<Line>> {
    let staging = parts.staging();
    let [blue, green] = parts.targets();
    let (blue, green) = (format!("{blue}/apps/hello"), format!("{green}/apps/hello"));
    let mut shell = Shell::new(terminal, parts.folder(), &Parts::programs()?);

    terminal.heading("A build is pushed to staging by an ordinary tool");
    push(&shell, &staging, "build-1").await?;
    let first = digest(&shell, &staging, "staging/hello:build-1").await?;

    terminal.heading("Colophon publishes it as a version: its own tag, and those that follow it");
    shell.export("COLOPHON_SERVER", &parts.server).await;
    shell.export("COLOPHON_TOKEN_FILE", "token").await;
    publish(&shell, "publish", &staging, [&blue, &green], "build-1", "1.4.0").await?;
    // To the millisecond, as one would type it; the releases lie further apart.
    let between = SystemClock.now();
    let between = between.replace_millisecond(between.millisecond())?.format(&Rfc3339)?;

    terminal.heading("The next build: what would happen, and then it does");
    push(&shell, &staging, "build-2").await?;
    let second = digest(&shell, &staging, "staging/hello:build-2").await?;
    publish(&shell, "plan", &staging, [&blue, &green], "build-2", "1.4.1").await?;
    publish(&shell, "publish", &staging, [&blue, &green], "build-2", "1.4.1").await?;

    terminal.heading("In one place it was a mistake: the tag goes back");
    let back = format!("colophon rollback {green}:latest --reason \"the shop does not start\"");
    shell.run(&back).await?;

    terminal.heading("The ledger: which digest the tag pointed to, before and after");
    shell.run(&format!("colophon history {green}:latest")).await?;
    terminal.note("\nWhat it pointed to between the two releases:");
    let then = resolve(&shell, &format!("{green}:latest --at {between}")).await?;
    terminal.note(
        "\nOne entry as it is kept and hashed, here indented (who and why are salted commitments):",
    );
    shell
        .run(&format!(
            "colophon history {green}:latest --limit 1 --output json \\\n    \
         | jq -r '.moves[0].body' | base64 -d | jq ."
        ))
        .await?;

    terminal.heading("skopeo asks the registries themselves");
    shell.export("REGISTRY_AUTH_FILE", "logins.json").await;
    let mut lines = vec![line("latest between the releases (ledger)", &first, then)];
    for (repository, latest) in [(&blue, &second), (&green, &first)] {
        for (tag, wanted) in
            [("1.4.0", &first), ("1.4.1", &second), ("1.4", &second), ("latest", latest)]
        {
            let tls = if repository == &blue { "--tls-verify=false" } else { "--cert-dir certs" };
            let seen = inspect(&shell, tls, &format!("{repository}:{tag}")).await?;
            lines.push(line(&format!("{repository}:{tag}"), wanted, seen));
        }
    }
    let leaked = if parts.pats_leaked().await? { "found" } else { "not found" };
    let places = "the PATs in log, database and processes";
    lines.push(line(places, "not found", leaked.to_owned()));
    Ok(lines)
}

fn line(what: &str, wanted: &str, seen: String) -> Line {
    Line { what: what.to_owned(), wanted: wanted.to_owned(), seen }
}

async fn push(shell: &Shell<'_>, staging: &str, build: &str) -> Result<()> {
    shell
        .run(&format!(
            "skopeo --insecure-policy copy --all --quiet --dest-tls-verify=false \\\n    \
             oci:{build}:image docker://{staging}/staging/hello:{build}"
        ))
        .await
}

async fn digest(shell: &Shell<'_>, host: &str, name: &str) -> Result<String> {
    inspect(shell, "--tls-verify=false", &format!("{host}/{name}")).await
}

async fn inspect(shell: &Shell<'_>, tls: &str, reference: &str) -> Result<String> {
    shell
        .ask(&format!("skopeo inspect -n {tls} --format '{{{{.Digest}}}}' docker://{reference}"))
        .await
}

async fn publish(
    shell: &Shell<'_>,
    command: &str,
    staging: &str,
    [blue, green]: [&str; 2],
    build: &str,
    version: &str,
) -> Result<()> {
    shell
        .run(&format!(
            "colophon {command} {staging}/staging/hello:{build} --semver {version} \\\n    \
             --to {blue} --to {green} \\\n    \
             --reason \"release {version}\""
        ))
        .await
}

/// The digest that the ledger names.
async fn resolve(shell: &Shell<'_>, arguments: &str) -> Result<String> {
    let said = shell.ask(&format!("colophon resolve {arguments}")).await?;
    let digest = said.lines().find_map(|line| line.strip_prefix("digest"));
    digest.map(|rest| rest.trim().to_owned()).context("`colophon resolve` named no digest")
}
