"""Runs: started, listed, watched, steered and exported."""

import json
import threading
from pathlib import Path

import pytest

import fake
import joust
from joust import events
from joust.proto import common, coordinator

RUN_FILE = Path(__file__).resolve().parents[3] / "examples" / "stories" / "run.toml"


def happen(state: fake.State, steps: int, end: int | None = coordinator.RUN_STATE_DONE) -> None:
    """Makes events: steps, then the end."""
    for step in range(steps):
        event = coordinator.StepEvent(step=step, metrics={"loss": 1.0 / (1 + step)}, dropped={"tie": step})
        state.events.append(coordinator.WatchRunResponse(position=len(state.events) + 1, step=event))
    if end is not None:
        ended = coordinator.StateEvent(state=end, reason="max_kl")
        state.events.append(coordinator.WatchRunResponse(position=len(state.events) + 1, state=ended))


def test_a_run_file_is_sent_with_its_folder(cluster: joust.Cluster, state: fake.State) -> None:
    run = cluster.runs.start(RUN_FILE, {"loss.beta": 0.2, "sampling.players": ["policy", "ema"]}, by_hand=True, name="mine")
    assert (run.name, run.info().by_hand) == ("mine", True)
    request = state.seen("CreateRun")[0].request
    assert request.run_toml == RUN_FILE.read_text()
    assert request.folder == str(RUN_FILE.parent)
    assert [(o.key, o.value) for o in request.overrides] == [("loss.beta", "0.2"), ("sampling.players", '["policy", "ema"]')]


def test_a_text_starts_a_run_too(cluster: joust.Cluster, state: fake.State) -> None:
    assert cluster.runs.start("schema = 1\n", folder="/data").name == "from-the-file"
    request = state.seen("CreateRun")[0].request
    assert (request.run_toml, request.folder, request.by_hand) == ("schema = 1\n", "/data", False)
    with pytest.raises(FileNotFoundError):
        cluster.runs.start("nowhere.toml")


def test_all_pages_are_listed(cluster: joust.Cluster, state: fake.State) -> None:
    for name in "abcde":
        cluster.runs.start("schema = 1\n", name=name)
    cluster.runs.get("b").stop()
    assert [run.name for run in cluster.runs.list()] == list("abcde")
    assert [run.name for run in cluster.runs.list(states=[joust.RunState.DONE])] == ["b"]


def test_a_run_is_steered(run: joust.Run, state: fake.State) -> None:
    assert run.state is joust.RunState.RUNNING
    assert run.pause().state is joust.RunState.PAUSED
    assert run.resume().state is joust.RunState.RUNNING
    assert run.set({"loss.beta": 0.2}) == 7
    override = state.seen("UpdateRun")[0].request.overrides[0]
    assert (override.key, override.value) == ("loss.beta", "0.2")
    assert run.fork("copy", checkpoint="step-20", settings={"seed": 1}).info().forked_from == "stories"
    assert state.seen("ForkRun")[0].request.checkpoint == "step-20"
    assert run.stop().state is joust.RunState.DONE
    assert run.state.ended


def test_events_are_typed(run: joust.Run, state: fake.State) -> None:
    happen(state, 1, end=None)
    evaluation = coordinator.EvaluationEvent(steps_done=1, metrics={"eval/winrate": 0.75})
    checkpoint = coordinator.CheckpointEvent(checkpoint="step-1", steps_done=1)
    models = common.ModelSet(policy=common.ModelRef(version=3))
    state.events.append(coordinator.WatchRunResponse(position=2, evaluation=evaluation))
    state.events.append(coordinator.WatchRunResponse(position=3, checkpoint=checkpoint))
    state.events.append(coordinator.WatchRunResponse(position=4, models=models))
    step, evaluated, saved, published = run.watch()
    assert isinstance(step, events.StepEvent) and (step.step, step.metrics, step.dropped) == (0, {"loss": 1.0}, {"tie": 0})
    assert isinstance(evaluated, events.EvaluationEvent) and evaluated.metrics == {"eval/winrate": 0.75}
    assert isinstance(saved, events.CheckpointEvent) and saved.checkpoint == "step-1"
    assert isinstance(published, events.ModelsEvent) and (published.policy_version, published.position) == (3, 4)


def test_watching_goes_on_where_it_was_cut(run: joust.Run, state: fake.State) -> None:
    happen(state, 6)
    # A stream that keeps alive and is cut, one that brings 3 events, one that brings nothing, one to the end.
    state.cuts["WatchRun"] = [1, 4, 0]
    assert [event.position for event in run.watch()] == [1, 2, 3, 4, 5, 6, 7]
    assert [call.request.after_position for call in state.seen("WatchRun")] == [0, 0, 3, 3]


