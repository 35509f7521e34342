//! Bearer tokens with scopes.
//!
//! The token file is TOML and holds no token, only their hashes:
//!
//! ```toml
//! [[token]]
//! name = "ci"                      # stands in logs
//! scope = "submit"                 # read, submit, worker or admin
//! sha256 = "9f86d0…"               # printf %s "$TOKEN" | sha256sum
//! expires = 2027-01-01T00:00:00Z   # optional
//! ```

use std::{fmt, path::Path};

use joust_proto::{Failure, Reason};
use ring::{digest, rand::SecureRandom};
use serde::Deserialize;
use subtle::ConstantTimeEq;
use toml::value::{Datetime, Offset};

use crate::{Error, Result};

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Calls that change nothing.
    Read,
    /// Those, and all that a user does to runs.
    Submit,
    /// Calls that change nothing, and those between workers, which need a client certificate as well.
    Worker,
    /// Every call.
    Admin,
}

impl Scope {
    /// Returns whether a token of this scope allows calls that need `wanted`.
    pub fn allows(self, wanted: Self) -> bool {
        self == wanted || self == Self::Admin || wanted == Self::Read
    }

    /// Returns the name in the token file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Worker => "worker",
            Self::Admin => "admin",
        }
    }
}

/// A token; what prints it prints nothing of it.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Wraps a token, without the white space around it.
    pub fn new(token: &str) -> Self {
        Self(token.trim().to_owned())
    }

    /// Returns the token.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// Returns the SHA-256 that stands in the token file, hexadecimal.
    pub fn sha256(&self) -> String {
        hash(&self.0).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Makes a new token of 256 random bits.
///
/// # Panics
/// If the system gives no random numbers.
pub fn new_token() -> Token {
    let mut bytes = [0; 32];
    ring::rand::SystemRandom::new().fill(&mut bytes).expect("the system's random numbers are there from boot on");
    Token(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// One entry of the token file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEntry {
    /// Whose token it is.
    pub name: String,
    /// What it allows.
    pub scope: Scope,
    hash: [u8; 32],
    expires_s: Option<i64>,
}

/// The tokens of a file.
#[derive(Debug, Clone)]
pub(crate) struct Tokens(Vec<TokenEntry>);

impl Tokens {
    /// Parses a token file.
    ///
    /// # Errors
    /// [`Error::TokenFile`] naming the entry.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Entry {
            name: String,
            scope: Scope,
            sha256: String,
            expires: Option<Datetime>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            token: Vec<Entry>,
        }
        let invalid = |reason: String| Error::TokenFile { path: path.to_owned(), reason };
        // The message only: the default form quotes the line.
        let file: File = toml::from_str(text).map_err(|error| invalid(error.message().to_owned()))?;
        let entry = |Entry { name, scope, sha256, expires }| {
            let hash = parse_hash(&sha256)
                .ok_or_else(|| invalid(format!("token {name:?} needs sha256 = 64 hexadecimal digits")))?;
            let expires_s = expires
                .map(|at| {
                    unix_s(&at).ok_or_else(|| invalid(format!("token {name:?} needs expires = 2027-01-01T00:00:00Z")))
                })
                .transpose()?;
            Ok(TokenEntry { name, scope, hash, expires_s })
        };
        Ok(Self(file.token.into_iter().map(entry).collect::<Result<_>>()?))
    }

    /// Finds the entry of what a caller sent as `authorization`; every entry is compared, in constant time.
    ///
    /// # Errors
    /// A failure that says whether the token is missing, unknown or expired.
    pub(crate) fn check(&self, authorization: Option<&[u8]>, now_s: i64) -> Result<TokenEntry, Failure> {
        let missing = || Failure::new(Reason::TokenMissing, "expected `authorization: Bearer TOKEN`, got none");
        let text = authorization.and_then(|value| std::str::from_utf8(value).ok()).ok_or_else(missing)?;
        let (scheme, token) = text.split_once(' ').ok_or_else(missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(missing());
        }
        let presented = hash(token.trim());
        let mut found = None;
        for entry in &self.0 {
            if bool::from(entry.hash[..].ct_eq(&presented[..])) {
                found = Some(entry);
            }
        }
        let entry = found.ok_or_else(|| Failure::new(Reason::TokenUnknown, "the token is not in the token file"))?;
        if entry.expires_s.is_some_and(|end| end <= now_s) {
            let message = format!("token {:?} has expired; ask the operator for a new one", entry.name);
            return Err(Failure::new(Reason::TokenExpired, message).with("token", &entry.name));
        }
        Ok(entry.clone())
    }
}

fn hash(token: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    out
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(out)
}

/// Returns the seconds since 1970 of a time with date, time of day and offset.
fn unix_s(at: &Datetime) -> Option<i64> {
    let (date, time, offset) = (at.date?, at.time?, at.offset?);
    let month = time::Month::try_from(date.month).ok()?;
    let date = time::Date::from_calendar_date(date.year.into(), month, date.day).ok()?;
    let clock = time::Time::from_hms(time.hour, time.minute, time.second.unwrap_or(0)).ok()?;
    let east_s = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes) * 60,
    };
    Some(date.with_time(clock).assume_utc().unix_timestamp() - east_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(token: &str, more: &str) -> Result<Tokens> {
        let text =
            format!("[[token]]\nname = \"a\"\nscope = \"read\"\nsha256 = \"{}\"\n{more}", Token::new(token).sha256());
        Tokens::parse(Path::new("tokens.toml"), &text)
    }

    #[test]
    fn the_hash_is_that_of_sha256sum() {
        // printf %s test | sha256sum
        let wanted = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(Token::new("test\n").sha256(), wanted);
    }

    #[test]
    fn a_token_is_found_until_it_expires() {
        // date -u -d 2026-11-25T05:00:00Z +%s
        let tokens = file("one", "expires = 2026-11-25T07:00:00+02:00").expect("valid");
        let check = |value: &str, now| tokens.check(Some(value.as_bytes()), now).map_err(|failure| failure.reason());
        assert_eq!(check("Bearer one", 1_795_582_799).map(|entry| entry.name), Ok("a".into()));
        assert_eq!(check("Bearer one", 1_795_582_800), Err(Reason::TokenExpired));
        assert_eq!(check("Bearer two", 0), Err(Reason::TokenUnknown));
        assert_eq!(check("Basic one", 0), Err(Reason::TokenMissing));
        assert_eq!(tokens.check(None, 0).map_err(|failure| failure.reason()), Err(Reason::TokenMissing));
    }

    #[test]
    fn a_bad_file_is_refused_without_its_lines() {
        for more in ["expires = 2026-11-25", "secret = \"hunter2\"", "scope2 ="] {
            let error = file("one", more).expect_err(more).to_string();
            assert!(error.starts_with("token file tokens.toml is not valid: "), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert_eq!(format!("{:?}", new_token()), "Token(..)");
        assert_ne!(new_token().secret(), new_token().secret());
    }

    #[test]
    fn scopes_nest_as_documented() {
        use Scope::{Admin, Read, Submit, Worker};
        let allowed = |scope: Scope| [Read, Submit, Worker, Admin].map(|wanted| scope.allows(wanted));
        assert_eq!(allowed(Read), [true, false, false, false]);
        assert_eq!(allowed(Submit), [true, true, false, false]);
        assert_eq!(allowed(Worker), [true, false, true, false]);
        assert_eq!(allowed(Admin), [true; 4]);
    }
}
