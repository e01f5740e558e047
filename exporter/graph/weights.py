"""One weight file for all graphs of a bundle; equal tensors are stored once."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir
from onnx_ir.external_data import convert_tensors_from_external

from layerguard.exporter.graph.convert import OPSET, first_line
from layerguard.exporter.progress import Tick, ignore
from layerguard.runtime.bundle.files import WEIGHTS
from layerguard.runtime.errors import ExportError

_INSIDE_GRAPH_BYTES = 1024
"""Tensors up to this size stay in the .onnx file, where shape inference can read them."""


class SharedWeights:
    """The file ``weights.data`` of a folder, to which each graph adds its weights.

    Tensors are written in the order of the graphs' initialisers, so equal graphs give equal bytes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / WEIGHTS
        self._path.touch()
        self._offsets: dict[bytes, int] = {}

    def save(self, model: onnx_ir.Model, name: str, tick: Tick = ignore) -> None:
        """Write the graph as file ``name`` and its weights that are not in the weight file yet.

        Args:
            model: the graph; its weights then refer to the weight file.
            name: of the graph's file.
            tick: receives the progress.

        Raises:
            ExportError: the written file is not a valid ONNX model.
        """
        values = [value for graph in model.graphs() for value in graph.initializers.values()]
        whole = sum(value.const_value.nbytes for value in values if value.const_value is not None)
        done = 0
        with self._path.open("ab") as file:
            for value in values:
                tensor = value.const_value
                if tensor is None:
                    continue
                done += tensor.nbytes
                if tensor.nbytes > _INSIDE_GRAPH_BYTES:
                    value.const_value = self._store(tensor, file)
                elif isinstance(tensor, onnx_ir.ExternalTensor):  # in the quantiser's file
                    (value.const_value,) = convert_tensors_from_external([tensor])
                tick(done / max(whole, 1))
        onnx_ir.save(model, self._folder / name)
        try:
            onnx.checker.check_model(str(self._folder / name))
        except onnx.checker.ValidationError as error:
            raise ExportError(
                f"the exported {name} is not valid ONNX ({first_line(error)}); expected opset "
                f"{OPSET}. Try other versions of torch, onnx and onnxscript"
            ) from error

    @contextmanager
    def trial(self, name: str) -> Iterator[None]:
        """Remove the file ``name`` and its weights again if the ``with`` block fails."""
        size, offsets = self._path.stat().st_size, dict(self._offsets)
        try:
            yield
        except BaseException:
            os.truncate(self._path, size)
            self._offsets = offsets
            (self._folder / name).unlink(missing_ok=True)
            raise

    def _store(self, tensor: onnx_ir.TensorProtocol, file: BinaryIO) -> onnx_ir.ExternalTensor:
        data = tensor.tobytes()
        key = hashlib.sha256(data).digest()
        if key not in self._offsets:
            self._offsets[key] = file.tell()
            file.write(data)
        return onnx_ir.ExternalTensor(
            WEIGHTS,
            self._offsets[key],
            len(data),
            tensor.dtype,
            shape=onnx_ir.Shape(tensor.shape.numpy()),
            name=tensor.name or "",
            base_dir=self._folder,
        )
