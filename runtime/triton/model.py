"""The Python model that runs in Triton: texts in, the verdict out, and the fused graph between.

Triton joins requests; the texts of all of them are tokenised, and those of similar length are one
run of the graph. An ensemble could not do that: Triton joins requests of equal shapes only, and a
text has more than one row in the graph if its detectors read different tokens.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import triton_python_backend_utils as pb_utils

from layerguard.runtime.errors import InputError, LayerGuardError
from layerguard.runtime.triton.texts import Text, TextReader
from layerguard.runtime.types import Array

_INPUTS = ("text", "request")


class TextModel:
    """The model; ``TritonPythonModel`` in the repository is one.

    Attributes:
        folder: where the bundle's manifest and tokenizer are.
    """

    folder: ClassVar[Path]

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the tokenizer. Triton calls it once, with the model's configuration as JSON."""
        config = json.loads(args["model_config"])
        parameters = {key: one["string_value"] for key, one in config["parameters"].items()}
        self._graph = parameters["graph"]
        outputs = [one["name"] for one in config["output"]]
        self._outputs = [name for name in outputs if name not in ("truncated", "unread")]
        self._reader = TextReader(self.folder, parameters["bundle_id"])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A response for each request; one that is wrong gets an error, and the others do not."""
        read = [self._read(one) for one in requests]
        texts = [text for own in read if isinstance(own, list) for text in own]
        windows = iter(self._verdicts([window for text in texts for window in text]))
        found = [_worst([next(windows) for _ in text]) for text in texts]
        responses = []
        for own in read:
            if not isinstance(own, list):
                responses.append(pb_utils.InferenceResponse(output_tensors=[], error=own))
                continue
            rows, found = found[: len(own)], found[len(own) :]
            failed = next((row for row in rows if not isinstance(row, dict)), None)
            tensors = [] if failed else _tensors(rows)
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors, error=failed))
        return responses

    def _read(self, one: Any) -> Any:
        """The windows of each text of a request as a list, or the error."""
        try:
            given = [(n, pb_utils.get_input_tensor_by_name(one, n)) for n in _INPUTS]
            named = [(name, tensor) for name, tensor in given if tensor is not None]
            if len(named) != 1:
                found = " and ".join(name for name, _ in named) or "nothing"
                raise InputError(f"found {found}; expected either text or request")
            ((name, tensor),) = named
            read = self._reader.plain if name == "text" else self._reader.table
            return [read(_decoded(name, item)) for item in tensor.as_numpy().reshape(-1)]
        except LayerGuardError as error:
            return pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)

    def _verdicts(self, texts: Sequence[Text]) -> list[Any]:
        """The outputs of each window by name, or the error of its run."""
        found: list[Any] = [None] * len(texts)
        groups: dict[int, list[int]] = {}
        for i, text in enumerate(texts):
            groups.setdefault(text.size, []).append(i)
        for group in groups.values():
            most = self._reader.most_texts or len(group)
            for start in range(0, len(group), most):
                places = group[start : start + most]
                results = self._run([texts[i] for i in places])
                for i, result in zip(places, results, strict=True):
                    found[i] = result
        return found

    def _run(self, texts: Sequence[Text]) -> list[Any]:
        """The outputs of each text of one run, or the error."""
        cpu = pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0)
        response = pb_utils.InferenceRequest(
            model_name=self._graph,
            requested_output_names=self._outputs,
            inputs=[pb_utils.Tensor(name, a) for name, a in self._reader.inputs(texts).items()],
            preferred_memory=cpu,
        ).exec()
        if response.has_error():
            return [pb_utils.TritonError(response.error().message())] * len(texts)
        columns: dict[str, Array] = {
            name: pb_utils.get_output_tensor_by_name(response, name).as_numpy()
            for name in self._outputs
        }
        columns["truncated"] = np.array([text.truncated for text in texts])
        columns["unread"] = np.array([text.unread for text in texts])
        if self._reader.flags_unread:
            columns["flagged"] = columns["flagged"] | columns["unread"]
        if self._reader.distance:
            distances = columns[f"{self._reader.distance}_score"]
            columns["flagged"] = columns["flagged"] | self._reader.is_unfamiliar(distances)
        return [{name: column[i] for name, column in columns.items()} for i in range(len(texts))]


def _worst(windows: Sequence[Any]) -> Any:
    """The outputs of a text from those of its windows, or an error of one of them."""
    for one in windows:
        if not isinstance(one, dict):
            return one
    return {  # NaN of any window stays, as the score that it could not have
        name: (np.min if name.endswith("p_value") else np.max)([one[name] for one in windows])
        for name in windows[0]
    }


def _tensors(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The outputs of a request's texts, [texts, 1] each."""
    return [pb_utils.Tensor(name, np.array([[row[name]] for row in rows])) for name in rows[0]]


def _decoded(name: str, item: Any) -> str:
    try:
        return item.decode() if isinstance(item, bytes) else str(item)
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: found no UTF-8 ({error}); expected a text") from error
