"""Runs a bundle's fused graph and compares it with the runtime."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from layerguard.runtime.types import Array
from tests import tolerances


def run(path: Path, given: Mapping[str, Array], name: str = "fused.onnx") -> dict[str, Array]:
    """All outputs of the bundle's fused graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path / name), options)
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(given)), strict=True))


def agree(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    """Scores agree within the tolerance; p-values and flags exactly."""
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        finite = np.isfinite(values)
        np.testing.assert_array_equal(np.isfinite(found[name]), finite, err_msg=name)
        if name.endswith("_score"):
            apart = np.abs(found[name] - values)[finite] / (1 + np.abs(values[finite]))
            assert apart.max(initial=0) <= tolerances.FUSED, name
        else:
            np.testing.assert_array_equal(found[name], values, err_msg=name)


def broken(path: Path, token: int, value: float) -> None:
    """Set all elements of one token's embedding to this value."""
    model = onnx.load(str(path))
    for item in model.graph.initializer:
        if item.name == "embedding":
            table = numpy_helper.to_array(item).copy()
            table[token] = value
            item.CopyFrom(numpy_helper.from_array(table, "embedding"))
    path.write_bytes(model.SerializeToString())
