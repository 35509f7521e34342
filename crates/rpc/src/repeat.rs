//! Repeats of a call: who asks again with the same idempotency key gets the first reply, and nothing is done twice.
//!
//! Replies are remembered by method, caller and key, for [`REMEMBERED`], in this process and up to [`ROOM_BYTES`]. A repeat
//! waits while the first call is served. Only replies that succeeded are remembered: a failed call is served again.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, LazyLock},
    time::Duration,
};

use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use joust_proto::{Failure, Reason, limits::MAX_MESSAGE_BYTES};
use parking_lot::Mutex;
use prost::{
    Message,
    bytes::{Buf, Bytes},
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use prost_types::{DescriptorProto, FileDescriptorSet};
use ring::digest::{Digest, SHA256, digest};
use tokio::{sync::Mutex as AsyncMutex, time::Instant};
use tonic::{Code, Status, body::Body};
use tower::Service;

/// Name of the field, in a request or in the message that it holds.
const FIELD: &str = "idempotency_key";
/// Methods whose key names something else: that of a worker's start, which asks again to renew its lease.
const OTHERWISE: &[&str] = &["/joust.coordinator.v1.CoordinatorService/RegisterWorker"];
/// How long a reply is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Bytes of all remembered replies; beyond it the oldest are forgotten.
const ROOM_BYTES: usize = 64 << 20;
/// Replies that are remembered at most.
const ROOM_REPLIES: usize = 16_384;
/// Longest key, in bytes; longer ones are left to the handler, which refuses them.
const MAX_KEY_BYTES: usize = 128;
/// Bytes in front of a message in gRPC: whether it is compressed, and its length.
const FRAME: usize = 5;

/// Who called which method with which key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Call {
    path: String,
    caller: String,
    key: String,
}

/// A whole reply of a unary call.
#[derive(Debug, Clone)]
struct Reply {
    headers: HeaderMap,
    data: Bytes,
    trailers: Option<HeaderMap>,
}

/// The reply of a call, once it is there. Held locked while the call is served.
type Slot = Arc<AsyncMutex<Option<Reply>>>;

#[derive(Debug)]
struct Entry {
    slot: Slot,
    /// SHA-256 of what the key was used for.
    request: Digest,
    bytes: usize,
    began: Instant,
}

#[derive(Debug, Default)]
struct Memory {
    entries: HashMap<Call, Entry>,
    /// Oldest first.
    order: VecDeque<Call>,
    bytes: usize,
}

/// The replies of a server.
#[derive(Debug, Default)]
pub(crate) struct Repeats(Mutex<Memory>);

/// Returns the numbers of the fields that lead to the key of a unary method, if its request has one.
fn key_field(path: &str) -> Option<&'static [u32]> {
    static FIELDS: LazyLock<BTreeMap<String, Vec<u32>>> = LazyLock::new(fields);
    FIELDS.get(path).map(Vec::as_slice)
}

/// Finds every unary method whose request holds a key, itself or in a message of it.
fn fields() -> BTreeMap<String, Vec<u32>> {
    let set = FileDescriptorSet::decode(joust_proto::DESCRIPTORS).expect("the generated descriptors decode");
    let messages: BTreeMap<String, &DescriptorProto> = set
        .file
        .iter()
        .flat_map(|file| file.message_type.iter().map(move |message| (file, message)))
        .map(|(file, message)| (format!(".{}.{}", file.package(), message.name()), message))
        .collect();
    let mut fields = BTreeMap::new();
    for file in &set.file {
        for service in &file.service {
            for method in service.method.iter().filter(|method| !method.server_streaming()) {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                let found = messages.get(method.input_type()).and_then(|message| key_in(message, &messages));
                fields.extend(found.filter(|_| !OTHERWISE.contains(&path.as_str())).map(|numbers| (path, numbers)));
            }
        }
    }
    fields
}

fn key_in(message: &DescriptorProto, messages: &BTreeMap<String, &DescriptorProto>) -> Option<Vec<u32>> {
    if let Some(field) = message.field.iter().find(|field| field.name() == FIELD) {
        return Some(vec![field.number() as u32]);
    }
    message.field.iter().find_map(|outer| {
        let inner = messages.get(outer.type_name())?.field.iter().find(|field| field.name() == FIELD)?;
        Some(vec![outer.number() as u32, inner.number() as u32])
    })
}

/// Reads the text behind these fields of an encoded message; `None` where it is absent, empty or not whole.
fn text_at(mut message: Bytes, fields: &[u32]) -> Option<String> {
    let (field, rest) = fields.split_first()?;
    let mut found = None;
    while message.has_remaining() {
        let (tag, wire) = decode_key(&mut message).ok()?;
        if tag != *field || wire != WireType::LengthDelimited {
            skip_field(wire, tag, &mut message, DecodeContext::default()).ok()?;
            continue;
        }
        let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
        if length > message.remaining() {
            return None;
        }
        // Of a field that comes twice the last one counts.
        found = Some(message.split_to(length));
    }
    match rest {
        [] => String::from_utf8(found?.to_vec()).ok().filter(|key| !key.is_empty() && key.len() <= MAX_KEY_BYTES),
        rest => text_at(found?, rest),
    }
}

