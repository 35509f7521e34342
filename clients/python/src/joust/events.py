"""What happens in a run, as `run.watch()` yields it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from joust.proto import coordinator
from joust.records import RunState, instant


@dataclass(frozen=True)
class _Happened:
    position: int
    """Place in the run's events, from 1; `run.watch(after=position)` goes on behind it."""
    at: datetime
    """When it happened, in UTC."""


@dataclass(frozen=True)
class StateEvent(_Happened):
    """The run's state changed."""

    state: RunState
    """Where the run is now."""
    reason: str
    """Why."""


@dataclass(frozen=True)
class StepEvent(_Happened):
    """A step was finished."""

    step: int
    """Optimizer step, from 0."""
    metrics: Mapping[str, float]
    """Metrics by name; TRL's names and units."""
    dropped: Mapping[str, int]
    """Prompts without an example, by reason."""
    recovered: bool
    """Whether the step was replayed after a crash."""


@dataclass(frozen=True)
class EvaluationEvent(_Happened):
    """An evaluation was finished."""

    steps_done: int
    """Optimizer steps that were done."""
    metrics: Mapping[str, float]
    """Metrics by name; TRL's names and units."""


@dataclass(frozen=True)
class CheckpointEvent(_Happened):
    """A checkpoint is durable."""

    checkpoint: str
    """Its name, for `run.fork`."""
    steps_done: int
    """Optimizer steps that it covers."""


@dataclass(frozen=True)
class ModelsEvent(_Happened):
    """Weights were published."""

    policy_version: int
    """Version of the policy, in publishes."""


Event: TypeAlias = StateEvent | StepEvent | EvaluationEvent | CheckpointEvent | ModelsEvent


def read(wire: coordinator.WatchRunResponse) -> Event | None:
    """Reads an event of the wire; None for one that only keeps the stream alive, or that this version does not know."""
    position, at = wire.position, instant(wire.at)
    kind = wire.WhichOneof("event")
    if kind == "state":
        return StateEvent(position, at, RunState.of(wire.state.state), wire.state.reason)
    if kind == "step":
        step = wire.step
        return StepEvent(position, at, step.step, dict(step.metrics), dict(step.dropped), step.recovered)
    if kind == "evaluation":
        return EvaluationEvent(position, at, wire.evaluation.steps_done, dict(wire.evaluation.metrics))
    if kind == "checkpoint":
        return CheckpointEvent(position, at, wire.checkpoint.checkpoint, wire.checkpoint.steps_done)
    if kind == "models":
        return ModelsEvent(position, at, wire.models.policy.version)
    return None
