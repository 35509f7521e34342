"""Where the cluster is, how its certificate is known, and with what token it is called."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from joust._retry import Retry
from joust.errors import ConfigError

FILE = "cluster.json"
FOLDER = ".joust"
VARIABLE = "JOUST_CLUSTER"


@dataclass(frozen=True)
class Address:
    """Where a service is."""

    target: str
    """Host and port."""
    secure: bool
    """Whether it is called over TLS."""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads a URI with host and port; without a scheme it is https.

        Raises:
            ConfigError: for a text that is no such URI.
        """
        parts = urlsplit(text if "://" in text else f"https://{text}")
        try:
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port
        except ValueError:
            valid = False
        if not valid:
            raise ConfigError(f"address {text!r} cannot be used, expected https://HOST:PORT")
        return cls(parts.netloc, parts.scheme == "https")

    def stays_here(self) -> bool:
        """Returns whether calls do not leave this machine."""
        host = urlsplit(f"//{self.target}").hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


@dataclass(frozen=True)
class Token:
    """A bearer token, as text or in a file."""

    text: str | None = field(default=None, repr=False)
    file: Path | None = None

    @classmethod
    def of(cls, text: str | None, file: str | os.PathLike[str] | None) -> Token:
        """Takes the one that is named.

        Raises:
            ConfigError: for both.
        """
        if text is not None and file is not None:
            raise ConfigError("token and token_file are both passed, expected one of them")
        return cls(text, None if file is None else Path(file))

    def read(self) -> str | None:
        """Returns the token of now: a file is read again, since operators exchange tokens; None for calls without one.

        Raises:
            ConfigError: for a file that cannot be read or is empty.
        """
        if self.file is None:
            return self.text
        try:
            text = self.file.read_text().strip()
        except OSError as error:
            raise ConfigError(f"token file {self.file} cannot be read: {error.strerror}") from None
        if not text:
            raise ConfigError(f"token file {self.file} is empty; put the token in it")
        return text


@dataclass(frozen=True)
class Settings:
    """How the cluster is called."""

    address: str
    """Where the coordinator is."""
    ca: bytes | None = None
    """Certificates, PEM, that the servers' are signed with; None: the system's."""
    identity: tuple[bytes, bytes] | None = field(default=None, repr=False)
    """Key and certificates of the client, PEM; only for clusters that want one on every connection."""
    token: Token = field(default_factory=Token)
    """With what token."""
    timeout: float = 30.0
    """Deadline of a call in seconds."""
    work_timeout: float = 600.0
    """Deadline of a call that samples, judges or trains, in seconds."""
    retry: Retry = field(default_factory=Retry)
    """When calls are made again."""


def find(cluster: str | os.PathLike[str] | None, address: str | None = None) -> Settings:
    """Returns what the cluster file says, with the address that is named; a named address alone needs no file.

    Raises:
        ConfigError: if there is no file, or it cannot be used.
    """
    if address is None:
        return read(find_file(cluster))
    return Settings(address) if cluster is None else replace(read(find_file(cluster)), address=address)


def find_file(cluster: str | os.PathLike[str] | None) -> Path:
    """Returns the cluster file: of the folder named, else of $JOUST_CLUSTER, else of the nearest `.joust` from here upwards.

    Raises:
        ConfigError: if there is none.
    """
    named = cluster or os.environ.get(VARIABLE)
    here = Path.cwd()
    folders = [Path(named)] if named else [folder / FOLDER for folder in (here, *here.parents)]
    for folder in folders:
        path = folder if folder.name == FILE else folder / FILE
        if path.is_file():
            return path
    looked = f"{folders[0]}" if named else f"{FOLDER} in {here} and the folders above it"
    raise ConfigError(
        f"no cluster file: looked for {FILE} in {looked}; start a cluster with `joust up`, name its folder in ${VARIABLE}, "
        "or pass address=, ca= and token_file="
    )


def read(path: Path) -> Settings:
    """Reads a cluster file; relative paths in it start from its folder.

    Raises:
        ConfigError: for a file that cannot be used.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict) or content.get("schema") != 1:
        schema = content.get("schema") if isinstance(content, dict) else None
        raise ConfigError(f"{path}: schema is {schema!r}, expected 1; use the client of the cluster's version")
    folder = path.parent
    token_file = _text(content, "token_file", path, needed=False)
    ca = _text(content, "ca", path, needed=False)
    return Settings(
        address=_text(content, "coordinator", path) or "",
        ca=pem(folder / ca) if ca else None,
        token=Token(file=folder / token_file if token_file else None),
    )


def pem(path: str | os.PathLike[str]) -> bytes:
    """Reads a file of certificates or with a key.

    Raises:
        ConfigError: for a file that cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"PEM file {path} cannot be read: {error.strerror}") from None


def identity(cert: str | os.PathLike[str] | None, key: str | os.PathLike[str] | None) -> tuple[bytes, bytes] | None:
    """Reads the files of a client's certificate and key, and returns the key first.

    Raises:
        ConfigError: for one without the other, and for a file that cannot be read.
    """
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise ConfigError("client_cert and client_key belong together; pass both, or neither")
    return pem(key), pem(cert)


def _text(content: Mapping[str, object], key: str, path: Path, needed: bool = True) -> str | None:
    value = content.get(key)
    if (isinstance(value, str) and value) or (value is None and not needed):
        return value
    raise ConfigError(f"{path}: {key} is {value!r}, expected a text")