/// Reads the key of a framed request.
fn key_of(framed: &Bytes, fields: &[u32]) -> Option<String> {
    let compressed = *framed.first()? != 0;
    (!compressed && framed.len() >= FRAME).then(|| text_at(framed.slice(FRAME..), fields))?
}

impl Repeats {
    /// Serves a call, or replies as its first time did.
    ///
    /// # Errors
    /// What `inner` fails with.
    pub(crate) async fn serve<S>(
        &self,
        inner: &mut S,
        request: Request<Body>,
        caller: &str,
    ) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>>,
    {
        let Some(fields) = key_field(request.uri().path()) else { return inner.call(request).await };
        let (parts, body) = request.into_parts();
        let framed = match Limited::new(body, MAX_MESSAGE_BYTES + FRAME).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Ok(unread(&*error).into_http()),
        };
        let Some(key) = key_of(&framed, fields) else {
            return inner.call(Request::from_parts(parts, whole(framed, None))).await;
        };
        let call = Call { path: parts.uri.path().to_owned(), caller: caller.to_owned(), key };
        let Some(slot) = self.slot(&call, &framed) else { return Ok(reused(&call).into_http()) };
        // Whoever comes while the first is served waits here, and takes its place if it fails or is given up.
        let mut reply = slot.lock().await;
        if let Some(reply) = &*reply {
            return Ok(reply.clone().into_response());
        }
        let response = inner.call(Request::from_parts(parts, whole(framed, None))).await?;
        let (head, body) = response.into_parts();
        let collected = match body.collect().await {
            Ok(collected) => collected,
            Err(status) => return Ok(status.into_http()),
        };
        let trailers = collected.trailers().cloned();
        let made = Reply { headers: head.headers, data: collected.to_bytes(), trailers };
        if made.is_ok() {
            *reply = Some(made.clone());
            self.weigh(&call, &slot, made.data.len());
        }
        Ok(made.into_response())
    }

    /// Finds or makes the slot of a call; `None` if its key was used for another request.
    fn slot(&self, call: &Call, request: &Bytes) -> Option<Slot> {
        let mut memory = self.0.lock();
        memory.forget_old(Instant::now());
        let request = digest(&SHA256, request);
        if let Some(entry) = memory.entries.get_mut(call) {
            if entry.request.as_ref() == request.as_ref() {
                return Some(Arc::clone(&entry.slot));
            }
            // A call that failed did nothing with the key.
            let failed = entry.slot.try_lock().is_ok_and(|reply| reply.is_none());
            entry.request = if failed { request } else { return None };
            return Some(Arc::clone(&entry.slot));
        }
        let entry = Entry { slot: Slot::default(), request, bytes: 0, began: Instant::now() };
        let slot = Arc::clone(&entry.slot);
        memory.entries.insert(call.clone(), entry);
        memory.order.push_back(call.clone());
        memory.forget_excess();
        Some(slot)
    }

    /// Counts the bytes of a reply.
    fn weigh(&self, call: &Call, slot: &Slot, bytes: usize) {
        let mut memory = self.0.lock();
        if let Some(entry) = memory.entries.get_mut(call).filter(|entry| Arc::ptr_eq(&entry.slot, slot)) {
            entry.bytes += bytes;
            memory.bytes += bytes;
        }
        memory.forget_excess();
    }
}

impl Memory {
    fn forget_old(&mut self, now: Instant) {
        while let Some(oldest) = self.order.front().and_then(|call| self.entries.get(call)) {
            if now.duration_since(oldest.began) < REMEMBERED {
                break;
            }
            self.forget_oldest();
        }
    }

    fn forget_excess(&mut self) {
        while self.bytes > ROOM_BYTES || self.entries.len() > ROOM_REPLIES {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(call) = self.order.pop_front() else { return };
        if let Some(entry) = self.entries.remove(&call) {
            self.bytes -= entry.bytes;
        }
    }
}

impl Reply {
    fn is_ok(&self) -> bool {
        let in_trailers = self.trailers.as_ref().and_then(Status::from_header_map);
        let status = in_trailers.or_else(|| Status::from_header_map(&self.headers));
        status.is_some_and(|status| status.code() == Code::Ok)
    }

    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(whole(self.data, self.trailers));
        *response.headers_mut() = self.headers;
        response
    }
}

/// Makes a body of bytes that are all there.
fn whole(data: Bytes, trailers: Option<HeaderMap>) -> Body {
    match trailers {
        Some(trailers) => Body::new(Full::new(data).with_trailers(async { Some(Ok(trailers)) })),
        None => Body::new(Full::new(data)),
    }
}

/// Describes why a request could not be read.
fn unread(error: &(dyn std::error::Error + 'static)) -> Status {
    if error.is::<LengthLimitError>() {
        let text = format!("the request has more than {MAX_MESSAGE_BYTES} bytes; send it in parts");
        return Failure::new(Reason::OutOfRange, text).into();
    }
    Status::cancelled("the request was cut")
}

fn reused(call: &Call) -> Status {
    let text = format!("idempotency_key {:?} was used for another request; take a new one", call.key);
    Failure::new(Reason::KeyReused, text).into()
}

#[cfg(test)]
mod tests;
