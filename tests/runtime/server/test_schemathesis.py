"""schemathesis sends what the OpenAPI document allows and forbids, and finds nothing wrong."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import tiny_decoder
from tests.runtime.server.processes import served

_COMMAND = os.environ.get("SCHEMATHESIS") or shutil.which("schemathesis")
_SETTINGS = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "4xx", 503]
"""
"""503 is the right answer to a deadline of a millisecond."""


@pytest.mark.skipif(
    _COMMAND is None,
    reason="needs schemathesis, in an environment of its own; SCHEMATHESIS names its command",
)
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    """In the calls whose bodies are JSON; those of ``/v1/stream`` are lines, which it cannot make.

    The bundle is a decoder's, so that ``/v1/generate`` answers.
    """
    (tmp_path / "settings.toml").write_text(_SETTINGS, encoding="utf-8")
    with served(tiny_decoder.make_bundle(tmp_path / "bundle")) as (_, port):
        done = subprocess.run(
            [
                str(_COMMAND), "--config-file", str(tmp_path / "settings.toml"), "run",
                f"http://127.0.0.1:{port}/openapi.json", "--exclude-path", "/v1/stream",
                "--max-examples", "30", "--request-timeout", "60", "--seed", "1", "--no-color",
            ],
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout
