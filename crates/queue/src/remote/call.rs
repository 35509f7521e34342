//! One call of a script, and the batches that it takes over.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use redis::{Cmd, Pipeline, RedisWrite, ToRedisArgs, cmd};

use crate::{Done, Item, Lease, Topic, core::rows::write_item};

/// How long a batch lasts that no script took over, because the server did not know the script.
const BATCH_S: u64 = 60;

/// A script, and the digest that a server knows it by.
pub(super) struct Script {
    pub text: &'static str,
    digest: OnceLock<String>,
}

impl Script {
    pub(super) const fn new(text: &'static str) -> Self {
        Self { text, digest: OnceLock::new() }
    }

    fn digest(&self) -> &str {
        self.digest.get_or_init(|| redis::Script::new(self.text).get_hash().to_owned())
    }
}

/// Writes a script's text behind what all of them share.
macro_rules! script {
    ($name:literal) => {{
        static SCRIPT: $crate::remote::call::Script = $crate::remote::call::Script::new(concat!(
            include_str!("scripts/common.lua"),
            include_str!(concat!("scripts/", $name, ".lua"))
        ));
        &SCRIPT
    }};
}
pub(super) use script;

/// One call of a script on a run; it can be made several times.
pub(super) struct Call<'a> {
    pub script: &'static Script,
    command: Cmd,
    run: String,
    /// Keys of topics with the items that the script takes over, once it takes batches at all.
    batches: Option<Vec<(String, Vec<&'a Item>)>>,
}

impl<'a> Call<'a> {
    /// Calls a script on the keys below a prefix.
    pub(super) fn new(script: &'static Script, run: String) -> Self {
        let mut command = cmd("EVALSHA");
        command.arg(script.digest()).arg(1).arg(&run);
        Self { script, command, run, batches: None }
    }

    pub(super) fn arg(mut self, value: impl ToRedisArgs) -> Self {
        self.command.arg(value);
        self
    }

    /// Adds leases, each with what becomes of its item; what follows each other alike is one group.
    pub(super) fn leases<'l>(mut self, ends: impl IntoIterator<Item = (&'l Lease, Option<&'l Done>)>) -> Self {
        let ends: Vec<_> = ends.into_iter().collect();
        let alike = |(one, done): &(&Lease, _), (other, other_done): &(&Lease, _)| {
            one.token == other.token && one.topic == other.topic && done == other_done
        };
        self.command.arg(ends.chunk_by(alike).count());
        for group in ends.chunk_by(alike) {
            let (lease, done) = group[0];
            let (what, reason) = match done {
                None => ("", ""),
                Some(Done::Moved) => ("moved", ""),
                Some(Done::Dropped(reason)) => ("dropped", reason.as_str()),
                Some(Done::Retry(reason)) => ("retry", reason.as_str()),
            };
            self.command.arg(lease.topic.name.as_str()).arg(lease.token).arg(what).arg(reason).arg(group.len());
            for (lease, _) in group {
                self.command.arg(lease.place);
            }
        }
        self
    }

    /// Adds the ids of items that the script takes over, behind their number.
    pub(super) fn batch(mut self, topic: &Topic, items: Vec<&'a Item>) -> Self {
        self.command.arg(items.len());
        for item in &items {
            self.command.arg(item.id.as_bytes());
        }
        let key = format!("{}:{}:batch:", self.run, topic.name);
        self.batches.get_or_insert_default().push((key, items));
        self
    }

    /// Says that the script takes batches, also where there are none.
    pub(super) fn batches(mut self) -> Self {
        self.batches.get_or_insert_default();
        self
    }

    /// Returns the number of bytes of the call's items.
    pub(super) fn bytes(&self) -> usize {
        let items = self.batches.iter().flatten().flat_map(|(_, items)| items);
        items.map(|item| item.body.len() + item.trace.as_ref().map_or(0, String::len)).sum()
    }

    /// Returns the commands of one try, the last of which answers, and whether they are a transaction. Each try writes batches of its own, because an
    /// earlier one may have been taken over.
    pub(super) fn commands(&self, session: &str) -> (Pipeline, bool) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (mut pipeline, mut command) = (Pipeline::new(), self.command.clone());
        let Some(batches) = &self.batches else {
            pipeline.add_command(command);
            return (pipeline, false);
        };
        let name = format!("{session}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        command.arg(&name);
        // No transaction without items: a full server refuses all transactions, also those that make room.
        if batches.is_empty() {
            pipeline.add_command(command);
            return (pipeline, false);
        }
        pipeline.cmd("MULTI");
        for (key, items) in batches {
            let key = format!("{key}{name}");
            let mut write = Cmd::with_capacity(2 + 2 * items.len(), self.bytes() + 64 * items.len() + 64);
            write.arg("HSET").arg(&key);
            for (number, item) in items.iter().enumerate() {
                write.arg(number).arg(Body(item));
            }
            pipeline.add_command(write);
            pipeline.cmd("EXPIRE").arg(&key).arg(BATCH_S);
        }
        pipeline.add_command(command).cmd("EXEC");
        (pipeline, true)
    }
}

/// An item as it is stored.
struct Body<'a>(&'a Item);

impl ToRedisArgs for Body<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        write_item(self.0, &mut out.writer_for_next_arg()).expect("memory takes every write");
    }
}
