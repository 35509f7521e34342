import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from joust._gen.common.v1 import rollout_pb2 as _rollout_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_p", "top_k", "max_new_tokens")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int
    def __init__(self, temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., top_k: _Optional[int] = ..., max_new_tokens: _Optional[int] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("run_id", "prompts", "num_generations", "players", "sampling", "seed", "policy_version")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    NUM_GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    PLAYERS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    prompts: _containers.RepeatedCompositeFieldContainer[_rollout_pb2.Prompt]
    num_generations: int
    players: _containers.RepeatedScalarFieldContainer[_rollout_pb2.Player]
    sampling: Sampling
    seed: int
    policy_version: int
    def __init__(self, run_id: _Optional[str] = ..., prompts: _Optional[_Iterable[_Union[_rollout_pb2.Prompt, _Mapping]]] = ..., num_generations: _Optional[int] = ..., players: _Optional[_Iterable[_Union[_rollout_pb2.Player, str]]] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., seed: _Optional[int] = ..., policy_version: _Optional[int] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("prompt_index", "prompt_ids", "completion")
    PROMPT_INDEX_FIELD_NUMBER: _ClassVar[int]
    PROMPT_IDS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_FIELD_NUMBER: _ClassVar[int]
    prompt_index: int
    prompt_ids: _containers.RepeatedScalarFieldContainer[int]
    completion: _rollout_pb2.Completion
    def __init__(self, prompt_index: _Optional[int] = ..., prompt_ids: _Optional[_Iterable[int]] = ..., completion: _Optional[_Union[_rollout_pb2.Completion, _Mapping]] = ...) -> None: ...

class LoadModelsRequest(_message.Message):
    __slots__ = ("run_id", "models", "idempotency_key")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    models: _rollout_pb2.ModelSet
    idempotency_key: str
    def __init__(self, run_id: _Optional[str] = ..., models: _Optional[_Union[_rollout_pb2.ModelSet, _Mapping]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class LoadModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _rollout_pb2.ModelSet
    def __init__(self, models: _Optional[_Union[_rollout_pb2.ModelSet, _Mapping]] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RunLoad(_message.Message):
    __slots__ = ("run_id", "models", "sequences", "model_bytes")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    MODEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    models: _rollout_pb2.ModelSet
    sequences: int
    model_bytes: int
    def __init__(self, run_id: _Optional[str] = ..., models: _Optional[_Union[_rollout_pb2.ModelSet, _Mapping]] = ..., sequences: _Optional[int] = ..., model_bytes: _Optional[int] = ...) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("worker", "version", "uptime", "runs", "budget_bytes", "sampled_tokens", "draining")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    SAMPLED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    worker: str
    version: str
    uptime: _duration_pb2.Duration
    runs: _containers.RepeatedCompositeFieldContainer[RunLoad]
    budget_bytes: int
    sampled_tokens: int
    draining: bool
    def __init__(self, worker: _Optional[str] = ..., version: _Optional[str] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., runs: _Optional[_Iterable[_Union[RunLoad, _Mapping]]] = ..., budget_bytes: _Optional[int] = ..., sampled_tokens: _Optional[int] = ..., draining: _Optional[bool] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("idempotency_key",)
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    idempotency_key: str
    def __init__(self, idempotency_key: _Optional[str] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("sequences",)
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    sequences: int
    def __init__(self, sequences: _Optional[int] = ...) -> None: ...
