//! Conversions between messages and the records of `joust-core`: `TryFrom` for what arrives, `From` for what is sent.

mod choices;
mod example;
mod judgement;
mod prompt;
mod rollout;
#[cfg(test)]
mod tests;
