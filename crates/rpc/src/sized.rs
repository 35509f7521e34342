//! Stubs and servers with the sizes of [`joust_proto::limits`] set on both sides; tonic alone receives 4 MiB and sends without a limit.

use joust_proto::{
    coordinator::v1::{
        coordinator_service_client::CoordinatorServiceClient,
        coordinator_service_server::{CoordinatorService, CoordinatorServiceServer},
    },
    judge::v1::{
        judge_service_client::JudgeServiceClient,
        judge_service_server::{JudgeService, JudgeServiceServer},
    },
    learner::v1::{
        learner_service_client::LearnerServiceClient,
        learner_service_server::{LearnerService, LearnerServiceServer},
    },
    limits::MAX_MESSAGE_BYTES,
    rollout::v1::{
        rollout_service_client::RolloutServiceClient,
        rollout_service_server::{RolloutService, RolloutServiceServer},
    },
};

use crate::Caller;

/// Serves the rollout service by `handler`.
pub fn rollout_server<T: RolloutService>(handler: T) -> RolloutServiceServer<T> {
    RolloutServiceServer::new(handler)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// Calls a rollout service.
pub fn rollout_client(caller: Caller) -> RolloutServiceClient<Caller> {
    RolloutServiceClient::new(caller)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// Serves the judge service by `handler`.
pub fn judge_server<T: JudgeService>(handler: T) -> JudgeServiceServer<T> {
    JudgeServiceServer::new(handler)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// Calls a judge service.
pub fn judge_client(caller: Caller) -> JudgeServiceClient<Caller> {
    JudgeServiceClient::new(caller)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// Serves the learner service by `handler`.
pub fn learner_server<T: LearnerService>(handler: T) -> LearnerServiceServer<T> {
    LearnerServiceServer::new(handler)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// Calls a learner service.
pub fn learner_client(caller: Caller) -> LearnerServiceClient<Caller> {
    LearnerServiceClient::new(caller)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// Serves the coordinator service by `handler`.
pub fn coordinator_server<T: CoordinatorService>(handler: T) -> CoordinatorServiceServer<T> {
    CoordinatorServiceServer::new(handler)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// Calls a coordinator service.
pub fn coordinator_client(caller: Caller) -> CoordinatorServiceClient<Caller> {
    CoordinatorServiceClient::new(caller)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}
