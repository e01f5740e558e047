"""Every value of the manifest, one after the other, replaced by each thing that it is not."""

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from layerguard.runtime.bundle.manifest import Canary
from layerguard.runtime.limits import Limits
from tests.runtime.tamper import refused, set_at, write_manifest
from tests.tiny import make_graph, make_manifest, make_params

_Path = tuple[str | int, ...]
_CANARY = Canary("the garden", {"lcf": 1.0}, 1e-3)
_SAMPLE = json.loads(
    make_manifest(make_params(), make_graph("states")[1], mode="states", canaries=(_CANARY,))
    .to_bytes()
)  # fmt: skip
_STRANGERS: dict[str, Any] = {
    "null": None,
    "true": True,
    "text": "seven",
    "fraction": 1.5,
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "1e400": 10**400,
    "list": [["x"]],
    "object": {"a": ["b"]},
}
_OPTIONAL = {
    ("detectors",),
    ("detectors", "lcf", "limit"),
    ("detectors", "siren", "limit"),
    ("decision",),
    ("canaries",),
    ("fused",),
    ("votes",),
    ("text_key",),
    ("model", "quantisation"),
    ("graphs", "score", "parity", "rounding"),
    ("text", "special_tokens"),
    ("text", "end_token_ids"),
    ("text", "rules_version"),
    ("text", "on_unread"),
    ("text", "limits"),
    *(("text", "limits", field.name) for field in fields(Limits)),
}
_MAPS = {"versions", "detectors", "graphs", "special_tokens", "scores", "largest", "files"}
"""Objects whose keys are names of the bundle's own choice."""


def _walk(value: Any, path: _Path = ()) -> Iterator[tuple[_Path, Any]]:
    """Every place of a JSON value with what stands there; of a list, the first entry alone."""
    if path:
        yield path, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(item, (*path, key))
    elif isinstance(value, list) and value:
        yield from _walk(value[0], (*path, 0))


def _dotted(path: _Path) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return f"manifest.json{''.join(steps)}"


def _fits(stranger: Any, found: Any) -> bool:
    """Whether a stranger is of the very type that stands there."""
    if isinstance(found, float):
        return isinstance(stranger, float) and abs(stranger) < 1e308
    return type(stranger) is type(found)


def _is_map(path: _Path) -> bool:
    return bool(path) and path[-1] in _MAPS


_PLACES = list(_walk(_SAMPLE))
_OBJECTS = [
    (),
    *[p for p, value in _PLACES if isinstance(value, dict) and p[-1] != "settings"],
]
_KEYS = [
    path
    for path, _ in _PLACES
    if isinstance(path[-1], str) and path not in _OPTIONAL and not _is_map(path[:-1])
]


@pytest.mark.parametrize("path", [pytest.param(p, id=_dotted(p)) for p, _ in _PLACES])
def test_wrong_types_are_named(bundle: Path, path: _Path) -> None:
    """A value of another type is refused, with its place in the message."""
    found = dict(_PLACES)[path]
    for stranger in (s for s in _STRANGERS.values() if not _fits(s, found)):
        value = json.loads(json.dumps(_SAMPLE))
        set_at(value, path, stranger)
        faults = refused(write_manifest(bundle, value), _dotted(path), "expected")
        assert all(len(fault) < 300 for fault in faults), "a fault is a sentence, not a dump"


@pytest.mark.parametrize("path", [pytest.param(p, id=_dotted(p)) for p in _KEYS])
def test_missing_keys_are_named(bundle: Path, path: _Path) -> None:
    """A key that is not there is refused by its name."""
    value = owner = json.loads(json.dumps(_SAMPLE))
    for step in path[:-1]:
        owner = owner[step]
    del owner[path[-1]]
    refused(write_manifest(bundle, value), str(path[-1]))


@pytest.mark.parametrize("path", [pytest.param(p, id=_dotted(p)) for p in _OBJECTS])
def test_unknown_keys_are_named(bundle: Path, path: _Path) -> None:
    """A key that this release does not know is refused by its name, wherever it stands."""
    value = json.loads(json.dumps(_SAMPLE))
    set_at(value, (*path, "surprise"), ["x"])
    refused(write_manifest(bundle, value), "surprise")


def test_all_faults_are_listed_at_once(bundle: Path) -> None:
    """Three faults in three places give three sentences, in one run."""
    value = json.loads(json.dumps(_SAMPLE))
    set_at(value, ("model", "layers"), "three")
    set_at(value, ("text", "windows"), "middle")
    set_at(value, ("canaries", 0, "tolerance"), None)
    words = ("model.layers", "text.windows", "'head-tail' or 'sliding'", "canaries[0].tolerance")
    assert len(refused(write_manifest(bundle, value), *words)) == 3
