"""Token, deadline, repeats and errors of calls."""

import threading
import time
from pathlib import Path

import grpc
import pytest

import fake
import joust
from joust._retry import Patience, Retry
from joust.proto import coordinator

TEXT = "schema = 1\n"


def unavailable(context: grpc.ServicerContext) -> None:
    fake.refuse(context, grpc.StatusCode.UNAVAILABLE, "the service takes no more work", "DRAINING")


def test_every_call_has_token_and_deadline(cluster: joust.Cluster, run: joust.Run, state: fake.State) -> None:
    run.info()
    list(run.watch())
    run.rollouts.generate(["Once"])
    run.learner.put_examples([])
    assert {call.metadata.get("authorization") for call in state.calls} == {f"Bearer {fake.TOKEN}"}
    for call in state.calls:
        longest = {"Generate": 600.0, "WatchRun": 300.0}.get(call.method, 30.0)
        # gRPC rounds a deadline up to what its header can hold.
        assert call.remaining is not None and longest - 10.0 < call.remaining <= 1.01 * longest, call.method


def test_the_deadline_can_be_set(folder: Path, state: fake.State) -> None:
    begun, release = threading.Event(), threading.Event()

    def wait(_: grpc.ServicerContext) -> None:
        begun.set()
        release.wait(30.0)

    state.failures["ListRuns"].append(wait)
    with joust.connect(folder, timeout=0.5) as cluster, pytest.raises(joust.Error) as failed:
        cluster.runs.list()
    release.set()
    assert begun.is_set()
    assert failed.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert state.calls[0].remaining is not None and state.calls[0].remaining <= 0.5


def test_a_repeat_carries_the_same_key(cluster: joust.Cluster, state: fake.State) -> None:
    state.failures["CreateRun"] += [unavailable, unavailable]
    cluster.runs.start(TEXT, name="one")
    cluster.runs.start(TEXT, name="two")
    keys = [call.request.idempotency_key for call in state.seen("CreateRun")]
    assert len(keys) == 4
    assert len(set(keys[:3])) == 1
    assert keys[3] != keys[0]


def test_an_answer_that_was_lost_is_not_made_twice(run: joust.Run, state: fake.State) -> None:
    put(run)
    state.lost["TrainStep"] = 1
    assert run.learner.train_step().step == 0
    assert len(state.seen("TrainStep")) == 2
    put(run)
    assert run.learner.train_step().step == 1, "the step whose answer was lost was trained once"


def put(run: joust.Run) -> None:
    answers = run.rollouts.generate(["Once"])[0]
    example = joust.pair(answers, run.judges.score(answers.prompt, answers))
    assert example is not None
    run.learner.put_examples([example])


def test_a_call_is_given_up_after_five_attempts(cluster: joust.Cluster, state: fake.State) -> None:
    state.failures["ListRuns"] += [unavailable] * 9
    with pytest.raises(joust.Error, match=r"the service takes no more work \[DRAINING\]"):
        cluster.runs.list()
    assert len(state.seen("ListRuns")) == 5


def test_the_service_says_when_to_come_again(cluster: joust.Cluster, state: fake.State) -> None:
    def full(context: grpc.ServicerContext) -> None:
        fake.refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "topic a/pairs is full", "QUEUE_FULL", retry_ms=200)

    state.failures["ListRuns"] += [full]
    began = time.monotonic()
    cluster.runs.list()
    assert time.monotonic() - began >= 0.2
    assert len(state.seen("ListRuns")) == 2


def test_what_a_repeat_cannot_mend_is_not_repeated(cluster: joust.Cluster, state: fake.State) -> None:
    codes = [code for code in grpc.StatusCode if code not in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)]
    for code in codes:
        state.failures["ListRuns"].append(lambda context, code=code: context.abort(code, "no"))
        with pytest.raises(joust.Error) as failed:
            cluster.runs.list()
        assert failed.value.code is code
        assert str(failed.value) == f"no [{code.name}]"
    assert len(state.seen("ListRuns")) == len(codes)


