//! Looks for secrets where none may be: in files and folders, and in the arguments and the
//! environment of running processes; as they are and in base64, wherever in a longer text they
//! stood when that was encoded (`user:secret` of Basic authentication).

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

use crate::error::{Result, While as _};

/// How much of a file is looked at together.
const WINDOW: usize = 1 << 20;

/// A place where a secret was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The file.
    pub place: PathBuf,
    /// Which of the secrets, by its position in the list.
    pub secret: usize,
}

/// Secrets to look for.
pub struct Secrets {
    /// The position in the caller's list, and the bytes of one form.
    needles: Vec<(usize, Vec<u8>)>,
}

impl Secrets {
    /// Secrets of at least eight characters; shorter ones are found by chance.
    pub fn new(secrets: &[&str]) -> Self {
        let forms = |(number, secret): (usize, &&str)| {
            forms(secret).into_iter().map(move |form| (number, form)).collect::<Vec<_>>()
        };
        Self { needles: secrets.iter().enumerate().flat_map(forms).collect() }
    }

    /// Searches files, and folders with all below; what a path does not lead to is an error.
    pub fn search(&self, paths: &[&Path]) -> Result<Vec<Hit>> {
        let mut hits = Vec::new();
        let mut open: Vec<PathBuf> = paths.iter().map(|path| (*path).to_owned()).collect();
        while let Some(path) = open.pop() {
            let said = format!("reading {}", path.display());
            let metadata = std::fs::symlink_metadata(&path).doing(&said)?;
            if metadata.is_dir() {
                for entry in std::fs::read_dir(&path).doing(&said)? {
                    open.push(entry.doing(&said)?.path());
                }
            } else if metadata.is_file() {
                self.search_file(&path, &mut hits).doing(&said)?;
            }
        }
        Ok(hits)
    }

    /// Searches the arguments and the environment of every process that we may look at.
    pub fn search_processes(&self) -> Result<Vec<Hit>> {
        let mut hits = Vec::new();
        for entry in std::fs::read_dir("/proc").doing("reading /proc")? {
            let path = entry.doing("reading /proc")?.path();
            for name in ["cmdline", "environ"] {
                // Processes end while we look, and other users' are not ours to read.
                let _unreadable = self.search_file(&path.join(name), &mut hits);
            }
        }
        Ok(hits)
    }

    /// Searches a text, for example an answer or a log in memory.
    pub fn in_text(&self, text: &[u8]) -> bool {
        self.needles.iter().any(|(_, needle)| contains(text, needle))
    }

    fn search_file(&self, path: &Path, hits: &mut Vec<Hit>) -> std::io::Result<()> {
        let longest = self.needles.iter().map(|(_, needle)| needle.len()).max().unwrap_or(0);
        let mut file = File::open(path)?;
        let mut window = Vec::with_capacity(WINDOW + longest);
        loop {
            let read = file.by_ref().take(WINDOW as u64).read_to_end(&mut window)?;
            for (secret, needle) in &self.needles {
                let hit = Hit { place: path.to_owned(), secret: *secret };
                if !hits.contains(&hit) && contains(&window, needle) {
                    hits.push(hit);
                }
            }
            if read < WINDOW {
                return Ok(());
            }
            // A secret may lie across two windows.
            window.drain(..window.len().saturating_sub(longest));
        }
    }
}

/// A secret as it is, and the middle of its base64 for each of the three positions in a group of
/// three bytes that it can begin at; the ends depend on its neighbours.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.as_bytes().to_vec()];
    for before in 0..3_usize {
        let mut text = vec![0_u8; before];
        text.extend_from_slice(secret.as_bytes());
        let whole = text.len() / 3 * 3;
        let encoded = STANDARD_NO_PAD.encode(text.get(..whole).unwrap_or_default());
        let own = encoded.get(if before == 0 { 0 } else { 4 }..).unwrap_or_default();
        if own.len() >= 8 {
            forms.push(own.as_bytes().to_vec());
            forms.push(own.replace('+', "-").replace('/', "_").into_bytes());
        }
    }
    forms.dedup();
    forms
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return false };
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        let Some(from) = rest.get(at..) else { return false };
        if from.starts_with(needle) {
            return true;
        }
        rest = from.get(1..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    use super::*;

    const SECRET: &str = "dckr_pat_0123456789abcdef";

    #[test]
    fn a_secret_is_found_in_every_form() {
        let secrets = Secrets::new(&[SECRET]);
        for user in ["", "a:", "bo:", "ann:", "robot$team+ci:"] {
            let pair = format!("{user}{SECRET}");
            assert!(secrets.in_text(pair.as_bytes()));
            assert!(secrets.in_text(STANDARD.encode(&pair).as_bytes()), "{user}");
            assert!(secrets.in_text(URL_SAFE.encode(&pair).as_bytes()), "{user}");
        }
        assert!(!secrets.in_text(b"dckr_pat_0123456789abcdeg"));
    }

    #[test]
    fn folders_are_searched_across_windows() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        let mut big = vec![b'd'; WINDOW - 10];
        big.extend_from_slice(SECRET.as_bytes());
        std::fs::write(inner.join("big"), &big).unwrap();
        std::fs::write(folder.path().join("clean"), "nothing").unwrap();
        let secrets = Secrets::new(&["another secret", SECRET]);
        let hits = secrets.search(&[folder.path()]).unwrap();
        assert_eq!(hits, vec![Hit { place: inner.join("big"), secret: 1 }]);
        assert!(secrets.search(&[&folder.path().join("missing")]).is_err());
    }

    #[tokio::test]
    async fn arguments_and_environment_are_searched() {
        let secret = format!("unique-{}", std::process::id());
        let secrets = Secrets::new(&[secret.as_str()]);
        assert_eq!(secrets.search_processes().unwrap(), vec![]);
        let sleep =
            |command: &mut tokio::process::Command| command.kill_on_drop(true).spawn().unwrap();
        let script = format!("sleep 600 # {secret}");
        let by_argument = sleep(tokio::process::Command::new("sh").args(["-c", script.as_str()]));
        let by_environment =
            sleep(tokio::process::Command::new("sleep").arg("600").env("SECRET", &secret));
        for (child, name) in [(by_argument, "cmdline"), (by_environment, "environ")] {
            let place = PathBuf::from(format!("/proc/{}/{name}", child.id().unwrap()));
            let found = async || {
                let hits = secrets.search_processes().unwrap();
                hits.iter().any(|hit| hit.place == place).then_some(())
            };
            let patience = std::time::Duration::from_secs(20);
            crate::wait::wait_until("the process shows", patience, found).await.unwrap();
        }
    }
}
