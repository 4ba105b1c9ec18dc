//! Golden vectors: entries, leaf hashes and commitments that version 1 must read and write for
//! ever. They were computed by a program in another language from `docs/ledger-format.md`. If one
//! of these tests fails the change is wrong, never the vector.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic like the test itself")]

use colophon_ledger::{
    Actor, After, Commitment, Entry, Kind, LeafHash, Proof, Purpose, Source, verify_chain,
};
use time::macros::datetime;
use uuid::Uuid;

const BASELINE: &str = r#"{"at":"2026-11-23T15:04:05.000000Z","id":"0193581e-6a6f-7c2d-9f5f-000000000001","kind":"baseline","new":"sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb","purpose":"observation","registry":"registry.example.com:5000","repository":"acme/app","tag":"1.2","tag_seq":"1","v":"1"}"#;
const BASELINE_LEAF: &str = "770e44e0947fb862ab613e04a46c62359e55837c57a263db9ff87ad27c800075";
const INTENT: &str = r#"{"actor":"6f947a480b767c3b1c676625bbdca6352ad820bf8525b8c22569696fe6212221","after":{"root":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":"100000"},"at":"2026-11-23T15:04:05.000001Z","id":"0193581e-6a6f-7c2d-9f5f-000000000002","kind":"intent","new":"sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d","old":"sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb","prev":"770e44e0947fb862ab613e04a46c62359e55837c57a263db9ff87ad27c800075","purpose":"publish","reason":"1471089a567d990168815a43891a94bc993ab5ca1f3b65e6cf10764e3dd8220e","registry":"registry.example.com:5000","release":"0193581e-6a6f-7c2d-9f5f-aaaaaaaaaaaa","repository":"acme/app","source":{"digest":"sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d","registry":"ghcr.io","repository":"acme/build/app"},"tag":"1.2","tag_seq":"2","v":"1"}"#;
const INTENT_LEAF: &str = "9d3c02d575eaaebb7263dd7a57606883e7bc5fe900fa2503b9f22909e1c704e7";
const CONFLICT: &str = r#"{"at":"2026-11-23T15:04:06.250000Z","id":"0193581e-6a6f-7c2d-9f5f-000000000003","intent":"0193581e-6a6f-7c2d-9f5f-000000000002","kind":"conflict","not_before":"2026-11-23T15:04:05.000001Z","old":"sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb","prev":"9d3c02d575eaaebb7263dd7a57606883e7bc5fe900fa2503b9f22909e1c704e7","purpose":"publish","reason_code":"TAG_MOVED","registry":"registry.example.com:5000","release":"0193581e-6a6f-7c2d-9f5f-aaaaaaaaaaaa","repository":"acme/app","tag":"1.2","tag_seq":"3","v":"1"}"#;
const CONFLICT_LEAF: &str = "a0f9b2a0cc583659b6c326af3845affd15f829bcc424ed9a525eb8ba44dd3134";
const REDACTION: &str = r#"{"at":"2027-01-01T00:00:00.000000Z","id":"0193581e-6a6f-7c2d-9f5f-000000000004","intent":"0193581e-6a6f-7c2d-9f5f-000000000002","kind":"redaction","prev":"a0f9b2a0cc583659b6c326af3845affd15f829bcc424ed9a525eb8ba44dd3134","purpose":"observation","registry":"registry.example.com:5000","repository":"acme/app","tag":"1.2","tag_seq":"4","v":"1"}"#;
const REDACTION_LEAF: &str = "ea548cc7854bf3e2778165741f8609885e8e0a113e0884331da751768ffaf0f2";
const KEY_ROTATION: &str = r#"{"at":"2027-01-01T00:00:00.000000Z","id":"0193581e-6a6f-7c2d-9f5f-000000000005","kind":"key_rotation","new":"sha256:c37ee9c4df69d2e96c5e9b94c75d7cabc583e7ef6dc65a6c01ca3a8d3f8b7705","old":"sha256:e8a987f97b609851a77e10d6d48138ef0e518f46b9f1da1145ba183ad02f9353","purpose":"observation","tag_seq":"1","v":"1"}"#;
const KEY_ROTATION_LEAF: &str = "287913a2978f7a8c8dada94dc31aa37db02cff931ccb561d53ca8534911e6d64";

const ACTOR: &str = "6f947a480b767c3b1c676625bbdca6352ad820bf8525b8c22569696fe6212221";
const ACTOR_ALONE: &str = "a77cc0039b1f1d39d46fca9385c4e3975b1c8827da09ba48fbe03eb23e3f13cb";
const REASON: &str = "1471089a567d990168815a43891a94bc993ab5ca1f3b65e6cf10764e3dd8220e";

