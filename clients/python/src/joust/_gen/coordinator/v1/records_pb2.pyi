import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from joust._gen.common.v1 import example_pb2 as _example_pb2
from joust._gen.common.v1 import rollout_pb2 as _rollout_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Preference(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PREFERENCE_UNSPECIFIED: _ClassVar[Preference]
    PREFERENCE_FIRST: _ClassVar[Preference]
    PREFERENCE_SECOND: _ClassVar[Preference]
    PREFERENCE_TIE: _ClassVar[Preference]
PREFERENCE_UNSPECIFIED: Preference
PREFERENCE_FIRST: Preference
PREFERENCE_SECOND: Preference
PREFERENCE_TIE: Preference

class SubmitPromptsRequest(_message.Message):
    __slots__ = ("run_id", "prompts", "purpose", "idempotency_key")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    prompts: _containers.RepeatedCompositeFieldContainer[_rollout_pb2.Prompt]
    purpose: _rollout_pb2.Purpose
    idempotency_key: str
    def __init__(self, run_id: _Optional[str] = ..., prompts: _Optional[_Iterable[_Union[_rollout_pb2.Prompt, _Mapping]]] = ..., purpose: _Optional[_Union[_rollout_pb2.Purpose, str]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class SubmitPromptsResponse(_message.Message):
    __slots__ = ("task_ids",)
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    task_ids: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, task_ids: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Feedback(_message.Message):
    __slots__ = ("prompt", "first", "second", "preference", "author", "first_messages", "second_messages")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    PREFERENCE_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    FIRST_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    SECOND_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    prompt: _rollout_pb2.Prompt
    first: str
    second: str
    preference: Preference
    author: str
    first_messages: _containers.RepeatedCompositeFieldContainer[_rollout_pb2.Message]
    second_messages: _containers.RepeatedCompositeFieldContainer[_rollout_pb2.Message]
    def __init__(self, prompt: _Optional[_Union[_rollout_pb2.Prompt, _Mapping]] = ..., first: _Optional[str] = ..., second: _Optional[str] = ..., preference: _Optional[_Union[Preference, str]] = ..., author: _Optional[str] = ..., first_messages: _Optional[_Iterable[_Union[_rollout_pb2.Message, _Mapping]]] = ..., second_messages: _Optional[_Iterable[_Union[_rollout_pb2.Message, _Mapping]]] = ...) -> None: ...

class SubmitFeedbackRequest(_message.Message):
    __slots__ = ("run_id", "feedback", "idempotency_key")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    feedback: _containers.RepeatedCompositeFieldContainer[Feedback]
    idempotency_key: str
    def __init__(self, run_id: _Optional[str] = ..., feedback: _Optional[_Iterable[_Union[Feedback, _Mapping]]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class SubmitFeedbackResponse(_message.Message):
    __slots__ = ("added", "ties")
    ADDED_FIELD_NUMBER: _ClassVar[int]
    TIES_FIELD_NUMBER: _ClassVar[int]
    added: int
    ties: int
    def __init__(self, added: _Optional[int] = ..., ties: _Optional[int] = ...) -> None: ...

class ExampleFilter(_message.Message):
    __slots__ = ("first_step", "end_step", "source")
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    END_STEP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    first_step: int
    end_step: int
    source: _example_pb2.ExampleSource
    def __init__(self, first_step: _Optional[int] = ..., end_step: _Optional[int] = ..., source: _Optional[_Union[_example_pb2.ExampleSource, str]] = ...) -> None: ...

class AppliedExample(_message.Message):
    __slots__ = ("example", "step")
    EXAMPLE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    example: _example_pb2.PreferenceExample
    step: int
    def __init__(self, example: _Optional[_Union[_example_pb2.PreferenceExample, _Mapping]] = ..., step: _Optional[int] = ...) -> None: ...

class ListExamplesRequest(_message.Message):
    __slots__ = ("run_id", "filter", "page_size", "page_token")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    filter: ExampleFilter
    page_size: int
    page_token: str
    def __init__(self, run_id: _Optional[str] = ..., filter: _Optional[_Union[ExampleFilter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListExamplesResponse(_message.Message):
    __slots__ = ("examples", "next_page_token")
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    examples: _containers.RepeatedCompositeFieldContainer[AppliedExample]
    next_page_token: str
    def __init__(self, examples: _Optional[_Iterable[_Union[AppliedExample, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ExportExamplesRequest(_message.Message):
    __slots__ = ("run_id", "filter", "after_position")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    AFTER_POSITION_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    filter: ExampleFilter
    after_position: int
    def __init__(self, run_id: _Optional[str] = ..., filter: _Optional[_Union[ExampleFilter, _Mapping]] = ..., after_position: _Optional[int] = ...) -> None: ...

class ExportExamplesResponse(_message.Message):
    __slots__ = ("position", "example")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_FIELD_NUMBER: _ClassVar[int]
    position: int
    example: AppliedExample
    def __init__(self, position: _Optional[int] = ..., example: _Optional[_Union[AppliedExample, _Mapping]] = ...) -> None: ...

class DeadLetter(_message.Message):
    __slots__ = ("id", "topic", "reason", "deliveries", "at")
    ID_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    topic: str
    reason: str
    deliveries: int
    at: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[bytes] = ..., topic: _Optional[str] = ..., reason: _Optional[str] = ..., deliveries: _Optional[int] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListDeadLettersRequest(_message.Message):
    __slots__ = ("run_id", "topic", "page_size", "page_token")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    topic: str
    page_size: int
    page_token: str
    def __init__(self, run_id: _Optional[str] = ..., topic: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDeadLettersResponse(_message.Message):
    __slots__ = ("dead_letters", "next_page_token")
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    dead_letters: _containers.RepeatedCompositeFieldContainer[DeadLetter]
    next_page_token: str
    def __init__(self, dead_letters: _Optional[_Iterable[_Union[DeadLetter, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class RequeueDeadLettersRequest(_message.Message):
    __slots__ = ("run_id", "topic", "ids", "idempotency_key")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    topic: str
    ids: _containers.RepeatedScalarFieldContainer[bytes]
    idempotency_key: str
    def __init__(self, run_id: _Optional[str] = ..., topic: _Optional[str] = ..., ids: _Optional[_Iterable[bytes]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class RequeueDeadLettersResponse(_message.Message):
    __slots__ = ("requeued",)
    REQUEUED_FIELD_NUMBER: _ClassVar[int]
    requeued: int
    def __init__(self, requeued: _Optional[int] = ...) -> None: ...

class GetQueueStatsRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class TopicStats(_message.Message):
    __slots__ = ("topic", "put", "duplicates", "waiting", "leased", "assigned", "finished", "dropped", "dead", "expired", "retried", "capacity")
    class DroppedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class DeadEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    LEASED_FIELD_NUMBER: _ClassVar[int]
    ASSIGNED_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    DEAD_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    RETRIED_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    topic: str
    put: int
    duplicates: int
    waiting: int
    leased: int
    assigned: int
    finished: int
    dropped: _containers.ScalarMap[str, int]
    dead: _containers.ScalarMap[str, int]
    expired: int
    retried: int
    capacity: int
    def __init__(self, topic: _Optional[str] = ..., put: _Optional[int] = ..., duplicates: _Optional[int] = ..., waiting: _Optional[int] = ..., leased: _Optional[int] = ..., assigned: _Optional[int] = ..., finished: _Optional[int] = ..., dropped: _Optional[_Mapping[str, int]] = ..., dead: _Optional[_Mapping[str, int]] = ..., expired: _Optional[int] = ..., retried: _Optional[int] = ..., capacity: _Optional[int] = ...) -> None: ...

class GetQueueStatsResponse(_message.Message):
    __slots__ = ("topics",)
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    topics: _containers.RepeatedCompositeFieldContainer[TopicStats]
    def __init__(self, topics: _Optional[_Iterable[_Union[TopicStats, _Mapping]]] = ...) -> None: ...
