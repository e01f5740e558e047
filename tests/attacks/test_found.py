"""Every input that the fuzzer found is read, or refused with an error of LayerGuard's."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.attacks.found import TARGETS, found
from tests.attacks.readers import EXPECTED, Reader, readers


@pytest.fixture(scope="module")
def by_name(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Reader]]:
    """The readers."""
    with ExitStack() as stack:
        yield readers(tmp_path_factory.mktemp("readers"), stack)


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_gives_another_error(by_name: dict[str, Reader], target: str) -> None:
    """``make fuzz`` looks for further ones."""
    inputs = found(target)
    assert len(inputs) > 50
    for name, data in inputs.items():
        with suppress(*EXPECTED):
            try:
                by_name[target](data)
            except EXPECTED:
                raise
            except BaseException as error:
                error.add_note(f"{target}: input {name}, {data[:80]!r}")
                raise


def test_every_reader_is_a_target(tmp_path: Path) -> None:
    """None is left out of the archive."""
    with ExitStack() as stack:
        assert tuple(readers(tmp_path, stack)) == TARGETS
