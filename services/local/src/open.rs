//! From a source to an image.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use colophon_domain::Platform;

use crate::{
    archive,
    compress::{Press, each},
    docker,
    error::{LocalError, LocalErrorKind},
    folder::Folder,
    image::Image,
    layout::{self, Layout},
    place::Place,
    progress::{Events, Step, Work, run},
    saved,
    source::Source,
    spool::Spool,
    store::Store,
    unpack::{Bounds, Packing, Unpacked},
};

/// What bounds a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All temporary files of one image together, in bytes.
    pub spool: u64,
    /// One uncompressed layer, in bytes, where layers must be read to compute their digests.
    pub layer: u64,
    /// How many times larger something may become when it is decompressed; this counts from
    /// 64 MiB on.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { spool: 32 << 30, layer: 64 << 30, ratio: 200 }
    }
}

/// How a source is read.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which image, where there are several: a name, a tag, or a digest.
    pub image: Option<String>,
    /// Which platform of an index, if not all of them.
    pub platform: Option<Platform>,
    /// The bounds.
    pub limits: Limits,
    /// The folder for temporary files; `None` is the system's (`TMPDIR`).
    pub spool: Option<PathBuf>,
    /// The Docker engine, as in `DOCKER_HOST`; `None` asks that variable, and then the usual socket.
    pub docker_host: Option<String>,
}

/// Opens an image of this machine.
///
/// Layers that a source holds uncompressed and without a manifest are compressed before this
/// returns, because the image has no digest before.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use colophon_local::{LocalErrorKind, Options, Source, open};
///
/// let source: Source = "oci-archive:/nowhere/app.tar".parse().unwrap();
/// let error = open(&source, &Options::default(), &()).await.unwrap_err();
/// assert_eq!(error.kind(), LocalErrorKind::NotFound);
/// assert_eq!(error.file(), Some("oci-archive:/nowhere/app.tar"));
/// # });
/// ```
///
/// # Errors
/// If it is not there, is no image, is damaged or hostile, exceeds a bound, or is not the only
/// image and none was chosen.
pub async fn open(
    source: &Source,
    options: &Options,
    events: &dyn Events,
) -> Result<Image, LocalError> {
    let given = options.clone();
    let opened = match source.clone() {
        Source::Docker(name) => docker::open(&name, given, events).await,
        Source::DockerArchive(path) => {
            run(events, move |work| file(&path, Kind::Any, &given, work)).await
        }
        Source::OciArchive(path) => {
            run(events, move |work| file(&path, Kind::Layout, &given, work)).await
        }
        Source::OciFolder(path) => run(events, move |work| folder(&path, &given, work)).await,
        Source::Stdin => run(events, move |work| standard_input(&given, work)).await,
    };
    opened.map_err(|error| error.in_file(source))
}

/// What an archive must hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Layout,
    Any,
}

fn file(path: &Path, kind: Kind, options: &Options, work: &Work) -> Result<Image, LocalError> {
    let failed = |error| suffixed(LocalError::io("cannot be opened", error), path);
    let opened = File::open(path).map_err(failed)?;
    let status = opened.metadata().map_err(failed)?;
    if status.is_dir() {
        return Err(LocalError::new(LocalErrorKind::Invalid, "is a folder")
            .remedy("give a layout in a folder as oci:FOLDER"));
    }
    let spool = Spool::new(options.spool.as_deref(), options.limits.spool);
    // A pipe (`<(docker save app)`) can be read only once.
    if !status.is_file() {
        let whole = spooled(opened, None, options, &spool, work)?;
        return archived(&whole, kind, options, &spool, work);
    }
    let whole = Place::in_file(Arc::new(opened), 0, status.len());
    let mut head = Vec::new();
    let read = whole.open()?.take(Packing::HEAD as u64).read_to_end(&mut head);
    read.map_err(failed)?;
    let whole = match Packing::of(&head)? {
        Packing::Plain => whole,
        _ => spooled(whole.open()?, Some(status.len()), options, &spool, work)?,
    };
    archived(&whole, kind, options, &spool, work)
}

