use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
};

use prost::encoding::{encode_key, encode_varint};
use tokio::sync::Notify;

use super::*;

const PAUSE: &str = "/joust.coordinator.v1.CoordinatorService/PauseRun";

/// A service that counts its calls and replies with the count.
#[derive(Clone, Default)]
struct Counting {
    calls: Arc<AtomicUsize>,
    /// Calls that still fail.
    failures: Arc<AtomicUsize>,
    /// Where a call waits, if it waits.
    gate: Option<Arc<Notify>>,
}

impl Service<Request<Body>> for Counting {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let body = request.into_body().collect().await.expect("a whole request").to_bytes();
            assert!(body.len() >= FRAME, "the handler gets the request whole");
            if let Some(gate) = &this.gate {
                gate.notified().await;
            }
            let count = this.calls.fetch_add(1, Ordering::SeqCst);
            let failed = this.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if failed.is_ok() {
                return Ok(Status::unavailable("not yet").into_http());
            }
            let mut trailers = HeaderMap::new();
            Status::ok("").add_header(&mut trailers).expect("a status");
            Ok(Response::new(whole(Bytes::from(format!("reply {count}")), Some(trailers))))
        })
    }
}

impl Counting {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

/// Encodes a field that holds bytes.
fn field(number: u32, content: &[u8], into: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, into);
    encode_varint(content.len() as u64, into);
    into.extend_from_slice(content);
}

/// Encodes a framed request of a method with a key, and other content in field 99.
fn request(path: &str, key: &str, content: &str) -> Request<Body> {
    let fields = key_field(path).expect("a method with a key");
    let mut inner = key.as_bytes().to_vec();
    for number in fields.iter().rev() {
        let mut outer = Vec::new();
        field(*number, &inner, &mut outer);
        inner = outer;
    }
    field(99, content.as_bytes(), &mut inner);
    let mut framed = vec![0];
    framed.extend_from_slice(&(inner.len() as u32).to_be_bytes());
    framed.extend_from_slice(&inner);
    Request::builder().uri(path).body(whole(framed.into(), None)).expect("a request")
}

/// What came of a call: the reply, or the code of its failure.
async fn call(repeats: &Repeats, service: &Counting, request: Request<Body>, caller: &str) -> Result<String, Code> {
    let response = repeats.serve(&mut service.clone(), request, caller).await.expect("no transport fails");
    let in_headers = Status::from_header_map(response.headers());
    let body = response.into_body().collect().await.expect("a whole reply");
    let status = body.trailers().and_then(Status::from_header_map).or(in_headers).expect("a status");
    match status.code() {
        Code::Ok => Ok(String::from_utf8(body.to_bytes().to_vec()).expect("text")),
        code => Err(code),
    }
}

#[test]
fn every_key_of_the_wire_is_read_here_or_named_as_another_one() {
    let set = FileDescriptorSet::decode(joust_proto::DESCRIPTORS).expect("decodes");
    let holds = |name: &str| {
        let mut messages = set.file.iter().flat_map(|file| file.message_type.iter().map(move |m| (file.package(), m)));
        let found = messages.find(|(package, message)| format!(".{package}.{}", message.name()) == name);
        found.is_some_and(|(_, message)| message.field.iter().any(|field| field.name() == FIELD))
    };
    let mut honoured = 0;
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                if !holds(method.input_type()) || OTHERWISE.contains(&path.as_str()) {
                    continue;
                }
                assert!(!method.server_streaming(), "{path} streams: reserve its key");
                assert_eq!(key_field(&path).map(<[u32]>::len), Some(1), "{path}");
                honoured += 1;
            }
        }
    }
    assert!(honoured >= 13, "{honoured}");
    for judged in ["Score", "Compare", "Rank", "Critique"] {
        let path = format!("/joust.judge.v1.JudgeService/{judged}");
        assert_eq!(key_field(&path).map(<[u32]>::len), Some(2), "{path}");
    }
    assert!(OTHERWISE.iter().all(|path| crate::access::required(path) != crate::access::required("/none")));
}

#[tokio::test]
async fn each_method_has_one_effect_and_one_reply_a_key() {
    for path in fields().keys() {
        let (repeats, service) = (Repeats::default(), Counting::default());
        let ask = |key: &str, caller: &str| {
            let (repeats, service, request, caller) = (&repeats, &service, request(path, key, "x"), caller.to_owned());
            async move { call(repeats, service, request, &caller).await }
        };
        assert_eq!(ask("a", "user").await.as_deref(), Ok("reply 0"), "{path}");
        assert_eq!(ask("a", "user").await.as_deref(), Ok("reply 0"), "{path}");
        assert_eq!(ask("b", "user").await.as_deref(), Ok("reply 1"), "{path}: another key");
        assert_eq!(ask("a", "other").await.as_deref(), Ok("reply 2"), "{path}: another caller");
        assert_eq!(service.calls(), 3, "{path}");
        let reused = call(&repeats, &service, request(path, "a", "y"), "user").await;
        assert_eq!(reused, Err(Code::AlreadyExists), "{path}: another request");
        assert_eq!(service.calls(), 3, "{path}");
    }
}

