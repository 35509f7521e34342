//! Identities: names of runs and content-derived ids of records.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Name of a run: 1 to 64 letters, digits, `-`, `_` or `.`, starting with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// Parses a run name.
    ///
    /// # Errors
    /// [`Error::RunName`] if a folder or a key could not hold it.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let valid = (1..=64).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if valid { Ok(Self(name)) } else { Err(Error::RunName(name)) }
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RunId {
    type Error = Error;
    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

impl From<RunId> for String {
    fn from(run: RunId) -> Self {
        run.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Identity of a record: 128 bits of BLAKE3 over what the record derives from, so that work done twice has one id (R1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecordId([u8; 16]);

impl RecordId {
    /// Derives an id from its parts; each part is length-prefixed, so `["ab", "c"]` and `["a", "bc"]` differ.
    pub fn derive(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(id)
    }

    /// Wraps raw bytes read back from a store.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the raw bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for RecordId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::RecordId(text.to_owned());
        if text.len() != 32 || !text.is_ascii() {
            return Err(invalid());
        }
        let mut id = [0; 16];
        for (i, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| invalid())?;
        }
        Ok(Self(id))
    }
}

impl TryFrom<String> for RecordId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<RecordId> for String {
    fn from(id: RecordId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(RecordId::derive(&[b"ab", b"c"]), RecordId::derive(&[b"a", b"bc"]));
    }

    #[test]
    fn ids_round_trip_as_text() {
        let id = RecordId::derive(&[b"x"]);
        assert_eq!(id.to_string().parse::<RecordId>().expect("valid"), id);
        assert!("zz".parse::<RecordId>().is_err());
    }

    #[test]
    fn run_names_are_checked() {
        assert!(RunId::new("stories-1").is_ok());
        for bad in ["", "../x", "-a", "a b"] {
            assert!(RunId::new(bad).is_err(), "{bad}");
        }
    }
}
