//! Every RPC of a cluster gets random and mutated messages: each is answered by a status, no process ends, none grows without bound.
//!
//! `JOUST_FUZZ` sets the number of messages to each RPC (default 50; `make fuzz` sends 10 000).

use std::{collections::BTreeMap, fs, time::Duration};

use joust_core::rng::{Stream, uniform};
use joust_proto::DESCRIPTORS;
use joust_rpc::Caller;
use prost::{
    Message,
    bytes::{Buf, BufMut, Bytes},
};
use prost_types::{FileDescriptorSet, field_descriptor_proto::Type};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::{
    harness::{Cluster, LIMIT, ONE, run_now, wait_for},
    twin,
};

/// Sends and takes bytes as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = usize;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = usize;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<usize>, Status> {
        let length = from.remaining();
        from.advance(length);
        Ok(Some(length))
    }
}

/// Draws numbers.
struct Dice {
    counter: u64,
}

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.counter += 1;
        (uniform(7, Stream::Judge, self.counter, (3, 0)) * bound as f64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.below(256) as u8).collect()
    }
}

/// An RPC: its path, and the fields of its request by number.
struct Method {
    path: String,
    fields: Vec<(u32, Type)>,
}

/// Reads all RPCs out of the descriptors that the services reflect.
fn methods() -> BTreeMap<String, Vec<Method>> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors");
    let mut messages = BTreeMap::new();
    for file in &set.file {
        for message in &file.message_type {
            let name = format!(".{}.{}", file.package(), message.name());
            let fields: Vec<(u32, Type)> =
                message.field.iter().map(|field| (field.number() as u32, field.r#type())).collect();
            messages.insert(name, fields);
        }
    }
    let mut found: BTreeMap<String, Vec<Method>> = BTreeMap::new();
    for file in set.file.iter().filter(|file| file.package().starts_with("joust.")) {
        for service in &file.service {
            let full = format!("{}.{}", file.package(), service.name());
            let each = service.method.iter().map(|method| Method {
                path: format!("/{full}/{}", method.name()),
                fields: messages[method.input_type()].clone(),
            });
            found.insert(full.clone(), each.collect());
        }
    }
    found
}

/// Makes a message: noise, or fields of the request's own numbers and types with values that are drawn, then perhaps damaged.
fn message(dice: &mut Dice, method: &Method, words: &[&str]) -> Bytes {
    let length = dice.below(200);
    if dice.below(4) == 0 || method.fields.is_empty() {
        return dice.bytes(length).into();
    }
    let mut out = Vec::new();
    for _ in 0..1 + dice.below(2 * method.fields.len()) {
        let (number, kind) = method.fields[dice.below(method.fields.len())];
        match kind {
            Type::String | Type::Bytes | Type::Message => {
                let value = match dice.below(3) {
                    0 => words[dice.below(words.len())].as_bytes().to_vec(),
                    1 => {
                        let length = dice.below(64);
                        dice.bytes(length)
                    }
                    _ => Vec::new(),
                };
                prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
                prost::encoding::encode_varint(value.len() as u64, &mut out);
                out.extend(value);
            }
            _ => {
                prost::encoding::encode_key(number, prost::encoding::WireType::Varint, &mut out);
                let value = [0, 1, 2, 7, u64::from(u32::MAX), u64::MAX][dice.below(6)];
                prost::encoding::encode_varint(value, &mut out);
            }
        }
    }
    if dice.below(3) == 0 && !out.is_empty() {
        let place = dice.below(out.len());
        out[place] ^= 1 << dice.below(8);
        let cut = dice.below(out.len() + 1);
        out.truncate(cut.max(1));
    }
    out.into()
}

/// Sends one message and takes what comes for a short while; returns the code.
async fn send(client: &mut Grpc<Caller>, path: &str, message: Bytes) -> Code {
    let path: http::uri::PathAndQuery = path.parse().expect("a path");
    let mut request = Request::new(tokio_stream::once(message));
    request.set_timeout(Duration::from_millis(200));
    client.ready().await.expect("a caller is always ready");
    let answer = client.streaming(request, path, Raw).await;
    match answer {
        Err(status) => status.code(),
        Ok(answer) => {
            let mut stream = answer.into_inner();
            match tokio::time::timeout(Duration::from_millis(50), stream.message()).await {
                Ok(Err(status)) => status.code(),
                _ => Code::Ok,
            }
        }
    }
}

/// Resident memory of a process in MiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_ends_a_process() {
    let count: usize = std::env::var("JOUST_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(50);
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("inputs");
    twin::inputs(&root);
    let Some(cluster) = Cluster::start(&folder.path().join("cluster"), &root, ONE) else { return };
    let file = root.join("run.toml").display().to_string();
    cluster.joust(&["run", "submit", &file, "--name", "twin", "--by-hand"]);
    let mut client = cluster.client();
    let ready = wait_for("the run", LIMIT, async || {
        let request = joust_proto::coordinator::v1::ListWorkersRequest { run_id: "twin".into(), ..Default::default() };
        let found = client.list_workers(request).await.ok()?.into_inner().workers;
        (found.len() == 3).then_some(found)
    });
    let addresses: BTreeMap<String, String> =
        ready.await.into_iter().map(|member| (member.worker.replace("-0", ""), member.address)).collect();
    let (processes, mut dice) = (cluster.processes(), Dice { counter: 0 });
    let before: BTreeMap<&String, u64> = processes.iter().map(|(name, pid)| (name, resident(*pid))).collect();
    let words = ["twin", "letters", "checkpoint-5", "policy", "pairs", "../..", "\u{0}", "rollout-0", "learner.steps"];
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    let (mut sent, mut rpcs) = (0, 0);
    for (service, methods) in methods() {
        let role = service.split('.').nth(1).expect("joust.ROLE.v1");
        let caller = match role {
            "coordinator" => None,
            role => Some(addresses[role].clone()),
        };
        let own = caller.unwrap_or_else(|| cluster.address());
        let mut client = Grpc::new(cluster.caller(&own));
        for method in &methods {
            // What these do when they are understood ends the test: a worker leaves, whatever the message says, or the run is over.
            let (drains, stops) = (method.path.ends_with("/Drain"), method.path.ends_with("/StopRun"));
            let words = if stops { &words[1..] } else { &words[..] };
            rpcs += 1;
            for _ in 0..count {
                let message = if drains {
                    let length = dice.below(100);
                    Bytes::from([vec![0x0a, 0xff], dice.bytes(length)].concat())
                } else {
                    message(&mut dice, method, words)
                };
                let code = send(&mut client, &method.path, message).await;
                *codes.entry(format!("{code:?}")).or_default() += 1;
                sent += 1;
            }
        }
    }
    let grown: BTreeMap<&String, u64> =
        processes.iter().map(|(name, pid)| (name, resident(*pid).saturating_sub(before[name]))).collect();
    println!("rpcs={rpcs} messages={sent} codes={codes:?} grown_mib={grown:?}");
    assert_eq!(cluster.processes(), processes, "no part was started again\n{}", cluster.logs());
    assert!(!cluster.logs().contains("panicked"), "{}", cluster.logs());
    assert!(grown.values().all(|grown| *grown < 200), "{grown:?}");
    let ours = ["Unknown", "Internal", "DataLoss", "Unauthenticated", "PermissionDenied"];
    assert!(ours.iter().all(|code| !codes.contains_key(*code)), "each message is refused for what it is: {codes:?}");
    assert!(run_now(&mut client, "twin").await.is_some(), "the coordinator answers");
}
