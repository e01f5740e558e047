"""A stand-in for Triton, which does not run here: its Python module, and the graph it would run.

``Server`` loads a repository as Triton does, as far as our model sees of it. It checks what Triton
checks of a request against ``config.pbtxt`` (names, types, shapes), runs the graph by ONNX Runtime,
and notes the shapes of each run. What is not here is Triton itself: its scheduler, its memory and
its own reading of the configuration.
"""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime

from layerguard.runtime.types import Array
from tests.runtime.triton import pbtxt

_TYPES = {"TYPE_BOOL": "bool", "TYPE_INT64": "int64", "TYPE_FP64": "float64",
          "TYPE_STRING": "object"}  # fmt: skip


class Tensor:
    """A named array."""

    def __init__(self, name: str, array: Array) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        """Its name."""
        return self._name

    def as_numpy(self) -> Array:
        """Its array."""
        return self._array


class TritonError:
    """An error with a code."""

    INTERNAL, INVALID_ARG = 1, 2

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message, self._code = message, code

    def message(self) -> str:
        """Its sentence."""
        return self._message

    def code(self) -> int:
        """Its code."""
        return self._code


class InferenceResponse:
    """Tensors, or an error."""

    def __init__(
        self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None
    ) -> None:
        self._tensors, self._error = list(output_tensors), error

    def output_tensors(self) -> list[Tensor]:
        """The tensors."""
        return self._tensors

    def has_error(self) -> bool:
        """Whether there is an error."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """The error."""
        return self._error


class Server:
    """A repository that was loaded.

    Attributes:
        runs: the shape of ``input_ids`` in each run of a graph.
        fails: whether graphs fail.
    """

    def __init__(self, repository: Path, name: str) -> None:
        self.runs: list[tuple[int, ...]] = []
        self.fails = False
        self._repository = repository
        self._configs = {
            folder.name: pbtxt.parse((folder / "config.pbtxt").read_text(encoding="ascii"))
            for folder in repository.iterdir()
        }
        self._sessions: dict[str, Any] = {}
        self._name = name
        self._model = self._python_model()

    def ask(self, *requests: dict[str, Sequence[Any]]) -> list[dict[str, list[Any]] | TritonError]:
        """The outputs or the error of each request; all requests are joined.

        A request has lists of texts by name of the input.
        """
        own = self._configs[self._name]
        asked = []
        for one in requests:
            arrays = {
                name: np.array([[_encoded(item)] for item in items], dtype=object)
                for name, items in one.items()
            }
            _check(own["input"], arrays, batched=True)
            asked.append(_Asked([Tensor(name, array) for name, array in arrays.items()]))
        responses = self._model.execute(asked)
        assert len(responses) == len(requests)
        found: list[dict[str, list[Any]] | TritonError] = []
        for one, response in zip(requests, responses, strict=True):
            if response.has_error():
                found.append(response.error())
                continue
            arrays = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
            _check(own["output"], arrays, batched=True, whole=True)
            (texts,) = {len(items) for items in one.values()}
            assert {len(array) for array in arrays.values()} == {texts}
            found.append({name: array[:, 0].tolist() for name, array in arrays.items()})
        return found

    def run(
        self, model: str, outputs: Sequence[str], inputs: Sequence[Tensor]
    ) -> InferenceResponse:
        """What a model of the onnxruntime backend gives."""
        config = self._configs[model]
        assert config["backend"] == ["onnxruntime"]
        assert config["max_batch_size"] == [0]
        arrays = {one.name(): one.as_numpy() for one in inputs}
        _check(config["input"], arrays, whole=True)
        self.runs.append(arrays["input_ids"].shape)
        if self.fails:
            return InferenceResponse(error=TritonError("no memory"))
        values = dict(zip(outputs, self._session(model).run(outputs, arrays), strict=True))
        _check([one for one in config["output"] if one["name"][0] in outputs], values, whole=True)
        return InferenceResponse([Tensor(name, value) for name, value in values.items()])

    def _session(self, model: str) -> Any:
        if model not in self._sessions:
            path = self._repository / model / "1" / "model.onnx" / "model.onnx"
            self._sessions[model] = onnxruntime.InferenceSession(str(path))
        return self._sessions[model]

    def _python_model(self) -> Any:
        """The model of ``model.py``, with the stand-in as Triton's module."""
        sys.modules["triton_python_backend_utils"] = self._module()
        sys.modules.pop("layerguard.runtime.triton.model", None)
        path = self._repository / self._name / "1" / "model.py"
        spec = importlib.util.spec_from_file_location("model", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.TritonPythonModel()
        model.initialize({"model_config": pbtxt.to_json(self._configs[self._name])})
        return model

    def _module(self) -> ModuleType:
        server = self

        class InferenceRequest:
            def __init__(
                self,
                model_name: str,
                requested_output_names: Sequence[str],
                inputs: Sequence[Tensor],
                preferred_memory: tuple[int, int],
            ) -> None:
                assert preferred_memory == (0, 0)
                self._asked = model_name, requested_output_names, inputs

            def exec(self) -> InferenceResponse:
                return server.run(*self._asked)

        module = ModuleType("triton_python_backend_utils")
        module.__dict__.update(
            Tensor=Tensor,
            TritonError=TritonError,
            InferenceResponse=InferenceResponse,
            InferenceRequest=InferenceRequest,
            PreferredMemory=lambda kind, number: (kind, number),
            TRITONSERVER_MEMORY_CPU=0,
            get_input_tensor_by_name=lambda one, name: _named(one.tensors, name),
            get_output_tensor_by_name=lambda one, name: _named(one.output_tensors(), name),
        )
        return module


class _Asked:
    def __init__(self, tensors: list[Tensor]) -> None:
        self.tensors = tensors


def _named(tensors: Sequence[Tensor], name: str) -> Tensor | None:
    return next((one for one in tensors if one.name() == name), None)


def _encoded(item: Any) -> bytes:
    return item if isinstance(item, bytes) else item.encode()


def _check(
    cards: Sequence[Any], arrays: dict[str, Array], *, batched: bool = False, whole: bool = False
) -> None:
    """Names, types and shapes are as configured; with ``whole`` none may be absent."""
    by_name = {card["name"][0]: card for card in cards}
    assert not arrays.keys() - by_name.keys()
    assert not whole or arrays.keys() == by_name.keys()
    for name, array in arrays.items():
        card = by_name[name]
        assert array.dtype == _TYPES[card["data_type"][0]], name
        shape = array.shape[1:] if batched else array.shape
        dims = card["dims"][0]
        assert len(shape) == len(dims), name
        assert all(dim in (-1, size) for size, dim in zip(shape, dims, strict=True)), name
