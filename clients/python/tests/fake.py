"""A cluster in this process that speaks the wire of proto/ over TLS: one server with all services, that notes what it was asked.

It keeps the promises of the wire that a client can see: idempotency keys, positions of streams, tokens, and errors with details.
"""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from joust.proto import common, coordinator, judge, learner, rollout

TOKEN = "s3cret"
WEIGHTS = "ab" * 32


@dataclass
class Call:
    """One call as the server saw it."""

    method: str
    request: Any
    metadata: dict[str, str]
    remaining: float | None


@dataclass
class State:
    """What the fake holds."""

    token: str = TOKEN
    address: str = ""
    calls: list[Call] = field(default_factory=list)
    runs: dict[str, coordinator.Run] = field(default_factory=dict)
    answered: dict[tuple[str, str], Any] = field(default_factory=dict)
    events: list[coordinator.WatchRunResponse] = field(default_factory=list)
    applied: list[coordinator.AppliedExample] = field(default_factory=list)
    waiting: dict[bytes, common.PreferenceExample] = field(default_factory=dict)
    known: set[bytes] = field(default_factory=set)
    workers: list[coordinator.Member] = field(default_factory=list)
    version: int = 0
    failures: dict[str, list[Callable[[grpc.ServicerContext], None]]] = field(default_factory=lambda: defaultdict(list))
    cuts: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    stays_open: bool = False
    left: threading.Event = field(default_factory=threading.Event)
    lost: dict[str, int] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def seen(self, method: str) -> list[Call]:
        """Returns the calls of a method, oldest first."""
        with self.lock:
            return [call for call in self.calls if call.method == method]

    def enter(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        """Notes a call, refuses one without the token, and fails as a test wants."""
        metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
        with self.lock:
            self.calls.append(Call(method, request, metadata, context.time_remaining()))
            failure = self.failures[method].pop(0) if self.failures[method] else None
        if metadata.get("authorization") != f"Bearer {self.token}":
            refuse(context, grpc.StatusCode.UNAUTHENTICATED, "the token is not known", "TOKEN_UNKNOWN")
        if failure is not None:
            failure(context)

    def once(self, method: str, key: str, answer: Callable[[], Any]) -> Any:
        """Answers a repeat as the first call."""
        assert 1 <= len(key) <= 128, f"{method} came with the idempotency key {key!r}"
        with self.lock:
            if (method, key) not in self.answered:
                self.answered[method, key] = answer()
            return self.answered[method, key]

    def models(self) -> common.ModelSet:
        """Returns what is published."""
        return common.ModelSet(policy=common.ModelRef(version=self.version, hash=WEIGHTS))

    def cut(self, method: str) -> int | None:
        """Returns after how many messages the next stream is cut."""
        with self.lock:
            return self.cuts[method].pop(0) if self.cuts[method] else None


def refuse(
    context: grpc.ServicerContext,
    code: grpc.StatusCode,
    message: str,
    reason: str,
    details: dict[str, str] | None = None,
    violations: dict[str, str] | None = None,
    retry_ms: int | None = None,
    domain: str = "joust",
) -> NoReturn:
    """Ends a call with an error as crates/proto/src/status.rs makes them."""
    packed = status_pb2.Status(code=code.value[0], message=message)
    parts: list[Any] = [error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=details or {})]
    if violations:
        fields = [error_details_pb2.BadRequest.FieldViolation(field=f, description=d) for f, d in violations.items()]
        parts.append(error_details_pb2.BadRequest(field_violations=fields))
    if retry_ms is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(retry_ms)
        parts.append(retry)
    for part in parts:
        holder = any_pb2.Any()
        holder.Pack(part)
        packed.details.append(holder)
    context.set_trailing_metadata((("grpc-status-details-bin", packed.SerializeToString()),))
    context.abort(code, message)
    raise AssertionError("abort raises")


