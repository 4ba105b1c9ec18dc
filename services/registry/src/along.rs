//! What goes along with an image: whatever refers to it or to one of its platforms, whatever refers to
//! that, and the tags that cosign derives from digests.

use std::collections::{BTreeMap, BTreeSet};

use colophon_domain::{
    Digest, Failure, Reason, Referrers, Repository, Result, Retry, Tag, TagOrDigest,
};

use crate::{
    copy::Copy,
    gather::Gathered,
    manifest::{Content, Manifest},
    plan::MOST_LEVELS,
    referrers::{FEWER, Held, Listed, Lists, Referring, artifact_type, schema_tag, with_referrers},
};

/// A tag that belongs to a digest and not to a release: one of cosign's, or that of a list of
/// referrers. Its content is at the target; whoever copies has still to move it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Companion {
    /// The tag.
    pub tag: Tag,
    /// Where it should point.
    pub digest: Digest,
    /// Where it was when that was found out; it must not be moved from elsewhere.
    pub old: Option<Digest>,
    /// What it points to was made at the target and is not at the source: a list of referrers.
    pub made: bool,
}

/// What goes along.
#[derive(Default)]
pub(crate) struct Along {
    /// Manifests that are copied with all that is below them.
    pub roots: BTreeSet<Digest>,
    /// Cosign's tags at the target.
    pub tags: Vec<Companion>,
    /// Lists of referrers under tags, which the target has in place of the API.
    pub lists: Vec<TagList>,
    /// What is left out, and what a reader should know.
    pub notes: BTreeSet<String>,
}

impl Along {
    /// Those that the target lists by a tag and that are not in that list yet.
    fn list(
        &mut self,
        subject: Digest,
        target: Option<Referring>,
        lacks: BTreeSet<Digest>,
        repository: &Repository,
    ) {
        let there = match target {
            Some(Referring::Schema(_, Held::Nothing)) => None,
            Some(Referring::Schema(_, Held::Index(index))) => Some(index),
            Some(Referring::Schema(_, Held::Other)) => {
                self.notes.insert(format!(
                    "the referrers of {subject} are not listed at {repository}: the tag for that is \
                     something else there"
                ));
                return;
            }
            Some(Referring::Api(_)) | None => return,
        };
        self.lists.push(TagList { subject, there, lacks });
    }
}

/// A list of referrers under a tag of the target, and those that it lacks.
pub(crate) struct TagList {
    subject: Digest,
    there: Option<Manifest>,
    lacks: BTreeSet<Digest>,
}

/// The referrers of one manifest at the source, those that were asked for, and at the target.
struct Family {
    subject: Digest,
    source: Vec<Listed>,
    target: Option<Referring>,
}

impl Family {
    /// Those that the target does not list.
    fn unlisted(&self) -> impl Iterator<Item = &Listed> {
        let there: BTreeSet<&Digest> = self
            .target
            .iter()
            .flat_map(Referring::listed)
            .map(|referrer| &referrer.digest)
            .collect();
        self.source.iter().filter(move |referrer| !there.contains(&referrer.digest))
    }
}

