//! The queue on Redis: every call is one Lua script over the keys of one run, so it happens whole or not at all.
//!
//! The rules are those of [`crate::core`], once more in Lua, because here several processes share them: what a lease is worth is known to the server, by its
//! own clock. The suite in `conformance` holds both to the same promises.

mod bells;
mod call;
mod config;
mod link;
mod reply;
mod server;
mod slot;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    AssignedStep, Clock, Consumer, DeadLetter, Done, Error, Fence, Item, Lease, Leased, PutReport, Queue, QueueStats,
    Result, Settings, StepManifest, Topic, TopicName, TopicStats, core::rows::decode_item,
};
use async_trait::async_trait;
use bells::{LOOK, Wanted};
use call::{Call, Script, script};
pub use config::RedisConfig;
use joust_core::{RecordId, RunId};
use link::Link;
pub use link::open_redis;
use redis::{Pipeline, Value};
use reply::{Reply, Ticket};

/// A longer lease is as good as this one, a hundred years; Lua counts exactly so far.
const LONGEST_LEASE_US: u64 = 3_155_760_000_000_000;
/// Most that Lua counts exactly, far beyond any step.
const MOST: u64 = 1 << 53;

/// A queue on a server.
#[derive(Clone)]
pub(crate) struct Remote {
    link: Arc<Link>,
    settings: Arc<Settings>,
    /// Whose time decides about leases; `None` for the server's.
    clock: Option<Arc<dyn Clock>>,
}

