//! What a pipeline goes on with: the digest and the names in files, each written whole or not at
//! all, and the lines that GitHub Actions reads.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use colophon_api::v1::Release;
use serde_json::json;

use crate::{
    args::Outputs,
    exit::Problem,
    text::{append, clean},
};

const VARIABLE: &str = "GITHUB_OUTPUT";

/// Where to write.
#[derive(Debug)]
pub struct Files {
    digest: Option<PathBuf>,
    metadata: Option<PathBuf>,
    github: Option<PathBuf>,
}

/// Sees before anything is sent whether the files can be written.
pub fn prepare(args: Outputs) -> Result<Files, Problem> {
    let github = std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
    let files = Files {
        digest: args.digest_file,
        metadata: args.metadata_file,
        // Elsewhere than at GitHub there is no such file, and the same line does no harm.
        github: github.filter(|_| args.github_output).map(PathBuf::from),
    };
    for path in files.digest.iter().chain(&files.metadata) {
        let folder = folder(path);
        if !folder.is_dir() || path.is_dir() {
            let text = format!("{} cannot be written: no such folder", path.display());
            return Err(Problem::usage(text).remedy("make the folder first"));
        }
    }
    Ok(files)
}

impl Files {
    /// Writes all that was asked for about a release.
    pub fn write(&self, release: &Release) -> Result<(), Problem> {
        let failed = |path: &Path| {
            let text = format!("release {} is done, but {}", release.id, path.display());
            move |error: io::Error| Problem::usage(format!("{text} cannot be written: {error}"))
        };
        if let Some(path) = &self.digest {
            replace(path, &format!("{}\n", release.digest)).map_err(failed(path))?;
        }
        if let Some(path) = &self.metadata {
            replace(path, &metadata(release)).map_err(failed(path))?;
        }
        if let Some(path) = &self.github {
            add(path, &github(release)).map_err(failed(path))?;
        }
        Ok(())
    }
}

/// All tags that the release has, with their repositories.
fn names(release: &Release) -> Vec<String> {
    let of = |publication: &colophon_api::v1::Publication| {
        let repository = publication.repository.clone();
        let tags: Vec<String> = publication.tags.iter().map(|tag| tag.tag.clone()).collect();
        tags.into_iter().map(move |tag| format!("{repository}:{tag}"))
    };
    release.publications.iter().flat_map(of).collect()
}

/// The keys are those of `docker buildx build --metadata-file` where it has them.
fn metadata(release: &Release) -> String {
    let names = names(release);
    let repositories: Vec<&String> =
        release.publications.iter().map(|publication| &publication.repository).collect();
    let value = json!({
        "containerimage.digest": release.digest,
        "image.name": names.join(","),
        "colophon.release": release.id,
        "colophon.repositories": repositories,
        "colophon.tags": names,
    });
    format!("{value:#}\n")
}

fn github(release: &Release) -> String {
    let first = release.publications.first();
    let image = first.map(|first| format!("{}@{}", first.repository, release.digest));
    let mut text = String::new();
    for (key, value) in [
        ("digest", release.digest.clone()),
        ("image", image.unwrap_or_default()),
        ("tags", names(release).join(",")),
        ("release", release.id.clone()),
    ] {
        // A line's end in a value would begin an output of somebody else's choice.
        append(&mut text, format_args!("{key}={}\n", clean(&value)));
    }
    text
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whoever reads the file sees the one before or the whole new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".colophon-").tempfile_in(folder(path))?;
    file.write_all(text.as_bytes())?;
    readable(file.as_file())?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// A temporary file is for its owner only; what comes after may run as another user.
fn readable(file: &std::fs::File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

fn add(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use colophon_api::v1::{Publication, TagMove};

    use super::*;

    fn release() -> Release {
        let tag = |tag: &str| TagMove { tag: tag.into(), ..TagMove::default() };
        let publication = |repository: &str, tags: Vec<TagMove>| Publication {
            repository: repository.into(),
            tags,
            ..Publication::default()
        };
        Release {
            id: "r1".into(),
            digest: "sha256:d".into(),
            publications: vec![
                publication("b/x", vec![tag("1"), tag("latest")]),
                publication("c/x", vec![tag("1\nhush=1")]),
            ],
            ..Release::default()
        }
    }

    #[test]
    fn the_files_say_what_was_published() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| Some(folder.path().join(name));
        let files = Files { digest: path("d"), metadata: path("m.json"), github: path("g") };
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join("g"), "before=1\n").unwrap();
        std::fs::write(folder.path().join("d"), "of another run, and longer than a digest")
            .unwrap();
        files.write(&release()).unwrap();
        assert_eq!(read("d"), "sha256:d\n");
        assert_eq!(
            read("g"),
            "before=1\ndigest=sha256:d\nimage=b/x@sha256:d\n\
             tags=b/x:1,b/x:latest,c/x:1 hush=1\nrelease=r1\n"
        );
        let value: serde_json::Value = serde_json::from_str(&read("m.json")).unwrap();
        assert_eq!(value["containerimage.digest"], "sha256:d");
        assert!(value["image.name"].as_str().unwrap().starts_with("b/x:1,b/x:latest,"));
        assert_eq!(value["colophon.repositories"], json!(["b/x", "c/x"]));
        assert_eq!(value["colophon.release"], "r1");
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 3, "a temporary file is left");
    }

    #[test]
    fn a_folder_that_is_not_there_is_seen_beforehand() {
        let folder = tempfile::tempdir().unwrap();
        let outputs = |path: PathBuf| Outputs {
            digest_file: Some(path),
            metadata_file: None,
            github_output: false,
        };
        for name in ["none/d", "."] {
            let problem = prepare(outputs(folder.path().join(name))).unwrap_err();
            assert!(problem.message.contains("cannot be written"), "{}", problem.message);
        }
        assert!(prepare(outputs("d".into())).is_ok());
    }
}
