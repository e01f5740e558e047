"""Readers of a bundle that is replaced under them: they find one whole bundle, old or new."""

import itertools
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from layerguard.runtime import Bundle, BundleError, Guard, Reading
from layerguard.runtime import guard as guard_module
from layerguard.runtime.bundle import load as load_module
from layerguard.runtime.bundle.write import replacing
from tests.runtime.tamper import put, within
from tests.tiny import make_bundle, make_graph, make_params, rescore

_TEXT = "the garden"


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two bundles that differ in graph and parameters."""
    folder = tmp_path_factory.mktemp("variants")
    made = [make_bundle(folder / f"v{seed}", make_params(seed)) for seed in (0, 1)]
    put(made[1], "score.onnx", make_graph("pooled", seed=1)[0].SerializeToString())
    rescore(made[1])
    return made


@pytest.fixture(scope="module")
def expected(variants: list[Path]) -> Mapping[str, Mapping[str, Reading]]:
    """By bundle id, the readings of one text."""
    guards = [Guard.load(variant, threads=1) for variant in variants]
    return {one.bundle.id: one.check(_TEXT).readings for one in guards}


def _replace(bundle: Path, variant: Path) -> None:
    """Put a copy of ``variant`` in the place of ``bundle``."""
    with replacing(bundle) as folder:
        for path in variant.iterdir():
            shutil.copyfile(path, folder / path.name)


def test_a_bundle_replaced_after_it_was_verified_is_read_again(
    tmp_path: Path,
    variants: list[Path],
    expected: Mapping[str, Mapping[str, Reading]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The graph that is opened is the one that was verified, with the parameters beside it."""
    bundle = tmp_path / "bundle"
    _replace(bundle, variants[0])
    backbone, new = guard_module.Backbone, [variants[1]]

    def late(*arguments: Any) -> Any:
        if new:
            _replace(bundle, new.pop())
        return backbone(*arguments)

    monkeypatch.setattr(guard_module, "Backbone", late)
    guard = Guard.load(bundle, threads=1)
    assert guard.bundle.id == Bundle.load(variants[1]).id
    assert guard.check(_TEXT).readings == expected[guard.bundle.id]


@pytest.mark.parametrize("times", [1, 5])
def test_a_bundle_replaced_while_it_is_verified_is_read_again(
    tmp_path: Path, variants: list[Path], monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Hashes of the one against the manifest of the other are no fault of either."""
    bundle = tmp_path / "bundle"
    _replace(bundle, variants[0])
    verify, new = load_module.file_faults, [variants[i % 2] for i in range(times, 0, -1)]

    def late(*arguments: Any) -> Any:
        if new:
            _replace(bundle, new.pop())
        return verify(*arguments)

    monkeypatch.setattr(load_module, "file_faults", late)
    assert Bundle.load(bundle).id == Bundle.load(variants[1]).id


def test_a_bundle_that_never_stands_still_is_refused(
    tmp_path: Path, variants: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replaced each time it is read, a bundle is given up with the reason."""
    bundle = tmp_path / "bundle"
    _replace(bundle, variants[0])
    verify, new = load_module.file_faults, itertools.cycle(variants)

    def late(*arguments: Any) -> Any:
        _replace(bundle, next(new))
        return verify(*arguments)

    monkeypatch.setattr(load_module, "file_faults", late)
    with pytest.raises(BundleError, match="was replaced 20 times while it was read"):
        Bundle.load(bundle)


def test_a_reader_finds_the_old_or_the_new_bundle_and_never_a_mixture(
    tmp_path: Path, variants: list[Path], expected: Mapping[str, Mapping[str, Reading]]
) -> None:
    """Loading while the bundle is replaced over and over gives one whole bundle each time."""
    bundle = tmp_path / "bundle"
    done = threading.Event()
    failures: list[BaseException] = []

    def replace_again_and_again() -> None:
        try:
            for variant in itertools.cycle(variants):
                _replace(bundle, variant)
                if done.wait(0.05):
                    return
        except BaseException as error:  # noqa: BLE001  whatever it is fails the test below
            failures.append(error)

    _replace(bundle, variants[0])
    writer = threading.Thread(target=replace_again_and_again)
    writer.start()
    found: list[Guard] = []
    try:
        with within(60):
            while len(found) < 40 or {one.bundle.id for one in found} != set(expected):
                found.append(Guard.load(bundle, threads=1))
    finally:
        done.set()
        writer.join()
    assert not failures
    assert all(one.check(_TEXT).readings == expected[one.bundle.id] for one in found)