impl Copy<'_> {
    /// Finds what goes along with an image whose manifests are gathered, and gathers that.
    pub(crate) async fn along<'a>(&'a self, gathered: &mut Gathered<'a>) -> Result<Along> {
        let mut along = Along::default();
        // Within one repository all that goes along is there.
        if self.source.repository == self.target.repository {
            return Ok(along);
        }
        let mut image = gathered.known();
        if let Some(made) = &self.options.made {
            image.remove(&made.digest);
            along.notes.insert(
                "only some platforms are published, in an index of their own: signatures of the \
                 whole index say nothing about it and were left out"
                    .to_owned(),
            );
        }
        if self.options.selection.referrers != Referrers::None {
            self.referrers(image.clone(), gathered, &mut along).await?;
        }
        if self.options.selection.cosign {
            self.cosign(&image, gathered, &mut along).await?;
        }
        Ok(along)
    }

    async fn referrers<'a>(
        &'a self,
        mut subjects: BTreeSet<Digest>,
        gathered: &mut Gathered<'a>,
        along: &mut Along,
    ) -> Result<()> {
        let (from, to) = (Lists::of(self.source), Lists::of(self.target));
        let mut asked = BTreeSet::new();
        for _ in 0..MOST_LEVELS {
            let look = |subject| self.family(subject, &from, &to);
            let families = self.all(subjects.iter().map(look)).await?;
            asked.append(&mut subjects);
            let roots: BTreeMap<Digest, u64> = families
                .iter()
                .flat_map(|family| &family.source)
                .map(|referrer| (referrer.digest.clone(), referrer.size))
                .collect();
            if roots.is_empty() {
                along.notes.extend(from.into_notes());
                along.notes.extend(to.into_notes());
                return Ok(());
            }
            let unlisted = families.iter().flat_map(Family::unlisted);
            let wanted = unlisted.map(|referrer| referrer.digest.clone()).collect();
            let gone = self.descend(gathered, roots, &wanted).await.map_err(explained)?;
            for digest in &gone {
                along.notes.insert(format!("the referrer {digest} is listed and is not there"));
            }
            for mut family in families {
                family.source.retain(|referrer| !gone.contains(&referrer.digest));
                // What is none of them is not asked for referrers either.
                asked.extend(self.accept_family(family, gathered, along));
            }
            subjects = gathered.known().difference(&asked).cloned().collect();
        }
        let text = format!("more than {MOST_LEVELS} levels of referrers");
        Err(Failure::new(Reason::TooLarge, format!("{}: {text}", self.source.repository))
            .remedy(FEWER))
    }

    async fn family(&self, subject: &Digest, from: &Lists<'_>, to: &Lists<'_>) -> Result<Family> {
        let mut source = match from.referring(subject).await? {
            Referring::Api(listed) | Referring::Schema(listed, _) => listed,
        };
        // Of those that do not say what they are it is seen later.
        source.retain(|referrer| {
            let kind = referrer.artifact_type.as_deref();
            kind.is_none_or(|kind| self.takes(&kind.to_ascii_lowercase()))
        });
        let target = if source.is_empty() { None } else { Some(to.referring(subject).await?) };
        Ok(Family { subject: subject.clone(), source, target })
    }

    fn takes(&self, artifact_type: &str) -> bool {
        self.options.selection.referrers.takes(artifact_type)
    }

    /// Takes those along that are what they are said to be; returns the others.
    fn accept_family(
        &self,
        family: Family,
        gathered: &Gathered<'_>,
        along: &mut Along,
    ) -> BTreeSet<Digest> {
        let unlisted: BTreeSet<Digest> =
            family.unlisted().map(|referrer| referrer.digest.clone()).collect();
        let (mut lacks, mut others) = (BTreeSet::new(), BTreeSet::new());
        for Listed { digest, .. } in family.source {
            let read = gathered.manifests.get(&digest);
            if let Some(manifest) = read.filter(|_| unlisted.contains(&digest)) {
                if manifest.subject.as_ref() != Some(&family.subject) {
                    along.notes.insert(format!(
                        "{digest} is listed as a referrer of {} and is none, so it was left out",
                        family.subject
                    ));
                    others.insert(digest);
                    continue;
                }
                if !self.takes(&artifact_type(manifest)) {
                    others.insert(digest);
                    continue;
                }
                lacks.insert(digest.clone());
            }
            along.roots.insert(digest);
        }
        if !lacks.is_empty() {
            along.list(family.subject, family.target, lacks, &self.target.repository);
        }
        others
    }
}

/// The image itself is sound: what refers to it can be left where it is.
fn explained(failure: Failure) -> Failure {
    let reason = failure.reason();
    let about_one =
        matches!(reason, Reason::UnsupportedManifest | Reason::TooLarge | Reason::SourceGone);
    if about_one && failure.retry_class() == Retry::Never {
        return failure.remedy(format!("{FEWER}; the image itself can be copied"));
    }
    failure
}

impl Copy<'_> {
    /// Puts a list with what it lacks under its digest; the tag has still to be moved to it. Some
    /// registries refuse an index of which an entry was deleted since: then those are left out.
    pub(crate) async fn put_list(
        &self,
        list: &TagList,
        gathered: &Gathered<'_>,
    ) -> Result<Companion> {
        let (index, companion) = list.extended(gathered, &BTreeSet::new())?;
        match self.put(&index).await {
            Err(failure) if failure.reason() == Reason::ContentMissing => {}
            done => return done.map(|()| companion),
        }
        let Content::Index { entries } = &index.content else { return Ok(companion) };
        let looks = entries.iter().map(|entry| async move {
            let what = TagOrDigest::Digest(entry.digest.clone());
            Ok(self.target.head(&what).await?.is_none().then_some(&entry.digest))
        });
        let deleted = self.all(looks).await?.into_iter().flatten().cloned().collect();
        let (index, companion) = list.extended(gathered, &deleted)?;
        self.put(&index).await?;
        Ok(companion)
    }
}

impl TagList {
    /// The index to put, and the tag to move to it.
    fn extended(
        &self,
        gathered: &Gathered<'_>,
        lost: &BTreeSet<Digest>,
    ) -> Result<(Manifest, Companion)> {
        let new: Vec<&Manifest> =
            self.lacks.iter().filter_map(|digest| gathered.manifests.get(digest)).collect();
        let index = with_referrers(self.there.as_ref(), &new, lost)?;
        let companion = Companion {
            tag: self.tag()?,
            digest: index.digest.clone(),
            old: self.there.as_ref().map(|there| there.digest.clone()),
            made: true,
        };
        Ok((index, companion))
    }

    pub(crate) fn tag(&self) -> Result<Tag> {
        schema_tag(&self.subject)
    }
}
