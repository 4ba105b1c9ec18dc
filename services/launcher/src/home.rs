//! Where a part lives: in a temporary folder that goes with it, or in a folder that stays.

use std::{
    fs::{DirBuilder, Permissions},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{Error, Result};

/// A place that stays when its part is stopped, so that the part comes back with what it held.
/// Who uses it makes sure that no two processes do so at once.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The part's own folder; made if it is not there.
    pub folder: PathBuf,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

/// A part's folder.
#[derive(Debug)]
pub(crate) enum Home {
    /// Removed when this is dropped.
    Temporary(TempDir),
    /// Stays.
    Kept(PathBuf),
}

impl Home {
    /// A folder of its own under the system's temporary one.
    pub(crate) fn temporary(prefix: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix(prefix).tempdir();
        Ok(Self::Temporary(folder.map_err(Error::prepare(std::env::temp_dir()))?))
    }

    /// A folder that stays; only its owner may look into it. The log begins anew with each start.
    pub(crate) fn kept(folder: &Path) -> Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.and_then(|()| std::fs::set_permissions(folder, Permissions::from_mode(0o700)))
            .map_err(Error::prepare(folder))?;
        let _none_yet = std::fs::remove_file(folder.join("log"));
        Ok(Self::Kept(folder.to_owned()))
    }

    /// Whichever of the two.
    pub(crate) fn of(kept: Option<&Kept>, prefix: &str) -> Result<Self> {
        kept.map_or_else(|| Self::temporary(prefix), |kept| Self::kept(&kept.folder))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(folder) => folder,
        }
    }
}

/// Writes a file that only its owner may read, whole or not at all.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let draft = path.with_extension("draft");
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&draft, path))
        .map_err(Error::prepare(path))
}
