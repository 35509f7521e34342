from joust._gen.common.v1 import rollout_pb2 as _rollout_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DropReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DROP_REASON_UNSPECIFIED: _ClassVar[DropReason]
    DROP_REASON_TIE: _ClassVar[DropReason]
    DROP_REASON_IDENTICAL: _ClassVar[DropReason]
    DROP_REASON_JUDGEMENT_FAILED: _ClassVar[DropReason]
    DROP_REASON_DEAD_LETTER: _ClassVar[DropReason]
    DROP_REASON_STALE: _ClassVar[DropReason]
    DROP_REASON_FILTERED: _ClassVar[DropReason]
    DROP_REASON_INVALID_PROMPT: _ClassVar[DropReason]

class ExampleSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXAMPLE_SOURCE_UNSPECIFIED: _ClassVar[ExampleSource]
    EXAMPLE_SOURCE_ONLINE: _ClassVar[ExampleSource]
    EXAMPLE_SOURCE_OFFLINE: _ClassVar[ExampleSource]
    EXAMPLE_SOURCE_HUMAN: _ClassVar[ExampleSource]
DROP_REASON_UNSPECIFIED: DropReason
DROP_REASON_TIE: DropReason
DROP_REASON_IDENTICAL: DropReason
DROP_REASON_JUDGEMENT_FAILED: DropReason
DROP_REASON_DEAD_LETTER: DropReason
DROP_REASON_STALE: DropReason
DROP_REASON_FILTERED: DropReason
DROP_REASON_INVALID_PROMPT: DropReason
EXAMPLE_SOURCE_UNSPECIFIED: ExampleSource
EXAMPLE_SOURCE_ONLINE: ExampleSource
EXAMPLE_SOURCE_OFFLINE: ExampleSource
EXAMPLE_SOURCE_HUMAN: ExampleSource

class Answer(_message.Message):
    __slots__ = ("player", "token_ids", "behavior_logprobs", "finish", "score")
    PLAYER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    BEHAVIOR_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    player: _rollout_pb2.Player
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    behavior_logprobs: _containers.RepeatedScalarFieldContainer[float]
    finish: _rollout_pb2.Finish
    score: float
    def __init__(self, player: _Optional[_Union[_rollout_pb2.Player, str]] = ..., token_ids: _Optional[_Iterable[int]] = ..., behavior_logprobs: _Optional[_Iterable[float]] = ..., finish: _Optional[_Union[_rollout_pb2.Finish, str]] = ..., score: _Optional[float] = ...) -> None: ...

class PairTarget(_message.Message):
    __slots__ = ("p", "win_rates")
    P_FIELD_NUMBER: _ClassVar[int]
    WIN_RATES_FIELD_NUMBER: _ClassVar[int]
    p: float
    win_rates: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, p: _Optional[float] = ..., win_rates: _Optional[_Iterable[float]] = ...) -> None: ...

class OpponentTarget(_message.Message):
    __slots__ = ("p",)
    P_FIELD_NUMBER: _ClassVar[int]
    p: float
    def __init__(self, p: _Optional[float] = ...) -> None: ...

class GroupTarget(_message.Message):
    __slots__ = ("win_rates",)
    WIN_RATES_FIELD_NUMBER: _ClassVar[int]
    win_rates: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, win_rates: _Optional[_Iterable[float]] = ...) -> None: ...

class Target(_message.Message):
    __slots__ = ("pair", "opponent", "group")
    PAIR_FIELD_NUMBER: _ClassVar[int]
    OPPONENT_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    pair: PairTarget
    opponent: OpponentTarget
    group: GroupTarget
    def __init__(self, pair: _Optional[_Union[PairTarget, _Mapping]] = ..., opponent: _Optional[_Union[OpponentTarget, _Mapping]] = ..., group: _Optional[_Union[GroupTarget, _Mapping]] = ...) -> None: ...