impl Remote {
    fn call<'a>(&self, script: &'static Script, run: &RunId) -> Call<'a> {
        let time = self.clock.as_ref().map(|clock| clock.now().as_micros().to_string());
        Call::new(script, prefix(run)).arg(time.unwrap_or_default())
    }

    /// Names an operation, so that it is done once also where its answer is lost and it is asked for again.
    fn once<'a>(&self, script: &'static Script, run: &RunId) -> Call<'a> {
        self.call(script, run).arg(self.link.next_operation())
    }

    async fn ask(&self, call: Call<'_>) -> Result<Reply> {
        self.link.ask(call).await
    }

    fn lease_us(&self) -> u64 {
        u64::try_from(self.settings.lease.as_micros()).unwrap_or(u64::MAX).min(LONGEST_LEASE_US)
    }

    /// Takes in a task of its own, so that what was leased is known also where nobody waits for it any more.
    async fn try_take(&self, topic: &Topic, who: &Consumer, max: usize) -> Result<Handover> {
        let (remote, topic, who) = (self.clone(), topic.clone(), who.clone());
        let task = tokio::spawn(async move { remote.take_now(&topic, &who, max).await });
        task.await.unwrap_or_else(|error| Err(Error::CutOff { reason: error.to_string() }))
    }

    async fn take_now(&self, topic: &Topic, who: &Consumer, max: usize) -> Result<Handover> {
        let call = self.once(script!("take"), &topic.run).arg(topic.name.as_str()).arg(who.as_str());
        let call = call.arg(max.min(u32::MAX as usize)).arg(self.lease_us()).arg(self.settings.max_deliveries);
        let reply = self.ask(call).await?;
        let expiry = reply.number(1).ok().map(Duration::from_micros);
        let mut handover = Handover { remote: self.clone(), leased: Vec::new(), expiry };
        let parts: Vec<Reply> = reply.rows(2).collect();
        let mut tickets = Vec::new();
        for part in &parts {
            let token = part.number(0)?;
            for at in 1..part.len() {
                tickets.push((token, part.ticket(at)?));
            }
        }
        let items = self.bodies(topic, &tickets).await?;
        for ((token, ticket), item) in tickets.into_iter().zip(items) {
            let (place, deliveries) = (ticket.place, ticket.deliveries + 1);
            let Some(item) = item else {
                self.check_lost(topic, place, token).await?;
                continue;
            };
            let lease = Lease { topic: topic.clone(), id: item.id, place, token };
            handover.leased.push(Leased { lease, item, deliveries });
        }
        Ok(handover)
    }

    /// Reads the items of tickets; none for one that is gone.
    async fn bodies(&self, topic: &Topic, tickets: &[(u64, Ticket<'_>)]) -> Result<Vec<Option<Item>>> {
        let (mut commands, start) = (Pipeline::new(), format!("{}:{}:bodies:", prefix(&topic.run), topic.name));
        // Items of one batch mostly come together.
        for batch in tickets.chunk_by(|(_, one), (_, other)| one.first == other.first) {
            commands.cmd("HMGET").arg(format!("{start}{}", batch[0].1.first));
            batch.iter().for_each(|(_, ticket)| _ = commands.arg(ticket.number));
        }
        if tickets.is_empty() {
            return Ok(Vec::new());
        }
        let mut items = Vec::with_capacity(tickets.len());
        for values in self.link.run(&commands).await? {
            let Value::Array(values) = values else {
                return Err(self.link.broken(format!("records of topic {topic} are not where they were put")));
            };
            for value in values {
                items.push(match value {
                    Value::BulkString(bytes) => Some(
                        decode_item(&bytes)
                            .ok_or_else(|| self.link.broken(format!("a record of topic {topic} cannot be read")))?,
                    ),
                    _ => None,
                });
            }
        }
        Ok(items)
    }

    /// Checks that an item is gone because its lease ran out before it was read, and that who took it then has finished it.
    async fn check_lost(&self, topic: &Topic, place: u64, token: u64) -> Result<()> {
        let lease = Lease { topic: topic.clone(), id: RecordId::derive(&[]), place, token };
        match self.renew(&[lease]).await {
            Err(Error::LeaseLost { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Err(self.link.broken(format!("the record at place {place} of topic {topic} is missing"))),
        }
    }

    async fn waiting(&self, topic: &Topic) -> Result<u64> {
        self.ask(self.call(script!("waiting"), &topic.run).arg(topic.name.as_str())).await?.number(1)
    }

    fn now(&self) -> Duration {
        self.clock.as_ref().map_or_else(|| self.link.elapsed(), |clock| clock.now())
    }

    /// Sleeps until something changed, a time has come, or it is time for another look.
    async fn sleep(&self, changed: impl Future<Output = ()>, until: Duration) {
        let time = async {
            match &self.clock {
                Some(clock) => clock.sleep_until(until).await,
                None => tokio::time::sleep(until.saturating_sub(self.link.elapsed())).await,
            }
        };
        tokio::select! {
            () = changed => {}
            () = time => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Items on their way to a consumer; gives them back when the consumer stopped waiting meanwhile.
struct Handover {
    remote: Remote,
    leased: Vec<Leased>,
    expiry: Option<Duration>,
}

impl Drop for Handover {
    fn drop(&mut self) {
        if self.leased.is_empty() {
            return;
        }
        let leases: Vec<Lease> = std::mem::take(&mut self.leased).into_iter().map(|leased| leased.lease).collect();
        let remote = self.remote.clone();
        // A server that fails here fails the next call too, and leases run out in any case.
        tokio::spawn(async move { remote.release(&leases).await });
    }
}

/// Reads an item of a reply.
fn item(topic: &Topic, row: &Reply, at: usize) -> Result<Item> {
    let decoded = decode_item(row.bytes(at)?);
    decoded.ok_or_else(|| row.broken(format!("a record of topic {topic} is missing or cannot be read")))
}

fn items(topic: &Topic, row: &Reply, at: usize) -> Result<Vec<Item>> {
    let bodies = row.list(at)?;
    (0..bodies.len()).map(|index| item(topic, &bodies, index)).collect()
}

/// Returns what all keys of a run begin with; they share a hash tag.
fn prefix(run: &RunId) -> String {
    format!("{{joust:{run}}}")
}

/// Says nothing about what becomes of leases.
fn held(leases: &[Lease]) -> impl Iterator<Item = (&Lease, Option<&Done>)> {
    leases.iter().map(|lease| (lease, None))
}

/// Turns what a script refused into an error.
fn refused(reply: &Reply, topic: &Topic, leases: &[Lease]) -> Result<()> {
    match reply.status() {
        "ok" => Ok(()),
        "full" => {
            let topic = Topic::new(&topic.run, reply.text(1)?)?;
            Err(Error::Full { topic, capacity: reply.number(2)?, waiting: reply.number(3)? })
        }
        "lost" => match leases.get(reply.number(1)? as usize) {
            Some(lease) => Err(Error::LeaseLost { topic: lease.topic.clone(), id: lease.id }),
            None => Err(reply.broken("a lease was lost that nobody asked about".into())),
        },
        other => Err(reply.broken(format!("it answered {other:?}"))),
    }
}

/// Turns what a script about steps refused into an error.
fn step_refused(reply: &Reply, topic: &Topic, (held, step): (Fence, u64), leases: &[Lease]) -> Result<()> {
    let topic = topic.clone();
    match reply.status() {
        "fenced" => Err(Error::Fenced { topic, held: held.0, current: reply.number(1)? }),
        "assigned" => Err(Error::AlreadyAssigned { topic, step }),
        "gap" => Err(Error::StepGap { topic, expected: reply.number(1)?, found: step }),
        _ => refused(reply, &topic, leases),
    }
}

/// Returns the one run of a call.
fn one_run<'a>(mut topics: impl Iterator<Item = &'a Topic>) -> Result<Option<&'a Topic>> {
    let Some(first) = topics.next() else { return Ok(None) };
    match topics.find(|topic| topic.run != first.run) {
        Some(other) => Err(Error::TwoRuns { one: first.clone(), other: other.clone() }),
        None => Ok(Some(first)),
    }
}

#[async_trait]
impl Queue for Remote {
    fn renew_every(&self) -> Duration {
        self.settings.lease / 3
    }

    async fn put(&self, topic: &Topic, items: Vec<Item>) -> Result<PutReport> {
        if items.is_empty() {
            return Ok(PutReport::default());
        }
        let call = self.once(script!("put"), &topic.run).arg(topic.name.as_str());
        let call = call.arg(self.settings.capacity_of(&topic.name)).batch(topic, items.iter().collect());
        let reply = self.ask(call).await?;
        refused(&reply, topic, &[])?;
        Ok(PutReport { added: reply.number(1)?, duplicates: reply.number(2)? })
    }

    async fn take(&self, topic: &Topic, who: &Consumer, max: usize, wait: Duration) -> Result<Vec<Leased>> {
        let deadline = self.now().saturating_add(wait);
        if max == 0 {
            return Ok(Vec::new());
        }
        let bell = self.link.bells.bell(topic, Wanted::Items);
        let mut listens = false;
        loop {
            let mut rings = std::pin::pin!(bell.notified());
            // Listening begins before the look, so that nothing put between the two is slept through.
            rings.as_mut().enable();
            let mut handover = self.try_take(topic, who, max).await?;
            let now = self.now();
            if !handover.leased.is_empty() || now >= deadline {
                return Ok(std::mem::take(&mut handover.leased));
            }
            if !std::mem::replace(&mut listens, true) {
                self.link.bells.listen().await;
                continue;
            }
            let until = handover.expiry.map_or(deadline, |after| now.saturating_add(after).min(deadline));
            self.sleep(rings, until).await;
        }
    }

    async fn renew(&self, leases: &[Lease]) -> Result<()> {
        let Some(topic) = one_run(leases.iter().map(|lease| &lease.topic))? else { return Ok(()) };
        let call = self.call(script!("renew"), &topic.run).arg(self.lease_us()).leases(held(leases));
        refused(&self.ask(call).await?, topic, leases)
    }

    async fn release(&self, leases: &[Lease]) -> Result<()> {
        let Some(topic) = one_run(leases.iter().map(|lease| &lease.topic))? else { return Ok(()) };
        let call = self.once(script!("release"), &topic.run).leases(held(leases));
        refused(&self.ask(call).await?, topic, leases)
    }

    async fn commit(&self, done: Vec<(Lease, Done)>, next: Vec<(Topic, Item)>) -> Result<()> {
        let topics = done.iter().map(|(lease, _)| &lease.topic).chain(next.iter().map(|(topic, _)| topic));
        let Some(topic) = one_run(topics)? else { return Ok(()) };
        let mut outputs: BTreeMap<&Topic, Vec<&Item>> = BTreeMap::new();
        next.iter().for_each(|(topic, item)| outputs.entry(topic).or_default().push(item));
        let call = self.once(script!("commit"), &topic.run).arg(self.settings.max_deliveries);
        let mut call = call.leases(done.iter().map(|(lease, done)| (lease, Some(done)))).arg(outputs.len()).batches();
        for (topic, items) in outputs {
            call = call.arg(topic.name.as_str()).arg(self.settings.capacity_of(&topic.name)).batch(topic, items);
        }
        let reply = self.ask(call).await?;
        let leases: Vec<Lease> = done.iter().map(|(lease, _)| lease.clone()).collect();
        refused(&reply, topic, &leases)
    }

    async fn fence(&self, topic: &Topic) -> Result<Fence> {
        let call = self.call(script!("fence"), &topic.run).arg(topic.name.as_str());
        Ok(Fence(self.ask(call).await?.number(1)?))
    }

    async fn assign(&self, topic: &Topic, leases: Vec<Lease>, manifest: StepManifest, fence: Fence) -> Result<()> {
        if let Some(lease) = leases.iter().find(|lease| lease.topic != *topic) {
            let (found, expected) = (lease.topic.clone(), topic.clone());
            return Err(Error::WrongTopic { id: lease.id, found, expected });
        }
        let call = self.once(script!("assign"), &topic.run).arg(topic.name.as_str());
        let call = call.arg(fence.0).arg(manifest.step).arg(manifest.body).leases(held(&leases));
        let reply = self.ask(call).await?;
        step_refused(&reply, topic, (fence, manifest.step), &leases)
    }

    async fn assigned(&self, topic: &Topic, from_step: u64) -> Result<Vec<AssignedStep>> {
        let call = self.call(script!("assigned"), &topic.run).arg(topic.name.as_str()).arg(from_step.min(MOST));
        let reply = self.ask(call).await?;
        let step = |row: Reply| {
            let manifest = StepManifest { step: row.number(0)?, body: row.bytes(1)?.to_vec() };
            Ok(AssignedStep { manifest, items: items(topic, &row, 2)? })
        };
        reply.rows(1).map(step).collect()
    }

    async fn retire(&self, topic: &Topic, through_step: u64, keep_from_step: u64, fence: Fence) -> Result<()> {
        let call = self.call(script!("retire"), &topic.run).arg(topic.name.as_str()).arg(fence.0);
        let reply = self.ask(call.arg(through_step.min(MOST)).arg(keep_from_step.min(MOST))).await?;
        step_refused(&reply, topic, (fence, through_step), &[])
    }

    async fn kept(&self, topic: &Topic) -> Result<Vec<(u64, Item)>> {
        let reply = self.ask(self.call(script!("kept"), &topic.run).arg(topic.name.as_str())).await?;
        let mut kept = Vec::new();
        for row in reply.rows(1) {
            let step = row.number(0)?;
            kept.extend(items(topic, &row, 1)?.into_iter().map(|item| (step, item)));
        }
        Ok(kept)
    }

    async fn dead(&self, topic: &Topic) -> Result<Vec<DeadLetter>> {
        let reply = self.ask(self.call(script!("dead"), &topic.run).arg(topic.name.as_str())).await?;
        let letter = |row: Reply| {
            let (deliveries, reason) = (row.number(0)? as u32, row.text(1)?.to_owned());
            Ok(DeadLetter { item: item(topic, &row, 2)?, reason, deliveries })
        };
        reply.rows(1).map(letter).collect()
    }

    async fn requeue(&self, topic: &Topic, ids: &[RecordId]) -> Result<()> {
        let mut call = self.once(script!("requeue"), &topic.run).arg(topic.name.as_str());
        for id in ids {
            call = call.arg(id.as_bytes());
        }
        let reply = self.ask(call).await?;
        match (reply.status(), reply.number(1).ok().and_then(|at| ids.get(at as usize))) {
            ("not_dead", Some(id)) => Err(Error::NotDead { topic: topic.clone(), id: *id }),
            _ => refused(&reply, topic, &[]),
        }
    }

    async fn stats(&self, run: &RunId) -> Result<QueueStats> {
        let reply = self.ask(self.call(script!("stats"), run)).await?;
        let mut stats = QueueStats::default();
        for row in reply.rows(1) {
            let name = TopicName::new(row.text(0)?)?;
            let capacity = self.settings.capacity_of(&name);
            stats.topics.insert(name, TopicStats { capacity, ..topic_stats(&row)? });
        }
        Ok(stats)
    }

    async fn wait_for_room(&self, topic: &Topic, items: usize, wait: Duration) -> Result<bool> {
        let deadline = self.now().saturating_add(wait);
        let bell = self.link.bells.bell(topic, Wanted::Room);
        let mut listens = false;
        loop {
            let mut rings = std::pin::pin!(bell.notified());
            rings.as_mut().enable();
            let waiting = self.waiting(topic).await?;
            if waiting == 0 || waiting.saturating_add(items as u64) <= self.settings.capacity_of(&topic.name) {
                return Ok(true);
            }
            if self.now() >= deadline {
                return Ok(false);
            }
            if !std::mem::replace(&mut listens, true) {
                self.link.bells.listen().await;
                continue;
            }
            self.sleep(rings, deadline).await;
        }
    }
}

/// Reads a topic's accounts.
fn topic_stats(row: &Reply) -> Result<TopicStats> {
    let counters = row.map(1)?;
    let counter = |name: &str| counters.get(name).copied().unwrap_or_default();
    let mut stats = TopicStats {
        put: counter("put"),
        duplicates: counter("duplicates"),
        finished: counter("finished"),
        expired: counter("expired"),
        retried: counter("retried"),
        dropped: row.map(2)?,
        waiting: row.number(3)?,
        assigned: row.number(4)?,
        kept: row.number(5)?,
        ..TopicStats::default()
    };
    let (dead, held) = (row.list(6)?, row.list(7)?);
    for at in 0..dead.len() {
        // Deliveries, name, reason.
        let reason = dead.text(at)?.splitn(3, ' ').nth(2).unwrap_or_default();
        *stats.dead.entry(reason.to_owned()).or_default() += 1;
    }
    for at in 0..held.len() {
        // The tickets of a take, and who took them.
        let (tickets, holder) = held.text(at)?.split_once('|').unwrap_or_default();
        let leased = tickets.split(' ').count() as u64;
        stats.leased += leased;
        *stats.holders.entry(holder.to_owned()).or_default() += leased;
    }
    Ok(stats)
}
