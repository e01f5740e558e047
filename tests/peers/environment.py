"""An environment of its own for a peer: nothing of it touches the one that is tested."""

import subprocess
import venv
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def python_with(requirement: str) -> Path:
    """A Python that has the package, with the versions of ``.ci/constraints.txt``.

    It is made once, under ``.cache/peers``. Packages of this environment, such as torch, can be
    imported there too and are not installed again.

    Raises:
        CalledProcessError: pip cannot install the package.
    """
    folder = ROOT / ".cache" / "peers" / requirement.replace("==", "-")
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.is_file():
        venv.create(folder, with_pip=True, clear=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "shared.pth").write_text(f"{_shared_packages()}\n", encoding="utf-8")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--constraint",
               str(ROOT / ".ci" / "constraints.txt")]  # fmt: skip
        subprocess.run([*pip, requirement], check=True)
        ready.touch()
    return python


def _shared_packages() -> Path:
    """The folder that holds torch."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        raise SystemExit("torch is absent: run `make peers`, which installs it")
    return Path(spec.origin).parents[1]
