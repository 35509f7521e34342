from joust._gen.common.v1 import judgement_pb2 as _judgement_pb2
from joust._gen.common.v1 import rollout_pb2 as _rollout_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Ask(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ASK_UNSPECIFIED: _ClassVar[Ask]
    ASK_SCORE: _ClassVar[Ask]
    ASK_COMPARE: _ClassVar[Ask]
    ASK_RANK: _ClassVar[Ask]
ASK_UNSPECIFIED: Ask
ASK_SCORE: Ask
ASK_COMPARE: Ask
ASK_RANK: Ask

class Candidate(_message.Message):
    __slots__ = ("text", "player", "token_count", "truncated")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PLAYER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    text: str
    player: _rollout_pb2.Player
    token_count: int
    truncated: bool
    def __init__(self, text: _Optional[str] = ..., player: _Optional[_Union[_rollout_pb2.Player, str]] = ..., token_count: _Optional[int] = ..., truncated: _Optional[bool] = ...) -> None: ...

class JudgeOptions(_message.Message):
    __slots__ = ("judge", "run_id", "seed", "notes", "idempotency_key")
    JUDGE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    judge: str
    run_id: str
    seed: int
    notes: bool
    idempotency_key: str
    def __init__(self, judge: _Optional[str] = ..., run_id: _Optional[str] = ..., seed: _Optional[int] = ..., notes: _Optional[bool] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("prompt", "candidates", "options")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    prompt: _rollout_pb2.Prompt
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    options: JudgeOptions
    def __init__(self, prompt: _Optional[_Union[_rollout_pb2.Prompt, _Mapping]] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., options: _Optional[_Union[JudgeOptions, _Mapping]] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("judgement",)
    JUDGEMENT_FIELD_NUMBER: _ClassVar[int]
    judgement: _judgement_pb2.Judgement
    def __init__(self, judgement: _Optional[_Union[_judgement_pb2.Judgement, _Mapping]] = ...) -> None: ...

class CompareRequest(_message.Message):
    __slots__ = ("prompt", "first", "second", "options")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    prompt: _rollout_pb2.Prompt
    first: Candidate
    second: Candidate
    options: JudgeOptions
    def __init__(self, prompt: _Optional[_Union[_rollout_pb2.Prompt, _Mapping]] = ..., first: _Optional[_Union[Candidate, _Mapping]] = ..., second: _Optional[_Union[Candidate, _Mapping]] = ..., options: _Optional[_Union[JudgeOptions, _Mapping]] = ...) -> None: ...

class CompareResponse(_message.Message):
    __slots__ = ("judgement",)
    JUDGEMENT_FIELD_NUMBER: _ClassVar[int]
    judgement: _judgement_pb2.Judgement
    def __init__(self, judgement: _Optional[_Union[_judgement_pb2.Judgement, _Mapping]] = ...) -> None: ...

class RankRequest(_message.Message):
    __slots__ = ("prompt", "candidates", "options")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    prompt: _rollout_pb2.Prompt
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    options: JudgeOptions
    def __init__(self, prompt: _Optional[_Union[_rollout_pb2.Prompt, _Mapping]] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., options: _Optional[_Union[JudgeOptions, _Mapping]] = ...) -> None: ...

class RankResponse(_message.Message):
    __slots__ = ("judgement", "win_rates")
    JUDGEMENT_FIELD_NUMBER: _ClassVar[int]
    WIN_RATES_FIELD_NUMBER: _ClassVar[int]
    judgement: _judgement_pb2.Judgement
    win_rates: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, judgement: _Optional[_Union[_judgement_pb2.Judgement, _Mapping]] = ..., win_rates: _Optional[_Iterable[float]] = ...) -> None: ...

class CritiqueRequest(_message.Message):
    __slots__ = ("prompt", "candidates", "options")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    prompt: _rollout_pb2.Prompt
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    options: JudgeOptions
    def __init__(self, prompt: _Optional[_Union[_rollout_pb2.Prompt, _Mapping]] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., options: _Optional[_Union[JudgeOptions, _Mapping]] = ...) -> None: ...

class CritiqueResponse(_message.Message):
    __slots__ = ("judgement",)
    JUDGEMENT_FIELD_NUMBER: _ClassVar[int]
    judgement: _judgement_pb2.Judgement
    def __init__(self, judgement: _Optional[_Union[_judgement_pb2.Judgement, _Mapping]] = ...) -> None: ...

class JudgeItem(_message.Message):
    __slots__ = ("id", "ask", "prompt", "candidates")
    ID_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    ask: Ask
    prompt: _rollout_pb2.Prompt
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    def __init__(self, id: _Optional[bytes] = ..., ask: _Optional[_Union[Ask, str]] = ..., prompt: _Optional[_Union[_rollout_pb2.Prompt, _Mapping]] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ...) -> None: ...

class JudgeBatchRequest(_message.Message):
    __slots__ = ("items", "options")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[JudgeItem]
    options: JudgeOptions
    def __init__(self, items: _Optional[_Iterable[_Union[JudgeItem, _Mapping]]] = ..., options: _Optional[_Union[JudgeOptions, _Mapping]] = ...) -> None: ...

class JudgeBatchResponse(_message.Message):
    __slots__ = ("index", "judgement")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    JUDGEMENT_FIELD_NUMBER: _ClassVar[int]
    index: int
    judgement: _judgement_pb2.Judgement
    def __init__(self, index: _Optional[int] = ..., judgement: _Optional[_Union[_judgement_pb2.Judgement, _Mapping]] = ...) -> None: ...

class ListJudgesRequest(_message.Message):
    __slots__ = ("run_id", "page_size", "page_token")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    page_size: int
    page_token: str
    def __init__(self, run_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class JudgeInfo(_message.Message):
    __slots__ = ("name", "config_hash", "kind", "asks", "notes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIG_HASH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ASKS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    config_hash: str
    kind: str
    asks: _containers.RepeatedScalarFieldContainer[Ask]
    notes: bool
    def __init__(self, name: _Optional[str] = ..., config_hash: _Optional[str] = ..., kind: _Optional[str] = ..., asks: _Optional[_Iterable[_Union[Ask, str]]] = ..., notes: _Optional[bool] = ...) -> None: ...

class ListJudgesResponse(_message.Message):
    __slots__ = ("judges", "next_page_token")
    JUDGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    judges: _containers.RepeatedCompositeFieldContainer[JudgeInfo]
    next_page_token: str
    def __init__(self, judges: _Optional[_Iterable[_Union[JudgeInfo, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
