//! Which scope each call needs: one table over every RPC.

use std::{collections::BTreeSet, sync::LazyLock};

use prost::Message;
use prost_types::FileDescriptorSet;

use crate::Scope;

/// What a caller must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: probes have no token.
    Open,
    /// A token of this scope; [`Scope::Worker`] needs a client certificate as well.
    Token(Scope),
}

const TABLE: &[(&str, Access)] = &[
    ("/grpc.health.v1.Health/Check", Access::Open),
    ("/grpc.health.v1.Health/Watch", Access::Open),
    ("/grpc.health.v1.Health/List", Access::Open),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Access::Token(Scope::Read)),
    ("/joust.rollout.v1.RolloutService/Generate", Access::Token(Scope::Submit)),
    ("/joust.rollout.v1.RolloutService/LoadModels", Access::Token(Scope::Worker)),
    ("/joust.rollout.v1.RolloutService/GetStatus", Access::Token(Scope::Read)),
    ("/joust.rollout.v1.RolloutService/Drain", Access::Token(Scope::Admin)),
    ("/joust.judge.v1.JudgeService/Score", Access::Token(Scope::Submit)),
    ("/joust.judge.v1.JudgeService/Compare", Access::Token(Scope::Submit)),
    ("/joust.judge.v1.JudgeService/Rank", Access::Token(Scope::Submit)),
    ("/joust.judge.v1.JudgeService/Critique", Access::Token(Scope::Submit)),
    ("/joust.judge.v1.JudgeService/JudgeBatch", Access::Token(Scope::Submit)),
    ("/joust.judge.v1.JudgeService/ListJudges", Access::Token(Scope::Read)),
    ("/joust.learner.v1.LearnerService/PutExamples", Access::Token(Scope::Submit)),
    ("/joust.learner.v1.LearnerService/TrainStep", Access::Token(Scope::Submit)),
    ("/joust.learner.v1.LearnerService/WatchModels", Access::Token(Scope::Read)),
    ("/joust.learner.v1.LearnerService/FetchWeights", Access::Token(Scope::Read)),
    ("/joust.learner.v1.LearnerService/SaveCheckpoint", Access::Token(Scope::Submit)),
    ("/joust.learner.v1.LearnerService/GetStatus", Access::Token(Scope::Read)),
    ("/joust.coordinator.v1.CoordinatorService/CreateRun", Access::Token(Scope::Submit)),
    ("/joust.coordinator.v1.CoordinatorService/GetRun", Access::Token(Scope::Read)),
    ("/joust.coordinator.v1.CoordinatorService/ListRuns", Access::Token(Scope::Read)),
    ("/joust.coordinator.v1.CoordinatorService/WatchRun", Access::Token(Scope::Read)),
    ("/joust.coordinator.v1.CoordinatorService/PauseRun", Access::Token(Scope::Submit)),
    ("/joust.coordinator.v1.CoordinatorService/ResumeRun", Access::Token(Scope::Submit)),
    ("/joust.coordinator.v1.CoordinatorService/StopRun", Access::Token(Scope::Submit)),
    ("/joust.coordinator.v1.CoordinatorService/ForkRun", Access::Token(Scope::Submit)),
    ("/joust.coordinator.v1.CoordinatorService/UpdateRun", Access::Token(Scope::Submit)),
    ("/joust.coordinator.v1.CoordinatorService/SubmitPrompts", Access::Token(Scope::Submit)),
    ("/joust.coordinator.v1.CoordinatorService/SubmitFeedback", Access::Token(Scope::Submit)),
    ("/joust.coordinator.v1.CoordinatorService/ListExamples", Access::Token(Scope::Read)),
    ("/joust.coordinator.v1.CoordinatorService/ExportExamples", Access::Token(Scope::Read)),
    ("/joust.coordinator.v1.CoordinatorService/ListDeadLetters", Access::Token(Scope::Read)),
    ("/joust.coordinator.v1.CoordinatorService/RequeueDeadLetters", Access::Token(Scope::Admin)),
    ("/joust.coordinator.v1.CoordinatorService/GetQueueStats", Access::Token(Scope::Read)),
    ("/joust.coordinator.v1.CoordinatorService/RegisterWorker", Access::Token(Scope::Worker)),
    ("/joust.coordinator.v1.CoordinatorService/Heartbeat", Access::Token(Scope::Worker)),
    ("/joust.coordinator.v1.CoordinatorService/ListWorkers", Access::Token(Scope::Read)),
];

/// Returns what the method at `path` needs; a method that the table does not know needs [`Scope::Admin`].
pub fn required(path: &str) -> Access {
    known(path).unwrap_or(Access::Token(Scope::Admin))
}

/// Returns the known method of `path`, as `package.Service/Method`, for spans, logs and metrics: what a caller invents never becomes a label.
pub fn label(path: &str) -> &'static str {
    TABLE.iter().find(|(known, _)| *known == path).map_or("unknown", |(known, _)| known.trim_start_matches('/'))
}

/// Returns whether the method answers with a stream, which may live longer than a call.
pub fn streams(path: &str) -> bool {
    static STREAMS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
        let watch = "/grpc.health.v1.Health/Watch".to_owned();
        methods().filter(|(_, streams)| *streams).map(|(path, _)| path).chain([watch]).collect()
    });
    STREAMS.contains(path)
}

fn known(path: &str) -> Option<Access> {
    TABLE.iter().find(|(known, _)| *known == path).map(|(_, access)| *access)
}

/// Every method of joust's services by path, and whether it answers with a stream.
fn methods() -> impl Iterator<Item = (String, bool)> {
    let set = FileDescriptorSet::decode(joust_proto::DESCRIPTORS).expect("the generated descriptors decode");
    set.file.into_iter().flat_map(|file| {
        let package = file.package().to_owned();
        let services = file.service.into_iter();
        services.flat_map(move |service| {
            let name = format!("/{package}.{}", service.name());
            service
                .method
                .into_iter()
                .map(move |method| (format!("{name}/{}", method.name()), method.server_streaming()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_a_scope_and_no_row_is_left_over() {
        let described: BTreeSet<String> = methods().map(|(path, _)| path).collect();
        let rows: BTreeSet<String> =
            TABLE.iter().map(|(path, _)| (*path).to_owned()).filter(|path| path.starts_with("/joust.")).collect();
        assert_eq!(described, rows);
        assert!(described.len() > 30);
    }

    #[test]
    fn what_changes_something_needs_more_than_reading() {
        const READS: [&str; 6] = ["Get", "List", "Watch", "Fetch", "Export", "ServerReflectionInfo"];
        for (path, access) in TABLE.iter().filter(|(_, access)| *access != Access::Open) {
            let method = path.rsplit('/').next().expect("a method");
            let reads = READS.iter().any(|prefix| method.starts_with(prefix));
            assert_eq!(reads, *access == Access::Token(Scope::Read), "{path}");
        }
        assert_eq!(required("/joust.new.v1.NewService/Do"), Access::Token(Scope::Admin));
    }

    #[test]
    fn streams_are_known() {
        assert!(streams("/joust.learner.v1.LearnerService/FetchWeights"));
        assert!(!streams("/joust.judge.v1.JudgeService/Score"));
    }
}
