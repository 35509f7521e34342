from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JudgementStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JUDGEMENT_STATUS_UNSPECIFIED: _ClassVar[JudgementStatus]
    JUDGEMENT_STATUS_OK: _ClassVar[JudgementStatus]
    JUDGEMENT_STATUS_PARSE_FAILED: _ClassVar[JudgementStatus]
    JUDGEMENT_STATUS_REFUSED: _ClassVar[JudgementStatus]
    JUDGEMENT_STATUS_DEADLINE: _ClassVar[JudgementStatus]
    JUDGEMENT_STATUS_UNAVAILABLE: _ClassVar[JudgementStatus]
    JUDGEMENT_STATUS_INVALID_INPUT: _ClassVar[JudgementStatus]
JUDGEMENT_STATUS_UNSPECIFIED: JudgementStatus
JUDGEMENT_STATUS_OK: JudgementStatus
JUDGEMENT_STATUS_PARSE_FAILED: JudgementStatus
JUDGEMENT_STATUS_REFUSED: JudgementStatus
JUDGEMENT_STATUS_DEADLINE: JudgementStatus
JUDGEMENT_STATUS_UNAVAILABLE: JudgementStatus
JUDGEMENT_STATUS_INVALID_INPUT: JudgementStatus

class Scores(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class PreferenceMatrix(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("judge", "config_hash", "backend", "retries")
    JUDGE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_HASH_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    judge: str
    config_hash: str
    backend: str
    retries: int
    def __init__(self, judge: _Optional[str] = ..., config_hash: _Optional[str] = ..., backend: _Optional[str] = ..., retries: _Optional[int] = ...) -> None: ...

class Judgement(_message.Message):
    __slots__ = ("status", "detail", "scores", "preference", "matrix", "notes", "provenance")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PREFERENCE_FIELD_NUMBER: _ClassVar[int]
    MATRIX_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    status: JudgementStatus
    detail: str
    scores: Scores
    preference: float
    matrix: PreferenceMatrix
    notes: _containers.RepeatedScalarFieldContainer[str]
    provenance: Provenance
    def __init__(self, status: _Optional[_Union[JudgementStatus, str]] = ..., detail: _Optional[str] = ..., scores: _Optional[_Union[Scores, _Mapping]] = ..., preference: _Optional[float] = ..., matrix: _Optional[_Union[PreferenceMatrix, _Mapping]] = ..., notes: _Optional[_Iterable[str]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...
