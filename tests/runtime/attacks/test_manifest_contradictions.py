"""Manifests whose values have the right types and cannot be true."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.tamper import edit_manifest, refused, set_at

_SIZES = {
    "no-layers": (("model", "layers"), 0),
    "negative-layers": (("model", "layers"), -3),
    "astronomical-layers": (("model", "layers"), 10**12),
    "endless-layers": (("model", "layers"), 10**300),
    "no-width": (("model", "width"), 0),
    "endless-width": (("model", "width"), 2**63),
    "no-vocabulary": (("model", "vocabulary"), 0),
    "endless-vocabulary": (("model", "vocabulary"), 2**31),
    "padding-beyond-vocabulary": (("text", "pad_token_id"), 28),
    "negative-padding": (("text", "pad_token_id"), -1),
    "window-of-seven": (("text", "max_tokens"), 7),
    "negative-window": (("text", "max_tokens"), -1),
    "endless-window": (("text", "max_tokens"), 10**20),
    "no-windows": (("text", "max_windows"), 0),
    "rules-of-version-0": (("text", "rules_version"), 0),
}


@pytest.mark.parametrize("case", _SIZES)
def test_impossible_sizes_are_named(bundle: Path, case: str) -> None:
    """A size outside its range is refused with its name, its value and the range."""
    path, value = _SIZES[case]
    edit_manifest(bundle, lambda manifest: set_at(manifest, path, value))
    refused(bundle, f"{'.'.join(path)} is {value}", "expected")


def test_many_promised_layers_cost_nothing(bundle: Path) -> None:
    """Two billion layers, an allowed number, are refused at the first that has no output."""
    edit_manifest(
        bundle, lambda value: value["model"].update(layers=2**31 - 1, total_layers=2**31 - 1)
    )
    refused(bundle, "graphs.score has no last output of layer 4")


def _score(value: Any) -> Any:
    return value["graphs"]["score"]


def _twin_output(value: Any) -> None:
    _score(value)["outputs"].append(_score(value)["outputs"][0])


def _lose_output(value: Any) -> None:
    del _score(value)["outputs"][0]


_EDITS: dict[str, tuple[Callable[[Any], None], tuple[str, ...]]] = {
    "more-layers-than-the-model": (
        lambda v: v["model"].update(total_layers=2),
        ("model.layers is 3", "total_layers, 2"),
    ),
    "template-without-a-prompt": (
        lambda v: v["text"].update(template="answer this:"),
        ("'answer this:'", "{prompt}"),
    ),
    "template-with-two-prompts": (
        lambda v: v["text"].update(template="{prompt} {prompt}"),
        ("text.template", "once"),
    ),
    "text-rules-of-the-future": (
        lambda v: v["text"].update(rules_version=4),
        ("text.rules_version is 4", "knows up to 3", "upgrade layerguard"),
    ),
    "empty-template": (lambda v: v["text"].update(template=""), ("text.template is ''",)),
    "chat-without-chat-template": (
        lambda v: v["text"].update(template="chat"),
        ("no 'chat_template.jinja'",),
    ),
    "no-graphs": (lambda v: v.update(graphs={}), ("graphs has no 'score'",)),
    "graph-of-another-name": (
        lambda v: v.update(graphs={"decode": _score(v)}),
        ("graphs has no 'score'",),
    ),
    "output-missing": (_lose_output, ("no mean output of layer 0", "each of 0..3")),
    "output-twice": (_twin_output, ("lists an output twice",)),
    "output-of-layer-99": (
        lambda v: _score(v)["outputs"][0].update(layer=99),
        ("mean_00", "outside 0..3"),
    ),
    "output-of-layer-minus-1": (
        lambda v: _score(v)["outputs"][0].update(layer=-1),
        ("mean_00", "outside 0..3"),
    ),
    "states-promised-of-a-pooled-graph": (
        lambda v: _score(v).update(mode="states"),
        ("no state output of layer 0",),
    ),
    "no-outputs": (lambda v: _score(v).update(outputs=[]), ("no last output of layer 0",)),
    "certain-false-positives": (
        lambda v: v["detectors"]["lcf"].update(target_fpr=1.0),
        ("detectors.lcf", "target_fpr 1.0"),
    ),
    "no-false-positives": (
        lambda v: v["detectors"]["lcf"].update(target_fpr=0),
        ("detectors.lcf", "target_fpr 0.0"),
    ),
    "interval-upside-down": (
        lambda v: v["detectors"]["siren"].update(fpr_interval=[0.9, 0.1]),
        ("detectors.siren", "[0.9, 0.1]"),
    ),
    "interval-of-three": (
        lambda v: v["detectors"]["siren"].update(fpr_interval=[0.1, 0.2, 0.3]),
        ("detectors.siren", "[0.1, 0.2, 0.3]"),
    ),
    "interval-beyond-one": (
        lambda v: v["detectors"]["siren"].update(fpr_interval=[0.1, 1.2]),
        ("detectors.siren", "[0.1, 1.2]"),
    ),
    "detector-of-a-later-release": (
        lambda v: v["detectors"].update(oracle=v["detectors"]["lcf"]),
        ("'oracle' is unknown", "lcf, siren", "upgrade"),
    ),
    "detector-forgotten": (
        lambda v: v["detectors"].pop("siren"),
        ("'siren', which the manifest does not list",),
    ),
    "another-threshold": (
        lambda v: v["detectors"]["lcf"].update(threshold=7.5),
        ("threshold is 1000.0 in detectors.npz", "7.5", "calibrate again"),
    ),
    "not-calibrated": (
        lambda v: v.update(detectors={}),
        ("no detectors yet", "layerguard calibrate"),
    ),
}


@pytest.mark.parametrize("case", _EDITS)
def test_contradictions_are_named(bundle: Path, case: str) -> None:
    """Values that contradict each other, or the other files, are refused by name."""
    edit, words = _EDITS[case]
    edit_manifest(bundle, edit)
    refused(bundle, *words)