def test_pauses_have_full_jitter() -> None:
    retry, error = Retry(), joust.Error(grpc.StatusCode.UNAVAILABLE, "x")
    pauses = [retry.pause(error, made, 0.5) for made in (1, 2, 3, 4, 5)]
    assert pauses == [0.025, 0.05, 0.1, 0.2, None]
    assert retry.pause(error, 4, 0.0) == 0.0
    error.retry_after = 0.3
    assert retry.pause(error, 1, 0.5) == pytest.approx(0.325)


def test_patience_ends() -> None:
    class Cut(grpc.RpcError, grpc.Call):
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.UNAVAILABLE

        def details(self) -> str:
            return "gone"

        def trailing_metadata(self) -> None:
            return None

    Cut.__abstractmethods__ = frozenset()
    assert Patience(Retry(), 60.0).pause_after(Cut()) <= 0.05
    with pytest.raises(joust.Error, match="gone"):
        Patience(Retry(), -1.0).pause_after(Cut())
    with pytest.raises(joust.Error, match="gone"):
        Patience(Retry(), 60.0, timeout=0.0).pause_after(Cut())


def test_errors_say_what_and_why(cluster: joust.Cluster, state: fake.State) -> None:
    with pytest.raises(joust.Error) as failed:
        cluster.runs.get("nowhere")
    error = failed.value
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_RUN")
    assert error.details == {"run_id": "nowhere"}
    assert str(error) == "there is no run 'nowhere'; list the runs [UNKNOWN_RUN]"


def test_fields_that_cannot_be_used_are_named(cluster: joust.Cluster, state: fake.State) -> None:
    def bad(context: grpc.ServicerContext) -> None:
        violations = {"overrides[0].value": "is 'x', expected a number", "run_toml": "has no policy.model"}
        message = "2 fields cannot be used, overrides[0].value first"
        fake.refuse(context, grpc.StatusCode.INVALID_ARGUMENT, message, "INVALID_FIELD", violations=violations)

    state.failures["CreateRun"] += [bad]
    with pytest.raises(joust.Error) as failed:
        cluster.runs.start(TEXT)
    assert [violation.field for violation in failed.value.violations] == ["overrides[0].value", "run_toml"]
    expected = "2 fields cannot be used, overrides[0].value first [INVALID_FIELD]\n  run_toml: has no policy.model"
    assert str(failed.value) == expected


def test_what_a_proxy_says_is_no_reason_of_joust(cluster: joust.Cluster, state: fake.State) -> None:
    def proxy(context: grpc.ServicerContext) -> None:
        fake.refuse(context, grpc.StatusCode.PERMISSION_DENIED, "not from here", "UNKNOWN_RUN", {"a": "b"}, domain="proxy.example")

    state.failures["ListRuns"] += [proxy]
    with pytest.raises(joust.Error) as failed:
        cluster.runs.list()
    assert (failed.value.reason, failed.value.details, str(failed.value)) == ("", {}, "not from here [PERMISSION_DENIED]")


def test_a_server_that_is_not_there_is_an_error(folder: Path) -> None:
    address = "https://127.0.0.1:1"
    with joust.connect(folder, address=address) as cluster, pytest.raises(joust.Error) as failed:
        cluster.runs.list()
    assert failed.value.code is grpc.StatusCode.UNAVAILABLE
    assert str(failed.value).startswith("the server cannot be reached: ")
    assert "127.0.0.1:1" in str(failed.value)


def test_any_call_of_the_wire_can_be_made(cluster: joust.Cluster, state: fake.State) -> None:
    request = coordinator.ListDeadLettersRequest(run_id="stories")
    state.failures["ListDeadLetters"] += [unavailable]
    letters = cluster.call(lambda c: coordinator.CoordinatorServiceStub(c).ListDeadLetters, request)
    assert [letter.topic for letter in letters.dead_letters] == ["pairs"]
    stub = coordinator.CoordinatorServiceStub(cluster.channel())
    assert stub.ListDeadLetters(request, metadata=cluster.metadata(), timeout=5.0) == letters