def streamed(state: State, method: str, messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
    """Sends messages, and cuts the stream where a test wants it."""
    cut = state.cut(method)
    for count, message in enumerate(messages):
        if count == cut:
            refuse(context, grpc.StatusCode.UNAVAILABLE, "the service stops", "DRAINING")
        yield message


class Coordinator(coordinator.CoordinatorServiceServicer):
    def __init__(self, state: State) -> None:
        self.state = state

    def run(self, name: str, context: grpc.ServicerContext) -> coordinator.Run:
        if name not in self.state.runs:
            message = f"there is no run {name!r}; list the runs"
            refuse(context, grpc.StatusCode.NOT_FOUND, message, "UNKNOWN_RUN", {"run_id": name})
        return self.state.runs[name]

    def move(self, request: Any, context: grpc.ServicerContext, method: str, to: int) -> coordinator.Run:
        self.state.enter(method, request, context)
        run = self.run(request.run_id, context)

        def answer() -> coordinator.Run:
            run.state = to
            return run

        return self.state.once(method, request.idempotency_key, answer)

    def CreateRun(self, request, context):
        self.state.enter("CreateRun", request, context)

        def answer():
            name = request.run_id or "from-the-file"
            run = coordinator.Run(run_id=name, state=coordinator.RUN_STATE_RUNNING, steps=80, by_hand=request.by_hand)
            run.created_at.FromSeconds(1_800_000_000)
            self.state.runs[name] = run
            return coordinator.CreateRunResponse(run=run)

        return self.state.once("CreateRun", request.idempotency_key, answer)

    def GetRun(self, request, context):
        self.state.enter("GetRun", request, context)
        return coordinator.GetRunResponse(run=self.run(request.run_id, context))

    def ListRuns(self, request, context):
        self.state.enter("ListRuns", request, context)
        runs = [run for run in self.state.runs.values() if not request.states or run.state in request.states]
        first = int(request.page_token or 0)
        after = str(first + 2) if first + 2 < len(runs) else ""
        return coordinator.ListRunsResponse(runs=runs[first : first + 2], next_page_token=after)

    def WatchRun(self, request, context):
        self.state.enter("WatchRun", request, context)
        self.run(request.run_id, context)
        alive = coordinator.WatchRunResponse()
        later = [event for event in self.state.events if event.position > request.after_position]
        context.add_callback(self.state.left.set)
        yield from streamed(self.state, "WatchRun", iter([alive, *later]), context)
        if self.state.stays_open:
            self.state.left.wait(30.0)

    def PauseRun(self, request, context):
        return coordinator.PauseRunResponse(run=self.move(request, context, "PauseRun", coordinator.RUN_STATE_PAUSED))

    def ResumeRun(self, request, context):
        return coordinator.ResumeRunResponse(run=self.move(request, context, "ResumeRun", coordinator.RUN_STATE_RUNNING))

    def StopRun(self, request, context):
        return coordinator.StopRunResponse(run=self.move(request, context, "StopRun", coordinator.RUN_STATE_DONE))

    def UpdateRun(self, request, context):
        self.state.enter("UpdateRun", request, context)
        run = self.run(request.run_id, context)
        return coordinator.UpdateRunResponse(effective_step=7, run=run)

    def ForkRun(self, request, context):
        self.state.enter("ForkRun", request, context)
        self.run(request.run_id, context)

        def answer():
            run = coordinator.Run(run_id=request.new_run_id, forked_from=request.run_id)
            self.state.runs[request.new_run_id] = run
            return coordinator.ForkRunResponse(run=run)

        return self.state.once("ForkRun", request.idempotency_key, answer)

    def ExportExamples(self, request, context):
        self.state.enter("ExportExamples", request, context)
        self.run(request.run_id, context)
        places = enumerate(self.state.applied, start=1)
        messages = (coordinator.ExportExamplesResponse(position=p, example=e) for p, e in places if p > request.after_position)
        yield from streamed(self.state, "ExportExamples", messages, context)

    def ListDeadLetters(self, request, context):
        self.state.enter("ListDeadLetters", request, context)
        return coordinator.ListDeadLettersResponse(dead_letters=[coordinator.DeadLetter(topic="pairs", deliveries=5)])

    def ListWorkers(self, request, context):
        self.state.enter("ListWorkers", request, context)
        with self.state.lock:
            fitting = [member for member in self.state.workers if request.role in (0, member.role)]
        return coordinator.ListWorkersResponse(workers=fitting)


class Rollout(rollout.RolloutServiceServicer):
    def __init__(self, state: State) -> None:
        self.state = state

    def Generate(self, request, context):
        self.state.enter("Generate", request, context)
        yield from streamed(self.state, "Generate", self.answers(request), context)

    def answers(self, request):
        # The last answers come first, as answers of different lengths may.
        for index in reversed(range(len(request.prompts))):
            for sample in reversed(range(request.num_generations)):
                word = "happy" if (index + sample) % 2 else "sad"
                text = f"{request.prompts[index].text} They were {word}."
                ids = list(hashlib.sha256(f"{text}{sample}".encode()).digest()[: 4 + sample])
                completion = common.Completion(
                    sample_index=sample,
                    player=common.PLAYER_POLICY,
                    model=common.ModelRef(version=self.state.version, hash=WEIGHTS),
                    token_ids=ids,
                    logprobs=[-0.5] * len(ids),
                    text=text,
                    finish=common.FINISH_EOS,
                )
                with_prompt = [1, 2, index] if sample == request.num_generations - 1 else []
                yield rollout.GenerateResponse(prompt_index=index, prompt_ids=with_prompt, completion=completion)


class Judge(judge.JudgeServiceServicer):
    def __init__(self, state: State) -> None:
        self.state = state

    def judgement(self, **value: Any) -> common.Judgement:
        provenance = common.Provenance(judge="happy", config_hash="cd" * 32, backend="rule")
        return common.Judgement(status=common.JUDGEMENT_STATUS_OK, provenance=provenance, **value)

    def strengths(self, candidates: Any) -> list[float]:
        return [1.0 * ("happy" in candidate.text) for candidate in candidates]

    def Score(self, request, context):
        self.state.enter("Score", request, context)
        scores = common.Scores(values=self.strengths(request.candidates))
        return judge.ScoreResponse(judgement=self.judgement(scores=scores))

    def JudgeBatch(self, request, context):
        self.state.enter("JudgeBatch", request, context)
        yield from streamed(self.state, "JudgeBatch", self.judgements(request), context)

    def judgements(self, request):
        for index in reversed(range(len(request.items))):
            item = request.items[index]
            strengths = self.strengths(item.candidates)
            if item.ask == judge.ASK_SCORE:
                made = self.judgement(scores=common.Scores(values=strengths))
            else:
                made = self.judgement(preference=0.5 + 0.4 * (strengths[0] - strengths[1]))
            yield judge.JudgeBatchResponse(index=index, judgement=made)

    def Compare(self, request, context):
        self.state.enter("Compare", request, context)
        first, second = self.strengths([request.first, request.second])
        return judge.CompareResponse(judgement=self.judgement(preference=0.5 + 0.4 * (first - second)))

    def Rank(self, request, context):
        self.state.enter("Rank", request, context)
        strengths = self.strengths(request.candidates)
        values = [0.5 + 0.4 * (mine - other) for mine in strengths for other in strengths]
        return judge.RankResponse(judgement=self.judgement(matrix=common.PreferenceMatrix(values=values)))


class Learner(learner.LearnerServiceServicer):
    def __init__(self, state: State) -> None:
        self.state = state

    def PutExamples(self, request, context):
        self.state.enter("PutExamples", request, context)

        def answer():
            for example in request.examples:
                check(example)
            new = {example.id: example for example in request.examples if example.id not in self.state.known}
            self.state.known |= new.keys()
            self.state.waiting.update(new)
            duplicates = len(request.examples) - len(new)
            return learner.PutExamplesResponse(added=len(new), duplicates=duplicates, waiting=len(self.state.waiting))

        return self.state.once("PutExamples", request.idempotency_key, answer)

    def TrainStep(self, request, context):
        self.state.enter("TrainStep", request, context)
        if not self.state.waiting and not self.state.answered.get(("TrainStep", request.idempotency_key)):
            refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "no example waits", "WRONG_STATE")

        lost = self.state.lost.pop("TrainStep", 0)

        def answer():
            step = len([key for key in self.state.answered if key[0] == "TrainStep"])
            trained = [self.state.waiting.pop(i) for i in request.example_ids or list(self.state.waiting)]
            self.state.applied += [coordinator.AppliedExample(example=example, step=step) for example in trained]
            self.state.version += request.publish
            return learner.TrainStepResponse(
                step=step, metrics={"loss": 0.5 / (1 + step)}, examples=len(trained), models=self.state.models()
            )

        response = self.state.once("TrainStep", request.idempotency_key, answer)
        if lost:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was cut before the answer")
        return response


