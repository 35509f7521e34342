"""What calls give: runs, answers, judgements and steps, as plain values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from typing import Literal, TypeAlias, overload

from google.protobuf.timestamp_pb2 import Timestamp

from joust.proto import common, coordinator, judge, learner

Prompt: TypeAlias = "str | Sequence[Mapping[str, object]] | common.Prompt"
"""Text to continue, chat messages with `role`, `content` and what else the chat template reads, or the message of the wire."""


class RunState(str, Enum):
    """Where a run is."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    DRAINING = "draining"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """A state that this version of the client does not know."""

    def __str__(self) -> str:
        return self.value

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self in (RunState.DONE, RunState.FAILED)

    @classmethod
    def of(cls, wire: int) -> RunState:
        """Reads the state of the wire."""
        known = wire in coordinator.RunState.values() and wire != coordinator.RUN_STATE_UNSPECIFIED
        name = coordinator.RunState.Name(coordinator.RunState.ValueType(wire)) if known else ""
        return cls(name.removeprefix("RUN_STATE_").lower() or "unknown")


@dataclass(frozen=True)
class RunInfo:
    """A run as it was when the coordinator answered."""

    name: str
    """Its name, unique in the cluster."""
    state: RunState
    """Where it is."""
    reason: str
    """Why it is there; empty where the state says it all."""
    created_at: datetime
    """When it was made, in UTC."""
    steps_done: int
    """Optimizer steps that are done."""
    steps: int
    """Optimizer steps of the whole run."""
    policy_version: int | None
    """Policy version that is published, in publishes; None before the first."""
    settings_hash: str
    """BLAKE3 of the resolved run file, hexadecimal."""
    resolved_toml: str = field(repr=False)
    """The resolved run file; empty in lists."""
    forked_from: str
    """Run that it was forked from; empty for none."""
    by_hand: bool
    """Whether its steps are called for by `run.learner.train_step`."""

    @classmethod
    def of(cls, wire: coordinator.Run) -> RunInfo:
        """Reads the run of the wire."""
        return cls(
            name=wire.run_id,
            state=RunState.of(wire.state),
            reason=wire.reason,
            created_at=instant(wire.created_at),
            steps_done=wire.steps_done,
            steps=wire.steps,
            policy_version=policy_version(wire.models if wire.HasField("models") else None),
            settings_hash=wire.settings_hash,
            resolved_toml=wire.resolved_toml,
            forked_from=wire.forked_from,
            by_hand=wire.by_hand,
        )


@dataclass(frozen=True)
class Completion:
    """One sampled answer."""

    text: str
    """Without special tokens."""
    token_ids: Sequence[int]
    """Sampled ids, the EOS included iff it was sampled."""
    logprobs: Sequence[float]
    """Log-prob of each token in nats at temperature 1."""
    model_version: int
    """Policy version of its oldest token, in publishes."""
    sample_index: int
    """Which of the answers to the prompt, from 0."""
    wire: common.Completion = field(repr=False, compare=False)
    """The message that it was read from."""

    @property
    def truncated(self) -> bool:
        """Whether it was cut before an EOS."""
        return self.wire.finish == common.FINISH_LENGTH

    @classmethod
    def of(cls, wire: common.Completion) -> Completion:
        """Reads the completion of the wire."""
        return cls(wire.text, list(wire.token_ids), list(wire.logprobs), wire.model.version, wire.sample_index, wire)


@dataclass(frozen=True)
class Answers(Sequence[Completion]):
    """A prompt and the answers to it, by sample index."""

    prompt: common.Prompt
    """What was asked."""
    prompt_ids: Sequence[int]
    """The prompt as the policy read it, in token ids."""
    completions: Sequence[Completion]
    """The answers."""
    origin: bytes = field(repr=False)
    """Names the call and the place in it: ids of examples derive from it, so that one made twice is trained once."""

    @overload
    def __getitem__(self, index: int) -> Completion: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Completion]: ...
    def __getitem__(self, index: int | slice) -> Completion | Sequence[Completion]:
        return self.completions[index]

    def __len__(self) -> int:
        return len(self.completions)

    def __iter__(self) -> Iterator[Completion]:
        return iter(self.completions)


@dataclass(frozen=True)
class Judgement:
    """What a judge found; a failed judgement has a status and no number."""

    status: str
    """`ok`, `parse_failed`, `refused`, `deadline`, `unavailable` or `invalid_input`."""
    detail: str
    """What went wrong; empty for an OK one."""
    scores: Sequence[float] | None
    """One number per answer, higher is better; None where it was asked something else."""
    preference: float | None
    """Probability in [0, 1] that the first of two answers is preferred; None where it was asked something else."""
    matrix: Sequence[Sequence[float]] | None
    """P(answer i is preferred to answer j) in row i and column j; None where it was asked something else."""
    win_rates: Sequence[float]
    """Mean probability of each answer to beat all, itself counted as one half; empty without a matrix."""
    notes: Sequence[str]
    """What the judge writes about each answer; empty where it has nothing to say."""
    judge: str
    """Name of the judge."""
    judge_hash: str
    """BLAKE3 of the judge's resolved configuration, hexadecimal."""

    @property
    def ok(self) -> bool:
        """Whether it can be used."""
        return self.status == "ok"

    @classmethod
    def of(cls, wire: common.Judgement) -> Judgement:
        """Reads the judgement of the wire."""
        kind = wire.WhichOneof("value")
        matrix = _rows(wire.matrix.values) if kind == "matrix" else None
        return cls(
            status=common.JudgementStatus.Name(wire.status).removeprefix("JUDGEMENT_STATUS_").lower(),
            detail=wire.detail,
            scores=list(wire.scores.values) if kind == "scores" else None,
            preference=wire.preference if kind == "preference" else None,
            matrix=matrix,
            win_rates=[sum(row) / len(row) for row in matrix or ()],
            notes=list(wire.notes),
            judge=wire.provenance.judge,
            judge_hash=wire.provenance.config_hash,
        )


