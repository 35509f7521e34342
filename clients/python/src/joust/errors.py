"""What goes wrong: calls that fail, settings that do not fit, runs that end without a result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from joust.records import RunInfo

DOMAIN = "joust"
PACKED = "grpc-status-details-bin"


class ConfigError(Exception):
    """A setting of the client cannot be used: no cluster file, no token, an address without a port."""


@dataclass(frozen=True)
class Violation:
    """One field of a request that cannot be used."""

    field: str
    """Path of the field, for example `examples[3].weight`."""
    description: str
    """Its value and what is wanted."""


class Error(Exception):
    """A failed call.

    Attributes:
        code: the gRPC code.
        message: what happened, for people.
        reason: the name in the table of docs/operations.md, for example `UNKNOWN_RUN`; empty where no service of joust made the error.
        details: names and values for programs, for example the state of the run.
        violations: the fields that cannot be used.
        retry_after: seconds after which the same call can succeed; None where the service does not say.
    """

    def __init__(self, code: grpc.StatusCode, message: str, *, reason: str = "", packed: bytes = b"") -> None:
        self.code = code
        self.message = message
        self.reason = reason
        self.details: Mapping[str, str] = {}
        self.violations: Sequence[Violation] = ()
        self.retry_after: float | None = None
        self._unpack(packed)
        super().__init__(message)

    def __str__(self) -> str:
        lines = [f"{self.message or 'the call failed'} [{self.reason or self.code.name}]"]
        unsaid = (violation for violation in self.violations if violation.field not in self.message)
        return "\n".join([*lines, *(f"  {violation.field}: {violation.description}" for violation in unsaid)])

    @classmethod
    def of(cls, error: grpc.RpcError) -> Error:
        """Reads a gRPC error with the details that came with it."""
        if not isinstance(error, (grpc.Call, grpc.aio.AioRpcError)):
            return cls(grpc.StatusCode.UNKNOWN, str(error))
        packed = dict(error.trailing_metadata() or ()).get(PACKED, b"")
        code = error.code() or grpc.StatusCode.UNKNOWN
        found = cls(code, error.details() or "", packed=packed if isinstance(packed, bytes) else b"")
        if code is grpc.StatusCode.UNAVAILABLE and not found.reason:
            found.message = f"the server cannot be reached: {found.message}"
        return found

    def _unpack(self, packed: bytes) -> None:
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        for detail in _unpacked(packed):
            if detail.Unpack(info) and info.domain == DOMAIN:
                self.reason, self.details = info.reason, dict(info.metadata)
            elif detail.Unpack(bad):
                self.violations = tuple(Violation(v.field, v.description) for v in bad.field_violations)
            elif detail.Unpack(retry):
                self.retry_after = retry.retry_delay.ToNanoseconds() / 1e9


def _unpacked(packed: bytes) -> Iterator[Any]:
    """Yields the details; none for bytes that are no status, since code and message still say what happened."""
    try:
        yield from status_pb2.Status.FromString(packed).details
    except DecodeError:
        return


class RunFailed(Exception):
    """A run ended without a result; `info.reason` says why."""

    def __init__(self, info: RunInfo) -> None:
        self.info = info
        super().__init__(f"run {info.name} failed after {info.steps_done} of {info.steps} steps: {info.reason}")
