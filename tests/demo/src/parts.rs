//! Everything that the demo needs, started at once: PostgreSQL, a staging registry and two
//! targets, OpenBao with the PATs (made here, and nowhere else written down), and Colophon.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use colophon_domain::{Entropy as _, SystemEntropy};
use colophon_testkit::{
    image::{Image, ImageSpec},
    launcher::{
        AppRole, Bao, BaoOptions, Login, Postgres, PostgresOptions, Registry, RegistryAuth,
        RegistryOptions, Role,
        process::{Process, Signal},
    },
    pki::Authority,
    secrets::Secrets,
    token_service::{Allowed, TokenOptions, TokenService},
    wait::{binary, start},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use tempfile::TempDir;

use crate::{config, terminal::Terminal};

/// How long Colophon may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// What Vault lets Colophon do: read the registries' secrets, and nothing else.
const POLICY: &str = "path \"secret/data/registries/*\" { capabilities = [\"read\"] }";

/// The running parts. Dropping them stops them; [`Parts::stop`] does so in order.
pub(crate) struct Parts {
    colophond: Process,
    pub(crate) server: String,
    registries: Registries,
    _bao: Bao,
    postgres: Postgres,
    pats: [Login; 2],
    _builds: [Image; 2],
    folder: TempDir,
}

impl Parts {
    /// Starts everything and says what is where.
    pub(crate) async fn start(terminal: &Terminal) -> Result<Self> {
        let since = Instant::now();
        let folder = tempfile::Builder::new().prefix("colophon-demo-").tempdir()?;
        let within = folder.path();
        let login = |name: &str| Login::new(format!("robot-{name}"), new_pat(name));
        let pats = [login("blue"), login("green")];
        let (postgres, bao, registries, first, second) = tokio::try_join!(
            fallible(Postgres::start(PostgresOptions {
                fsync: true,
                ..PostgresOptions::default()
            })),
            fallible(Bao::start(BaoOptions::default())),
            Registries::start(within, &pats),
            build(within, "build-1"),
            build(within, "build-2"),
        )?;
        registries.write_logins(within, &pats)?;
        let role = fill_vault(&bao, &pats).await?;
        let caller = new_token().await?;
        write_secret(within, "secret-id", &role.secret_id)?;
        write_secret(within, "token", &caller.token)?;
        let config = config::text(&config::Settings {
            folder: within,
            database: postgres.url(),
            vault: bao.address(),
            role: &role.role_id,
            token_sha256: &caller.sha256,
            hosts: registries.all().map(Registry::host),
            realm: &registries.tokens.host(),
        })?;
        std::fs::write(within.join("colophon.toml"), config)?;
        let (colophond, server) = colophond(within).await?;
        let line = |name: &str, what: &str| terminal.note(&format!("{name:<13} {what}"));
        line("PostgreSQL", "a private cluster on a Unix socket, fsync on");
        let [staging, blue, green] = registries.all().map(Registry::url);
        line("staging", &format!("{staging:<25} open to all"));
        line("target blue", &format!("{blue:<25} username and PAT"));
        line("target green", &format!("{green:<25} TLS by a private CA, tokens for a PAT"));
        line("OpenBao", &format!("{:<25} holds both PATs; login by AppRole", bao.address()));
        line("Colophon", &format!("{server:<25} gRPC, REST, and a worker"));
        line("", &format!("ready after {:.1} s", since.elapsed().as_secs_f64()));
        Ok(Self {
            colophond,
            server,
            registries,
            _bao: bao,
            postgres,
            pats,
            _builds: [first, second],
            folder,
        })
    }

    /// Where the commands are typed.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder with Colophon's programs.
    pub(crate) fn programs() -> Result<PathBuf> {
        let client = binary("colophon")?;
        client.parent().map(Path::to_owned).context("a program lies in a folder")
    }

    /// The registry that builds are pushed to.
    pub(crate) fn staging(&self) -> String {
        self.registries.staging.host()
    }

    /// The registries that are published to.
    pub(crate) fn targets(&self) -> [String; 2] {
        [self.registries.blue.host(), self.registries.green.host()]
    }

    /// What Colophon wrote.
    pub(crate) fn log(&self) -> String {
        self.colophond.log()
    }

    /// Whether a PAT, in clear or in base64, is in Colophon's log, in its database, or in the
    /// arguments or environment of any process.
    pub(crate) async fn pats_leaked(&self) -> Result<bool> {
        let [blue, green] = &self.pats;
        let secrets = [blue.password.expose_secret(), green.password.expose_secret()];
        let secrets = Secrets::new(&secrets);
        let rows = "SELECT query_to_xml(format('SELECT * FROM %I.%I', schemaname, tablename), \
                    true, false, '') FROM pg_tables WHERE schemaname NOT IN \
                    ('pg_catalog', 'information_schema')";
        let rows = self.postgres.sql("postgres", rows).await?;
        let in_processes = !secrets.search_processes()?.is_empty();
        Ok(secrets.in_text(self.log().as_bytes())
            || secrets.in_text(rows.as_bytes())
            || in_processes)
    }

    /// Ends Colophon first, so that it never misses a part.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.colophond.stop(Signal::TERM, PATIENCE).await?;
        self.postgres.stop().await?;
        Ok(())
    }
}

