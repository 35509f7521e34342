//! How much a message may hold; both sides of a connection set the same sizes.

/// Largest message that is received, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Largest piece of weights in one message, in bytes.
pub const MAX_CHUNK_BYTES: usize = 1 << 20;
/// Longest text of a prompt, a completion or a note, and longest run file, in bytes.
pub const MAX_TEXT_BYTES: usize = 1 << 20;
/// Longest name, hash, key or page token, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// Longest sequence of token ids.
pub const MAX_TOKENS: usize = 1 << 20;
/// Most answers to one prompt, messages of a chat, and models of a set.
pub const MAX_ANSWERS: usize = 1024;
/// Most answers that are compared each with each in one call.
pub const MAX_RANKED: usize = 64;
/// Most prompts, items or examples of one request.
pub const MAX_ITEMS: usize = 4096;
/// Most examples of one outcome: all pairs of the most answers.
pub const MAX_EXAMPLES: usize = 1 << 20;
/// Most changes of settings of one request.
pub const MAX_OVERRIDES: usize = 256;
/// Most entries of one page.
pub const MAX_PAGE: u32 = 1000;
/// Entries of a page that says nothing.
pub const DEFAULT_PAGE: u32 = 100;
