"""One run: watched, steered, exported, and worked with by hand."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence

import grpc

from joust import events
from joust._export import Decode, Lines, row
from joust._retry import Patience
from joust._toml import Setting, overrides
from joust.aio._caller import Caller, Target
from joust.aio._workers import Judges, Learner, Rollouts, Worker
from joust.errors import Error, RunFailed
from joust.proto import common, coordinator
from joust.records import Feedback, Prompt, RunInfo, RunState, to_prompt


class Run:
    """A run of the cluster.

    Attributes:
        name: its name, unique in the cluster.
        rollouts: its rollout workers.
        judges: its judges.
        learner: its learner, for steps by hand.
    """

    def __init__(self, caller: Caller, target: Target, name: str) -> None:
        self.name = name
        self._caller, self._target, self._seen = caller, target, 0
        self.rollouts = Rollouts(caller, Worker(caller, target, name, coordinator.ROLE_ROLLOUT), name)
        self.judges = Judges(caller, Worker(caller, target, name, coordinator.ROLE_JUDGE), name)
        self.learner = Learner(caller, Worker(caller, target, name, coordinator.ROLE_LEARNER), name)

    def __repr__(self) -> str:
        return f"Run({self.name!r})"

    async def info(self) -> RunInfo:
        """Asks the coordinator how the run is, its resolved file included.

        Raises:
            Error: if the call failed.
        """
        request = coordinator.GetRunRequest(run_id=self.name)
        response = await self._caller.unary(self._target, lambda c: coordinator.CoordinatorServiceStub(c).GetRun, request)
        return RunInfo.of(response.run)

    @property
    async def state(self) -> RunState:
        """Where the run is, asked of the coordinator."""
        return (await self.info()).state

    async def watch(self, after: int = 0, *, patience: float = 120.0, timeout: float | None = None) -> AsyncIterator[events.Event]:
        """Yields what happens, from a position on, until the run ends; a stream that is cut goes on where it was.

        Args:
            after: position behind which events are wanted; 0: from the start.
            patience: seconds behind a cut after which a stream that brings nothing is given up.
            timeout: deadline in seconds; None: none.

        Raises:
            Error: if the call failed; `DEADLINE_EXCEEDED` at the deadline.
        """
        limit = Patience(self._caller.settings.retry, patience, timeout)
        request = coordinator.WatchRunRequest(run_id=self.name, after_position=after)
        stub = coordinator.CoordinatorServiceStub
        async for response in self._caller.follow(self._target, lambda c: stub(c).WatchRun, request, limit):
            self._seen = max(self._seen, response.position)
            event = events.read(response)
            if event is not None:
                yield event

    async def wait(self, timeout: float | None = None) -> RunInfo:
        """Waits until the run ends with its result.

        Args:
            timeout: deadline in seconds; None: none.

        Raises:
            RunFailed: if it ends without one.
            TimeoutError: if it has not ended in time.
            Error: if a call failed.
        """
        try:
            async for _ in self.watch(after=self._seen, timeout=timeout):
                pass
        except Error as error:
            if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimeoutError(f"run {self.name} has not ended after {timeout} s; wait longer, or stop it") from None
            raise
        info = await self.info()
        if info.state is RunState.FAILED:
            raise RunFailed(info)
        return info

    async def pause(self) -> RunInfo:
        """Lets the run release no more prompts; what is under way is finished.

        Raises:
            Error: if the call failed.
        """
        request = coordinator.PauseRunRequest(run_id=self.name, idempotency_key=str(uuid.uuid4()))
        stub = coordinator.CoordinatorServiceStub
        return RunInfo.of((await self._caller.unary(self._target, lambda c: stub(c).PauseRun, request)).run)

    async def resume(self) -> RunInfo:
        """Lets a paused run go on.

        Raises:
            Error: if the call failed.
        """
        request = coordinator.ResumeRunRequest(run_id=self.name, idempotency_key=str(uuid.uuid4()))
        stub = coordinator.CoordinatorServiceStub
        return RunInfo.of((await self._caller.unary(self._target, lambda c: stub(c).ResumeRun, request)).run)

    async def stop(self) -> RunInfo:
        """Ends the run after its step, with its result written.

        Raises:
            Error: if the call failed.
        """
        request = coordinator.StopRunRequest(run_id=self.name, idempotency_key=str(uuid.uuid4()))
        stub = coordinator.CoordinatorServiceStub
        return RunInfo.of((await self._caller.unary(self._target, lambda c: stub(c).StopRun, request)).run)

    async def set(self, settings: Mapping[str, Setting]) -> int:
        """Changes settings at the next step boundary, for example `{"loss.beta": 0.2}`.

        Returns:
            The first optimizer step with the new settings, from 0.

        Raises:
            Error: if the call failed.
            TypeError: for a value that a run file cannot hold.
        """
        request = coordinator.UpdateRunRequest(run_id=self.name, overrides=overrides(settings), idempotency_key=str(uuid.uuid4()))
        stub = coordinator.CoordinatorServiceStub
        return (await self._caller.unary(self._target, lambda c: stub(c).UpdateRun, request)).effective_step

    async def fork(self, name: str, *, checkpoint: str | None = None, settings: Mapping[str, Setting] | None = None) -> Run:
        """Makes a new run, with an empty queue, from a checkpoint of this one.

        Args:
            name: name of the new run.
            checkpoint: name of the checkpoint; None: the newest.
            settings: changes to the run file, by dotted key.

        Raises:
            Error: if the call failed.
            TypeError: for a value that a run file cannot hold.
        """
        request = coordinator.ForkRunRequest(
            run_id=self.name,
            checkpoint=checkpoint or "",
            new_run_id=name,
            overrides=overrides(settings),
            idempotency_key=str(uuid.uuid4()),
        )
        stub = coordinator.CoordinatorServiceStub
        response = await self._caller.unary(self._target, lambda c: stub(c).ForkRun, request)
        return Run(self._caller, self._target, response.run.run_id)

    async def submit_prompts(self, prompts: Sequence[Prompt]) -> int:
        """Adds prompts, 1 to 4096, which come next and are trained once each.

        Returns:
            The number of prompts that were added.

        Raises:
            Error: if the call failed; `OUT_OF_RANGE` if the run's steps have not so many places left.
            TypeError: for one text instead of a list.
        """
        if isinstance(prompts, str):
            raise TypeError("prompts is one text, expected a list of prompts")
        request = coordinator.SubmitPromptsRequest(
            run_id=self.name,
            prompts=[to_prompt(prompt) for prompt in prompts],
            purpose=common.PURPOSE_TRAIN,
            idempotency_key=str(uuid.uuid4()),
        )
        stub = coordinator.CoordinatorServiceStub
        return len((await self._caller.unary(self._target, lambda c: stub(c).SubmitPrompts, request)).task_ids)

    async def submit_feedback(self, feedback: Sequence[Feedback]) -> int:
        """Adds preferences of people, 1 to 4096: they join the next steps, or wait for steps by hand.

        Returns:
            The number of examples that were added; a tie gives none.

        Raises:
            Error: if the call failed.
        """
        request = coordinator.SubmitFeedbackRequest(
            run_id=self.name, feedback=[said.wire() for said in feedback], idempotency_key=str(uuid.uuid4())
        )
        stub = coordinator.CoordinatorServiceStub
        return (await self._caller.unary(self._target, lambda c: stub(c).SubmitFeedback, request)).added

    async def export(
        self,
        path: str | os.PathLike[str],
        *,
        decode: Decode | None = None,
        first_step: int = 0,
        end_step: int | None = None,
        source: common.ExampleSource = common.EXAMPLE_SOURCE_UNSPECIFIED,
        patience: float = 120.0,
    ) -> int:
        """Writes the run's examples into a file, a JSON object a line, in the order in which they were applied.

        A pair has the columns `prompt_ids`, `chosen_ids` and `rejected_ids`, and with `decode` also the texts that TRL's trainers read:
        `prompt`, `chosen` and `rejected`. The file takes its name when it is whole.

        Args:
            path: the file.
            decode: makes text of token ids, since the run keeps only those.
            first_step: first optimizer step that applied them, from 0.
            end_step: optimizer step before which they were applied; None: no end.
            source: where the preference comes from; unspecified: from anywhere.
            patience: seconds behind a cut after which a stream that brings nothing is given up.

        Returns:
            The number of examples.

        Raises:
            Error: if the call failed.
            OSError: if the file cannot be written.
        """
        which = coordinator.ExampleFilter(first_step=first_step, end_step=end_step, source=source)
        request = coordinator.ExportExamplesRequest(run_id=self.name, filter=which)
        stub = coordinator.CoordinatorServiceStub
        limit = Patience(self._caller.settings.retry, patience)
        with Lines(path) as lines:
            async for response in self._caller.follow(self._target, lambda c: stub(c).ExportExamples, request, limit):
                lines.write(row(response.example, decode))
        return lines.count
