"""The inputs that the fuzzer found, each of which took a branch that no earlier one took.

    python -m tests.attacks.found [FOLDER]

keeps those of ``build/fuzz``, or of another folder with a folder for each target, in
``corpus/found.tar.xz``, beside those that it already has.
"""

import sys
import tarfile
from io import BytesIO
from pathlib import Path

ARCHIVE = Path(__file__).parent / "corpus" / "found.tar.xz"
TARGETS = ("manifest", "rows", "template", "request", "http")


def found(target: str) -> dict[str, bytes]:
    """The inputs of one target, by name."""
    inputs: dict[str, bytes] = {}
    with tarfile.open(ARCHIVE, "r:xz") as archive:
        for member in archive:
            kind, _, name = member.name.partition("/")
            content = archive.extractfile(member)
            if kind == target and content is not None:
                inputs[name] = content.read()
    return inputs


def main(folder: Path) -> None:
    """Write the archive anew, with the same bytes for the same inputs."""
    inputs = {f"{t}/{n}": data for t in TARGETS for n, data in found(t).items()}
    for target in TARGETS:
        for path in (folder / target).glob("*"):
            inputs[f"{target}/{path.name}"] = path.read_bytes()
    with tarfile.open(ARCHIVE, "w:xz") as archive:
        for name in sorted(inputs):
            member = tarfile.TarInfo(name)
            member.size = len(inputs[name])
            archive.addfile(member, BytesIO(inputs[name]))
    print(f"{len(inputs)} inputs, {ARCHIVE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(Path(*sys.argv[1:2] or ["build/fuzz"]))
