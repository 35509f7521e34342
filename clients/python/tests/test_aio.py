"""The client for asyncio does what the blocking one does."""

import asyncio
import json
from pathlib import Path

import grpc
import pytest

import fake
import joust
from joust.proto import coordinator
from test_calls import unavailable
from test_runs import examples, happen


def test_a_loop_by_hand_runs(folder: Path, state: fake.State) -> None:
    async def main() -> list[int]:
        steps = []
        async with joust.aio.connect(folder) as cluster:
            run = await cluster.runs.start("schema = 1\n", by_hand=True, name="async")
            for _ in range(3):
                asked = await run.rollouts.generate(["A", "B"])
                judged = await asyncio.gather(*(run.judges.score(answers.prompt, answers) for answers in asked))
                pairs = [joust.pair(answers, judgement) for answers, judgement in zip(asked, judged, strict=True)]
                await run.learner.put_examples([pair for pair in pairs if pair is not None])
                steps.append((await run.learner.train_step()).step)
            await run.stop()
            assert await run.state is joust.RunState.DONE
        return steps

    state.failures["TrainStep"] += [unavailable, unavailable]
    assert asyncio.run(main()) == [0, 1, 2]
    keys = [call.request.idempotency_key for call in state.seen("TrainStep")]
    assert len(keys) == 5 and len(set(keys)) == 3
    assert {call.metadata.get("authorization") for call in state.calls} == {f"Bearer {fake.TOKEN}"}
    assert all(call.remaining is not None and call.remaining < 610.0 for call in state.calls)


def test_watching_goes_on_where_it_was_cut(folder: Path, state: fake.State, tmp_path: Path) -> None:
    happen(state, 6)
    state.cuts["WatchRun"] = [1, 4, 0]
    state.applied = examples()
    state.cuts["ExportExamples"] = [2]

    async def main() -> list[int]:
        async with joust.aio.connect(folder) as cluster:
            run = await cluster.runs.start("schema = 1\n", name="async")
            positions = [event.position async for event in run.watch()]
            await run.stop()
            assert (await run.wait(timeout=30.0)).state is joust.RunState.DONE
            assert await run.export(tmp_path / "pairs.jsonl") == 3
        return positions

    assert asyncio.run(main()) == [1, 2, 3, 4, 5, 6, 7]
    assert [call.request.after_position for call in state.seen("WatchRun")] == [0, 0, 3, 3, 7]
    lines = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["00" * 16, "01" * 16, "02" * 16]


def test_errors_are_the_same(folder: Path, state: fake.State) -> None:
    async def main() -> None:
        async with joust.aio.connect(folder) as cluster:
            await cluster.runs.get("nowhere")

    with pytest.raises(joust.Error) as failed:
        asyncio.run(main())
    assert str(failed.value) == "there is no run 'nowhere'; list the runs [UNKNOWN_RUN]"
    assert (failed.value.code, failed.value.details) == (grpc.StatusCode.NOT_FOUND, {"run_id": "nowhere"})


def test_stubs_of_the_wire_work_on_its_channel(folder: Path, state: fake.State) -> None:
    request = coordinator.ListDeadLettersRequest(run_id="stories")

    async def main() -> list[int]:
        async with joust.aio.connect(folder) as cluster:
            stub = coordinator.CoordinatorServiceStub(cluster.channel())
            raw = await stub.ListDeadLetters(request, metadata=cluster.metadata(), timeout=5.0)
            made = await cluster.call(lambda c: coordinator.CoordinatorServiceStub(c).ListDeadLetters, request)
        return [letter.deliveries for letter in (*raw.dead_letters, *made.dead_letters)]

    assert asyncio.run(main()) == [5, 5]
