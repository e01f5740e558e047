"""Bodies whose meaning a guard and a model server could see differently."""

import pytest

from layerguard.runtime.errors import InputError
from layerguard.runtime.text.openai_call import read_object, tools_of


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": [], "messages": []}',
        b'{"input": [{"content": "a", "content": "b"}]}',
        b'{"messages": [], "Messages": []}',
        b'{"prompt": "a", "me\xc5\xbfsages": []}',
        b'{"INPUT": "a"}',
        b"[]",
        b"{",
        b"\xff",
        '{"prompt": "a"}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"n": ' + b"1" * 5000 + b"}",
    ],
)
def test_such_a_body_is_refused(body: bytes) -> None:
    """With a sentence that names it."""
    with pytest.raises(InputError, match=r"^answer"):
        read_object(body, "answer")


def test_other_keys_pass() -> None:
    """In any spelling."""
    assert read_object(b'{"Model": 1, "prompt": "a"}', "body") == {"Model": 1, "prompt": "a"}


@pytest.mark.parametrize("call", [{"tools": {}}, {"tools": "look"}, {"functions": 5}])
def test_tools_that_are_no_list_are_refused(call: dict[str, object]) -> None:
    """With a sentence, not with Python's error."""
    with pytest.raises(InputError, match="expected a list"):
        tools_of(call)


def test_functions_and_the_schema_of_the_answer_are_tools() -> None:
    """A model reads their descriptions; a form without a schema has none."""
    schema = {"type": "json_schema", "json_schema": {"description": "b"}}
    found = tools_of({"tools": [{"a": 1}], "functions": [{"name": "f"}], "response_format": schema})
    named = {"name": "response_format", "parameters": schema}
    assert found == [
        {"a": 1},
        {"type": "function", "function": {"name": "f"}},
        {"type": "function", "function": named},
    ]
    assert tools_of({"response_format": {"type": "json_object"}, "text": "a"}) is None