class Rationale(_message.Message):
    __slots__ = ("prompt", "text")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    prompt: _rollout_pb2.Prompt
    text: str
    def __init__(self, prompt: _Optional[_Union[_rollout_pb2.Prompt, _Mapping]] = ..., text: _Optional[str] = ...) -> None: ...

class PreferenceExample(_message.Message):
    __slots__ = ("id", "prompt_ids", "answers", "target", "rationale", "weight", "policy_version", "source", "judge_hash")
    ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_IDS_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    RATIONALE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    JUDGE_HASH_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    prompt_ids: _containers.RepeatedScalarFieldContainer[int]
    answers: _containers.RepeatedCompositeFieldContainer[Answer]
    target: Target
    rationale: Rationale
    weight: float
    policy_version: int
    source: ExampleSource
    judge_hash: str
    def __init__(self, id: _Optional[bytes] = ..., prompt_ids: _Optional[_Iterable[int]] = ..., answers: _Optional[_Iterable[_Union[Answer, _Mapping]]] = ..., target: _Optional[_Union[Target, _Mapping]] = ..., rationale: _Optional[_Union[Rationale, _Mapping]] = ..., weight: _Optional[float] = ..., policy_version: _Optional[int] = ..., source: _Optional[_Union[ExampleSource, str]] = ..., judge_hash: _Optional[str] = ...) -> None: ...

class LeftOut(_message.Message):
    __slots__ = ("reason", "pairs")
    REASON_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    reason: DropReason
    pairs: int
    def __init__(self, reason: _Optional[_Union[DropReason, str]] = ..., pairs: _Optional[int] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("schema", "id", "position", "purpose", "examples", "dropped", "left_out", "scores", "eos_share", "mean_tokens")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    EOS_SHARE_FIELD_NUMBER: _ClassVar[int]
    MEAN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    schema: int
    id: bytes
    position: int
    purpose: _rollout_pb2.Purpose
    examples: _containers.RepeatedCompositeFieldContainer[PreferenceExample]
    dropped: DropReason
    left_out: _containers.RepeatedCompositeFieldContainer[LeftOut]
    scores: _containers.RepeatedScalarFieldContainer[float]
    eos_share: float
    mean_tokens: float
    def __init__(self, schema: _Optional[int] = ..., id: _Optional[bytes] = ..., position: _Optional[int] = ..., purpose: _Optional[_Union[_rollout_pb2.Purpose, str]] = ..., examples: _Optional[_Iterable[_Union[PreferenceExample, _Mapping]]] = ..., dropped: _Optional[_Union[DropReason, str]] = ..., left_out: _Optional[_Iterable[_Union[LeftOut, _Mapping]]] = ..., scores: _Optional[_Iterable[float]] = ..., eos_share: _Optional[float] = ..., mean_tokens: _Optional[float] = ...) -> None: ...

class MicroBatch(_message.Message):
    __slots__ = ("example_ids",)
    EXAMPLE_IDS_FIELD_NUMBER: _ClassVar[int]
    example_ids: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, example_ids: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("schema", "step", "epoch", "micro_batches", "replayed", "reference_version", "seed", "settings_hash")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCHES_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_VERSION_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_HASH_FIELD_NUMBER: _ClassVar[int]
    schema: int
    step: int
    epoch: int
    micro_batches: _containers.RepeatedCompositeFieldContainer[MicroBatch]
    replayed: _containers.RepeatedScalarFieldContainer[bytes]
    reference_version: int
    seed: int
    settings_hash: str
    def __init__(self, schema: _Optional[int] = ..., step: _Optional[int] = ..., epoch: _Optional[int] = ..., micro_batches: _Optional[_Iterable[_Union[MicroBatch, _Mapping]]] = ..., replayed: _Optional[_Iterable[bytes]] = ..., reference_version: _Optional[int] = ..., seed: _Optional[int] = ..., settings_hash: _Optional[str] = ...) -> None: ...