#[tokio::test]
async fn without_a_key_nothing_is_remembered() {
    let (repeats, service) = (Repeats::default(), Counting::default());
    for (key, count) in [("", 0), ("", 1)] {
        let reply = call(&repeats, &service, request(PAUSE, key, "x"), "user").await;
        assert_eq!(reply, Ok(format!("reply {count}")));
    }
    let long = "k".repeat(MAX_KEY_BYTES + 1);
    for count in [2, 3] {
        let reply = call(&repeats, &service, request(PAUSE, &long, "x"), "user").await;
        assert_eq!(reply, Ok(format!("reply {count}")));
    }
    assert!(repeats.0.lock().entries.is_empty());
}

#[tokio::test]
async fn a_failed_call_is_served_again_and_its_key_may_name_a_better_one() {
    let (repeats, service) = (Repeats::default(), Counting::default());
    service.failures.store(2, Ordering::SeqCst);
    assert_eq!(call(&repeats, &service, request(PAUSE, "a", "x"), "user").await, Err(Code::Unavailable));
    assert_eq!(call(&repeats, &service, request(PAUSE, "a", "x"), "user").await, Err(Code::Unavailable));
    assert_eq!(call(&repeats, &service, request(PAUSE, "a", "y"), "user").await.as_deref(), Ok("reply 2"));
    assert_eq!(call(&repeats, &service, request(PAUSE, "a", "y"), "user").await.as_deref(), Ok("reply 2"));
}

#[tokio::test]
async fn a_repeat_joins_the_call_under_way_and_takes_the_place_of_one_that_was_given_up() {
    let gate = Arc::new(Notify::new());
    let (repeats, service) =
        (Arc::new(Repeats::default()), Counting { gate: Some(gate.clone()), ..Counting::default() });
    let begin = || {
        let (repeats, service) = (repeats.clone(), service.clone());
        tokio::spawn(async move { call(&repeats, &service, request(PAUSE, "a", "x"), "user").await })
    };
    let given_up = begin();
    tokio::task::yield_now().await;
    let (first, second) = (begin(), begin());
    tokio::task::yield_now().await;
    given_up.abort();
    given_up.await.expect_err("given up");
    gate.notify_one();
    assert_eq!(first.await.expect("served").as_deref(), Ok("reply 0"));
    assert_eq!(second.await.expect("joined").as_deref(), Ok("reply 0"));
    assert_eq!(service.calls(), 1);
}

#[tokio::test]
async fn a_reply_is_forgotten_after_its_time() {
    let (repeats, service) = (Repeats::default(), Counting::default());
    let ask = || call(&repeats, &service, request(PAUSE, "a", "x"), "user");
    let began = Instant::now();
    ask().await.expect("served");
    repeats.0.lock().forget_old(began + REMEMBERED - Duration::from_millis(1));
    assert_eq!(ask().await.as_deref(), Ok("reply 0"));
    repeats.0.lock().forget_old(Instant::now() + REMEMBERED);
    assert_eq!(ask().await.as_deref(), Ok("reply 1"));
    assert_eq!(repeats.0.lock().entries.len(), 1);
}

#[tokio::test]
async fn the_memory_is_bounded_in_replies_and_bytes() {
    let (repeats, service) = (Repeats::default(), Counting::default());
    for key in 0..ROOM_REPLIES + 10 {
        call(&repeats, &service, request(PAUSE, &key.to_string(), "x"), "user").await.expect("served");
    }
    let (replies, bytes, expected) = {
        let memory = repeats.0.lock();
        let expected: usize = memory.entries.values().map(|entry| entry.bytes).sum();
        (memory.entries.len(), memory.bytes, expected)
    };
    assert_eq!((replies, bytes), (ROOM_REPLIES, expected));
    let newest = Call { path: PAUSE.into(), caller: "user".into(), key: (ROOM_REPLIES + 9).to_string() };
    let slot = repeats.0.lock().entries[&newest].slot.clone();
    repeats.weigh(&newest, &slot, ROOM_BYTES);
    assert!(repeats.0.lock().bytes <= ROOM_BYTES);
}

#[test]
fn messages_that_are_not_whole_have_no_key() {
    let mut whole = Vec::new();
    field(2, b"key", &mut whole);
    assert_eq!(text_at(whole.clone().into(), &[2]).as_deref(), Some("key"));
    for cut in 1..whole.len() {
        assert_eq!(text_at(whole[..cut].to_vec().into(), &[2]), None, "{cut} bytes");
    }
    let mut twice = whole.clone();
    field(2, b"last", &mut twice);
    assert_eq!(text_at(twice.into(), &[2]).as_deref(), Some("last"));
    assert_eq!(text_at(whole.into(), &[3]), None);
    assert_eq!(key_of(&Bytes::from_static(&[1, 0, 0, 0, 0]), &[2]), None, "compressed");
    assert_eq!(key_of(&Bytes::new(), &[2]), None);
}
