"""The client and its example against a cluster of joust's own programs, with runs that really train."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean

import grpc
import pytest

import joust
from joust import events
from real import ROOT, RealCluster, missing
from test_readme import BLOCKS

pytestmark = pytest.mark.cluster
RUN_FILE = ROOT / "examples" / "stories" / "run.toml"
PROMPT = "One morning Rosa went to the lake."
# Under the judge of the run file: 6 happy words, 5 sad ones; each ends with a full stop (1) and has 12 words or more (1).
HAPPY = ("Tom smiled and laughed with joy because his friends were safe and proud.", 8.0)
SAD = ("Tom cried alone in the dark because his boat was lost and broken.", -3.0)
LIMIT = 180.0
"""How long a run may take, in seconds."""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    why = missing()
    if why and os.environ.get("JOUST_NO_SKIPS"):
        pytest.fail(f"no cluster: {why}", pytrace=False)
    if why:
        pytest.skip(f"no cluster: {why}")
    real = RealCluster(tmp_path_factory.mktemp("real") / "cluster")
    try:
        real.up()
        yield real
    finally:
        real.down()


@pytest.fixture
def cluster(real: RealCluster) -> Iterator[joust.Cluster]:
    with joust.connect(real.folder, token_file=real.folder / "tokens" / "submit") as cluster:
        yield cluster


@pytest.fixture
def by_hand(cluster: joust.Cluster, request: pytest.FixtureRequest) -> Iterator[joust.Run]:
    """A run that waits for steps; its end leaves the learner to the next test."""
    run = cluster.runs.start(RUN_FILE, by_hand=True, name=request.node.name)
    yield run
    run.stop()
    assert run.wait(timeout=LIMIT).reason == "stopped"


def decode(ids: list[int]) -> str:
    """Makes text of the stories model's ids: byte-level BPE, whose vocabulary writes a blank as Ġ."""
    vocabulary = json.loads((RUN_FILE.parent / "base" / "tokenizer.json").read_text())["model"]["vocab"]
    words = {id: word for word, id in vocabulary.items()}
    return "".join(words.get(id, "") for id in ids).replace("Ġ", " ").removesuffix("</s>")


