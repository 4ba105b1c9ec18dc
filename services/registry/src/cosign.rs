//! The tags that cosign derives from digests: `sha256-<hex>` with `.sig`, `.att` or `.sbom` behind it.
//! What they point to is about the digest, so they go along with it.

use std::collections::{BTreeMap, BTreeSet};

use colophon_domain::{Algorithm, Digest, Result, Tag, TagOrDigest};

use crate::{
    along::{Along, Companion},
    copy::Copy,
    gather::Gathered,
    manifest::{Content, Descriptor, Manifest},
};

const SUFFIXES: [&str; 3] = ["sig", "att", "sbom"];

/// Such a tag at the source, and what the target has under it.
struct Found {
    tag: Tag,
    there: Descriptor,
    at_target: Option<Descriptor>,
}

impl Copy<'_> {
    /// Finds the tags of these manifests, reads what they point to and adds it to what goes along.
    pub(crate) async fn cosign<'a>(
        &'a self,
        subjects: &BTreeSet<Digest>,
        gathered: &mut Gathered<'a>,
        along: &mut Along,
    ) -> Result<()> {
        let Some(some) = subjects.first() else { return Ok(()) };
        // A registry that answers HEAD for what is there is believed when it says that something
        // is not, which saves a GET for each of many tags that are not there.
        let some = TagOrDigest::Digest(some.clone());
        let answers = self.source.head_only(&some).await?.is_some();
        let tags: Vec<Tag> = subjects.iter().flat_map(tags).collect();
        let found = self.all(tags.into_iter().map(|tag| self.find_tag(tag, answers))).await?;
        let found: Vec<Found> = found.into_iter().flatten().filter(Found::differs).collect();
        let roots = found.iter().map(|it| (it.there.digest.clone(), size(&it.there))).collect();
        // What would replace something is compared with it.
        let replaces = found.iter().filter(|it| it.at_target.is_some());
        let wanted = replaces.map(|it| it.there.digest.clone()).collect();
        let gone = self.descend(gathered, roots, &wanted).await?;
        for found in found.into_iter().filter(|it| !gone.contains(&it.there.digest)) {
            self.accept(found, gathered, along).await?;
        }
        Ok(())
    }

    async fn find_tag(&self, tag: Tag, answers: bool) -> Result<Option<Found>> {
        let what = TagOrDigest::Tag(tag.clone());
        let there = if answers {
            self.source.head_only(&what).await?
        } else {
            self.source.head(&what).await?
        };
        let Some(there) = there else { return Ok(None) };
        let at_target = self.target.head(&what).await?;
        Ok(Some(Found { tag, there, at_target }))
    }

    /// A tag at the target moves only if everything that it has is in what replaces it: such tags
    /// collect signatures, and none that is at the target must be lost.
    async fn accept(&self, found: Found, gathered: &Gathered<'_>, along: &mut Along) -> Result<()> {
        let Found { tag, there, at_target } = found;
        if let Some(held) = &at_target {
            let held = self.target.manifest(&TagOrDigest::Digest(held.digest.clone())).await?;
            let new = gathered.manifests.get(&there.digest);
            if !held.zip(new).is_some_and(|(held, new)| holds(new, &held)) {
                along.notes.insert(format!(
                    "{}:{tag} has something that the source has not, so it stays as it is",
                    self.target.repository
                ));
                return Ok(());
            }
        }
        along.roots.insert(there.digest.clone());
        let old = at_target.map(|held| held.digest);
        along.tags.push(Companion { tag, digest: there.digest, old, made: false });
        Ok(())
    }
}

impl Found {
    fn differs(&self) -> bool {
        self.at_target.as_ref().is_none_or(|held| held.digest != self.there.digest)
    }
}

/// The tags of one digest; for SHA-512 they would be too long to be tags.
fn tags(digest: &Digest) -> Vec<Tag> {
    if digest.algorithm() != Algorithm::Sha256 {
        return Vec::new();
    }
    let text = |suffix: &&str| format!("sha256-{}.{suffix}", digest.hex());
    SUFFIXES.iter().filter_map(|suffix| text(suffix).parse().ok()).collect()
}

fn size(named: &Descriptor) -> u64 {
    u64::try_from(named.size).unwrap_or_default()
}

/// Whether an artifact has every layer of another: each is one signature or attestation. Its layers'
/// annotations count, too, since a signature stands in one.
fn holds(new: &Manifest, held: &Manifest) -> bool {
    let image = |manifest: &Manifest| matches!(manifest.content, Content::Image { .. });
    if !image(new) || !image(held) {
        return false;
    }
    let (Some(new), Some(held)) = (layers(new), layers(held)) else { return false };
    held.iter().all(|(layer, times)| new.get(layer).is_some_and(|there| there >= times))
}

/// The layers' descriptors as text, and how often each is there.
fn layers(manifest: &Manifest) -> Option<BTreeMap<String, usize>> {
    let body: serde_json::Value = serde_json::from_slice(&manifest.bytes).ok()?;
    let mut counted = BTreeMap::new();
    for layer in body.get("layers")?.as_array()? {
        *counted.entry(layer.to_string()).or_default() += 1;
    }
    Some(counted)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;

    fn signature(layers: &[(&str, &str)]) -> Manifest {
        let layer = |(payload, signature): &(&str, &str)| {
            json!({
                "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                "digest": Digest::sha256(payload.as_bytes()), "size": payload.len(),
                "annotations": {"dev.cosignproject.cosign/signature": signature},
            })
        };
        let layers: Vec<Value> = layers.iter().map(layer).collect();
        let config = json!({"mediaType": "c", "digest": Digest::sha256(b"{}"), "size": 2});
        let body = json!({"schemaVersion": 2, "config": config, "layers": layers});
        Manifest::new(Bytes::from(body.to_string()), None).unwrap()
    }

    #[test]
    fn nothing_that_is_signed_is_lost() {
        let one = signature(&[("p", "s1")]);
        let two = signature(&[("p", "s1"), ("p", "s2")]);
        assert!(holds(&two, &one) && holds(&one, &one));
        assert!(!holds(&one, &two), "a signature of the same payload would be lost");
        assert!(!holds(&signature(&[("p", "s2")]), &one));
        assert!(!holds(&two, &signature(&[("p", "s1"), ("p", "s1")])));
    }

    #[test]
    fn a_digest_has_three_tags_unless_they_would_be_too_long() {
        let digest = Digest::sha256(b"x");
        let expected = ["sig", "att", "sbom"].map(|it| format!("sha256-{}.{it}", digest.hex()));
        let texts: Vec<_> = tags(&digest).iter().map(|tag| tag.as_str().to_owned()).collect();
        assert_eq!(texts, expected);
        assert!(tags(&Digest::of(Algorithm::Sha512, b"x")).is_empty());
    }
}
