"""Settings as TOML, read back by Python's own reader."""

import math
import sys

import pytest

from joust._toml import Setting, overrides

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        0,
        -3,
        2**62,
        0.1,
        1e-05,
        1.7e-4,
        1e22,
        -0.0,
        math.inf,
        -math.inf,
        "",
        "plain",
        'quote " backslash \\ newline \n tab \t',
        "\x00\x1f\x7f",
        "größer 好 🐎",
        [],
        ["policy", "ema"],
        [[1, 2], [3]],
        {},
        {"ratio": 0.5, "order": "recent", "with space": True, "": 1, "a.b": {"c": [0.5]}},
        ({"words": {"happy": 1.0}}, {"ends_with": "[.!?]"}),
    ],
)
def test_values_come_back(value: Setting) -> None:
    (made,) = overrides({"a.b": value})
    assert made.key == "a.b"
    back = tomllib.loads(f"value = {made.value}")["value"]
    expected = list(value) if isinstance(value, tuple) else value
    assert back == expected and type(back) is type(expected)


def test_no_number_comes_back() -> None:
    (made,) = overrides({"x": math.nan})
    assert math.isnan(tomllib.loads(f"value = {made.value}")["value"])


@pytest.mark.parametrize(("value", "name"), [(None, "x"), ([1, None], r"x\[1\]"), ({"y": b""}, r"x\.y")])
def test_what_toml_does_not_have_is_named(value: Setting, name: str) -> None:
    with pytest.raises(TypeError, match=f"setting {name} is "):
        overrides({"x": value})
