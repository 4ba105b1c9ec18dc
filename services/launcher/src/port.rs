//! Ports on the loopback interface for parts that must keep theirs over a restart.
//!
//! A port that the kernel picks (`bind` to 0) can be taken by any outgoing connection while its
//! owner is down. So these lie below the kernel's ephemeral range, and a lock on a file per port,
//! held as long as the part lives, keeps parallel tests from choosing the same one.

use std::{
    fs::{DirBuilder, File},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::Path,
};

use crate::{Error, Kept, Result};

const FIRST: u16 = 20_000;
const LAST: u16 = 31_999;

/// A port that is ours until this is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Takes a port on 127.0.0.1 that nobody uses.
    pub fn reserve() -> Result<Self> {
        let count = u32::from(LAST - FIRST) + 1;
        // Parallel processes begin at different places, so that they rarely meet.
        let begin = std::process::id().wrapping_mul(97) % count;
        for step in 0..count {
            let Ok(offset) = u16::try_from((begin + step) % count) else { continue };
            let number = FIRST + offset;
            if let Some(port) = Self::lock(number)? {
                return Ok(port);
            }
        }
        Err(Error::NoPort { first: FIRST, last: LAST })
    }

    /// Takes a certain port again, for a part that others know by it.
    pub fn claim(part: &str, number: u16) -> Result<Self> {
        let taken = || Error::PortTaken { part: part.to_owned(), port: number };
        Self::lock(number)?.ok_or_else(taken)
    }

    /// The port of a kept place, else a free one.
    pub(crate) fn of(part: &str, kept: Option<&Kept>) -> Result<Self> {
        kept.map_or_else(Self::reserve, |kept| Self::claim(part, kept.port))
    }

    /// `None` if somebody uses it.
    fn lock(number: u16) -> Result<Option<Self>> {
        let user = rustix::process::geteuid().as_raw();
        let folder = std::env::temp_dir().join(format!("colophon-ports-{user}"));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(Error::prepare(&folder))?;
        only_ours(&folder, user)?;
        let path = folder.join(number.to_string());
        let lock = File::create(&path).map_err(Error::prepare(&path))?;
        let free =
            lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok();
        Ok(free.then_some(Self { number, _lock: lock }))
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:` and the number.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

/// The folder's name can be guessed: what another user has put there would lead us to files of that
/// user's choice.
fn only_ours(folder: &Path, user: u32) -> Result<()> {
    let seen = std::fs::symlink_metadata(folder).map_err(Error::prepare(folder))?;
    if seen.is_dir() && seen.uid() == user && seen.mode().trailing_zeros() >= 6 {
        return Ok(());
    }
    let message = format!(
        "{} is not a folder that only this user may enter; remove it, or set TMPDIR",
        folder.display()
    );
    Err(Error::refused("ports", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_refused_by_name() {
        let port = Port::reserve().unwrap();
        let number = port.number();
        let error = Port::claim("docker-registry", number).unwrap_err().to_string();
        assert!(
            error.contains("docker-registry") && error.contains(&number.to_string()),
            "{error}"
        );
        drop(port);
        assert_eq!(Port::claim("docker-registry", number).unwrap().number(), number);
    }

    #[test]
    fn a_folder_that_others_may_enter_or_that_leads_elsewhere_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let user = rustix::process::geteuid().as_raw();
        let own = folder.path().join("own");
        DirBuilder::new().mode(0o700).create(&own).unwrap();
        only_ours(&own, user).unwrap();
        assert!(only_ours(&own, user + 1).is_err());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert!(only_ours(&link, user).is_err());
        std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(only_ours(&own, user).is_err());
    }

    #[test]
    fn a_reserved_port_is_not_given_twice() {
        let ports: Vec<Port> = (0..20).map(|_| Port::reserve().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 20);
    }
}
