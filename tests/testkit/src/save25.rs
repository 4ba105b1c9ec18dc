//! What `docker save` of engine 25 and later writes, of an image of the testkit: an OCI layout in
//! a tar, with the older `manifest.json` beside it for older readers. Debian's engine is older.

use std::{fs::File, path::Path};

use serde_json::{Value, json};

use crate::{
    error::{Result, While as _},
    image::Image,
};

/// Writes the archive under the names that `docker images` would show (`app:1`). `skip` are
/// digests that the engine does not have, as one that pulled a single platform.
pub fn save25(image: &Image, names: &[&str], skip: &[&str], into: &Path) -> Result<()> {
    let layout = image.layout();
    let read = |name: String| -> Result<Value> {
        let bytes = std::fs::read(layout.join(name)).doing("reading a layout")?;
        serde_json::from_slice(&bytes).doing("reading a layout")
    };
    let blob = |digest: &str| format!("blobs/{}", digest.replace(':', "/"));
    let index = read("index.json".to_owned())?;
    let root = index.pointer("/manifests/0").doing("an index without an image")?;
    let list: Vec<Value> = names
        .iter()
        .map(|name| {
            let tag = name.rsplit_once(':').map_or(*name, |(_, tag)| tag);
            let names = json!({
                "io.containerd.image.name": format!("docker.io/library/{name}"),
                "org.opencontainers.image.ref.name": tag,
            });
            with(root.clone(), "annotations", names)
        })
        .collect();
    let here = image.children().iter().find(|child| !skip.contains(&child.as_str()));
    let manifest = read(blob(here.doing("an image of which nothing is there")?))?;
    let path = |descriptor: &Value| {
        blob(descriptor.get("digest").and_then(Value::as_str).unwrap_or_default())
    };
    let layers =
        manifest.get("layers").and_then(Value::as_array).doing("a manifest without layers")?;
    let old = json!([{
        "Config": manifest.get("config").map(path),
        "RepoTags": names,
        "Layers": layers.iter().map(path).collect::<Vec<_>>(),
    }]);
    let file = File::create(into).doing("writing an archive")?;
    let mut tar = tar::Builder::new(file);
    for folder in ["blobs/", "blobs/sha256/"] {
        append(&mut tar, folder, None)?;
    }
    let mut blobs: Vec<String> = std::fs::read_dir(layout.join("blobs/sha256"))
        .doing("listing blobs")?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()
        .doing("listing blobs")?;
    blobs.sort_unstable();
    for hex in blobs.iter().filter(|hex| !skip.contains(&format!("sha256:{hex}").as_str())) {
        let name = format!("blobs/sha256/{hex}");
        let bytes = std::fs::read(layout.join(&name)).doing("reading a blob")?;
        append(&mut tar, &name, Some(&bytes))?;
    }
    let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": list });
    for (name, value) in [
        ("index.json", index),
        ("manifest.json", old),
        ("oci-layout", json!({ "imageLayoutVersion": "1.0.0" })),
    ] {
        append(&mut tar, name, Some(value.to_string().as_bytes()))?;
    }
    tar.finish().doing("writing an archive")
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    if let Value::Object(fields) = &mut object {
        fields.insert(key.to_owned(), value);
    }
    object
}

fn append(tar: &mut tar::Builder<File>, name: &str, bytes: Option<&[u8]>) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(if bytes.is_some() { 0o644 } else { 0o755 });
    header.set_entry_type(match bytes {
        Some(_) => tar::EntryType::Regular,
        None => tar::EntryType::Directory,
    });
    let bytes = bytes.unwrap_or_default();
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, name, bytes).doing("writing an archive")
}
