"""The cluster: where calls begin."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType

import grpc
import grpc.aio

from joust import _settings, _toml
from joust._run_file import read_run
from joust._settings import Settings, Token
from joust._toml import Setting
from joust.aio._caller import Caller, Fixed, Request, Response, Target
from joust.aio._run import Run
from joust.proto import coordinator
from joust.records import RunInfo, RunState

PAGE = 1000


def connect(
    cluster: str | os.PathLike[str] | None = None,
    *,
    address: str | None = None,
    ca: str | os.PathLike[str] | None = None,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    client_cert: str | os.PathLike[str] | None = None,
    client_key: str | os.PathLike[str] | None = None,
    timeout: float = 30.0,
    work_timeout: float = 600.0,
) -> Cluster:
    """Sets up calls to a cluster; the connection is made by the first one.

    The cluster file that `joust up` wrote says where the cluster is: that of `cluster`, else of $JOUST_CLUSTER, else of
    `.joust` in this folder or the nearest one above it. What is passed besides takes the place of what the file says.

    Args:
        cluster: folder of the cluster file.
        address: the coordinator, https://HOST:PORT; no cluster file is looked for then, unless `cluster` names one.
        ca: file of the certificates, PEM, that the servers' are signed with; None: that of the cluster file, else the system's.
        token: the bearer token.
        token_file: a file with it, which is read again when it changes.
        client_cert: file of a client certificate, PEM, for clusters that want one on every connection (`tls.require_client`).
        client_key: file of its key, PEM.
        timeout: deadline of a call in seconds.
        work_timeout: deadline of a call that samples, judges or trains, in seconds.

    Raises:
        ConfigError: if there is no cluster file, or what it or a call's arguments say cannot be used.
    """
    settings = _settings.find(cluster, address)
    if ca is not None:
        settings = replace(settings, ca=_settings.pem(ca))
    settings = replace(settings, identity=_settings.identity(client_cert, client_key))
    if token is not None or token_file is not None:
        settings = replace(settings, token=Token.of(token, token_file))
    return Cluster(replace(settings, timeout=timeout, work_timeout=work_timeout))


class Cluster:
    """A cluster of joust; close it, or use it in a `with` statement.

    Attributes:
        runs: its runs.
    """

    def __init__(self, settings: Settings) -> None:
        self._caller = Caller(settings)
        self._coordinator = Fixed(self._caller, settings.address)
        self._caller.channel(settings.address)  # so that an address that cannot be used is an error now
        self.runs = Runs(self._caller, self._coordinator)

    async def call(
        self,
        method: Callable[[grpc.aio.Channel], grpc.aio.UnaryUnaryMultiCallable[Request, Response]],
        request: Request,
        *,
        address: str | None = None,
        timeout: float | None = None,
    ) -> Response:
        """Makes a call that has no function here, with token, deadline and repeats.

        Args:
            method: the stub's method, for example `lambda c: proto.coordinator.CoordinatorServiceStub(c).ListDeadLetters`.
            request: what is sent; the caller sets the idempotency key.
            address: who is called; None: the coordinator.
            timeout: deadline in seconds; None: that of the cluster.

        Raises:
            Error: if the call failed.
        """
        target = self._coordinator if address is None else Fixed(self._caller, address)
        return await self._caller.unary(target, method, request, timeout)

    def channel(self, address: str | None = None) -> grpc.aio.Channel:
        """Returns the channel to the coordinator or to an address, for stubs of one's own; their calls want `metadata()` and a timeout.

        Raises:
            ConfigError: for an address that cannot be used.
        """
        return self._caller.channel(self._caller.settings.address if address is None else address)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns the metadata that every call needs: the token.

        Raises:
            ConfigError: for a token file that cannot be read.
        """
        return self._caller.metadata()

    async def close(self) -> None:
        """Closes all connections."""
        await self._caller.close()

    async def __aenter__(self) -> Cluster:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


class Runs:
    """The runs of a cluster."""

    def __init__(self, caller: Caller, target: Target) -> None:
        self._caller, self._target = caller, target

    async def start(
        self,
        run: str | os.PathLike[str],
        overrides: Mapping[str, Setting] | None = None,
        *,
        by_hand: bool = False,
        name: str | None = None,
        folder: str | None = None,
    ) -> Run:
        """Makes a run; it is pending until a learner is free.

        Args:
            run: path of a run file, or its text (which has more than one line).
            overrides: changes to it, by dotted key, for example `{"loss.beta": 0.2}`.
            by_hand: whether its steps are called for by `run.learner.train_step` instead of being fed from the queue.
            name: name of the run; None: the one that the file says.
            folder: folder on the cluster that relative paths of the file start from; None: that of the file, or of a text the cluster's
                first root. A cluster on another machine wants it named.

        Raises:
            Error: if the call failed.
            OSError: if the file cannot be read.
            TypeError: for a value that a run file cannot hold.
        """
        text, beside = read_run(run)
        request = coordinator.CreateRunRequest(
            run_toml=text,
            overrides=_toml.overrides(overrides),
            run_id=name or "",
            idempotency_key=str(uuid.uuid4()),
            by_hand=by_hand,
            folder=beside if folder is None else folder,
        )
        stub = coordinator.CoordinatorServiceStub
        response = await self._caller.unary(self._target, lambda c: stub(c).CreateRun, request)
        return Run(self._caller, self._target, response.run.run_id)

    async def get(self, name: str) -> Run:
        """Returns a run that exists.

        Raises:
            Error: if there is none of this name, or the call failed.
        """
        run = Run(self._caller, self._target, name)
        await run.info()
        return run

    async def list(self, states: Sequence[RunState] = ()) -> list[RunInfo]:
        """Lists runs, newest first.

        Args:
            states: states that are wanted; empty: all.

        Raises:
            Error: if the call failed.
        """
        wanted = [f"RUN_STATE_{state.name}" for state in states]
        request = coordinator.ListRunsRequest(states=wanted, page_size=PAGE)
        stub = coordinator.CoordinatorServiceStub
        found: list[RunInfo] = []
        while True:
            page = await self._caller.unary(self._target, lambda c: stub(c).ListRuns, request)
            found += [RunInfo.of(run) for run in page.runs]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token
