"""Inner values that side outputs read are freed block by block."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

BLOCKS, TOKENS, INNER = 12, 4096, 512
_RUN = """
import resource, sys
import numpy as np
from pathlib import Path
from layerguard.runtime.model.session import Session
session = Session(Path(sys.argv[1]), "cpu", 1)
x = np.ones((int(sys.argv[2]), 8), np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
session.run(session.outputs, {"x": x})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)
"""


def test_a_side_output_does_not_keep_its_block(tmp_path: Path) -> None:
    """Twelve blocks, each with an inner value of 8 MB that a small output reads."""
    node = helper.make_node
    rng = np.random.default_rng(0)
    constants = {
        "up": rng.normal(size=(8, INNER)).astype(np.float32),
        "down": rng.normal(size=(INNER, 8)).astype(np.float32) / INNER,
        "axis": np.array([1], np.int64),
    }
    nodes = []
    for block in range(BLOCKS):
        nodes += [
            node("MatMul", [f"h_{block}" if block else "x", "up"], [f"wide_{block}"]),
            node("Tanh", [f"wide_{block}"], [f"inner_{block}"]),
            node("ReduceL2", [f"inner_{block}", "axis"], [f"side_{block}"], keepdims=0),
            node("MatMul", [f"inner_{block}", "down"], [f"h_{block + 1}"]),
        ]
    sides = [helper.make_tensor_value_info(f"side_{block}", TensorProto.FLOAT, ["n"])
             for block in range(BLOCKS)]  # fmt: skip
    last = helper.make_tensor_value_info(f"h_{BLOCKS}", TensorProto.FLOAT, ["n", 8])
    graph = helper.make_graph(
        nodes,
        "blocks",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [*sides, last],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path = tmp_path / "blocks.onnx"
    path.write_bytes(model.SerializeToString())
    command = [sys.executable, "-c", _RUN, str(path), str(TOKENS)]
    taken = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    one = TOKENS * INNER * 4
    assert taken < 6 * one