def test_the_example_of_the_repository_raises_the_score(real: RealCluster, cluster: joust.Cluster) -> None:
    command = [sys.executable, str(ROOT / "examples" / "by_hand.py"), "--steps", "16", "--prompts", "32"]
    done = subprocess.run(command, env=real.environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    line = re.compile(r"step (\d+)  pairs (\d+)  loss ([\d.]+)  score (-?[\d.]+)")
    found = [line.fullmatch(said) for said in done.stdout.splitlines()]
    steps = [match.groups() for match in found if match]
    assert [int(step) for step, _, _, _ in steps] == list(range(16)), done.stdout
    assert float(steps[0][2]) == pytest.approx(math.log(2.0), abs=1e-3), "the policy is the reference at first"
    scores = [float(score) for _, _, _, score in steps]
    assert fmean(scores[-4:]) > fmean(scores[:4]) + 0.3, done.stdout
    (info,) = (info for info in cluster.runs.list() if info.name.startswith("by-hand-"))
    ended = cluster.runs.get(info.name).wait(timeout=LIMIT)
    assert (ended.state, ended.steps_done, ended.by_hand) == (joust.RunState.DONE, 16, True)


def test_a_run_is_watched_to_its_end_and_exported(real: RealCluster, cluster: joust.Cluster, tmp_path: Path) -> None:
    short = {"learner.steps": 4, "learner.warmup_steps": 0, "learner.prompts_per_step": 16, "learner.checkpoint_every": 2}
    run = cluster.runs.start(RUN_FILE, {**short, "eval.every": 2, "eval.prompts": 8}, name="watched")
    told = list(run.watch(timeout=LIMIT))
    assert [event.position for event in told] == list(range(1, len(told) + 1))
    states = [event.state for event in told if isinstance(event, events.StateEvent)]
    assert [state for state in states if state is not joust.RunState.PENDING] == [joust.RunState.RUNNING, joust.RunState.DONE]
    steps = [event for event in told if isinstance(event, events.StepEvent)]
    assert [event.steps_done for event in told if isinstance(event, events.EvaluationEvent)] == [2, 4]
    ended = run.wait(timeout=LIMIT)
    assert (ended.reason, ended.steps_done, ended.steps) == ("finished", 4, 4)

    # What the learner wrote into the run's folder is what was told.
    folder = real.folder / "runs" / "watched"
    written = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [(line["step"], line["loss"]) for line in written if line["kind"] == "step"]
    assert [(event.step, event.metrics["loss"]) for event in steps] == losses and len(losses) == 4
    assert (folder / "policy" / "model.safetensors").is_file()

    path = tmp_path / "pairs.jsonl"
    count = run.export(path, decode=decode)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    applied = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    # The queue holds what the older of the two checkpoints, that after step 2, has yet to apply.
    assert [line["id"] for line in lines] == [id for step in applied[2:] for id in step["examples"]]
    assert count == len(lines) == sum(event.metrics["pairs"] for event in steps[2:])
    prompts = {json.loads(line)["prompt"] for line in (RUN_FILE.parent / "prompts.jsonl").read_text().splitlines()}
    assert {line["prompt"] for line in lines} <= prompts
    assert all(line["chosen_score"] > line["rejected_score"] and line["chosen"] and line["source"] == "online" for line in lines)
    assert run.export(tmp_path / "last.jsonl", first_step=3) == len([line for line in lines if line["step"] == 3])


def test_people_give_prompts_and_preferences_to_a_run(real: RealCluster, cluster: joust.Cluster, tmp_path: Path) -> None:
    short = {"learner.steps": 12, "learner.warmup_steps": 0, "learner.prompts_per_step": 8, "learner.checkpoint_every": 100}
    run = cluster.runs.start(RUN_FILE, {**short, "eval.every": 0}, name="given")
    own = [f"Rosa counted {number} boats on the lake." for number in range(3)]
    assert run.submit_prompts(own) == 3
    said = [joust.Feedback(PROMPT, HAPPY[0], SAD[0], "first"), joust.Feedback(PROMPT, SAD[0], HAPPY[0], "second", "Ann")]
    assert run.submit_feedback([*said, joust.Feedback(PROMPT, HAPPY[0], SAD[0], "tie")]) == 2
    with pytest.raises(joust.Error) as failed:
        run.submit_prompts(["Once."] * 97)
    assert (failed.value.reason, failed.value.code) == ("OUT_OF_RANGE", grpc.StatusCode.OUT_OF_RANGE)
    with pytest.raises(joust.Error) as failed:
        run.submit_feedback([joust.Feedback(PROMPT, "The same.", "The same.", "first")])
    assert failed.value.violations[0].field == "feedback[0].second"
    assert run.wait(timeout=LIMIT).reason == "finished"
    metrics = (real.folder / "runs" / "given" / "metrics.jsonl").read_text().splitlines()
    assert sum(json.loads(line).get("examples/human", 0) for line in metrics) == 2
    with pytest.raises(joust.Error) as failed:
        run.submit_prompts(own)
    assert failed.value.reason == "WRONG_STATE"


def test_the_judge_of_the_run_file_is_asked(by_hand: joust.Run) -> None:
    texts, scores = zip(HAPPY, SAD, strict=True)
    assert by_hand.judges.score(PROMPT, texts).scores == list(scores)
    compared = by_hand.judges.compare(PROMPT, texts)
    assert compared.ok and compared.judge == "happy"
    assert compared.preference == pytest.approx(1.0 / (1.0 + math.exp(scores[1] - scores[0])))
    turned = by_hand.judges.compare(PROMPT, texts[::-1]).preference
    assert turned is not None and turned == pytest.approx(1.0 - (compared.preference or 0.0), abs=1e-9)
    even = by_hand.judges.compare(PROMPT, [texts[0], texts[0]])
    assert even.preference == pytest.approx(0.5)
    with pytest.raises(joust.Error) as failed:
        by_hand.judges.compare(PROMPT, texts, judge="nobody")
    assert (failed.value.reason, failed.value.code) == ("UNKNOWN_NAME", grpc.StatusCode.NOT_FOUND)


def test_examples_are_put_and_trained_once(by_hand: joust.Run) -> None:
    asked = by_hand.rollouts.generate([PROMPT] * 8, num_generations=4, max_new_tokens=40, seed=7)
    again = by_hand.rollouts.generate([PROMPT] * 8, num_generations=4, max_new_tokens=40, seed=7)
    assert [[answer.token_ids for answer in answers] for answers in asked] == [
        [answer.token_ids for answer in answers] for answers in again
    ]
    judged = by_hand.judges.batch("score", asked)
    pairs = [joust.pair(answers, judgement) for answers, judgement in zip(asked, judged, strict=True)]
    examples = [pair for pair in pairs if pair is not None]
    assert len(examples) > 1
    assert by_hand.learner.put_examples(examples) == joust.Put(added=len(examples), duplicates=0, waiting=len(examples))
    assert by_hand.learner.put_examples(examples).duplicates == len(examples)
    first = by_hand.learner.train_step(example_ids=[examples[1].id])
    assert (first.step, first.examples, first.policy_version) == (0, 1, 1)
    rest = by_hand.learner.train_step()
    assert (rest.step, rest.examples) == (1, len(examples) - 1)
    with pytest.raises(joust.Error) as failed:
        by_hand.learner.train_step()
    assert failed.value.reason == "WRONG_STATE"


def test_asyncio_trains_a_step(real: RealCluster) -> None:
    async def main() -> joust.Step:
        async with joust.aio.connect(real.folder) as cluster:
            run = await cluster.runs.start(RUN_FILE, by_hand=True, name="asyncio")
            asked = await run.rollouts.generate([PROMPT] * 4, num_generations=4, max_new_tokens=40)
            judged = await asyncio.gather(*(run.judges.score(answers.prompt, answers) for answers in asked))
            pairs = [joust.pair(answers, judgement) for answers, judgement in zip(asked, judged, strict=True)]
            await run.learner.put_examples([pair for pair in pairs if pair is not None])
            step = await run.learner.train_step()
            await run.stop()
            assert (await run.wait(timeout=LIMIT)).steps_done == 1
            return step

    step = asyncio.run(main())
    assert step.step == 0 and 1 <= step.examples <= 4 and step.metrics["loss"] == pytest.approx(math.log(2.0), abs=1e-3)


def test_what_the_readme_shows_by_hand_runs(real: RealCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOUST_CLUSTER", str(real.folder))
    monkeypatch.chdir(ROOT)
    for block in BLOCKS[1:]:
        exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})


