"""The loop by hand: generate, judge, put, train; and the example of the repository that does it."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest

import fake
import joust
from joust.proto import common, coordinator, judge

ROOT = Path(__file__).resolve().parents[3]


def test_answers_come_by_prompt_and_sample(run: joust.Run, state: fake.State) -> None:
    state.version = 5
    first, second = run.rollouts.generate(
        ["A", [{"role": "user", "content": "B"}]], num_generations=3, max_new_tokens=8, temperature=0.7, top_k=4, seed=9, policy_version=5
    )
    assert [answer.sample_index for answer in first] == [0, 1, 2]
    assert [answer.text for answer in first] == ["A They were sad.", "A They were happy.", "A They were sad."]
    assert (first.prompt.text, second.prompt.chat.messages[0].content) == ("A", "B")
    assert (first.prompt_ids, second.prompt_ids) == ([1, 2, 0], [1, 2, 1])
    assert len(first) == 3 and first[0].model_version == 5 and not first[0].truncated
    assert [len(answer.token_ids) for answer in first] == [len(answer.logprobs) for answer in first] == [4, 5, 6]
    request = state.seen("Generate")[0].request
    assert (request.run_id, request.num_generations, request.seed, request.policy_version) == ("stories", 3, 9, 5)
    assert (request.sampling.max_new_tokens, request.sampling.temperature, request.sampling.top_k) == (8, 0.7, 4)


def test_seeds_differ_where_none_is_named(run: joust.Run, state: fake.State) -> None:
    run.rollouts.generate(["A"])
    run.rollouts.generate(["A"])
    one, two = (call.request.seed for call in state.seen("Generate"))
    assert one != two


def test_answers_that_were_cut_come_whole_and_once(run: joust.Run, state: fake.State) -> None:
    state.cuts["Generate"] = [3]
    answers = run.rollouts.generate(["A", "B"], num_generations=2)
    assert [len(one) for one in answers] == [2, 2]
    one, two = (call.request for call in state.seen("Generate"))
    assert one == two


def test_missing_answers_are_an_error(run: joust.Run, state: fake.State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake.Rollout, "answers", lambda self, request: iter(()))
    with pytest.raises(joust.Error, match="prompt 0 has 0 answers, expected 2"):
        run.rollouts.generate(["A"])


def test_another_worker_is_asked_when_one_is_gone(run: joust.Run, state: fake.State) -> None:
    # As many as there may be when each is tried once and 5 attempts are made.
    gone = [f"https://127.0.0.1:{port}" for port in (1, 2, 3, 4)]
    state.workers += [coordinator.Member(worker=address, role=coordinator.ROLE_JUDGE, address=address) for address in gone]
    for _ in range(10):
        assert run.judges.score("Once", ["happy", "sad"]).scores == [1.0, 0.0]
    assert {call.request.run_id for call in state.seen("ListWorkers")} == {"stories"}


def test_a_worker_that_drains_is_not_asked(run: joust.Run, state: fake.State) -> None:
    for member in state.workers:
        member.draining = True
    with pytest.raises(joust.Error, match="no judge worker"):
        run.judges.score("Once", ["happy"], timeout=0.3)
    assert state.seen("Score") == []


def test_a_worker_that_comes_late_is_waited_for(run: joust.Run, state: fake.State) -> None:
    workers, state.workers = state.workers, []
    asked = threading.Event()
    state.failures["ListWorkers"] += [lambda context: None, lambda context: asked.set()]

    def comes() -> None:
        assert asked.wait(30.0)
        state.workers = workers

    thread = threading.Thread(target=comes)
    thread.start()
    assert run.judges.score("Once", ["happy"]).scores == [1.0]
    thread.join(30.0)


def test_no_worker_in_time_is_an_error(run: joust.Run, state: fake.State) -> None:
    state.workers = []
    with pytest.raises(joust.Error, match="no judge worker serves run stories") as failed:
        run.judges.score("Once", ["happy"], timeout=0.3)
    assert failed.value.code is grpc.StatusCode.UNAVAILABLE


def test_judges_are_asked_with_what_is_known(run: joust.Run, state: fake.State) -> None:
    answers = run.rollouts.generate(["Once"])[0]
    compared = run.judges.compare(answers.prompt, answers, judge="strict", seed=3, notes=True)
    assert compared.ok and compared.preference == pytest.approx(0.1)
    request = state.seen("Compare")[0].request
    assert request.first == judge.Candidate(text="Once They were sad.", player=common.PLAYER_POLICY, token_count=4)
    options = request.options
    assert (options.judge, options.run_id, options.seed, options.notes) == ("strict", "stories", 3, True)
    ranked = run.judges.rank("Once", ["sad", "happy", "sad"])
    assert ranked.matrix == [pytest.approx(row) for row in ([0.5, 0.1, 0.5], [0.9, 0.5, 0.9], [0.5, 0.1, 0.5])]
    assert ranked.win_rates == pytest.approx([1.1 / 3, 2.3 / 3, 1.1 / 3])
    assert (ranked.judge, ranked.judge_hash) == ("happy", "cd" * 32)
    with pytest.raises(ValueError, match="3 answers to compare, expected 2"):
        run.judges.compare("Once", ["a", "b", "c"])


def test_many_are_judged_in_one_call(run: joust.Run, state: fake.State, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = run.rollouts.generate(["A", "B", "C"])
    state.cuts["JudgeBatch"] = [2]
    judged = run.judges.batch("compare", asked, judge="strict")
    assert [judgement.preference for judgement in judged] == pytest.approx([0.1, 0.9, 0.1])
    one, two = (call.request for call in state.seen("JudgeBatch"))
    assert one == two and one.options.judge == "strict" and [len(item.candidates) for item in one.items] == [2, 2, 2]
    assert [judgement.scores for judgement in run.judges.batch("score", asked)] == [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    monkeypatch.setattr(fake.Judge, "judgements", lambda self, request: iter(()))
    with pytest.raises(joust.Error, match="item 0 has no judgement, 3 of 3 are missing"):
        run.judges.batch("score", asked)


def test_an_example_is_put_and_trained_once(run: joust.Run, state: fake.State) -> None:
    answers = run.rollouts.generate(["Once"])[0]
    example = joust.pair(answers, run.judges.score(answers.prompt, answers))
    assert example is not None
    assert run.learner.put_examples([example]) == joust.Put(added=1, duplicates=0, waiting=1)
    assert run.learner.put_examples([example]) == joust.Put(added=0, duplicates=1, waiting=1)
    step = run.learner.train_step(example_ids=[example.id])
    assert step == joust.Step(step=0, metrics={"loss": 0.5}, examples=1, policy_version=1)
    with pytest.raises(joust.Error, match=r"no example waits \[WRONG_STATE\]"):
        run.learner.train_step()


def test_the_example_of_the_repository_trains(state: fake.State, folder: Path) -> None:
    environment = {**os.environ, "JOUST_CLUSTER": str(folder), "PYTHONPATH": str(ROOT / "clients" / "python" / "src")}
    command = [sys.executable, str(ROOT / "examples" / "by_hand.py"), "--steps", "3", "--prompts", "4"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = [re.fullmatch(r"step (\d)  pairs (\d)  loss ([\d.]+)  score ([\d.]+)", line) for line in done.stdout.splitlines()]
    found = [line.groups() for line in lines if line]
    assert found == [("0", "4", "0.5000", "0.500"), ("1", "4", "0.2500", "0.500"), ("2", "4", "0.1667", "0.500")]
    (run,) = state.runs.values()
    assert run.by_hand and run.run_id.startswith("by-hand-") and run.state == coordinator.RUN_STATE_DONE
    assert len(state.applied) == 12
    assert {len(call.request.prompts) for call in state.seen("Generate")} == {4}