/// Says what is wrong with a suffix of other tools, where leaving it out would do.
fn suffixed(error: LocalError, path: &Path) -> LocalError {
    let text = path.to_string_lossy();
    let mut splits = text.match_indices(':').map(|(at, _)| text.split_at(at));
    match splits.find(|(before, _)| Path::new(before).exists()) {
        Some((before, after)) if error.kind() == LocalErrorKind::NotFound => {
            let image = after.trim_start_matches(':').escape_debug();
            error.remedy(format!("give {} and --image {image}", before.escape_debug()))
        }
        _ => error,
    }
}

fn standard_input(options: &Options, work: &Work) -> Result<Image, LocalError> {
    let input = io::stdin();
    if input.is_terminal() {
        return Err(LocalError::new(LocalErrorKind::Invalid, "standard input is a terminal")
            .remedy("pipe an archive into it: docker save app | colophon push - ..."));
    }
    stream(input, options, work)
}

/// An archive that comes once.
pub(crate) fn stream(
    source: impl Read,
    options: &Options,
    work: &Work,
) -> Result<Image, LocalError> {
    let spool = Spool::new(options.spool.as_deref(), options.limits.spool);
    let whole = spooled(source, None, options, &spool, work)?;
    archived(&whole, Kind::Any, options, &spool, work)
}

/// Puts a stream, decompressed, into a temporary file.
fn spooled(
    source: impl Read,
    total: Option<u64>,
    options: &Options,
    spool: &Spool,
    work: &Work,
) -> Result<Place, LocalError> {
    work.begin(Step::Spooling, total);
    // The spool has a limit of its own.
    let bounds = Bounds { bytes: u64::MAX, ratio: options.limits.ratio };
    let mut file = spool.file()?;
    each(Unpacked::new(source, bounds, work)?, |bytes| {
        file.write_all(bytes).map_err(|error| LocalError::io("writing", error))
    })?;
    Ok(file.finish())
}

fn archived(
    whole: &Place,
    kind: Kind,
    options: &Options,
    spool: &Spool,
    work: &Work,
) -> Result<Image, LocalError> {
    work.begin(Step::Reading, None);
    let archive = archive::index(whole, work)?;
    let index = match archive.document("oci-layout")? {
        Some(_) => archive.document("index.json")?,
        None => None,
    };
    let list = archive.document("manifest.json")?;
    let press = Press { spool, limits: options.limits, work };
    match (index, list) {
        (Some(index), list) => match (layout::read(&archive, &index, options)?, list) {
            (Layout::Image(image), _) => Ok(image),
            (Layout::Unusable(why), Some(list)) => {
                let mut image = saved::read(&archive, &list, options, &press)?;
                image.notes.push(format!("the archive's OCI layout was not used: {why}"));
                Ok(image)
            }
            (Layout::Unusable(why), None) => Err(unusable(&why)),
        },
        (None, Some(list)) if kind == Kind::Any => saved::read(&archive, &list, options, &press),
        (None, Some(_)) => Err(not_an_image("holds no OCI layout")
            .remedy("if docker save or skopeo wrote it, give it as docker-archive:FILE")),
        (None, None) => Err(not_an_image("is no archive of an image")
            .remedy("write one by docker save, or by skopeo copy .. oci-archive:FILE")),
    }
}

fn folder(path: &Path, options: &Options, work: &Work) -> Result<Image, LocalError> {
    work.begin(Step::Reading, None);
    let folder = Folder::new(path).map_err(|error| suffixed(error, path))?;
    let Some(_) = folder.document("oci-layout")? else {
        return Err(not_an_image("holds no OCI layout: oci-layout is missing"));
    };
    let Some(index) = folder.document("index.json")? else {
        return Err(not_an_image("holds no OCI layout: index.json is missing"));
    };
    match layout::read(&folder, &index, options)? {
        Layout::Image(image) => Ok(image),
        Layout::Unusable(why) => Err(unusable(&why)),
    }
}

fn unusable(why: &str) -> LocalError {
    LocalError::new(LocalErrorKind::Damaged, format!("holds no whole image: {why}"))
}

fn not_an_image(what: &str) -> LocalError {
    LocalError::new(LocalErrorKind::NotAnImage, what)
}
