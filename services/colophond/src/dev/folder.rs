//! The folder of `colophond dev`: what is kept from one start to the next, and that only one
//! process uses it at a time.

use std::{
    ffi::OsStr,
    fs::{DirBuilder, File, Permissions, TryLockError},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use colophon_launcher::{Kept, port::Port, write_private};
use colophon_server::new_token;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// Either of these files tells a folder of ours.
const PORTS: &str = "ports.json";
const CALLER: &str = "caller.json";

/// Where the API of a folder that stays is expected.
const API_PORT: u16 = 8080;

/// Where everything is.
pub(super) struct Folder {
    path: PathBuf,
    temporary: Option<TempDir>,
    /// None where nothing is kept: whatever is free is good.
    ports: Option<Ports>,
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
        let ports = if ephemeral { None } else { Some(ports(&path)?) };
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
        self.place("staging", |ports| ports.staging)
    }

    /// The place of the registry that is published to.
    pub(super) fn production(&self) -> Option<Kept> {
        self.place("production", |ports| ports.production)
    }

    /// The place of `OpenBao`.
    pub(super) fn vault(&self) -> Option<Kept> {
        self.place("vault", |ports| ports.vault)
    }

    /// The folder of PostgreSQL, which needs no port.
    pub(super) fn database(&self) -> Option<PathBuf> {
        self.is_kept().then(|| self.path.join("postgres"))
    }

    fn place(&self, name: &str, port: fn(&Ports) -> u16) -> Option<Kept> {
        let port = self.ports.as_ref().map(port)?;
        Some(Kept { folder: self.path.join(name), port })
    }

    /// The caller whose token is here, made the first time.
    pub(super) fn caller(&self) -> Result<Caller> {
        let known = self.path.join(CALLER);
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
        self.write(CALLER, &text)?;
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
    // What a first start has left that was broken off before there was either of them.
    let begun = |name: &OsStr| {
        name == "lock" || Path::new(name) == Path::new(PORTS).with_extension("draft")
    };
    if path.join(PORTS).is_file()
        || path.join(CALLER).is_file()
        || entries.all(|entry| entry.is_ok_and(|one| begun(&one.file_name())))
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
    write_private(path, text).with_context(|| format!("{} cannot be written", path.display()))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stays_ours_without_its_ports() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| std::fs::write(folder.path().join(name), "{").unwrap();
        ours(folder.path()).unwrap();
        // A first start that was killed while it wrote them.
        write("lock");
        write("ports.draft");
        ours(folder.path()).unwrap();
        write("ports.json");
        write("colophon.toml");
        let said = format!("{:#}", ports(folder.path()).err().unwrap());
        assert!(said.contains("is damaged; remove it"), "{said}");
        write("caller.json");
        std::fs::remove_file(folder.path().join("ports.json")).unwrap();
        ours(folder.path()).unwrap();
        std::fs::remove_file(folder.path().join("caller.json")).unwrap();
        assert!(ours(folder.path()).is_err());
    }

    #[test]
    fn what_is_not_kept_takes_no_port_that_others_expect() {
        let folder = Folder::open(None, true).unwrap();
        assert!(!folder.has(PORTS) && folder.staging().is_none() && folder.vault().is_none());
    }
}
