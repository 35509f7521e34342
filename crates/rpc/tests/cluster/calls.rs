//! One call: deadline, size, room, repeats, trace, and the choice among several servers.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use joust_proto::{Reason, common::v1::prompt::Kind, judge::v1::judge_service_client::JudgeServiceClient};
use joust_rpc::{Caller, ClientConfig, Lookup, TraceContext};
use tonic::{Code, Request};

use crate::common::{PATIENCE, Running, judge_of, notes, plain, score, until};

#[tokio::test]
async fn a_deadline_is_the_servers_word_and_ends_the_handler() {
    let server = Running::start(plain()).await;
    let client = judge_of(server.client());
    let calls = || server.seen.calls.load(Ordering::SeqCst);
    let mut made = 0;
    // A machine that stands still for a moment lets the client's own clock win; without the margin it always would.
    loop {
        let mut request = Request::new(score("slow"));
        request.set_timeout(Duration::from_millis(200));
        let status = client.clone().score(request).await.expect_err("late");
        made += 1;
        assert_eq!((status.code(), Reason::of(&status)), (Code::DeadlineExceeded, Some(Reason::Deadline)));
        assert_eq!(calls(), made, "a deadline is not repeated");
        if status.message().ends_with(" ms") && !status.message().starts_with("no answer") {
            break;
        }
        assert!(made < 20, "never the server's word: {status}");
    }
    until("the handlers are dropped", async || server.seen.dropped.load(Ordering::SeqCst) == made).await;
}

#[tokio::test]
async fn the_service_has_a_longest_deadline() {
    let mut config = plain();
    config.limits.max_deadline = Duration::from_millis(30);
    let server = Running::start(config).await;
    let status = judge_of(server.client()).score(score("slow")).await.expect_err("late");
    assert_eq!(status.message(), "the call took longer than 30 ms");
}

#[tokio::test]
async fn a_call_without_an_own_deadline_has_the_clients() {
    let server = Running::start(plain()).await;
    let config = ClientConfig { deadline: Duration::from_millis(100), ..server.client() };
    let status = judge_of(config).score(score("slow")).await.expect_err("late");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let nowhere = ClientConfig { deadline: Duration::from_millis(200), ..ClientConfig::new(free_address().await) };
    let status = judge_of(nowhere).score(score("")).await.expect_err("nobody there");
    assert_eq!((status.code(), Reason::of(&status)), (Code::Unavailable, Some(Reason::NotReady)), "{status}");
}

/// An address where nobody listens.
async fn free_address() -> joust_rpc::Address {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    format!("http://{}", listener.local_addr().expect("bound")).parse().expect("an address")
}

#[tokio::test]
async fn an_oversized_message_is_refused_and_the_next_one_served() {
    let server = Running::start(plain()).await;
    let mut request = score("");
    request.prompt.as_mut().expect("a prompt").kind = Some(Kind::Text("x".repeat(17 << 20)));
    let status = judge_of(server.client()).score(request.clone()).await.expect_err("the client's limit");
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    // A client without the limit of ours meets the server's.
    let caller = Caller::new(server.client()).expect("a caller");
    let status = JudgeServiceClient::new(caller).score(request).await.expect_err("the server's limit");
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    assert_eq!(server.seen.calls.load(Ordering::SeqCst), 0);
    // More than tonic's 4 MiB pass, both ways.
    let mut request = score("big");
    request.prompt.as_mut().expect("a prompt").kind = Some(Kind::Text("x".repeat(8 << 20)));
    let answered = judge_of(server.client()).score(request).await.expect("within the limit");
    assert_eq!(notes(answered)[0].len(), 8 << 20);
}

#[tokio::test]
async fn what_a_repeat_can_mend_is_repeated() {
    let server = Running::start(plain()).await;
    for how in ["away", "full"] {
        server.seen.calls.store(0, Ordering::SeqCst);
        server.seen.failures.store(2, Ordering::SeqCst);
        judge_of(server.client()).score(score(how)).await.expect("the third attempt");
        assert_eq!(server.seen.calls.load(Ordering::SeqCst), 3, "{how}");
    }
    server.seen.calls.store(0, Ordering::SeqCst);
    let status = judge_of(server.client()).score(score("broken")).await.expect_err("a defect");
    assert_eq!((status.code(), server.seen.calls.load(Ordering::SeqCst)), (Code::Internal, 1));
}

