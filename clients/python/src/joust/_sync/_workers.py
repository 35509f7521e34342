# Made by generate.py from aio/_workers.py; do not edit.
"""The workers of a run: answering, judging and training by hand."""

from __future__ import annotations

import random
import secrets
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Literal

import grpc

from joust import proto
from joust._answers import gather_answers, gather_judgements
from joust._retry import Attempts
from joust._sync._caller import Caller, Request, Response, Target
from joust.errors import Error
from joust.records import Answers, Completion, Judgement, Prompt, Put, Step, to_candidate, to_prompt

READY_TIMEOUT = 60.0
"""How long a worker is waited for, in seconds."""
FRESH = 1.0
"""How long a list of workers is taken for that of now, in seconds."""


class Worker:
    """A worker that serves a run in a role: an attempt goes to one that was not tried before, where there is one."""

    def __init__(self, caller: Caller, coordinator_target: Target, run: str, role: proto.coordinator.Role) -> None:
        self._caller, self._coordinator = caller, coordinator_target
        self._run, self._role = run, role
        self._listed: tuple[list[str], float] = ([], 0.0)

    def channel(self, attempts: Attempts) -> grpc.Channel:
        """Returns the channel to one of the workers, and waits until there is one.

        Raises:
            Error: if none comes in time.
        """
        # What was listed a moment ago will do for a first attempt.
        ready, fresh_until = self._listed
        if attempts.made or time.monotonic() > fresh_until:
            ready = self._list(attempts)
        address = random.choice([address for address in ready if address not in attempts.tried] or ready)
        attempts.tried.add(address)
        return self._caller.channel(address)

    def _list(self, attempts: Attempts) -> list[str]:
        """Returns the addresses of the workers that take work, at least one."""
        until = min(attempts.until, time.monotonic() + READY_TIMEOUT)
        request = proto.coordinator.ListWorkersRequest(role=self._role, run_id=self._run)
        stub = proto.coordinator.CoordinatorServiceStub
        pause = 0.1
        while True:
            timeout = min(attempts.left(), self._caller.settings.timeout)
            listed = self._caller.unary(self._coordinator, lambda c: stub(c).ListWorkers, request, timeout)
            ready = [member.address for member in listed.workers if not member.draining]
            if ready:
                self._listed = ready, time.monotonic() + FRESH
                return ready
            if time.monotonic() + pause >= until:
                role = proto.coordinator.Role.Name(self._role).removeprefix("ROLE_").lower()
                message = f"no {role} worker serves run {self._run}; see whether the run is pending, and start a worker"
                raise Error(grpc.StatusCode.UNAVAILABLE, message)
            time.sleep(pause * random.random())
            pause = min(2.0 * pause, 2.0)


class Rollouts:
    """The rollout workers of a run."""

    def __init__(self, caller: Caller, worker: Worker, run: str) -> None:
        self._caller, self._worker, self._run = caller, worker, run

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        num_generations: int = 2,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int | None = None,
        players: Sequence[proto.common.Player] = (),
        policy_version: int | None = None,
        timeout: float | None = None,
    ) -> list[Answers]:
        """Answers prompts with the run's models.

        Args:
            prompts: 1 to 4096 texts or conversations.
            num_generations: answers to each, 1 to 1024.
            max_new_tokens: longest answer in tokens.
            temperature: of the softmax, at least 0; 0 takes the most probable token. Losses by policy gradient want 1.
            top_p: smallest mass of most probable tokens that is kept, in (0, 1].
            top_k: number of most probable tokens that are kept; 0 keeps all.
            seed: of the draws; None: another one each time.
            players: who answers, repeated up to `num_generations`; empty: the policy.
            policy_version: version that must answer, in publishes; None: the newest that the worker has.
            timeout: deadline in seconds; None: `work_timeout`.

        Returns:
            The answers to each prompt, in the order of the prompts.

        Raises:
            Error: if the call failed, or the answers of a prompt are missing.
        """
        request = proto.rollout.GenerateRequest(
            run_id=self._run,
            prompts=[to_prompt(prompt) for prompt in prompts],
            num_generations=num_generations,
            players=players,
            sampling=proto.rollout.Sampling(temperature=temperature, top_p=top_p, top_k=top_k, max_new_tokens=max_new_tokens),
            seed=secrets.randbits(64) if seed is None else seed,
            policy_version=policy_version,
        )
        timeout = self._caller.settings.work_timeout if timeout is None else timeout
        stub = proto.rollout.RolloutServiceStub
        responses = self._caller.gather(self._worker, lambda c: stub(c).Generate, request, timeout)
        return gather_answers(request, str(uuid.uuid4()), responses)


