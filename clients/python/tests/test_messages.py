"""What a chat message becomes on the wire."""

from __future__ import annotations

import json

import pytest

from joust.records import to_prompt


def test_plain_messages_are_role_and_content() -> None:
    (message,) = to_prompt([{"role": "user", "content": "Hi"}]).chat.messages
    assert (message.role, message.content, message.object) == ("user", "Hi", "")


def test_other_fields_go_whole_and_in_order() -> None:
    call = {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"b": 1, "a": "é"}}}], "role": "assistant"}
    (message,) = to_prompt([call]).chat.messages
    assert (message.role, message.content) == ("assistant", "")
    assert json.loads(message.object) == call
    assert list(json.loads(message.object)) == list(call)


def test_a_message_without_a_role_is_refused() -> None:
    with pytest.raises(TypeError, match="role of type NoneType"):
        to_prompt([{"content": "Hi"}])
