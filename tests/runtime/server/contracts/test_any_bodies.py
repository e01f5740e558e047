"""Whatever JSON a client sends, a contract answers or refuses in its own form."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.attacks.contracts import Contracts, decoded, encoded
from tests.attacks.unread import CHAT
from tests.runtime.server.contracts.forms import FORMS, Form
from tests.tiny import make_bundle

_EVERY = pytest.mark.parametrize("form", FORMS, ids=str)
_PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from(["", " ", "\ud800", "\x00", "text", "user", "tool", 1 << 70, -1, 1e308]),
)  # fmt: skip
_KEYS = st.sampled_from(
    ["role", "content", "text", "type", "messages", "tool_calls", "function", "name", "data",
     "shape", "datatype", "arguments", "input", "id", "json"]
) | st.text(max_size=5)  # fmt: skip
_VALUES = st.recursive(
    _PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def contracts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contracts]:
    """A server of a bundle with a chat template."""
    folder = tmp_path_factory.mktemp("contracts") / "bundle"
    bundle = make_bundle(folder, template="chat", chat_template=CHAT)
    with Contracts(bundle) as served:
        yield served


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each value inside a JSON value, its own first."""
    yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(item, (*path, key))


@st.composite
def _bodies(draw: st.DrawFn, form: Form) -> Any:
    """The form's own body with other values at one or two places, or further keys."""
    body = copy.deepcopy(dict(form.body))
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.sampled_from(list(_places(body))))
        if not place:
            body[draw(_KEYS)] = draw(_VALUES)
            continue
        owner: Any = body
        for step in place[:-1]:
            owner = owner[step]
        owner[place[-1]] = draw(_VALUES)
    return body


@_EVERY
def test_its_own_body_is_answered(contracts: Contracts, form: Form) -> None:
    """So the bodies below begin at one that is read to its end."""
    number = FORMS.index(form)
    assert decoded(encoded(number)) == (form, json.dumps(form.body).encode())
    contracts.post(form, json.dumps(form.body).encode())


@_EVERY
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_any_json_is_answered_or_refused(
    contracts: Contracts, form: Form, data: st.DataObject
) -> None:
    """Never by a status of 500, and never in another form."""
    body = data.draw(_bodies(form) | _VALUES)
    contracts.post(form, json.dumps(body).encode())


@_EVERY
@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"[" * 9000, b"nul", b'{"a": NaN}', b"1" * 5000]
)
def test_any_bytes_are_refused(contracts: Contracts, form: Form, body: bytes) -> None:
    """Bodies that are no JSON, and numbers that are too long to read."""
    contracts.post(form, body)
