//! The folder of `colophond dev`: what is kept from one start to the next, and that only one
//! process uses it at a time.

use std::{
    fs::{DirBuilder, File, Permissions, TryLockError},
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use colophon_launcher::{Kept, port::Port};
use colophon_server::new_token;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// The file that tells a folder of ours.
const PORTS: &str = "ports.json";

/// Where the API of a folder that stays is expected.
const API_PORT: u16 = 8080;

/// Where everything is.
pub(super) struct Folder {
    path: PathBuf,
    temporary: Option<TempDir>,
    ports: Ports,
    _lock: File,
}

/// Who may call the API.
pub(super) struct Caller {
    pub(super) token: SecretString,
    pub(super) token_sha256: String,
}

/// The parts' ports: chosen once for a folder, since references and entries of the ledger name
/// them from then on.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Ports {
    staging: u16,
    production: u16,
    /// `OpenBao` has the next one, too.
    vault: u16,
}

impl Ports {
    /// Those that people expect; others where somebody else has them.
    fn choose() -> Result<Self> {
        let first = |wanted: u16, run: u16| {
            let free =
                |from: &u16| (*from..from + run).all(|port| Port::claim("a part", port).is_ok());
            (wanted..wanted + 90)
                .step_by(10)
                .find(free)
                .with_context(|| format!("every port of 127.0.0.1 from {wanted} on is in use"))
        };
        Ok(Self { staging: first(5000, 1)?, production: first(5001, 1)?, vault: first(8200, 2)? })
    }
}

/// The file with the caller's hash beside the one with the token.
#[derive(Serialize, Deserialize)]
struct Known {
    token_sha256: String,
}

impl Folder {
    /// Makes it or finds it, and keeps others away from it.
    pub(super) fn open(named: Option<&Path>, ephemeral: bool) -> Result<Self> {
        let temporary = if ephemeral {
            let folder = tempfile::Builder::new().prefix("colophon-dev-").tempdir();
            Some(folder.context("no temporary folder can be made")?)
        } else {
            None
        };
        let path = match (&temporary, named) {
            (Some(folder), _) => folder.path().to_owned(),
            (None, Some(folder)) => std::path::absolute(folder)?,
            (None, None) => usual()?,
        };
        ours(&path)?;
        // Everybody may pass through, since PostgreSQL runs as a user of its own where we are
        // root; what lies in it is for its owner only.
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&path)
            .and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(0o711)))
            .with_context(|| format!("the folder {} cannot be made", path.display()))?;
        let lock = lock(&path)?;
        let ports = ports(&path)?;
        let folder = Self { path, temporary, ports, _lock: lock };
        let stale = folder.address_file();
        match std::fs::remove_file(&stale) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("{} cannot be removed", stale.display()))
            }
            _ => Ok(folder),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is there again at the next start.
    pub(super) fn is_kept(&self) -> bool {
        self.temporary.is_none()
    }

    /// Where the service writes its address.
    pub(super) fn address_file(&self) -> PathBuf {
        self.path.join("address")
    }

    /// Where the caller's token is.
    pub(super) fn token_file(&self) -> PathBuf {
        self.path.join("token")
    }

    /// Where the API listens unless somebody says otherwise.
    pub(super) fn listen(&self) -> SocketAddr {
        let port = if self.is_kept() { API_PORT } else { 0 };
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// The place of the registry that builds are pushed to.
    pub(super) fn staging(&self) -> Option<Kept> {
        self.place("staging", self.ports.staging)
    }

    /// The place of the registry that is published to.
    pub(super) fn production(&self) -> Option<Kept> {
        self.place("production", self.ports.production)
    }

    /// The place of `OpenBao`.
    pub(super) fn vault(&self) -> Option<Kept> {
        self.place("vault", self.ports.vault)
    }

    /// The folder of PostgreSQL, which needs no port.
    pub(super) fn database(&self) -> Option<PathBuf> {
        self.is_kept().then(|| self.path.join("postgres"))
    }

    fn place(&self, name: &str, port: u16) -> Option<Kept> {
        self.is_kept().then(|| Kept { folder: self.path.join(name), port })
    }

    /// The caller whose token is here, made the first time.
    pub(super) fn caller(&self) -> Result<Caller> {
        let known = self.path.join("caller.json");
        if let (Ok(token), Ok(text)) =
            (std::fs::read_to_string(self.token_file()), std::fs::read_to_string(&known))
        {
            let Known { token_sha256 } = serde_json::from_str(&text)
                .with_context(|| format!("{} is damaged; remove it", known.display()))?;
            return Ok(Caller { token: SecretString::from(token.trim_end()), token_sha256 });
        }
        let (token, token_sha256) = new_token()?;
        self.write("token", token.expose_secret())?;
        let text = serde_json::to_string(&Known { token_sha256: token_sha256.clone() })?;
        self.write("caller.json", &text)?;
        Ok(Caller { token, token_sha256 })
    }

    /// Writes the configuration; it is made anew at every start.
    pub(super) fn write_config(&self, text: &str) -> Result<PathBuf> {
        self.write("colophon.toml", text)
    }

    /// Writes a file that only its owner may read.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        write(&self.path.join(name), text)
    }

    /// Whether something was done once here.
    pub(super) fn has(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }
}

/// Files in it are written anew and its mode is changed, so it must be one of ours, or empty.
fn ours(path: &Path) -> Result<()> {
    let Ok(mut entries) = std::fs::read_dir(path) else { return Ok(()) };
    if path.join(PORTS).is_file()
        || entries.all(|entry| entry.is_ok_and(|one| one.file_name() == "lock"))
    {
        return Ok(());
    }
    bail!(
        "the folder {} holds something else; name an empty one, or one that is not there yet",
        path.display()
    )
}

/// What was chosen at the first start.
fn ports(folder: &Path) -> Result<Ports> {
    let path = folder.join(PORTS);
    if let Ok(text) = std::fs::read_to_string(&path) {
        return serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged; remove it", path.display()));
    }
    let ports = Ports::choose()?;
    write(&path, &serde_json::to_string(&ports)?)?;
    Ok(ports)
}

fn write(path: &Path, text: &str) -> Result<PathBuf> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(path.to_owned())
}

/// One process at a time: the lock goes with the process, whichever way that ends.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("{} cannot be opened", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another `colophond dev` uses {}; stop it, or take another --folder",
            folder.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} cannot be locked", path.display()))
        }
    }
}

/// Where programs keep their data; root's own home is closed to the user of PostgreSQL.
fn usual() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/colophon-dev"));
    }
    let named = std::env::var_os("XDG_DATA_HOME").filter(|value| !value.is_empty());
    let home = || std::env::var_os("HOME").filter(|value| !value.is_empty());
    named
        .map(PathBuf::from)
        .or_else(|| home().map(|home| Path::new(&home).join(".local/share")))
        .map(|data| data.join("colophon-dev"))
        .context("there is neither HOME nor XDG_DATA_HOME; name a folder with --folder")
}
