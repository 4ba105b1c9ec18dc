//! `push`: an image of this machine goes to the service, which passes it on to the first target's
//! repository while it comes; then it is published from there like any other. Nothing is seen there
//! before its release moves a tag. Running an interrupted push again goes on where it stands.

mod cleanup;
mod git;
mod ladder;
mod manifests;
mod outputs;
mod removal;
mod send;
mod truth;
mod view;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use colophon_api::v1::{AbandonUploadRequest, ReleaseState, StartUploadRequest};
use colophon_local::{Image, LocalError, LocalErrorKind, Options, Source, open};

pub use self::cleanup::prune;
use self::{cleanup::Cleanup, send::Sender, view::View};
use crate::{
    answer::Answer,
    args::{Push, Reading},
    call::{Patience, call},
    connect::Client,
    exit::{Exit, Problem},
    interrupt::Interrupt,
    progress::Notes as _,
    submit::{ATTEMPT, submit_with},
    text::first_part,
};

/// The contract's bound.
const ORIGIN: usize = 200;

/// Sends the image, publishes it and, if that was asked, removes it here.
pub async fn push(client: &Client, args: Push) -> Result<Answer, Problem> {
    let Push { source, reading, mut terms, git, outputs, removal, waiting } = args;
    if removal.remove_local && reading.platform.is_some() {
        // The name stands for all platforms, and those that are left out would be nowhere.
        return Err(Problem::usage(
            "--remove-local removes all platforms, and --platform publishes one",
        )
        .remedy("leave one of them out"));
    }
    let asked = match (&source, removal.remove_local) {
        (Source::Docker(name), true) => Some(name.clone()),
        (_, true) => {
            return Err(Problem::usage(
                "--remove-local is about images of the local Docker engine",
            )
            .remedy("give the image as docker://NAME, or leave --remove-local out"));
        }
        (_, false) => None,
    };
    git::apply(&git, Path::new("."), &mut terms)?;
    terms.check()?;
    let files = outputs::prepare(outputs)?;
    let first = terms.targets.0.first().map(|target| target.repository.clone());
    let repository = first.ok_or_else(|| Problem::usage("no --to is given"))?;

    let view = View::for_stderr();
    let mut interrupt = Interrupt::new()?;
    let sent = tokio::select! {
        sent = bring(client, &source, &reading, &repository, &view) => sent,
        () = interrupt.wait() => Err(broken_off()),
    };
    view.finish();
    let sent = sent?;

    let mut request = terms.request(format!("{repository}@{}", sent.root))?;
    request.upload.clone_from(&sent.upload);
    request.idempotency_key = waiting.key();
    let key = request.idempotency_key.clone();
    let submitted = submit_with(client, &waiting, &key, &mut interrupt, || {
        let (mut releases, request) = (client.releases.clone(), request.clone());
        async move { releases.create_release(request).await }
    })
    .await;
    if let Err(problem) = &submitted
        && !matches!(problem.exit, Exit::Unreachable | Exit::Interrupted)
    {
        abandon(client, sent.upload).await;
    }
    let (release, problem) = submitted?;
    if problem.is_none() {
        let written = files.write(&release).err();
        if let Some(name) = asked.filter(|_| release.state() == ReleaseState::Succeeded) {
            let cleanup = Cleanup { client, view: &view };
            cleanup.after(&name, sent.image_id.as_ref(), removal.keep, &release).await;
        }
        return Ok(Answer::Release(Box::new(release), written));
    }
    Ok(Answer::Release(Box::new(release), problem))
}

/// What has been sent.
struct Sent {
    upload: String,
    root: colophon_domain::Digest,
    image_id: Option<colophon_domain::Digest>,
}

/// Opens the image and brings all of it into the repository.
async fn bring(
    client: &Client,
    source: &Source,
    reading: &Reading,
    repository: &str,
    mut view: &View,
) -> Result<Sent, Problem> {
    let options = Options {
        image: reading.image.clone(),
        platform: reading.platform.clone(),
        spool: reading.spool.clone(),
        ..Options::default()
    };
    let image = open(source, &options, view).await.map_err(|error| local_problem(&error))?;
    if image.digest_is_new {
        view.note(&format!(
            "the archive has an older form, which names no digest; it is computed here: {}",
            image.root
        ));
    }
    for note in &image.notes {
        view.note(note);
    }
    let request =
        StartUploadRequest { repository: repository.to_owned(), origin: origin(source, &image) };
    let patience = Patience { attempt: ATTEMPT, until: Instant::now() + manifests::AWAY };
    let upload = call(patience, &mut view, || {
        let (mut uploads, request) = (client.uploads.clone(), request.clone());
        async move { uploads.start_upload(request).await }
    })
    .await?
    .id;
    let sender =
        Sender { client, upload: &upload, image: &image, view, attempts: reading.attempts };
    let brought = async {
        sender.blobs(reading.streams).await?;
        manifests::send(client, &upload, &image, view).await
    };
    let brought = brought.await;
    // Of an image that cannot be read nothing is gone on with.
    if brought.as_ref().is_err_and(|problem| problem.exit == Exit::Source) {
        abandon(client, upload.clone()).await;
    }
    brought?;
    Ok(Sent { upload, root: image.root.clone(), image_id: image.image_id.clone() })
}

/// Ends an upload that nothing comes of, and what it has under way at the registry. One that this does
/// not reach ends by itself.
async fn abandon(client: &Client, id: String) {
    let mut uploads = client.uploads.clone();
    let asked = uploads.abandon_upload(AbandonUploadRequest { id });
    drop(tokio::time::timeout(Duration::from_secs(5), asked).await);
}

/// What the image is called here, and where here is.
fn origin(source: &Source, image: &Image) -> String {
    let name = match source {
        Source::Stdin => image.names.first().map_or("standard input", String::as_str).to_owned(),
        source => source.to_string(),
    };
    let here = format!(" on {}", machine());
    // A name of any length leaves room for the machine's.
    let room = ORIGIN.saturating_sub(here.chars().count());
    let clean = |text: &str| crate::text::clean(text);
    first_part(&format!("{}{here}", first_part(&clean(&name), room)), ORIGIN)
}

fn machine() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    crate::text::clean(&name)
}

/// An image that cannot be read, with what to do about it.
fn local_problem(error: &LocalError) -> Problem {
    let exit = match error.kind() {
        LocalErrorKind::Invalid | LocalErrorKind::Ambiguous => Exit::Usage,
        _ => Exit::Source,
    };
    let message = match error.file() {
        Some(file) => format!("{file}: {}", error.what()),
        None => error.what().to_owned(),
    };
    let mut problem = Problem::new(exit, message);
    problem.remedy = error.remedy_text().map(str::to_owned);
    problem
}

fn broken_off() -> Problem {
    Problem::new(Exit::Interrupted, "interrupted; nothing is published")
        .remedy("run the same command again: what was sent stays for a while, and it goes on there")
}
