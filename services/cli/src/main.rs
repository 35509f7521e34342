//! The joust command.
fn main() {}
