# Made by generate.py from aio/_caller.py; do not edit.
"""Calls: TLS, token, a deadline on every call, and repeats of what a repeat can mend.

Every RPC of joust is a read or carries an idempotency key, so each may be made again with the same request.
"""

from __future__ import annotations

import time
import copy
from collections.abc import Iterator, Callable
from typing import Protocol, TypeVar

import grpc

from joust._retry import Attempts, Patience
from joust._settings import Address, Settings
from joust.errors import ConfigError

Request = TypeVar("Request")
Response = TypeVar("Response")

MAX_MESSAGE_BYTES = 16 << 20
OPTIONS = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A peer that vanished without a word is noticed on a stream that waits.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Repeats are ours (`Retry`), so the connection must be tried again as fast as they come.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


class Asks(Protocol):
    """A request whose stream goes on behind a position."""

    after_position: int


class Placed(Protocol):
    """A message that says its place in a stream; 0 for one that only keeps the stream alive."""

    @property
    def position(self) -> int:
        """Place, from 1."""


AsksT = TypeVar("AsksT", bound=Asks)
PlacedT = TypeVar("PlacedT", bound=Placed)


class Target(Protocol):
    """Who is called: one address, or one of several workers."""

    def channel(self, attempts: Attempts) -> grpc.Channel:
        """Returns the channel for the next attempt."""


class Caller:
    """Makes calls; channels are shared, and connections are made by the first calls."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._channels: dict[str, grpc.Channel] = {}

    def channel(self, address: str) -> grpc.Channel:
        """Returns the channel to an address.

        Raises:
            ConfigError: for an address that cannot be used, and one to which the token would go in the clear.
        """
        if address not in self._channels:
            self._channels[address] = self._open(Address.parse(address))
        return self._channels[address]

    def _open(self, address: Address) -> grpc.Channel:
        if address.secure:
            key, certificate = self.settings.identity or (None, None)
            credentials = grpc.ssl_channel_credentials(self.settings.ca, key, certificate)
            return grpc.secure_channel(address.target, credentials, options=OPTIONS)
        if self.settings.token.read() is not None and not address.stays_here():
            raise ConfigError(f"the token would go to http://{address.target} in the clear; use https")
        return grpc.insecure_channel(address.target, options=OPTIONS)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns the metadata of a call: the token of now.

        Raises:
            ConfigError: for a token file that cannot be read.
        """
        token = self.settings.token.read()
        return () if token is None else (("authorization", f"Bearer {token}"),)

    def unary(
        self,
        target: Target,
        method: Callable[[grpc.Channel], grpc.UnaryUnaryMultiCallable[Request, Response]],
        request: Request,
        timeout: float | None = None,
    ) -> Response:
        """Makes a call and returns its answer.

        Args:
            target: who is called.
            method: the stub's method, by channel.
            request: what is sent, the same in each attempt.
            timeout: deadline in seconds over all attempts; None: that of the settings.

        Raises:
            Error: if the call failed.
        """
        attempts = Attempts(self.settings.retry, self.settings.timeout if timeout is None else timeout)
        while True:
            channel = target.channel(attempts)
            try:
                return method(channel)(request, timeout=attempts.left(), metadata=self.metadata())
            except grpc.RpcError as error:
                pause = attempts.pause_after(error)
            time.sleep(pause)

    def gather(
        self,
        target: Target,
        method: Callable[[grpc.Channel], grpc.UnaryStreamMultiCallable[Request, Response]],
        request: Request,
        timeout: float | None = None,
    ) -> list[Response]:
        """Makes a call and returns all messages of its answer, of the one attempt that came to its end; else as `unary`."""
        attempts = Attempts(self.settings.retry, self.settings.timeout if timeout is None else timeout)
        while True:
            channel = target.channel(attempts)
            try:
                call = method(channel)(request, timeout=attempts.left(), metadata=self.metadata())
                return [response for response in call]
            except grpc.RpcError as error:
                pause = attempts.pause_after(error)
            time.sleep(pause)

    def follow(
        self,
        target: Target,
        method: Callable[[grpc.Channel], grpc.UnaryStreamMultiCallable[AsksT, PlacedT]],
        request: AsksT,
        patience: Patience,
    ) -> Iterator[PlacedT]:
        """Yields the messages of a stream, each once, and takes a stream that was cut up behind the last one.

        Args:
            target: who is called.
            method: the stub's method, by channel.
            request: what is asked for; `after_position` is the caller's to set and this method's to move on in its copy.
            patience: how long it is taken up.

        Raises:
            Error: if the call failed.
        """
        request = copy.deepcopy(request)
        while True:
            channel = target.channel(Attempts(self.settings.retry, self.settings.timeout))
            call = method(channel)(request, timeout=patience.stream_timeout(), metadata=self.metadata())
            try:
                for response in call:
                    patience.heard()
                    if response.position > request.after_position:
                        request.after_position = response.position
                        yield response
                return
            except grpc.RpcError as error:
                pause = patience.pause_after(error)
            finally:
                call.cancel()
            time.sleep(pause)

    def close(self) -> None:
        """Closes all connections."""
        while self._channels:
            self._channels.popitem()[1].close()


class Fixed:
    """One address."""

    def __init__(self, caller: Caller, address: str) -> None:
        self._caller, self._address = caller, address

    def channel(self, attempts: Attempts) -> grpc.Channel:
        """Returns the channel to the address."""
        return self._caller.channel(self._address)
