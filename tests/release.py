"""Before a release: do tag, version and changelog agree? Writes the notes of the release.

python -m tests.release v0.2.0
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def notes(changelog: str, version: str) -> str | None:
    """The section of a version without its heading; None where there is none."""
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    found = [s for s in sections if re.match(rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n", s)]
    return found[0].partition("\n")[2].strip() if found else None


def main(tag: str) -> int:
    """Check a tag; 1 where something disagrees."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    if tag != f"v{version}":
        print(f"found the tag {tag!r}; expected v{version}, the version in pyproject.toml")
        return 1
    text = notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    if not text:
        print(f"found no section of {version} in CHANGELOG.md; expected '## [{version}] - DATE'")
        return 1
    target = ROOT / "build" / "release-notes.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(f"{text}\n", encoding="utf-8")
    print(f"{tag}: notes are in {target.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