def outside(cluster: joust.Cluster, tmp_path: Path) -> None:
    """Starts a run whose file lies below no root."""
    shutil.copytree(RUN_FILE.parent, tmp_path / "stories")
    cluster.runs.start(tmp_path / "stories" / "run.toml", name="refused")


def reaches_out(cluster: joust.Cluster, tmp_path: Path) -> None:
    """Starts a run whose prompts lie below no root."""
    shutil.copy(RUN_FILE.parent / "prompts.jsonl", tmp_path / "prompts.jsonl")
    cluster.runs.start(RUN_FILE, {"data.prompts": str(tmp_path / "prompts.jsonl")}, name="refused")


@pytest.mark.parametrize(
    ("call", "code", "reason", "message"),
    [
        (lambda c, _: c.runs.get("nowhere"), "NOT_FOUND", "UNKNOWN_RUN", r"there is no run nowhere; list the runs"),
        (lambda c, _: list(c.runs.get("no/where").watch()), "INVALID_ARGUMENT", "INVALID_FIELD", r'field run_id is "no/where"'),
        (outside, "INVALID_ARGUMENT", "INVALID_FIELD", rf"field folder is .*/stories, expected .* below {ROOT}"),
        (reaches_out, "INVALID_ARGUMENT", "INVALID_FIELD", rf"field run_toml is .*/prompts\.jsonl, expected .* below {ROOT}"),
        (
            lambda c, _: c.runs.start(RUN_FILE, {"loss.betta": 0.2}, name="refused"),
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            r"unknown key loss\.betta .* did you mean loss\.beta\?",
        ),
        (
            lambda c, _: c.runs.start(RUN_FILE, {"loss.beta": -1.0}, name="refused"),
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            r"loss\.beta = -1\.0 .* expected a number of at least 0",
        ),
    ],
    ids=["unknown run", "bad name", "file outside", "input outside", "unknown key", "bad value"],
)
def test_what_cannot_be_is_refused(
    cluster: joust.Cluster,
    tmp_path: Path,
    call: Callable[[joust.Cluster, Path], object],
    code: str,
    reason: str,
    message: str,
) -> None:
    with pytest.raises(joust.Error, match=message) as failed:
        call(cluster, tmp_path)
    assert (failed.value.code.name, failed.value.reason) == (code, reason)
    assert bool(failed.value.violations) == (reason == "INVALID_FIELD")
    assert "refused" not in [info.name for info in cluster.runs.list()]


def test_a_token_allows_what_its_scope_says(real: RealCluster) -> None:
    with joust.connect(real.folder, token="wrong") as cluster, pytest.raises(joust.Error) as unknown:
        cluster.runs.list()
    assert (unknown.value.code, unknown.value.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_UNKNOWN")
    with joust.connect(real.folder, token_file=real.folder / "tokens" / "read") as cluster:
        cluster.runs.list()
        with pytest.raises(joust.Error) as scope:
            cluster.runs.start(RUN_FILE, name="refused")
    assert (scope.value.code, scope.value.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    assert dict(scope.value.details) == {"scope": "submit"}


def test_a_name_is_taken_once(by_hand: joust.Run, cluster: joust.Cluster) -> None:
    with pytest.raises(joust.Error, match="choose another name") as failed:
        cluster.runs.start(RUN_FILE, name=by_hand.name)
    assert (failed.value.code, failed.value.reason) == (grpc.StatusCode.ALREADY_EXISTS, "RUN_EXISTS")
