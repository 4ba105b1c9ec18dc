//! Taking a blob from another repository of the same registry, and every way in which that does
//! not work.

use axum::response::Response;
use colophon_domain::{Access, CopyTotals, Digest};

use crate::{
    fake::{Fake, Seen, error, status, with},
    support::{Keys, copy, descriptor, image, registries},
};

/// Copies from `a/src` to `a/dst` of one registry whose mounts are answered by `answer`.
async fn mounted(
    answer: impl Fn(&Seen) -> Option<Response> + Send + Sync + 'static,
) -> (Fake, CopyTotals) {
    let fake = Fake::start().await;
    let digest = fake.add_blob("a/src", b"content");
    let image = image(&[descriptor("c", &digest, 7)]);
    fake.add_manifest("a/src", "v1", &image);
    fake.hook(move |seen| {
        let mount = seen.is("POST", "/uploads/") && !seen.query("mount").is_empty();
        if mount { answer(seen) } else { None }
    });
    let registries = registries([fake.config()], Keys::one("robot", "secret"));
    let from = registries.session(&fake.repository("a/src"), Access::Pull).unwrap();
    let to = registries.session(&fake.repository("a/dst"), Access::Push).unwrap();
    let totals = copy(&from, &to, &image.digest).await.unwrap();
    (fake, totals)
}

#[tokio::test]
async fn a_mount_sends_nothing() {
    let (fake, totals) = mounted(|_| Some(status(201))).await;
    assert_eq!((totals.blobs_mounted, totals.blobs_copied, totals.bytes_copied), (1, 0, 0));
    let post = fake.seen().into_iter().find(|seen| seen.is("POST", "/uploads/")).unwrap();
    assert_eq!(post.query("mount"), [Digest::sha256(b"content").as_str()]);
    assert_eq!(post.query("from"), ["a/src"]);
    assert_eq!(post.header("content-length"), "0");
    assert_eq!((fake.count("GET", "/blobs/"), fake.count("PUT", "/uploads/")), (0, 0));
}

#[tokio::test]
async fn with_202_the_same_session_goes_on() {
    let location = "/v2/a/dst/blobs/uploads/the-one";
    let (fake, totals) = mounted(move |_| Some(with(202, &[("location", location)], ""))).await;
    assert_eq!((totals.blobs_mounted, totals.blobs_copied), (0, 1));
    assert_eq!((fake.count("POST", "/uploads/"), fake.count("PUT", "/uploads/the-one")), (1, 1));
}

#[tokio::test]
async fn any_refusal_means_an_ordinary_upload() {
    for code in [400, 401, 403, 404, 405] {
        let (fake, totals) = mounted(move |_| Some(error(code, "UNSUPPORTED", "no"))).await;
        assert_eq!((totals.blobs_mounted, totals.blobs_copied), (0, 1), "{code}");
        assert_eq!(fake.blob("a/dst", &Digest::sha256(b"content")).unwrap(), "content");
    }
}

#[tokio::test]
async fn nothing_is_mounted_across_registries() {
    let (source, target, from, to) = crate::copying::pair().await;
    let digest = source.add_blob("a/src", b"content");
    let image = image(&[descriptor("c", &digest, 7)]);
    source.add_manifest("a/src", "v1", &image);
    assert_eq!(copy(&from, &to, &image.digest).await.unwrap().blobs_copied, 1);
    assert!(target.seen().iter().all(|seen| seen.query("mount").is_empty()));
}
