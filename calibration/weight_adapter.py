"""LoRA adapters in PEFT's format: the change of a matrix is (alpha / r) B A.

Low-Rank Adaptation, arXiv 2106.09685; with ``use_rslora`` the factor is alpha / sqrt(r), arXiv
2312.03732. Anything that adds to the change (DoRA, whole modules, biases) is refused.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerguard.calibration.weight_files import StoredTensor, read_json, stored_tensors
from layerguard.calibration.weight_names import Place, place_of
from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array

_CONFIG = "adapter_config.json"
_FACTOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_UNSUPPORTED = (
    "use_dora",
    "use_qalora",
    "modules_to_save",
    "trainable_token_indices",
    "alpha_pattern",
    "layer_replication",
    "lora_bias",
    "target_parameters",
)


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter's matrices that write into the residual stream.

    Attributes:
        alpha: of the scale alpha / r.
        stabilised: the scale is alpha / sqrt(r) instead.
        pairs: A [r, inputs] and B [width, r] by place; r may differ.
    """

    alpha: float
    stabilised: bool
    pairs: Mapping[Place, tuple[StoredTensor, StoredTensor]]

    @property
    def places(self) -> tuple[Place, ...]:
        """Block and part of the matrices, in order."""
        return tuple(sorted(self.pairs))

    def shape(self, place: Place) -> tuple[int, int]:
        """(width, inputs) of the matrix that is changed."""
        a, b = self.pairs[place]
        return b.shape[0], a.shape[1]

    def factors(self, place: Place) -> tuple[Array, Array]:
        """Two matrices whose product is the change, float64 [width, r] and [r, inputs]."""
        a, b = self.pairs[place]
        rank = a.shape[0]
        scale = self.alpha / (math.sqrt(rank) if self.stabilised else rank)
        return scale * b.read().astype(np.float64), a.read().astype(np.float64)


def is_adapter(folder: Path) -> bool:
    """Whether a folder is an adapter's and not a whole model's."""
    return (folder / _CONFIG).is_file()


def read(folder: Path) -> Adapter:
    """The adapter in a folder.

    Raises:
        InputError: it is not plain LoRA, or changes no matrix that writes into the residual stream.
    """
    config = read_json(folder / _CONFIG)
    faults = [f"{name} is {config[name]!r}" for name in _UNSUPPORTED if config.get(name)]
    if config.get("peft_type") != "LORA":
        faults.append(f"peft_type is {config.get('peft_type')!r}")
    if config.get("bias", "none") != "none":
        faults.append(f"bias is {config['bias']!r}")
    alpha = config.get("lora_alpha")
    if not isinstance(alpha, int | float):
        faults.append(f"lora_alpha is {alpha!r}")
    if faults:
        raise InputError(
            f"{folder / _CONFIG}: {'; '.join(faults)}; expected plain LoRA. Merge the adapter into "
            "its base and give the folder of the merged model"
        )
    assert isinstance(alpha, int | float)
    return Adapter(alpha, bool(config.get("use_rslora")), _pairs(folder))


def _pairs(folder: Path) -> dict[Place, tuple[StoredTensor, StoredTensor]]:
    found: dict[str, dict[str, StoredTensor]] = {}
    faults = []
    for name, tensor in stored_tensors(folder).items():
        match = _FACTOR.fullmatch(name)
        if match is None:
            faults.append(f"tensor {name}; expected names that end in lora_A or lora_B.weight")
        else:
            found.setdefault(match[1], {})[match[2]] = tensor
    pairs = {}
    for module, sides in found.items():
        shapes = {side: sides[side].shape for side in sorted(sides)}
        if not _fit(shapes):
            faults.append(f"{module} has {shapes}; expected A [rank, inputs] and B [width, rank]")
        elif (place := place_of(module)) is not None:
            pairs[place] = (sides["A"], sides["B"])
    if faults:
        listed = "".join(f"\n  - {fault}" for fault in faults)
        raise InputError(f"{folder} is not plain LoRA:{listed}")
    if not pairs:
        kinds = sorted({module.rpartition(".")[2] for module in found})
        raise InputError(
            f"{folder}: found changes of {', '.join(kinds) or 'nothing'}; expected some of an "
            "output matrix of attention or of the feed-forward part (o_proj, down_proj and their "
            "kin). WeightWatch watches only these"
        )
    return pairs


def _fit(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    a, b = shapes.get("A", ()), shapes.get("B", ())
    return len(a) == len(b) == 2 and a[0] == b[1] >= 1
