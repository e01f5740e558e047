"""``layerguard import-siren`` on the command line; the golden answers are llm-siren's own.

The golden file is made, and checked against llm-siren, by ``make peers``.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerguard.runtime import Bundle, Guard
from layerguard.runtime.cli import main
from tests.calibration.synthetic import sentences, write_rows
from tests.peers.siren_heads import agent_head, content_head, write_head, write_heads
from tests.peers.siren_models import make_backbone
from tests.peers.siren_peer import GOLDEN, largest_difference, our_answers
from tests.tiny import LAYERS, WIDTH, make_bundle
from tests.tolerances import GOLDEN as TOLERANCE

_CHAT = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A bundle without detectors, heads for it, and llm-siren's answers with each head."""
    folder = tmp_path_factory.mktemp("llama")
    base, bundle = make_backbone(folder / "llama", "llama"), folder / "bundle"
    options = ["--mlp", "--decode", "no"]
    assert main(["export", str(base), "--out", str(bundle), *options]) == 0
    answers = json.loads(GOLDEN.read_text(encoding="utf-8"))["answers"]["llama"]
    return bundle, write_heads(folder / "heads", str(base)), answers


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """The toy bundle, without detectors, with a chat template."""
    return make_bundle(tmp_path / "tiny", {}, chat_template=_CHAT)


def small_head(folder: Path, kind: str = "content", **changes: Any) -> Path:
    """A head that fits the toy bundle, with ``changes`` to its sections."""
    if kind == "agent":
        config, tensors = agent_head("tiny", 2, width=WIDTH, max_length=12)
    else:
        config, tensors = content_head("hub/Tiny", blocks=(0, 1), width=WIDTH)
        config["inference"]["max_length"] = 12
    for section, values in changes.items():
        config[section] = {**config[section], **values}
    return write_head(folder / kind, config, tensors)


def import_siren(head: Path, bundle: Path, *options: object) -> int:
    """Run the command."""
    return main(["import-siren", str(head), str(bundle), *map(str, options), "--threads", "1"])


def test_scores_are_llm_sirens(exported: Any, tmp_path: Path) -> None:
    """Single texts and batches agree within 1e-5, and the same texts are harmful.

    Of both poolings and of trajectories: pairs, stream prefixes, chat markers, tools, long texts.
    """
    bundle, heads, answers = exported
    for name, head in heads.items():
        copy = Path(shutil.copytree(bundle, tmp_path / name))
        assert import_siren(head, copy) == 0
        assert largest_difference(our_answers(copy, name), answers[name]) <= TOLERANCE, name


def test_the_last_layer_is_chosen_and_recorded(exported: Any, tmp_path: Path) -> None:
    """The state before or after the final norm is read, with llm-siren's score at full depth."""
    bundle, heads, answers = exported
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    assert import_siren(heads["agent_last"], copy, "--last-layer", "hf") == 0
    card = Bundle.load(copy).manifest.detectors["agent_siren"]
    assert (card.semantics, card.settings["last_layer"]) == ("hf", "hf")
    ours = our_answers(copy, "agent_last")
    assert largest_difference(ours, answers["agent_last_whole"]) <= TOLERANCE
    assert largest_difference(ours, answers["agent_last"]) > 1e-2


def test_one_bundle_holds_both_kinds(toy: Path, tmp_path: Path) -> None:
    """Each head has its own token budget, both read a text, and serving follows the cards."""
    assert import_siren(small_head(tmp_path), toy) == 0
    assert import_siren(small_head(tmp_path, "agent"), toy) == 0
    cards = Bundle.load(toy).manifest.detectors
    assert {name: (card.view, card.limit.keep) for name, card in cards.items() if card.limit} == {
        "siren": ("content", "head"),
        "agent_siren": ("trajectory", "head-tail"),
    }
    verdict = Guard.load(toy, threads=1).check("the garden was quiet before the rain came over")
    assert verdict.readings.keys() == {"siren", "agent_siren"}


