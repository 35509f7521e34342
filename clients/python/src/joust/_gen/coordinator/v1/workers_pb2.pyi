import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from joust._gen.common.v1 import rollout_pb2 as _rollout_pb2
from joust._gen.coordinator.v1 import runs_pb2 as _runs_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_ROLLOUT: _ClassVar[Role]
    ROLE_JUDGE: _ClassVar[Role]
    ROLE_LEARNER: _ClassVar[Role]
ROLE_UNSPECIFIED: Role
ROLE_ROLLOUT: Role
ROLE_JUDGE: Role
ROLE_LEARNER: Role

class RegisterWorkerRequest(_message.Message):
    __slots__ = ("worker", "role", "version", "address", "budget_bytes", "idempotency_key")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    worker: str
    role: Role
    version: str
    address: str
    budget_bytes: int
    idempotency_key: str
    def __init__(self, worker: _Optional[str] = ..., role: _Optional[_Union[Role, str]] = ..., version: _Optional[str] = ..., address: _Optional[str] = ..., budget_bytes: _Optional[int] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class RegisterWorkerResponse(_message.Message):
    __slots__ = ("lease", "lease_duration", "heartbeat_interval", "assignments")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    LEASE_DURATION_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    lease: int
    lease_duration: _duration_pb2.Duration
    heartbeat_interval: _duration_pb2.Duration
    assignments: _containers.RepeatedCompositeFieldContainer[Assignment]
    def __init__(self, lease: _Optional[int] = ..., lease_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., heartbeat_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., assignments: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ...) -> None: ...

class WorkerProgress(_message.Message):
    __slots__ = ("run_id", "policy_version", "steps_done", "ended", "failed", "generation", "recovered", "restored_steps")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    STEPS_DONE_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    RECOVERED_FIELD_NUMBER: _ClassVar[int]
    RESTORED_STEPS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    policy_version: int
    steps_done: int
    ended: str
    failed: str
    generation: int
    recovered: bool
    restored_steps: int
    def __init__(self, run_id: _Optional[str] = ..., policy_version: _Optional[int] = ..., steps_done: _Optional[int] = ..., ended: _Optional[str] = ..., failed: _Optional[str] = ..., generation: _Optional[int] = ..., recovered: _Optional[bool] = ..., restored_steps: _Optional[int] = ...) -> None: ...

class LearnerEvent(_message.Message):
    __slots__ = ("run_id", "sequence", "step", "evaluation", "checkpoint", "models")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    sequence: int
    step: _runs_pb2.StepEvent
    evaluation: _runs_pb2.EvaluationEvent
    checkpoint: _runs_pb2.CheckpointEvent
    models: _rollout_pb2.ModelSet
    def __init__(self, run_id: _Optional[str] = ..., sequence: _Optional[int] = ..., step: _Optional[_Union[_runs_pb2.StepEvent, _Mapping]] = ..., evaluation: _Optional[_Union[_runs_pb2.EvaluationEvent, _Mapping]] = ..., checkpoint: _Optional[_Union[_runs_pb2.CheckpointEvent, _Mapping]] = ..., models: _Optional[_Union[_rollout_pb2.ModelSet, _Mapping]] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("worker", "lease", "progress", "draining", "events")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    worker: str
    lease: int
    progress: _containers.RepeatedCompositeFieldContainer[WorkerProgress]
    draining: bool
    events: _containers.RepeatedCompositeFieldContainer[LearnerEvent]
    def __init__(self, worker: _Optional[str] = ..., lease: _Optional[int] = ..., progress: _Optional[_Iterable[_Union[WorkerProgress, _Mapping]]] = ..., draining: _Optional[bool] = ..., events: _Optional[_Iterable[_Union[LearnerEvent, _Mapping]]] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("run_id", "run_toml", "settings_hash", "learner_address", "generation", "by_hand", "stopping", "steps")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_TOML_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_HASH_FIELD_NUMBER: _ClassVar[int]
    LEARNER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    BY_HAND_FIELD_NUMBER: _ClassVar[int]
    STOPPING_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    run_toml: str
    settings_hash: str
    learner_address: str
    generation: int
    by_hand: bool
    stopping: bool
    steps: int
    def __init__(self, run_id: _Optional[str] = ..., run_toml: _Optional[str] = ..., settings_hash: _Optional[str] = ..., learner_address: _Optional[str] = ..., generation: _Optional[int] = ..., by_hand: _Optional[bool] = ..., stopping: _Optional[bool] = ..., steps: _Optional[int] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("lease_duration", "assignments")
    LEASE_DURATION_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    lease_duration: _duration_pb2.Duration
    assignments: _containers.RepeatedCompositeFieldContainer[Assignment]
    def __init__(self, lease_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., assignments: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ...) -> None: ...

class ListWorkersRequest(_message.Message):
    __slots__ = ("role", "run_id")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    role: Role
    run_id: str
    def __init__(self, role: _Optional[_Union[Role, str]] = ..., run_id: _Optional[str] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("worker", "role", "address", "draining", "run_ids", "progress")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    RUN_IDS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    worker: str
    role: Role
    address: str
    draining: bool
    run_ids: _containers.RepeatedScalarFieldContainer[str]
    progress: _containers.RepeatedCompositeFieldContainer[WorkerProgress]
    def __init__(self, worker: _Optional[str] = ..., role: _Optional[_Union[Role, str]] = ..., address: _Optional[str] = ..., draining: _Optional[bool] = ..., run_ids: _Optional[_Iterable[str]] = ..., progress: _Optional[_Iterable[_Union[WorkerProgress, _Mapping]]] = ...) -> None: ...

class ListWorkersResponse(_message.Message):
    __slots__ = ("workers",)
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[Member]
    def __init__(self, workers: _Optional[_Iterable[_Union[Member, _Mapping]]] = ...) -> None: ...
