"""The fused decode graph: its scores are those of the whole text so far."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from layerguard.exporter.fused.pipeline import fuse
from layerguard.exporter.fused.proof import Growing
from layerguard.runtime import Bundle
from layerguard.runtime.model.session import Session
from layerguard.runtime.types import Array
from tests import tiny, tiny_decoder
from tests.fused.bundles import ALL, FRESH, calibrated, expected, fed, load, recalibrated
from tests.fused.graphs import agree, broken, run

_GROWING = (*ALL[:3], "span", "delta")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fused decoder with both graphs; tests must not change it."""
    made = calibrated(tmp_path_factory.mktemp("growing") / "bundle", _GROWING, decode=True)
    fuse(made, threads=1)
    return made


def _answers(path: Path, given: dict[str, Array], size: int) -> list[dict[str, Array]]:
    """The outputs after each chunk, without cache and states."""
    session = Session(path / "fused_decode.onnx", threads=1)
    names = [
        name for name in session.outputs if name == "flagged" or name.endswith(("score", "value"))
    ]
    return [{n: one[n] for n in names} for one in Growing(session, given).chunks(size)]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_hundred_texts_in_chunks(size: int, path: Path) -> None:
    """For any chunk size the last verdict equals the runtime's; rows differ in length."""
    guard = load(path)
    agree(_answers(path, fed(guard, FRESH), size)[-1], expected(guard, FRESH))


def test_every_chunk_has_the_verdict_so_far(path: Path) -> None:
    """After each chunk the scores are those of the fused graph on the text so far."""
    given = fed(load(path), FRESH[:4])
    shortest = int(given["attention_mask"].sum(axis=1).min())
    for place, answer in enumerate(_answers(path, given, 2), 1):
        if 2 * place > shortest:
            break
        so_far = {k: v if k == "rows" else v[:, : 2 * place] for k, v in given.items()}
        agree(answer, run(path, so_far))


def test_each_detector_alone(tmp_path: Path) -> None:
    """A graph with one detector has only the states of this detector."""
    for name in _GROWING:
        made = calibrated(tmp_path / name, [name], decode=True)
        fuse(made, threads=1)
        guard = load(made)
        assert not any(other in key for other in _GROWING if other != name
                       for key in guard.bundle.manifest.fused["decode"].states)  # fmt: skip
        agree(_answers(made, fed(guard, FRESH[:20]), 5)[-1], expected(guard, FRESH[:20]))


def test_a_text_shorter_than_a_window_has_one_window(tmp_path: Path) -> None:
    """Its first token may have the largest logit of all, and counts only within a window."""
    mine = tiny.params_of("span")
    mine["weights"] = -mine["weights"]  # the opening token has the largest logit
    made = tiny_decoder.make_bundle(tmp_path / "bundle", {"span": mine}, decode=True)
    recalibrated(made)
    fuse(made, threads=1)
    guard = load(made)
    found = _answers(made, fed(guard, FRESH[:20]), 1)[-1]["span_score"]
    wanted = expected(guard, FRESH[:20])["span_score"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_what_was_not_finite_stays_flagged(tmp_path: Path) -> None:
    """After a broken token, detectors that read all tokens stay flagged."""
    made = calibrated(tmp_path / "bundle", ["siren", "span", "weightwatch"], "all", decode=True)
    fuse(made, threads=1)
    guard = load(made)
    given = fed(guard, FRESH[:2])
    token = guard.bundle.manifest.model.vocabulary - 1
    given["input_ids"][:2, 1] = token
    broken(made / "fused_decode.onnx", token, np.nan)
    answers = _answers(made, given, 1)
    assert not answers[0]["flagged"].all()
    assert all(answer["flagged"][0] for answer in answers[1:])
    for name in ("span_score", "weightwatch_score"):
        assert all(np.isnan(answer[name][0]) for answer in answers[1:])
        assert all(np.isfinite(answer[name][1]) for answer in answers)


def test_nothing_read_is_flagged(path: Path) -> None:
    """A text is flagged before its first unmasked token."""
    given = fed(load(path), FRESH[:2])
    given["attention_mask"][:] = 0
    assert _answers(path, given, 4)[-1]["flagged"].all()


def test_it_holds_standard_operators_alone(path: Path) -> None:
    """Only standard operators; cache and logits are those of the decode graph."""
    model = onnx.load(str(path / "fused_decode.onnx"))
    assert {item.domain for item in model.opset_import} == {""}
    onnx.checker.check_model(model, full_check=True)
    names = {item.name for item in model.graph.output}
    assert {"logits", "key_00", "value_02", "flagged"} <= names
    assert not {name for name in names if name.startswith("state_")}


def test_the_decode_graph_takes_its_own_name(path: Path) -> None:
    """Both graphs are listed; the decode graph has states."""
    cards = Bundle.load(path).manifest.fused
    assert {name: card.file for name, card in cards.items()} == {
        "score": "fused.onnx", "decode": "fused_decode.onnx",
    }  # fmt: skip
    assert cards["score"].states == {}
    assert cards["decode"].states["past_tokens_read"] == "tokens_read"
    assert set(cards["decode"].states) <= set(cards["decode"].inputs)
