"""When a failed call is made again: the rules are pure, with the random number as an argument."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import grpc

from joust.errors import Error


@dataclass(frozen=True)
class Retry:
    """How often and how fast a call is made again."""

    attempts: int = 5
    """Attempts in all, the first included."""
    base: float = 0.05
    """Upper end of the first pause in seconds; each later one is twice as long."""
    longest: float = 2.0
    """Longest pause in seconds."""

    def pause(self, error: Error, made: int, unit: float) -> float | None:
        """Returns the seconds before the next attempt; None for what a repeat cannot mend.

        Args:
            error: how the call failed.
            made: attempts that were made, from 1.
            unit: a uniform number in [0, 1): full jitter.
        """
        if made >= self.attempts or not mendable(error):
            return None
        return (error.retry_after or 0.0) + unit * self.upper(made)

    def upper(self, made: int) -> float:
        """Returns the longest pause in seconds after so many attempts."""
        return min(self.base * 2.0 ** min(made - 1, 16), self.longest)


def mendable(error: Error) -> bool:
    """Returns whether the same call can succeed later."""
    if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return error.retry_after is not None
    return error.code is grpc.StatusCode.UNAVAILABLE


class Attempts:
    """The attempts of one call under one deadline."""

    def __init__(self, retry: Retry, timeout: float) -> None:
        self.until = time.monotonic() + timeout
        self.made = 0
        self.tried: set[str] = set()
        """Addresses of workers that were asked."""
        self._retry = retry

    def left(self) -> float:
        """Returns the seconds to the deadline, above 0 since gRPC would take 0 for none."""
        return max(self.until - time.monotonic(), 0.001)

    def pause_after(self, failed: grpc.RpcError) -> float:
        """Returns the seconds before the next attempt.

        Raises:
            Error: if there is none.
        """
        self.made += 1
        error = Error.of(failed)
        pause = self._retry.pause(error, self.made, random.random())
        if pause is None or time.monotonic() + pause >= self.until:
            raise error from None
        return pause


class Patience:
    """How long a stream that is cut again and again is taken up: until nothing has come for so many seconds."""

    def __init__(self, retry: Retry, seconds: float) -> None:
        self._retry = retry
        self._seconds = seconds
        self.heard()

    def heard(self) -> None:
        """Notes that something came."""
        self._cuts = 0
        self._last = time.monotonic()

    def pause_after(self, failed: grpc.RpcError) -> float:
        """Returns the seconds before the stream is taken up.

        Raises:
            Error: for what that cannot mend, and when patience ends.
        """
        error = Error.of(failed)
        if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return 0.0  # the stream's own deadline, which only bounds how long a server that is lost goes unnoticed
        self._cuts += 1
        pause = (error.retry_after or 0.0) + random.random() * self._retry.upper(self._cuts)
        if not mendable(error) or time.monotonic() + pause - self._last > self._seconds:
            raise error from None
        return pause
