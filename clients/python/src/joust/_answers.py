"""From the answers as they arrive to the answers by prompt."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from joust.errors import Error
from joust.proto import rollout
from joust.records import Answers, Completion


def gather_answers(request: rollout.GenerateRequest, responses: Sequence[rollout.GenerateResponse]) -> list[Answers]:
    """Puts each answer to its prompt, by sample index.

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
        origin = f"{request.run_id}/{request.idempotency_key}/{index}".encode()
        gathered.append(Answers(prompt, prompt_ids.get(index, []), answers, origin))
    return gathered
