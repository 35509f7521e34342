"""Changes of settings as the wire wants them: a dotted key and a value in TOML."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from joust.proto import coordinator

Setting: TypeAlias = "bool | int | float | str | Sequence[Setting] | Mapping[str, Setting]"
"""A value of the run file."""

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def overrides(settings: Mapping[str, Setting] | None) -> list[coordinator.Override]:
    """Makes the overrides of dotted keys and their values, in order.

    Raises:
        TypeError: for a value that TOML does not have.
    """
    return [coordinator.Override(key=key, value=_value(value, key)) for key, value in (settings or {}).items()]


def _value(value: object, key: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        pairs = (f"{_key(name)} = {_value(inner, f'{key}.{name}')}" for name, inner in value.items())
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return "[" + ", ".join(_value(inner, f"{key}[{i}]") for i, inner in enumerate(value)) + "]"
    raise TypeError(f"setting {key} is {value!r}, expected a text, a number, a truth value, or a list or mapping of them")


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def _text(value: str) -> str:
    # JSON's escapes are TOML's, except that TOML wants DEL escaped too.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if BARE_KEY.fullmatch(name) else _text(name)
