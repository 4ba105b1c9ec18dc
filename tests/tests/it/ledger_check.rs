//! What must hold after everything that can happen, checked from the outside: the database's
//! rows, the registries as independent eyes see them, and the proxies' logs of what passed.

use std::{collections::BTreeMap, time::Instant};

use colophon_ledger::{Entry, Kind, LeafHash, verify_chain};
use colophon_testkit::{peer::assert_same, proxy::Exchange};
use colophon_tests::{Site, World};
use sqlx::{PgPool, Row as _};

/// Clocks of two processes on one machine agree, their readings are taken one after the other.
const READING: f64 = 0.01;

/// One reference: registry, repository, tag.
type Reference = (String, String, String);

/// The newest state of a reference: number and hash of the newest entry, digest, ticket.
type Head = (i64, Option<Vec<u8>>, Option<String>, Option<i64>);

/// An entry as stored: bytes, hash, digest, seconds since 1970.
type Stored = (Vec<u8>, Vec<u8>, Option<String>, f64);

/// What the ledger of a reference holds, by kind.
pub(crate) struct Story {
    pub(crate) kinds: Vec<Kind>,
}

impl Story {
    /// The kinds in short, as the table of the kill points shows them.
    pub(crate) fn words(&self) -> String {
        self.kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" ")
    }
}

/// Checks every release and every reference. The sites are all those that releases went to, and
/// `source` the one that the content came from.
pub(crate) async fn check(world: &World, source: &Site, sites: &[&Site]) {
    let pool = world.database().pool();
    everything_ended(pool).await;
    for (reference, head) in heads(pool).await {
        let site = sites.iter().find(|site| site.host() == reference.0).expect("an unknown site");
        let intents = chain_holds(pool, &reference, &head).await;
        every_put_has_its_intent(pool, site, &reference, &intents).await;
        tickets_only_grow(pool, &reference, &head).await;
        registry_agrees(pool, source, site, &reference, head.2.as_deref()).await;
    }
}

/// The kinds of a tag's entries, in order.
pub(crate) async fn story(world: &World, site: &Site, repository: &str, tag: &str) -> Story {
    let reference = (site.host(), repository.to_owned(), tag.to_owned());
    let entries = entries(world.database().pool(), &reference).await;
    let kinds = entries.iter().map(|(body, ..)| Entry::parse(body).unwrap().kind).collect();
    Story { kinds }
}

async fn everything_ended(pool: &PgPool) {
    let count = async |what: &str, query: &'static str| {
        let left: i64 = sqlx::query_scalar(query).fetch_one(pool).await.unwrap();
        assert_eq!(left, 0, "{what}");
    };
    count("releases without an end", "SELECT count(*) FROM release WHERE ended_at IS NULL").await;
    count("jobs without an end", "SELECT count(*) FROM job WHERE state IN ('queued', 'running')")
        .await;
    count("tags without an end", "SELECT count(*) FROM tag_move WHERE ended_at IS NULL").await;
    count("open intents", "SELECT count(*) FROM open_intent").await;
    count(
        "intents without exactly one outcome",
        "SELECT count(*) FROM audit_entry i WHERE kind = 'intent' AND 1 <> (
            SELECT count(*) FROM audit_entry o WHERE o.intent_id = i.id
              AND o.kind IN ('confirmed', 'recovered', 'not_applied', 'conflict'))",
    )
    .await;
    count(
        "entries that do not wait for their place in the log",
        "SELECT count(*) FROM audit_entry e
         WHERE NOT EXISTS (SELECT FROM audit_queue q WHERE q.entry_id = e.id)",
    )
    .await;
    count(
        "releases that succeeded without all of their tags",
        "SELECT count(*) FROM release r JOIN tag_move m ON m.release_id = r.id
         WHERE r.state = 'SUCCEEDED' AND NOT m.retention
           AND m.state NOT IN ('MOVED', 'UNCHANGED', 'KEPT')",
    )
    .await;
    count(
        "tags that are said to have moved without an entry that says so",
        "SELECT count(*) FROM tag_move m JOIN publication p ON p.id = m.publication_id
         WHERE m.state IN ('MOVED', 'UNCHANGED') AND NOT EXISTS (
            SELECT FROM audit_entry e JOIN release r ON r.id = e.release_id
            WHERE r.id = m.release_id
              AND (e.registry, e.repository, e.tag) = (p.registry, p.repository, m.tag)
              AND e.new_digest = COALESCE(m.content_digest, r.digest)
              AND e.kind IN ('confirmed', 'recovered', 'unchanged'))",
    )
    .await;
    count(
        "tags that are said to be back without an entry that says so",
        "SELECT count(*) FROM tag_move m JOIN publication p ON p.id = m.publication_id
         WHERE m.state = 'RESTORED' AND NOT EXISTS (
            SELECT FROM audit_entry e WHERE e.release_id = m.release_id
              AND (e.registry, e.repository, e.tag) = (p.registry, p.repository, m.tag)
              AND e.new_digest = m.old_digest AND e.purpose = 'restore'
              AND e.kind IN ('confirmed', 'recovered', 'unchanged'))",
    )
    .await;
    count(
        "unique tags that were moved once they were there",
        "SELECT count(*) FROM audit_entry e JOIN publication p ON p.release_id = e.release_id
          AND (p.registry, p.repository) = (e.registry, e.repository)
         JOIN tag_move m ON m.publication_id = p.id AND m.tag = e.tag
         WHERE m.kind = 'unique' AND NOT m.companion AND e.kind = 'intent'
           AND e.old_digest IS NOT NULL
           AND e.new_digest IS NOT NULL",
    )
    .await;
}

