//! Tar files that no tool writes.

use colophon_local::{LocalErrorKind, Options};

use crate::{
    fixture::{Files, old_archive},
    support::{opened, refused},
    tars::Tar,
};

/// A layout's archive with something before it.
fn after(odd: Tar) -> Vec<u8> {
    let mut files = Files::default();
    let root = files.image("linux/amd64", &[b"layer"]);
    [odd.cut(), files.layout(&[root]).tar().end()].concat()
}

#[tokio::test]
async fn names_that_lead_out_of_the_archive_are_refused() {
    let long = "x".repeat(4097);
    for name in [&b"/etc/passwd"[..], b"../up", b"a/../../up", b"..", b"a\xffb"] {
        let tar = after(Tar::default().file(name, b"x"));
        refused(&tar, LocalErrorKind::Refused, "entry 1 has the name").await;
    }
    for name in [long.as_str(), "a\0b", "/abs", ""] {
        let tar = after(Tar::default().pax(&[("path", name)]).file("plain", b"x"));
        refused(&tar, LocalErrorKind::Refused, "entry 1 has the name").await;
        let tar = after(Tar::default().pax(&[("path", name)]).folder("plain"));
        refused(&tar, LocalErrorKind::Refused, "entry 1 has the name").await;
    }
    let odd =
        Tar::default().file("./a/../b", b"x").folder("./").file("c", b"").file("\u{1b}[2J", b"");
    assert!(opened(&after(odd), &Options::default()).await.is_ok());
    let error = refused(
        &after(Tar::default().file("../\u{1b}[2J\u{202e}", b"")),
        LocalErrorKind::Refused,
        "entry 1",
    )
    .await;
    assert!(!error.to_string().contains(['\u{1b}', '\u{202e}']), "{error:?}");
}

#[tokio::test]
async fn only_files_folders_and_links_to_files_are_taken() {
    for (kind, word) in [
        (b'1', "hard link"),
        (b'3', "device"),
        (b'4', "device"),
        (b'6', "pipe"),
        (b'7', "unknown type"),
        (b'Z', "unknown type"),
        (b'V', "unknown type"),
    ] {
        let tar = after(Tar::default().entry(kind, "odd", "oci-layout", b""));
        refused(&tar, LocalErrorKind::Refused, word).await;
    }
    let sparse = Tar::default().pax(&[("GNU.sparse.major", "1")]).file("odd", b"x");
    refused(&after(sparse), LocalErrorKind::Refused, "sparse").await;
    let old_sparse = after(Tar::default().entry(b'S', "odd", "", b""));
    opened(&old_sparse, &Options::default()).await.unwrap_err();
}

#[tokio::test]
async fn extension_headers_are_read_within_a_bound() {
    let large = "x".repeat(8 << 20);
    let pax = Tar::default().pax(&[("comment", &large)]).file("a", b"");
    refused(&after(pax), LocalErrorKind::TooLarge, "a header is larger").await;
    for kind in [b'L', b'K'] {
        let long = Tar::default().entry(kind, "././@LongLink", "", large.as_bytes()).file("a", b"");
        let error = opened(&after(long), &Options::default()).await.unwrap_err();
        assert_eq!(error.kind(), LocalErrorKind::TooLarge, "{error}");
    }
    // One for all that follow is not needed, and skipped.
    let global = Tar::default().entry(b'g', "pax_global", "", large.as_bytes());
    assert!(opened(&after(global), &Options::default()).await.is_ok());
    // Long names themselves are ordinary.
    let name = format!("{}/file", "folder".repeat(100));
    let long = Tar::default().pax(&[("path", &name)]).file("short", b"x");
    assert!(opened(&after(long), &Options::default()).await.is_ok());
    let two = Tar::default().pax(&[("path", "a")]).pax(&[("path", "b")]).file("c", b"");
    assert!(opened(&after(two), &Options::default()).await.is_err());
}

#[tokio::test]
async fn links_lead_to_files_of_the_archive_in_one_step() {
    let old = |odd: Tar| [odd.cut(), old_archive(&[(&["a:1"], &[b"layer"])]).end()].concat();
    for (name, target) in [
        ("a", "/etc/passwd"),
        ("a", "../a"),
        ("a/b", "../../x"),
        ("a", "a"),
        ("a", "nowhere"),
        ("a", ""),
        ("a", "folder"),
    ] {
        let tar = old(Tar::default().folder("folder").link(name, target));
        refused(&tar, LocalErrorKind::Refused, "the link").await;
    }
    let chain = Tar::default().file("file", b"x").link("b", "file").link("a", "b");
    refused(&old(chain), LocalErrorKind::Refused, "no file of the archive").await;
    let both = Tar::default().file("file", b"x").file("a", b"x").link("a", "file");
    refused(&old(both), LocalErrorKind::Refused, "a file and a link").await;
    let two = Tar::default().file("f", b"x").file("g", b"x").link("a", "f").link("a", "g");
    refused(&old(two), LocalErrorKind::Refused, "one link").await;
    let fine = Tar::default().file("f", b"x").link("d/a", "../f").link("d/a", "../f");
    assert!(opened(&old(fine), &Options::default()).await.is_ok());
}

#[tokio::test]
async fn a_name_may_be_there_twice_only_with_the_same_bytes() {
    let twice =
        |first: &[u8], then: &[u8]| after(Tar::default().file("x", first).file("./x", then));
    assert!(opened(&twice(b"same", b"same"), &Options::default()).await.is_ok());
    for other in [&b"diff"[..], b"longer", b""] {
        refused(&twice(b"same", other), LocalErrorKind::Refused, "twice").await;
    }
}

#[tokio::test]
async fn a_cut_archive_is_refused_and_one_without_end_is_not() {
    let mut files = Files::default();
    let root = files.image("linux/amd64", &[&[7; 3000]]);
    let whole = files.layout(&[root]).tar();
    let uncut = whole.clone().cut();
    assert!(opened(&uncut, &Options::default()).await.is_ok());
    assert!(
        opened(&[&whole.clone().end()[..], b"garbage"].concat(), &Options::default()).await.is_ok()
    );
    for length in (0..uncut.len() - 512).step_by(97) {
        let error = opened(&uncut[..length], &Options::default()).await.unwrap_err();
        let kinds = [LocalErrorKind::Damaged, LocalErrorKind::NotAnImage];
        assert!(kinds.contains(&error.kind()), "{length}: {error}");
    }
    let last = &uncut[..uncut.len() - 512];
    refused(last, LocalErrorKind::Damaged, "cut off").await;
    let claims = after(Tar::default()).len() as u64 * 1000;
    let odd = Tar::default().sized(b'0', "x", "", b"", claims);
    refused(&after(odd), LocalErrorKind::Damaged, "cut off").await;
    let endless = Tar::default().pax(&[("size", "18446744073709551615")]).file("x", b"");
    refused(&after(endless), LocalErrorKind::Damaged, "").await;
}

#[tokio::test]
async fn an_archive_has_so_many_entries_and_names() {
    // Seven are the layout's own.
    let mut many = Tar::default();
    for number in 0..65_536 - 7 {
        many = many.file(number.to_string(), b"");
    }
    assert!(opened(&after(many.clone()), &Options::default()).await.is_ok());
    refused(&after(many.folder("a")), LocalErrorKind::TooLarge, "65536 entries").await;
    let mut long = Tar::default();
    for number in 0..9_000 {
        let name = format!("{}{number}", "n".repeat(4_000));
        long = long.pax(&[("path", &name)]).file("x", b"");
    }
    refused(&after(long), LocalErrorKind::TooLarge, "names of its entries").await;
}
