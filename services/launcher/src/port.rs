//! Ports on the loopback interface for parts that must keep theirs over a restart.
//!
//! A port that the kernel picks (`bind` to 0) can be taken by any outgoing connection while its
//! owner is down. So these lie below the kernel's ephemeral range, and a lock on a file per port,
//! held as long as the part lives, keeps parallel tests from choosing the same one.

use std::{
    fs::{DirBuilder, File},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::DirBuilderExt as _,
};

use crate::{Error, Result};

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
        let user = rustix::process::geteuid().as_raw();
        let folder = std::env::temp_dir().join(format!("colophon-ports-{user}"));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(Error::prepare(&folder))?;
        let count = u32::from(LAST - FIRST) + 1;
        // Parallel processes begin at different places, so that they rarely meet.
        let begin = std::process::id().wrapping_mul(97) % count;
        for step in 0..count {
            let Ok(offset) = u16::try_from((begin + step) % count) else { continue };
            let number = FIRST + offset;
            let path = folder.join(number.to_string());
            let lock = File::create(&path).map_err(Error::prepare(&path))?;
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        Err(Error::NoPort { first: FIRST, last: LAST })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_not_given_twice() {
        let ports: Vec<Port> = (0..20).map(|_| Port::reserve().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 20);
    }
}