async fn heads(pool: &PgPool) -> Vec<(Reference, Head)> {
    let rows = sqlx::query(
        "SELECT registry, repository, tag, tag_seq, leaf_hash, digest, moved_ticket FROM tag_head",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    rows.iter()
        .map(|row| {
            let reference = (row.get(0), row.get(1), row.get(2));
            (reference, (row.get(3), row.get(4), row.get(5), row.get(6)))
        })
        .collect()
}

async fn entries(pool: &PgPool, (registry, repository, tag): &Reference) -> Vec<Stored> {
    sqlx::query_as(
        "SELECT body, leaf_hash, new_digest, EXTRACT(EPOCH FROM at)::float8 FROM audit_entry
         WHERE registry = $1 AND repository = $2 AND tag = $3 ORDER BY tag_seq",
    )
    .bind(registry)
    .bind(repository)
    .bind(tag)
    .fetch_all(pool)
    .await
    .unwrap()
}

/// The stored bytes are a chain, the columns beside them say the same, and the head is what the
/// newest entry says. Returns when the intents were recorded.
async fn chain_holds(pool: &PgPool, reference: &Reference, head: &Head) -> Vec<f64> {
    let entries = entries(pool, reference).await;
    let bodies: Vec<&[u8]> = entries.iter().map(|(body, ..)| body.as_slice()).collect();
    verify_chain(&bodies).unwrap_or_else(|error| panic!("{reference:?}: {error}"));
    let mut intents = Vec::new();
    let mut digest = None;
    for (body, leaf_hash, new_digest, at) in &entries {
        let entry = Entry::parse(body).unwrap();
        assert_eq!(leaf_hash.as_slice(), LeafHash::of(body).as_bytes(), "{reference:?}");
        assert_eq!(&entry.new, new_digest, "{reference:?}");
        if entry.kind == Kind::Intent {
            intents.push(*at);
        } else {
            digest = entry.new;
        }
    }
    let newest = entries.last().map(|(_, leaf_hash, ..)| leaf_hash.clone());
    let count = i64::try_from(entries.len()).unwrap();
    assert_eq!((count, &newest, &digest), (head.0, &head.1, &head.2), "{reference:?}");
    intents
}

/// Each PUT of the tag that reached the registry was announced by an intent of its own, written
/// before.
async fn every_put_has_its_intent(
    pool: &PgPool,
    site: &Site,
    reference: &Reference,
    intents: &[f64],
) {
    let here = Instant::now();
    let there: f64 = sqlx::query_scalar("SELECT EXTRACT(EPOCH FROM clock_timestamp())::float8")
        .fetch_one(pool)
        .await
        .unwrap();
    let mut free = intents.to_vec();
    let mut puts = tag_puts(site, &reference.1, &reference.2);
    puts.sort_by_key(|put| put.arrived);
    for put in puts {
        let arrived = there - here.duration_since(put.arrived).as_secs_f64() + READING;
        // The newest intent before it: an older one was for an older PUT, or for one that never
        // arrived.
        let own = free.iter().rposition(|at| *at <= arrived);
        let own = own.unwrap_or_else(|| panic!("{reference:?}: a PUT without an intent: {put:?}"));
        free.drain(..=own);
    }
}

/// The PUTs of a tag that went on to the registry.
pub(crate) fn tag_puts(site: &Site, repository: &str, tag: &str) -> Vec<Exchange> {
    let path = format!("/v2/{repository}/manifests/{tag}");
    let mut puts = site.proxy().manifest_puts();
    puts.retain(|put| put.path == path);
    puts
}

/// The moves of a floating tag that took place are in the order of their tickets, and the last
/// of them is the head's. What was put back counts as if it had never been. Where builds have
/// keys these order them, and not the tickets.
async fn tickets_only_grow(pool: &PgPool, reference: &Reference, head: &Head) {
    let (registry, repository, tag) = reference;
    let tickets: Vec<i64> = sqlx::query_scalar(
        "SELECT m.ticket FROM audit_entry e
         JOIN publication p ON p.release_id = e.release_id
          AND (p.registry, p.repository) = (e.registry, e.repository)
         JOIN tag_move m ON m.publication_id = p.id AND m.tag = e.tag
         WHERE e.registry = $1 AND e.repository = $2 AND e.tag = $3 AND m.ticket IS NOT NULL
           AND e.kind IN ('confirmed', 'recovered', 'unchanged') AND m.state <> 'RESTORED'
           AND e.purpose <> 'restore'
           AND NOT EXISTS (SELECT FROM tag_move k JOIN publication q ON q.id = k.publication_id
                           WHERE (q.registry, q.repository, k.tag) = ($1, $2, $3)
                             AND k.order_kind IS NOT NULL)
         ORDER BY e.tag_seq",
    )
    .bind(registry)
    .bind(repository)
    .bind(tag)
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(tickets.is_sorted(), "{reference:?} went back to an older ticket: {tickets:?}");
    if let Some(last) = tickets.last() {
        assert_eq!(Some(*last), head.3, "{reference:?}");
    }
}

/// The registry serves what the newest entry says, with everything below it, the same as in the
/// source; `skopeo` sees it too.
async fn registry_agrees(
    pool: &PgPool,
    source: &Site,
    site: &Site,
    reference: &Reference,
    digest: Option<&str>,
) {
    let (_, repository, tag) = reference;
    let peer = site.peer().unwrap();
    let served = peer.digest_of(repository, tag).await.unwrap();
    assert_eq!(served.as_deref(), digest, "{reference:?}: the registry and the newest entry");
    let Some(digest) = digest else { return };
    assert_eq!(site.inspect(repository, tag).await.unwrap(), digest, "{reference:?}");
    let origin: BTreeMap<String, String> =
        // An index of some platforms is nowhere else.
        sqlx::query_as(
            "SELECT digest, source_repository FROM release
             WHERE source_registry = $1 AND made_manifest IS NULL",
        )
            .bind(source.host())
            .fetch_all(pool)
            .await
            .unwrap()
            .into_iter()
            .collect();
    if let Some(name) = origin.get(digest) {
        let origin = source.peer().unwrap();
        assert_same((&origin, name, digest), (&peer, repository, tag)).await.unwrap();
    }
}

/// No two PUTs of one tag were under way at the same time.
pub(crate) fn puts_never_overlap(site: &Site) {
    let mut busy: BTreeMap<String, Vec<(Instant, Instant)>> = BTreeMap::new();
    for put in site.proxy().manifest_puts() {
        let end = put.answered.expect("every PUT was answered by now");
        if !put.reference().starts_with("sha256:") {
            busy.entry(put.path).or_default().push((put.arrived, end));
        }
    }
    for (path, mut times) in busy {
        times.sort_unstable();
        let apart = times.windows(2).all(|pair| pair[0].1 <= pair[1].0);
        assert!(apart, "two PUTs of {path} at once: {times:?}");
    }
}
