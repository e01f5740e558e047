"""A bundle's templates, graphs and tokenizers that run for ever or reach outside."""

import json
from functools import partial
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from layerguard.runtime import BundleError, Guard
from tests.attacks.attack import Attack
from tests.runtime.tamper import put, refused
from tests.tiny import make_bundle

_GROWING = "{%% set n = namespace(x='a') %%}{%% for _ in range(60) %%}%s{%% endfor %%}{{ n.x }}"
_TEMPLATES = {
    "invents text": "{{ lipsum(n=100000) }}",
    "doubles a text": _GROWING % "{% set n.x = n.x + n.x %}",
    "doubles by joining": _GROWING % "{% set n.x = n.x ~ n.x %}",
    "doubles by a filter": _GROWING % "{% set n.x = [n.x, n.x] | join %}",
    "doubles by replacing": _GROWING % "{% set n.x = n.x | replace('a', 'aa') %}",
    "doubles a list": _GROWING % "{% set n.x = [n.x, n.x, n.x, n.x] %}",
    "pads by percent": "{{ '%1000000000d' % 1 }}",
    "pads by braces": "{{ '{:1000000000}'.format(1) }}",
    "pads by a filter": "{{ 'a' | center(1000000000) }}",
    "multiplies a text": "{{ 'a' * 1000000000 }}",
    "counts for ever": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
    "{% endfor %}",
    "calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "takes a power": "{{ 9 ** 9 ** 9 }}",
    "climbs to a class": "{{ ''.__class__.__mro__ }}",
    "climbs through a format": "{{ '{0.__class__.mro}'.format('') }}",
    "climbs through a function": "{{ raise_exception.__globals__['os'] }}",
    "reads a file": "{% include '/etc/passwd' %}",
}


def _template(case: str, folder: Path) -> None:
    """The bundle is refused in one short sentence."""
    source = _TEMPLATES[case]
    refused(make_bundle(folder / "bundle", template="chat", chat_template=source), "chat template")


def _never_loads(name: str, data: bytes, folder: Path) -> None:
    """The process that loads it is ended in time."""
    bundle = put(make_bundle(folder / "bundle"), name, data)
    with pytest.raises(BundleError, match=r"not loaded within 6 s|ended a process by signal"):
        Guard.load(bundle, threads=1, timeout=6)


def _endless_graph(folder: Path) -> None:
    model = onnx.load(make_bundle(folder / "sound") / "score.onnx")
    _add_loop(model)
    _never_loads("score.onnx", model.SerializeToString(), folder)


def _add_loop(model: ModelProto) -> None:
    """Send the token ids through a loop without a limit or an end."""
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows", "tokens"])
    same = helper.make_tensor_value_info("same", TensorProto.INT64, ["rows", "tokens"])
    turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    again, still = (
        helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("again", "still")
    )
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["again"], ["still"]),
            helper.make_node("Identity", ["ids"], ["same"]),
        ],
        "body",
        [turn, again, ids],
        [still, same],
    )
    model.graph.initializer.append(helper.make_tensor("true", TensorProto.BOOL, [], [True]))
    model.graph.node[0].input[1] = "looped"
    loop = helper.make_node("Loop", ["", "true", "input_ids"], ["looped"], body=body)
    model.graph.node.insert(0, loop)


def _doubling_tokenizer(folder: Path) -> None:
    value = json.loads((make_bundle(folder / "sound") / "tokenizer.json").read_bytes())
    double = {"type": "Replace", "pattern": {"Regex": "(.)"}, "content": "aa"}
    value["normalizer"] = {"type": "Sequence", "normalizers": [double] * 40}
    _never_loads("tokenizer.json", json.dumps(value).encode(), folder)


ATTACKS = (
    *(Attack(f"a template that {case}", partial(_template, case)) for case in _TEMPLATES),
    Attack("a graph without an end", _endless_graph),
    Attack("a tokenizer that doubles a text", _doubling_tokenizer),
)
