"""SIREN: is this text harmful?

"LLM Safety From Within", arXiv 2604.18519, section "Method"; float64 oracle in
``tests/reference/siren.py``. Reads chosen neurons of the states' mean over tokens.

Agent-SIREN asks it of an agent's turns and tools: one linear readout of the last token's state.
That is a network of one linear map, so it is the same detector under a name of its own: a bundle
can hold both.
"""

import itertools
from collections.abc import Mapping
from functools import partial

import numpy as np

from layerguard.runtime.detectors.decide import decide
from layerguard.runtime.detectors.kind import POOLS, DetectorKind, States
from layerguard.runtime.detectors.parameters import CALIBRATED, Shape, array_faults, need
from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels import SirenKernel
from layerguard.runtime.types import Array, Evidence, Reading, Tap

NAME = "siren"
TAP = Tap(view="content", pooling="mean")
AGENT_NAME = "agent_siren"
AGENT_TAP = Tap(view="trajectory", pooling="last")
EVIDENCE_LAYERS = 5


class Siren:
    """The bound detector: score = softmax(MLP(concat_l alpha_l x_l[neurons_l]))[1], in [0, 1]."""

    def __init__(self, params: Mapping[str, Array], tap: Tap = TAP, name: str = NAME) -> None:
        need(name, params, _expected(_depth(params)))
        self.tap = tap
        self._name = name
        self._weights = [params[f"weight_{i}"] for i in range(_depth(params))]
        self._biases = [params[f"bias_{i}"] for i in range(_depth(params))]
        self._layers = params["layers"]
        self._parts = list(itertools.pairwise(params["neuron_offsets"].tolist()))
        self._neurons, self._alpha = params["neurons"], params["alpha"]
        self._kernel = SirenKernel(
            self._layers,
            params["neuron_offsets"],
            self._neurons,
            self._alpha,
            self._weights,
            self._biases,
        )
        self._threshold = float(params["threshold"])
        self._clean_scores = params["clean_scores"].tolist()

    def score(
        self,
        states: States,
        mask: Array | None = None,
        roles: Array | None = None,  # noqa: ARG002 - who speaks does not matter here
    ) -> Reading:
        """The reading of one text from the states of its tokens; see ``Detector.score``."""
        if self.tap.pooling not in POOLS:
            raise InputError(
                f"{self._name} reads {self.tap.pooling}, the blocks' feed-forward outputs, which "
                "states do not hold; check the text instead"
            )
        return self.score_pooled(POOLS[self.tap.pooling](states, mask)[:, None, :])[0]

    def score_pooled(self, layers: States) -> list[Reading]:
        """One reading per row from the mean states, L + 1 arrays [rows, hidden]."""
        readings = []
        for row, score in enumerate(self._kernel.score(layers).tolist()):
            reading = decide(self._name, score, self._threshold, self._clean_scores, ())
            if reading.flagged and reading.status == "ok":  # costs more than the score itself
                evidence = self._evidence(layers, row)
                reading = decide(self._name, score, self._threshold, self._clean_scores, evidence)
            readings.append(reading)
        return readings

    def _evidence(self, layers: States, row: int) -> tuple[Evidence, ...]:
        """Layers by input x gradient of the logit difference (harmful minus safe), largest first.

        A ReLU network is linear between its kinks, so these are exact local contributions.
        """
        features = np.concatenate(
            [
                alpha * _singles(layers[layer][row])[self._neurons[start:stop]]
                for layer, alpha, (start, stop) in zip(
                    self._layers, self._alpha, self._parts, strict=True
                )
            ]
        )
        value, active = features, []
        for weight, bias in zip(self._weights[:-1], self._biases[:-1], strict=True):
            value = np.maximum(weight @ value + bias, 0)
            active.append(value > 0)
        gradient = self._weights[-1][1] - self._weights[-1][0]
        for weight, on in zip(reversed(self._weights[:-1]), reversed(active), strict=True):
            gradient = (gradient * on) @ weight
        moved = features * gradient
        shares = [float(moved[start:stop].sum()) for start, stop in self._parts]
        top = np.argsort(-np.abs(shares), kind="stable")[:EVIDENCE_LAYERS].tolist()
        return tuple(Evidence(int(self._layers[i]), "logit", shares[i]) for i in top)


