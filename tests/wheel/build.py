"""Build sdist and wheel twice, see that the bytes agree, audit them, and keep one of each.

    python tests/wheel/build.py dist

The second time everything differs that should not matter: the folder, the umask, the hash seed, the
time zone, and it starts from the first one's sdist, which so proves to be complete. Stops at the
first thing that is not as promised.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

REPOSITORY = Path(__file__).resolve().parents[2]
MAX_WHEEL_MB = 5
SCRIPTS = Path(sysconfig.get_path("scripts"))
OTHER = {"PYTHONHASHSEED": "7", "TZ": "Pacific/Auckland", "LC_ALL": "C"}


def main(out: Path) -> None:
    """Build, compare, audit, copy to ``out``."""
    epoch = {"SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH") or _last_change()}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        first = _build(REPOSITORY, home / "first", epoch)
        with tarfile.open(next(first.glob("*.tar.gz"))) as archive:
            archive.extractall(home / "a folder of another name", filter="data")
        sources = next((home / "a folder of another name").iterdir())
        (sources / "PKG-INFO").unlink()  # which every build writes anew
        again = _build(sources, home / "again", {**epoch, **OTHER}, umask=0o077)
        for path in sorted(first.iterdir()):
            digest, other = _sha256(path), _sha256(again / path.name)
            _expect(f"built twice, the same bytes: {path.name} {digest[:16]}", digest == other)

        wheel = next(first.glob("*.whl"))
        size = wheel.stat().st_size / 2**20
        _expect(f"wheel of {size:.2f} MB", size < MAX_WHEEL_MB)
        _expect_sbom(wheel)
        print(_run(SCRIPTS / "abi3audit", "--strict", "--report", wheel, env=epoch))
        out.mkdir(parents=True, exist_ok=True)
        for path in first.iterdir():
            shutil.copy(path, out)
        print(_run(SCRIPTS / "auditwheel", "show", wheel))


def _build(sources: Path, out: Path, settings: dict[str, str], umask: int = 0o022) -> Path:
    """Sdist, then from it the wheel, then its manylinux form alone."""
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", out, sources)
    _run(*command, env=settings, umask=umask)
    built = next(out.glob("*.whl"))
    # auditwheel writes down the modes of its folders
    _run(SCRIPTS / "auditwheel", "repair", "-w", out, built, env=settings, umask=0o022)
    built.unlink()
    return out


def _expect_sbom(wheel: Path) -> None:
    """The bill of materials stands where PEP 770 wants it and is what CycloneDX defines."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".cdx.json")]
        texts = [archive.read(name).decode() for name in names]
    faults = [JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) for text in texts]
    inside = [component["name"] for text in texts for component in json.loads(text)["components"]]
    placed = bool(names) and all(".dist-info/sboms/" in name for name in names)
    _expect(f"{', '.join(names)}: {', '.join(inside)}", placed and not any(faults))


def _last_change() -> str:
    return _run("git", "-C", REPOSITORY, "log", "-1", "--format=%ct").strip()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(*command: object, env: dict[str, str] | None = None, umask: int = -1) -> str:
    settings = {**os.environ, "PATH": f"{SCRIPTS}:{os.environ['PATH']}", **(env or {})}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True, text=True, env=settings, umask=umask, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def _expect(what: str, well: bool) -> None:
    print(f"{'ok   ' if well else 'WRONG'}  {what}", flush=True)
    if not well:
        sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
