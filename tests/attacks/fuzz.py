"""Lets atheris (libFuzzer for Python) look for inputs that give an error other than LayerGuard's.

    python -m tests.attacks.fuzz manifest|rows|template|request|http [FOLDER ...] [-OPTION=VALUE]

Options and folders of inputs are libFuzzer's. It starts from ``tests/attacks/corpus/TARGET``, and
``http`` from the body of each contract's client; new inputs are kept in the first folder.
`make fuzz` runs every target.
"""

import contextlib
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FunctionType

import atheris
from jinja2 import TemplateError

from layerguard.runtime import LayerGuardError
from layerguard.runtime.bundle.manifest import read_manifest
from layerguard.runtime.rows.jsonl import read_rows
from layerguard.runtime.text.request import Request
from layerguard.runtime.text.template import Template
from tests.attacks.contracts import Contracts, decoded, encoded
from tests.attacks.unread import chat_guard
from tests.runtime.server.contracts.forms import FORMS

_SEEN = ("layerguard", "jinja2")
_CORPUS = Path(__file__).parent / "corpus"


def targets(folder: Path, stack: contextlib.ExitStack) -> dict[str, Callable[[bytes], object]]:
    """What reads the input of strangers."""
    guard = chat_guard(folder)
    path = folder / "rows.jsonl"

    def rows(data: bytes) -> None:
        path.write_bytes(data)
        for row in read_rows([path]).good:
            guard.check_requests([row.request], [row.domain])

    def template(data: bytes) -> None:
        source = data.decode("utf-8", "replace")
        one = Request("a", None, ({"role": "user", "content": "a"},))
        Template("chat", source, {"eos_token": "[SEP]"}, ["[SEP]"]).render(one)

    def request(data: bytes) -> None:
        try:
            arguments = json.loads(data)
        except (ValueError, RecursionError):
            return
        guard.check_batch([arguments])

    contracts = stack.enter_context(Contracts(guard.bundle.path))

    def http(data: bytes) -> None:
        contracts.post(*decoded(data))

    return {
        "manifest": read_manifest,
        "rows": rows,
        "template": template,
        "request": request,
        "http": http,
    }


def seeds(name: str, folder: Path) -> Path:
    """The folder of the inputs that a target starts from."""
    if name != "http":
        return _CORPUS / name
    made = folder / "seeds"
    made.mkdir()
    for number in range(len(FORMS)):
        (made / str(number)).write_bytes(encoded(number))
    return made


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
        target = targets(folder, stack)[name]

        def feed(data: bytes) -> None:
            with contextlib.suppress(LayerGuardError, TemplateError):
                target(data)

        folders = [argument for argument in arguments if not argument.startswith("-")]
        options = [argument for argument in arguments if argument.startswith("-")]
        instrument()
        atheris.Setup([sys.argv[0], *options, *folders, str(seeds(name, folder))], feed)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
