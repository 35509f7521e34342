//! Streams: a reader that stands still, one that goes away, and deadlines.

use std::{sync::atomic::Ordering, time::Duration};

use joust_proto::judge::v1::JudgeBatchRequest;
use tokio_stream::StreamExt;
use tonic::{Code, Request};

use crate::common::{PIECE, Running, judge_of, plain, score, until};

#[tokio::test]
async fn a_slow_reader_holds_a_bounded_number_of_messages() {
    let server = Running::start(plain()).await;
    let mut client = judge_of(server.client());
    let mut stream = client.judge_batch(JudgeBatchRequest::default()).await.expect("served").into_inner();
    stream.next().await.expect("a message").expect("no error");
    let produced = || server.seen.produced.load(Ordering::SeqCst);
    // The window of a stream, 1 MiB, fills.
    until("the window is full", async || produced() * PIECE >= 1 << 20).await;
    for _ in 0..200 {
        client.score(score("")).await.expect("others are served meanwhile");
    }
    assert!(produced() * PIECE <= 4 << 20, "{} messages for a reader that stands still", produced());
    drop(stream);
    until("the producer notices that nobody reads", async || server.seen.ended.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline_and_gives_its_room_back() {
    let mut config = plain();
    config.limits.concurrency = 1;
    let server = Running::start(config).await;
    let mut client = judge_of(server.client());
    let mut request = Request::new(JudgeBatchRequest::default());
    request.set_timeout(Duration::from_millis(300));
    let mut stream = client.judge_batch(request).await.expect("served").into_inner();
    let status = loop {
        if let Err(status) = stream.next().await.expect("ends with a status") {
            break status;
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    until("its producer is gone", async || server.seen.ended.load(Ordering::SeqCst) == 1).await;
    client.score(score("")).await.expect("its room is free");
}

#[tokio::test]
async fn a_stream_without_a_deadline_outlives_that_of_calls() {
    let mut config = plain();
    config.limits.max_deadline = Duration::from_millis(20);
    let server = Running::start(config).await;
    let mut config = server.client();
    config.deadline = Duration::from_millis(200);
    let mut stream = judge_of(config).judge_batch(JudgeBatchRequest::default()).await.expect("served").into_inner();
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(300) {
        stream.next().await.expect("goes on").expect("no error");
    }
}
