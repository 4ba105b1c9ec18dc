//! An image's content: the engine writes an archive, as for `docker save`, and it is read like any
//! other, through the same bounds.

use std::io::{self, Read};

use bytes::Bytes;
use futures_util::{StreamExt as _, future};
use tokio::sync::mpsc;

use super::{Engine, LocalImage};
use crate::{
    Options,
    choose::same_name,
    error::{LocalError, LocalErrorKind, damaged},
    image::Image,
    open::stream,
    progress::{Events, run},
};

/// Chunks of the engine's answer between the network and the reading thread.
const WAITING: usize = 16;

/// Opens an image of the engine.
pub(crate) async fn open(
    name: &str,
    mut options: Options,
    events: &dyn Events,
) -> Result<Image, LocalError> {
    if options.image.is_some() {
        let text = "the image is named twice".to_owned();
        return Err(LocalError::new(LocalErrorKind::Invalid, text)
            .remedy("leave out --image; docker://NAME names it"));
    }
    let engine = Engine::connect(options.docker_host.as_deref()).await?;
    let found = engine.find(name).await?;
    // A name without a tag would bring every tag of the repository, and the id brings no name.
    let tag = found.tags.iter().find(|tag| same_name(tag, name)).cloned();
    options.image.clone_from(&tag);
    let asked = tag.unwrap_or_else(|| found.id.to_string());
    let (sender, receiver) = mpsc::channel(WAITING);
    let read = run(events, move |work| stream(Chunks::new(receiver), &options, work));
    let feed = async {
        engine.export(&asked, sender).await;
        future::pending().await
    };
    let image = tokio::select! {
        image = read => image?,
        never = feed => never,
    };
    same_image(image, &found)
}

impl Engine {
    async fn export(&self, name: &str, into: mpsc::Sender<io::Result<Bytes>>) {
        let mut chunks = std::pin::pin!(self.docker.export_image(name));
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| self.failed("the image", error).into());
            if into.send(chunk).await.is_err() {
                return;
            }
        }
    }
}

/// A name can be moved between the two questions; then what came is not what was found.
fn same_image(mut image: Image, found: &LocalImage) -> Result<Image, LocalError> {
    let is_it = [Some(&image.root), Some(&image.listed), image.image_id.as_ref()];
    if !is_it.contains(&Some(&found.id)) {
        return Err(damaged("the name was given to another image meanwhile").remedy("push again"));
    }
    image.image_id = Some(found.id.clone());
    if image.names.is_empty() {
        image.names.clone_from(&found.tags);
    }
    Ok(image)
}

/// What the network brings, for a thread that reads.
struct Chunks {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Chunks {
    fn new(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { receiver, rest: Bytes::new() }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.rest = chunk?,
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(buffer.len());
        self.rest.split_to(count).as_ref().read(buffer)
    }
}
