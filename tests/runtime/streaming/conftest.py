"""Guards on a toy decoder with all detectors, and on an encoder; texts in many alphabets."""

from pathlib import Path

import pytest

from layerguard.runtime import Guard
from tests import tiny, tiny_decoder


@pytest.fixture(scope="session")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    """A guard on the toy decoder: LCF, SIREN and WeightWatch."""
    folder = tmp_path_factory.mktemp("decoder") / "bundle"
    return Guard.load(tiny_decoder.make_bundle(folder), threads=1)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    """A guard on the toy encoder, which cannot continue from a cache."""
    return Guard.load(tiny.make_bundle(tmp_path_factory.mktemp("encoder") / "bundle"), threads=1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the bundles of one module."""
    return tmp_path_factory.mktemp("bundles")
