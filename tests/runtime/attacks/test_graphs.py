"""Graphs that are no graph, reach outside the bundle, or do not give what the manifest promises."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from layerguard.runtime import BundleError, Guard
from tests.runtime.tamper import edit_manifest, put, refused
from tests.tiny import make_bundle, make_graph

_BYTES = {
    "empty": b"",
    "words": b"this is no graph",
    "zeros": bytes(4096),
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94.",
    "json": b'{"irVersion": 10}',
    "half": make_graph("pooled")[0].SerializeToString()[:3000],
}


@pytest.mark.parametrize("case", _BYTES)
def test_what_is_no_graph_is_refused(bundle: Path, case: str) -> None:
    """Bytes that are no ONNX model are refused, with onnxruntime's own words."""
    put(bundle, "score.onnx", _BYTES[case])
    refused(bundle, "score.onnx cannot be loaded by onnxruntime", "export it again")


def _graph(change: Callable[[ModelProto], None]) -> bytes:
    model, _ = make_graph("pooled")
    change(model)
    return model.SerializeToString()


def _weights_at(place: str) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        tensor = next(item for item in model.graph.initializer if item.name == "block_1")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": place, "offset": "0", "length": "1024"}.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    return change


@pytest.mark.parametrize(
    "place", ["../secret", "{folder}/secret", "bundle/../../secret", "link.data", "missing", ""]
)
def test_weights_outside_the_bundle_are_not_read(bundle: Path, place: str) -> None:
    """External weights may lie only in the bundle's folder, and a link does not lead out of it."""
    secret = bundle.parent / "secret"
    secret.write_bytes(np.ones((16, 16), np.float32).tobytes())
    if place == "link.data":
        (bundle / place).symlink_to(secret)
    graph = _graph(_weights_at(place.format(folder=bundle.parent)))
    outside = ("score.onnx cannot be loaded", "xternal data")
    words = ("link.data is a link",) if place == "link.data" else outside
    refused(put(bundle, "score.onnx", graph), *words)


def _without_output(name: str) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        kept = [item for item in model.graph.output if item.name != name]
        del model.graph.output[:]
        model.graph.output.extend(kept)

    return change


def _another_input(model: ModelProto) -> None:
    model.graph.input.append(
        helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["rows", "tokens"])
    )


def _input_renamed(model: ModelProto) -> None:
    model.graph.input[0].name = "tokens"
    model.graph.node[0].input[1] = "tokens"


def _unknown_operator(model: ModelProto) -> None:
    model.graph.node[0].op_type = "GatherWhatYouLike"


def _future_opset(model: ModelProto) -> None:
    model.opset_import[0].version = 999


_MISMATCHED: dict[str, tuple[Callable[[ModelProto], None], tuple[str, ...]]] = {
    "output-missing": (_without_output("mean_02"), ("has no output mean_02",)),
    "input-too-many": (_another_input, ("takes an input 'position_ids'", "expected only")),
    "input-of-another-name": (_input_renamed, ("'tokens'", "has no input input_ids")),
    "unknown-operator": (_unknown_operator, ("cannot be loaded", "GatherWhatYouLike")),
    "opset-of-the-future": (_future_opset, ("cannot be loaded", "999")),
}


@pytest.mark.parametrize("case", _MISMATCHED)
def test_graphs_that_differ_from_the_manifest_are_refused(bundle: Path, case: str) -> None:
    """An input or output that only one of graph and manifest knows is named."""
    change, words = _MISMATCHED[case]
    refused(put(bundle, "score.onnx", _graph(change)), "score.onnx", *words)


def test_an_input_promised_and_not_there_is_refused(bundle: Path) -> None:
    """A manifest that promises inputs the graph has not is refused."""
    edit_manifest(bundle, lambda v: v["graphs"]["score"].update(inputs=["input_ids", "speaker"]))
    refused(bundle, "score.onnx has no input speaker")


