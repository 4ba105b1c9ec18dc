//! Symbolic links in an archive. `docker save` of old engines and `skopeo` write one where a layer
//! is there twice; each leads to a regular file of the same archive, in one step.

use std::collections::HashMap;

use super::{Range, names};
use crate::error::{LocalError, refused, shown};

/// Links that were seen, by name, with what they were said to lead to.
#[derive(Debug, Default)]
pub(super) struct Links(HashMap<String, String>);

impl Links {
    /// Takes a link.
    pub(super) fn add(&mut self, name: String, target: &[u8]) -> Result<(), LocalError> {
        let Some(target) = names::within(names::folder(&name), target) else {
            let target = String::from_utf8_lossy(target);
            return Err(refused(format!(
                "the link {} leads out of the archive, to {}",
                shown(&name),
                shown(&target)
            )));
        };
        match self.0.insert(name, target.clone()) {
            Some(before) if before != target => {
                Err(refused(format!("one link leads to {} and {}", shown(&before), shown(&target))))
            }
            _ => Ok(()),
        }
    }

    /// Gives the files the names of the links that lead to them.
    pub(super) fn settle(self, files: &mut HashMap<String, Range>) -> Result<(), LocalError> {
        let mut found = Vec::with_capacity(self.0.len());
        for (name, target) in self.0 {
            let Some(range) = files.get(&target) else {
                return Err(refused(format!(
                    "the link {} leads to {}, which is no file of the archive",
                    shown(&name),
                    shown(&target)
                )));
            };
            if files.contains_key(&name) {
                return Err(refused(format!("{} is a file and a link", shown(&name))));
            }
            found.push((name, *range));
        }
        files.extend(found);
        Ok(())
    }
}
