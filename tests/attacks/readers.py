"""What reads the input of strangers, as functions of bytes: for the fuzzer, and for replays."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from jinja2 import TemplateError

from layerguard.runtime import LayerGuardError
from layerguard.runtime.bundle.manifest import read_manifest
from layerguard.runtime.rows.jsonl import read_rows
from layerguard.runtime.text.request import Request
from layerguard.runtime.text.template import Template
from tests.attacks.contracts import Contracts, decoded
from tests.attacks.unread import chat_guard

EXPECTED = (LayerGuardError, TemplateError)
"""The errors that an input may give."""

Reader = Callable[[bytes], object]


def readers(folder: Path, stack: ExitStack) -> dict[str, Reader]:
    """The readers by name; they write into ``folder``, and ``stack`` ends them."""
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