@dataclass(frozen=True)
class Step:
    """A step that was trained by hand."""

    step: int
    """Optimizer step, from 0."""
    metrics: Mapping[str, float]
    """Metrics by name; TRL's names and units."""
    examples: int
    """Examples that were applied."""
    policy_version: int | None
    """Policy version that is published after it, in publishes; None where nothing is."""

    @classmethod
    def of(cls, wire: learner.TrainStepResponse) -> Step:
        """Reads the step of the wire."""
        models = wire.models if wire.HasField("models") else None
        return cls(wire.step, dict(wire.metrics), wire.examples, policy_version(models))


@dataclass(frozen=True)
class Put:
    """What became of examples that were handed over."""

    added: int
    """Examples that are new."""
    duplicates: int
    """Examples whose id was known."""
    waiting: int
    """Examples that wait to be trained."""


@dataclass(frozen=True)
class Feedback:
    """What a person preferred."""

    prompt: Prompt
    """What was to be answered."""
    first: str | Sequence[Mapping[str, object]]
    """An answer: text, or messages that the assistant ends."""
    second: str | Sequence[Mapping[str, object]]
    """Another."""
    preferred: Literal["first", "second", "tie"]
    """Which is better."""
    author: str = ""
    """Who said so, as the caller names people; at most 128 bytes."""

    def wire(self) -> coordinator.Feedback:
        """Writes the message of the wire."""
        if self.preferred not in ("first", "second", "tie"):
            raise ValueError(f"preferred is {self.preferred!r}, expected 'first', 'second' or 'tie'")
        preferences = {
            "first": coordinator.PREFERENCE_FIRST,
            "second": coordinator.PREFERENCE_SECOND,
            "tie": coordinator.PREFERENCE_TIE,
        }
        return coordinator.Feedback(
            prompt=to_prompt(self.prompt),
            first=self.first if isinstance(self.first, str) else "",
            second=self.second if isinstance(self.second, str) else "",
            first_messages=_messages(self.first),
            second_messages=_messages(self.second),
            preference=preferences[self.preferred],
            author=self.author,
        )


def _messages(answer: str | Sequence[Mapping[str, object]]) -> list[common.Message]:
    return [] if isinstance(answer, str) else [to_message(message) for message in answer]


def to_prompt(prompt: Prompt) -> common.Prompt:
    """Makes the prompt of the wire."""
    if isinstance(prompt, common.Prompt):
        return prompt
    if isinstance(prompt, str):
        return common.Prompt(text=prompt)
    return common.Prompt(chat=common.Chat(messages=[to_message(message) for message in prompt]))


def to_message(message: Mapping[str, object]) -> common.Message:
    """Makes the chat message of the wire; one with more than a role and a text goes whole."""
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        raise TypeError(f"a chat message has a role of type {type(role).__name__}, expected str")
    if isinstance(content, str) and len(message) == 2:
        return common.Message(role=role, content=content)
    return common.Message(role=role, object=json.dumps(dict(message), ensure_ascii=False, allow_nan=False))


def to_candidate(answer: str | Completion) -> judge.Candidate:
    """Makes the candidate of the wire; what is known about a sampled answer goes with it."""
    if isinstance(answer, str):
        return judge.Candidate(text=answer)
    return judge.Candidate(text=answer.text, player=answer.wire.player, token_count=len(answer.token_ids), truncated=answer.truncated)


def policy_version(models: common.ModelSet | None) -> int | None:
    """Returns the policy version of a model set, in publishes."""
    return models.policy.version if models is not None else None


def instant(at: Timestamp) -> datetime:
    """Reads a time of the wire, in UTC."""
    return at.ToDatetime(tzinfo=timezone.utc)


def _rows(values: Sequence[float]) -> list[list[float]]:
    side = round(len(values) ** 0.5)
    return [list(values[i * side : (i + 1) * side]) for i in range(side)]
