"""The LCF score as others would write it: numpy, torch, ONNX Runtime operators, numba.

Each maker takes a model of ``kernel_cases`` and returns a function of states (L + 1, rows, width)
that gives the scores, (rows,).
"""

from collections.abc import Callable

import numba
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.kernel_cases import Array, LcfModel

Scorer = Callable[[Array], Array]


def straightforward_numpy(model: LcfModel) -> Scorer:
    """The formula, as written."""
    mu, sigma = model.mu[:, None], model.sigma[:, None]

    def score(h: Array) -> Array:
        length = np.linalg.norm((h[1:] - h[:-1] - mu) / sigma, axis=-1)
        offset = (length.T - model.score_mean) / model.score_scale - model.centre
        return np.sqrt(((offset @ model.precision) * offset).sum(axis=1))

    return score


def best_numpy(model: LcfModel, rows: int) -> Scorer:
    """No temporary arrays, inverses instead of divisions, sums of squares without squares.

    Of a batch one layer at a time, which stays in the caches.
    """
    mu, inverse = model.mu[:, None], (1 / model.sigma)[:, None]
    depth, width = model.mu.shape
    whole = np.empty((depth, rows, width), np.float32)
    layer = np.empty((rows, width), np.float32)

    def lengths_of_one(h: Array) -> Array:
        np.subtract(h[1:], h[:-1], out=whole)
        np.subtract(whole, mu, out=whole)
        np.multiply(whole, inverse, out=whole)
        return np.sqrt(np.einsum("lnd,lnd->nl", whole, whole))

    def lengths_of_many(h: Array) -> Array:
        squared = np.empty((rows, depth))
        for index in range(depth):
            np.subtract(h[index + 1], h[index], out=layer)
            np.subtract(layer, mu[index], out=layer)
            np.multiply(layer, inverse[index], out=layer)
            squared[:, index] = np.einsum("nd,nd->n", layer, layer)
        return np.sqrt(squared)

    lengths = lengths_of_one if rows == 1 else lengths_of_many

    def score(h: Array) -> Array:
        offset = (lengths(h) - model.score_mean) / model.score_scale - model.centre
        return np.sqrt(np.einsum("ni,ni->n", offset @ model.precision, offset))

    return score


def torch_eager(model: LcfModel) -> Callable[[torch.Tensor], torch.Tensor]:
    """The formula in torch; takes and gives tensors."""
    mu, sigma = (torch.from_numpy(array)[:, None] for array in (model.mu, model.sigma))
    mean, scale, centre, precision = (
        torch.from_numpy(array)
        for array in (model.score_mean, model.score_scale, model.centre, model.precision)
    )

    @torch.inference_mode()
    def score(h: torch.Tensor) -> torch.Tensor:
        length = torch.linalg.vector_norm((h[1:] - h[:-1] - mu) / sigma, dim=-1)
        offset = (length.T.double() - mean) / scale - centre
        return torch.sqrt(((offset @ precision) * offset).sum(dim=1))

    return score


def onnx_operators(model: LcfModel) -> Scorer:
    """The formula as a graph of standard operators, in one thread of ONNX Runtime."""
    depth, width = model.mu.shape
    constants = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "depth": np.array([depth]),
        "end": np.array([depth + 1]),
        "mu": model.mu[:, None],
        "sigma": model.sigma[:, None],
        "last": np.array([2]),
        "row": np.array([1]),
        "mean": model.score_mean,
        "scale": model.score_scale,
        "centre": model.centre,
        "precision": model.precision,
    }
    nodes = [
        ("Slice", ["h", "one", "end", "zero"], "after", {}),
        ("Slice", ["h", "zero", "depth", "zero"], "before", {}),
        ("Sub", ["after", "before"], "difference", {}),
        ("Sub", ["difference", "mu"], "centred", {}),
        ("Div", ["centred", "sigma"], "scaled", {}),
        ("ReduceL2", ["scaled", "last"], "length", {"keepdims": 0}),
        ("Transpose", ["length"], "by_row", {"perm": [1, 0]}),
        ("Cast", ["by_row"], "double", {"to": TensorProto.DOUBLE}),
        ("Sub", ["double", "mean"], "from_mean", {}),
        ("Div", ["from_mean", "scale"], "z", {}),
        ("Sub", ["z", "centre"], "offset", {}),
        ("MatMul", ["offset", "precision"], "product", {}),
        ("Mul", ["product", "offset"], "terms", {}),
        ("ReduceSum", ["terms", "row"], "form", {"keepdims": 0}),
        ("Sqrt", ["form"], "score", {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [out], **more) for kind, inputs, out, more in nodes],
        "lcf",
        [helper.make_tensor_value_info("h", TensorProto.FLOAT, [depth + 1, None, width])],
        [helper.make_tensor_value_info("score", TensorProto.DOUBLE, [None])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(proto)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def score(h: Array) -> Array:
        result: Array = session.run(["score"], {"h": h})[0]
        return result

    return score


@numba.njit(fastmath=True)
def _numba_score(h, mu, inverse, mean, scale, centre, precision):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    depth, width = mu.shape
    scores = np.empty(h.shape[1])
    z = np.empty((h.shape[1], depth))
    for layer in range(depth):
        for row in range(h.shape[1]):
            total = np.float32(0)
            for i in range(width):
                x = (h[layer + 1, row, i] - h[layer, row, i] - mu[layer, i]) * inverse[layer, i]
                total += x * x
            z[row, layer] = (np.sqrt(total) - mean[layer]) / scale[layer] - centre[layer]
    for row in range(h.shape[1]):
        form = 0.0
        for i in range(depth):
            for j in range(depth):
                form += z[row, i] * precision[i, j] * z[row, j]
        scores[row] = np.sqrt(form)
    return scores


def numba_fastmath(model: LcfModel) -> Scorer:
    """The same fused loops as the C kernel, compiled for this machine with fast-math."""
    parameters = (
        model.mu,
        1 / model.sigma,
        model.score_mean,
        model.score_scale,
        model.centre,
        model.precision,
    )

    def score(h: Array) -> Array:
        result: Array = _numba_score(h, *parameters)
        return result

    return score


@numba.njit(fastmath=True)
def sum_read(values):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """The sum of an array: as fast as this machine reads memory in one stream."""
    total = np.float32(0)
    for i in range(values.size):
        total += values[i]
    return total
