"""Lets atheris (libFuzzer for Python) look for inputs that give an error other than LayerGuard's.

    python -m tests.attacks.fuzz manifest|rows|template|request|http [FOLDER ...] [-OPTION=VALUE]

Options and folders of inputs are libFuzzer's. It starts from ``tests/attacks/corpus/TARGET`` and
from what was found before (``found.py``), and ``http`` from the body of each contract's client; new
inputs are kept in the first folder. `make fuzz` runs every target.
"""

import contextlib
import gc
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FunctionType

import atheris

from tests.attacks.contracts import encoded
from tests.attacks.found import found
from tests.attacks.readers import EXPECTED, readers
from tests.runtime.server.contracts.forms import FORMS

_SEEN = ("layerguard", "jinja2")
_CORPUS = Path(__file__).parent / "corpus"


def seeds(name: str, folder: Path) -> list[Path]:
    """The folders of the inputs that a target starts from."""
    made = folder / "seeds"
    made.mkdir()
    for key, data in found(name).items():
        (made / key).write_bytes(data)
    if name != "http":
        return [_CORPUS / name, made]
    for number in range(len(FORMS)):
        (made / str(number)).write_bytes(encoded(number))
    return [made]


def instrument() -> None:
    """Let atheris see which branches of LayerGuard and of jinja2 are taken.

    Its hook of the import does not see modules of an editable installation.
    """
    for item in gc.get_objects():
        if isinstance(item, FunctionType) and f"{item.__module__}".startswith(_SEEN):
            atheris.instrument_func(item)


def main(name: str, arguments: list[str]) -> None:
    """Feed one target until libFuzzer ends the process."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="layerguard-fuzz-")))
        target = readers(folder, stack)[name]

        def feed(data: bytes) -> None:
            with contextlib.suppress(*EXPECTED):
                target(data)

        folders = [argument for argument in arguments if not argument.startswith("-")]
        options = [argument for argument in arguments if argument.startswith("-")]
        instrument()
        atheris.Setup([sys.argv[0], *options, *folders, *map(str, seeds(name, folder))], feed)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