def test_an_event_that_is_sent_again_comes_once(run: joust.Run, state: fake.State) -> None:
    happen(state, 3)
    state.events.insert(2, state.events[1])
    assert [event.position for event in run.watch()] == [1, 2, 3, 4]


def test_watching_begins_behind_a_position(run: joust.Run, state: fake.State) -> None:
    happen(state, 3)
    assert [event.position for event in run.watch(after=2)] == [3, 4]


def test_watching_that_stops_early_ends_the_call(run: joust.Run, state: fake.State) -> None:
    happen(state, 3)
    state.stays_open = True
    watching = run.watch()
    assert next(watching).position == 1
    watching.close()
    assert state.left.wait(30.0), "the server is told that nobody listens"
    assert run.state is joust.RunState.RUNNING


def test_waiting_goes_on_behind_what_was_watched(run: joust.Run, state: fake.State) -> None:
    happen(state, 2)
    list(run.watch())
    run.stop()
    assert run.wait().state is joust.RunState.DONE
    assert state.seen("WatchRun")[-1].request.after_position == 3


def test_a_run_that_fails_is_an_error(run: joust.Run, state: fake.State) -> None:
    state.runs["stories"].state = coordinator.RUN_STATE_FAILED
    state.runs["stories"].reason = "loss is NaN"
    with pytest.raises(joust.RunFailed, match="run stories failed after 0 of 80 steps: loss is NaN"):
        run.wait()


def test_waiting_has_a_deadline(run: joust.Run, state: fake.State) -> None:
    release = threading.Event()
    state.failures["WatchRun"].append(lambda context: release.wait(30.0) and None)
    with pytest.raises(TimeoutError, match=r"has not ended after 0\.3 s"):
        run.wait(timeout=0.3)
    release.set()


def examples() -> list[coordinator.AppliedExample]:
    answers = [common.Answer(token_ids=[65 + i, 66 + i], score=i) for i in (1, 0)]
    ids = [bytes([i] * 16) for i in range(3)]
    pair = common.Target(pair=common.PairTarget(p=1.0))
    group = common.Target(group=common.GroupTarget(win_rates=[0.75, 0.25]))
    online, human = common.EXAMPLE_SOURCE_ONLINE, common.EXAMPLE_SOURCE_HUMAN
    made = [
        common.PreferenceExample(id=ids[0], prompt_ids=[72], answers=answers, target=pair, weight=1.0, source=online),
        common.PreferenceExample(id=ids[1], prompt_ids=[73], answers=answers, target=group, weight=1.0, source=online),
        common.PreferenceExample(id=ids[2], prompt_ids=[74], answers=answers, target=pair, weight=0.5, source=human),
    ]
    applied = [coordinator.AppliedExample(example=example, step=step) for step, example in enumerate(made)]
    applied[2].ClearField("step")
    return applied


def test_examples_are_exported_as_lines(run: joust.Run, state: fake.State, tmp_path: Path) -> None:
    state.applied = examples()
    state.cuts["ExportExamples"] = [1, 1]
    path = tmp_path / "pairs.jsonl"
    assert run.export(path, decode=lambda ids: "".join(map(chr, ids)), end_step=9) == 3
    pair, group, human = (json.loads(line) for line in path.read_text().splitlines())
    assert {name: pair[name] for name in ("prompt", "chosen", "rejected")} == {"prompt": "H", "chosen": "BC", "rejected": "AB"}
    assert (pair["chosen_ids"], pair["chosen_score"], pair["rejected_score"], pair["step"]) == ([66, 67], 1.0, 0.0, 0)
    assert (group["win_rates"], [a["completion"] for a in group["answers"]]) == ([0.75, 0.25], ["BC", "AB"])
    assert "chosen" not in group
    assert (human["source"], human["step"], human["weight"], human["id"]) == ("human", None, 0.5, "02" * 16)
    assert [call.request.after_position for call in state.seen("ExportExamples")] == [0, 1, 2]
    assert state.seen("ExportExamples")[0].request.filter.end_step == 9
    assert list(tmp_path.glob("*.partial")) == []


def test_an_export_that_fails_leaves_the_file_of_before(run: joust.Run, state: fake.State, tmp_path: Path) -> None:
    state.applied = examples()
    path = tmp_path / "pairs.jsonl"
    path.write_text("before")

    def fails(_: object) -> str:
        raise UnicodeError("no such token")

    with pytest.raises(UnicodeError):
        run.export(path, decode=fails)
    assert path.read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["pairs.jsonl"]