/// Where builds come from and where they go.
struct Registries {
    staging: Registry,
    blue: Registry,
    green: Registry,
    tokens: TokenService,
}

impl Registries {
    async fn start(folder: &Path, [blue, green]: &[Login; 2]) -> Result<Self> {
        let authority = Authority::new("Colophon demo CA")?;
        std::fs::create_dir(folder.join("certs"))?;
        std::fs::write(folder.join("certs/ca.crt"), authority.pem())?;
        let tls = authority.issue()?;
        let tokens = TokenOptions { tls: Some(tls.clone()), ..TokenOptions::default() };
        let tokens = TokenService::start(tokens).await?;
        let allowed = vec![Allowed::new("apps/*", "pull,push")];
        tokens.set_login(&green.username, green.password.expose_secret(), allowed);
        let auth = RegistryAuth::Htpasswd(vec![blue.clone()]);
        let with_password = RegistryOptions { auth, ..RegistryOptions::default() };
        let auth = tokens.registry_auth();
        let with_tokens = RegistryOptions { auth, tls: Some(tls), ..RegistryOptions::default() };
        let (staging, blue, green) = tokio::try_join!(
            Registry::start(RegistryOptions::default()),
            Registry::start(with_password),
            Registry::start(with_tokens),
        )?;
        Ok(Self { staging, blue, green, tokens })
    }

    fn all(&self) -> [&Registry; 3] {
        [&self.staging, &self.blue, &self.green]
    }

    /// The logins for `skopeo`, which inspects the targets by itself.
    fn write_logins(&self, folder: &Path, [blue, green]: &[Login; 2]) -> Result<()> {
        let pair = |login: &Login| {
            let pair = format!("{}:{}", login.username, login.password.expose_secret());
            json!({ "auth": STANDARD.encode(pair) })
        };
        let auths = json!({ self.blue.host(): pair(blue), self.green.host(): pair(green) });
        let text = json!({ "auths": auths }).to_string();
        std::fs::write(folder.join("logins.json"), text).context("writing skopeo's logins")
    }
}

/// Gives the launcher's errors the type of the others.
async fn fallible<T>(
    starting: impl Future<Output = colophon_testkit::launcher::Result<T>>,
) -> Result<T> {
    Ok(starting.await?)
}

fn new_pat(name: &str) -> String {
    format!("pat-{name}-{}", hex::encode(SystemEntropy.salt()))
}

/// An image with Debian's busybox for two platforms, under a short name in the folder.
async fn build(folder: &Path, name: &str) -> Result<Image> {
    let image = ImageSpec::new(name).layer(3_000_000).build().await?;
    symlink(image.layout(), folder.join(name)).context("naming a build")?;
    Ok(image)
}

async fn fill_vault(bao: &Bao, [blue, green]: &[Login; 2]) -> Result<AppRole> {
    for (name, login) in [("blue", blue), ("green", green)] {
        let secret = json!({ "username": login.username, "token": login.password.expose_secret() });
        bao.put_secret(&format!("registries/{name}"), secret).await?;
    }
    let role = Role {
        name: "colophon".to_owned(),
        policy: POLICY.to_owned(),
        token_ttl: Duration::from_mins(20),
        token_max_ttl: Duration::from_hours(1),
    };
    Ok(bao.enable_approle(&role).await?)
}

struct CallerToken {
    token: SecretString,
    sha256: String,
}

/// Makes a token as an operator does, with `colophond new-token`.
async fn new_token() -> Result<CallerToken> {
    let output =
        tokio::process::Command::new(binary("colophond")?).arg("new-token").output().await?;
    let said = String::from_utf8(output.stdout)?;
    let after = |mark: &str| said.lines().find_map(|line| line.strip_prefix(mark));
    let token = after("# clp_").map(|rest| format!("clp_{rest}"));
    let sha256 = after("token_sha256 = ").map(|quoted| quoted.trim_matches('"').to_owned());
    let (token, sha256) = token.zip(sha256).context("`colophond new-token` printed no token")?;
    Ok(CallerToken { token: token.into(), sha256 })
}

fn write_secret(folder: &Path, name: &str, secret: &SecretString) -> Result<()> {
    std::fs::write(folder.join(name), secret.expose_secret()).context("writing a secret's file")
}

async fn colophond(folder: &Path) -> Result<(Process, String)> {
    let (config, address) = (folder.join("colophon.toml"), folder.join("address"));
    let arguments = ["-c".as_ref(), config.as_os_str(), "run".as_ref()];
    let mut process = start("colophond", arguments, &[], &folder.join("colophond.log")).await?;
    let known = async || std::fs::read_to_string(&address).ok();
    let address = process.until("serving", PATIENCE, known).await?;
    Ok((process, format!("http://{address}")))
}
