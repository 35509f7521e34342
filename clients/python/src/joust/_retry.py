"""When a failed call is made again: the rules are pure, with the random number as an argument."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass

import grpc

from joust.errors import Error

STREAM_TIMEOUT = 300.0


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
    """How long a stream is followed: to a deadline, and no longer than so many seconds behind a cut without a message."""

    def __init__(self, retry: Retry, seconds: float, timeout: float | None = None) -> None:
        self._retry = retry
        self._seconds = seconds
        self._give_up = math.inf
        self._until = math.inf if timeout is None else time.monotonic() + timeout
        self.heard()

    def heard(self) -> None:
        """Notes that something came."""
        self._cuts = 0

    def stream_timeout(self) -> float:
        """Returns the deadline of the next stream in seconds; behind it another one goes on, so that no stream waits for ever."""
        return max(min(STREAM_TIMEOUT, self._until - time.monotonic()), 0.001)

    def pause_after(self, failed: grpc.RpcError) -> float:
        """Returns the seconds before the stream is taken up.

        Raises:
            Error: for what that cannot mend, when patience ends, and at the deadline.
        """
        error = Error.of(failed)
        if error.code is grpc.StatusCode.DEADLINE_EXCEEDED and time.monotonic() < self._until:
            return 0.0
        if self._cuts == 0:
            self._give_up = time.monotonic() + self._seconds
        self._cuts += 1
        pause = (error.retry_after or 0.0) + random.random() * self._retry.upper(self._cuts)
        again = time.monotonic() + pause
        if not mendable(error) or again > min(self._give_up, self._until):
            raise error from None
        return pause
