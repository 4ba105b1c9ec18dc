//! The hash of an entry as a leaf of the log's Merkle tree (RFC 6962, section 2.1).

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

/// `SHA-256(0x00 || body)`. The zero byte keeps a leaf from ever being read as an inner node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeafHash([u8; 32]);

/// The text is not 64 lower-case hexadecimal characters, or the bytes are not 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 32 bytes, written as 64 lower-case hexadecimal characters")]
pub struct InvalidHash;

impl LeafHash {
    /// The leaf hash of an entry's exact bytes.
    pub fn of(body: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update([0_u8]);
        hasher.update(body);
        Self(hasher.finalize().into())
    }

    /// A hash that was stored as 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<&[u8]> for LeafHash {
    type Error = InvalidHash;

    fn try_from(bytes: &[u8]) -> Result<Self, InvalidHash> {
        bytes.try_into().map(Self).map_err(|_| InvalidHash)
    }
}

impl FromStr for LeafHash {
    type Err = InvalidHash;

    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        bytes_from_hex(text).map(Self)
    }
}

impl fmt::Display for LeafHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for LeafHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads 32 bytes from 64 lower-case hexadecimal characters, and from nothing else.
pub(crate) fn bytes_from_hex(text: &str) -> Result<[u8; 32], InvalidHash> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(InvalidHash);
    }
    let mut bytes = [0_u8; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidHash)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_leaf_has_the_hash_of_rfc_6962() {
        let hash = LeafHash::of(b"");
        let text = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        assert_eq!(hash.to_string(), text);
        assert_eq!(text.parse(), Ok(hash));
        assert_eq!(LeafHash::try_from(hash.as_bytes().as_slice()), Ok(hash));
    }

    #[test]
    fn only_the_one_text_form_is_read() {
        let text = LeafHash::of(b"x").to_string();
        for other in
            [text.to_uppercase(), format!("{text}00"), text[2..].to_owned(), "g".repeat(64)]
        {
            assert_eq!(other.parse::<LeafHash>(), Err(InvalidHash), "{other}");
        }
        assert!(LeafHash::try_from([0_u8; 31].as_slice()).is_err());
    }
}
