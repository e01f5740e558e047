"""An environment of its own for a peer: nothing of it touches the one that is tested."""

import subprocess
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def python_with(requirement: str) -> Path:
    """A Python that has the package, with the versions of ``.ci/constraints.txt``.

    It is made once, under ``.cache/peers``; torch goes first, so that no package chooses another.
    """
    folder = ROOT / ".cache" / "peers" / requirement.replace("==", "-")
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.is_file():
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--constraint",
               str(ROOT / ".ci" / "constraints.txt")]  # fmt: skip
        for wanted in ("torch", requirement):
            subprocess.run([*pip, wanted], check=True)
        ready.touch()
    return python
