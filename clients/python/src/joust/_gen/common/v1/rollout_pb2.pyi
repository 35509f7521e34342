from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Purpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PURPOSE_UNSPECIFIED: _ClassVar[Purpose]
    PURPOSE_TRAIN: _ClassVar[Purpose]
    PURPOSE_EVAL: _ClassVar[Purpose]
    PURPOSE_BY_HAND: _ClassVar[Purpose]

class Player(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLAYER_UNSPECIFIED: _ClassVar[Player]
    PLAYER_POLICY: _ClassVar[Player]
    PLAYER_REFERENCE: _ClassVar[Player]
    PLAYER_MIXTURE: _ClassVar[Player]
    PLAYER_EMA: _ClassVar[Player]
    PLAYER_PAST: _ClassVar[Player]
    PLAYER_STYLED: _ClassVar[Player]
    PLAYER_REVISED: _ClassVar[Player]

class Finish(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_UNSPECIFIED: _ClassVar[Finish]
    FINISH_EOS: _ClassVar[Finish]
    FINISH_LENGTH: _ClassVar[Finish]
PURPOSE_UNSPECIFIED: Purpose
PURPOSE_TRAIN: Purpose
PURPOSE_EVAL: Purpose
PURPOSE_BY_HAND: Purpose
PLAYER_UNSPECIFIED: Player
PLAYER_POLICY: Player
PLAYER_REFERENCE: Player
PLAYER_MIXTURE: Player
PLAYER_EMA: Player
PLAYER_PAST: Player
PLAYER_STYLED: Player
PLAYER_REVISED: Player
FINISH_UNSPECIFIED: Finish
FINISH_EOS: Finish
FINISH_LENGTH: Finish

class Message(_message.Message):
    __slots__ = ("role", "content", "object")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    role: str
    content: str
    object: str
    def __init__(self, role: _Optional[str] = ..., content: _Optional[str] = ..., object: _Optional[str] = ...) -> None: ...

class Chat(_message.Message):
    __slots__ = ("messages", "tools", "documents", "chat_template_kwargs")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    CHAT_TEMPLATE_KWARGS_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    tools: str
    documents: str
    chat_template_kwargs: str
    def __init__(self, messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., tools: _Optional[str] = ..., documents: _Optional[str] = ..., chat_template_kwargs: _Optional[str] = ...) -> None: ...

class Prompt(_message.Message):
    __slots__ = ("text", "chat")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    CHAT_FIELD_NUMBER: _ClassVar[int]
    text: str
    chat: Chat
    def __init__(self, text: _Optional[str] = ..., chat: _Optional[_Union[Chat, _Mapping]] = ...) -> None: ...

class ModelRef(_message.Message):
    __slots__ = ("generation", "version", "hash")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    generation: int
    version: int
    hash: str
    def __init__(self, generation: _Optional[int] = ..., version: _Optional[int] = ..., hash: _Optional[str] = ...) -> None: ...

class ModelSet(_message.Message):
    __slots__ = ("policy", "reference", "ema", "past")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    EMA_FIELD_NUMBER: _ClassVar[int]
    PAST_FIELD_NUMBER: _ClassVar[int]
    policy: ModelRef
    reference: ModelRef
    ema: ModelRef
    past: _containers.RepeatedCompositeFieldContainer[ModelRef]
    def __init__(self, policy: _Optional[_Union[ModelRef, _Mapping]] = ..., reference: _Optional[_Union[ModelRef, _Mapping]] = ..., ema: _Optional[_Union[ModelRef, _Mapping]] = ..., past: _Optional[_Iterable[_Union[ModelRef, _Mapping]]] = ...) -> None: ...

class PromptTask(_message.Message):
    __slots__ = ("schema", "id", "position", "epoch", "row", "purpose", "prompt")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    schema: int
    id: bytes
    position: int
    epoch: int
    row: int
    purpose: Purpose
    prompt: Prompt
    def __init__(self, schema: _Optional[int] = ..., id: _Optional[bytes] = ..., position: _Optional[int] = ..., epoch: _Optional[int] = ..., row: _Optional[int] = ..., purpose: _Optional[_Union[Purpose, str]] = ..., prompt: _Optional[_Union[Prompt, _Mapping]] = ...) -> None: ...

class Completion(_message.Message):
    __slots__ = ("sample_index", "player", "model", "token_ids", "logprobs", "text", "finish")
    SAMPLE_INDEX_FIELD_NUMBER: _ClassVar[int]
    PLAYER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    sample_index: int
    player: Player
    model: ModelRef
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    logprobs: _containers.RepeatedScalarFieldContainer[float]
    text: str
    finish: Finish
    def __init__(self, sample_index: _Optional[int] = ..., player: _Optional[_Union[Player, str]] = ..., model: _Optional[_Union[ModelRef, _Mapping]] = ..., token_ids: _Optional[_Iterable[int]] = ..., logprobs: _Optional[_Iterable[float]] = ..., text: _Optional[str] = ..., finish: _Optional[_Union[Finish, str]] = ...) -> None: ...

class Rollout(_message.Message):
    __slots__ = ("schema", "id", "task", "prompt_ids", "completions")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    PROMPT_IDS_FIELD_NUMBER: _ClassVar[int]
    COMPLETIONS_FIELD_NUMBER: _ClassVar[int]
    schema: int
    id: bytes
    task: PromptTask
    prompt_ids: _containers.RepeatedScalarFieldContainer[int]
    completions: _containers.RepeatedCompositeFieldContainer[Completion]
    def __init__(self, schema: _Optional[int] = ..., id: _Optional[bytes] = ..., task: _Optional[_Union[PromptTask, _Mapping]] = ..., prompt_ids: _Optional[_Iterable[int]] = ..., completions: _Optional[_Iterable[_Union[Completion, _Mapping]]] = ...) -> None: ...