class Judges:
    """The judges of a run.

    `judge` names one; None: the only one, or the one named main. Answers are texts or completions. `notes` asks for what the judge
    has to say about each answer.
    """

    def __init__(self, caller: Caller, worker: Worker, run: str) -> None:
        self._caller, self._worker, self._run = caller, worker, run

    def score(
        self,
        prompt: Prompt,
        answers: Sequence[str | Completion],
        *,
        judge: str | None = None,
        seed: int = 0,
        notes: bool = False,
        timeout: float | None = None,
    ) -> Judgement:
        """Gives each of 1 to 1024 answers a number.

        Raises:
            Error: if the call failed; a judge that failed is a status of the judgement instead.
        """
        request = proto.judge.ScoreRequest(
            prompt=to_prompt(prompt),
            candidates=[to_candidate(answer) for answer in answers],
            options=self._options(judge, seed, notes),
        )
        response = self._call(lambda c: proto.judge.JudgeServiceStub(c).Score, request, timeout)
        return Judgement.of(response.judgement)

    def compare(
        self,
        prompt: Prompt,
        answers: Sequence[str | Completion],
        *,
        judge: str | None = None,
        seed: int = 0,
        notes: bool = False,
        timeout: float | None = None,
    ) -> Judgement:
        """Gives the probability that the first of 2 answers is preferred.

        Raises:
            Error: if the call failed; a judge that failed is a status of the judgement instead.
            ValueError: for another number of answers.
        """
        if len(answers) != 2:
            raise ValueError(f"{len(answers)} answers to compare, expected 2; judges.rank takes more")
        first, second = (to_candidate(answer) for answer in answers)
        options = self._options(judge, seed, notes)
        request = proto.judge.CompareRequest(prompt=to_prompt(prompt), first=first, second=second, options=options)
        response = self._call(lambda c: proto.judge.JudgeServiceStub(c).Compare, request, timeout)
        return Judgement.of(response.judgement)

    def rank(
        self,
        prompt: Prompt,
        answers: Sequence[str | Completion],
        *,
        judge: str | None = None,
        seed: int = 0,
        notes: bool = False,
        timeout: float | None = None,
    ) -> Judgement:
        """Gives the matrix of preferences between 2 to 64 answers.

        Raises:
            Error: if the call failed; a judge that failed is a status of the judgement instead.
        """
        request = proto.judge.RankRequest(
            prompt=to_prompt(prompt),
            candidates=[to_candidate(answer) for answer in answers],
            options=self._options(judge, seed, notes),
        )
        response = self._call(lambda c: proto.judge.JudgeServiceStub(c).Rank, request, timeout)
        return Judgement.of(response.judgement)

    def batch(
        self,
        ask: Literal["score", "compare", "rank"],
        asked: Sequence[Answers],
        *,
        judge: str | None = None,
        seed: int = 0,
        notes: bool = False,
        timeout: float | None = None,
    ) -> list[Judgement]:
        """Judges the answers to 1 to 4096 prompts in one call, which a judge that waits for a model works on side by side.

        Args:
            ask: what is asked about the answers to each prompt.
            asked: the answers, as `rollouts.generate` gives them.
            judge: name of the judge.
            seed: for judges that draw.
            notes: whether the judge is to write about each answer.
            timeout: deadline in seconds; None: `work_timeout`.

        Returns:
            A judgement for each, in their order; each has a status of its own.

        Raises:
            Error: if the call failed, or a judgement is missing.
        """
        kind = f"ASK_{ask.upper()}"
        items = [proto.judge.JudgeItem(ask=kind, prompt=one.prompt, candidates=map(to_candidate, one)) for one in asked]
        request = proto.judge.JudgeBatchRequest(items=items, options=self._options(judge, seed, notes))
        stub = proto.judge.JudgeServiceStub
        timeout = self._caller.settings.work_timeout if timeout is None else timeout
        responses = self._caller.gather(self._worker, lambda c: stub(c).JudgeBatch, request, timeout)
        return gather_judgements(len(items), responses)

    def _options(self, judge: str | None, seed: int, notes: bool) -> proto.judge.JudgeOptions:
        return proto.judge.JudgeOptions(judge=judge or "", run_id=self._run, seed=seed, notes=notes, idempotency_key=str(uuid.uuid4()))

    def _call(
        self,
        method: Callable[[grpc.Channel], grpc.UnaryUnaryMultiCallable[Request, Response]],
        request: Request,
        timeout: float | None,
    ) -> Response:
        timeout = self._caller.settings.work_timeout if timeout is None else timeout
        return self._caller.unary(self._worker, method, request, timeout)


class Learner:
    """The learner of a run whose steps are called for by hand."""

    def __init__(self, caller: Caller, worker: Worker, run: str) -> None:
        self._caller, self._worker, self._run = caller, worker, run

    def put_examples(self, examples: Sequence[proto.common.PreferenceExample]) -> Put:
        """Hands over 1 to 4096 examples; one whose id is known changes nothing.

        Raises:
            Error: if the call failed.
        """
        request = proto.learner.PutExamplesRequest(run_id=self._run, examples=examples, idempotency_key=str(uuid.uuid4()))
        stub = proto.learner.LearnerServiceStub
        put = self._caller.unary(self._worker, lambda c: stub(c).PutExamples, request)
        return Put(put.added, put.duplicates, put.waiting)

    def train_step(self, *, publish: bool = True, example_ids: Sequence[bytes] = (), timeout: float | None = None) -> Step:
        """Trains one step on examples that were put.

        Args:
            publish: whether the weights are published after it.
            example_ids: ids of those to train on, in order; empty: the oldest that wait, up to the run's step size.
            timeout: deadline in seconds; None: `work_timeout`.

        Raises:
            Error: if the call failed; after `DEADLINE_EXCEEDED` the step may have been trained.
        """
        request = proto.learner.TrainStepRequest(
            run_id=self._run, example_ids=example_ids, publish=publish, idempotency_key=str(uuid.uuid4())
        )
        timeout = self._caller.settings.work_timeout if timeout is None else timeout
        stub = proto.learner.LearnerServiceStub
        return Step.of(self._caller.unary(self._worker, lambda c: stub(c).TrainStep, request, timeout))
