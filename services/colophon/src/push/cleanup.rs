//! Takes local names of published images away, never by force, and says of each that stays why. What
//! goes wrong here is told and ends nothing: what was to be published is.

use std::collections::BTreeMap;

use colophon_api::v1::Release;
use colophon_domain::{Digest, Repository};
use colophon_local::{
    LocalErrorKind, Options, Source,
    docker::{Engine, LocalImage, Removed, Users},
    open,
};

use super::{
    local_problem,
    removal::{Candidate, Verdict, names, stays, verdict},
    truth,
    view::View,
};
use crate::{
    answer::Answer,
    args::PruneLocal,
    connect::Client,
    exit::Problem,
    progress::Notes as _,
    text::{clean, columns},
};

/// Removes what a push has made superfluous.
pub struct Cleanup<'a> {
    /// The server.
    pub client: &'a Client,
    /// Who watches.
    pub view: &'a View,
}

impl Cleanup<'_> {
    /// After a push: its own name, or with `keep` all that is old and published.
    pub async fn after(
        &self,
        asked: &str,
        pushed: Option<&Digest>,
        keep: Option<usize>,
        release: &Release,
    ) {
        let told = match self.try_after(asked, pushed, keep, release).await {
            Ok(told) => told,
            Err(problem) => vec![format!("{asked} stays: {}", problem.message)],
        };
        let mut view = self.view;
        for line in told {
            view.note(&line);
        }
    }

    async fn try_after(
        &self,
        asked: &str,
        pushed: Option<&Digest>,
        keep: Option<usize>,
        release: &Release,
    ) -> Result<Vec<String>, Problem> {
        if let Some(why) = truth::against(self.client, self.view, release).await? {
            return Ok(vec![format!("{asked} stays: {why}")]);
        }
        let engine = connect().await?;
        let found = engine.find(asked).await.map_err(|error| local_problem(&error))?;
        if Some(&found.id) != pushed {
            return Ok(vec![format!("{asked} stays: it is another image by now")]);
        }
        let Some(name) = own_name(&found, asked) else {
            return Ok(vec![format!("{asked} stays: only names with a tag are removed")]);
        };
        let known = publication(release).map(|reference| (found.id.clone(), reference));
        let repository = repository_of(&name)?;
        let (list, kept) = match keep {
            Some(keep) => (self.list(&engine, &repository, keep).await?, keep),
            None => (vec![Candidate { name, image: found, kept: false }], 0),
        };
        let ledger = match (keep, release.publications.first()) {
            (Some(_), Some(first)) => {
                truth::published(self.client, self.view, &first.repository).await?
            }
            _ => BTreeMap::new(),
        };
        let mut told = Vec::new();
        for name in list {
            let own = known.as_ref().filter(|(id, _)| *id == name.image.id);
            let own = own.map(|(_, reference)| reference.as_str());
            let verdict = self.judge(&engine, &name, kept, own, &ledger).await?;
            told.push(carry_out(&engine, &name, verdict).await.1);
        }
        Ok(told)
    }

    async fn list(
        &self,
        engine: &Engine,
        repository: &Repository,
        keep: usize,
    ) -> Result<Vec<Candidate>, Problem> {
        let images = engine.images_of(&repository.to_string()).await;
        let images = images.map_err(|error| local_problem(&error))?;
        Ok(names(images, repository, keep))
    }

    /// Asks what decides about one name, the cheap questions first.
    async fn judge(
        &self,
        engine: &Engine,
        name: &Candidate,
        keep: usize,
        own: Option<&str>,
        ledger: &BTreeMap<String, String>,
    ) -> Result<Verdict, Problem> {
        let users = match engine.users(&name.image).await {
            Ok(users) => users,
            Err(error) if error.kind() == LocalErrorKind::NotFound => Users::default(),
            Err(error) => return Err(local_problem(&error)),
        };
        if let Some(why) = stays(name, keep, &users) {
            return Ok(Verdict::Leave(why));
        }
        if own.is_some() {
            return Ok(verdict(&name.name, &users, own));
        }
        let found = self.find(name, ledger).await;
        let at = match found {
            Some((digest, reference)) => {
                let (repository, tag) = reference.rsplit_once(':').unwrap_or((&reference, ""));
                let elsewhere =
                    truth::elsewhere(self.client, self.view, repository, &[tag], &digest).await?;
                elsewhere.is_none().then_some(reference)
            }
            None => None,
        };
        Ok(verdict(&name.name, &users, at.as_deref()))
    }

    /// Where the ledger has the image: by the engine's own id if that is a manifest's, else by the
    /// digest that pushing it would give.
    async fn find(
        &self,
        name: &Candidate,
        ledger: &BTreeMap<String, String>,
    ) -> Option<(String, String)> {
        if ledger.is_empty() {
            return None;
        }
        let known = |digest: &Digest| {
            let reference = ledger.get(digest.as_str())?;
            Some((digest.to_string(), reference.clone()))
        };
        if let Some(found) = known(&name.image.id) {
            return Some(found);
        }
        let source = Source::Docker(name.name.clone());
        let image = open(&source, &Options::default(), self.view).await.ok()?;
        // The name may have gone to another image since it was listed.
        (image.image_id.as_ref() == Some(&name.image.id)).then(|| known(&image.root)).flatten()
    }
}

