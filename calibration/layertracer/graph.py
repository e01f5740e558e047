"""Run the analysis graph of a bundle: every layer's logits, and the output under gates."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from layerguard.calibration.layertracer.masks import Mask, inert
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.model.session import Device, Session
from layerguard.runtime.text.tokens import Ids
from layerguard.runtime.types import Array

_MAX_ROWS = 32
_MAX_BATCH_TOKENS = 8_192
"""Most tokens in one run of the graph: bounds memory for any depth and prompt length."""


class AnalysisGraph:
    """A session of the analysis graph; ``runtime/types.py`` defines the terms.

    Attributes:
        layers: number of blocks, L.
        width: hidden size, D.
    """

    def __init__(self, bundle: Bundle, device: Device = "cpu", threads: int = 0) -> None:
        """Open the graph; see ``Session`` for the arguments and further errors.

        Raises:
            BundleError: the bundle has no analysis graph.
        """
        card = bundle.manifest.graphs.get("analysis")
        if card is None or card.mode != "analysis":
            fault = (
                "it has no analysis graph, which gives each layer's logits; export the model with "
                "one: layerguard export MODEL -o BUNDLE --analysis"
            )
            raise BundleError(bundle.path, [fault])
        self._folder = bundle.path
        model = bundle.manifest.model
        self.layers, self.width = model.layers, model.width
        # int8 activations share one scale a run, so a row would depend on the others of its batch
        self._max_rows = 1 if model.dtype == "int8" else _MAX_ROWS
        names = {output.layer: output.name for output in card.outputs if output.kind == "lens"}
        self._lens = [names[layer] for layer in range(self.layers + 1)]
        opened = partial(bundle.opened, card.file)
        self._session = Session(bundle.path / card.file, device, threads, opened)

    def lens(self, ids: Ids) -> Array:
        """The logits of every layer at the last token, float32 [L + 1, vocabulary].

        Raises:
            InputError: some are not finite.
        """
        bypass, keep = inert(1, self.layers, self.width)
        return np.concatenate(self._run(self._lens, [ids], bypass, keep))

    def masked(self, ids: Ids, mask: Mask) -> Array:
        """The model's own logits at the last token, with one block masked at a time.

        Each masked block is one row of a batch; several batches bound the memory. ONNX Runtime
        computes the logits of every layer, also of those that are not requested. This costs little,
        because it is done for one token only.

        Args:
            ids: the prompt.
            mask: how a block is masked.

        Returns:
            float32 [L, vocabulary], row l - 1 with block l masked.

        Raises:
            InputError: some are not finite.
        """
        step = min(self._max_rows, max(1, _MAX_BATCH_TOKENS // len(ids)))
        parts = []
        for start in range(1, self.layers + 1, step):
            blocks = range(start, min(start + step, self.layers + 1))
            gates = mask.gates(blocks, self.layers, self.width)
            parts += self._run(self._lens[-1:], [ids] * len(blocks), *gates)
        return np.concatenate(parts)

    def _run(
        self, outputs: Sequence[str], rows: Sequence[Ids], bypass: Array, keep: Array
    ) -> list[Array]:
        ids = np.asarray(rows, np.int64)
        logits = self._session.run(
            outputs,
            {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "bypass": bypass,
                "keep": keep,
            },
        )
        for name, values in zip(outputs, logits, strict=True):
            if values.ndim != 2 or len(values) != len(rows):
                fault = (
                    f"analysis.onnx gave {name!r} as {list(values.shape)}; expected {len(rows)} "
                    "rows of logits: export it again"
                )
                raise BundleError(self._folder, [fault])
        if not all(np.isfinite(values).all() for values in logits):
            raise InputError("its logits are not finite; export the model in float32")
        return logits
