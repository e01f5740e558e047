"""The analysis graph of a bundle at work: every layer's logits, and the output under gates."""

from collections.abc import Sequence

import numpy as np

from layerguard.calibration.trace.masks import Mask, inert
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.model.session import Device, Session
from layerguard.runtime.text.tokens import Ids
from layerguard.runtime.types import Array

_MAX_ROWS = 32
_MAX_BATCH_TOKENS = 8_192
"""Of one run of the graph: bounds memory whatever the model's depth and the prompt's length."""


class AnalysisGraph:
    """A session on the analysis graph; the words are those of ``runtime/types.py``.

    Attributes:
        layers: L.
        width: D.
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
        # int8 activations share one scale a run: alone, a row cannot depend on its company
        self._most_rows = 1 if model.dtype == "int8" else _MAX_ROWS
        found = {output.layer: output.name for output in card.outputs if output.kind == "lens"}
        self._lens = [found[layer] for layer in range(self.layers + 1)]
        self._session = Session(bundle.path / card.file, device, threads)

    def lens(self, ids: Ids) -> Array:
        """The logits of every layer at the last token, float32 [L + 1, vocabulary].

        Raises:
            InputError: some are not finite.
        """
        bypass, keep = inert(1, self.layers, self.width)
        return np.concatenate(self._run(self._lens, [ids], bypass, keep))

    def masked(self, ids: Ids, mask: Mask) -> Array:
        """The model's own logits at the last token with each block masked in turn.

        All blocks are rows of one batch, or of as many as keep memory bounded. ONNX Runtime
        computes every layer's logits whichever are asked for; that is one token's share of the
        work, not one prompt's.

        Args:
            ids: the prompt.
            mask: what becomes of a block.

        Returns:
            float32 [L, vocabulary], row l - 1 with block l masked.

        Raises:
            InputError: some are not finite.
        """
        most = min(self._most_rows, max(1, _MAX_BATCH_TOKENS // len(ids)))
        parts = []
        for start in range(1, self.layers + 1, most):
            blocks = range(start, min(start + most, self.layers + 1))
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
        for name, found in zip(outputs, logits, strict=True):
            if found.ndim != 2 or len(found) != len(rows):
                fault = (
                    f"analysis.onnx gave {name!r} as {list(found.shape)}; expected {len(rows)} "
                    "rows of logits: export it again"
                )
                raise BundleError(self._folder, [fault])
        if not all(np.isfinite(found).all() for found in logits):
            raise InputError("its logits are not finite; export the model in float32")
        return logits