#[tokio::test]
async fn repeats_have_a_budget() {
    let server = Running::start(plain()).await;
    server.seen.failures.store(usize::MAX, Ordering::SeqCst);
    let mut config = server.client();
    config.retry.base = Duration::ZERO;
    let client = judge_of(config.clone());
    let calls = 200;
    for call in 0..calls {
        let status = client.clone().score(score("away")).await.expect_err("away");
        assert_eq!(Reason::of(&status), Some(Reason::NotReady), "{call}");
    }
    let arrived = server.seen.calls.load(Ordering::SeqCst);
    // Without a budget each call is made 5 times; with it, 10 s of 10 repeats a second are there at once.
    assert!((calls + 50..=calls + 150).contains(&arrived), "{arrived} for {calls} calls");
}

#[tokio::test]
async fn a_full_service_says_so_and_serves_probes() {
    let mut config = plain();
    config.limits.concurrency = 1;
    let server = Running::start(config).await;
    let mut client_config = server.client();
    client_config.retry.attempts = 1;
    let client = judge_of(client_config);
    let first = tokio::spawn(async move { client.clone().score(score("gate")).await });
    until("the first is served", async || server.seen.calls.load(Ordering::SeqCst) == 1).await;
    let mut config = server.client();
    config.retry.attempts = 1;
    let status = judge_of(config).score(score("")).await.expect_err("full");
    assert_eq!((status.code(), Reason::of(&status)), (Code::ResourceExhausted, Some(Reason::TooManyCalls)));
    let caller = Caller::new(server.client()).expect("a caller");
    let mut health = tonic_health::pb::health_client::HealthClient::new(caller);
    health.check(tonic_health::pb::HealthCheckRequest::default()).await.expect("a probe");
    server.seen.gate.notify_one();
    first.await.expect("no panic").expect("served");
    judge_of(server.client()).score(score("")).await.expect("room again");
}

#[tokio::test]
async fn a_trace_goes_on_behind_the_call() {
    let server = Running::start(plain()).await;
    let context = TraceContext::new_root();
    let mut client = judge_of(server.client());
    let answered = context.scope(client.score(score(""))).await.expect("served");
    assert_eq!(notes(answered)[2], context.trace_id());
    let other = notes(client.score(score("")).await.expect("served"));
    assert_ne!(other[2], context.trace_id(), "a call of its own is a trace of its own");
}

#[tokio::test]
async fn calls_spread_over_the_addresses_of_a_name_as_they_change() {
    let (one, two, three) = (
        Running::named("one", plain()).await,
        Running::named("two", plain()).await,
        Running::named("three", plain()).await,
    );
    let addresses = Arc::new(Mutex::new(vec![one.at, two.at]));
    let lookup: Lookup = {
        let addresses = Arc::clone(&addresses);
        Arc::new(move |host, _| {
            assert_eq!(host, "judges.example");
            let found: Vec<SocketAddr> = addresses.lock().expect("no panic").clone();
            Box::pin(async move { Ok(found) })
        })
    };
    let mut config = ClientConfig::new("http://judges.example:7000".parse().expect("an address"));
    config.lookup = Some(lookup);
    config.lookup_every = Duration::from_millis(10);
    let client = judge_of(config);
    let who = async || {
        let mut seen = BTreeSet::new();
        for _ in 0..40 {
            let answered = client.clone().score(score("")).await.expect("one of them answers");
            seen.insert(notes(answered).swap_remove(0));
        }
        seen.into_iter().collect::<Vec<_>>()
    };
    until("both answer", async || who().await == ["one", "two"]).await;
    // A server goes away; its calls are made again elsewhere while its address is still there.
    two.shutdown.trigger();
    tokio::time::timeout(PATIENCE, two.task).await.expect("in time").expect("no panic").expect("drained");
    assert_eq!(who().await, ["one"]);
    *addresses.lock().expect("no panic") = vec![one.at, three.at];
    until("the new one answers", async || who().await == ["one", "three"]).await;
}
