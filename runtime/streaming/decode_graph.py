"""The decode graph: reads new tokens of a text whose earlier tokens are in a cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.manifest import GraphCard, added_outputs
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.model.mapped import MappedWeights
from layerguard.runtime.model.session import Device, Session
from layerguard.runtime.streaming.cache import KeyValueCache, Layout
from layerguard.runtime.types import ADDED, Array, Pooling, Semantics


@dataclass(frozen=True, slots=True)
class Step:
    """Outputs of one run of the decode graph.

    Attributes:
        states: states of the new tokens, L + 1 arrays [tokens, hidden]. The last array is the
            state before the final norm.
        final_norm: [tokens, hidden], or None if the graph has no such output.
        logits: float32 [vocabulary] of the last token; None unless requested.
        added: what tuning adds at the new tokens, [tokens, K]; None unless the graph was opened
            for it.
    """

    states: tuple[Array, ...]
    final_norm: Array | None
    logits: Array | None
    added: Array | None = None

    def read(self, pooling: Pooling, semantics: Semantics) -> tuple[Array, ...]:
        """What detectors of this pooling read of the new tokens, [tokens, ...] each."""
        if pooling != ADDED:
            return self.layers(semantics)
        assert self.added is not None, "the graph was opened for a detector that reads it"
        return (self.added,)

    def layers(self, semantics: Semantics) -> tuple[Array, ...]:
        """The states, with the last one as ``semantics`` defines it."""
        if semantics == "block" or self.final_norm is None:
            return self.states
        return (*self.states[:-1], self.final_norm)


class DecodeGraph:
    """The decode graph of a bundle. Thread-safe as long as no two calls share a cache.

    Attributes:
        gives_logits: whether ``advance`` can return logits. False if upper blocks were cut off.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: Device = "cpu",
        threads: int = 0,
        weights: MappedWeights | None = None,
        *,
        added: bool = False,
    ) -> None:
        """Open the decode graph; see ``Session`` for the other arguments and errors.

        Args:
            bundle: the bundle.
            device: device of the session.
            threads: threads of the session.
            weights: mapped weights, or None.
            added: whether steps give what tuning adds.

        Raises:
            InputError: the bundle has no decode graph.
        """
        card = bundle.manifest.graphs.get("decode")
        if card is None:
            raise InputError(
                f"bundle {bundle.path.name!r} has no decode graph; expected a graph that reads "
                "token by token: export a decoder, without --decode no"
            )
        model = bundle.manifest.model
        self._folder, self._file = bundle.path, card.file
        opened = partial(bundle.opened, card.file)
        self._session = Session(bundle.path / card.file, device, threads, opened, weights)
        names = {(output.kind, output.layer): output.name for output in card.outputs}
        blocks = range(1, model.layers + 1)
        wanted = [("state", 0), *[(k, n) for n in blocks for k in ("state", "key", "value")]]
        faults = _faults(card, self._session, model.layers)
        faults += [
            f"{card.file} has no {kind} output of layer {layer}; export it again"
            for kind, layer in wanted
            if (kind, layer) not in names
        ]
        if faults:
            raise BundleError(bundle.path, faults)
        self._layout = _layout(self._session, model.layers)
        self._states = [names["state", layer] for layer in (0, *blocks)]
        self._new = [names[kind, block] for block in blocks for kind in ("key", "value")]
        self._norm = [name for (kind, _), name in names.items() if kind == "final_norm"]
        self._logits = [name for (kind, _), name in names.items() if kind == "logits"]
        self._added = [output.name for output in added_outputs(card)] if added else []
        self._inert = np.zeros((model.layers, 1, model.width), np.float32)
        self._vocabulary = model.vocabulary
        self.gives_logits = bool(self._logits)

    def new_cache(self) -> KeyValueCache:
        """An empty cache for one sequence."""
        return KeyValueCache(self._layout)

    def advance(
        self,
        ids: Sequence[int],
        cache: KeyValueCache,
        *,
        steering: Array | None = None,
        want_logits: bool = False,
    ) -> Step:
        """Read new tokens and append their keys and values to ``cache``.

        Args:
            ids: the tokens after those in ``cache``, at least one.
            cache: a cache made by ``new_cache``.
            steering: float32 [L, m, hidden], rows orthonormal or zero. The components along these
                rows are removed from each block's output; None removes nothing.
            want_logits: whether to return the logits of the last token.

        Raises:
            InputError: there is no id, an id is outside the vocabulary, or logits were requested
                from a graph that has none.
            BundleError: the graph fails.
        """
        tokens = np.asarray(ids, np.int64).reshape(1, -1)
        if not tokens.size or tokens.min() < 0 or tokens.max() >= self._vocabulary:
            wrong = sorted({i for i in ids if not 0 <= i < self._vocabulary})[:3] or "none"
            raise InputError(
                f"token ids: found {wrong}; expected at least one, each from 0 to "
                f"{self._vocabulary - 1}: give the ids of the bundle's own tokenizer"
            )
        if want_logits and not self._logits:
            raise InputError(
                f"{self._file} has no logits output, because upper blocks were cut off; export "
                "the model again without --layers"
            )
        logits = self._logits if want_logits else []
        values = self._session.run(
            [*self._new, *self._states, *self._norm, *self._added, *logits],
            {
                "input_ids": tokens,
                "attention_mask": cache.mask(tokens.size),
                "steering": self._inert if steering is None else steering,
                **cache.feeds,
            },
        )
        cache.append(values[: len(self._new)])
        rest = [value[0] for value in values[len(self._new) :]]
        depth = len(self._states)
        first = depth + len(self._norm)
        lengths = rest[first : first + len(self._added)]
        return Step(
            states=tuple(rest[:depth]),
            final_norm=rest[depth] if self._norm else None,
            logits=rest[-1] if want_logits else None,
            added=np.stack(lengths, axis=1, dtype=np.float32) if lengths else None,
        )


def _past(blocks: int) -> list[str]:
    """The cache inputs of the graph: key, then value, for each block."""
    return [f"past_{kind}_{block:02}" for block in range(blocks) for kind in ("key", "value")]


def _layout(session: Session, blocks: int) -> Layout:
    layout = {}
    for name in _past(blocks):
        dtype, (_, heads, _, elements) = session.input_type(name)
        assert heads is not None, "checked by _faults"
        assert elements is not None, "checked by _faults"
        layout[name] = (heads, elements, dtype)
    return layout


def _faults(card: GraphCard, session: Session, blocks: int) -> list[str]:
    """Inputs and outputs that the decode graph lacks, and inputs that this release cannot fill."""
    filled = {"input_ids", "attention_mask", "steering", *_past(blocks)}
    faults = [
        f"{card.file} takes an input {name!r}, which this release does not know"
        for name in session.inputs
        if name not in filled
    ]
    for name in set(_past(blocks)).intersection(session.inputs):
        _, shape = session.input_type(name)
        if len(shape) != 4 or None in (shape[1], shape[3]):
            faults.append(
                f"{card.file} takes {name!r} of shape {list(shape)}; expected [rows, heads, past, "
                "elements] with fixed numbers of heads and elements: export it again"
            )
    for what, expected, actual in (
        ("input", {*card.inputs, *filled}, session.inputs),
        ("output", {output.name for output in card.outputs}, session.outputs),
    ):
        missing = sorted(expected.difference(actual))
        if missing:
            faults.append(f"{card.file} has no {what} {', '.join(missing)}; export it again")
    return faults
