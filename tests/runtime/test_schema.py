"""The schema of the manifest: types are walked, and every misfit is named with its place."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime.bundle.schema import parse


@dataclass(frozen=True)
class _Leaf:
    name: str
    kind: Literal["one", "two"]


@dataclass(frozen=True)
class _Tree:
    count: int
    share: float
    on: bool
    leaf: _Leaf
    leaves: tuple[_Leaf, ...]
    by_name: dict[str, _Leaf]
    note: str | None = None
    free: dict[str, Any] = field(default_factory=dict)


_LEAF = {"name": "a", "kind": "one"}
_GOOD: dict[str, Any] = {
    "count": 1,
    "share": 0.5,
    "on": True,
    "leaf": _LEAF,
    "leaves": [_LEAF, {"name": "b", "kind": "two"}],
    "by_name": {"x": _LEAF},
}


def _parsed(value: Any) -> tuple[Any, list[str]]:
    faults: list[str] = []
    return parse(_Tree, value, "tree", faults), faults


def test_what_fits_becomes_the_type() -> None:
    """Objects become dataclasses, lists tuples, and defaults are filled in."""
    tree, faults = _parsed(_GOOD)
    leaf = _Leaf("a", "one")
    assert faults == []
    assert tree == _Tree(1, 0.5, True, leaf, (leaf, _Leaf("b", "two")), {"x": leaf})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"count": 1.0}, "tree.count: found 1.0; expected a whole number"),
        ({"count": True}, "tree.count: found True; expected a whole number"),
        ({"count": "1"}, "tree.count: found '1'; expected a whole number"),
        ({"share": "0.5"}, "tree.share: found '0.5'; expected a finite number"),
        ({"share": True}, "tree.share: found True; expected a finite number"),
        ({"share": float("nan")}, "tree.share: found nan; expected a finite number"),
        ({"share": float("-inf")}, "tree.share: found -inf; expected a finite number"),
        ({"on": 1}, "tree.on: found 1; expected true or false"),
        ({"leaf": None}, "tree.leaf: found None; expected an object"),
        ({"leaf": {"name": "a"}}, "tree.leaf: no key 'kind'; expected 'one' or 'two'"),
        ({"leaf": _LEAF | {"kind": "six"}}, "tree.leaf.kind: found 'six'; expected 'one' or 'two'"),
        ({"leaf": _LEAF | {"kind": []}}, "tree.leaf.kind: found []; expected 'one' or 'two'"),
        ({"leaf": _LEAF | {"x": 1}}, "tree.leaf: unknown key 'x'"),
        ({"leaves": {}}, "tree.leaves: found {}; expected a list"),
        ({"leaves": [_LEAF, 3]}, "tree.leaves[1]: found 3; expected an object"),
        ({"by_name": []}, "tree.by_name: found []; expected an object"),
        ({"by_name": {"x": {}}}, "tree.by_name.x: no key 'name'; expected a text"),
        ({"note": 3}, "tree.note: found 3; expected a text"),
        ({"free": []}, "tree.free: found []; expected an object"),
        ({"by_name": {"\n": 3}}, "tree.by_name.'\\n': found 3; expected an object"),
    ],
    ids=str,
)
def test_misfits_are_named(change: dict[str, Any], fault: str) -> None:
    """What was found, where, and what was expected, in one sentence."""
    tree, faults = _parsed(_GOOD | change)
    assert tree is None
    assert fault in faults


@pytest.mark.parametrize(
    "change", [{"share": 1}, {"note": None}, {"note": "x"}, {"free": {"a": [1, {"b": None}]}}]
)
def test_what_is_as_good_is_taken(change: dict[str, Any]) -> None:
    """Whole numbers pass for fractions, null for what may be missing, anything where it is free."""
    tree, faults = _parsed(_GOOD | change)
    assert faults == []
    assert tree is not None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*_GOOD, "name", "kind", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(value=_JSON)
def test_any_json_gives_a_value_or_faults(value: Any) -> None:
    """Whatever comes, there is either a whole value or at least one fault, never an exception."""
    tree, faults = _parsed(value)
    assert (tree is None) == bool(faults)


@given(place=st.sampled_from(sorted(_GOOD)), value=_JSON)
def test_any_json_in_any_place_gives_a_value_or_faults(place: str, value: Any) -> None:
    """The same with one value of a good object replaced."""
    tree, faults = _parsed(_GOOD | {place: value})
    assert (tree is None) == bool(faults)
