"""Bundles that earlier releases wrote are loaded, and say what they said."""

import json
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from layerguard.runtime import Bundle, Guard
from tests.c_guard import CGuard
from tests.old_bundles.requests import REQUESTS, figures

FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("*/answers.json"))
TOLERANCE = 1e-4
"""Of a score, relative to max(1, score): other processors and releases of ONNX Runtime round the
states otherwise, as the bundle's own canaries allow for."""


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def old(request: pytest.FixtureRequest) -> Path:
    """The folder of one release."""
    folder: Path = request.param
    return folder


@pytest.fixture(scope="module")
def guard(old: Path) -> Guard:
    """Its bundle, verified, with its canaries replayed."""
    return Guard.load(old / "bundle")


def test_there_is_an_old_bundle() -> None:
    """The suite has something to load."""
    assert FOLDERS


def test_the_bundle_still_has_what_it_was_made_with(old: Path) -> None:
    """Canaries, a decision over three detectors, thresholds of two domains, two fused graphs."""
    manifest = Bundle.load(old / "bundle").manifest
    assert manifest.canaries
    assert manifest.decision is not None
    assert manifest.decision.detectors == ("lcf", "siren", "weightwatch")
    assert sorted(manifest.decision.domains) == ["chat", "mail"]
    assert sorted(manifest.graphs) == ["analysis", "decode", "score"]
    assert sorted(manifest.fused) == ["decode", "score"]


@pytest.mark.parametrize("name", REQUESTS)
def test_every_verdict_is_what_it_was(old: Path, guard: Guard, name: str) -> None:
    """Decision, thresholds and scores."""
    answers = json.loads((old / "answers.json").read_text(encoding="utf-8"))
    assert_same(figures(guard.check(**REQUESTS[name])), answers[name])


def test_the_answers_hold_both_verdicts(old: Path) -> None:
    """Some of the texts were flagged and some were not."""
    answers = json.loads((old / "answers.json").read_text(encoding="utf-8"))
    assert {answer["flagged"] for answer in answers.values()} == {False, True}


def test_a_stream_says_the_same(old: Path, guard: Guard) -> None:
    """The decode graph reads the answer token by token and ends at the verdict on the pair."""
    answers = json.loads((old / "answers.json").read_text(encoding="utf-8"))
    pair = REQUESTS["pair"]
    with guard.stream(prompt=pair["prompt"]) as stream:
        stream.push(pair["response"][:4])
        verdict = stream.push(pair["response"][4:])
    assert_same(figures(verdict), answers["pair"])


def test_the_c_library_opens_it(old: Path) -> None:
    """The archive names its three detectors to C."""
    with_c = CGuard(old / "bundle" / "detectors.npz")
    assert len(with_c.names) == 3


def test_the_fused_graph_loads(old: Path) -> None:
    """ONNX Runtime takes the graph, and it still gives every score and the decision."""
    session = onnxruntime.InferenceSession(
        old / "bundle" / "fused.onnx", providers=["CPUExecutionProvider"]
    )
    outputs = {output.name for output in session.get_outputs()}
    assert {"flagged", "lcf_score", "siren_score", "weightwatch_score"} <= outputs


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same decision and the same readings, scores within the tolerance."""
    for key in ("flagged", "status", "truncated"):
        assert found[key] == expected[key]
    assert found["readings"].keys() == expected["readings"].keys()
    for name, reading in expected["readings"].items():
        mine = found["readings"][name]
        assert mine["flagged"] == reading["flagged"]
        assert mine["threshold"] == pytest.approx(reading["threshold"], rel=1e-12)
        assert mine["score"] == pytest.approx(reading["score"], rel=TOLERANCE, abs=TOLERANCE)
        assert mine["p_value"] == pytest.approx(reading["p_value"], abs=0.01)
