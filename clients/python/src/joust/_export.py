"""Examples as lines of a file, with TRL's columns where an example is a pair."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TypeAlias

from joust.proto import common, coordinator

Decode: TypeAlias = Callable[[Sequence[int]], str]
"""Makes text of token ids, for example a tokenizer's `decode`."""


def row(applied: coordinator.AppliedExample, decode: Decode | None) -> dict[str, object]:
    """Returns one example as columns.

    A pair has `prompt_ids`, `chosen_ids` and `rejected_ids`, and with `decode` the texts `prompt`, `chosen` and `rejected`; other
    examples have `answers`, a list of the same. Probabilities are in [0, 1]; `step` is null while the example waits.
    """
    example = applied.example
    kind = example.target.WhichOneof("kind")
    columns: dict[str, object] = {
        "id": example.id.hex(),
        "step": applied.step if applied.HasField("step") else None,
        "policy_version": example.policy_version,
        "source": common.ExampleSource.Name(example.source).removeprefix("EXAMPLE_SOURCE_").lower(),
        "judge_hash": example.judge_hash,
        "weight": example.weight,
        **_text("prompt", example.prompt_ids, decode),
    }
    if kind == "pair":
        columns["p"] = example.target.pair.p
        for name, answer in zip(("chosen", "rejected"), example.answers, strict=True):
            columns.update(_text(name, answer.token_ids, decode))
            columns[f"{name}_score"] = _score(answer)
        return columns
    if kind == "opponent":
        columns["p"] = example.target.opponent.p
    if kind == "group":
        columns["win_rates"] = list(example.target.group.win_rates)
    columns["answers"] = [{**_text("completion", answer.token_ids, decode), "score": _score(answer)} for answer in example.answers]
    return columns


def _text(name: str, token_ids: Sequence[int], decode: Decode | None) -> dict[str, object]:
    ids = list(token_ids)
    return {f"{name}_ids": ids} if decode is None else {f"{name}_ids": ids, name: decode(ids)}


def _score(answer: common.Answer) -> float | None:
    return answer.score if answer.HasField("score") else None


class Lines:
    """A file of JSON lines that takes its name only when it is whole."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.count = 0
        self._path = Path(path)
        self._partial = self._path.with_name(f"{self._path.name}.{os.getpid()}.partial")
        self._file: IO[str] | None = None

    def __enter__(self) -> Lines:
        self._file = open(self._partial, "w", encoding="utf-8")
        return self

    def write(self, columns: dict[str, object]) -> None:
        """Adds a line."""
        assert self._file is not None, "written inside of the with statement"
        self._file.write(json.dumps(columns, ensure_ascii=False) + "\n")
        self.count += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._file is not None, "opened by the with statement"
        self._file.close()
        if error is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)
