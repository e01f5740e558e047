"""``layerguard drift fit`` writes a monitor that ``drift check`` uses."""

import json
from pathlib import Path
from typing import Any

import pytest

from layerguard.calibration.drift.runs import LEAST_CHECKPOINTS
from layerguard.runtime.cli import main
from layerguard.runtime.drift import CheckpointMonitor
from tests.calibration.report.parsed_page import check_page
from tests.drift_monitors import (
    PERTURBATIONS,
    PROMPTS,
    TRAITS,
    make_base,
    make_checkpoint,
    make_runs,
    reseal,
    write_runs,
    write_traits,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A base, twelve labelled checkpoints and a trait file; no test changes them."""
    folder = tmp_path_factory.mktemp("drift")
    base = make_base(folder / "base", "[CLS]")
    rows = make_runs(base, folder)
    return {
        "folder": folder,
        "base": base,
        "rows": rows,
        "runs": write_runs(folder / "runs.jsonl", rows),
        "traits": write_traits(folder / "traits.yaml"),
    }


def fit(files: dict[str, Any], out: Path, *more: str, **other: Path) -> int:
    """The exit code of one fit, with the named files replaced."""
    used = {**files, **other}
    return main(
        ["drift", "fit", str(used["base"]), "--runs", str(used["runs"]), "--traits",
         str(used["traits"]), "-o", str(out), "--threads", "1", *more]
    )  # fmt: skip


def test_a_fit_shows_what_is_normal(files: dict[str, Any], tmp_path: Path) -> None:
    """The page has every trait with its ranges below and above tau, and every regressor."""
    path = tmp_path / "fit.html"
    assert fit(files, tmp_path / "m", "--html", str(path)) == 0
    page = check_page(path.read_text(encoding="utf-8"))
    monitor = CheckpointMonitor.load(tmp_path / "m")
    drifts, rates = (monitor.params[f"calibration_{name}"] for name in ("drift", "rates"))
    lines = page.table("trait")
    assert [line[0] for line in lines] == [trait.name for trait in monitor.manifest.traits]
    normal = drifts[rates <= monitor.manifest.threshold][:, 0]
    assert lines[0][2] == f"{normal.min():+.4f} to {normal.max():+.4f}"
    (chart,) = page.charts
    assert len(list(chart.iter("circle"))) == 2 * len(lines)
    assert len(page.table("leave one perturbation out")) == 3


@pytest.fixture(scope="module")
def fitted(files: dict[str, Any]) -> Path:
    """The monitor of those files."""
    out = Path(files["folder"]) / "monitor"
    assert fit(files, out, "--layer", "2") == 0
    return out


def test_a_fit_says_what_it_found(
    files: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output names layer, traits, runs and metrics; the same files give the same bytes."""
    assert fit(files, tmp_path / "m") == 0
    first = (tmp_path / "m" / "detectors.npz").read_bytes()
    out, err = capsys.readouterr()
    for words in (
        "chosen by held-out separation (1: ",
        "12 checkpoints, 6 above tau 5 %, of 3 perturbations",
        "random_forest", "gradient_boosting", "ridge", "(frozen)", f"wrote {tmp_path / 'm'}",
    ):  # fmt: skip
        assert words in out
    assert err == ""
    assert fit(files, tmp_path / "m") == 0
    assert (tmp_path / "m" / "detectors.npz").read_bytes() == first


def test_a_monitor_says_where_it_comes_from(fitted: Path) -> None:
    """The manifest records base, layer, prompts and runs; a check needs no other file."""
    manifest = CheckpointMonitor.load(fitted).manifest
    assert manifest.base.model.id == "tiny"
    assert manifest.layer == 2
    assert manifest.prompts == PROMPTS
    assert tuple(trait.name for trait in manifest.traits) == TRAITS
    assert manifest.calibration.perturbations == tuple(sorted(PERTURBATIONS))
    assert manifest.calibration.checkpoints == 12
    assert {path.name for path in fitted.iterdir()} == {"manifest.json", "detectors.npz"}


def test_checks_agree_with_the_fit(files: dict[str, Any], fitted: Path) -> None:
    """A check gives a training checkpoint the drift of the fit, and the base no drift."""
    monitor = CheckpointMonitor.load(fitted)
    for number in (3, 8):
        path = Path(files["folder"]) / files["rows"][number]["bundle"]
        found = [trait.drift for trait in monitor.check(path, threads=1).traits]
        assert found == monitor.params["calibration_drift"][number].tolist()
    base = monitor.check(files["base"], threads=1)
    assert [trait.drift for trait in base.traits] == [0.0, 0.0]


def test_the_exit_code_stops_a_pipeline(
    files: dict[str, Any], fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint with the drift of the dangerous ones exits with 1, the base with 0."""
    far = make_checkpoint(files["base"], tmp_path / "far", 0.6, seed=0)
    codes = []
    for path in (far, files["base"]):
        codes.append(main(["drift", "check", str(fitted), str(path), "--json", "--threads", "1"]))
        reading = json.loads(capsys.readouterr().out)
        assert reading["alarm"] == (reading["predicted"] > 0.05)
    assert codes == [1, 0]


def test_one_trait_alone_can_be_monitored(files: dict[str, Any], tmp_path: Path) -> None:
    """``--only`` sets the traits, and ``--tau`` the threshold."""
    out = tmp_path / "m"
    assert fit(files, out, "--only", "sycophancy", "--tau", "0.1", "--layer", "2") == 0
    monitor = CheckpointMonitor.load(out)
    assert [trait.name for trait in monitor.manifest.traits] == ["sycophancy"]
    assert monitor.manifest.threshold == 0.1


def test_a_step_aware_monitor_is_fitted_and_asks_for_steps(
    files: dict[str, Any], tmp_path: Path
) -> None:
    """A benign run longer than the others allows the fit; checks then need ``--step``."""
    folder, base = Path(files["folder"]), str(files["base"])
    anchor = [
        {"bundle": "gardens-2", "run": "anchor", "perturbation": "support", "step": step,
         "misalignment": 0.0}
        for step in (1000, 2000)
    ]  # fmt: skip
    runs = write_runs(folder / "long.jsonl", [*files["rows"], *anchor])
    out = tmp_path / "m"
    assert fit(files, out, "--step-aware", "--layer", "2", runs=runs) == 0
    assert main(["drift", "check", str(out), base, "--threads", "1"]) == 2
    assert main(["drift", "check", str(out), base, "--threads", "1", "--step", "500"]) == 0
    assert fit(files, tmp_path / "n", "--step-aware") == 2


def test_every_checkpoint_that_cannot_be_read_is_named(
    files: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing bundle and one of another model are both reported; nothing is written."""
    other = make_checkpoint(files["base"], tmp_path / "other", 0.1)
    reseal(other, vocabulary=99)
    rows = [{**row, "bundle": str(Path(files["folder"]) / row["bundle"])} for row in files["rows"]]
    rows[1]["bundle"], rows[2]["bundle"] = str(tmp_path / "none"), str(other)
    assert fit(files, tmp_path / "m", runs=write_runs(tmp_path / "runs.jsonl", rows)) == 2
    err = capsys.readouterr().err
    assert "2 of 12 checkpoints cannot be read" in err
    assert "model.vocabulary is 99; the base model's is 28" in err
    assert "manifest.json: No such file" in err
    assert not (tmp_path / "m").exists()


def test_copies_of_a_checkpoint_count_once(
    files: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The help says how many different ones are needed, and so does the refusal."""
    folder = Path(files["folder"])
    rows = [
        {**row, "bundle": str(folder / files["rows"][number % 3]["bundle"])}
        for number, row in enumerate(files["rows"])
    ]
    assert fit(files, tmp_path / "m", runs=write_runs(tmp_path / "runs.jsonl", rows)) == 2
    expected = f"12 checkpoints with 3 different contents; expected {LEAST_CHECKPOINTS} or more"
    assert expected in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["drift", "fit", "--help"])
    assert f"At least {LEAST_CHECKPOINTS} different checkpoints" in capsys.readouterr().out


def test_a_bundle_is_not_overwritten(
    files: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """``-o`` with a bundle's folder is refused before any work."""
    before = (files["base"] / "manifest.json").read_bytes()
    assert fit(files, files["base"]) == 2
    assert "is not a drift monitor; name a new folder" in capsys.readouterr().err
    assert (files["base"] / "manifest.json").read_bytes() == before
