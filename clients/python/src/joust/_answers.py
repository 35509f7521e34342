"""From answers and judgements as they arrive to those by prompt."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from joust.errors import Error
from joust.proto import judge, rollout
from joust.records import Answers, Completion, Judgement


def gather_answers(request: rollout.GenerateRequest, key: str, responses: Sequence[rollout.GenerateResponse]) -> list[Answers]:
    """Puts each answer to its prompt, by sample index; `key` tells the answers of one call from those of another.

    Raises:
        Error: if answers of a prompt are missing.
    """
    prompt_ids: dict[int, list[int]] = {}
    completions: dict[int, dict[int, Completion]] = {}
    for response in responses:
        if response.prompt_ids:
            prompt_ids[response.prompt_index] = list(response.prompt_ids)
        completion = Completion.of(response.completion)
        completions.setdefault(response.prompt_index, {})[completion.sample_index] = completion
    gathered = []
    for index, prompt in enumerate(request.prompts):
        found = completions.get(index, {})
        if len(found) != request.num_generations:
            message = f"prompt {index} has {len(found)} answers, expected {request.num_generations}"
            raise Error(grpc.StatusCode.INTERNAL, message)
        answers = [found[sample] for sample in sorted(found)]
        origin = f"{request.run_id}/{key}/{index}".encode()
        gathered.append(Answers(prompt, prompt_ids.get(index, []), answers, origin))
    return gathered


def gather_judgements(count: int, responses: Sequence[judge.JudgeBatchResponse]) -> list[Judgement]:
    """Puts the judgements into the order of the `count` items.

    Raises:
        Error: if one is missing.
    """
    found = {response.index: Judgement.of(response.judgement) for response in responses}
    missing = [index for index in range(count) if index not in found]
    if missing:
        raise Error(grpc.StatusCode.INTERNAL, f"item {missing[0]} has no judgement, {len(missing)} of {count} are missing")
    return [found[index] for index in range(count)]