fn id(last: u8) -> Uuid {
    Uuid::parse_str(&format!("0193581e-6a6f-7c2d-9f5f-0000000000{last:02x}")).unwrap()
}

fn salt() -> [u8; 32] {
    std::array::from_fn(|index| u8::try_from(index).unwrap())
}

fn actor() -> Actor {
    Actor {
        principal: "ci".into(),
        on_behalf_of: Some("ada@example.com".into()),
        proof: Proof::Claimed,
    }
}

#[test]
fn the_bytes_of_an_entry_never_change() {
    let a = "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
    let b = "sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d";
    let root = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let intent = Entry {
        id: id(2),
        kind: Kind::Intent,
        purpose: Purpose::Publish,
        registry: "registry.example.com:5000".into(),
        repository: "acme/app".into(),
        tag: "1.2".into(),
        tag_seq: 2,
        prev: Some(BASELINE_LEAF.parse().unwrap()),
        old: Some(a.into()),
        new: Some(b.into()),
        intent: None,
        at: datetime!(2026-11-23 15:04:05.000_001 UTC),
        not_before: None,
        source: Some(Source {
            registry: "ghcr.io".into(),
            repository: "acme/build/app".into(),
            digest: b.into(),
        }),
        release: Some("0193581e-6a6f-7c2d-9f5f-aaaaaaaaaaaa".parse().unwrap()),
        reason_code: None,
        actor: Some(Commitment::actor(&salt(), &actor())),
        reason: Some(Commitment::reason(&salt(), "Release 1.2.3 \u{2013} \"gr\u{fc}n\"\n")),
        after: Some(After { size: 100_000, root: hex::decode(root).unwrap().try_into().unwrap() }),
    };
    assert_eq!(String::from_utf8(intent.to_bytes().unwrap()).unwrap(), INTENT);
    assert_eq!(Entry::parse(INTENT.as_bytes()).unwrap(), intent);
}

#[test]
fn every_golden_entry_reads_writes_and_hashes_the_same() {
    for (body, leaf) in [
        (BASELINE, BASELINE_LEAF),
        (INTENT, INTENT_LEAF),
        (CONFLICT, CONFLICT_LEAF),
        (REDACTION, REDACTION_LEAF),
        (KEY_ROTATION, KEY_ROTATION_LEAF),
    ] {
        let entry = Entry::parse(body.as_bytes()).unwrap();
        assert_eq!(entry.to_bytes().unwrap(), body.as_bytes());
        assert_eq!(LeafHash::of(body.as_bytes()).to_string(), leaf);
    }
    verify_chain(&[BASELINE, INTENT, CONFLICT, REDACTION]).unwrap();
    verify_chain(&[KEY_ROTATION]).unwrap();
}

#[test]
fn commitments_never_change() {
    assert_eq!(Commitment::actor(&salt(), &actor()).to_string(), ACTOR);
    let alone = Actor { on_behalf_of: None, ..actor() };
    assert_eq!(Commitment::actor(&salt(), &alone).to_string(), ACTOR_ALONE);
    let reason = Commitment::reason(&salt(), "Release 1.2.3 \u{2013} \"gr\u{fc}n\"\n");
    assert_eq!(reason.to_string(), REASON);
}

#[test]
fn another_spelling_of_the_same_entry_is_refused() {
    for (from, to) in [
        (r#","v":"1""#, r#","v": "1""#),
        (r#"{"at""#, "{\n\"at\""),
        (r#","v":"1"}"#, r#","v":"1","v":"1"}"#),
        (r#","v":"1"}"#, r#","v":"1","x":"1"}"#),
        (r#","v":"1"}"#, r#","v":"1","old":null}"#),
        (r#","v":"1"}"#, r#","v":"1"} "#),
        (r#""tag_seq":"1""#, r#""tag_seq":1"#),
        (r#""tag_seq":"1""#, r#""tag_seq":"01""#),
        (r#""tag":"1.2""#, r#""tag":"\u0031.2""#),
        (r#""v":"1""#, r#""v":"2""#),
        ("000000Z", "000Z"),
        ("0193581e", "0193581E"),
        ("sha256:ca", "sha256:CA"),
        (r#""kind":"baseline""#, r#""kind":"Baseline""#),
        (r#","purpose":"observation""#, ""),
        (r#""at":"2026-11-23T15:04:05.000000Z","#, ""),
    ] {
        let other = BASELINE.replacen(from, to, 1);
        assert_ne!(other, BASELINE, "{from}");
        assert!(Entry::parse(other.as_bytes()).is_err(), "{other}");
    }
    assert!(Entry::parse(b"").is_err() && Entry::parse(b"[]").is_err());
    assert!(Entry::parse(&[b' '; 5000]).is_err());
}
