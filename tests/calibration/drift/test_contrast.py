"""The base under contrastive prompts: system prompts in templates, and the choice of a layer."""

from pathlib import Path

import numpy as np
import pytest

from layerguard.calibration.drift.contrast import (
    ACKNOWLEDGEMENT,
    candidate_layers,
    manner,
    read_contrast,
    read_poles,
)
from layerguard.calibration.drift.traits import Trait
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.drift.states import TAP, last_token_states
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.text.request import request
from tests.drift_monitors import CHAT
from tests.tiny import LAYERS, WIDTH, make_bundle

TRAIT = Trait("about rain", "wet", "dry", ("the rain", "quiet rain"), ("the hills", "low hills"))
QUESTIONS = ("a garden", "small boats", "the river")
USERS_ONLY = (
    "{% for turn in messages %}{% if turn['role'] == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}{{ turn['content'] }} {% endfor %}"
)
DROPS_SYSTEM = (
    "{% for turn in messages %}{% if turn['role'] != 'system' %}{{ turn['content'] }} {% endif %}"
    "{% endfor %}"
)


def bundle_of(folder: Path, chat_template: str | None) -> Bundle:
    """A tiny bundle with a chat template or a plain template."""
    template = "{prompt}" if chat_template is None else "chat"
    made = make_bundle(folder / "b", {}, template=template, chat_template=chat_template)
    return Bundle.load(made)


@pytest.mark.parametrize(
    ("chat_template", "expected"),
    [(CHAT, "system"), (USERS_ONLY, "user-turn"), (DROPS_SYSTEM, "user-turn"), (None, "system")],
    ids=["takes it", "refuses it", "drops it", "no turns"],
)
def test_a_system_prompt_reaches_the_model(
    tmp_path: Path, chat_template: str | None, expected: str
) -> None:
    """A system prompt is a system turn if the template shows it, else a user turn."""
    bundle = bundle_of(tmp_path, chat_template)
    assert manner(bundle) == expected
    positive, negative = read_poles(
        Backbone(bundle, threads=1), TRAIT, QUESTIONS, manner(bundle), [1], "wet"
    )
    assert positive.shape == negative.shape == (2, 3, 1, WIDTH)
    assert (positive != negative).any()


def test_a_user_turn_is_acknowledged(tmp_path: Path) -> None:
    """The states are those of a chat of prompt, fixed answer and question."""
    backbone = Backbone(bundle_of(tmp_path, USERS_ONLY), threads=1)
    positive, _ = read_poles(backbone, TRAIT, QUESTIONS, "user-turn", [2], "wet")
    chat = [
        {"role": "user", "content": TRAIT.positive_system_prompts[1]},
        {"role": "assistant", "content": ACKNOWLEDGEMENT},
        {"role": "user", "content": QUESTIONS[2]},
    ]
    alone = last_token_states(backbone, [request(messages=chat)], [2], "")
    assert np.allclose(positive[1, 2], alone[0], atol=1e-6)


def test_states_are_of_the_last_prompt_token(tmp_path: Path) -> None:
    """Each requested layer, in order, equals the runtime's last-token state."""
    backbone = Backbone(bundle_of(tmp_path, CHAT), threads=1)
    requests = [request(prompt=question) for question in QUESTIONS]
    states, _ = backbone.read(requests, {TAP}).of(TAP)
    found = last_token_states(backbone, requests, [3, 1], "")
    assert (found == np.stack([states[3], states[1]], axis=1)).all()


def test_the_last_window_of_a_long_prompt_counts(tmp_path: Path) -> None:
    """A long prompt is read in windows, and its last window counts."""
    made = make_bundle(tmp_path / "b", {}, windows="sliding")
    backbone = Backbone(Bundle.load(made), threads=1)
    long, short = "the garden was quiet " * 5, "rain"
    states, owner = backbone.read([request(long), request(short)], {TAP}).of(TAP)
    assert owner.tolist().count(0) > 1
    found = last_token_states(backbone, [request(long), request(short)], [2], "")
    assert (found[0, 0] == states[2][owner.tolist().count(0) - 1]).all()


@pytest.mark.parametrize(
    ("total", "layer", "expected"),
    [
        (32, None, range(12, 23)),
        (48, None, range(19, 34)),
        (8, None, range(3, 6)),
        (1, None, [1]),
        (32, 30, [30]),
    ],
)
def test_layers_are_looked_for_in_the_middle(
    total: int, layer: int | None, expected: range | list[int]
) -> None:
    """Candidate layers lie at 40 to 70 % of the depth, unless the user names a layer."""
    assert candidate_layers(total, total, layer) == list(expected)


def test_layers_that_were_cut_off_are_missed() -> None:
    """A cut graph has fewer candidates; without any, the message says what to do."""
    assert candidate_layers(32, 14, None) == [12, 13, 14]
    with pytest.raises(InputError, match="keeps 8 of 32 blocks; expected 12 or more"):
        candidate_layers(32, 8, None)
    with pytest.raises(InputError, match="found 9; expected a state index from 1 to 8"):
        candidate_layers(32, 8, 9)


def test_the_layer_that_separates_best_is_read(tmp_path: Path) -> None:
    """The layer with the largest separation is read; a named layer is not compared."""
    bundle = bundle_of(tmp_path, CHAT)
    backbone = Backbone(bundle, threads=1)
    layers = list(range(1, LAYERS + 1))
    found = read_contrast(backbone, bundle, {"wet": TRAIT}, QUESTIONS, layers)
    assert list(found.separation) == layers
    assert found.separation[found.layer] == max(found.separation.values())
    named = read_contrast(backbone, bundle, {"wet": TRAIT}, QUESTIONS, [found.layer])
    assert named.separation == {}
    assert (named.positive[0] == found.positive[0]).all()


def test_poles_that_no_probe_tells_apart_are_refused(tmp_path: Path) -> None:
    """Poles with the same system prompts are refused; the message lists the accuracies."""
    bundle = bundle_of(tmp_path, CHAT)
    same = Trait("", "a", "b", TRAIT.positive_system_prompts, TRAIT.positive_system_prompts)
    contrast = read_contrast(Backbone(bundle, threads=1), bundle, {"x": same}, QUESTIONS, [2])
    with pytest.raises(CalibrationError, match=r"of 0 of 1 traits \(x 0\.\d+\)"):
        contrast.probe(["x"])
    assert contrast.probe(["x"], weak=True)["x"] <= 0.8
