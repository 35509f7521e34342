import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from joust._gen.common.v1 import example_pb2 as _example_pb2
from joust._gen.common.v1 import rollout_pb2 as _rollout_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelPart(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_PART_UNSPECIFIED: _ClassVar[ModelPart]
    MODEL_PART_POLICY: _ClassVar[ModelPart]
    MODEL_PART_REFERENCE: _ClassVar[ModelPart]
    MODEL_PART_EMA: _ClassVar[ModelPart]
    MODEL_PART_PAST: _ClassVar[ModelPart]
    MODEL_PART_INITIAL: _ClassVar[ModelPart]
    MODEL_PART_JUDGE: _ClassVar[ModelPart]
MODEL_PART_UNSPECIFIED: ModelPart
MODEL_PART_POLICY: ModelPart
MODEL_PART_REFERENCE: ModelPart
MODEL_PART_EMA: ModelPart
MODEL_PART_PAST: ModelPart
MODEL_PART_INITIAL: ModelPart
MODEL_PART_JUDGE: ModelPart

class PutExamplesRequest(_message.Message):
    __slots__ = ("run_id", "examples", "idempotency_key")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    examples: _containers.RepeatedCompositeFieldContainer[_example_pb2.PreferenceExample]
    idempotency_key: str
    def __init__(self, run_id: _Optional[str] = ..., examples: _Optional[_Iterable[_Union[_example_pb2.PreferenceExample, _Mapping]]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class PutExamplesResponse(_message.Message):
    __slots__ = ("added", "duplicates", "waiting")
    ADDED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    added: int
    duplicates: int
    waiting: int
    def __init__(self, added: _Optional[int] = ..., duplicates: _Optional[int] = ..., waiting: _Optional[int] = ...) -> None: ...

class TrainStepRequest(_message.Message):
    __slots__ = ("run_id", "example_ids", "publish", "idempotency_key")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_IDS_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    example_ids: _containers.RepeatedScalarFieldContainer[bytes]
    publish: bool
    idempotency_key: str
    def __init__(self, run_id: _Optional[str] = ..., example_ids: _Optional[_Iterable[bytes]] = ..., publish: _Optional[bool] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class TrainStepResponse(_message.Message):
    __slots__ = ("step", "metrics", "examples", "models")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    STEP_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    step: int
    metrics: _containers.ScalarMap[str, float]
    examples: int
    models: _rollout_pb2.ModelSet
    def __init__(self, step: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., examples: _Optional[int] = ..., models: _Optional[_Union[_rollout_pb2.ModelSet, _Mapping]] = ...) -> None: ...

class WatchModelsRequest(_message.Message):
    __slots__ = ("run_id", "after_version")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    after_version: int
    def __init__(self, run_id: _Optional[str] = ..., after_version: _Optional[int] = ...) -> None: ...

class WatchModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _rollout_pb2.ModelSet
    def __init__(self, models: _Optional[_Union[_rollout_pb2.ModelSet, _Mapping]] = ...) -> None: ...

class FetchWeightsRequest(_message.Message):
    __slots__ = ("run_id", "part", "model", "offset_bytes", "judge")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    JUDGE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    part: ModelPart
    model: _rollout_pb2.ModelRef
    offset_bytes: int
    judge: str
    def __init__(self, run_id: _Optional[str] = ..., part: _Optional[_Union[ModelPart, str]] = ..., model: _Optional[_Union[_rollout_pb2.ModelRef, _Mapping]] = ..., offset_bytes: _Optional[int] = ..., judge: _Optional[str] = ...) -> None: ...

class WeightsFile(_message.Message):
    __slots__ = ("name", "size_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    size_bytes: int
    def __init__(self, name: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class WeightsHeader(_message.Message):
    __slots__ = ("total_bytes", "blake3", "files", "model", "folder")
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    BLAKE3_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    total_bytes: int
    blake3: str
    files: _containers.RepeatedCompositeFieldContainer[WeightsFile]
    model: _rollout_pb2.ModelRef
    folder: str
    def __init__(self, total_bytes: _Optional[int] = ..., blake3: _Optional[str] = ..., files: _Optional[_Iterable[_Union[WeightsFile, _Mapping]]] = ..., model: _Optional[_Union[_rollout_pb2.ModelRef, _Mapping]] = ..., folder: _Optional[str] = ...) -> None: ...

class WeightsChunk(_message.Message):
    __slots__ = ("offset_bytes", "data")
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset_bytes: int
    data: bytes
    def __init__(self, offset_bytes: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class FetchWeightsResponse(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: WeightsHeader
    chunk: WeightsChunk
    def __init__(self, header: _Optional[_Union[WeightsHeader, _Mapping]] = ..., chunk: _Optional[_Union[WeightsChunk, _Mapping]] = ...) -> None: ...

class SaveCheckpointRequest(_message.Message):
    __slots__ = ("run_id", "idempotency_key")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    idempotency_key: str
    def __init__(self, run_id: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class SaveCheckpointResponse(_message.Message):
    __slots__ = ("checkpoint", "steps_done")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    STEPS_DONE_FIELD_NUMBER: _ClassVar[int]
    checkpoint: str
    steps_done: int
    def __init__(self, checkpoint: _Optional[str] = ..., steps_done: _Optional[int] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("worker", "version", "uptime", "run_id", "steps_done", "checkpointed_steps", "models", "waiting_examples", "ranks")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEPS_DONE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTED_STEPS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    WAITING_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    worker: str
    version: str
    uptime: _duration_pb2.Duration
    run_id: str
    steps_done: int
    checkpointed_steps: int
    models: _rollout_pb2.ModelSet
    waiting_examples: int
    ranks: int
    def __init__(self, worker: _Optional[str] = ..., version: _Optional[str] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., run_id: _Optional[str] = ..., steps_done: _Optional[int] = ..., checkpointed_steps: _Optional[int] = ..., models: _Optional[_Union[_rollout_pb2.ModelSet, _Mapping]] = ..., waiting_examples: _Optional[int] = ..., ranks: _Optional[int] = ...) -> None: ...
