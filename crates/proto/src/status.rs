//! The one table from reasons to gRPC codes, and the details that every error carries.
//!
//! A [`Failure`] is what a service or layer says; its [`tonic::Status`] has `google.rpc.ErrorInfo` with the reason, the domain
//! `joust` and metadata, field violations for a bad request, and `RetryInfo` where a later call can succeed. Nothing is logged here:
//! an error is logged once, where it stops travelling. `docs/operations.md` has the table for readers.

use std::{collections::HashMap, fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::Error;

/// Domain of every reason.
pub const DOMAIN: &str = "joust";

/// A row of the table: reason, name on the wire, code, what it means and what to do.
struct Row(Reason, &'static str, Code, &'static str);

/// Why a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A field holds what cannot be used.
    InvalidField,
    /// No token came with the call.
    TokenMissing,
    /// The token is none of the known ones.
    TokenUnknown,
    /// The token's time is over.
    TokenExpired,
    /// The caller is no worker: no client certificate came with the connection.
    CertificateMissing,
    /// The token does not allow this call.
    ScopeMissing,
    /// There is no run of this name.
    UnknownRun,
    /// There is no judge, checkpoint, topic, worker or record of this name.
    UnknownName,
    /// These weights are not held any more, or not yet.
    UnknownModel,
    /// A run of this name exists.
    RunExists,
    /// The idempotency key came with another request before.
    KeyReused,
    /// The run is in a state that does not allow this.
    WrongState,
    /// Caller and service are of different versions.
    VersionDiffers,
    /// The run file differs from that of the run.
    SettingsDiffer,
    /// The lease went to someone else.
    LeaseLost,
    /// A newer learner holds the run.
    Fenced,
    /// A position or offset lies outside.
    OutOfRange,
    /// A topic holds as much as it may.
    QueueFull,
    /// The service has as many calls as it takes.
    TooManyCalls,
    /// The token made as many calls as it may.
    RateLimited,
    /// The models would not fit into memory.
    BudgetExceeded,
    /// The call took longer than its deadline.
    Deadline,
    /// The service takes no more work.
    Draining,
    /// The service cannot work yet.
    NotReady,
    /// The queue's store cannot be reached.
    StoreUnreachable,
    /// Bytes are not what their checksum says.
    Damaged,
    /// A defect of the service.
    Internal,
}

const TABLE: &[Row] = &[
    Row(
        Reason::InvalidField,
        "INVALID_FIELD",
        Code::InvalidArgument,
        "a field cannot be used; the violation names it, its value and what is wanted",
    ),
    Row(
        Reason::TokenMissing,
        "TOKEN_MISSING",
        Code::Unauthenticated,
        "no bearer token came with the call; send `authorization: Bearer TOKEN`",
    ),
    Row(
        Reason::TokenUnknown,
        "TOKEN_UNKNOWN",
        Code::Unauthenticated,
        "the token is not in the token file; ask the operator for one",
    ),
    Row(
        Reason::TokenExpired,
        "TOKEN_EXPIRED",
        Code::Unauthenticated,
        "the token's time is over; ask the operator for a new one",
    ),
    Row(
        Reason::CertificateMissing,
        "CERTIFICATE_MISSING",
        Code::Unauthenticated,
        "this call is for workers; connect with a client certificate of the cluster",
    ),
    Row(
        Reason::ScopeMissing,
        "SCOPE_MISSING",
        Code::PermissionDenied,
        "the token's scope does not allow the call; the metadata names the scope that does",
    ),
    Row(Reason::UnknownRun, "UNKNOWN_RUN", Code::NotFound, "there is no run of this name; list the runs"),
    Row(
        Reason::UnknownName,
        "UNKNOWN_NAME",
        Code::NotFound,
        "there is no judge, checkpoint, topic, worker or record of this name",
    ),
    Row(
        Reason::UnknownModel,
        "UNKNOWN_MODEL",
        Code::NotFound,
        "these weights are not held any more, or not yet; watch the models for those of now",
    ),
    Row(Reason::RunExists, "RUN_EXISTS", Code::AlreadyExists, "a run of this name exists; choose another name"),
    Row(
        Reason::KeyReused,
        "KEY_REUSED",
        Code::AlreadyExists,
        "the idempotency key came with another request before; make a new key",
    ),
    Row(
        Reason::WrongState,
        "WRONG_STATE",
        Code::FailedPrecondition,
        "the run's state does not allow this; the metadata names the state",
    ),
    Row(
        Reason::VersionDiffers,
        "VERSION_DIFFERS",
        Code::FailedPrecondition,
        "caller and service are of different versions; run one version",
    ),
    Row(
        Reason::SettingsDiffer,
        "SETTINGS_DIFFER",
        Code::FailedPrecondition,
        "the run file differs from the run's; update or fork the run instead",
    ),
    Row(
        Reason::LeaseLost,
        "LEASE_LOST",
        Code::Aborted,
        "the lease went to someone else; drop the work, or register anew",
    ),
    Row(Reason::Fenced, "FENCED", Code::Aborted, "a newer learner holds the run; stop"),
    Row(Reason::OutOfRange, "OUT_OF_RANGE", Code::OutOfRange, "a position or offset lies behind the end"),
    Row(
        Reason::QueueFull,
        "QUEUE_FULL",
        Code::ResourceExhausted,
        "a topic holds as much as it may; try again after the delay",
    ),
    Row(
        Reason::TooManyCalls,
        "TOO_MANY_CALLS",
        Code::ResourceExhausted,
        "the service has as many calls as it takes; try again after the delay",
    ),
    Row(
        Reason::RateLimited,
        "RATE_LIMITED",
        Code::ResourceExhausted,
        "the token made as many calls as it may; try again after the delay",
    ),
    Row(
        Reason::BudgetExceeded,
        "BUDGET_EXCEEDED",
        Code::ResourceExhausted,
        "the models would not fit into the worker's memory; use more workers or a larger budget",
    ),
    Row(
        Reason::Deadline,
        "DEADLINE",
        Code::DeadlineExceeded,
        "the call took longer than its deadline or the service's limit; what it began may have happened",
    ),
    Row(Reason::Draining, "DRAINING", Code::Unavailable, "the service takes no more work; try again, elsewhere"),
    Row(Reason::NotReady, "NOT_READY", Code::Unavailable, "the service cannot work yet; try again after the delay"),
    Row(
        Reason::StoreUnreachable,
        "STORE_UNREACHABLE",
        Code::Unavailable,
        "the queue's store cannot be reached; try again after the delay",
    ),
    Row(Reason::Damaged, "DAMAGED", Code::DataLoss, "bytes are not what their checksum says; fetch them again"),
    Row(Reason::Internal, "INTERNAL", Code::Internal, "a defect of the service; its log says more"),
];