def check(example: common.PreferenceExample) -> None:
    """Holds an example against what crates/proto/src/convert/example.rs wants of one."""
    assert len(example.id) == 16
    assert example.prompt_ids and len(example.answers) == 2
    assert example.target.WhichOneof("kind") == "pair" and 0.0 <= example.target.pair.p <= 1.0
    assert example.weight >= 0.0 and example.source == common.EXAMPLE_SOURCE_ONLINE and len(example.judge_hash) <= 128
    for answer in example.answers:
        assert len(answer.behavior_logprobs) == len(answer.token_ids)
        assert answer.player and answer.finish


def serve(state: State, credentials: grpc.ServerCredentials) -> grpc.Server:
    """Starts the services on a free port of this machine and makes one worker of each role."""
    server = grpc.server(ThreadPoolExecutor(max_workers=16))
    coordinator.add_CoordinatorServiceServicer_to_server(Coordinator(state), server)
    rollout.add_RolloutServiceServicer_to_server(Rollout(state), server)
    judge.add_JudgeServiceServicer_to_server(Judge(state), server)
    learner.add_LearnerServiceServicer_to_server(Learner(state), server)
    state.address = f"https://127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    roles = {"rollout-0": coordinator.ROLE_ROLLOUT, "judge-0": coordinator.ROLE_JUDGE, "learner-0": coordinator.ROLE_LEARNER}
    state.workers = [coordinator.Member(worker=name, role=role, address=state.address) for name, role in roles.items()]
    server.start()
    return server
