"""The mode of a calibration that names none."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from layerguard.calibration import calibrate
from layerguard.calibration.guard.mode import chosen_mode
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.cli import main
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request
from tests.calibration.synthetic import sentences, write_rows


def rows(sources: Sequence[str | None], domain: str | None = None) -> list[Row]:
    """One row of a text of its own for each source."""
    return [
        Row(str(i), request(f"text {i}"), domain=domain, source=source)
        for i, source in enumerate(sources)
    ]


def test_four_named_sources_of_30_texts_are_held_out_one_at_a_time() -> None:
    """Fewer sources, or one with fewer texts, keep random folds; the reason says what was found."""
    four = [name for name in "abcd" for _ in range(30)]
    assert chosen_mode(None, rows(four)).mode == "by-source"
    assert "name 4 sources of 30 texts" in chosen_mode(None, rows(four)).reason
    for fewer in (four[:-1], four[:90], [None] * 120):
        assert chosen_mode(None, rows(fewer)).mode == "cross-fit"
    assert "name 3 sources" in chosen_mode(None, rows(four[:-1])).reason
    assert "by-source needs 4" in chosen_mode(None, rows(four[:-1])).reason


def test_a_domain_is_no_source_for_the_default() -> None:
    """Domains may have thresholds of their own, for traffic that was seen."""
    assert chosen_mode(None, rows([None] * 120, "mail")).mode == "cross-fit"


def test_a_text_of_several_sources_counts_for_the_first() -> None:
    """So the folds, which deal texts in the same way, are at least four."""
    same = [Row(name, request(f"t {i}"), source=name) for name in "abcd" for i in range(30)]
    assert chosen_mode(None, same).mode == "cross-fit"


def test_the_users_mode_is_kept_without_a_reason() -> None:
    """Also where the rows name enough sources."""
    four = rows([name for name in "abcd" for _ in range(30)])
    assert chosen_mode("cross-fit", four) == chosen_mode("cross-fit", [])
    assert chosen_mode("loo", four).mode == "loo"
    assert not chosen_mode("cross-fit", four).reason


def test_calibrate_uses_and_explains_the_default(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Summary and manifest say which mode was used and why; each source is left out for the vote.

    ``--mode cross-fit`` gives what it gave.
    """
    named = [{"text": text, "source": f"s{i % 4}"} for i, text in enumerate(sentences(120, 0))]
    path = write_rows(tmp_path / "clean.jsonl", named)
    call = ["calibrate", str(bundle), "--clean", str(path), "--target-fpr", "0.05"]
    assert main(call) == 0
    manifest = Bundle.load(bundle).manifest
    card, reason = manifest.detectors["lcf"], "the clean rows name 4 sources of 30 texts or more"
    assert card.method == "by-source"
    assert card.settings == {"sources": 4, "method_reason": reason}
    assert f"lcf: by-source, 120 rows, threshold {card.threshold:.4g} (default: {reason})" in (
        capsys.readouterr().out
    )
    assert manifest.decision is not None
    assert manifest.decision.fpr_interval[0] == card.fpr_interval[0] == 0
    assert manifest.votes is not None
    assert set(manifest.votes.detectors["lcf"].unseen) == {"s0", "s1", "s2", "s3"}
    assert main([*call, "--mode", "cross-fit"]) == 0
    other = Bundle.load(bundle).manifest.detectors["lcf"]
    assert (other.method, other.settings) == ("cross-fit", {"folds": 20})
    assert other.fpr_interval[0] > 0
    assert other.threshold != card.threshold
    plain = calibrate(bundle, clean=[path], target_fpr=0.05, mode="by-source").detectors["lcf"]
    assert (plain.threshold, plain.settings) == (card.threshold, {"sources": 4})