impl Reason {
    /// Returns all reasons, in the order of the documented table.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    /// Returns the name on the wire.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Returns the gRPC code.
    pub fn code(self) -> Code {
        self.row().2
    }

    /// Returns what it means and what to do.
    pub fn meaning(self) -> &'static str {
        self.row().3
    }

    /// Returns the reason of a name on the wire.
    pub fn parse(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// Returns the reason of a status that a service of joust made.
    pub fn of(status: &Status) -> Option<Self> {
        let info = status.get_details_error_info()?;
        if info.domain == DOMAIN { Self::parse(&info.reason) } else { None }
    }

    fn row(self) -> &'static Row {
        // The table is in the order of the enumeration; a test compares them.
        &TABLE[self as usize]
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failed call: the reason, a message for people, and what a program needs to act on it.
#[derive(Debug, Clone)]
pub struct Failure {
    reason: Reason,
    message: String,
    metadata: HashMap<String, String>,
    violations: Vec<FieldViolation>,
    retry_after: Option<Duration>,
}

impl Failure {
    /// Makes a failure; the message names the thing, the value and what to do, and holds no prompt, completion or secret.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let (metadata, violations) = (HashMap::new(), Vec::new());
        Self { reason, message: message.into(), metadata, violations, retry_after: None }
    }

    /// Adds a name and its value for programs.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// Says when the same call can succeed.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Returns the reason.
    pub fn reason(&self) -> Reason {
        self.reason
    }
}

impl Failure {
    /// Says which field the message is about.
    #[must_use]
    pub fn of_field(mut self, field: &str) -> Self {
        self.violations.push(FieldViolation::new(field, self.message.clone()));
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let violation = FieldViolation::new(error.field(), error.description());
        Self { violations: vec![violation], ..Self::new(Reason::InvalidField, error.to_string()) }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let mut details = ErrorDetails::with_error_info(failure.reason.name(), DOMAIN, failure.metadata);
        if !failure.violations.is_empty() {
            details.set_bad_request(failure.violations);
        }
        if failure.retry_after.is_some() {
            details.set_retry_info(failure.retry_after);
        }
        Self::with_error_details(failure.reason.code(), failure.message, details)
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Failure::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_reason_once_in_order() {
        for (i, reason) in Reason::all().enumerate() {
            assert_eq!(reason as usize, i);
            assert_eq!(Reason::parse(reason.name()), Some(reason));
        }
        assert_eq!(Reason::all().last(), Some(Reason::Internal));
    }

    #[test]
    fn the_documented_table_is_this_one() {
        let docs = include_str!("../../../docs/operations.md");
        for reason in Reason::all() {
            let code = format!("{:?}", reason.code());
            let row = format!("| `{reason}` | {code} | {} |", reason.meaning());
            assert!(docs.contains(&row), "docs/operations.md lacks the row\n{row}");
        }
        let (_, docs) = docs.split_once("## Error codes of the wire").expect("the section of the table");
        let (docs, _) = docs.split_once("\n## ").expect("the section behind it");
        assert_eq!(docs.lines().filter(|line| line.starts_with("| `") && line.contains("` | ")).count(), TABLE.len());
    }

    #[test]
    fn details_arrive() {
        let status = Status::from(
            Failure::new(Reason::QueueFull, "topic a/pairs is full")
                .with("topic", "a/pairs")
                .retry_after(Duration::from_millis(250)),
        );
        assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "topic a/pairs is full"));
        let details = status.get_error_details();
        let info = details.error_info().expect("info");
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("QUEUE_FULL", "joust"));
        assert_eq!(info.metadata["topic"], "a/pairs");
        assert_eq!(details.retry_info().expect("retry").retry_delay, Some(Duration::from_millis(250)));
        assert_eq!(Reason::of(&status), Some(Reason::QueueFull));
        assert_eq!(Reason::of(&Status::internal("x")), None);
    }

    #[test]
    fn a_bad_field_is_named() {
        let status = Status::from(Error::value("weight", -1, "at least 0").at("examples[3]"));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "field examples[3].weight is -1, expected at least 0");
        let details = status.get_error_details();
        let violations = &details.bad_request().expect("violations").field_violations;
        assert_eq!(violations[0].field, "examples[3].weight");
    }
}