/// `prune-local`.
pub async fn prune(client: &Client, args: PruneLocal) -> Result<Answer, Problem> {
    let view = View::for_stderr();
    let cleanup = Cleanup { client, view: &view };
    let local = args.local.as_deref().unwrap_or(&args.repository);
    let local = Repository::parse(local).map_err(|failure| {
        Problem::usage(failure.message().to_owned()).remedy("give it as docker images shows it")
    })?;
    let ledger = truth::published(client, &view, &args.repository).await?;
    let engine = connect().await?;
    let mut rows = Vec::new();
    for name in cleanup.list(&engine, &local, args.keep).await? {
        let verdict = cleanup.judge(&engine, &name, args.keep, None, &ledger).await?;
        let (what, why) = match (args.plan, verdict) {
            (true, Verdict::Remove(why)) => ("would be removed", why),
            (_, Verdict::Leave(why)) => ("stays", why),
            (false, verdict) => {
                let (gone, told) = carry_out(&engine, &name, verdict).await;
                (if gone { "removed" } else { "stays" }, told)
            }
        };
        rows.push([clean(&name.name), what.to_owned(), clean(&why)]);
    }
    view.finish();
    Ok(Answer::Text(if rows.is_empty() {
        format!("the local engine has no image of {local}\n")
    } else {
        columns(["NAME", "WHAT", "WHY"], &rows, "")
    }))
}

async fn connect() -> Result<Engine, Problem> {
    Engine::connect(None).await.map_err(|error| local_problem(&error))
}

fn repository_of(name: &str) -> Result<Repository, Problem> {
    let repository = name.rsplit_once(':').map_or(name, |(repository, _)| repository);
    Repository::parse(repository).map_err(|failure| Problem::usage(failure.message().to_owned()))
}

/// The name that the image was asked for by, as the engine has it.
fn own_name(image: &LocalImage, asked: &str) -> Option<String> {
    let tagged = format!("{asked}:latest");
    let same = |tag: &&String| {
        let whole = |text: &str| text.parse::<colophon_domain::Reference>().ok();
        let given = whole(asked).or_else(|| whole(&tagged));
        given.is_some() && whole(tag) == given
    };
    image.tags.iter().find(same).cloned()
}

/// One tag of the release, to say where the image is.
fn publication(release: &Release) -> Option<String> {
    let first = release.publications.first()?;
    Some(format!("{}:{}", first.repository, first.tags.first()?.tag))
}

/// Does what was decided; whether the name is gone, and what is said about it.
async fn carry_out(engine: &Engine, name: &Candidate, verdict: Verdict) -> (bool, String) {
    let why = match verdict {
        Verdict::Leave(why) => return (false, format!("{} stays: {why}", name.name)),
        Verdict::Remove(why) => why,
    };
    // Between the question and the answer the name can be given to another image.
    match engine.find(&name.name).await {
        Ok(now) if now.id == name.image.id => {}
        Ok(_) => return (false, format!("{} stays: it is another image by now", name.name)),
        Err(error) => return (false, format!("{} stays: {error}", name.name)),
    }
    match engine.untag(&name.name).await {
        Ok(done) => {
            let gone = done.iter().any(|done| matches!(done, Removed::Deleted(_)));
            let image = if gone { "name and image are gone" } else { "the name is gone" };
            (true, format!("{} removed, {image}: {why}", name.name))
        }
        Err(error) => (false, format!("{} stays: {error}", name.name)),
    }
}
