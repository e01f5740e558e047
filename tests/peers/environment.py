"""An environment of its own for a peer: nothing of it touches the one that is tested."""

import subprocess
import venv
from pathlib import Path
from sysconfig import get_path

ROOT = Path(__file__).resolve().parents[2]


def python_with(requirement: str, *others: str, constrained: bool = True) -> Path:
    """A Python that has the packages.

    It is made once, under ``.cache/peers``, by the name of the first package. What this
    environment has, such as torch and LayerGuard, can be imported there too, and is not installed
    again. ``constrained``: other versions than those of ``.ci/constraints.txt`` are refused.

    Raises:
        CalledProcessError: pip cannot install the packages.
    """
    folder = ROOT / ".cache" / "peers" / requirement.replace("==", "-")
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.is_file():
        venv.create(folder, with_pip=True, clear=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        shared = f"import site; site.addsitedir({get_path('purelib')!r})\n"
        (packages / "shared.pth").write_text(shared, encoding="utf-8")
        limits = ["--constraint", str(ROOT / ".ci" / "constraints.txt")] if constrained else []
        pip = [str(python), "-m", "pip", "install", "--quiet", *limits]
        subprocess.run([*pip, requirement, *others], check=True)
        ready.touch()
    return python