class AgentSiren(Siren):
    """The same of an agent's trajectory; its own name and tap."""

    def __init__(self, params: Mapping[str, Array], tap: Tap = AGENT_TAP) -> None:
        super().__init__(params, tap, AGENT_NAME)


def _singles(row: Array) -> Array:
    """A row as float32; uint16 holds the bits of bfloat16, which are a float32's upper half."""
    if row.dtype == np.uint16:
        return (row.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(row, np.float32)


def _depth(params: Mapping[str, Array]) -> int:
    """Linear maps of the network; at least one is expected."""
    return max(1, sum(name.startswith("weight_") for name in params))


def faults(params: Mapping[str, Array], layers: int, width: int, name: str = NAME) -> list[str]:
    """Every way in which the parameters are not fit for a model of that size."""
    depth = _depth(params)
    found = array_faults(name, params, _expected(depth))
    return found or _index_faults(name, params, layers, width) + _chain_faults(name, params, depth)


def _expected(depth: int) -> dict[str, tuple[str, Shape]]:
    """Dtype and shape of every parameter of a network of ``depth`` linear maps."""
    return {
        "layers": ("int32", (None,)),
        "neuron_offsets": ("int32", (None,)),
        "neurons": ("int32", (None,)),
        "alpha": ("float32", (None,)),
        **{f"weight_{i}": ("float32", (None, None)) for i in range(depth)},
        **{f"bias_{i}": ("float32", (None,)) for i in range(depth)},
        **CALIBRATED,
    }


def _index_faults(name: str, params: Mapping[str, Array], layers: int, width: int) -> list[str]:
    chosen, offsets, neurons = params["layers"], params["neuron_offsets"], params["neurons"]
    found = []
    if not len(chosen) or (chosen < 0).any() or (chosen > layers).any():
        found.append(f"{name}/layers is {chosen.tolist()}; expected states within 0..{layers}")
    if len(offsets) != len(chosen) + 1 or len(params["alpha"]) != len(chosen):
        found.append(
            f"{name}/neuron_offsets and alpha have {len(offsets)} and {len(params['alpha'])} "
            f"entries; expected {len(chosen) + 1} and {len(chosen)} for {len(chosen)} layers"
        )
    elif offsets[0] != 0 or offsets[-1] != len(neurons) or (np.diff(offsets) < 0).any():
        found.append(
            f"{name}/neuron_offsets is {offsets.tolist()}; expected an ascending list from 0 to "
            f"the number of neurons, {len(neurons)}"
        )
    if (neurons < 0).any() or (neurons >= width).any():
        found.append(f"{name}/neurons has indices outside 0..{width - 1}")
    return found


def _chain_faults(name: str, params: Mapping[str, Array], depth: int) -> list[str]:
    width = len(params["neurons"])
    found = []
    for i in range(depth):
        weight, bias = params[f"weight_{i}"], params[f"bias_{i}"]
        if weight.shape != (len(bias), width):
            found.append(
                f"{name}/weight_{i} is {list(weight.shape)}; expected [{len(bias)}, {width}]"
            )
        width = len(bias)
    if width != 2:
        found.append(f"{name}'s last layer has {width} outputs; expected 2, safe and harmful")
    return found


KIND = DetectorKind(
    name=NAME,
    question="is this text harmful?",
    tap=TAP,
    faults=faults,
    bind=Siren,
)

AGENT_KIND = DetectorKind(
    name=AGENT_NAME,
    question="is this agent doing harm?",
    tap=AGENT_TAP,
    faults=partial(faults, name=AGENT_NAME),
    bind=AgentSiren,
)
