//! Names in an archive: what they mean within its root, and which lead out of it.

/// The longest name; `PATH_MAX` of the systems that archives are unpacked on.
const LONGEST: usize = 4096;

/// The name that `name` means as seen from the folder `base`, without `.`, `..` and doubled
/// slashes; the root itself is the empty name. `None` if it leads out of the archive, or is none.
pub(crate) fn within(base: &str, name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    if name.is_empty() || name.len() > LONGEST || name.starts_with('/') || name.contains('\0') {
        return None;
    }
    let mut steps: Vec<&str> = base.split('/').filter(|step| !step.is_empty()).collect();
    for step in name.split('/') {
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()?),
            step => steps.push(step),
        }
    }
    Some(steps.join("/"))
}

/// The folder that a name is in.
pub(crate) fn folder(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normal_and_stay_within_the_root() {
        let from_root = |name: &str| within("", name.as_bytes());
        for (name, normal) in
            [("a/b", "a/b"), ("./a//b/", "a/b"), (".", ""), ("a/../b", "b"), ("a/b/../../c", "c")]
        {
            assert_eq!(from_root(name).as_deref(), Some(normal), "{name}");
        }
        for name in ["", "/a", "..", "../a", "a/../../b", "a\0b", &"x".repeat(4097)] {
            assert_eq!(from_root(name), None, "{name:?}");
        }
        assert_eq!(within("", b"a\xff"), None);
        assert_eq!(within(folder("ab/layer.tar"), b"../cd.tar").as_deref(), Some("cd.tar"));
        assert_eq!(within(folder("layer.tar"), b"../cd.tar"), None);
    }
}
