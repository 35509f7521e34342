//! Real servers and clients in one process, on free ports.

mod access;
mod calls;
mod common;
mod drain;
mod streams;
