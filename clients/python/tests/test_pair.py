"""Examples from answers and judgements, held against hand-made cases of the rules in crates/pairs."""

import dataclasses

import pytest

import fake
import joust
from joust.proto import common

OK = common.JUDGEMENT_STATUS_OK
FROM = common.Provenance(judge="main", config_hash="cd" * 32)


def answers(count: int, versions: list[int] | None = None, players: list[int] | None = None) -> joust.Answers:
    made = []
    for i in range(count):
        wire = common.Completion(
            sample_index=i,
            player=players[i] if players else common.PLAYER_POLICY,
            model=common.ModelRef(version=versions[i] if versions else 3),
            token_ids=[10 + i, 2],
            logprobs=[-0.25, -0.5],
            text=f"answer {i}",
            finish=common.FINISH_LENGTH if i == 1 else common.FINISH_EOS,
        )
        made.append(joust.Completion.of(wire))
    return joust.Answers(common.Prompt(text="Once"), [7, 8], made, b"run/key/0")


def scores(*values: float) -> joust.Judgement:
    return joust.Judgement.of(common.Judgement(status=OK, scores=common.Scores(values=values), provenance=FROM))


def preference(p: float) -> joust.Judgement:
    return joust.Judgement.of(common.Judgement(status=OK, preference=p, provenance=FROM))


def matrix(*values: float) -> joust.Judgement:
    return joust.Judgement.of(common.Judgement(status=OK, matrix=common.PreferenceMatrix(values=values), provenance=FROM))


def members(example: common.PreferenceExample | None) -> list[int] | None:
    return None if example is None else [answer.token_ids[0] - 10 for answer in example.answers]


def test_every_field_is_what_the_learner_wants() -> None:
    example = joust.pair(answers(2), scores(-1.0, 2.0))
    assert example is not None
    better = common.Answer(
        player=common.PLAYER_POLICY, token_ids=[11, 2], behavior_logprobs=[-0.25, -0.5], finish=common.FINISH_LENGTH, score=2.0
    )
    worse = common.Answer(
        player=common.PLAYER_POLICY, token_ids=[10, 2], behavior_logprobs=[-0.25, -0.5], finish=common.FINISH_EOS, score=-1.0
    )
    assert example == common.PreferenceExample(
        id=example.id,
        prompt_ids=[7, 8],
        answers=[better, worse],
        target=common.Target(pair=common.PairTarget(p=1.0)),
        weight=1.0,
        policy_version=3,
        source=common.EXAMPLE_SOURCE_ONLINE,
        judge_hash="cd" * 32,
    )
    fake.check(example)


def test_best_meets_worst() -> None:
    assert members(joust.pair(answers(2), preference(0.7))) == [0, 1]
    assert members(joust.pair(answers(2), preference(0.2))) == [1, 0]
    assert members(joust.pair(answers(4), scores(1.0, 3.0, 0.0, 2.0))) == [1, 2]
    # The first of the strongest and the last of the weakest.
    assert members(joust.pair(answers(4), scores(3.0, 0.0, 3.0, 0.0))) == [0, 3]
    wins = (0.5, 0.9, 0.6, 0.1, 0.5, 0.3, 0.4, 0.7, 0.5)
    assert members(joust.pair(answers(3), matrix(*wins))) == [0, 1]


def test_an_intransitive_judge_decides_the_pair_itself() -> None:
    # Answer 0 wins most on the whole (0.55), answer 2 least (0.45), yet 2 is preferred to 0.
    wins = (0.5, 0.8, 0.35, 0.2, 0.5, 0.8, 0.65, 0.2, 0.5)
    judgement = matrix(*wins)
    assert judgement.win_rates == pytest.approx([0.55, 0.5, 0.45])
    assert members(joust.pair(answers(3), judgement)) == [2, 0]


def test_ties_and_identical_answers_and_failed_judgements_give_none() -> None:
    assert joust.pair(answers(2), scores(1.0, 1.0)) is None
    assert joust.pair(answers(2), preference(0.5)) is None
    assert joust.pair(answers(2), scores(float("nan"), 1.0)) is None
    same = answers(2)
    twins = dataclasses.replace(same, completions=[same[0], dataclasses.replace(same[0], sample_index=1)])
    assert joust.pair(twins, scores(1.0, 2.0)) is None
    failed = common.Judgement(status=common.JUDGEMENT_STATUS_REFUSED, detail="no", provenance=FROM)
    judgement = joust.Judgement.of(failed)
    assert (judgement.ok, judgement.status, judgement.preference, judgement.scores) == (False, "refused", None, None)
    assert joust.pair(answers(2), judgement) is None


def test_soft_labels_are_the_judges_probability() -> None:
    example = joust.pair(answers(2), preference(0.2), label="soft")
    assert members(example) == [1, 0] and example is not None and example.target.pair.p == pytest.approx(0.8)
    tie = joust.pair(answers(2), preference(0.5), label="soft")
    assert tie is not None and tie.target.pair.p == 0.5
    with pytest.raises(ValueError, match="soft labels need probabilities, got scores"):
        joust.pair(answers(2), scores(1.0, 0.0), label="soft")


def test_the_version_is_the_oldest_that_can_age() -> None:
    policy, reference = common.PLAYER_POLICY, common.PLAYER_REFERENCE

    def version(versions: list[int], players: list[int]) -> int:
        example = joust.pair(answers(2, versions, players), scores(1.0, 0.0))
        assert example is not None
        return example.policy_version

    assert version([4, 3], [policy, policy]) == 3
    assert version([4, 0], [policy, reference]) == 4
    assert version([2, 1], [reference, reference]) == 1


def test_an_example_made_twice_is_the_same_and_others_differ() -> None:
    def made(**changes: object) -> bytes:
        example = joust.pair(dataclasses.replace(answers(3), **changes), scores(1.0, 0.0, 0.5))
        assert example is not None and len(example.id) == 16
        return example.id

    assert made() == made()
    assert made(origin=b"run/key/1") != made()
    other = joust.pair(answers(3), scores(1.0, 0.5, 0.0))
    assert other is not None and other.id != made()


def test_judgements_of_other_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="the judgement is on 2 answers, got 3"):
        joust.pair(answers(3), preference(0.7))
    with pytest.raises(ValueError, match=r"weight is -1\.0"):
        joust.pair(answers(2), preference(0.7), weight=-1.0)
