"""Does the device give the CPU's states, within the exporter's tolerance, and the same scores?"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from layerguard.exporter.proof.differences import Differences
from layerguard.runtime import Bundle, Guard
from layerguard.runtime.model.session import Device, Session
from layerguard.runtime.types import Array
from tests.gpu.bundles import path_of, text
from tests.gpu.stage import Setting

_SHAPES = ((1, 1), (1, 8), (3, 33), (6, 64), (1, 256))
"""Rows and tokens; rows of a batch are of different lengths, padded left or right in turn."""
_TEXTS = (3, 40, 120)


def parity(name: str, setting: Setting) -> Mapping[str, Any]:
    """Every output of the score graph on both devices, then three verdicts.

    Raises:
        ExportError: an output is beyond the exporter's tolerance.
    """
    bundle = Bundle.load(path_of(name, setting.bundles))
    manifest = bundle.manifest
    graph = bundle.path / manifest.graphs["score"].file
    there, here = Session(graph, setting.device), Session(graph, "cpu")
    names = [card.name for card in manifest.graphs["score"].outputs]
    compared = []
    most = manifest.text.max_tokens
    for rows, tokens in _SHAPES:
        feeds = _batch(rows, min(tokens, most), manifest.model.vocabulary)
        valid = feeds["attention_mask"].astype(bool)
        pairs = zip(there.run(names, feeds), here.run(names, feeds), strict=True)
        compared.append(
            {
                output: (mine[valid], theirs[valid]) if mine.ndim == 3 else (mine, theirs)
                for output, (mine, theirs) in zip(names, pairs, strict=True)
            }
        )
    rounding = manifest.graphs["score"].parity.rounding or dict.fromkeys(names, 0.0)
    found = check_tolerance(manifest.model.dtype, names, compared, rounding)
    return {**found, "providers": there.providers, **_scores(bundle, setting.device)}


def check_tolerance(
    dtype: Any,
    names: Sequence[str],
    compared: Sequence[Mapping[str, tuple[Array, Array]]],
    rounding: Mapping[str, float],
) -> dict[str, Any]:
    """The largest differences over the batches; the one place that knows the exporter's tolerance.

    Args:
        dtype: of the bundle.
        names: of the outputs.
        compared: by batch and output, what the device and what the CPU gave.
        rounding: by output, how far PyTorch's float32 was from float64 at the export.

    Raises:
        ExportError: an output is beyond the limit.
    """
    differences = Differences(names)
    for batch in compared:
        for name, (mine, theirs) in batch.items():
            differences.add(name, mine, theirs.astype(np.float64), theirs)
    proof = replace(differences.proof(len(compared)), rounding=rounding)
    proof.check(dtype)
    return {
        "dtype": dtype,
        "outputs": len(names),
        "batches": len(compared),
        "largest_difference": max(proof.largest.values()),
        "largest_cosine_distance": max(proof.cosine_distance.values()),
    }


def _scores(bundle: Bundle, device: Device) -> dict[str, Any]:
    """The largest |score - CPU's| / max(1, |CPU's|) of each detector, and verdicts that flip."""
    there, here = Guard.load(bundle.path, device=device), Guard.load(bundle.path)
    largest = dict.fromkeys(bundle.manifest.detectors, 0.0)
    flips = 0
    for tokens in _TEXTS:
        mine, theirs = there.check(text(tokens)), here.check(text(tokens))
        flips += mine.flagged != theirs.flagged
        for name, reading in theirs.readings.items():
            difference = abs(mine.readings[name].score - reading.score)
            largest[name] = max(largest[name], difference / max(1, abs(reading.score)))
    return {"largest_score_difference": largest, "flips": flips, "texts": len(_TEXTS)}


def _batch(rows: int, tokens: int, vocabulary: int) -> dict[str, Array]:
    rng = np.random.default_rng(rows * tokens)
    ids = rng.integers(0, vocabulary, (rows, tokens))
    mask = np.ones_like(ids)
    for row in range(1, rows):
        unused = int(rng.integers(0, tokens))
        mask[row, slice(unused) if row % 2 else slice(tokens - unused, None)] = 0
    return {"input_ids": ids, "attention_mask": mask}
