//! A writer of tar files by hand, because libraries refuse to write the odd ones.

use std::fmt::Write as _;

/// A tar file that is being written.
#[derive(Debug, Clone, Default)]
pub struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    /// A regular file.
    pub fn file(self, name: impl AsRef<[u8]>, content: &[u8]) -> Self {
        self.entry(b'0', name, "", content)
    }

    /// A symbolic link.
    pub fn link(self, name: impl AsRef<[u8]>, target: &str) -> Self {
        self.entry(b'2', name, target, b"")
    }

    /// A folder.
    pub fn folder(self, name: &str) -> Self {
        self.entry(b'5', name, "", b"")
    }

    /// An entry of any type. Names may have any bytes of their 100, NUL among them.
    pub fn entry(self, kind: u8, name: impl AsRef<[u8]>, link: &str, content: &[u8]) -> Self {
        self.sized(kind, name, link, content, content.len() as u64)
    }

    /// An entry that claims a size, whatever follows.
    pub fn sized(
        mut self,
        kind: u8,
        name: impl AsRef<[u8]>,
        link: &str,
        content: &[u8],
        size: u64,
    ) -> Self {
        let mut header = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| {
            header[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(0, name.as_ref());
        put(100, b"0000644\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{size:011o}\0").as_bytes());
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// A PAX header that describes the next entry.
    pub fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut text = String::new();
        for (key, value) in records {
            let body = format!(" {key}={value}\n");
            let digits = |length: usize| length.to_string().len();
            let mut length = body.len() + digits(body.len());
            if digits(length) > digits(body.len()) {
                length = body.len() + digits(length);
            }
            write!(text, "{length}{body}").unwrap();
        }
        self.entry(b'x', "pax", "", text.as_bytes())
    }

    /// With the two empty blocks at its end.
    pub fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }

    /// Without them, as some writers leave it.
    pub fn cut(self) -> Vec<u8> {
        self.bytes
    }
}
