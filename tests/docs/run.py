"""Runs the tutorials and guides as they are written, on all-MiniLM-L6-v2, in a temporary folder.

    python -m tests.docs.run [PAGE ...]

Shell and Python blocks of the pages run in order; the first tutorial builds the bundle that the
others use. Blocks marked ``<!-- not run: why -->`` are left out, and so are installations.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.docs.blocks import ROOT, Block, blocks, commands, lines

ORDER = (
    "tutorials/platform-engineer.md",
    "tutorials/operations.md",
    "tutorials/service-python.md",
    "tutorials/service-c.md",
    "streams.md",
    "engines.md",
    "fused-graphs.md",
    "triton.md",
    "signing-and-packing.md",
    "command-line.md",
    "api/runtime.md",
    "tutorials/model-owner.md",
    "evaluation.md",
    "calibration.md",
    "api/calibration.md",
)
"""Most pages score the bundle of the first one; the last two calibrate it anew."""

_LEFT_OUT = ("pip", "make")
_MAY_FLAG = ("score", "generate", "audit")


def main(pages: list[str]) -> int:
    """Run pages, all by default; 1 where a block fails."""
    with TemporaryDirectory(prefix="layerguard-docs-") as folder:
        os.chdir(folder)
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        for name in pages or ORDER:
            page, names = ROOT / "docs" / name, {"__name__": "__main__"}
            for block in blocks(page, "sh", "python"):
                if not _run(block, names):
                    return 1
    return 0


def _run(block: Block, names: dict[str, Any]) -> bool:
    """Run one block; whether it went well."""
    if block.not_run:
        print(f"{block}: not run, {block.not_run}", flush=True)
        return True
    if block.language == "sh":
        return all(_shell(block, line) for line in lines(block.text))
    begin = time.perf_counter()
    exec(compile(block.text, str(block), "exec"), names)
    print(f"{block}: Python, {time.perf_counter() - begin:.1f} s", flush=True)
    return True


def _shell(block: Block, line: str) -> bool:
    """Run one line; whether its exit code is one that the command may have."""
    words = list(commands(line))[-1]
    if words[0] in _LEFT_OUT:
        return True
    begin = time.perf_counter()
    done = subprocess.run(
        ["bash", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    allowed = (0, 1) if words[0] == "layerguard" and words[1] in _MAY_FLAG else (0,)
    print(f"{block}: exit code {done.returncode}, {time.perf_counter() - begin:.1f} s: {line}")
    if done.returncode not in allowed:
        print(done.stdout.decode(errors="replace"))
    sys.stdout.flush()
    return done.returncode in allowed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
