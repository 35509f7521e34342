"""From judged answers to an example that the learner trains on: the rules of joust's own judge workers, for loops by hand."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from joust.proto import common
from joust.records import Answers, Completion, Judgement

# Players whose answers a run may not train on when they are too old; those of the others never age.
AGEING = (common.PLAYER_POLICY, common.PLAYER_MIXTURE, common.PLAYER_STYLED, common.PLAYER_REVISED)


def pair(
    answers: Answers, judgement: Judgement, *, label: Literal["hard", "soft"] = "hard", weight: float = 1.0
) -> common.PreferenceExample | None:
    """Makes the example that contrasts the best of a prompt's answers with the worst.

    Best and worst are those by score, or by mean probability to win; of two answers simply the preferred one and the other.

    Args:
        answers: the answers to one prompt, 2 or more.
        judgement: scores, a preference (2 answers) or a matrix, in their order.
        label: `hard` says that the better answer is better; `soft` tells the loss the judge's probability, which scores do not have.
        weight: factor on the example's loss, at least 0.

    Returns:
        The example; None for a tie (soft labels keep it), for answers that hold the same tokens, and for a judgement that failed
        or holds what is no number.

    Raises:
        ValueError: for a judgement of other answers, for soft labels of scores, and for a weight that is no factor.
    """
    if not (math.isfinite(weight) and weight >= 0.0):
        raise ValueError(f"weight is {weight}, expected a finite number of at least 0")
    if not judgement.ok:
        return None
    beliefs = _Beliefs.of(judgement, len(answers))
    if not all(map(math.isfinite, beliefs.strengths)):
        return None
    if label == "soft" and beliefs.matrix is None:
        raise ValueError("soft labels need probabilities, got scores; ask judges.compare or judges.rank, or use hard labels")
    better, worse = beliefs.best_and_worst()
    if list(answers[better].token_ids) == list(answers[worse].token_ids):
        return None
    advantage = beliefs.advantage(better, worse)
    if advantage == 0.0 and label == "hard":
        return None
    if advantage < 0.0:  # an intransitive judge may contradict its own win rates in the pair itself
        better, worse = worse, better
    p = 1.0 if beliefs.matrix is None or label == "hard" else beliefs.matrix[better][worse]
    members = [answers[better], answers[worse]]
    scores = [judgement.scores[i] if judgement.scores else None for i in (better, worse)]
    return common.PreferenceExample(
        id=_id(answers, members, judgement.judge_hash),
        prompt_ids=answers.prompt_ids,
        answers=[_answer(member, score) for member, score in zip(members, scores, strict=True)],
        target=common.Target(pair=common.PairTarget(p=p)),
        weight=weight,
        policy_version=_policy_version(members),
        source=common.EXAMPLE_SOURCE_ONLINE,
        judge_hash=judgement.judge_hash,
    )


@dataclass(frozen=True)
class _Beliefs:
    """What a judgement says about K answers: how strong each is, and who is preferred to whom where it says that."""

    strengths: Sequence[float]
    matrix: Sequence[Sequence[float]] | None

    @classmethod
    def of(cls, judgement: Judgement, count: int) -> _Beliefs:
        if judgement.scores is not None:
            beliefs = cls(judgement.scores, None)
        elif judgement.preference is not None:
            p = judgement.preference
            beliefs = cls([p, 1.0 - p], [[0.5, p], [1.0 - p, 0.5]])
        else:
            beliefs = cls(judgement.win_rates, judgement.matrix)
        if count < 2 or len(beliefs.strengths) != count:
            raise ValueError(f"the judgement is on {len(beliefs.strengths)} answers, got {count}; expected the same 2 or more")
        return beliefs

    def best_and_worst(self) -> tuple[int, int]:
        """Returns the first of the strongest answers and the last of the weakest, which differ even when all are equal."""
        indices = range(len(self.strengths))
        best = max(indices, key=lambda i: (self.strengths[i], -i))
        worst = min((i for i in indices if i != best), key=lambda i: (self.strengths[i], -i))
        return best, worst

    def advantage(self, i: int, j: int) -> float:
        """Returns a number above 0 where answer i is preferred to answer j, and 0 for a tie."""
        return self.matrix[i][j] - 0.5 if self.matrix else self.strengths[i] - self.strengths[j]


def _answer(completion: Completion, score: float | None) -> common.Answer:
    return common.Answer(
        player=completion.wire.player,
        token_ids=completion.token_ids,
        behavior_logprobs=completion.logprobs,
        finish=completion.wire.finish,
        score=score,
    )


def _policy_version(members: Sequence[Completion]) -> int:
    ageing = [member.model_version for member in members if member.wire.player in AGEING]
    return min(ageing or [member.model_version for member in members])


def _id(answers: Answers, members: Sequence[Completion], judge_hash: str) -> bytes:
    """Derives 16 bytes from the call that sampled, the answers and the judge; each part is length-prefixed."""
    indices = b"".join(member.sample_index.to_bytes(4, "little") for member in members)
    digest = hashlib.blake2b(digest_size=16)
    for part in (b"example", answers.origin, indices, judge_hash.encode()):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
