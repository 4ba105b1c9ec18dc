//! The JSON form of the messages, held against golden texts: scripts and the REST face rely on
//! every key and spelling here.

use prost::Message as _;
use serde_json::{Value, json};

use crate::{DESCRIBED_FILE_DESCRIPTOR_SET, FILE_DESCRIPTOR_SET, Timestamp, v1};

fn timestamp(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn release() -> v1::Release {
    v1::Release {
        id: "019a4d1c-0000-7000-8000-000000000001".into(),
        source: "ghcr.io/acme/app:sha-1".into(),
        digest: "sha256:e3b0".into(),
        state: v1::ReleaseState::Running.into(),
        phase: "copy".into(),
        publications: vec![v1::Publication {
            repository: "docker.io/acme/app".into(),
            state: v1::PublicationState::Copying.into(),
            tags: vec![v1::TagMove {
                tag: "1.4".into(),
                kind: v1::TagKind::Floating.into(),
                state: v1::TagMoveState::Pending.into(),
                ticket: 9_007_199_254_740_993,
                ..Default::default()
            }],
            bytes_total: 12,
            ..Default::default()
        }],
        labels: [("team".to_owned(), "web".to_owned())].into(),
        priority: -5,
        create_time: Some(timestamp("2026-11-03T14:02:00.120Z")),
        ..Default::default()
    }
}

fn golden() -> Value {
    json!({
        "id": "019a4d1c-0000-7000-8000-000000000001",
        "source": "ghcr.io/acme/app:sha-1",
        "digest": "sha256:e3b0",
        "sourceDigest": "",
        "origin": "",
        "state": "RELEASE_STATE_RUNNING",
        "stateReason": "",
        "message": "",
        "phase": "copy",
        "waitingFor": "",
        "publications": [{
            "repository": "docker.io/acme/app",
            "state": "PUBLICATION_STATE_COPYING",
            "tags": [{
                "tag": "1.4",
                "kind": "TAG_KIND_FLOATING",
                "state": "TAG_MOVE_STATE_PENDING",
                "reason": "",
                "message": "",
                "oldDigest": "",
                "newDigest": "",
                "ticket": "9007199254740993",
                "wantedDigest": "",
                "expectedDigest": "",
                "orderKey": ""
            }],
            "blobsCopied": "0",
            "blobsPresent": "0",
            "blobsMounted": "0",
            "bytesCopied": "0",
            "bytesTotal": "12",
            "notes": [],
            "companions": []
        }],
        "actor": "",
        "onBehalfOf": "",
        "reason": "",
        "labels": {"team": "web"},
        "priority": -5,
        "createTime": "2026-11-03T14:02:00.120Z",
        "attempts": [],
        "cancelRequested": false,
        "purpose": "",
        "waitingReason": "",
        "onFailure": "ON_FAILURE_UNSPECIFIED",
        "plan": "",
        "semver": "",
        "breakGlass": false,
        "revision": "0",
        "summary": "",
        "retries": []
    })
}

#[test]
fn a_release_is_written_with_every_key_and_without_unset_times() {
    assert_eq!(serde_json::to_value(release()).unwrap(), golden());
}

#[test]
fn a_release_reads_back() {
    let text = serde_json::to_string(&release()).unwrap();
    assert_eq!(serde_json::from_str::<v1::Release>(&text).unwrap(), release());
}

#[test]
fn a_request_is_read_in_either_spelling() {
    let camel = json!({
        "source": "ghcr.io/acme/app:sha-1",
        "targets": [{"repository": "docker.io/acme/app", "floatingTags": ["1.4"]}],
        "onBehalfOf": "ada",
        "notAfter": "2026-11-03T16:02:00+02:00"
    });
    let snake = json!({
        "source": "ghcr.io/acme/app:sha-1",
        "targets": [{"repository": "docker.io/acme/app", "floating_tags": ["1.4"]}],
        "on_behalf_of": "ada",
        "not_after": "2026-11-03T14:02:00Z"
    });
    let camel: v1::CreateReleaseRequest = serde_json::from_value(camel).unwrap();
    let snake: v1::CreateReleaseRequest = serde_json::from_value(snake).unwrap();
    assert_eq!(camel, snake);
    assert_eq!(camel.targets[0].floating_tags, ["1.4"]);
    assert_eq!(camel.not_after, Some(timestamp("2026-11-03T14:02:00Z")));
}

#[test]
fn numbers_are_read_as_numbers_or_strings() {
    let text: v1::TagMove = serde_json::from_value(json!({"ticket": "7"})).unwrap();
    let number: v1::TagMove = serde_json::from_value(json!({"ticket": 7})).unwrap();
    assert_eq!(text, number);
    let state = json!({"states": ["RELEASE_STATE_QUEUED", 2]});
    let list: v1::ListReleasesRequest = serde_json::from_value(state).unwrap();
    assert_eq!(list.states, [1, 2]);
}

#[test]
fn what_the_contract_does_not_have_is_refused() {
    let unknown = json!({"source": "a/b:c", "tags": []});
    let error = serde_json::from_value::<v1::CreateReleaseRequest>(unknown).unwrap_err();
    assert!(error.to_string().contains("unknown field `tags`"), "{error}");
    let twice = r#"{"onBehalfOf": "a", "on_behalf_of": "b"}"#;
    assert!(serde_json::from_str::<v1::CreateReleaseRequest>(twice).is_err());
    let state = json!({"states": ["DONE"]});
    assert!(serde_json::from_value::<v1::ListReleasesRequest>(state).is_err());
    let time = json!({"notAfter": "tomorrow"});
    assert!(serde_json::from_value::<v1::CreateReleaseRequest>(time).is_err());
}

#[test]
fn an_upload_and_what_goes_into_it_have_every_key() {
    let upload = serde_json::to_value(v1::Upload {
        bytes_received: 9_007_199_254_740_993,
        expire_time: Some(timestamp("2026-11-03T15:02:00Z")),
        ..Default::default()
    });
    let keys = json!({
        "id": "", "repository": "", "origin": "", "actor": "",
        "expireTime": "2026-11-03T15:02:00Z", "bytesReceived": "9007199254740993"
    });
    assert_eq!(upload.unwrap(), keys);
    let state = serde_json::to_value(v1::UploadBlobState::default()).unwrap();
    assert_eq!(state, json!({"digest": "", "present": false, "offset": "0", "busy": false}));
    let put = serde_json::to_value(v1::PutBlobResponse::default()).unwrap();
    assert_eq!(put, json!({"offset": "0", "present": false}));
    let manifest = json!({
        "id": "", "digest": "sha256:e3b0",
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "content": "e30="
    });
    let manifest: v1::PutManifestRequest = serde_json::from_value(manifest).unwrap();
    assert_eq!(manifest.content, b"{}");
}

#[test]
fn bytes_are_base64() {
    let entry = v1::TagEntry { leaf_hash: vec![0xfb, 0xff], ..Default::default() };
    let value = serde_json::to_value(&entry).unwrap();
    assert_eq!(value["leafHash"], "+/8=");
    assert_eq!(value["tagSeq"], "0");
    assert_eq!(serde_json::from_value::<v1::TagEntry>(value).unwrap(), entry);
}

#[test]
fn a_list_has_its_keys_when_it_is_empty() {
    let empty = serde_json::to_value(v1::ListReleasesResponse::default()).unwrap();
    assert_eq!(empty, json!({"releases": [], "nextPageToken": ""}));
    let empty = serde_json::to_value(v1::ListTagMovesResponse::default()).unwrap();
    assert_eq!(empty, json!({"moves": [], "nextPageToken": ""}));
}

/// A field of `google.protobuf.FileDescriptorProto`, enough to see what the sets hold.
#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", optional, tag = "9")]
    source_info: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Set {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[test]
fn the_descriptors_hold_the_contract_its_routes_and_on_demand_its_comments() {
    let bare = Set::decode(FILE_DESCRIPTOR_SET).unwrap();
    let described = Set::decode(DESCRIBED_FILE_DESCRIPTOR_SET).unwrap();
    let names: Vec<&str> = bare.files.iter().map(|file| file.name.as_str()).collect();
    for name in
        ["colophon/v1/release.proto", "colophon/v1/tag.proto", "google/api/annotations.proto"]
    {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(bare.files.iter().all(|file| file.source_info.is_none()));
    let contract = described.files.iter().find(|file| file.name == "colophon/v1/tag.proto");
    assert!(contract.unwrap().source_info.is_some());
    let holds = |set: &[u8], text: &[u8]| set.windows(text.len()).any(|window| window == text);
    assert!(holds(FILE_DESCRIPTOR_SET, b"/v1/releases/{id}/cancel"));
    assert!(holds(DESCRIBED_FILE_DESCRIPTOR_SET, b"/v1/releases/{id}/cancel"));
}