def _through(
    model: ModelProto,
    output: str,
    operator: str,
    *more: str | list[int],
    kind: int = TensorProto.FLOAT,
    **attributes: object,
) -> None:
    """Send one output through one more operator; ``more`` are its other inputs."""
    for node in model.graph.node:
        node.output[:] = [f"{name}_true" if name == output else name for name in node.output]
    inputs = [f"{output}_true"]
    for item in more:
        inputs.append(item if isinstance(item, str) else f"extra_{len(inputs)}")
        if not isinstance(item, str):
            constant = numpy_helper.from_array(np.array(item, np.int64), inputs[-1])
            model.graph.initializer.append(constant)
    model.graph.node.append(helper.make_node(operator, inputs, [output], **attributes))
    promised = next(item for item in model.graph.output if item.name == output)
    promised.CopyFrom(helper.make_tensor_value_info(output, kind, None))


_DOUBLE, _LONG = TensorProto.DOUBLE, TensorProto.INT64
_AT_RUN_TIME: dict[str, tuple[Callable[[ModelProto], None], str]] = {
    "too-wide": (lambda m: _through(m, "mean_01", "Concat", "mean_01_true", axis=1), "[1, 32]"),
    "too-narrow": (lambda m: _through(m, "mean_01", "Gather", [0, 1], axis=1), "[1, 2]"),
    "transposed": (lambda m: _through(m, "mean_01", "Transpose", perm=[1, 0]), "[16, 1]"),
    "flat": (lambda m: _through(m, "last_03", "Reshape", [-1]), "float32 [16]"),
    "one-side-more": (lambda m: _through(m, "last_03", "Unsqueeze", [0]), "[1, 1, 16]"),
    "no-rows": (lambda m: _through(m, "last_03", "Slice", [0], [0], [0]), "[0, 16]"),
    "float64": (lambda m: _through(m, "mean_00", "Cast", kind=_DOUBLE, to=_DOUBLE), "float64"),
    "integers": (lambda m: _through(m, "mean_00", "Cast", kind=_LONG, to=_LONG), "int64"),
}


@pytest.mark.parametrize("case", _AT_RUN_TIME)
def test_outputs_of_another_form_are_refused_at_load(bundle: Path, case: str) -> None:
    """A graph that gives another width, rank or dtype than promised is refused before traffic."""
    change, found = _AT_RUN_TIME[case]
    put(bundle, "score.onnx", _graph(change))
    refused(bundle, "score.onnx gave", found, "expected float32 or float16 [1, 16]")


def test_a_graph_that_answers_for_one_row_only_is_refused(bundle: Path) -> None:
    """A fault that only a batch of two shows is found when there is one, never served."""
    graph = _graph(lambda m: _through(m, "mean_01", "Slice", [0], [1], [0]))
    guard = Guard.load(put(bundle, "score.onnx", graph), threads=1)
    with pytest.raises(BundleError, match=r"mean_01.*\[1, 16\].*expected.*\[2, 16\]"):
        guard.check_batch(["the garden", "a quiet"])


def test_states_of_another_width_are_refused(tmp_path: Path) -> None:
    """In states mode too the outputs must be what the manifest promises."""
    bundle = make_bundle(tmp_path / "bundle", mode="states")
    model, _ = make_graph("states")
    _through(model, "state_02", "Concat", "state_02_true", axis=2)
    put(bundle, "score.onnx", model.SerializeToString())
    refused(bundle, "'state_02' as float32 [1, 5, 32]", "[1, 5, 16]")


def test_a_graph_that_fails_on_a_text_is_named(bundle: Path) -> None:
    """A token that the embedding does not hold is the bundle's fault, and is said to be."""
    tokenizer = json.loads((bundle / "tokenizer.json").read_bytes())
    tokenizer["model"]["vocab"]["river"] = 999
    guard = Guard.load(put(bundle, "tokenizer.json", json.dumps(tokenizer)), threads=1)
    with pytest.raises(BundleError, match=r"score.onnx fails on its input.*999"):
        guard.check("the river")
    assert guard.check("the garden").status == "ok"
