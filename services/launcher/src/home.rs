//! Where a part lives: in a temporary folder that goes with it, or in a folder that stays.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
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
        made.and_then(|()| fs::set_permissions(folder, Permissions::from_mode(0o700)))
            .map_err(Error::prepare(folder))?;
        let _none_yet = fs::remove_file(folder.join("log"));
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
///
/// # Errors
/// The operating system's, of that file or of the draft beside it.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("draft");
    // One that a broken-off start has left may have another mode.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_is_for_its_owner_only_whatever_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        for open in [folder.path().join("keys.draft"), path.clone()] {
            fs::write(&open, "before, and longer").unwrap();
            fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
        }
        write_private(&path, "after").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
