//! Health, reflection, and a stop that drops nothing.

use std::{sync::atomic::Ordering, time::Duration};

use joust_proto::{Reason, judge::v1::JudgeBatchRequest};
use joust_rpc::{Caller, ServerConfig};
use tokio_stream::StreamExt;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::common::{PATIENCE, Running, judge_of, plain, score, until};

const JUDGE: &str = "joust.judge.v1.JudgeService";
const ROLLOUT: &str = "joust.rollout.v1.RolloutService";

async fn health(client: &HealthClient<Caller>, service: &str) -> Option<ServingStatus> {
    let request = HealthCheckRequest { service: service.into() };
    client.clone().check(request).await.ok().map(|response| response.into_inner().status())
}

#[tokio::test]
async fn health_is_told_by_service() {
    let server = Running::start(plain()).await;
    let client = HealthClient::new(Caller::new(server.client()).expect("a caller"));
    for (service, wanted) in [
        ("", ServingStatus::Serving),
        ("liveness", ServingStatus::Serving),
        (JUDGE, ServingStatus::Serving),
        (ROLLOUT, ServingStatus::NotServing),
    ] {
        assert_eq!(health(&client, service).await, Some(wanted), "{service:?}");
    }
    assert_eq!(health(&client, "joust.unknown").await, None);
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let server = Running::start(plain()).await;
    let mut client = ServerReflectionClient::new(Caller::new(server.client()).expect("a caller"));
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.expect("served").into_inner();
    let answer = answers.next().await.expect("an answer").expect("no error").message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for wanted in [JUDGE, ROLLOUT, "joust.learner.v1.LearnerService", "joust.coordinator.v1.CoordinatorService"] {
        assert!(names.contains(&wanted), "{wanted} in {names:?}");
    }
}

#[tokio::test]
async fn a_stop_tells_then_refuses_then_ends_streams() {
    let notice = Duration::from_secs(1);
    let server = Running::start(ServerConfig { drain_notice: notice, drain_grace: notice, ..plain() }).await;
    let client = judge_of(server.client());
    let probe = HealthClient::new(Caller::new(server.client()).expect("a caller"));
    let mut stream = client.clone().judge_batch(JudgeBatchRequest::default()).await.expect("served").into_inner();
    let begun = tokio::spawn({
        let mut client = client.clone();
        async move { client.score(score("gate")).await }
    });
    until("the call has begun", async || server.seen.calls.load(Ordering::SeqCst) == 1).await;

    let stopped = std::time::Instant::now();
    server.shutdown.trigger();
    until("probes hear of it", async || health(&probe, JUDGE).await == Some(ServingStatus::NotServing)).await;
    assert_eq!(health(&probe, "liveness").await, Some(ServingStatus::Serving));
    client.clone().score(score("")).await.expect("calls are taken while probes notice");
    let mut once = server.client();
    once.retry.attempts = 1;
    let refused = async || {
        let status = judge_of(once.clone()).score(score("")).await;
        status.is_err_and(|status| status.code() == Code::Unavailable)
    };
    until("new calls are refused", refused).await;
    assert!(stopped.elapsed() >= notice, "{:?}", stopped.elapsed());
    server.seen.gate.notify_one();
    begun.await.expect("no panic").expect("a call that has begun ends well");

    let end = async {
        loop {
            match stream.next().await.expect("ends with a status") {
                Ok(_) => {}
                Err(status) => return status,
            }
        }
    };
    let status = tokio::time::timeout(PATIENCE, end).await.expect("in time");
    assert_eq!((status.code(), Reason::of(&status)), (Code::Unavailable, Some(Reason::Draining)), "{status}");
    tokio::time::timeout(PATIENCE, server.task).await.expect("in time").expect("no panic").expect("drained");
}