def test_without_clean_rows_nothing_is_promised(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The published threshold is inclusive, and the card says that it is not calibrated."""
    assert import_siren(small_head(tmp_path), toy) == 0
    printed = capsys.readouterr().out
    assert "flags scores of 0.5 and more, as published; no false-positive rate is" in printed
    card = Bundle.load(toy).manifest.detectors["siren"]
    assert (card.method, card.n, card.target_fpr, card.fpr_interval) == ("imported", 0, 1, (0, 1))
    assert card.threshold == np.nextafter(0.5, 0)
    assert card.settings["base_model"] == "hub/Tiny"
    assert card.settings["sha256"].keys() == {"siren_config.json", "siren.safetensors"}
    reading = Guard.load(toy, threads=1).check("the garden").readings["siren"]
    assert reading.p_value == 1


def test_clean_rows_give_a_calibrated_threshold(toy: Path, tmp_path: Path) -> None:
    """The threshold is split-conformal, from the head's scores of all given rows."""
    rows = write_rows(tmp_path / "clean.jsonl", [{"text": text} for text in sentences(60, 0)])
    assert import_siren(small_head(tmp_path), toy, "--clean", rows, "--target-fpr", 0.1) == 0
    bundle = Bundle.load(toy)
    card = bundle.manifest.detectors["siren"]
    assert (card.method, card.n, card.target_fpr) == ("imported-conformal", 60, 0.1)
    guard = Guard.load(toy, threads=1)
    scores = np.sort([guard.check(text).readings["siren"].score for text in sentences(60, 0)])
    kept = bundle.params["siren"]["clean_scores"]
    assert kept == pytest.approx(scores, abs=1e-6)
    assert card.threshold == kept[54]  # the 55th of 60: (60 + 1) * 0.9, rounded up


def test_bad_rows_are_reported_and_the_others_used(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A harmful row among the clean rows is reported with its line; the exit code is 2."""
    texts = [{"text": text} for text in sentences(30, 0)]
    rows = write_rows(tmp_path / "clean.jsonl", [*texts, {"text": "the rain", "label": 1}])
    assert import_siren(small_head(tmp_path), toy, "--clean", rows, "--target-fpr", 0.1) == 2
    assert "clean.jsonl:31: found label 1 in --clean" in capsys.readouterr().err
    assert Bundle.load(toy).manifest.detectors["siren"].n == 30


def test_blocks_that_are_not_needed_are_named(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output says how to export a smaller graph with the same scores, and the ignored keys."""
    head = small_head(tmp_path, siren_module={"trained_on": "x"}, inference={"batch": 8})
    assert import_siren(head, toy) == 0
    printed = capsys.readouterr().out
    assert "blocks above 2 change no score of it: `layerguard export --layers 2`" in printed
    assert "keys of its configuration: siren_module.trained_on, inference.batch" in printed


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        (content_head("tiny", blocks=(0, LAYERS), width=WIDTH), "reads state 4; the model has 3"),
        (content_head("tiny", blocks=(0, 1), width=2 * WIDTH), "neurons; the model's states have"),
        (content_head("other", blocks=(0,), width=WIDTH), "was trained on 'other'; the bundle's"),
        (content_head("tiny", "mlp_mean", (0,), width=WIDTH), "Export the model with --mlp"),
        (content_head("tiny", blocks=(0,), width=WIDTH), "Export the model with --max-tokens 90"),
        (agent_head("tiny", 1, width=WIDTH - 1), "reads 15 neurons; the model's states have 16"),
        (agent_head("tiny", LAYERS + 1, width=WIDTH), "reads state 4; the model has 3 blocks"),
    ],
    ids=["layers", "width", "base", "mlp", "tokens", "agent-width", "agent-layers"],
)
def test_a_head_that_does_not_fit_is_refused(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], head: Any, fault: str
) -> None:
    """The message says what was found, expected and to be done; the bundle is unchanged."""
    before = Bundle.load(toy).id
    assert import_siren(write_head(tmp_path / "head", *head), toy) == 2
    assert fault in capsys.readouterr().err
    assert Bundle.load(toy).id == before


def test_a_trajectory_needs_a_chat_template(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Agent-SIREN reads turns; a model without a chat template has none."""
    bundle = make_bundle(tmp_path / "tiny", {})
    assert import_siren(small_head(tmp_path, "agent"), bundle) == 2
    assert "Export a model whose tokenizer has one" in capsys.readouterr().err


def test_the_user_can_vouch_for_another_name(toy: Path, tmp_path: Path) -> None:
    """--other-base accepts a bundle whose model has another name."""
    head = small_head(tmp_path, base_model={"model_id": "hub/another"})
    assert import_siren(head, toy) == 2
    assert import_siren(head, toy, "--other-base") == 0
